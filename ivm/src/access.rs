//! Which index serves a read.
//!
//! The choice decides what a read costs, never what it yields: whoever reads checks every row.

use kelvin_protocol::{Direction, Value, ValueType};
use kelvin_storage::{IndexId, Row, Scan, ScanStart, Table};

use crate::order::{Order, column_of};

/// Secondary indexes hold texts up to this many bytes in full, however many columns they have.
/// Longer ones may be cut, and then come in no particular order among those that agree so far.
const EXACT_TEXT_BYTES: usize = 500;

/// The columns of an order and values for them: no row before these is of interest.
pub(crate) type Begin<'a> = (&'a [(usize, Direction)], &'a [Value]);

/// An index and how to walk it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) index: IndexId,
    /// Leading index columns whose values are known.
    pub(crate) prefix: Vec<usize>,
    /// Whether rows come in the wanted order.
    pub(crate) ordered: bool,
    reverse: bool,
    /// Columns after the prefix, as far as the wanted order needs them.
    rest: Vec<usize>,
}

/// Picks the index for a read of the rows that have known values in the `equal` columns, in the
/// order `wanted` if there is one.
///
/// The longest known prefix wins, then the one that yields the order. A prefix that can hardly tell
/// rows apart (booleans only) loses against an index in the wanted order.
pub(crate) fn choose(
    table: &Table,
    equal: &[usize],
    wanted: Option<&[(usize, Direction)]>,
) -> Path {
    let primary: Order = table.key.iter().map(|at| (*at, Direction::Asc)).collect();
    let secondary = table.indexes.iter().map(|index| {
        let mut columns = index.columns.clone();
        columns.extend(&primary);
        (index.id, columns, index.columns.len())
    });
    let first = (IndexId::PRIMARY, primary.clone(), primary.len());
    let mut best: Option<((bool, usize, bool, usize), Path)> = None;
    for (id, columns, own) in std::iter::once(first).chain(secondary) {
        let path = walk(id, &columns, own, equal, wanted);
        let telling = path
            .prefix
            .iter()
            .any(|at| column_type(table, *at) != Some(ValueType::Boolean));
        let useful = telling || (path.ordered && wanted.is_some());
        let known = path.prefix.len();
        let rank = (useful, if telling { known } else { 0 }, path.ordered, known);
        if best.as_ref().is_none_or(|(known, _)| rank > *known) {
            best = Some((rank, path));
        }
    }
    best.map_or_else(
        || walk(IndexId::PRIMARY, &primary, primary.len(), &[], None),
        |(_, path)| path,
    )
}

fn column_type(table: &Table, at: usize) -> Option<ValueType> {
    table.columns.get(at).map(|column| column.value_type)
}

/// How one index serves the read; `own` of its columns are not the appended primary key.
fn walk(
    index: IndexId,
    columns: &[(usize, Direction)],
    own: usize,
    equal: &[usize],
    wanted: Option<&[(usize, Direction)]>,
) -> Path {
    let prefix: Vec<usize> = columns
        .iter()
        .take(own)
        .map(|(column, _)| *column)
        .take_while(|column| equal.contains(column))
        .collect();
    let mut path = Path {
        index,
        ordered: wanted.is_none(),
        reverse: false,
        rest: Vec::new(),
        prefix,
    };
    let Some(wanted) = wanted else {
        return path;
    };
    let mut open: Vec<_> = wanted
        .iter()
        .filter(|(column, _)| !equal.contains(column))
        .copied()
        .collect();
    open.reverse();
    let mut reverse: Option<bool> = None;
    let mut seen = path.prefix.clone();
    for (column, direction) in columns.iter().skip(path.prefix.len()) {
        let Some((next, wanted_direction)) = open.last().copied() else {
            break;
        };
        path.rest.push(*column);
        if equal.contains(column) || seen.contains(column) {
            continue;
        }
        let turned = *direction != wanted_direction;
        if next != *column || reverse.is_some_and(|reverse| reverse != turned) {
            break;
        }
        reverse = Some(turned);
        seen.push(*column);
        open.pop();
    }
    path.ordered = open.is_empty();
    path.reverse = path.ordered && reverse.unwrap_or(false);
    path
}

impl Path {
    /// The scan along this path, with the values of the known columns. It may begin earlier than
    /// `begin`, never later.
    pub(crate) fn scan<'v>(
        &self,
        value_of: impl Fn(usize) -> Option<&'v Value>,
        begin: Option<Begin<'_>>,
    ) -> Scan {
        let prefix: Vec<Value> = self
            .prefix
            .iter()
            .map_while(|column| value_of(*column).cloned())
            .collect();
        let start = begin
            .filter(|_| self.ordered)
            .and_then(|(order, values)| self.start(&value_of, order, values));
        Scan {
            index: self.index,
            prefix,
            start,
            reverse: self.reverse,
        }
    }

    fn start<'v>(
        &self,
        value_of: impl Fn(usize) -> Option<&'v Value>,
        order: &[(usize, Direction)],
        values: &[Value],
    ) -> Option<ScanStart> {
        let begin_of = |column: usize| {
            let at = order.iter().position(|(known, _)| *known == column)?;
            values.get(at)
        };
        // A known column that the start has another value for moves the start to the very beginning
        // or past the end; the reader's own check of each row sorts that out.
        let moved = order.iter().any(|(column, _)| {
            value_of(*column).is_some_and(|value| begin_of(*column) != Some(value))
        });
        if moved || self.rest.is_empty() {
            return None;
        }
        let mut start = ScanStart {
            values: Vec::with_capacity(self.rest.len()),
            inclusive: true,
        };
        for column in &self.rest {
            let Some(value) = value_of(*column).or_else(|| begin_of(*column)) else {
                break;
            };
            start.values.push(value.clone());
            if self.index != IndexId::PRIMARY && is_cut(value) {
                break;
            }
        }
        Some(start)
    }

    /// Whether this row may come at the wrong place of an ordered path.
    pub(crate) fn misplaces(&self, row: &Row) -> bool {
        self.index != IndexId::PRIMARY
            && self
                .rest
                .iter()
                .any(|column| is_cut(column_of(row, *column)))
    }
}

/// Whether an index may hold only the beginning of this value.
fn is_cut(value: &Value) -> bool {
    match value {
        Value::String(text) | Value::Json(text) => text.len() > EXACT_TEXT_BYTES,
        _ => false,
    }
}
