//! What is written to the replica, and what that changed.

use std::collections::{BTreeMap, HashMap};

use kelvin_protocol::{Value, Version};

use crate::{Row, SchemaChange, TableId};

/// One upstream transaction.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Its commit LSN.
    pub version: Version,
    /// Its row operations, in upstream order.
    pub ops: Vec<RowOp>,
}

/// One upstream row operation. Rows and keys carry one value for each column of the table's
/// `columns`, or of its `key`.
#[derive(Clone, Debug)]
pub enum RowOp {
    /// Write a row; replaces a row of the same key, so that a replay is harmless.
    Insert {
        /// The table.
        table: TableId,
        /// All columns.
        row: Vec<Value>,
    },
    /// Replace a row.
    Update {
        /// The table.
        table: TableId,
        /// The key before, where it changed.
        old_key: Option<Vec<Value>>,
        /// All columns; [`Datum::Unchanged`] keeps what the old row has (TOAST).
        row: Vec<Datum>,
    },
    /// Remove a row, if it is there.
    Delete {
        /// The table.
        table: TableId,
        /// Its key.
        key: Vec<Value>,
    },
    /// Remove all rows.
    Truncate {
        /// The tables.
        tables: Vec<TableId>,
    },
    /// Change the schema, for the operations that follow. Its transaction is applied by itself.
    Schema(Box<SchemaChange>),
}

/// A new column value, or the note that the old one stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// A value.
    Value(Value),
    /// PostgreSQL did not send the value because it did not change.
    Unchanged,
}

/// What one [`apply`](crate::Replica::apply) changed.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Watermark before.
    pub from: Version,
    /// Watermark now.
    pub version: Version,
    /// Net changes between the two, at most one for a key, in no particular order. A table whose
    /// key changed in between has none.
    pub changes: Vec<RowChange>,
    /// Tables of which too many rows changed to tell which: any row may have. `changes` has none of
    /// them. In order.
    pub swept: Vec<TableId>,
    /// Tables that are new, gone, or have other columns or another key: all of their rows count as
    /// changed.
    pub altered: Vec<TableId>,
}

/// Which tables the transactions of a range of versions wrote to: what the changelog tells without
/// any row being read.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The transactions that wrote to a table, each with the number of rows it wrote.
    pub rows: HashMap<TableId, BTreeMap<Version, u64>>,
    /// The version at which a table was last altered, or written to in more rows than can be told.
    pub broken: HashMap<TableId, Version>,
}

/// Net change of one row between two versions. At least one side is there; both have the same key.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// The table.
    pub table: TableId,
    /// The row before, if there was one.
    pub old: Option<Row>,
    /// The row after, if there is one.
    pub new: Option<Row>,
}
