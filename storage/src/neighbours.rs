//! Rows that an index leads to one after the other, and that lie side by side in their table.
//!
//! A row is got by its key, which takes half as long as to begin to scan for it. But what came into
//! being together, as the items of an order did, often lies together, and then one short scan gets
//! all of it. Whether it is so is known by trying: see [`Nearness`].

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fjall::Slice;

use crate::Row;
use crate::error::Result;
use crate::records::{KeyRange, Records};
use crate::scan::primary_key;
use crate::table_space::{IndexSpace, TableSpace};
use crate::view::ViewInner;

/// Rows that are worth a scan.
const FEW: usize = 4;
/// Rows looked for at once: a bound of memory.
const MANY: usize = 64;
/// Last bytes of keys that neighbours may differ in.
const TAIL: usize = 3;
/// Scans of an index that pass between one that found no neighbours and the next that looks.
const REST: u32 = 64;

/// Whether rows that follow one another in an index are neighbours in the table, as far as looking
/// for them has shown. It is about speed alone, so races are of no consequence.
#[derive(Debug, Default)]
pub(crate) struct Nearness {
    /// Scans that will not look.
    rest: AtomicU32,
}

impl Nearness {
    /// Whether the scan that begins is to look.
    fn is_worth_a_look(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    /// There were none.
    fn disappoint(&self) {
        self.rest.store(REST, Ordering::Relaxed);
    }
}

/// Rows of an index that are read together while they are neighbours.
pub(crate) struct Together {
    nearness: Arc<Nearness>,
    /// Rows that are to be taken, beyond those that were read.
    expected: usize,
    /// Keys of the rows to come, and their records as far as they were found.
    ahead: VecDeque<(Vec<u8>, Option<Slice>)>,
}

impl Together {
    /// None where so few rows are taken that it does not pay, or they were no neighbours of late.
    pub(crate) fn new(index: &IndexSpace, expected: usize) -> Option<Self> {
        let nearness = &index.nearness;
        (expected >= FEW && nearness.is_worth_a_look()).then(|| Self {
            nearness: nearness.clone(),
            expected,
            ahead: VecDeque::new(),
        })
    }

    /// The next row. None where the others are to be read one by one, or there is none.
    pub(crate) fn next(
        &mut self,
        entries: &mut Records,
        view: &ViewInner,
        space: &TableSpace,
    ) -> Option<Result<Row>> {
        if self.ahead.is_empty()
            && self.expected >= FEW
            && let Err(error) = self.look(entries, view, space)
        {
            self.expected = 0;
            return Some(Err(error));
        }
        let (key, record) = self.ahead.pop_front()?;
        Some(match record {
            Some(record) => view.decode(space, record),
            None => view.indexed(space, &key),
        })
    }

    fn look(&mut self, entries: &mut Records, view: &ViewInner, space: &TableSpace) -> Result<()> {
        let most = self.expected.min(MANY);
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(entry) = entries.step()
        {
            let (key, value) = entry?;
            keys.push(primary_key(&key, &value)?);
        }
        self.expected = if keys.len() < most {
            0
        } else {
            self.expected - most
        };
        let mut records = vec![None; keys.len()];
        if keys.len() >= FEW && !find(view, space, &keys, &mut records)? {
            self.nearness.disappoint();
            self.expected = 0;
        }
        self.ahead.extend(keys.into_iter().zip(records));
        Ok(())
    }
}

/// Looks in the newest version for the records under keys, in one scan of their neighbourhood, and
/// puts what it finds where the key has its place. Gives whether it found enough to be quicker than
/// to get each.
fn find(
    view: &ViewInner,
    space: &TableSpace,
    keys: &[Vec<u8>],
    records: &mut [Option<Slice>],
) -> Result<bool> {
    let mut wanted: Vec<_> = keys.iter().zip(records).collect();
    wanted.sort_unstable_by_key(|(key, _)| *key);
    let (Some((first, _)), Some((last, _))) = (wanted.first(), wanted.last()) else {
        return Ok(false);
    };
    if !are_near(first, last) {
        return Ok(false);
    }
    let range = KeyRange {
        lower: Bound::Included((*first).clone()),
        upper: Bound::Unbounded,
        region: None,
    };
    let mut scan = Records::open(&view.snapshot, &space.keyspace, &range, false);
    let (mut steps, mut found) = (0, 0);
    let mut wanted = wanted.into_iter().peekable();
    while wanted.peek().is_some()
        && steps < 2 * keys.len()
        && let Some(record) = scan.step()
    {
        let (at, value) = record?;
        steps += 1;
        // None is passed over but for damage, which is told where the row is got.
        while wanted.next_if(|(key, _)| ***key < *at).is_some() {}
        if let Some((_, place)) = wanted.next_if(|(key, _)| ***key == *at) {
            *place = Some(value);
            found += 1;
        }
    }
    view.shape.reads.scan(steps as u64);
    // To begin takes as long as to get two rows.
    Ok(found > keys.len() / 2 + 1)
}

/// Whether so little lies between two keys that it is worth looking: they differ in their ends.
fn are_near(first: &[u8], last: &[u8]) -> bool {
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    first.len().max(last.len()) - same <= TAIL
}
