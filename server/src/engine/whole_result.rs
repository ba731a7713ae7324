//! Encoding the whole result of a plan while its rows are read.

use kelvin_ivm::{Plan, RowDelta};
use kelvin_storage::{Catalog, Row, Table, TableId};

use super::patch::{PlanPatch, RowEncoder, push_put};
use crate::sync::row_json::EncodeError;

/// A result of which the rows come one by one, each once. It holds no row.
pub struct WholeResult<'a> {
    encoder: &'a RowEncoder,
    catalog: &'a Catalog,
    patch: PlanPatch,
    /// The row that is being written; kept for its memory.
    text: String,
    failed: Option<EncodeError>,
}

impl<'a> WholeResult<'a> {
    /// A result without rows yet. `catalog` is that of the version the rows are read at.
    #[must_use]
    pub fn new(encoder: &'a RowEncoder, plan: &Plan, catalog: &'a Catalog) -> Self {
        Self {
            encoder,
            catalog,
            patch: PlanPatch {
                plan: Some(plan.id()),
                ..PlanPatch::default()
            },
            text: String::new(),
            failed: None,
        }
    }

    /// Takes a row in. What is wrong with it is told in the end.
    pub fn add(&mut self, table: TableId, row: &Row) {
        if self.failed.is_some() {
            return;
        }
        let Some(table) = self.catalog.table_by_id(table) else {
            return;
        };
        if let Err(error) = self.encode(table, row) {
            self.failed = Some(error);
        }
    }

    fn encode(&mut self, table: &Table, row: &Row) -> Result<(), EncodeError> {
        if self.encoder.is_internal(table.id) {
            let change = RowDelta {
                table: table.id,
                old: None,
                new: Some(row.clone()),
            };
            self.encoder
                .encode_internal(table, &change, &mut self.patch)?;
            return Ok(());
        }
        self.text.clear();
        push_put(&mut self.text, table, row)?;
        self.patch.puts.push(self.text.as_str().into());
        Ok(())
    }

    /// The patch that adds all rows.
    ///
    /// # Errors
    /// If a row holds a value that no client can be sent.
    pub fn finish(self) -> Result<PlanPatch, EncodeError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.patch),
        }
    }
}
