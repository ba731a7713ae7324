//! Writing what an overlay comes to.
//!
//! Everything goes in the order of the keys: what lies close in the engine's memory is then written
//! at a time.

use fjall::{Keyspace, OwnedWriteBatch, Slice};

use super::Overlay;
use super::slots::RowSlot;
use crate::gate::unpinned;
use crate::shape::Bucket;

/// Bytes a record of the history takes beside its key and value, for accounting.
const HISTORY_OVERHEAD: u64 = 24;

impl Overlay<'_> {
    /// Writes what changed in the tables, each key once, and what ended into `bucket`. Returns the
    /// bytes of history, roughly. Nothing may be applied afterwards.
    pub(crate) fn write(&mut self, batch: &mut OwnedWriteBatch, bucket: &Bucket) -> u64 {
        self.write_rows(batch);
        self.write_entries(batch);
        self.write_ended(batch, bucket)
    }

    /// The keyspaces of tables that the batch writes to.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        let rows = self.slots.rows.iter().filter(|slot| slot.touched.is_some());
        let mut seen = self.left.clone();
        let new = rows.filter(|slot| seen.insert(slot.space.number()));
        new.map(|slot| slot.space.keyspace.clone()).collect()
    }

    fn write_rows(&mut self, batch: &mut OwnedWriteBatch) {
        let left = &self.left;
        let is_written =
            |slot: &RowSlot| slot.touched.is_some() && !left.contains(&slot.space.number());
        sort(&mut self.slots.order, &self.slots.rows, |slot| {
            is_written(slot).then(|| (slot.space.number(), &slot.key))
        });
        for slot in self
            .slots
            .order
            .iter()
            .filter_map(|at| self.slots.rows.get(*at))
        {
            let record = slot.now.as_ref().map(|row| row.record().bytes());
            let existed = slot.before.is_some();
            put(batch, &slot.space.keyspace, &slot.key, existed, record);
        }
    }

    fn write_entries(&mut self, batch: &mut OwnedWriteBatch) {
        let left = &self.left;
        sort(&mut self.slots.order, &self.slots.entries, |slot| {
            let space = slot.space.number();
            (!left.contains(&space)).then_some((space, &slot.key))
        });
        for slot in self
            .slots
            .order
            .iter()
            .filter_map(|at| self.slots.entries.get(*at))
        {
            let (existed, record) = (slot.existed, slot.now.as_ref());
            put(batch, &slot.space.keyspace, &slot.key, existed, record);
        }
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
