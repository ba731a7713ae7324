//! Reads below the newest version: the current records that are old enough, merged with the
//! history.
//!
//! The lifetimes of the records under one key never overlap, so each source is filtered by
//! visibility first, and then no key comes from two of them.

use std::ops::Bound;
use std::sync::Arc;

use fjall::{Keyspace, Readable, Slice};
use kelvin_protocol::Version;

use crate::archive::since;
use crate::error::{Error, Result};
use crate::key::after_prefix;
use crate::layout::{ended_key, ended_prefix, split_ended};
use crate::meta::BucketRange;
use crate::records::{KeyRange, Records};
use crate::shape::Bucket;
use crate::table_space::TableSpace;
use crate::view::ViewInner;
use crate::young_runs::{Stretch, YoungRuns};

/// Invisible records of one key that are stepped over before the rest of them is jumped over.
const STEPS_BEFORE_JUMP: u32 = 8;

/// Versions of a row that are gone back one by one before it is searched for.
const CHAIN: u32 = 4;

/// The record that stood under `key` at the version of the view but has ended since. `end` is when
/// that, or a later one, is known to have ended, such as when what is there now began.
pub(crate) fn ended_at(
    view: &ViewInner,
    space: u32,
    key: &[u8],
    end: Option<Version>,
) -> Result<Option<Slice>> {
    // Where one version of a row begins the one before it ended, unless there was none, and an
    // exact key costs far less than a search: most files are ruled out by their filters.
    let mut end = end;
    for _ in 0..CHAIN {
        let Some(known) = end else { break };
        let Some(found) = ended_exactly(view, space, key, known)? else {
            break;
        };
        let since = since(&found)?;
        if since <= view.version {
            return Ok(Some(found));
        }
        end = Some(since);
    }
    for bucket in buckets_after(view) {
        // What ends after this bucket began earlier may still stand in a later one, but not both.
        if let Some(found) = ended_in(view, &bucket.keyspace, space, key)? {
            return Ok(since_visible(&found, view.version)?.then_some(found));
        }
    }
    Ok(None)
}

/// The record under `key` that ended at `end`.
fn ended_exactly(view: &ViewInner, space: u32, key: &[u8], end: Version) -> Result<Option<Slice>> {
    let mut buckets = view.shape.buckets.iter();
    let holds = |range: &BucketRange| range.from < end && range.to.is_none_or(|to| end <= to);
    match buckets.find(|bucket| holds(&bucket.range)) {
        Some(bucket) => {
            let key = ended_key(space, key, end);
            Ok(view.snapshot.get(&bucket.keyspace, key)?)
        }
        None => Ok(None),
    }
}

/// Parts of the history that hold records which still stood at the version of the view.
fn buckets_after(view: &ViewInner) -> impl Iterator<Item = &Bucket> {
    let version = view.version;
    view.shape
        .buckets
        .iter()
        .filter(move |bucket| bucket.range.to.is_none_or(|to| to > version))
}

/// The first record under `key` in this bucket that ended after the version of the view.
fn ended_in(view: &ViewInner, bucket: &Keyspace, space: u32, key: &[u8]) -> Result<Option<Slice>> {
    let Some(after) = view.version.checked_add(1) else {
        return Ok(None);
    };
    let from = ended_key(space, key, after);
    let to = ended_key(space, key, Version::MAX);
    match view.snapshot.range(bucket, from..=to).next() {
        Some(record) => Ok(Some(record.value()?)),
        None => Ok(None),
    }
}

fn since_visible(record: &[u8], version: Version) -> Result<bool> {
    Ok(since(record)? <= version)
}

/// A record that stood at the version of a scan.
pub(crate) struct PastRecord {
    /// Its key, in the table or in the history.
    stored_key: Slice,
    pub(crate) value: Slice,
    /// When it ended, if it has and its key is that of the history.
    pub(crate) end: Option<Version>,
}

impl PastRecord {
    /// Its key in the table.
    pub(crate) fn key(&self) -> &[u8] {
        match self.end {
            Some(_) => split_ended(&self.stored_key).map_or(&[], |(key, _)| key),
            None => &self.stored_key,
        }
    }
}

/// An ordered scan at a version below the newest.
pub(crate) struct PastScan {
    current: CurrentScan,
    history: Vec<HistoryScan>,
    reverse: bool,
    started: bool,
}

impl PastScan {
    pub(crate) fn new(
        view: &Arc<ViewInner>,
        space: &Arc<TableSpace>,
        range: KeyRange,
        reverse: bool,
    ) -> Self {
        let history = buckets_after(view)
            .map(|bucket| HistoryScan::new(view, bucket, space.number(), &range, reverse))
            .collect();
        let young = space.young.clone();
        let (keys, stretch) = Keys::begin(view, space.keyspace.clone(), range, reverse, &young);
        Self {
            current: CurrentScan {
                keys,
                young,
                stretch,
                head: None,
            },
            history,
            reverse,
            started: false,
        }
    }

    pub(crate) fn next_record(&mut self, view: &ViewInner) -> Option<Result<PastRecord>> {
        self.advance(view).transpose()
    }

    fn advance(&mut self, view: &ViewInner) -> Result<Option<PastRecord>> {
        if !self.started {
            self.started = true;
            self.current.advance(view)?;
            for source in &mut self.history {
                source.advance(view)?;
            }
        }
        match self.nearest_history() {
            Some(source) => {
                let found = source.head.take();
                source.advance(view)?;
                Ok(found)
            }
            None => {
                let found = self.current.head.take();
                self.current.advance(view)?;
                Ok(found)
            }
        }
    }

    /// The part of the history whose next record comes before all others; `None` if the current
    /// records are next.
    fn nearest_history(&mut self) -> Option<&mut HistoryScan> {
        let mut nearest = self.current.head.as_ref();
        let mut from = None;
        for (at, source) in self.history.iter().enumerate() {
            let Some(head) = &source.head else {
                continue;
            };
            if nearest.is_none_or(|other| (head.key() < other.key()) != self.reverse) {
                nearest = Some(head);
                from = Some(at);
            }
        }
        self.history.get_mut(from?)
    }
}

/// The records of a range, with the means to leave some of them out.
struct Keys {
    keyspace: Keyspace,
    range: KeyRange,
    reverse: bool,
    records: Records,
}

impl Keys {
    /// The records of a range at the version of a view, without what is known to be too young at
    /// its beginning.
    fn begin(
        view: &ViewInner,
        keyspace: Keyspace,
        mut range: KeyRange,
        reverse: bool,
        young: &YoungRuns,
    ) -> (Self, Stretch) {
        let mut stretch = Stretch::new(view.version, view.seen_at, reverse);
        if view.partial {
            stretch = stretch.without_learning();
        }
        if let Some(far) = stretch.begin(young, &range.lower) {
            range.lower = Bound::Excluded(far.to_vec());
        }
        let keys = Self {
            records: Records::open(&view.snapshot, &keyspace, &range, reverse),
            keyspace,
            range,
            reverse,
        };
        (keys, stretch)
    }

    /// Goes on beyond `key`.
    fn jump(&mut self, view: &ViewInner, key: &[u8]) {
        self.go_on(view, Bound::Excluded(key.to_vec()));
    }

    /// Goes on beyond all keys that start with `prefix`.
    fn jump_over(&mut self, view: &ViewInner, prefix: Vec<u8>) {
        let bound = if self.reverse {
            Bound::Excluded(prefix)
        } else {
            after_prefix(&prefix).map_or(Bound::Unbounded, Bound::Included)
        };
        self.go_on(view, bound);
    }

    fn go_on(&mut self, view: &ViewInner, bound: Bound<Vec<u8>>) {
        if self.reverse {
            self.range.upper = bound;
        } else {
            self.range.lower = bound;
        }
        self.records = Records::open(&view.snapshot, &self.keyspace, &self.range, self.reverse);
    }
}

/// The current records that are old enough, in order.
struct CurrentScan {
    keys: Keys,
    young: Arc<YoungRuns>,
    stretch: Stretch,
    head: Option<PastRecord>,
}

impl CurrentScan {
    fn advance(&mut self, view: &ViewInner) -> Result<()> {
        self.head = None;
        while let Some(record) = self.keys.records.step() {
            let (key, value) = record?;
            let since = since(&value)?;
            if since <= view.version {
                self.head = Some(PastRecord {
                    stored_key: key,
                    value,
                    end: None,
                });
                break;
            }
            if let Some(far) = self.stretch.young(&self.young, key, since) {
                self.keys.jump(view, &far);
            }
        }
        self.stretch.end(&self.young);
        Ok(())
    }
}

/// The visible records of one part of the history, in order of their keys in the table.
struct HistoryScan {
    keys: Keys,
    space: u32,
    young: Arc<YoungRuns>,
    stretch: Stretch,
    /// Next visible record.
    head: Option<PastRecord>,
}

impl HistoryScan {
    fn new(view: &ViewInner, bucket: &Bucket, space: u32, range: &KeyRange, reverse: bool) -> Self {
        let range = history_range(space, range);
        let young = bucket.young.clone();
        let (keys, stretch) = Keys::begin(view, bucket.keyspace.clone(), range, reverse, &young);
        Self {
            stretch,
            keys,
            space,
            young,
            head: None,
        }
    }

    fn advance(&mut self, view: &ViewInner) -> Result<()> {
        self.head = self.find(view)?;
        self.stretch.end(&self.young);
        Ok(())
    }

    fn find(&mut self, view: &ViewInner) -> Result<Option<PastRecord>> {
        let mut stepping: Option<Slice> = None;
        let mut steps = 0;
        while let Some(record) = self.keys.records.step() {
            let (history_key, value) = record?;
            let (key, end) = split_ended(&history_key)
                .ok_or_else(|| Error::Corrupt("a history key is cut short".into()))?;
            let since = since(&value)?;
            if since > view.version {
                let key = history_key.clone();
                if let Some(far) = self.stretch.young(&self.young, key, since) {
                    self.keys.jump(view, &far);
                    continue;
                }
            } else if end > view.version {
                return Ok(Some(PastRecord {
                    stored_key: history_key,
                    value,
                    end: Some(end),
                }));
            } else {
                self.stretch.end(&self.young);
            }
            let before = stepping.as_deref().and_then(split_ended);
            if before.is_none_or(|(before, _)| before != key) {
                steps = 0;
            }
            steps += 1;
            if steps >= STEPS_BEFORE_JUMP {
                steps = 0;
                if let Some(found) = self.leave(view, key, end)? {
                    return Ok(Some(found));
                }
            }
            stepping = Some(history_key);
        }
        Ok(None)
    }

    /// Leaves a key of which many records were stepped over, not without the visible one. Keeps the
    /// cost of a row that changes all the time at two seeks.
    fn leave(&mut self, view: &ViewInner, key: &[u8], end: Version) -> Result<Option<PastRecord>> {
        // What is left out may be old.
        self.stretch.end(&self.young);
        self.keys.jump_over(view, ended_prefix(self.space, key));
        // Whether the visible record, if there is one, was still ahead.
        let ahead = (end <= view.version) != self.keys.reverse;
        if !ahead {
            return Ok(None);
        }
        let found = ended_in(view, &self.keys.keyspace, self.space, key)?;
        match found {
            Some(found) if since_visible(&found, view.version)? => Ok(Some(PastRecord {
                stored_key: Slice::from(key),
                value: found,
                end: None,
            })),
            _ => Ok(None),
        }
    }
}

/// The same range, in keys of the history. Bounds are encodings of leading columns or what follows
/// them, so no whole key is a proper prefix of a bound, and appending versions keeps the order.
fn history_range(space: u32, range: &KeyRange) -> KeyRange {
    let map = |key: &Vec<u8>| ended_prefix(space, key);
    let whole = ended_prefix(space, &[]);
    let lower = match &range.lower {
        Bound::Unbounded => Bound::Included(whole.clone()),
        bound => bound.as_ref().map(map),
    };
    let upper = match &range.upper {
        Bound::Unbounded => after_prefix(&whole).map_or(Bound::Unbounded, Bound::Excluded),
        bound => bound.as_ref().map(map),
    };
    KeyRange {
        lower,
        upper,
        region: range.region.as_ref().map(map),
    }
}
