//! What a batch has looked at and moved.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::Slice;
use kelvin_protocol::Version;

use crate::Row;
use crate::table_space::TableSpace;

/// Slots of one kind that are kept room for. Of a larger batch nothing is kept.
const KEPT: usize = 4096;

/// A key in the keyspace of a space.
pub(super) type Place = (u32, Slice);

/// One row the batch has looked at.
pub(super) struct RowSlot {
    pub(super) space: Arc<TableSpace>,
    pub(super) key: Slice,
    pub(super) before: Option<Row>,
    pub(super) now: Option<Row>,
    /// Last transaction that wrote it, if any did.
    pub(super) touched: Option<Version>,
}

/// One index entry the batch has moved.
pub(super) struct EntrySlot {
    pub(super) space: Arc<TableSpace>,
    pub(super) key: Slice,
    pub(super) existed: bool,
    pub(super) now: Option<Slice>,
}

/// A record that ended within the batch.
pub(super) struct Ended {
    pub(super) space: u32,
    pub(super) history_key: Slice,
    pub(super) since: Version,
    pub(super) end: Version,
    pub(super) record: Slice,
}

/// All slots of an overlay. Their memory goes from one to the next: to ask for it anew takes as
/// long as a tenth of applying a hundred rows.
#[derive(Default)]
pub(crate) struct Slots {
    pub(super) rows: Vec<RowSlot>,
    pub(super) row_at: HashMap<Place, usize>,
    pub(super) entries: Vec<EntrySlot>,
    pub(super) entry_at: HashMap<Place, usize>,
    pub(super) ended: Vec<Ended>,
    /// Rows written by the transaction under way, by their place in `rows`.
    pub(super) touched: Vec<usize>,
    /// The order in which slots are written.
    pub(super) order: Vec<usize>,
}

impl Slots {
    /// The same without what they held, which is let go of at once, for it keeps blocks of the
    /// engine in memory.
    pub(super) fn emptied(self) -> Self {
        Self {
            rows: emptied(self.rows),
            row_at: emptied_map(self.row_at),
            entries: emptied(self.entries),
            entry_at: emptied_map(self.entry_at),
            ended: emptied(self.ended),
            touched: emptied(self.touched),
            order: emptied(self.order),
        }
    }
}

fn emptied<T>(mut slots: Vec<T>) -> Vec<T> {
    slots.clear();
    if slots.capacity() > KEPT {
        return Vec::new();
    }
    slots
}

fn emptied_map(mut slots: HashMap<Place, usize>) -> HashMap<Place, usize> {
    slots.clear();
    if slots.capacity() > KEPT {
        return HashMap::new();
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_small_batch_is_kept_and_that_of_a_large_one_is_not() {
        for (slots, kept) in [(100, true), (KEPT + 1, false)] {
            let ended: Vec<_> = (0..slots).collect();
            let places = (0..slots).map(|at| ((0, at.to_be_bytes().into()), at));
            let places: HashMap<Place, usize> = places.collect();
            let (ended, places) = (emptied(ended), emptied_map(places));
            assert!(ended.is_empty() && places.is_empty());
            assert_eq!((ended.capacity() > 0, places.capacity() > 0), (kept, kept));
        }
    }
}
