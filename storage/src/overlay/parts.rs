//! An overlay that is written piece by piece, because the whole would not fit into memory.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use fjall::{Readable, Slice};
use kelvin_protocol::Version;

use super::{Overlay, Slots, Workshop};
use crate::error::Result;
use crate::gate::unpinned;
use crate::key::after_prefix;
use crate::layout::space_key;
use crate::table_space::TableSpace;
use crate::view::View;
use crate::{IndexId, Row, RowId, TableId};

/// Bytes of a row or entry beside its key and record, in the overlay and in the batch.
const SLOT_BYTES: usize = 256;
/// Bytes a row that was read keeps from being freed beside its own: the rest of its block.
const BLOCK_BYTES: usize = 4096;

/// Estimated bytes of a row that was looked at.
pub(super) fn row_weight(key: &[u8], row: Option<&Row>) -> usize {
    let record = row.map_or(0, |row| row.record().bytes().len() + BLOCK_BYTES);
    2 * key.len() + record + SLOT_BYTES
}

/// Estimated bytes of an index entry that is moved.
pub(super) fn entry_weight(key: &[u8]) -> usize {
    2 * key.len() + SLOT_BYTES
}

/// What one part of a transaction passes on to the next.
#[derive(Default)]
pub(crate) struct Carried {
    taken: HashMap<TableId, RowId>,
    grown: HashMap<TableId, i64>,
}

impl<'a> Overlay<'a> {
    /// Over what the parts so far have written; `base` holds them.
    pub(crate) fn resume(
        base: &View,
        free: &'a HashMap<TableId, RowId>,
        workshop: Workshop<'a>,
        carried: Carried,
    ) -> Self {
        let mut overlay = Self::new(base, free, workshop, Slots::default());
        overlay.taken = carried.taken;
        overlay.grown = carried.grown;
        overlay
    }

    /// What the next part has to know.
    pub(crate) fn carry(&mut self) -> Carried {
        Carried {
            taken: std::mem::take(&mut self.taken),
            grown: std::mem::take(&mut self.grown),
        }
    }

    /// Estimated bytes of memory that it and its batch take.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Removes the rows the overlay holds of a table, whatever they weigh already.
    pub(crate) fn truncate_known(&mut self, table: TableId, version: Version) -> Result<()> {
        let number = self.space(table)?.number();
        for at in 0..self.slots.rows.len() {
            let slot = self.slots.rows.get(at);
            if slot.is_some_and(|slot| slot.space.number() == number) {
                self.replace(at, None, version)?;
            }
        }
        Ok(())
    }

    /// Removes rows of a table, in the order of their keys from behind `after` on, until it weighs
    /// `limit`. Returns where it stopped, or nothing when all are gone.
    pub(crate) fn truncate_some(
        &mut self,
        table: TableId,
        after: Option<Slice>,
        limit: usize,
        version: Version,
    ) -> Result<Option<Slice>> {
        let space: Arc<TableSpace> = self.space(table)?;
        let rows = space_key(IndexId::PRIMARY);
        let end = after_prefix(&rows).map_or(Bound::Unbounded, Bound::Excluded);
        let start = after.map_or(Bound::Included(rows), |key| Bound::Excluded(key.to_vec()));
        let snapshot = self.snapshot.clone();
        for record in snapshot.range(&space.keyspace, (start, end)) {
            let (key, bytes) = record.into_inner()?;
            let key = unpinned(&key);
            let row = space.read(bytes, self.loaded_at)?;
            let at = self.take_in(&space, key.clone(), Some(row))?;
            self.replace(at, None, version)?;
            if self.weight >= limit {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}
