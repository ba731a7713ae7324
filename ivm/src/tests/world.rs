//! A small replica and a plain model of what is in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kelvin_protocol::{Direction, Value, ValueType, Version};
use kelvin_storage::{
    Applied, Catalog, Column, Datum, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, Row,
    RowOp, Table, TableId, Transaction, View,
};

use super::random::Random;

/// Rows of one table by the replica's key.
pub(crate) type ModelTable = BTreeMap<Vec<Value>, Vec<Value>>;

/// Rows of all tables by table number.
pub(crate) type Model = BTreeMap<TableId, ModelTable>;

pub(crate) struct World {
    pub(crate) replica: Replica,
    pub(crate) model: Model,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(tables: Vec<Table>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tables
            .iter()
            .map(|table| (table.id, ModelTable::new()))
            .collect();
        let catalog = Catalog::new(tables, Vec::new());
        let replica = create(dir.path(), catalog);
        Self {
            replica,
            model,
            _dir: dir,
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.replica.catalog()
    }

    pub(crate) fn view(&self) -> View {
        self.replica.latest().unwrap()
    }

    pub(crate) fn next_version(&self) -> Version {
        self.replica.watermark() + 10
    }

    /// Applies one transaction to the replica and to the model.
    pub(crate) fn apply(&mut self, ops: Vec<RowOp>) -> Applied {
        for op in &ops {
            self.note(op);
        }
        let version = self.next_version();
        self.replica.apply(&[Transaction { version, ops }]).unwrap()
    }

    fn note(&mut self, op: &RowOp) {
        let catalog = self.catalog();
        let key_of = |table: &TableId, row: &[Value]| -> Vec<Value> {
            let table = catalog.table_by_id(*table).unwrap();
            table.key.iter().map(|at| row[*at].clone()).collect()
        };
        match op {
            RowOp::Insert { table, row } => {
                let key = key_of(table, row);
                self.model.get_mut(table).unwrap().insert(key, row.clone());
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let row: Vec<Value> = row
                    .iter()
                    .map(|datum| match datum {
                        Datum::Value(value) => value.clone(),
                        Datum::Unchanged => unreachable!("the tests write whole rows"),
                    })
                    .collect();
                let key = key_of(table, &row);
                let rows = self.model.get_mut(table).unwrap();
                rows.remove(old_key.as_ref().unwrap_or(&key));
                rows.insert(key, row);
            }
            RowOp::Delete { table, key } => {
                self.model.get_mut(table).unwrap().remove(key);
            }
            RowOp::Truncate { tables } => {
                for table in tables {
                    self.model.get_mut(table).unwrap().clear();
                }
            }
            RowOp::Schema(_) => panic!("schemas stay as they are here"),
        }
    }

    pub(crate) fn add_random_index(&self, random: &mut Random) {
        let catalog = self.catalog();
        let table = random.pick(catalog.tables());
        let columns = random_index(random, table.columns.len());
        self.replica
            .add_index(table.id, &columns, &|| true)
            .unwrap();
    }
}

fn create(dir: &Path, catalog: Catalog) -> Replica {
    let loader = Replica::create(dir, &ReplicaOptions::default(), catalog).unwrap();
    loader.finish(ReplicaIdentity::default(), 100).unwrap()
}

fn random_index(random: &mut Random, columns: usize) -> Vec<(usize, Direction)> {
    let mut all: Vec<usize> = (0..columns).collect();
    random.shuffle(&mut all);
    all.truncate(1 + random.below(3));
    all.into_iter()
        .map(|at| (at, *random.pick(&[Direction::Asc, Direction::Desc])))
        .collect()
}

/// Columns of every random table. The first three are never null; `u` is unique.
pub(crate) const COLUMNS: [(&str, ValueType); 8] = [
    ("a", ValueType::Number),
    ("b", ValueType::Number),
    ("u", ValueType::String),
    ("x", ValueType::Number),
    ("y", ValueType::Number),
    ("s", ValueType::String),
    ("t", ValueType::Boolean),
    ("z", ValueType::String),
];

/// A table with these columns; `!` after a name says that it is never null.
pub(crate) fn table(id: u32, name: &str, columns: &[(&str, ValueType)], key: &[usize]) -> Table {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(at, (name, value_type))| Column {
            name: (*name).to_owned(),
            attnum: i16::try_from(at).unwrap() + 1,
            upstream_type: match value_type {
                ValueType::Number => "float8",
                ValueType::Boolean => "bool",
                _ => "text",
            }
            .to_owned(),
            type_oid: 25,
            value_type: *value_type,
            not_null: key.contains(&at),
        })
        .collect();
    Table {
        id: TableId(id),
        name: name.to_owned(),
        schema: "public".to_owned(),
        upstream_name: name.to_owned(),
        oid: 1000 + id,
        columns,
        unsynced_columns: Vec::new(),
        key: key.to_vec(),
        unique_keys: vec![key.to_vec()],
        indexes: Vec::new(),
    }
}

pub(crate) fn random_tables(random: &mut Random) -> Vec<Table> {
    (1..=3)
        .map(|id| {
            let key = random
                .pick(&[vec![0], vec![0, 1], vec![1, 0], vec![2]])
                .clone();
            let mut table = table(id, &format!("t{id}"), &COLUMNS, &key);
            table.unique_keys.push(vec![2]);
            for at in 0..random.below(3) {
                table.indexes.push(Index {
                    id: IndexId(1 + u16::try_from(at).unwrap()),
                    name: format!("index_{at}"),
                    columns: random_index(random, COLUMNS.len()),
                    unique: false,
                });
            }
            table
        })
        .collect()
}

/// A value for the column, sometimes null where it may be.
pub(crate) fn random_value(random: &mut Random, column: usize) -> Value {
    if column > 2 && random.chance(20) {
        return Value::Null;
    }
    match COLUMNS[column].1 {
        // Keys need some room.
        ValueType::Number if column < 2 => Value::from(random.below(10) as f64),
        ValueType::Number => Value::from(random.below(5) as f64),
        ValueType::Boolean => Value::from(random.chance(50)),
        _ if column == 7 && random.chance(20) => {
            let tail = *random.pick(&["", "a", "b"]);
            Value::from(format!("{}{tail}", "long".repeat(4000)))
        }
        _ => Value::from(*random.pick(&["", "a", "A", "ab", "ä", "Ä\n", "😀", "%"])),
    }
}

/// Random operations, in an order that never violates a unique key.
pub(crate) fn random_ops(random: &mut Random, world: &World) -> Vec<RowOp> {
    let catalog = world.catalog();
    let mut model = world.model.clone();
    let mut ops = Vec::new();
    for _ in 0..1 + random.below(6) {
        let table = random.pick(catalog.tables());
        let rows = model.get_mut(&table.id).unwrap();
        let victim =
            (!rows.is_empty()).then(|| rows.keys().nth(random.below(rows.len())).unwrap().clone());
        match (random.below(100), victim) {
            (0..3, _) => {
                rows.clear();
                ops.push(RowOp::Truncate {
                    tables: vec![table.id],
                });
            }
            (3..25, Some(key)) => {
                let row = rows.remove(&key).unwrap();
                ops.push(RowOp::Delete {
                    table: table.id,
                    key: key.clone(),
                });
                if random.chance(30) {
                    rows.insert(key, row.clone());
                    ops.push(RowOp::Insert {
                        table: table.id,
                        row,
                    });
                }
            }
            (25..65, Some(key)) => ops.extend(random_update(random, table, rows, &key)),
            _ => ops.extend(random_insert(random, table, rows)),
        }
    }
    ops
}

fn fits(table: &Table, rows: &ModelTable, row: &[Value]) -> bool {
    !rows.contains_key(&key_of(table, row)) && rows.values().all(|other| other[2] != row[2])
}

fn key_of(table: &Table, row: &[Value]) -> Vec<Value> {
    table.key.iter().map(|at| row[*at].clone()).collect()
}

fn random_insert(random: &mut Random, table: &Table, rows: &mut ModelTable) -> Option<RowOp> {
    let mut row: Vec<Value> = (0..COLUMNS.len())
        .map(|at| random_value(random, at))
        .collect();
    row[2] = Value::from(format!("u{}", random.below(40)));
    if !fits(table, rows, &row) {
        return None;
    }
    rows.insert(key_of(table, &row), row.clone());
    Some(RowOp::Insert {
        table: table.id,
        row,
    })
}

fn random_update(
    random: &mut Random,
    table: &Table,
    rows: &mut ModelTable,
    key: &[Value],
) -> Option<RowOp> {
    let old = rows.remove(key).unwrap();
    let mut row = old.clone();
    for _ in 0..random.below(3) {
        let column = 3 + random.below(COLUMNS.len() - 3);
        row[column] = random_value(random, column);
    }
    if random.chance(25) {
        let column = random.below(2);
        row[column] = random_value(random, column);
    }
    if random.chance(10) {
        row[2] = Value::from(format!("u{}", random.below(40)));
    }
    if !fits(table, rows, &row) {
        rows.insert(key.to_vec(), old);
        return None;
    }
    let new_key = key_of(table, &row);
    rows.insert(new_key.clone(), row.clone());
    Some(RowOp::Update {
        table: table.id,
        old_key: (new_key != key).then(|| key.to_vec()),
        row: row.into_iter().map(Datum::Value).collect(),
    })
}

/// The rows of a view, by table and key.
pub(crate) fn keyed(table: &Table, row: &Row) -> (TableId, Vec<Value>) {
    (table.id, row.project(&table.key))
}
