//! The records of a range, in order.

use std::ops::Bound;

use fjall::{Iter, Keyspace, Readable, Slice, Snapshot};

use crate::error::Result;

/// A range of keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    pub(crate) lower: Bound<Vec<u8>>,
    pub(crate) upper: Bound<Vec<u8>>,
    /// What all keys of the range start with, where it reaches to the end of those that do, in the
    /// direction it is read.
    pub(crate) region: Option<Vec<u8>>,
}

/// Reads a range.
pub(crate) struct Records {
    iter: Option<Iter>,
    reverse: bool,
    region: Option<Vec<u8>>,
}

impl Records {
    /// The records of a range, which may be empty or inverted.
    ///
    /// The engine looks for the far bound in every block it reads, which costs more than to look at
    /// each key here. So it is not told of it where the range ends with its region: what lies beyond
    /// is one record. Elsewhere it is, for beyond may be many that were removed.
    pub(crate) fn open(
        snapshot: &Snapshot,
        keyspace: &Keyspace,
        range: &KeyRange,
        reverse: bool,
    ) -> Self {
        let (mut lower, mut upper) = (range.lower.clone(), range.upper.clone());
        let empty = is_empty(&lower, &upper);
        if range.region.is_some() {
            let far = if reverse { &mut lower } else { &mut upper };
            *far = Bound::Unbounded;
        }
        Self {
            iter: (!empty).then(|| snapshot.range(keyspace, (lower, upper))),
            reverse,
            region: range.region.clone(),
        }
    }

    /// The next record in the direction of the scan.
    pub(crate) fn step(&mut self) -> Option<Result<(Slice, Slice)>> {
        let iter = self.iter.as_mut()?;
        let record = if self.reverse {
            iter.next_back()?
        } else {
            iter.next()?
        };
        match record.into_inner() {
            Ok((key, _)) if self.region.as_ref().is_some_and(|r| !key.starts_with(r)) => {
                self.iter = None;
                None
            }
            record => Some(record.map_err(Into::into)),
        }
    }
}

fn is_empty(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> bool {
    match (lower, upper) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
        _ => false,
    }
}
