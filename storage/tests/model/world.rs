//! A replica and its model, driven together.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use kelvin_protocol::{Direction, Value, ValueType, Version};
use kelvin_storage::{
    Applied, Catalog, Column, Datum, ErrorKind, Index, IndexId, Replica, ReplicaIdentity,
    ReplicaOptions, Row, RowChange, RowId, RowOp, Scan, Table, TableId, Transaction, View,
};

use crate::expected::{self, Database, Expected, Model, key_of};
use crate::random::Random;

/// Birth of a row to its number: one to one as long as both live.
type Ids = HashMap<(TableId, u64), RowId>;

pub struct World<'d> {
    dir: &'d Path,
    options: ReplicaOptions,
    random: Random,
    replica: Option<Replica>,
    model: Model,
    ids: Ids,
    /// Views that are kept for a while and have to stay right.
    held: Vec<View>,
    horizon: Version,
    clock: Duration,
}

fn column(name: &str, attnum: i16) -> Column {
    Column {
        name: name.into(),
        attnum,
        upstream_type: "text".into(),
        type_oid: 25,
        value_type: ValueType::String,
        not_null: false,
    }
}

fn table(id: u32, name: &str, key: &[usize], indexes: &[&[(usize, Direction)]]) -> Table {
    let indexes = (1..).zip(indexes).map(|(id, columns)| Index {
        id: IndexId(id),
        name: format!("{name}_{id}"),
        columns: columns.to_vec(),
        unique: false,
    });
    Table {
        id: TableId(id),
        name: name.into(),
        schema: "public".into(),
        upstream_name: name.into(),
        oid: id,
        columns: vec![
            column("w", 1),
            column("x", 2),
            column("y", 3),
            column("z", 4),
        ],
        unsynced_columns: vec![],
        key: key.to_vec(),
        unique_keys: vec![key.to_vec()],
        indexes: indexes.collect(),
    }
}

fn catalog() -> Catalog {
    use Direction::{Asc, Desc};
    let tables = vec![
        table(
            1,
            "single",
            &[0],
            &[&[(1, Asc)], &[(2, Desc), (1, Asc)], &[(1, Desc), (0, Asc)]],
        ),
        table(2, "double", &[2, 0], &[&[(3, Desc)]]),
    ];
    Catalog::new(tables, vec![])
}

impl<'d> World<'d> {
    /// `narrow`: few rows that change often, and a history long enough to keep all of it.
    pub fn new(dir: &'d Path, seed: u64, narrow: bool) -> Self {
        let options = ReplicaOptions {
            memtable_bytes: 16 * 1024,
            history_bytes: if narrow { 1024 * 1024 } else { 48 * 1024 },
            history_age: Duration::from_secs(40),
            worker_threads: 1,
            ..ReplicaOptions::default()
        };
        let mut random = Random::new(seed, narrow);
        let catalog = catalog();
        let loader = Replica::create(dir, &options, catalog.clone()).unwrap();
        let mut database = Database::new();
        for table in catalog.tables() {
            let rows: BTreeMap<_, _> = (0..random.below(40))
                .map(|birth| {
                    let values = row(&mut random);
                    let row = Expected {
                        version: 100,
                        birth,
                        values,
                    };
                    (key_of(table, &row.values), row)
                })
                .collect();
            let mut parts = [
                loader.table(table.id).unwrap(),
                loader.table(table.id).unwrap(),
            ];
            for row in rows.values() {
                let part = usize::try_from(random.below(2)).unwrap();
                parts[part].insert(&row.values).unwrap();
            }
            for part in parts {
                part.finish().unwrap();
            }
            database.insert(table.id, rows);
        }
        let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
        Self {
            dir,
            options,
            random,
            replica: Some(replica),
            model: Model::new(100, database),
            ids: Ids::new(),
            held: Vec::new(),
            horizon: 100,
            clock: Duration::ZERO,
        }
    }

    fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// Something happens; then everything must be as the model says.
    pub fn step(&mut self) {
        match self.random.below(100) {
            0..70 => self.apply(),
            70..76 => self.reopen(),
            76..82 if !self.random.narrow => self.trim(),
            82..90 if !self.random.narrow => self.maintain(),
            90..93 => self.add_index(),
            93..96 => self.advance(),
            _ => self.replay(),
        }
        self.check();
    }

    fn apply(&mut self) {
        let catalog = self.replica().catalog();
        let mut version = self.model.watermark();
        let mut transactions = Vec::new();
        for _ in 0..=self.random.below(3) {
            version += 1 + self.random.below(3);
            let ops = (0..self.random.below(9))
                .map(|_| self.op(&catalog))
                .collect();
            transactions.push(Transaction { version, ops });
        }
        let from = self.model.watermark();
        for transaction in &transactions {
            self.model.apply(&catalog, transaction);
        }
        let applied = self.replica().apply(&transactions).unwrap();
        let Applied {
            from: got_from,
            version: got_version,
            changes,
        } = applied;
        assert_eq!((got_from, got_version), (from, version));
        let before = self.replica().at(from).unwrap();
        self.check_view(&before);
        self.check_changes(from, version, &changes);
    }

    fn op(&mut self, catalog: &Catalog) -> RowOp {
        let table = self.random.pick(catalog.tables()).clone();
        let values = row(&mut self.random);
        let existing: Vec<_> = self.model.at(Version::MAX)[&table.id]
            .keys()
            .cloned()
            .collect();
        let known = !existing.is_empty() && self.random.chance(70);
        let key = if known {
            self.random.pick(&existing).clone()
        } else {
            key_of(&table, &values)
        };
        match self.random.below(100) {
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
                    row: self.datums(&table, values),
                }
            }
            60..75 => {
                let row = self.datums(&table, values);
                RowOp::Update {
                    table: table.id,
                    old_key: Some(key),
                    row,
                }
            }
            75..98 => RowOp::Delete {
                table: table.id,
                key,
            },
            _ => {
                let ids = catalog.tables().iter().map(|table| table.id);
                let tables = ids.filter(|_| self.random.chance(60)).collect();
                RowOp::Truncate { tables }
            }
        }
    }

    fn datums(&mut self, table: &Table, values: Vec<Value>) -> Vec<Datum> {
        let datum = |(at, value)| {
            if !table.key.contains(&at) && self.random.chance(30) {
                Datum::Unchanged
            } else {
                Datum::Value(value)
            }
        };
        values.into_iter().enumerate().map(datum).collect()
    }

    fn reopen(&mut self) {
        self.held.clear();
        self.replica = None;
        self.replica = Some(Replica::open(self.dir, &self.options).unwrap());
    }

    fn trim(&mut self) {
        let span = self.model.watermark() - self.horizon;
        let keep_from = self.horizon + self.random.below(span + 2);
        self.replica().trim_history(keep_from).unwrap();
        self.horizon = self.horizon.max(keep_from.min(self.model.watermark()));
        assert_eq!(self.replica().horizon(), self.horizon);
    }

    fn maintain(&mut self) {
        self.clock += Duration::from_secs(self.random.below(30));
        self.replica().maintain(self.clock).unwrap();
    }

    fn add_index(&mut self) {
        let catalog = self.replica().catalog();
        let table = self.random.pick(catalog.tables()).id;
        let directions = [Direction::Asc, Direction::Desc];
        let columns: Vec<_> = (0..=self.random.below(2))
            .map(|_| {
                let at = usize::try_from(self.random.below(4)).unwrap();
                (at, *self.random.pick(&directions))
            })
            .collect();
        self.replica().add_index(table, &columns).unwrap();
    }

    fn advance(&mut self) {
        let version = self.model.watermark() + 1;
        self.replica().advance(version).unwrap();
        let transaction = Transaction {
            version,
            ops: vec![],
        };
        self.model.apply(&self.replica().catalog(), &transaction);
    }

    /// What was applied already changes nothing.
    fn replay(&mut self) {
        let catalog = self.replica().catalog();
        let ops = (0..5).map(|_| self.op(&catalog)).collect();
        let version = self.model.watermark();
        let applied = self
            .replica()
            .apply(&[Transaction { version, ops }])
            .unwrap();
        assert_eq!((applied.from, applied.version), (version, version));
        assert!(applied.changes.is_empty());
    }

    fn check(&mut self) {
        let watermark = self.model.watermark();
        assert_eq!(self.replica().watermark(), watermark);
        // Size and age may raise it at any time.
        let horizon = self.replica().horizon();
        assert!(horizon >= self.horizon && horizon <= watermark);
        self.horizon = horizon;
        let span = watermark - self.horizon + 1;
        let mut versions = vec![watermark, self.horizon];
        versions.extend((0..2).map(|_| self.horizon + self.random.below(span)));
        for version in versions {
            let view = self.replica().at(version).unwrap();
            assert_eq!(view.version(), version);
            self.check_view(&view);
            if self.random.chance(10) && self.held.len() < 4 {
                self.held.push(view);
            }
        }
        if self.random.chance(20) && !self.held.is_empty() {
            let at = usize::try_from(self.random.below(self.held.len() as u64)).unwrap();
            let view = self.held.swap_remove(at);
            self.check_view(&view);
        }
        let from = self.horizon + self.random.below(span);
        let to = from + self.random.below(watermark - from + 1);
        let changes = self.replica().changes(from, to).unwrap();
        self.check_changes(from, to, &changes);
        let beyond = self.replica().at(watermark + 1).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::AheadOfWatermark);
        match self.replica().at(self.horizon - 1) {
            Ok(view) => self.check_view(&view),
            Err(error) => assert_eq!(error.kind(), ErrorKind::BelowHorizon),
        }
    }

    /// No two rows ever shared a number.
    pub fn check_ids(&self) {
        let mut seen = std::collections::HashSet::new();
        for ((table, birth), id) in &self.ids {
            assert!(
                seen.insert((table, id)),
                "number {id:?} given twice, also to {birth}"
            );
        }
    }

    fn check_view(&mut self, view: &View) {
        let database = self.model.at(view.version()).clone();
        let catalog = view.catalog().clone();
        for table in catalog.tables() {
            let rows = &database[&table.id];
            for scan in self.scans(table, rows) {
                let found = view.scan(table.id, &scan).unwrap();
                let found: Vec<_> = found.map(|row| row.unwrap()).collect();
                let expected = expected::scan(table, rows, &scan);
                let context = format!("{} at {}: {scan:?}", table.name, view.version());
                assert_eq!(found.len(), expected.len(), "{context}");
                for (found, expected) in found.iter().zip(expected) {
                    same(
                        &mut self.ids,
                        table.id,
                        Some(found),
                        Some(expected),
                        &context,
                    );
                }
            }
            for _ in 0..3 {
                let key = key_of(table, &row(&mut self.random));
                let found = view.get(table.id, &key).unwrap();
                let context = format!("{} at {}: {key:?}", table.name, view.version());
                same(
                    &mut self.ids,
                    table.id,
                    found.as_ref(),
                    rows.get(&key),
                    &context,
                );
            }
            for (key, row) in rows {
                let found = view.get(table.id, key).unwrap();
                same(
                    &mut self.ids,
                    table.id,
                    found.as_ref(),
                    Some(row),
                    "point read",
                );
                let columns: Vec<_> = table.key.iter().rev().copied().collect();
                let values: Vec<_> = key.iter().rev().cloned().collect();
                let found = view.get_by_unique(table.id, &columns, &values).unwrap();
                same(
                    &mut self.ids,
                    table.id,
                    found.as_ref(),
                    Some(row),
                    "unique read",
                );
            }
        }
    }

    /// A full scan each way of every index, and some with prefixes and starts.
    fn scans(&mut self, table: &Table, rows: &expected::Rows) -> Vec<Scan> {
        let mut scans = Vec::new();
        let indexes = table.indexes.iter().map(|index| index.id);
        for index in indexes.chain([IndexId::PRIMARY]) {
            let order = expected::order_of(table, index);
            scans.push(Scan::of(index));
            scans.push(Scan::of(index).reverse());
            for _ in 0..2 {
                let some: Vec<_> = rows.values().map(|row| row.values.clone()).collect();
                let values = if some.is_empty() || self.random.chance(30) {
                    row(&mut self.random)
                } else {
                    self.random.pick(&some).clone()
                };
                let length = order.len() as u64 + 1;
                let prefix = usize::try_from(self.random.below(length)).unwrap();
                let start = usize::try_from(self.random.below(length - prefix as u64)).unwrap();
                let mut columns = order.iter().map(|(at, _)| values[*at].clone());
                let mut scan = Scan::of(index).prefix(columns.by_ref().take(prefix).collect());
                if self.random.chance(70) {
                    let values = columns.take(start).collect();
                    scan = scan.start(values, self.random.chance(50));
                }
                scan.reverse = self.random.chance(50);
                scans.push(scan);
            }
        }
        scans
    }

    fn check_changes(&mut self, from: Version, to: Version, changes: &[RowChange]) {
        let mut expected = self.model.changed(from, to);
        let catalog = self.replica().catalog();
        for change in changes {
            let table = catalog.table_by_id(change.table).unwrap();
            let row = change.old.as_ref().or(change.new.as_ref()).unwrap();
            let key = (table.id, row.project(&table.key));
            let found = expected.remove(&key);
            let (old, new) = found.unwrap_or_else(|| panic!("unexpected change of {key:?}"));
            let context = format!("change of {key:?} from {from} to {to}");
            same(
                &mut self.ids,
                table.id,
                change.old.as_ref(),
                old.as_ref(),
                &context,
            );
            same(
                &mut self.ids,
                table.id,
                change.new.as_ref(),
                new.as_ref(),
                &context,
            );
        }
        assert!(expected.is_empty(), "missing changes {expected:?}");
    }
}

fn row(random: &mut Random) -> Vec<Value> {
    let (w, x, y, z) = (
        random.number(),
        random.number(),
        random.text(),
        random.text(),
    );
    vec![w, random.nullable(x), y, random.nullable(z)]
}

/// The found row is the expected one, and its number belongs to it.
fn same(
    ids: &mut Ids,
    table: TableId,
    found: Option<&Row>,
    expected: Option<&Expected>,
    context: &str,
) {
    let (found, expected) = match (found, expected) {
        (None, None) => return,
        (Some(found), Some(expected)) => (found, expected),
        (found, expected) => panic!("{context}: found {found:?}, expected {expected:?}"),
    };
    assert_eq!(&found.values[..], &expected.values[..], "{context}");
    assert_eq!(found.version, expected.version, "{context}");
    let id = *ids.entry((table, expected.birth)).or_insert(found.id);
    assert_eq!(id, found.id, "{context}: another number for the same row");
}
