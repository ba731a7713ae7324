//! Stretches of keys that hold nothing old, remembered so that reads of the past jump over them.
//!
//! An index by time of change, newest first, has everything that was written since in front. A scan
//! of the past would walk over all of that each time. It does so once: what it walked over becomes
//! runs, each with the oldest `since` in it, and scans at versions before that jump.
//!
//! A run stays true as time goes on:
//! * In a table's current keyspace, what is added later is younger still.
//! * In the history, a record that ends later may have begun long ago. So the writer says what it
//!   adds, and a run it falls into is split there.
//!
//! All this is memory only, bounded, and lost without harm.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::Slice;
use kelvin_protocol::Version;

/// Runs one keyspace remembers; when they are more, all are forgotten.
const MAX_RUNS: usize = small_or(48, 4096);
/// Records of one run. More, and a scan at a version between their ages would find few to jump.
const RUN_RECORDS: u32 = small_or(6, 256) as u32;
/// Records that are worth a run.
const MIN_RECORDS: u32 = small_or(3, 16) as u32;
/// Records a scan walks over before it asks whether it may jump: often there are but few.
const LOOK_AFTER: u32 = small_or(2, 4) as u32;
/// Records added to the history that are remembered for scans which are still walking.
const RECENT: usize = small_or(32, 4096);

/// Bounds are small where assertions are on, so that tests with few rows get to all of them.
pub(crate) const fn small_or(small: usize, normal: usize) -> usize {
    if cfg!(debug_assertions) {
        small
    } else {
        normal
    }
}

/// The runs of one keyspace.
#[derive(Default)]
pub(crate) struct YoungRuns(Mutex<State>);

#[derive(Default)]
struct State {
    /// By first key.
    runs: BTreeMap<Slice, Run>,
    /// What was added last: version, key, since when it stood.
    recent: VecDeque<(Version, Slice, Version)>,
    /// Additions up to this version are no longer in `recent`.
    forgotten: Version,
}

/// Every record from the first key to `last`, both included, stands since `oldest` at the earliest.
struct Run {
    last: Slice,
    oldest: Version,
    /// Version of the snapshot it was seen in: older ones may hold what is gone since.
    seen_at: Version,
    /// Whether there is nothing between it and the run before.
    follows: bool,
}

/// What a scan makes of a run besides: its neighbours, if there is nothing in between.
#[derive(Default)]
struct Neighbours {
    /// Last key of the run before.
    before: Option<Slice>,
    /// First key of the run after.
    after: Option<Slice>,
}

impl YoungRuns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The far end of the runs from `key` on in the direction of a scan, if nothing up to there
    /// stands at `version`. `seen_at` is the version of the scan's snapshot.
    pub(crate) fn end_of_run(
        &self,
        key: &[u8],
        version: Version,
        seen_at: Version,
        reverse: bool,
    ) -> Option<Slice> {
        let state = self.state();
        let holds = |run: &Run| run.oldest > version && run.seen_at <= seen_at;
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        let (first, run) = state.runs.range::<[u8], _>(up_to_key).next_back()?;
        if !holds(run) || *run.last < *key {
            return None;
        }
        let (mut first, mut run) = (first, run);
        if reverse {
            let before = (Bound::Unbounded, Bound::Excluded(&**first));
            for (earlier, other) in state.runs.range::<[u8], _>(before).rev() {
                if !run.follows || !holds(other) {
                    break;
                }
                (first, run) = (earlier, other);
            }
            return Some(first.clone());
        }
        let after = (Bound::Excluded(&**first), Bound::Unbounded);
        for (_, other) in state.runs.range::<[u8], _>(after) {
            if !other.follows || !holds(other) {
                break;
            }
            run = other;
        }
        Some(run.last.clone())
    }

    /// The writer is about to add a record that ends at `end` to the history.
    ///
    /// INVARIANT: called before anyone can see the record.
    pub(crate) fn adds(&self, added: impl IntoIterator<Item = (Version, Slice, Version)>) {
        let mut state = self.state();
        for (end, key, since) in added {
            state.split(&key, since);
            if state.recent.len() >= RECENT
                && let Some((end, _, _)) = state.recent.pop_front()
            {
                state.forgotten = state.forgotten.max(end);
            }
            state.recent.push_back((end, key, since));
        }
    }

    /// Takes a run in.
    fn learn(&self, first: Slice, run: Run, neighbours: &Neighbours) {
        let mut state = self.state();
        if state.forgotten > run.seen_at || state.overlaps(&first, &run.last) {
            return;
        }
        // What was added since the snapshot is not in it.
        let low = neighbours.before.as_ref().unwrap_or(&first);
        let high = neighbours.after.as_ref().unwrap_or(&run.last);
        let unseen = state.recent.iter().rev();
        let mut unseen = unseen.take_while(|(end, _, _)| *end > run.seen_at);
        if unseen.any(|(_, key, since)| *since < run.oldest && (low..=high).contains(&key)) {
            return;
        }
        if state.runs.len() >= MAX_RUNS {
            state.runs.clear();
        }
        let before = state.runs.range::<Slice, _>(..&first).next_back();
        let follows =
            before.is_some_and(|(_, other)| neighbours.before.as_ref() == Some(&other.last));
        if let Some((next, other)) = state.after(&first) {
            other.follows = neighbours.after.as_ref() == Some(next);
        }
        state.runs.insert(first, Run { follows, ..run });
    }
}

impl State {
    fn overlaps(&self, first: &Slice, last: &Slice) -> bool {
        let mut before = self.runs.range::<Slice, _>(..=last);
        before
            .next_back()
            .is_some_and(|(_, run)| run.last >= *first)
    }

    /// The first run that begins beyond a key.
    fn after(&mut self, key: &Slice) -> Option<(&Slice, &mut Run)> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        self.runs.range_mut::<Slice, _>(after).next()
    }

    /// Forgets what a record that stands since `since` makes untrue.
    fn split(&mut self, key: &Slice, since: Version) {
        let before = self.runs.range::<Slice, _>(..=key).next_back();
        if let Some((first, run)) = before
            && run.last >= *key
        {
            if since >= run.oldest {
                return;
            }
            let first = first.clone();
            self.runs.remove(&first);
        }
        // The next run may have followed the one that is gone, or what is before the record.
        if let Some((_, run)) = self.after(key) {
            run.follows = false;
        }
    }
}

/// What a scan has walked over since it last met something that is not too young.
pub(crate) struct Stretch {
    version: Version,
    seen_at: Version,
    reverse: bool,
    /// Whether what it walks over is remembered.
    learns: bool,
    /// Where it began to look, as long as it has met nothing.
    from: Option<Slice>,
    /// Where the run before this one ends, if nothing was in between.
    link: Option<Slice>,
    walked: Option<Walked>,
}

struct Walked {
    begin: Slice,
    end: Slice,
    oldest: Version,
    count: u32,
}

impl Stretch {
    /// For a scan at `version` of a snapshot that was taken at `seen_at`.
    pub(crate) fn new(version: Version, seen_at: Version, reverse: bool) -> Self {
        Self {
            version,
            seen_at,
            reverse,
            learns: true,
            from: None,
            link: None,
            walked: None,
        }
    }

    /// For a scan of a snapshot that may hold parts of a transaction.
    ///
    /// INVARIANT: it remembers nothing. What it walks over is of no version: older snapshots may
    /// hold what is gone from it, and what is taken back may come back older. What was remembered
    /// before stays true nevertheless.
    pub(crate) fn without_learning(self) -> Self {
        Self {
            learns: false,
            ..self
        }
    }

    /// The scan is about to begin at `from`. Returns the key beyond which it may, where it is known
    /// that there is nothing before that.
    pub(crate) fn begin(&mut self, runs: &YoungRuns, from: &Bound<Vec<u8>>) -> Option<Slice> {
        // The last key before an upper bound cannot be told.
        let from = match from {
            _ if self.reverse => return None,
            Bound::Included(key) => Slice::from(&key[..]),
            Bound::Excluded(key) => Slice::from([&key[..], &[0]].concat()),
            Bound::Unbounded => return None,
        };
        let far = runs.end_of_run(&from, self.version, self.seen_at, false);
        match &far {
            Some(far) => self.link = Some(far.clone()),
            None => self.from = Some(from),
        }
        far
    }

    /// The scan met a record that is too young. Returns the key beyond which it may go on, where it
    /// is known that there is nothing before that.
    pub(crate) fn young(&mut self, runs: &YoungRuns, key: Slice, since: Version) -> Option<Slice> {
        match &mut self.walked {
            Some(walked) => {
                walked.end = key;
                walked.oldest = walked.oldest.min(since);
                walked.count += 1;
                if walked.count == LOOK_AFTER {
                    let (version, seen_at) = (self.version, self.seen_at);
                    let far = runs.end_of_run(&walked.end, version, seen_at, self.reverse)?;
                    self.walked = None;
                    self.link = Some(far.clone());
                    return Some(far);
                }
                if walked.count >= RUN_RECORDS {
                    self.close(runs);
                }
            }
            none => {
                *none = Some(Walked {
                    begin: self.from.take().unwrap_or_else(|| key.clone()),
                    end: key,
                    oldest: since,
                    count: 1,
                });
            }
        }
        None
    }

    /// The scan met something else, or its end.
    pub(crate) fn end(&mut self, runs: &YoungRuns) {
        if self.walked.is_some() {
            self.close(runs);
        }
        self.link = None;
        self.from = None;
    }

    /// Remembers what was walked over.
    fn close(&mut self, runs: &YoungRuns) {
        let Some(walked) = self.walked.take() else {
            return;
        };
        let link = self.link.replace(walked.end.clone());
        if walked.count < MIN_RECORDS || !self.learns {
            self.link = None;
            return;
        }
        let mut neighbours = Neighbours::default();
        // Copies, for a part of a block would keep all of it.
        let [begin, end] = [&walked.begin, &walked.end].map(|key| Slice::from(&key[..]));
        let (first, last) = if self.reverse {
            neighbours.after = link;
            (end, begin)
        } else {
            neighbours.before = link;
            (begin, end)
        };
        let run = Run {
            last,
            oldest: walked.oldest,
            seen_at: self.seen_at,
            follows: false,
        };
        runs.learn(first, run, &neighbours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Slice {
        number.to_be_bytes().into()
    }

    /// Walks over records that stand since 50, as a scan at 40 of a snapshot at 100 does.
    fn walk(runs: &YoungRuns, numbers: impl Iterator<Item = u32>, reverse: bool) {
        let mut stretch = Stretch::new(40, 100, reverse);
        for number in numbers {
            if stretch.young(runs, key(number), 50).is_some() {
                break;
            }
        }
        stretch.end(runs);
    }

    #[test]
    fn what_was_walked_over_once_is_jumped_over_in_both_directions() {
        for reverse in [false, true] {
            let runs = YoungRuns::default();
            if reverse {
                walk(&runs, (0..100).rev(), true);
            } else {
                walk(&runs, 0..100, false);
            }
            let last = runs.end_of_run(&key(1), 40, 100, false);
            assert_eq!(last, Some(key(99)));
            let first = runs.end_of_run(&key(98), 40, 100, true);
            assert_eq!(first, Some(key(0)));
            // Not at a version that sees them, nor in a snapshot that may hold others.
            assert_eq!(runs.end_of_run(&key(1), 50, 100, false), None);
            assert_eq!(runs.end_of_run(&key(1), 40, 99, false), None);
        }
    }

    #[test]
    fn a_scan_from_where_another_began_jumps_before_it_reads() {
        let runs = YoungRuns::default();
        let begin = |from| Stretch::new(40, 100, false).begin(&runs, &from);
        let (at, beyond) = (
            |number| Bound::Included(key(number).to_vec()),
            |number| Bound::Excluded(key(number).to_vec()),
        );
        let mut stretch = Stretch::new(40, 100, false);
        assert_eq!(stretch.begin(&runs, &beyond(3)), None);
        for number in 10..40 {
            stretch.young(&runs, key(number), 50);
        }
        stretch.end(&runs);
        assert_eq!(begin(beyond(3)), Some(key(39)));
        assert_eq!(begin(at(7)), Some(key(39)));
        // The record at which it began, exclusively, may be old.
        assert_eq!(begin(at(3)), None);
        // What is added before the first record counts.
        runs.adds(vec![(101, key(7), 60)]);
        assert_eq!(begin(beyond(3)), Some(key(39)));
        runs.adds(vec![(101, key(8), 30)]);
        let far = begin(beyond(3));
        assert!(far.is_none_or(|far| far < key(8)));
    }

    #[test]
    fn what_follows_a_forgotten_run_follows_nothing() {
        let runs = YoungRuns::default();
        walk(&runs, 0..100, false);
        let lasts = || -> Vec<Slice> {
            let state = runs.state();
            state.runs.values().map(|run| run.last.clone()).collect()
        };
        let [first, second, third, ..] = &lasts()[..] else {
            panic!("too few runs");
        };
        assert_eq!(runs.end_of_run(&key(0), 40, 100, false), Some(key(99)));
        runs.adds(vec![(101, second.clone(), 30)]);
        assert_eq!(
            runs.end_of_run(&key(0), 40, 100, false).as_ref(),
            Some(first)
        );
        assert_eq!(runs.end_of_run(third, 40, 100, false), Some(key(99)));
        assert!(runs.end_of_run(third, 40, 100, true).unwrap() > *second);
    }

    #[test]
    fn an_old_record_that_is_added_is_not_jumped_over() {
        let runs = YoungRuns::default();
        walk(&runs, (0..100).map(|number| number * 10), false);
        let added = [(101, key(505), 45), (101, key(700), 60)];
        runs.adds(added.to_vec());
        let far = runs.end_of_run(&key(20), 40, 100, false).unwrap();
        assert!(far < key(505), "{far:?}");
        // One that is young enough changes nothing.
        let far = runs.end_of_run(&key(690), 40, 100, false);
        assert_eq!(far, Some(key(990)));
    }

    #[test]
    fn an_old_record_between_two_runs_separates_them() {
        let runs = YoungRuns::default();
        walk(&runs, (0..100).map(|number| number * 10), false);
        let run_end = {
            let state = runs.state();
            state.runs.values().next().unwrap().last.clone()
        };
        let between = u32::from_be_bytes(run_end[..].try_into().unwrap()) + 5;
        runs.adds(vec![(101, key(between), 30)]);
        assert_eq!(runs.end_of_run(&key(0), 40, 100, false), Some(run_end));
    }

    #[test]
    fn a_scan_that_did_not_see_what_was_added_since_learns_nothing_wrong() {
        let runs = YoungRuns::default();
        runs.adds(vec![(101, key(505), 30)]);
        walk(&runs, (0..100).map(|number| number * 10), false);
        let far = runs.end_of_run(&key(480), 40, 100, false);
        assert!(far.is_none_or(|far| far < key(505)));
    }

    #[test]
    fn runs_are_bounded() {
        let runs = YoungRuns::default();
        for stretch in 0..10 * u32::try_from(MAX_RUNS).unwrap() {
            let first = stretch * 1000;
            walk(&runs, first..first + MIN_RECORDS, false);
        }
        assert!(runs.state().runs.len() <= MAX_RUNS);
        for number in 0..2 * u32::try_from(RECENT).unwrap() {
            runs.adds(vec![(200, key(number), 150)]);
        }
        assert!(runs.state().recent.len() <= RECENT);
    }
}
