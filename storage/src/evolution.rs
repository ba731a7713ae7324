//! How a table's columns changed over its life, so that records written before a change are read as
//! if they had been written after it.
//!
//! Every column has a number that is never used again. A *layout* is the list of columns that
//! records of one time hold; a record names its layout. Columns that came later have, in older
//! records, the value they were *filled* with when they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use kelvin_protocol::{Direction, Value, ValueRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::Alteration;
use crate::{Index, Table};

/// Number of a column within its table; never zero-based position, never reused.
type ColumnNumber = u32;

/// A table as the catalog on disk has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredTable {
    pub(crate) table: Table,
    /// Names the keyspace of its rows and their keys in the history.
    pub(crate) space: u32,
    /// The number of each column of `table`.
    columns: Vec<ColumnNumber>,
    /// The columns of each layout; the last one is written.
    layouts: Vec<Vec<ColumnNumber>>,
    /// What records have in columns their layout lacks; null where nothing is said.
    fills: BTreeMap<ColumnNumber, Fill>,
}

/// A value as the catalog on disk has it; a double by its bits, for JSON knows no NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Fill {
    Null,
    Bool(bool),
    Number(u64),
    BigInt(i64),
    String(String),
    Json(String),
}

/// Where a column's value is in a record.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// At this position.
    Stored(usize),
    /// Nowhere: the record is older than the column.
    Filled(Value),
}

/// How records of one layout are read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Values a record has.
    pub(crate) width: usize,
    /// The source of each column, unless records hold exactly the table's columns.
    pub(crate) sources: Option<Arc<[Source]>>,
}

impl StoredTable {
    /// A table whose rows are in the keyspace of `space` and were all written with its columns.
    pub(crate) fn new(table: Table, space: u32) -> Self {
        let columns: Vec<ColumnNumber> = (0..).take(table.columns.len()).collect();
        Self {
            table,
            space,
            layouts: vec![columns.clone()],
            columns,
            fills: BTreeMap::new(),
        }
    }

    /// The layout records are written with now.
    pub(crate) fn layout(&self) -> Result<u16> {
        let last = self.layouts.len().checked_sub(1);
        last.and_then(|last| u16::try_from(last).ok())
            .ok_or(Error::Exhausted(self.table.id))
    }

    /// How records of each layout are read.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.layouts
            .iter()
            .map(|layout| self.reading(layout))
            .collect()
    }

    fn reading(&self, layout: &[ColumnNumber]) -> Reading {
        let source = |number: &ColumnNumber| match layout.iter().position(|held| held == number) {
            Some(at) => Source::Stored(at),
            None => Source::Filled(self.fills.get(number).map_or(Value::Null, Fill::value)),
        };
        Reading {
            width: layout.len(),
            sources: (layout != self.columns).then(|| self.columns.iter().map(source).collect()),
        }
    }

    /// The same table with its rows rewritten into another keyspace, all in one layout.
    pub(crate) fn rewritten(&self, space: u32) -> Self {
        Self {
            space,
            layouts: vec![self.columns.clone()],
            fills: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// The table after `alteration`. Indexes over columns that are gone are gone too.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the new table contradicts itself.
    pub(crate) fn altered(&self, alteration: &Alteration) -> Result<Self> {
        let invalid = |what: &str| {
            let name = &alteration.table.name;
            Error::Invalid(format!("the new form of table {name:?} {what}"))
        };
        let mut table = alteration.table.clone();
        let known = self.layouts.iter().flatten().chain(&self.columns);
        let mut next = known.max().map_or(0, |number| number + 1);
        let mut columns = Vec::with_capacity(table.columns.len());
        let mut fills = self.fills.clone();
        for column in &table.columns {
            let filled = alteration.fill(column.attnum);
            let mut held = self.table.columns.iter().zip(&self.columns);
            let held = held.find(|(old, _)| alteration.is_same(column, old));
            let number = match held {
                Some((_, number)) if filled.is_none() => *number,
                _ => {
                    next += 1;
                    next - 1
                }
            };
            if columns.contains(&number) {
                return Err(invalid("has a column twice"));
            }
            if let Some(value) = filled {
                fills.insert(number, Fill::of(value.as_ref()));
            }
            columns.push(number);
        }
        if table.key.is_empty() || table.key.iter().any(|at| *at >= columns.len()) {
            return Err(invalid("has no key among its columns"));
        }
        table.indexes = self.surviving(&columns);
        let mut layouts = self.layouts.clone();
        if layouts.last() != Some(&columns) {
            layouts.push(columns.clone());
        }
        Ok(Self {
            table,
            space: self.space,
            columns,
            layouts,
            fills,
        })
    }

    /// Whether rows of this table have other keys than those of `old`.
    pub(crate) fn keys_differ(&self, old: &Self) -> bool {
        !self.key_numbers().eq(old.key_numbers())
    }

    /// Whether a client sees no difference between rows of this form and of `other`.
    pub(crate) fn reads_as(&self, other: &Self) -> bool {
        (self.space, &self.columns) == (other.space, &other.columns)
            && self.table.name == other.table.name
            && self.table.columns == other.table.columns
            && self.table.unique_keys == other.table.unique_keys
    }

    fn key_numbers(&self) -> impl Iterator<Item = Option<&ColumnNumber>> {
        self.table.key.iter().map(|at| self.columns.get(*at))
    }

    /// The indexes all of whose columns are among `columns`, by the positions there.
    fn surviving(&self, columns: &[ColumnNumber]) -> Vec<Index> {
        let moved = |index: &Index| {
            let moved = self.moved(&index.columns, columns)?;
            Some(Index {
                columns: moved,
                ..index.clone()
            })
        };
        self.table.indexes.iter().filter_map(moved).collect()
    }

    /// Positions of this table as positions in `columns`, unless one of them is not there.
    fn moved(
        &self,
        positions: &[(usize, Direction)],
        columns: &[ColumnNumber],
    ) -> Option<Vec<(usize, Direction)>> {
        let moved = |(at, direction): &(usize, Direction)| {
            let number = self.columns.get(*at)?;
            let at = columns.iter().position(|other| other == number)?;
            Some((at, *direction))
        };
        positions.iter().map(moved).collect()
    }

    /// The index as `other`, an earlier or later form of this table, has to declare it; `None`
    /// where it lacks a column.
    pub(crate) fn index_for(&self, index: &Index, other: &Self) -> Option<Index> {
        Some(Index {
            columns: self.moved(&index.columns, &other.columns)?,
            ..index.clone()
        })
    }

    /// Whether `other` has the same columns where `index` looks.
    pub(crate) fn agrees_on(&self, columns: &[(usize, Direction)], other: &Self) -> bool {
        self.space == other.space && self.moved(columns, &other.columns).as_deref() == Some(columns)
    }
}

impl Fill {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Number(value) => Self::Number(value.to_bits()),
            ValueRef::BigInt(value) => Self::BigInt(value),
            ValueRef::String(text) => Self::String(text.into()),
            ValueRef::Json(text) => Self::Json(text.into()),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(bits) => Value::Number(f64::from_bits(*bits)),
            Self::BigInt(value) => Value::BigInt(*value),
            Self::String(text) => Value::from(text.as_str()),
            Self::Json(text) => Value::Json(text.as_str().into()),
        }
    }
}
