//! Rows in memory.

use std::sync::Arc;

use kelvin_protocol::{Value, Version};

/// Dense number of a row within its table. It stays with the primary key as long as the row lives.
pub type RowId = u32;

/// One version of one row. Cloning shares the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Commit LSN of the transaction that wrote it.
    pub version: Version,
    /// Its number.
    pub id: RowId,
    /// One value for each column of the table, in the table's order.
    pub values: Arc<[Value]>,
}

impl Row {
    /// The values at these column positions, such as a table's key.
    #[must_use]
    pub fn project(&self, columns: &[usize]) -> Vec<Value> {
        columns.iter().map(|at| self.values[*at].clone()).collect()
    }
}
