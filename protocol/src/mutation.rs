//! Mutations as clients push them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::MutationId;

/// Body of a `push` message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushBody {
    /// The group that made the mutations.
    #[serde(rename = "clientGroupID")]
    pub client_group_id: String,
    /// In order of their ids for each client.
    pub mutations: Vec<Mutation>,
    /// Version of this body's form; 1.
    pub push_version: f64,
    /// Legacy, handed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<f64>,
    /// When it was sent, milliseconds of the client's clock.
    pub timestamp: f64,
    /// Names this push in logs.
    #[serde(rename = "requestID")]
    pub request_id: String,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Which way a mutation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MutationKind {
    /// Executed by this server.
    Crud,
    /// Executed by the application's endpoint.
    Custom,
}

/// One mutation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutation {
    /// Which way it goes.
    #[serde(rename = "type")]
    pub kind: MutationKind,
    /// Consecutive from 1 for each client.
    pub id: u64,
    /// The client that made it; not always the one that pushes it.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Name of the mutator; `_zero_crud` for CRUD.
    pub name: String,
    /// Arguments, handed on as they came.
    pub args: Vec<Box<RawValue>>,
    /// When it was made, milliseconds of the client's clock.
    pub timestamp: f64,
}

impl Mutation {
    /// Its name.
    #[must_use]
    pub fn mutation_id(&self) -> MutationId {
        MutationId {
            id: self.id,
            client_id: self.client_id.clone(),
        }
    }
}

/// The argument of a CRUD mutation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CrudArg {
    /// Executed in order, in one transaction.
    pub ops: Vec<CrudOp>,
}

/// One row operation of a CRUD mutation, in server names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrudOp {
    /// What to do.
    pub op: CrudOpKind,
    /// Server name of the table.
    pub table_name: String,
    /// Columns that identify the row.
    pub primary_key: Vec<String>,
    /// Column values; only the key's with `delete`.
    pub value: serde_json::Map<String, serde_json::Value>,
}

/// Kind of a [`CrudOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrudOpKind {
    /// Write a row unless there is one.
    Insert,
    /// Write a row, or change the one there is.
    Upsert,
    /// Change a row.
    Update,
    /// Remove a row.
    Delete,
}
