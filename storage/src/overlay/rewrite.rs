//! Keeping a table's rows under other keys.

use std::sync::Arc;

use fail::fail_point;
use fjall::Readable;

use super::Overlay;
use crate::archive::{RowEncoder, encode_entry};
use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::layout::space_key;
use crate::sorted_ingest::SortedIngest;
use crate::table_space::TableSpace;
use crate::{IndexId, Row};

impl Overlay<'_> {
    /// Writes the rows of a table, as they are by now, into a keyspace of their own, under the keys
    /// and in the columns of `stored`. Views at earlier versions go on reading the old one.
    ///
    /// INVARIANT: nothing on disk speaks of the new keyspace before the batch that makes it the
    /// table's. A crash in between leaves an orphan, which the next opening removes.
    pub(super) fn rewrite(
        &mut self,
        old: &Arc<TableSpace>,
        stored: &StoredTable,
    ) -> Result<Arc<TableSpace>> {
        let number = self.draft()?.take_space()?;
        let source = TableSpace::new(stored.clone(), old.keyspace.clone())?;
        let target = self.open(stored.rewritten(number))?;
        let scratch = self.workshop.scratch;
        let limit = self.workshop.options.load_bytes;
        let mut ingest = SortedIngest::new(scratch, limit)?;
        let mut encoder = RowEncoder::default();
        let mut add = |row: &Row| -> Result<()> {
            let key = target.row_key_of(|at| row.value(at))?;
            for index in &target.indexes {
                let (entry, offset) = index.entry_key(|at| row.value(at), &key);
                ingest.push(&entry, &encode_entry(row.version, offset))?;
            }
            let row = target.write(&mut encoder, row.version, row.id, &[], row.values())?;
            ingest.push(&key, row.record().bytes())
        };
        let rows = space_key(IndexId::PRIMARY);
        for record in self.snapshot.prefix(&old.keyspace, rows) {
            let (key, bytes) = record.into_inner()?;
            if !self.slots.row_at.contains_key(&(old.number(), key)) {
                add(&source.read(bytes, self.loaded_at)?)?;
            }
        }
        for slot in &self.slots.rows {
            if slot.space.number() == old.number()
                && let Some(row) = &slot.now
            {
                add(&source.read(row.record().bytes().clone(), self.loaded_at)?)?;
            }
        }
        let name = || target.table.name.clone();
        ingest.finish(&target.keyspace, || Error::Duplicate(name()))?;
        fail_point!("rewrite-after-ingest");
        self.left.insert(old.number());
        self.snapshot = self.workshop.db.snapshot();
        Ok(target)
    }
}
