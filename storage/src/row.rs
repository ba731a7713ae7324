//! Rows as they are read.

use std::fmt;
use std::sync::Arc;

use kelvin_protocol::{Value, ValueRef, Version};

use crate::archive::Record;
use crate::evolution::Source;

/// Dense number of a row within its table. It stays with the primary key as long as the row lives.
pub type RowId = u32;

/// One version of one row. Its values are read in place, from the block of the engine's cache that
/// it keeps alive: copy what is to be kept for long. Cloning shares the bytes.
#[derive(Clone)]
pub struct Row {
    /// Commit LSN of the transaction that wrote it.
    pub version: Version,
    /// Its number.
    pub id: RowId,
    record: Record,
    /// Where the value of each column is, if the record is older than the table's present form.
    sources: Option<Arc<[Source]>>,
}

impl Row {
    pub(crate) fn new(
        version: Version,
        id: RowId,
        record: Record,
        sources: Option<Arc<[Source]>>,
    ) -> Self {
        Self {
            version,
            id,
            record,
            sources,
        }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The value of the table's column at this position; null beyond the last one.
    #[inline]
    #[must_use]
    pub fn value(&self, column: usize) -> ValueRef<'_> {
        let value = match &self.sources {
            None => self.record.value(column),
            Some(sources) => match sources.get(column) {
                Some(Source::Stored(at)) => self.record.value(*at),
                Some(Source::Filled(value)) => Some(value.as_ref()),
                None => None,
            },
        };
        value.unwrap_or(ValueRef::Null)
    }

    /// One value for each column of the table, in the table's order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = ValueRef<'_>> {
        match &self.sources {
            None => Values::Stored(self.record.values()),
            Some(sources) => Values::Sourced((0..sources.len()).map(|at| self.value(at))),
        }
    }

    /// All values, copied.
    #[must_use]
    pub fn to_values(&self) -> Vec<Value> {
        self.values().map(ValueRef::to_value).collect()
    }

    /// Copies of the values at these column positions, such as a table's key.
    #[must_use]
    pub fn project(&self, columns: &[usize]) -> Vec<Value> {
        let value = |at: &usize| self.value(*at).to_value();
        columns.iter().map(value).collect()
    }
}

/// Values as the record has them, or where the table's present form finds them.
enum Values<A, B> {
    Stored(A),
    Sourced(B),
}

impl<'a, A, B> Iterator for Values<A, B>
where
    A: Iterator<Item = ValueRef<'a>>,
    B: Iterator<Item = ValueRef<'a>>,
{
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Stored(values) => values.next(),
            Self::Sourced(values) => values.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Stored(values) => values.size_hint(),
            Self::Sourced(values) => values.size_hint(),
        }
    }
}

impl<'a, A, B> ExactSizeIterator for Values<A, B>
where
    A: ExactSizeIterator<Item = ValueRef<'a>>,
    B: ExactSizeIterator<Item = ValueRef<'a>>,
{
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        (self.version, self.id) == (other.version, other.id) && self.values().eq(other.values())
    }
}

impl Eq for Row {}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("version", &self.version)
            .field("id", &self.id)
            .field("values", &self.to_values())
            .finish()
    }
}
