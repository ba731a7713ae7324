//! Writing what an overlay comes to.
//!
//! Everything goes in the order of the keys: what lies close in the engine's memory is then written
//! at a time.

use fjall::{Keyspace, OwnedWriteBatch, Readable, Slice};

use super::Overlay;
use super::slots::RowSlot;
use crate::IndexId;
use crate::error::Result;
use crate::fences::Ends;
use crate::gate::unpinned;
use crate::layout::{put_space, space_of};
use crate::shape::Bucket;
use crate::table_space::TableSpace;

/// Bytes a record of the history takes beside its key and value, for accounting.
const HISTORY_OVERHEAD: u64 = 24;

impl Overlay<'_> {
    /// Writes what changed in the tables, each key once, and what ended into `bucket`. Returns the
    /// bytes of history, roughly. Nothing may be applied afterwards.
    ///
    /// # Errors
    /// What reading brings up.
    pub(crate) fn write(&mut self, batch: &mut OwnedWriteBatch, bucket: &Bucket) -> Result<u64> {
        self.write_rows(batch)?;
        self.write_entries(batch)?;
        Ok(self.write_ended(batch, bucket))
    }

    /// The keyspaces of tables that the batch writes to.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        let rows = self.slots.rows.iter().filter(|slot| slot.touched.is_some());
        let mut seen = self.left.clone();
        let new = rows.filter(|slot| seen.insert(slot.space.number()));
        new.map(|slot| slot.space.keyspace.clone()).collect()
    }

    fn write_rows(&mut self, batch: &mut OwnedWriteBatch) -> Result<()> {
        let left = &self.left;
        let is_written =
            |slot: &RowSlot| slot.touched.is_some() && !left.contains(&slot.space.number());
        sort(&mut self.slots.order, &self.slots.rows, |slot| {
            is_written(slot).then(|| (slot.space.number(), &slot.key))
        });
        let slots = self.slots.order.iter();
        let slots = slots.filter_map(|at| self.slots.rows.get(*at));
        self.note_ends(slots.clone().map(|slot| (&*slot.space, &slot.key)))?;
        for slot in slots {
            let record = slot.now.as_ref().map(|row| row.record().bytes());
            let existed = slot.before.is_some();
            put(batch, &slot.space.keyspace, &slot.key, existed, record);
        }
        Ok(())
    }

    fn write_entries(&mut self, batch: &mut OwnedWriteBatch) -> Result<()> {
        let left = &self.left;
        sort(&mut self.slots.order, &self.slots.entries, |slot| {
            let space = slot.space.number();
            (!left.contains(&space)).then_some((space, &slot.key))
        });
        let slots = self.slots.order.iter();
        let slots = slots.filter_map(|at| self.slots.entries.get(*at));
        self.note_ends(slots.clone().map(|slot| (&*slot.space, &slot.key)))?;
        for slot in slots {
            let (existed, record) = (slot.existed, slot.now.as_ref());
            put(batch, &slot.space.keyspace, &slot.key, existed, record);
        }
        Ok(())
    }

    /// Notes between which keys of their table or index these lie, which are in order.
    fn note_ends<'s>(
        &self,
        slots: impl Iterator<Item = (&'s TableSpace, &'s Slice)>,
    ) -> Result<()> {
        let mut slots = slots.peekable();
        while let Some((space, first)) = slots.next() {
            let index = space_of(first);
            let (mut last, together) = (first, (space.number(), index));
            while let Some((_, key)) =
                slots.next_if(|(space, key)| (space.number(), space_of(key)) == together)
            {
                last = key;
            }
            let written = Ends {
                first: first.clone(),
                last: last.clone(),
            };
            let find = || self.ends(space, index);
            space.fences.note(index, &written, self.base, find)?;
        }
        Ok(())
    }

    /// The first and the last key of what stands at the version the batch is based on.
    ///
    /// INVARIANT: none where the snapshot holds parts of the transaction: of what they have taken
    /// away it does not tell. Nor in a transaction that changes the schema, whose tables may be
    /// younger than that version.
    fn ends(&self, space: &TableSpace, index: IndexId) -> Result<Option<Ends>> {
        if self.partial || self.schema.is_some() {
            return Ok(None);
        }
        let mut region = Vec::new();
        put_space(index, &mut region);
        let mut records = self.snapshot.prefix(&space.keyspace, region);
        let Some(first) = records.next() else {
            return Ok(None);
        };
        let first = first.key()?;
        let last = match records.next_back() {
            Some(last) => last.key()?,
            None => first.clone(),
        };
        let [first, last] = [&first, &last].map(unpinned);
        Ok(Some(Ends { first, last }))
    }

    fn write_ended(&mut self, batch: &mut OwnedWriteBatch, bucket: &Bucket) -> u64 {
        let left = &self.left;
        self.slots
            .ended
            .retain(|ended| !left.contains(&ended.space));
        let added = self.slots.ended.iter();
        let added = added.map(|ended| (ended.end, ended.history_key.clone(), ended.since));
        bucket.young.adds(added);
        self.slots
            .ended
            .sort_unstable_by(|a, b| a.history_key.cmp(&b.history_key));
        let mut bytes = 0;
        for ended in self.slots.ended.drain(..) {
            let (key, record) = (ended.history_key, ended.record);
            bytes += (key.len() + record.len()) as u64 + HISTORY_OVERHEAD;
            batch.insert(&bucket.keyspace, key, unpinned(&record));
        }
        bytes
    }
}

/// Puts the numbers of those slots that have a place into `order`, sorted by it.
fn sort<'s, T>(
    order: &mut Vec<usize>,
    slots: &'s [T],
    place: impl Fn(&'s T) -> Option<(u32, &'s Slice)>,
) {
    let place = |at: &usize| slots.get(*at).and_then(&place);
    order.clear();
    order.extend((0..slots.len()).filter(|at| place(at).is_some()));
    order.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
}

fn put(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    key: &Slice,
    existed: bool,
    record: Option<&Slice>,
) {
    match record {
        Some(record) => batch.insert(keyspace, key.clone(), record.clone()),
        None if existed => batch.remove(keyspace, key.clone()),
        None => {}
    }
}
