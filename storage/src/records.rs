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

/// Keys that start alike. They are told by their first eight bytes as one number, which is quicker
/// than to compare bytes and is done for every record of a scan.
#[derive(Clone, Copy)]
struct Region {
    start: u64,
    mask: u64,
    length: usize,
}

impl Region {
    const HEAD: usize = 8;

    /// Keys that start with `start`; `None` where that is nothing or too long.
    fn new(start: &[u8]) -> Option<Self> {
        let unused = Self::HEAD.checked_sub(start.len())?;
        Some(Self {
            start: Self::head(start),
            mask: u64::MAX.checked_shl(8 * u32::try_from(unused).ok()?)?,
            length: start.len(),
        })
    }

    fn holds(self, key: &[u8]) -> bool {
        key.len() >= self.length && Self::head(key) & self.mask == self.start
    }

    fn head(key: &[u8]) -> u64 {
        if let Some(head) = key.first_chunk() {
            return u64::from_be_bytes(*head);
        }
        let bytes = key.iter().chain(std::iter::repeat(&0)).take(Self::HEAD);
        bytes.fold(0, |head, byte| (head << 8) | u64::from(*byte))
    }
}

/// Reads a range.
pub(crate) struct Records {
    iter: Option<Iter>,
    reverse: bool,
    region: Option<Region>,
}

impl Records {
    /// The records of a range, which may be empty or inverted.
    ///
    /// The engine looks for the far bound in every block it reads, which costs more than to look at
    /// each key here. So it is not told of it where the range ends with its region: what lies
    /// beyond is one record. Elsewhere it is, for beyond may be many that were removed.
    pub(crate) fn open(
        snapshot: &Snapshot,
        keyspace: &Keyspace,
        range: &KeyRange,
        reverse: bool,
    ) -> Self {
        let (mut lower, mut upper) = (range.lower.clone(), range.upper.clone());
        let empty = is_empty(&lower, &upper);
        let region = range.region.as_deref().and_then(Region::new);
        if region.is_some() {
            let far = if reverse { &mut lower } else { &mut upper };
            *far = Bound::Unbounded;
        }
        Self {
            iter: (!empty).then(|| snapshot.range(keyspace, (lower, upper))),
            reverse,
            region,
        }
    }

    /// The next record in the direction of the scan. At the end, and ever after, there is none.
    #[inline]
    pub(crate) fn step(&mut self) -> Option<Result<(Slice, Slice)>> {
        let iter = self.iter.as_mut()?;
        let record = if self.reverse {
            iter.next_back()
        } else {
            iter.next()
        };
        let Some(record) = record else {
            self.iter = None;
            return None;
        };
        match record.into_inner() {
            Ok((key, _)) if self.region.is_some_and(|region| !region.holds(&key)) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_holds_exactly_the_keys_that_start_as_it_does() {
        let keys: [&[u8]; 7] = [
            &[],
            &[0],
            &[0, 1],
            &[0, 1, 0],
            &[0, 1, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0],
        ];
        let starts: [&[u8]; 5] = [
            &[0],
            &[0, 0],
            &[0, 1],
            &[1; 8],
            &[0, 1, 255, 255, 255, 255, 255],
        ];
        for start in starts {
            let region = Region::new(start).unwrap();
            for key in keys {
                assert_eq!(
                    region.holds(key),
                    key.starts_with(start),
                    "{start:?} {key:?}"
                );
            }
        }
        assert!(Region::new(&[]).is_none());
        assert!(Region::new(&[0; 9]).is_none());
    }
}
