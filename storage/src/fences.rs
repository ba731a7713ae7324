//! Where the keys of a table ended at versions gone by, so that reads of the past begin there.
//!
//! What came into being since lies mostly beyond the ends of what stood then: rows with ascending
//! keys, entries of an index by time of change. A scan of the past would go over all of it before it
//! comes to the first record that it sees. The writer knows the ends without looking, once it has
//! looked for them, so it notes them whenever they move. What lies elsewhere is for
//! [`YoungRuns`](crate::young_runs::YoungRuns).
//!
//! All this is memory only, bounded, and lost without harm.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::Slice;
use kelvin_protocol::Version;

use crate::IndexId;
use crate::error::Result;
use crate::gate::unpinned;
use crate::key::after_prefix;
use crate::records::KeyRange;
use crate::young_runs::small_or;

/// Moves of the ends that are remembered of each level. Where a version lies behind n of them, a
/// scan begins within n / MOST moves of what stood then.
const MOST: usize = small_or(4, 64);
/// Levels that are remembered. What comes to less than the oldest of them is forgotten.
const LEVELS: usize = small_or(4, 16);

/// The first and the last of some keys.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) first: Slice,
    pub(crate) last: Slice,
}

impl Ends {
    fn hold(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Makes them hold others, too.
    fn widen(&mut self, other: &Self) {
        if other.first < self.first {
            self.first = unpinned(&other.first);
        }
        if other.last > self.last {
            self.last = unpinned(&other.last);
        }
    }
}

/// The ends of the rows of one table, and of each of its indexes.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<IndexId, Fence>>);

/// INVARIANT: every record that stood at any version from `since` to one of `past`, both included,
/// has a key within the ends noted for that one. They are never narrowed: what was taken away may
/// have stood at a version that is still read.
struct Fence {
    since: Version,
    /// The ends of all there was since then.
    now: Ends,
    past: Moves,
}

/// What the ends had been up to which version, when they moved: of late each time, before that
/// every other time, before that every fourth, and so on.
#[derive(Default)]
struct Moves {
    /// Each in order of versions, the last ones first.
    levels: Vec<VecDeque<(Version, Ends)>>,
}

impl Fences {
    fn all(&self) -> MutexGuard<'_, BTreeMap<IndexId, Fence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer is about to write records within `written` over the version `now`. Where nothing
    /// is known so far, `find` gives the ends of what stands at that version, if it can tell them
    /// and there is any.
    ///
    /// # Errors
    /// Those of `find`.
    pub(crate) fn note(
        &self,
        index: IndexId,
        written: &Ends,
        now: Version,
        find: impl FnOnce() -> Result<Option<Ends>>,
    ) -> Result<()> {
        if let Some(fence) = self.all().get_mut(&index) {
            fence.note(written, now);
            return Ok(());
        }
        if let Some(found) = find()? {
            let mut fence = Fence {
                since: now,
                now: found,
                past: Moves::default(),
            };
            fence.note(written, now);
            self.all().insert(index, fence);
        }
        Ok(())
    }

    /// Leaves out of a range what lies beyond the ends of all that stands at `version`.
    pub(crate) fn narrow(&self, index: IndexId, version: Version, range: &mut KeyRange) {
        let fences = self.all();
        let Some(ends) = fences.get(&index).and_then(|fence| fence.at(version)) else {
            return;
        };
        let is_within = match &range.lower {
            Bound::Unbounded => false,
            Bound::Included(key) | Bound::Excluded(key) => **key >= *ends.first,
        };
        if !is_within {
            range.lower = Bound::Included(ends.first.to_vec());
        }
        // In the history, the last key is followed by versions.
        let Some(end) = after_prefix(&ends.last) else {
            return;
        };
        let is_within = match &range.upper {
            Bound::Unbounded => false,
            Bound::Included(key) | Bound::Excluded(key) => *key <= end,
        };
        if !is_within {
            range.upper = Bound::Excluded(end);
        }
    }
}

impl Fence {
    fn note(&mut self, written: &Ends, now: Version) {
        if self.now.hold(written) {
            return;
        }
        // A transaction in parts moves them more than once over one version.
        if self.past.last().is_none_or(|version| version < now) {
            self.past.push(now, self.now.clone());
        }
        self.now.widen(written);
    }

    /// The closest ends that hold all that stands at `version`.
    fn at(&self, version: Version) -> Option<&Ends> {
        (version >= self.since)
            .then(|| self.past.from(version))
            .flatten()
    }
}

impl Moves {
    /// The version of the last one.
    fn last(&self) -> Option<Version> {
        let (version, _) = self.levels.first()?.back()?;
        Some(*version)
    }

    fn push(&mut self, version: Version, ends: Ends) {
        let mut next = Some((version, ends));
        for level in 0..LEVELS {
            let Some(moved) = next.take() else {
                return;
            };
            if self.levels.len() == level {
                self.levels.push(VecDeque::new());
            }
            let Some(moves) = self.levels.get_mut(level) else {
                return;
            };
            moves.push_back(moved);
            if moves.len() > MOST {
                moves.pop_front();
                next = moves.pop_front();
            }
        }
    }

    /// The ends at the first move from `version` on.
    fn from(&self, version: Version) -> Option<&Ends> {
        self.levels.iter().rev().find_map(|moves| {
            let at = moves.partition_point(|(until, _)| *until < version);
            moves.get(at).map(|(_, ends)| ends)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Slice {
        [0, 1, number].into()
    }

    fn ends(first: u8, last: u8) -> Ends {
        Ends {
            first: key(first),
            last: key(last),
        }
    }

    fn unknown() -> Result<Option<Ends>> {
        Ok(None)
    }

    fn whole() -> KeyRange {
        KeyRange {
            lower: Bound::Included(vec![0, 1]),
            upper: Bound::Excluded(vec![0, 2]),
            region: None,
        }
    }

    /// The first and the last key that a scan at a version may meet, if something is known.
    fn read(fences: &Fences, version: Version) -> Option<(u8, u8)> {
        let mut range = whole();
        fences.narrow(IndexId(1), version, &mut range);
        match (range.lower, range.upper) {
            (Bound::Included(low), Bound::Excluded(high)) if low.len() == 3 => {
                Some((low[2], high[2] - 1))
            }
            _ => None,
        }
    }

    #[test]
    fn a_scan_of_the_past_begins_where_the_keys_ended_then() {
        let fences = Fences::default();
        let write = |at, first, last| {
            let found = || Ok(Some(ends(100, 120)));
            fences
                .note(IndexId(1), &ends(first, last), at, found)
                .unwrap();
        };
        write(10, 99, 99);
        write(11, 105, 110);
        write(12, 90, 121);
        write(20, 80, 100);
        assert_eq!(read(&fences, 9), None, "nobody looked then");
        assert_eq!(read(&fences, 10), Some((100, 120)));
        assert_eq!(read(&fences, 11), Some((99, 120)));
        assert_eq!(read(&fences, 12), Some((99, 120)));
        assert_eq!(read(&fences, 13), Some((90, 121)));
        assert_eq!(read(&fences, 20), Some((90, 121)));
        assert_eq!(read(&fences, 21), None, "nothing was written since");
        let mut other = whole();
        fences.narrow(IndexId(2), 12, &mut other);
        assert_eq!(other.lower, whole().lower);
    }

    #[test]
    fn a_range_that_ends_within_is_left_as_it_is() {
        let fences = Fences::default();
        let found = || Ok(Some(ends(100, 120)));
        fences.note(IndexId(1), &ends(50, 150), 10, found).unwrap();
        let within = KeyRange {
            lower: Bound::Excluded(vec![0, 1, 100]),
            upper: Bound::Included(vec![0, 1, 119, 7]),
            region: None,
        };
        let mut range = within.clone();
        fences.narrow(IndexId(1), 10, &mut range);
        assert_eq!((range.lower, range.upper), (within.lower, within.upper));
    }

    #[test]
    fn the_parts_of_a_transaction_move_the_ends_of_one_version_once() {
        let fences = Fences::default();
        let found = || Ok(Some(ends(100, 120)));
        for first in [90, 80, 70] {
            fences
                .note(IndexId(1), &ends(first, first), 10, found)
                .unwrap();
        }
        fences.note(IndexId(1), &ends(60, 60), 11, unknown).unwrap();
        assert_eq!(read(&fences, 10), Some((100, 120)));
        assert_eq!(read(&fences, 11), Some((70, 120)));
    }

    #[test]
    fn ends_that_cannot_be_told_are_not_made_up() {
        let fences = Fences::default();
        fences.note(IndexId(1), &ends(90, 90), 10, unknown).unwrap();
        assert_eq!(read(&fences, 10), None);
    }

    #[test]
    fn ends_of_the_past_are_bounded_and_hold_all_that_stood() {
        let fences = Fences::default();
        let found = || Ok(Some(ends(200, 200)));
        for at in 0..100 {
            let first = 199 - at;
            fences
                .note(IndexId(1), &ends(first, first), at.into(), found)
                .unwrap();
        }
        {
            let fences = fences.all();
            let levels = &fences[&IndexId(1)].past.levels;
            assert!(levels.len() <= LEVELS && levels.iter().all(|moves| moves.len() <= MOST));
        }
        for at in 0..100_u8 {
            let (first, _) = read(&fences, at.into()).unwrap();
            let behind = 100 - at;
            assert!(first <= 200 - at, "{at}: {first}");
            // Further back, some is forgotten.
            if behind <= 50 {
                assert!(first + behind / 2 + 1 >= 200 - at, "{at}: {first}");
            }
        }
    }
}
