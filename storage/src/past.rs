//! Reads below the newest version: the current records that are old enough, merged with the history.
//!
//! The lifetimes of the records under one key never overlap, so each source is filtered by
//! visibility first, and then no key comes from two of them.

use std::ops::Bound;
use std::sync::Arc;

use fjall::{Guard, Iter, Keyspace, Readable, Slice, Snapshot};
use kelvin_protocol::Version;

use crate::archive::since;
use crate::error::{Error, Result};
use crate::key::after_prefix;
use crate::layout::{ended_key, ended_prefix, split_ended};
use crate::scan::KeyRange;
use crate::shape::Bucket;
use crate::table_space::TableSpace;
use crate::view::ViewInner;

/// Invisible records of one key that are stepped over before the rest of them is jumped over.
const STEPS_BEFORE_JUMP: u32 = 8;

/// The record that stood under `key` at the version of the view but has ended since.
pub(crate) fn ended_at(view: &ViewInner, space: u32, key: &[u8]) -> Result<Option<Slice>> {
    for bucket in buckets_after(view) {
        // What ends after this bucket began earlier may still stand in a later one, but not both.
        if let Some(found) = ended_in(view, &bucket.keyspace, space, key)? {
            return Ok(since_visible(&found, view.version)?.then_some(found));
        }
    }
    Ok(None)
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

/// Opens a range, which may be empty or inverted.
pub(crate) fn open_range(
    snapshot: &Snapshot,
    keyspace: &Keyspace,
    range: &KeyRange,
) -> Option<Iter> {
    let empty = match range {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
        _ => false,
    };
    (!empty).then(|| snapshot.range(keyspace, range.clone()))
}

/// The next record in the direction of the scan.
pub(crate) fn step(iter: &mut Option<Iter>, reverse: bool) -> Option<Guard> {
    let iter = iter.as_mut()?;
    if reverse {
        iter.next_back()
    } else {
        iter.next()
    }
}

/// An ordered scan at a version below the newest.
pub(crate) struct PastScan {
    current: Option<Iter>,
    current_head: Option<(Slice, Slice)>,
    history: Vec<HistoryScan>,
    reverse: bool,
    started: bool,
}

impl PastScan {
    pub(crate) fn new(
        view: &Arc<ViewInner>,
        space: &TableSpace,
        range: KeyRange,
        reverse: bool,
    ) -> Result<Self> {
        let history = buckets_after(view)
            .map(|bucket| HistoryScan::new(view, bucket, space.number(), &range, reverse))
            .collect();
        Ok(Self {
            current: open_range(&view.snapshot, &space.keyspace, &range),
            current_head: None,
            history,
            reverse,
            started: false,
        })
    }

    pub(crate) fn next_record(&mut self, view: &ViewInner) -> Option<Result<(Slice, Slice)>> {
        self.advance(view).transpose()
    }

    fn advance(&mut self, view: &ViewInner) -> Result<Option<(Slice, Slice)>> {
        if !self.started {
            self.started = true;
            self.advance_current(view.version)?;
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
                let found = self.current_head.take();
                self.advance_current(view.version)?;
                Ok(found)
            }
        }
    }

    /// The part of the history whose next record comes before all others; `None` if the current
    /// records are next.
    fn nearest_history(&mut self) -> Option<&mut HistoryScan> {
        let mut nearest = self.current_head.as_ref().map(|(key, _)| key);
        let mut from = None;
        for (at, source) in self.history.iter().enumerate() {
            let Some((key, _)) = &source.head else {
                continue;
            };
            if nearest.is_none_or(|other| (key < other) != self.reverse) {
                nearest = Some(key);
                from = Some(at);
            }
        }
        self.history.get_mut(from?)
    }

    fn advance_current(&mut self, version: Version) -> Result<()> {
        while let Some(record) = step(&mut self.current, self.reverse) {
            let (key, value) = record.into_inner()?;
            if since_visible(&value, version)? {
                self.current_head = Some((key, value));
                return Ok(());
            }
        }
        self.current_head = None;
        Ok(())
    }
}

/// The visible records of one part of the history, in order of their keys in the table.
struct HistoryScan {
    keyspace: Keyspace,
    space: u32,
    iter: Option<Iter>,
    range: KeyRange,
    reverse: bool,
    /// Next visible record, with its key in the table.
    head: Option<(Slice, Slice)>,
}

impl HistoryScan {
    fn new(view: &ViewInner, bucket: &Bucket, space: u32, range: &KeyRange, reverse: bool) -> Self {
        let range = history_range(space, range);
        Self {
            keyspace: bucket.keyspace.clone(),
            space,
            iter: open_range(&view.snapshot, &bucket.keyspace, &range),
            range,
            reverse,
            head: None,
        }
    }

    fn advance(&mut self, view: &ViewInner) -> Result<()> {
        self.head = None;
        let mut stepping: Option<Slice> = None;
        let mut steps = 0;
        while let Some(record) = step(&mut self.iter, self.reverse) {
            let (history_key, value) = record.into_inner()?;
            let (key, end) = split_ended(&history_key)
                .ok_or_else(|| Error::Corrupt("a history key is cut short".into()))?;
            if end > view.version && since_visible(&value, view.version)? {
                self.head = Some((Slice::from(key), value));
                return Ok(());
            }
            if stepping.as_deref() != Some(key) {
                stepping = Some(Slice::from(key));
                steps = 0;
            }
            steps += 1;
            if steps >= STEPS_BEFORE_JUMP {
                steps = 0;
                // Whether the visible record, if there is one, is still ahead of us.
                let ahead = (end <= view.version) != self.reverse;
                self.jump_over(view, key);
                if ahead && let Some(found) = self.visible(view, key)? {
                    self.head = Some((Slice::from(key), found));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Goes on behind `key`. Keeps the cost of a row that changes all the time at two seeks.
    fn jump_over(&mut self, view: &ViewInner, key: &[u8]) {
        let prefix = ended_prefix(self.space, key);
        if self.reverse {
            self.range.1 = Bound::Excluded(prefix);
        } else {
            self.range.0 = after_prefix(&prefix).map_or(Bound::Unbounded, Bound::Included);
        }
        self.iter = open_range(&view.snapshot, &self.keyspace, &self.range);
    }

    /// The visible record under `key`.
    fn visible(&self, view: &ViewInner, key: &[u8]) -> Result<Option<Slice>> {
        let found = ended_in(view, &self.keyspace, self.space, key)?;
        match found {
            Some(found) if since_visible(&found, view.version)? => Ok(Some(found)),
            _ => Ok(None),
        }
    }
}

/// The same range, in keys of the history. Bounds are encodings of leading columns or what follows
/// them, so no whole key is a proper prefix of a bound, and appending versions keeps the order.
fn history_range(space: u32, range: &KeyRange) -> KeyRange {
    let map = |key: &Vec<u8>| ended_prefix(space, key);
    let whole = ended_prefix(space, &[]);
    let lower = match &range.0 {
        Bound::Unbounded => Bound::Included(whole.clone()),
        bound => bound.as_ref().map(map),
    };
    let upper = match &range.1 {
        Bound::Unbounded => after_prefix(&whole).map_or(Bound::Unbounded, Bound::Excluded),
        bound => bound.as_ref().map(map),
    };
    (lower, upper)
}
