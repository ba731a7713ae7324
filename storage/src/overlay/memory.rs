//! What is left of an overlay for the next one: memory that need not be asked for again, which for
//! a batch of a hundred rows takes as long as a tenth of applying it.

use std::collections::HashMap;

use super::{Ended, EntrySlot, Overlay, Place, RowSlot};

/// Slots of one kind that are kept room for. Of a larger batch nothing is kept.
const KEPT: usize = 4096;

/// Room for the slots of an overlay, without slots.
#[derive(Default)]
pub(crate) struct Memory {
    rows: Vec<RowSlot>,
    row_at: HashMap<Place, usize>,
    entries: Vec<EntrySlot>,
    entry_at: HashMap<Place, usize>,
    ended: Vec<Ended>,
    touched: Vec<usize>,
    order: Vec<usize>,
}

impl<'a> Overlay<'a> {
    /// The same overlay, which must be a new one, with this memory.
    pub(crate) fn with_memory(self, memory: Memory) -> Self {
        Self {
            rows: memory.rows,
            row_at: memory.row_at,
            entries: memory.entries,
            entry_at: memory.entry_at,
            ended: memory.ended,
            touched: memory.touched,
            order: memory.order,
            ..self
        }
    }
}

impl Memory {
    /// Takes the memory of an overlay that is done. What it held is let go of at once, for it keeps
    /// blocks of the engine in memory.
    pub(super) fn of(overlay: &mut Overlay<'_>) -> Self {
        Self {
            rows: emptied(&mut overlay.rows),
            row_at: emptied_map(&mut overlay.row_at),
            entries: emptied(&mut overlay.entries),
            entry_at: emptied_map(&mut overlay.entry_at),
            ended: emptied(&mut overlay.ended),
            touched: emptied(&mut overlay.touched),
            order: emptied(&mut overlay.order),
        }
    }
}

fn emptied<T>(slots: &mut Vec<T>) -> Vec<T> {
    let mut slots = std::mem::take(slots);
    slots.clear();
    if slots.capacity() > KEPT {
        return Vec::new();
    }
    slots
}

fn emptied_map(slots: &mut HashMap<Place, usize>) -> HashMap<Place, usize> {
    let mut slots = std::mem::take(slots);
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
            let mut ended: Vec<_> = (0..slots).collect();
            let places = (0..slots).map(|at| ((0, at.to_be_bytes().into()), at));
            let mut places: HashMap<Place, usize> = places.collect();
            let (ended, places) = (emptied(&mut ended), emptied_map(&mut places));
            assert!(ended.is_empty() && places.is_empty());
            assert_eq!((ended.capacity() > 0, places.capacity() > 0), (kept, kept));
        }
    }
}
