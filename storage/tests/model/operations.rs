//! Random operations on a database.

use kelvin_protocol::{Direction, Value, ValueType};
use kelvin_storage::{
    Alteration, Column, Datum, Index, IndexId, RowOp, SchemaChange, Table, TableId,
};

use crate::expected::{Contents, Database, key_of};
use crate::random::Random;

/// Tables a database may come to have.
pub const MOST_TABLES: usize = 5;
/// Columns a table may come to have.
const MOST_COLUMNS: usize = 7;

/// Columns with an odd number hold numbers, the others text.
pub fn column(attnum: i16) -> Column {
    let number = attnum % 2 == 1;
    Column {
        name: format!("c{attnum}"),
        attnum,
        upstream_type: if number { "int8" } else { "text" }.into(),
        type_oid: 25,
        value_type: if number {
            ValueType::Number
        } else {
            ValueType::String
        },
        not_null: false,
    }
}

pub fn table(id: u32, key: &[usize], indexes: &[&[(usize, Direction)]]) -> Table {
    let indexes = (1..).zip(indexes).map(|(id, columns)| Index {
        id: IndexId(id),
        name: format!("index {id}"),
        columns: columns.to_vec(),
        unique: false,
    });
    Table {
        id: TableId(id),
        name: format!("table {id}"),
        schema: "public".into(),
        upstream_name: format!("table {id}"),
        oid: id,
        columns: (1..=4).map(column).collect(),
        unsynced_columns: vec![],
        key: key.to_vec(),
        unique_keys: vec![key.to_vec()],
        indexes: indexes.collect(),
    }
}

pub fn value(random: &mut Random, attnum: i16) -> Value {
    if attnum % 2 == 1 {
        random.number()
    } else {
        random.text()
    }
}

pub fn row(random: &mut Random, table: &Table) -> Vec<Value> {
    let columns = table.columns.iter().enumerate();
    columns
        .map(|(at, column)| {
            let value = value(random, column.attnum);
            if table.key.contains(&at) {
                value
            } else {
                random.nullable(value)
            }
        })
        .collect()
}

/// An operation on the rows of one of the tables; `None` if there is no table.
pub fn on_rows(random: &mut Random, database: &Database) -> Option<RowOp> {
    let contents = any_table(random, database)?;
    let table = &contents.table;
    let values = row(random, table);
    let keys: Vec<_> = contents.rows.keys().collect();
    let known = !keys.is_empty() && random.chance(70);
    let key = if known {
        (*random.pick(&keys)).clone()
    } else {
        key_of(table, &values)
    };
    Some(match random.below(100) {
        0..35 => RowOp::Insert {
            table: table.id,
            row: values,
        },
        35..60 => {
            let mut values = values;
            for (at, value) in table.key.iter().zip(&key) {
                values[*at] = value.clone();
            }
            RowOp::Update {
                table: table.id,
                old_key: None,
                row: datums(random, table, values),
            }
        }
        60..75 => RowOp::Update {
            table: table.id,
            row: datums(random, table, values),
            old_key: Some(key),
        },
        75..98 => RowOp::Delete {
            table: table.id,
            key,
        },
        _ => {
            let tables = database.keys().copied();
            let tables = tables.filter(|_| random.chance(60)).collect();
            RowOp::Truncate { tables }
        }
    })
}

fn datums(random: &mut Random, table: &Table, values: Vec<Value>) -> Vec<Datum> {
    let datum = |(at, value)| {
        if !table.key.contains(&at) && random.chance(30) {
            Datum::Unchanged
        } else {
            Datum::Value(value)
        }
    };
    values.into_iter().enumerate().map(datum).collect()
}

fn any_table<'d>(random: &mut Random, database: &'d Database) -> Option<&'d Contents> {
    let tables: Vec<_> = database.values().collect();
    (!tables.is_empty()).then(|| &***random.pick(&tables))
}

/// A change of the schema, where one can be had.
pub fn on_schema(
    random: &mut Random,
    database: &Database,
    next_table: &mut u32,
    indexes_of: impl Fn(TableId) -> Vec<IndexId>,
) -> Option<SchemaChange> {
    match random.below(10) {
        0 if database.len() < MOST_TABLES => {
            *next_table += 1;
            let key = if random.chance(50) {
                vec![0]
            } else {
                vec![2, 1]
            };
            let table = table(*next_table, &key, &[&[(1, Direction::Desc)]]);
            Some(SchemaChange::CreateTable(table))
        }
        1 if database.len() > 1 => {
            let table = any_table(random, database)?.table.id;
            Some(SchemaChange::DropTable(table))
        }
        2 => {
            let table = any_table(random, database)?.table.id;
            let indexes = indexes_of(table);
            let index = *indexes.first()?;
            Some(SchemaChange::DropIndex { table, index })
        }
        _ => {
            let contents = any_table(random, database)?;
            alteration(random, contents).map(SchemaChange::AlterTable)
        }
    }
}

fn alteration(random: &mut Random, contents: &Contents) -> Option<Alteration> {
    let mut table = contents.table.clone();
    let (mut fills, mut made_anew) = (Vec::new(), false);
    let any = |random: &mut Random, table: &Table| {
        usize::try_from(random.below(table.columns.len() as u64)).unwrap()
    };
    match random.below(7) {
        0 => {
            table.name.push('+');
            table.name = table.name.replace("+++", "");
        }
        1 => {
            let at = any(random, &table);
            table.columns[at].name.push('\'');
        }
        2 if table.columns.len() < MOST_COLUMNS => {
            let attnums = table.columns.iter().map(|column| column.attnum);
            let attnum = attnums.max().unwrap_or(0) + 1;
            table.columns.push(column(attnum));
            if random.chance(70) {
                fills.push((attnum, value(random, attnum)));
            }
        }
        3 => {
            let at = any(random, &table);
            if table.key.contains(&at) || table.columns.len() < 3 {
                return None;
            }
            table.columns.remove(at);
            for key in &mut table.key {
                *key -= usize::from(*key > at);
            }
        }
        4 => {
            let at = any(random, &table);
            if table.key.contains(&at) {
                return None;
            }
            let attnum = table.columns[at].attnum;
            table.columns[at].upstream_type.push('2');
            fills.push((attnum, value(random, attnum)));
        }
        5 => {
            // Some columns have the numbers that others had.
            table
                .columns
                .iter_mut()
                .for_each(|column| column.attnum += 2);
            table.oid += 1;
            made_anew = true;
        }
        _ => {
            let at = any(random, &table);
            match table.key.iter().position(|key| *key == at) {
                Some(_) if table.key.len() == 1 => return None,
                Some(position) => table.key.remove(position),
                None => {
                    table.key.insert(0, at);
                    at
                }
            };
            if !is_unique(contents, &table) {
                return None;
            }
        }
    }
    table.unique_keys = vec![table.key.clone()];
    Some(Alteration {
        table,
        fills,
        made_anew,
    })
}

fn is_unique(contents: &Contents, table: &Table) -> bool {
    let rows = contents.rows.values();
    let keys: std::collections::BTreeSet<_> = rows.map(|row| key_of(table, &row.values)).collect();
    keys.len() == contents.rows.len()
}
