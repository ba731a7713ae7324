//! Which index serves a read.
//!
//! The choice decides what a read costs, never what it yields: whoever reads checks every row.

use kelvin_protocol::{Direction, Value, ValueRef, ValueType};
use kelvin_storage::{IndexId, Row, Scan, ScanStart, Table};

/// Secondary indexes hold texts up to this many bytes in full, however many columns they have.
/// Longer ones may be cut, and then come in no particular order among those that agree so far.
const EXACT_TEXT_BYTES: usize = 500;

/// Columns of an index or of an order.
pub(crate) type Columns<'a> = &'a [(usize, Direction)];

/// The columns of the wanted order and values for them: no row before these is of interest.
pub(crate) type Begin<'a> = (Columns<'a>, &'a [Value]);

/// An index and how to walk it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) index: IndexId,
    /// Leading index columns whose values are known.
    pub(crate) prefix: Vec<usize>,
    /// Whether the prefix tells rows apart by more than a boolean.
    pub(crate) telling: bool,
    /// Rows come sorted by so many leading columns of the wanted order, counting known ones.
    pub(crate) served: usize,
    /// The columns rows come sorted by.
    pub(crate) sorted_by: Vec<usize>,
    /// Whether these are all columns of it.
    pub(crate) ordered: bool,
    reverse: bool,
    /// Columns after the prefix, as far as they serve the order.
    rest: Vec<usize>,
}

/// How good a path is; greater is better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    /// Whether it narrows the read, or at least sorts it.
    useful: bool,
    /// Known columns that tell rows apart.
    telling: usize,
    ordered: bool,
    served: usize,
    known: usize,
}

/// Picks the index for a read of the rows that have known values in the `equal` columns, in the
/// order `wanted` if there is one.
///
/// The longest known prefix wins, then the one that yields most of the order. Booleans alone hardly
/// tell rows apart, so that they count for neither.
pub(crate) fn choose(table: &Table, equal: &[usize], wanted: Option<Columns<'_>>) -> Path {
    let best = candidates(table, equal, wanted).into_iter().next();
    best.unwrap_or_else(|| {
        let primary: Vec<_> = table.key.iter().map(|at| (*at, Direction::Asc)).collect();
        walk(IndexId::PRIMARY, &primary, primary.len(), &[], None)
    })
}

/// All paths for such a read, the one that promises most by its columns first.
pub(crate) fn candidates(table: &Table, equal: &[usize], wanted: Option<Columns<'_>>) -> Vec<Path> {
    let primary: Vec<_> = table.key.iter().map(|at| (*at, Direction::Asc)).collect();
    let secondary = table.indexes.iter().map(|index| {
        let mut columns = index.columns.clone();
        columns.extend(&primary);
        (index.id, columns, index.columns.len())
    });
    let first = (IndexId::PRIMARY, primary.clone(), primary.len());
    let paths = std::iter::once(first).chain(secondary);
    let paths = paths.map(|(id, columns, own)| {
        let mut path = walk(id, &columns, own, equal, wanted);
        let merit = merit(table, &path, wanted.is_some());
        path.telling = merit.telling > 0;
        (merit, path)
    });
    let mut paths: Vec<(Merit, Path)> = paths.collect();
    // Of equals the first one stays first.
    paths.sort_by(|(a, _), (b, _)| b.cmp(a));
    paths.into_iter().map(|(_, path)| path).collect()
}

fn merit(table: &Table, path: &Path, sorted: bool) -> Merit {
    let tells = |at: &usize| {
        let column = table.columns.get(*at);
        column.is_some_and(|column| column.value_type != ValueType::Boolean)
    };
    let known = path.prefix.len();
    let telling = if path.prefix.iter().any(tells) {
        known
    } else {
        0
    };
    let served = if path.ordered || path.rest.iter().any(tells) {
        path.served
    } else {
        0
    };
    Merit {
        useful: telling > 0 || (sorted && (path.ordered || served > 0)),
        telling,
        ordered: path.ordered,
        served,
        known,
    }
}

/// How one index serves the read; `own` of its columns are not the appended primary key.
fn walk(
    index: IndexId,
    columns: Columns<'_>,
    own: usize,
    equal: &[usize],
    wanted: Option<Columns<'_>>,
) -> Path {
    let prefix: Vec<usize> = columns
        .iter()
        .take(own)
        .map(|(column, _)| *column)
        .take_while(|column| equal.contains(column))
        .collect();
    let wanted = wanted.unwrap_or_default();
    let is_known = |at: usize| {
        wanted
            .get(at)
            .is_some_and(|(column, _)| equal.contains(column))
    };
    let mut served = 0;
    let mut reverse: Option<bool> = None;
    let (mut rest, mut sorted_by) = (Vec::new(), Vec::new());
    for (column, direction) in columns.iter().skip(prefix.len()) {
        while is_known(served) {
            served += 1;
        }
        let Some((next, wanted_direction)) = wanted.get(served) else {
            break;
        };
        // A column that is the same in all rows, or was sorted by already, does not disturb.
        if !equal.contains(column) && !rest.contains(column) {
            let turned = direction != wanted_direction;
            if next != column || reverse.is_some_and(|reverse| reverse != turned) {
                break;
            }
            reverse = Some(turned);
            served += 1;
            sorted_by.push(*column);
        }
        rest.push(*column);
    }
    while is_known(served) {
        served += 1;
    }
    Path {
        index,
        prefix,
        telling: false,
        served,
        sorted_by,
        ordered: served == wanted.len(),
        reverse: reverse.unwrap_or(false),
        rest,
    }
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
        let start = begin.and_then(|(order, values)| self.start(&value_of, order, values));
        Scan {
            index: self.index,
            prefix,
            start,
            reverse: self.reverse,
            expected: 1,
        }
    }

    fn start<'v>(
        &self,
        value_of: impl Fn(usize) -> Option<&'v Value>,
        order: Columns<'_>,
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
            if self.index != IndexId::PRIMARY && is_cut(value.as_ref()) {
                break;
            }
        }
        Some(start)
    }

    /// Whether this row may come at the wrong place of an ordered path.
    pub(crate) fn misplaces(&self, row: &Row) -> bool {
        self.index != IndexId::PRIMARY && self.rest.iter().any(|column| is_cut(row.value(*column)))
    }
}

/// Whether an index may hold only the beginning of this value.
fn is_cut(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::String(text) | ValueRef::Json(text) => text.len() > EXACT_TEXT_BYTES,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Direction::{Asc, Desc};
    use kelvin_storage::{Index, TableId};

    use super::*;

    /// Columns: 0 key, 1 and 2 numbers, 3 boolean; indexes 1: (1, 2 desc), 2: (2), 3: (3).
    fn table() -> Table {
        let column = |name: &str, value_type| kelvin_storage::Column {
            name: name.into(),
            attnum: 1,
            upstream_type: "float8".into(),
            type_oid: 701,
            value_type,
            not_null: false,
        };
        let index = |id, columns: &[(usize, Direction)]| Index {
            id: IndexId(id),
            name: format!("index {id}"),
            columns: columns.to_vec(),
            unique: false,
        };
        let number = ValueType::Number;
        Table {
            id: TableId(1),
            name: "t".into(),
            schema: "public".into(),
            upstream_name: "t".into(),
            oid: 1,
            columns: vec![
                column("id", number),
                column("a", number),
                column("b", number),
                column("open", ValueType::Boolean),
            ],
            unsynced_columns: vec![],
            key: vec![0],
            unique_keys: vec![vec![0]],
            indexes: vec![
                index(1, &[(1, Asc), (2, Desc)]),
                index(2, &[(2, Asc)]),
                index(3, &[(3, Asc)]),
            ],
        }
    }

    fn chosen(equal: &[usize], wanted: Option<Columns<'_>>) -> (u16, usize, bool, bool) {
        let path = choose(&table(), equal, wanted);
        (path.index.0, path.prefix.len(), path.ordered, path.reverse)
    }

    #[test]
    fn the_index_with_the_longest_known_prefix_is_chosen() {
        assert_eq!(chosen(&[], None), (0, 0, true, false));
        assert_eq!(chosen(&[0], None), (0, 1, true, false));
        assert_eq!(chosen(&[2], None), (2, 1, true, false));
        assert_eq!(chosen(&[2, 1], None), (1, 2, true, false));
        assert_eq!(chosen(&[3], None), (3, 1, true, false));
    }

    #[test]
    fn an_order_is_read_forwards_or_backwards() {
        assert_eq!(chosen(&[], Some(&[(0, Desc)])), (0, 0, true, true));
        assert_eq!(
            chosen(&[], Some(&[(2, Asc), (0, Asc)])),
            (2, 0, true, false)
        );
        assert_eq!(
            chosen(&[], Some(&[(2, Desc), (0, Desc)])),
            (2, 0, true, true)
        );
        assert_eq!(
            chosen(&[], Some(&[(1, Asc), (2, Desc), (0, Asc)])),
            (1, 0, true, false)
        );
        assert_eq!(
            chosen(&[1], Some(&[(2, Desc), (0, Asc)])),
            (1, 1, true, false)
        );
        assert_eq!(
            chosen(&[1], Some(&[(1, Asc), (2, Desc), (0, Asc)])),
            (1, 1, true, false)
        );
    }

    #[test]
    fn an_index_that_yields_only_the_leading_columns_of_an_order_still_serves() {
        let path = choose(&table(), &[], Some(&[(2, Desc), (0, Asc)]));
        assert_eq!((path.index.0, path.served, path.ordered), (2, 1, false));
        assert_eq!(path.sorted_by, [2]);
    }

    #[test]
    fn a_known_boolean_loses_against_the_order() {
        let (index, ..) = chosen(&[3], Some(&[(2, Asc), (0, Asc)]));
        assert_eq!(index, 2);
        assert!(!choose(&table(), &[3], None).telling);
    }

    #[test]
    fn a_scan_never_begins_behind_the_start() {
        let order = [(1, Asc), (2, Desc), (0, Asc)];
        let values = [Value::from(5.0), Value::from(7.0), Value::from(1.0)];
        let path = choose(&table(), &[], Some(&order));
        let start = path.scan(|_| None, Some((&order, &values))).start.unwrap();
        assert!(start.inclusive);
        assert_eq!(start.values, values);
        // Column 1 is known to be 6, so everything lies behind a start at 5.
        let (path, six) = (choose(&table(), &[1], Some(&order)), Value::from(6.0));
        let scan = path.scan(|at| (at == 1).then_some(&six), Some((&order, &values)));
        assert_eq!((scan.prefix, scan.start.is_none()), (vec![six], true));
    }
}
