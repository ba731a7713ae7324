//! Random tables.

use kelvin_protocol::Direction;

use super::case::{Case, TableSpec};
use super::choices::Choices;
use super::values::{COMPARABLE, Kind, Pools};

/// Columns of every table that are never null: two for keys, and one that is unique.
const NOT_NULL: usize = 3;
/// Position of the unique column.
pub(crate) const UNIQUE: usize = 2;

pub(crate) fn random_tables(choices: &mut Choices<'_>) -> Vec<TableSpec> {
    let tables = choices.between(1, 3);
    (0..tables).map(|at| random_table(choices, at)).collect()
}

fn random_table(choices: &mut Choices<'_>, at: usize) -> TableSpec {
    let id = *choices.pick(&[Kind::Int4, Kind::Int4, Kind::Text, Kind::Float8, Kind::Int8]);
    let beside = *choices.pick(&[Kind::Int4, Kind::Text, Kind::Bool]);
    let mut columns = vec![
        ("id".to_owned(), id, false),
        ("k".to_owned(), beside, false),
        (
            "u".to_owned(),
            *choices.pick(&[Kind::Text, Kind::Int4]),
            false,
        ),
        // There is always something to correlate by.
        ("a".to_owned(), Kind::Int4, true),
    ];
    for name in ["b", "c", "d", "e"].iter().take(choices.between(1, 4)) {
        let kind = if choices.chance(8) {
            Kind::Json
        } else {
            *choices.pick(&COMPARABLE)
        };
        columns.push(((*name).to_owned(), kind, true));
    }
    let key = choices
        .pick(&[vec![0], vec![0, 1], vec![1, 0], vec![2]])
        .clone();
    let mut table = TableSpec {
        name: format!("t{at}"),
        unique: if key == [UNIQUE] {
            Vec::new()
        } else {
            vec![vec![UNIQUE]]
        },
        columns,
        key,
        indexes: Vec::new(),
    };
    table.indexes = (0..choices.below(3))
        .map(|_| random_index(choices, &table))
        .collect();
    table
}

pub(crate) fn random_index(
    choices: &mut Choices<'_>,
    table: &TableSpec,
) -> Vec<(usize, Direction)> {
    let kinds = table.columns.iter().enumerate();
    let mut columns: Vec<usize> = kinds
        .filter(|(_, (_, kind, _))| *kind != Kind::Json)
        .map(|(at, _)| at)
        .collect();
    choices.shuffle(&mut columns);
    columns.truncate(choices.between(1, 3));
    let direction = [Direction::Asc, Direction::Desc];
    columns
        .into_iter()
        .map(|at| (at, *choices.pick(&direction)))
        .collect()
}

/// An index of two columns, of which the first is a text, for each table that has one.
pub(crate) fn index_texts(choices: &mut Choices<'_>, case: &mut Case) {
    for table in &mut case.tables {
        let mut columns = table.columns.iter().skip(NOT_NULL);
        if let Some(at) = columns.position(|(_, kind, _)| *kind == Kind::Text) {
            let direction = *choices.pick(&[Direction::Asc, Direction::Desc]);
            let index = vec![(NOT_NULL + at, direction), (UNIQUE, direction)];
            table.indexes.push(index);
        }
    }
}

/// Keys that a client schema may declare: any unique one, in any order.
pub(crate) fn random_keys(choices: &mut Choices<'_>, case: &mut Case) {
    for table in &case.tables {
        if choices.chance(40) {
            let mut keys = vec![table.key.clone()];
            keys.extend(table.unique.iter().cloned());
            let mut key = choices.pick(&keys).clone();
            choices.shuffle(&mut key);
            let names = key.iter().map(|at| table.columns[*at].0.clone()).collect();
            case.keys.insert(table.name.clone(), names);
        }
    }
}

/// A value for a column; null sometimes, where it may be.
pub(crate) fn random_text(
    choices: &mut Choices<'_>,
    pools: &Pools,
    table: &TableSpec,
    column: usize,
) -> Option<String> {
    let (_, kind, nullable) = table.columns[column];
    if nullable && choices.chance(18) {
        return None;
    }
    Some(pools.value(choices, kind, column < NOT_NULL))
}
