//! The order of a query's rows, and where a result starts in it.

use std::cmp::Ordering;

use kelvin_protocol::{Direction, Value, ValueRef};
use kelvin_storage::{Row, Table};

/// Ordering columns as positions in the table's columns, none twice, with a key of the table among
/// them: no two rows are equal under it.
pub(crate) type Order = Box<[(usize, Direction)]>;

/// A completed order and how much of it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowOrder {
    /// What the query says, then the client's key, then whatever the replica's key has besides.
    pub(crate) columns: Order,
    /// So many leading columns of it already tell any two rows apart.
    pub(crate) decisive: usize,
    /// Where in `columns` the columns of the replica's key are.
    key_at: Box<[usize]>,
}

impl RowOrder {
    /// Completes `wanted` with the client's key, ascending.
    pub(crate) fn complete(table: &Table, wanted: &[(usize, Direction)], key: &[usize]) -> Self {
        let mut columns = Vec::with_capacity(wanted.len() + key.len());
        let client_key = key.iter().map(|at| (*at, Direction::Asc));
        for (column, direction) in wanted.iter().copied().chain(client_key) {
            if columns.iter().all(|(known, _)| *known != column) {
                columns.push((column, direction));
            }
        }
        let unique = is_unique_key(table, key);
        let client_len = columns.len();
        for column in &table.key {
            if columns.iter().all(|(known, _)| known != column) {
                columns.push((*column, Direction::Asc));
            }
        }
        let decisive = if unique { client_len } else { columns.len() };
        let key_at = table
            .key
            .iter()
            .filter_map(|key| columns.iter().position(|(column, _)| column == key))
            .collect();
        Self {
            columns: columns.into(),
            decisive,
            key_at,
        }
    }

    /// The columns that decide.
    pub(crate) fn decisive(&self) -> &[(usize, Direction)] {
        self.columns.get(..self.decisive).unwrap_or(&self.columns)
    }

    /// The row's place in the order.
    pub(crate) fn place(&self, row: &Row) -> Box<[Value]> {
        self.columns
            .iter()
            .map(|(column, _)| row.value(*column).to_value())
            .collect()
    }

    /// The row's place, its text borrowed.
    pub(crate) fn refs<'r>(&self, row: &'r Row) -> Vec<ValueRef<'r>> {
        let columns = self.columns.iter();
        columns.map(|(column, _)| row.value(*column)).collect()
    }

    /// Whether two versions of a row have one place.
    pub(crate) fn is_same_place(&self, old: &Row, new: &Row) -> bool {
        let mut columns = self.columns.iter();
        old.id == new.id && columns.all(|(column, _)| old.value(*column) == new.value(*column))
    }

    /// The replica's key of the row at `place`.
    pub(crate) fn key_of(&self, place: &[Value]) -> Vec<Value> {
        self.key_at
            .iter()
            .filter_map(|at| place.get(*at).cloned())
            .collect()
    }

    /// Compares the row's place with another one.
    pub(crate) fn compare_row(&self, row: &Row, place: &[Value]) -> Ordering {
        let pairs = self.columns.iter().zip(place);
        pairs
            .map(|((column, direction), value)| {
                directed(*direction, row.value(*column).zql_cmp(value.as_ref()))
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Compares two places whose text is borrowed.
    pub(crate) fn compare_refs(&self, a: &[ValueRef<'_>], b: &[ValueRef<'_>]) -> Ordering {
        let pairs = self.columns.iter().zip(a.iter().zip(b));
        pairs
            .map(|((_, direction), (a, b))| directed(*direction, a.zql_cmp(*b)))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Compares two places.
    pub(crate) fn compare(&self, a: &[Value], b: &[Value]) -> Ordering {
        compare_places(&self.columns, a, b)
    }
}

/// Whether these columns are, as a set, a unique key of the table.
pub(crate) fn is_unique_key(table: &Table, columns: &[usize]) -> bool {
    let same_set = |key: &Vec<usize>| {
        key.len() == columns.len() && key.iter().all(|column| columns.contains(column))
    };
    same_set(&table.key) || table.unique_keys.iter().any(same_set)
}

/// Compares values column by column, as far as both sides go.
pub(crate) fn compare_places(order: &[(usize, Direction)], a: &[Value], b: &[Value]) -> Ordering {
    order
        .iter()
        .zip(a.iter().zip(b))
        .map(|((_, direction), (a, b))| directed(*direction, a.zql_cmp(b)))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Turns an ordering round for a descending column.
pub(crate) fn directed(direction: Direction, ordering: Ordering) -> Ordering {
    match direction {
        Direction::Asc => ordering,
        Direction::Desc => ordering.reverse(),
    }
}

/// Where an ordered result starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The order in which it is meant.
    pub(crate) order: Order,
    /// One value for each column of `order`.
    pub(crate) values: Box<[Value]>,
    /// Whether a row that is equal to it stays out.
    pub(crate) exclusive: bool,
}

impl Start {
    /// Whether the row comes at or after the start.
    pub(crate) fn admits(&self, row: &Row) -> bool {
        let ordering = self
            .order
            .iter()
            .zip(self.values.iter())
            .map(|((column, direction), bound)| {
                directed(*direction, bound.as_ref().zql_cmp(row.value(*column)))
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal);
        match ordering {
            Ordering::Less => true,
            Ordering::Equal => !self.exclusive,
            Ordering::Greater => false,
        }
    }
}
