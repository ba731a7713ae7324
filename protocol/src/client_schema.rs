//! The schema a client declares when it connects for the first time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ValueType;

/// Tables, columns and keys a client relies on, in server names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSchema {
    /// By server name.
    pub tables: BTreeMap<String, ClientTable>,
}

/// One table of a [`ClientSchema`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTable {
    /// By server name.
    pub columns: BTreeMap<String, ClientColumn>,
    /// Columns that identify a row at the client, in the order the client sent them.
    pub primary_key: Vec<String>,
}

/// One column of a [`ClientTable`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientColumn {
    /// Its type.
    #[serde(rename = "type")]
    pub value_type: ValueType,
}
