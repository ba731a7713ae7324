//! Ordered scans of rows and indexes.

use std::ops::Bound;
use std::sync::Arc;

use kelvin_protocol::{Direction, Value};

use crate::archive::entry_primary;
use crate::error::{Error, Result};
use crate::key::{after_prefix, encode_all};
use crate::layout::space_key;
use crate::neighbours::Together;
use crate::past::{PastRecord, PastScan, ended_at};
use crate::records::{KeyRange, Records};
use crate::table_space::{IndexSpace, TableSpace};
use crate::view::ViewInner;
use crate::{IndexId, Row, TableId};

/// Which rows to read, and in which order.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The index to follow; [`IndexId::PRIMARY`] for the rows in primary key order.
    pub index: IndexId,
    /// Values the first columns of the index (or primary key) must equal.
    pub prefix: Vec<Value>,
    /// Where to begin, counted in the direction of the scan.
    pub start: Option<ScanStart>,
    /// Against the order of the index.
    pub reverse: bool,
    /// How many rows will be taken, as far as that is known: so many may be read at once.
    pub expected: usize,
}

/// Where a scan begins.
#[derive(Clone, Debug)]
pub struct ScanStart {
    /// Values for columns following the prefix: index columns after the prefix, then the primary
    /// key columns. May stop early, and then means every row that agrees so far.
    pub values: Vec<Value>,
    /// Whether rows that equal `values` belong to the result.
    pub inclusive: bool,
}

impl Scan {
    /// All rows in primary key order.
    #[must_use]
    pub fn all() -> Self {
        Self::of(IndexId::PRIMARY)
    }

    /// All rows in the order of an index.
    #[must_use]
    pub fn of(index: IndexId) -> Self {
        Self {
            index,
            prefix: Vec::new(),
            start: None,
            reverse: false,
            expected: 1,
        }
    }

    /// With these values for the first columns.
    #[must_use]
    pub fn prefix(self, prefix: Vec<Value>) -> Self {
        Self { prefix, ..self }
    }

    /// From these values on.
    #[must_use]
    pub fn start(self, values: Vec<Value>, inclusive: bool) -> Self {
        Self {
            start: Some(ScanStart { values, inclusive }),
            ..self
        }
    }

    /// In the opposite order.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self {
            reverse: true,
            ..self
        }
    }

    /// Of which so many rows will be taken, or all there are.
    #[must_use]
    pub fn expecting(self, rows: usize) -> Self {
        Self {
            expected: rows,
            ..self
        }
    }
}

/// Rows in the order of a [`Scan`].
pub struct RowScan {
    view: Arc<ViewInner>,
    space: Arc<TableSpace>,
    /// Index columns whose values have to be compared, because their entries hold only a part.
    recheck: Vec<(usize, Value)>,
    by_index: bool,
    source: Source,
    /// Records read so far.
    read: u64,
}

enum Source {
    Rows(Records),
    /// Index entries, whose rows are read together as long as these are neighbours.
    Entries(Records, Option<Together>),
    Past(Box<PastScan>),
    /// The one row there can be, until it is read.
    Single(Option<Vec<u8>>),
}

impl std::fmt::Debug for RowScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowScan").finish_non_exhaustive()
    }
}

impl RowScan {
    pub(crate) fn new(view: &Arc<ViewInner>, table: TableId, scan: &Scan) -> Result<Self> {
        let space = view.era.table(table)?.clone();
        let index = match scan.index {
            IndexId::PRIMARY => None,
            id => Some(space.index(id)?),
        };
        check_lengths(&space, index, scan)?;
        let recheck = index.map_or_else(Vec::new, |index| inexact(index, &scan.prefix));
        // To get a row takes half as long as to begin to scan for it.
        let is_single = index.is_none() && scan.prefix.len() == space.table.key.len();
        let source = if is_single && scan.start.is_none() {
            Source::Single(space.key_if_any(&scan.prefix)?)
        } else {
            let mut range = key_range(index, scan);
            if view.past {
                space.fences.narrow(scan.index, view.version, &mut range);
                Source::Past(Box::new(PastScan::new(view, &space, range, scan.reverse)))
            } else {
                let (snapshot, keyspace) = (&view.snapshot, &space.keyspace);
                let records = Records::open(snapshot, keyspace, &range, scan.reverse);
                match index {
                    None => Source::Rows(records),
                    Some(index) => Source::Entries(records, Together::new(index, scan.expected)),
                }
            }
        };
        Ok(Self {
            view: view.clone(),
            recheck,
            by_index: index.is_some(),
            source,
            read: 0,
            space,
        })
    }

    #[inline]
    fn next_row(&mut self) -> Option<Result<Row>> {
        if let Source::Rows(records) = &mut self.source {
            let record = records.step()?;
            self.read += 1;
            return Some(match record {
                Ok((_, value)) => self.view.decode(&self.space, value),
                Err(error) => Err(error),
            });
        }
        self.next_found()
    }

    /// The next row where it is more than a step from one to the other. By itself, so that the step
    /// is not burdened with room for all this.
    #[inline(never)]
    fn next_found(&mut self) -> Option<Result<Row>> {
        match &mut self.source {
            Source::Rows(_) => None,
            Source::Entries(entries, together) => {
                let row = match together {
                    Some(rows) => rows.next(entries, &self.view, &self.space),
                    None => None,
                };
                if row.is_none() {
                    *together = None;
                }
                let row = row.or_else(|| Some(self.view.row_of(&self.space, entries.step()?)))?;
                self.read += 1;
                Some(row)
            }
            Source::Past(scan) => {
                let record = scan.next_record(&self.view)?;
                self.read += 1;
                Some(record.and_then(|record| self.past(record)))
            }
            Source::Single(key) => {
                let key = key.take()?;
                self.view.row(&self.space, &key).transpose()
            }
        }
    }

    fn past(&self, record: PastRecord) -> Result<Row> {
        if !self.by_index {
            return self.view.decode(&self.space, record.value);
        }
        let primary = primary_key(record.key(), &record.value)?;
        let row = match record.end {
            // An entry ends with the row version it belongs to, which is therefore not current.
            Some(end) => ended_at(&self.view, self.space.number(), &primary, Some(end))?,
            None => self.view.record(&self.space, &primary)?,
        };
        self.view.expected(&self.space, row)
    }
}

impl Iterator for RowScan {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.recheck.is_empty() {
            return self.next_row();
        }
        loop {
            let row = self.next_row()?;
            let differs = |row: &Row| {
                let mut recheck = self.recheck.iter();
                recheck.any(|(at, value)| row.value(*at) != *value)
            };
            if !row.as_ref().is_ok_and(differs) {
                return Some(row);
            }
        }
    }
}

impl Drop for RowScan {
    fn drop(&mut self) {
        // A row that is got is counted where that is done.
        if !matches!(self.source, Source::Single(_)) {
            self.view.shape.reads.scan(self.read);
        }
    }
}

/// Key in the table of the row that an index entry leads to.
pub(crate) fn primary_key(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let mut primary = space_key(IndexId::PRIMARY);
    primary.extend_from_slice(entry_primary(key, value)?);
    Ok(primary)
}

fn check_lengths(space: &TableSpace, index: Option<&IndexSpace>, scan: &Scan) -> Result<()> {
    let start = scan.start.as_ref().map_or(0, |start| start.values.len());
    let columns = index.map_or(0, |index| index.columns.len());
    if scan.prefix.len() + start > columns + space.table.key.len() {
        return Err(Error::Invalid(format!(
            "a scan of table {:?} names more values than its index {} has columns",
            space.table.name, scan.index.0
        )));
    }
    Ok(())
}

fn inexact(index: &IndexSpace, prefix: &[Value]) -> Vec<(usize, Value)> {
    let columns = index.columns.iter().map(|(at, _): &(usize, Direction)| *at);
    columns
        .zip(prefix)
        .filter(|(_, value)| !index.limit.is_exact(value.as_ref()))
        .map(|(at, value)| (at, value.clone()))
        .collect()
}

fn key_range(index: Option<&IndexSpace>, scan: &Scan) -> KeyRange {
    let mut base = space_key(scan.index);
    let append = |first: usize, values: &[Value], out: &mut Vec<u8>| match index {
        Some(index) => index.encode_from(first, values, out),
        None => encode_all(values, out),
    };
    append(0, &scan.prefix, &mut base);
    let mut range = KeyRange {
        lower: Bound::Included(base.clone()),
        upper: after_prefix(&base).map_or(Bound::Unbounded, Bound::Excluded),
        region: scan.prefix.is_empty().then(|| base.clone()),
    };
    if let Some(start) = &scan.start {
        let mut at = base;
        append(scan.prefix.len(), &start.values, &mut at);
        // Everything that equals the start shares its encoding as a prefix; `after` lies behind it.
        let after = after_prefix(&at);
        match (scan.reverse, start.inclusive) {
            (false, true) => range.lower = Bound::Included(at),
            (false, false) => range.lower = after.map_or(Bound::Unbounded, Bound::Included),
            (true, true) => range.upper = after.map_or(Bound::Unbounded, Bound::Excluded),
            (true, false) => range.upper = Bound::Excluded(at),
        }
    }
    range
}
