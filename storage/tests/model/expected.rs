//! What the replica should hold, kept the simplest way: the whole database at every version.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kelvin_protocol::{Direction, Value, Version};
use kelvin_storage::{Catalog, Datum, IndexId, RowOp, Scan, Table, TableId, Transaction};

/// A row: since when it stands, which birth of its key it belongs to, its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub version: Version,
    pub birth: u64,
    pub values: Vec<Value>,
}

pub type Rows = BTreeMap<Vec<Value>, Expected>;
pub type Database = BTreeMap<TableId, Rows>;

/// Every version of the database.
pub struct Model {
    pub versions: BTreeMap<Version, Database>,
    births: u64,
}

impl Model {
    pub fn new(version: Version, database: Database) -> Self {
        Self {
            births: 1_000_000,
            versions: BTreeMap::from([(version, database)]),
        }
    }

    pub fn watermark(&self) -> Version {
        *self.versions.last_key_value().unwrap().0
    }

    /// The database at `version`.
    pub fn at(&self, version: Version) -> &Database {
        self.versions.range(..=version).next_back().unwrap().1
    }

    pub fn apply(&mut self, catalog: &Catalog, transaction: &Transaction) {
        if transaction.version <= self.watermark() {
            return;
        }
        let mut database = self.at(transaction.version).clone();
        for op in &transaction.ops {
            self.apply_op(&mut database, catalog, op, transaction.version);
        }
        self.versions.insert(transaction.version, database);
    }

    fn apply_op(&mut self, db: &mut Database, catalog: &Catalog, op: &RowOp, version: Version) {
        match op {
            RowOp::Insert { table, row } => {
                let key = key_of(catalog.table_by_id(*table).unwrap(), row);
                self.put(db.entry(*table).or_default(), key, row.clone(), version);
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let spec = catalog.table_by_id(*table).unwrap();
                let rows = db.entry(*table).or_default();
                let old_key = old_key.clone().unwrap_or_else(|| {
                    let value = |at: &usize| match &row[*at] {
                        Datum::Value(value) => value.clone(),
                        Datum::Unchanged => panic!("the key is always sent"),
                    };
                    spec.key.iter().map(value).collect()
                });
                let old = rows.get(&old_key).cloned();
                let value = |(at, datum): (usize, &Datum)| match datum {
                    Datum::Value(value) => value.clone(),
                    Datum::Unchanged => old
                        .as_ref()
                        .map_or(Value::Null, |old| old.values[at].clone()),
                };
                let values: Vec<_> = row.iter().enumerate().map(value).collect();
                let key = key_of(spec, &values);
                if key != old_key {
                    rows.remove(&old_key);
                }
                self.put(rows, key, values, version);
            }
            RowOp::Delete { table, key } => {
                db.entry(*table).or_default().remove(key);
            }
            RowOp::Truncate { tables } => {
                for table in tables {
                    db.entry(*table).or_default().clear();
                }
            }
            RowOp::Schema(_) => {}
        }
    }

    fn put(&mut self, rows: &mut Rows, key: Vec<Value>, values: Vec<Value>, version: Version) {
        let birth = match rows.get(&key) {
            Some(old) => old.birth,
            None => {
                self.births += 1;
                self.births
            }
        };
        let row = Expected {
            version,
            birth,
            values,
        };
        rows.insert(key, row);
    }

    /// Keys whose row differs between two versions, or was written in between and is there.
    pub fn changed(&self, from: Version, to: Version) -> BTreeMap<(TableId, Vec<Value>), Change> {
        let (before, after) = (self.at(from), self.at(to));
        let mut changes: BTreeMap<(TableId, Vec<Value>), Change> = BTreeMap::new();
        for (table, rows) in before {
            for (key, row) in rows {
                changes.entry((*table, key.clone())).or_default().0 = Some(row.clone());
            }
        }
        for (table, rows) in after {
            for (key, row) in rows {
                changes.entry((*table, key.clone())).or_default().1 = Some(row.clone());
            }
        }
        changes.retain(|_, (old, new)| old != new);
        changes
    }
}

/// A row before and after.
pub type Change = (Option<Expected>, Option<Expected>);

pub fn key_of(table: &Table, values: &[Value]) -> Vec<Value> {
    table.key.iter().map(|at| values[*at].clone()).collect()
}

/// Columns a scan of this index is ordered by.
pub fn order_of(table: &Table, index: IndexId) -> Vec<(usize, Direction)> {
    let key = table.key.iter().map(|at| (*at, Direction::Asc));
    let found = table.indexes.iter().find(|other| other.id == index);
    let columns = found.map_or(&[][..], |index| &index.columns);
    columns.iter().copied().chain(key).collect()
}

/// The rows a scan should give, in order.
pub fn scan<'a>(table: &Table, rows: &'a Rows, scan: &Scan) -> Vec<&'a Expected> {
    let order = order_of(table, scan.index);
    let compare = |row: &Expected, first: usize, values: &[Value]| {
        let pairs = order[first..].iter().zip(values);
        pairs
            .map(|((at, direction), value)| directed(&row.values[*at], value, *direction))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let mut found: Vec<_> = rows
        .values()
        .filter(|row| compare(row, 0, &scan.prefix).is_eq())
        .collect();
    found.sort_by(|a, b| {
        let values: Vec<_> = order.iter().map(|(at, _)| b.values[*at].clone()).collect();
        compare(a, 0, &values)
    });
    if scan.reverse {
        found.reverse();
    }
    if let Some(start) = &scan.start {
        found.retain(|row| {
            let order = compare(row, scan.prefix.len(), &start.values);
            match if scan.reverse { order.reverse() } else { order } {
                Ordering::Less => false,
                Ordering::Equal => start.inclusive,
                Ordering::Greater => true,
            }
        });
    }
    found
}

fn directed(a: &Value, b: &Value, direction: Direction) -> Ordering {
    match direction {
        Direction::Asc => a.zql_cmp(b),
        Direction::Desc => b.zql_cmp(a),
    }
}
