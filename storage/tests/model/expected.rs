//! What the replica should hold, kept the simplest way: the whole database at every version.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use kelvin_protocol::{Direction, Value, Version};
use kelvin_storage::{
    Alteration, Datum, IndexId, RowOp, Scan, SchemaChange, Table, TableId, Transaction,
};

/// A row: since when it stands, which birth of its key it belongs to, its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub version: Version,
    pub birth: u64,
    pub values: Vec<Value>,
}

pub type Rows = BTreeMap<Vec<Value>, Rc<Expected>>;

/// A table with its rows by key.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Its form, but for the indexes.
    pub table: Table,
    /// Raised whenever the form changes.
    pub form: u64,
    pub rows: Rows,
}

pub type Database = BTreeMap<TableId, Rc<Contents>>;

/// Every version of the database that can be read.
pub struct Model {
    versions: BTreeMap<Version, Database>,
    births: u64,
    forms: u64,
    /// Tables that were loaded and are to be taken up.
    loads: Database,
}

impl Model {
    pub fn new(version: Version, tables: Vec<(Table, Rows)>) -> Self {
        let contents = |(table, rows): (Table, Rows)| {
            let form = 0;
            (table.id, Rc::new(Contents { table, form, rows }))
        };
        let database = tables.into_iter().map(contents).collect();
        Self {
            births: 1_000_000,
            forms: 0,
            loads: Database::new(),
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

    /// The newest database.
    pub fn latest(&self) -> &Database {
        self.at(Version::MAX)
    }

    /// Forgets what only versions below `horizon` need.
    pub fn forget(&mut self, horizon: Version) {
        let first = self.versions.range(..=horizon).next_back();
        if let Some((first, _)) = first {
            self.versions = self.versions.split_off(&first.clone());
        }
    }

    /// A table was loaded beside, and will be taken up with these rows.
    pub fn loads(&mut self, table: &Table, rows: Rows) {
        let contents = Contents {
            table: table.clone(),
            form: 0,
            rows,
        };
        self.loads.insert(table.id, Rc::new(contents));
    }

    pub fn apply(&mut self, transaction: &Transaction) {
        if transaction.version <= self.watermark() {
            return;
        }
        let mut database = self.latest().clone();
        for op in &transaction.ops {
            self.apply_op(&mut database, op, transaction.version);
        }
        self.versions.insert(transaction.version, database);
    }

    pub fn apply_op(&mut self, db: &mut Database, op: &RowOp, version: Version) {
        match op {
            RowOp::Insert { table, row } => {
                let contents = contents(db, *table);
                let key = key_of(&contents.table, row);
                self.put(&mut contents.rows, key, row.clone(), version);
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let contents = contents(db, *table);
                let spec = &contents.table;
                let old_key = old_key.clone().unwrap_or_else(|| {
                    let value = |at: &usize| match &row[*at] {
                        Datum::Value(value) => value.clone(),
                        Datum::Unchanged => panic!("the key is always sent"),
                    };
                    spec.key.iter().map(value).collect()
                });
                let rows = &mut contents.rows;
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
                contents(db, *table).rows.remove(key);
            }
            RowOp::Truncate { tables } => {
                for table in tables {
                    contents(db, *table).rows.clear();
                }
            }
            RowOp::Schema(change) => self.change_schema(db, change),
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
        rows.insert(key, Rc::new(row));
    }

    fn change_schema(&mut self, db: &mut Database, change: &SchemaChange) {
        self.forms += 1;
        let form = self.forms;
        match change {
            SchemaChange::CreateTable(table) => {
                let rows = Rows::new();
                let table = table.clone();
                db.insert(table.id, Rc::new(Contents { table, form, rows }));
            }
            SchemaChange::DropTable(table) => {
                db.remove(table).unwrap();
            }
            SchemaChange::AlterTable(alteration) => {
                let contents = contents(db, alteration.table.id);
                contents.rows = altered(contents, alteration);
                contents.table = alteration.table.clone();
                contents.form = form;
            }
            SchemaChange::LoadTable(loaded) => {
                let id = loaded.table().id;
                let mut contents = self.loads.remove(&id).unwrap();
                Rc::make_mut(&mut contents).form = form;
                db.insert(id, contents);
            }
            SchemaChange::DropIndex { .. } | SchemaChange::SetUnsynced(_) => {}
        }
    }

    /// The tables that one of two versions lacks, or has in another form.
    pub fn reformed(&self, from: Version, to: Version) -> Vec<TableId> {
        let (before, after) = (self.at(from), self.at(to));
        let form = |db: &Database, id: &TableId| db.get(id).map(|contents| contents.form);
        let mut ids: Vec<_> = before.keys().chain(after.keys()).copied().collect();
        ids.retain(|id| form(before, id) != form(after, id));
        ids
    }

    /// Keys whose row differs between two versions, for tables both have under one form of key.
    pub fn changed(&self, from: Version, to: Version) -> BTreeMap<(TableId, Vec<Value>), Change> {
        let (before, after) = (self.at(from), self.at(to));
        let mut changes: BTreeMap<(TableId, Vec<Value>), Change> = BTreeMap::new();
        for (table, contents) in before {
            for (key, row) in &contents.rows {
                changes.entry((*table, key.clone())).or_default().0 = Some(row.clone());
            }
        }
        for (table, contents) in after {
            for (key, row) in &contents.rows {
                changes.entry((*table, key.clone())).or_default().1 = Some(row.clone());
            }
        }
        changes.retain(|_, (old, new)| old != new);
        changes
    }
}

fn contents(db: &mut Database, table: TableId) -> &mut Contents {
    Rc::make_mut(db.get_mut(&table).unwrap())
}

/// The rows as the new form has them.
fn altered(before: &Contents, alteration: &Alteration) -> Rows {
    let rows = before.rows.values().map(|row| {
        let value = |column: &kelvin_storage::Column| {
            let mut fills = alteration.fills.iter();
            if let Some((_, fill)) = fills.find(|(attnum, _)| *attnum == column.attnum) {
                return fill.clone();
            }
            let mut columns = before.table.columns.iter();
            let same = columns.position(|old| match alteration.made_anew {
                true => old.name == column.name,
                false => old.attnum == column.attnum,
            });
            match same {
                Some(at) => row.values[at].clone(),
                None => Value::Null,
            }
        };
        let values: Vec<_> = alteration.table.columns.iter().map(value).collect();
        let key = key_of(&alteration.table, &values);
        let row = Expected {
            values,
            ..(**row).clone()
        };
        (key, Rc::new(row))
    });
    rows.collect()
}

/// A row before and after.
pub type Change = (Option<Rc<Expected>>, Option<Rc<Expected>>);

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
    let mut found: Vec<&Expected> = rows
        .values()
        .map(|row| &**row)
        .filter(|row| compare(row, 0, &scan.prefix).is_eq())
        .collect();
    found.sort_by(|a, b| {
        let pairs = order.iter();
        pairs
            .map(|(at, direction)| directed(&a.values[*at], &b.values[*at], *direction))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
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
