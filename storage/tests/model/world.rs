//! A replica and its model, driven together.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use kelvin_protocol::{Direction, Value, Version};
use kelvin_storage::{
    Applied, Catalog, Error, ErrorKind, Replica, ReplicaIdentity, ReplicaOptions, Row, RowId,
    RowOp, Scan, Table, TableId, Transaction, View,
};

use crate::expected::{self, Expected, Model, Rows, key_of};
use crate::operations::{self, row};
use crate::random::Random;

/// Birth of a row to its number: one to one as long as both live.
type Ids = HashMap<(TableId, u64), RowId>;

pub struct World<'d> {
    dir: &'d Path,
    options: ReplicaOptions,
    pub random: Random,
    replica: Option<Replica>,
    pub model: Model,
    ids: Ids,
    /// Views that are kept for a while and have to stay right.
    held: Vec<View>,
    horizon: Version,
    clock: Duration,
    pub next_table: u32,
    /// Tables that were written to by transactions in parts.
    swept: BTreeMap<Version, Vec<TableId>>,
}

fn catalog() -> Catalog {
    use Direction::{Asc, Desc};
    let tables = vec![
        operations::table(1, &[0], &[&[(1, Asc)], &[(2, Desc), (1, Asc)]]),
        operations::table(2, &[2, 0], &[&[(3, Desc)]]),
    ];
    Catalog::new(tables, vec![])
}

impl<'d> World<'d> {
    /// A replica that was loaded with some rows. With `narrow`, few keys are written again and
    /// again and the whole history stays.
    pub fn new(dir: &'d Path, seed: u64, narrow: bool) -> Self {
        let options = ReplicaOptions {
            cache_bytes: 1024 * 1024,
            memtable_bytes: 16 * 1024,
            load_bytes: 1024,
            history_bytes: if narrow { 64 << 20 } else { 48 * 1024 },
            history_age: Duration::from_secs(40),
            worker_threads: 1,
            // Of one operation, of a few, and most transactions whole.
            part_bytes: [1, 1500, 50_000][usize::try_from(seed % 3).unwrap()],
            ..ReplicaOptions::default()
        };
        let mut random = Random::new(seed, narrow);
        let catalog = catalog();
        let loader = Replica::create(dir, &options, catalog.clone()).unwrap();
        let mut tables = Vec::new();
        for table in catalog.tables() {
            let rows: Rows = (0..random.below(40))
                .map(|birth| {
                    let values = row(&mut random, table);
                    let row = Expected {
                        version: 100,
                        birth,
                        values,
                    };
                    (key_of(table, &row.values), Rc::new(row))
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
            tables.push(((**table).clone(), rows));
        }
        let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
        Self {
            dir,
            options,
            random,
            replica: Some(replica),
            model: Model::new(100, tables),
            ids: Ids::new(),
            held: Vec::new(),
            horizon: 100,
            clock: Duration::ZERO,
            next_table: 2,
            swept: BTreeMap::new(),
        }
    }

    pub fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// Something happens; then what is looked at must be as the model says.
    pub fn step(&mut self) {
        match self.random.below(200) {
            0..120 => self.apply(),
            120..142 => self.apply_in_parts(true),
            142..146 => self.reopen(),
            146..154 if !self.random.narrow => self.trim(),
            154..168 if !self.random.narrow => self.maintain(),
            168..174 => self.add_index(),
            174..178 => self.advance(),
            178..188 => self.change_schema(),
            188..192 => self.load_table(),
            _ => self.replay(),
        }
        self.check_bounds();
        self.check_somewhere();
    }

    pub fn apply(&mut self) {
        let mut version = self.model.watermark();
        let from = version;
        let mut transactions = Vec::new();
        for _ in 0..=self.random.below(3) {
            version += 1 + self.random.below(3);
            let transaction = self.transaction(version);
            self.model.apply(&transaction);
            transactions.push(transaction);
        }
        self.apply_all(from, &transactions);
    }

    fn transaction(&mut self, version: Version) -> Transaction {
        let database = self.model.latest().clone();
        let mut ops = Vec::new();
        for _ in 0..self.random.below(9) {
            ops.extend(operations::on_rows(&mut self.random, &database));
        }
        Transaction { version, ops }
    }

    /// Applies what the model has applied.
    pub fn apply_all(&mut self, from: Version, transactions: &[Transaction]) {
        let version = self.model.watermark();
        let applied = self.replica().apply(transactions).unwrap();
        assert_eq!((applied.from, applied.version), (from, version));
        self.check_changes(&applied);
        if self.random.chance(10) {
            let before = self.replica().at(from).unwrap();
            self.check_view(&before);
        }
    }

    /// Applies a transaction in parts, to its end or not, and looks around while it is under way.
    /// One that did not come to its end is taken back, by opening the replica anew if that
    /// `may_reopen`.
    fn apply_in_parts(&mut self, may_reopen: bool) {
        let from = self.model.watermark();
        let version = from + 1 + self.random.below(3);
        let database = self.model.latest().clone();
        let count = self.random.below(40);
        let ops = (0..count).filter_map(|_| operations::on_rows(&mut self.random, &database));
        let transaction = Transaction {
            version,
            ops: ops.collect(),
        };
        while self.random.chance(40) {
            let stop_at = self.random.below(count + 1);
            let stopped = self.parts_until(&transaction, stop_at).unwrap_err();
            assert_eq!(stopped.kind(), ErrorKind::Cancelled);
            self.check_at(from);
            // Opening it anew takes as long as all else in twenty steps.
            if !may_reopen || self.random.chance(80) {
                self.replica().roll_back().unwrap();
            } else {
                self.reopen();
            }
            self.check_bounds();
            if self.random.chance(30) {
                self.check_at(from);
                self.check_somewhere();
            }
        }
        let applied = self.parts_until(&transaction, Version::MAX).unwrap();
        assert_eq!((applied.from, applied.version), (from, version));
        self.model.apply(&transaction);
        if !applied.swept.is_empty() {
            self.swept.insert(version, applied.swept.clone());
        }
        self.check_changes(&applied);
        if self.random.chance(30) {
            self.check_at(from);
            self.check_at(version);
        }
        // Once more, which changes nothing.
        if self.random.chance(10) {
            let again = self.parts_until(&transaction, Version::MAX).unwrap();
            assert_eq!((again.from, again.version), (version, version));
            assert!(again.changes.is_empty() && again.swept.is_empty());
        }
    }

    /// Applies a transaction in parts, up to the operation of this number.
    fn parts_until(&mut self, transaction: &Transaction, stop_at: u64) -> Result<Applied, Error> {
        let replica = self.replica().clone();
        let ops = (0..).zip(&transaction.ops).map(|(at, op)| {
            if at == stop_at {
                return Err(Error::Cancelled);
            }
            if self.random.chance(4) {
                self.check_bounds();
                self.check_somewhere();
            }
            Ok(op.clone())
        });
        let stopped = (transaction.ops.len() as u64 <= stop_at && stop_at < Version::MAX)
            .then_some(Err(Error::Cancelled));
        replica.apply_in_parts(transaction.version, ops.chain(stopped))
    }

    /// Rows are written before, between and after changes of the schema, in one transaction.
    fn change_schema(&mut self) {
        let from = self.model.watermark();
        let version = from + 1 + self.random.below(3);
        let mut ops: Vec<RowOp> = Vec::new();
        // A second model goes along, since each operation is made for what those before it left.
        let mut draft = self.model.latest().clone();
        let mut sketch = Model::new(0, vec![]);
        for _ in 0..1 + self.random.below(6) {
            let op = if self.random.chance(45) {
                let catalog = self.replica().catalog();
                let indexes_of = |id| match catalog.table_by_id(id) {
                    // Those over a column that is gone by now are gone too.
                    Some(table) if ops.iter().all(|op| !matches!(op, RowOp::Schema(_))) => {
                        table.indexes.iter().map(|index| index.id).collect()
                    }
                    _ => vec![],
                };
                let next = &mut self.next_table;
                operations::on_schema(&mut self.random, &draft, next, indexes_of)
                    .map(|change| RowOp::Schema(Box::new(change)))
            } else {
                operations::on_rows(&mut self.random, &draft)
            };
            if let Some(op) = op {
                sketch.apply_op(&mut draft, &op, version);
                ops.push(op);
            }
        }
        let transaction = Transaction { version, ops };
        self.model.apply(&transaction);
        self.apply_all(from, &[transaction]);
        if self.random.chance(20) {
            self.check_at(from);
            self.check_at(version);
        }
    }

    fn reopen(&mut self) {
        self.held.clear();
        self.replica = None;
        self.replica = Some(Replica::open(self.dir, &self.options).unwrap());
        self.check_at(self.model.watermark());
    }

    fn trim(&mut self) {
        // Size may have raised it since it was looked at.
        self.horizon = self.replica().horizon();
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

    /// Builds an index, while transactions are applied at every pause of the build.
    fn add_index(&mut self) {
        let catalog = self.replica().catalog();
        if catalog.tables().is_empty() {
            return;
        }
        let table = self.random.pick(catalog.tables()).clone();
        let directions = [Direction::Asc, Direction::Desc];
        let columns: Vec<_> = (0..=self.random.below(2))
            .map(|_| {
                let at = self.random.below(table.columns.len() as u64);
                (usize::try_from(at).unwrap(), *self.random.pick(&directions))
            })
            .collect();
        let replica = self.replica().clone();
        let stop_at = self.random.below(8);
        let paused = RefCell::new((0, &mut *self));
        let go_on = || {
            let (pauses, world) = &mut *paused.borrow_mut();
            *pauses += 1;
            match world.random.below(10) {
                0..6 => world.apply(),
                6 => world.change_schema(),
                7 if !world.random.narrow => world.trim(),
                8 if !world.random.narrow => world.maintain(),
                9 => world.apply_in_parts(false),
                _ => {}
            }
            *pauses != stop_at
        };
        let built = replica.add_index(table.id, &columns, &go_on);
        match built {
            Ok(id) => {
                let catalog = replica.catalog();
                let table = catalog.table_by_id(table.id).unwrap();
                let index = table.indexes.iter().find(|index| index.id == id).unwrap();
                assert_eq!(index.columns, columns);
                self.check_at(self.model.watermark());
                self.check_at(replica.horizon());
            }
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Cancelled | ErrorKind::BelowHorizon | ErrorKind::Invalid
                ),
                "{error}"
            ),
        }
        assert_eq!(replica.index_builds(), []);
    }

    fn advance(&mut self) {
        let version = self.model.watermark() + 1;
        self.replica().advance(version).unwrap();
        let ops = vec![];
        self.model.apply(&Transaction { version, ops });
    }

    /// What was applied already changes nothing.
    fn replay(&mut self) {
        let version = self.model.watermark();
        let transaction = self.transaction(version);
        let applied = self.replica().apply(&[transaction]).unwrap();
        assert_eq!((applied.from, applied.version), (version, version));
        assert!(applied.changes.is_empty() && applied.altered.is_empty());
    }

    fn check_bounds(&mut self) {
        let watermark = self.model.watermark();
        assert_eq!(self.replica().watermark(), watermark);
        // Size and age may raise it at any time.
        let horizon = self.replica().horizon();
        assert!(horizon >= self.horizon && horizon <= watermark);
        self.horizon = horizon;
        let beyond = self.replica().at(watermark + 1).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::AheadOfWatermark);
        for (id, contents) in self.model.latest() {
            assert_eq!(self.replica().row_count(*id), contents.rows.len() as u64);
        }
        if self.random.chance(5) {
            // Views below the horizon stay readable while somebody holds them, as do a few others.
            let held = self.held.iter().map(View::version).min();
            let oldest = self.replica().horizon().saturating_sub(40);
            self.model.forget(held.unwrap_or(Version::MAX).min(oldest));
        }
    }

    /// Looks at one table at one version, and now and then at everything.
    fn check_somewhere(&mut self) {
        let (watermark, horizon) = (self.model.watermark(), self.horizon);
        let span = watermark - horizon + 1;
        let version = match self.random.below(4) {
            0 => watermark,
            1 => horizon,
            _ => horizon + self.random.below(span),
        };
        let view = self.replica().at(version).unwrap();
        assert_eq!(view.version(), version);
        if self.random.chance(3) {
            self.check_view(&view);
        } else if !view.catalog().tables().is_empty() {
            let table = self.random.pick(view.catalog().tables()).clone();
            self.check_table(&view, &table, false);
        }
        if self.random.chance(3) && self.held.len() < 4 {
            self.held.push(view);
        }
        if self.random.chance(5) && !self.held.is_empty() {
            let at = usize::try_from(self.random.below(self.held.len() as u64)).unwrap();
            let view = self.held.swap_remove(at);
            self.check_view(&view);
        }
        if self.random.chance(15) {
            let from = horizon + self.random.below(span);
            let to = from + self.random.below(watermark - from + 1);
            let applied = self.replica().changes(from, to).unwrap();
            self.check_changes(&applied);
        }
        if self.random.chance(5) {
            match self.replica().at(horizon - 1) {
                Ok(view) => assert_eq!(view.version(), horizon - 1),
                Err(error) => assert_eq!(error.kind(), ErrorKind::BelowHorizon),
            }
        }
    }

    /// Looks at everything there is at the end.
    pub fn check_all(&mut self) {
        for version in [self.model.watermark(), self.horizon] {
            self.check_at(version);
        }
        let mut seen = std::collections::HashSet::new();
        for ((table, birth), id) in &self.ids {
            assert!(
                seen.insert((table, id)),
                "number {id:?} given twice, also to {birth}"
            );
        }
    }

    pub fn check_at(&mut self, version: Version) {
        let view = self.replica().at(version).unwrap();
        self.check_view(&view);
    }

    fn check_view(&mut self, view: &View) {
        let catalog = view.catalog().clone();
        let there: Vec<_> = catalog.tables().iter().map(|table| table.id).collect();
        let expected: Vec<_> = self.model.at(view.version()).keys().copied().collect();
        assert_eq!(there, expected, "tables at {}", view.version());
        for table in catalog.tables() {
            self.check_table(view, table, true);
        }
    }

    /// Looks at all of a table, or at a part of it.
    fn check_table(&mut self, view: &View, table: &Table, whole: bool) {
        let contents = self.model.at(view.version())[&table.id].clone();
        let form = Table {
            indexes: vec![],
            ..table.clone()
        };
        let expected = Table {
            indexes: vec![],
            ..contents.table.clone()
        };
        assert_eq!(form, expected, "at {}", view.version());
        let rows = &contents.rows;
        for scan in self.scans(table, rows, whole) {
            let found = view.scan(table.id, &scan).unwrap();
            let found: Vec<_> = found.map(|row| row.unwrap()).collect();
            let expected = expected::scan(table, rows, &scan);
            let context = || format!("{} at {}: {scan:?}", table.name, view.version());
            assert_eq!(found.len(), expected.len(), "{}", context());
            for (found, expected) in found.iter().zip(expected) {
                self.same(table.id, Some(found), Some(expected), &context);
            }
        }
        for (key, row) in rows {
            if whole || self.random.chance(10) {
                let context = || format!("{} at {}: {key:?}", table.name, view.version());
                let found = view.get(table.id, key).unwrap();
                self.same(table.id, found.as_ref(), Some(row), &context);
                let columns: Vec<_> = table.key.iter().rev().copied().collect();
                let values: Vec<_> = key.iter().rev().cloned().collect();
                let found = view.get_by_unique(table.id, &columns, &values).unwrap();
                self.same(table.id, found.as_ref(), Some(row), &context);
            }
        }
        let key = key_of(table, &row(&mut self.random, table));
        let found = view.get(table.id, &key).unwrap();
        let context = || format!("{} at {}: {key:?}", table.name, view.version());
        let expected = rows.get(&key).map(|row| &**row);
        self.same(table.id, found.as_ref(), expected, &context);
    }

    /// A full scan each way of every index and some with prefixes and starts, or one of these.
    fn scans(&mut self, table: &Table, rows: &Rows, whole: bool) -> Vec<Scan> {
        let indexes = table.indexes.iter().map(|index| index.id);
        let mut indexes: Vec<_> = indexes.chain([kelvin_storage::IndexId::PRIMARY]).collect();
        if !whole {
            indexes = vec![*self.random.pick(&indexes)];
        }
        let mut scans = Vec::new();
        for index in indexes {
            if whole || self.random.chance(40) {
                scans.push(Scan::of(index));
            }
            if whole {
                scans.push(Scan::of(index).reverse());
            }
            let order = expected::order_of(table, index);
            let known: Vec<_> = rows.values().collect();
            let values = if known.is_empty() || self.random.chance(30) {
                row(&mut self.random, table)
            } else {
                self.random.pick(&known).values.clone()
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
        for scan in &mut scans {
            scan.expected = *self.random.pick(&[1, 6, usize::MAX]);
        }
        scans
    }

    fn check_changes(&mut self, applied: &Applied) {
        let (from, to) = (applied.from, applied.version);
        let mut expected = self.model.changed(from, to);
        let reformed = self.model.reformed(from, to);
        for table in &applied.altered {
            assert!(reformed.contains(table), "{table:?} is as it was");
        }
        let swept = self.swept.iter();
        let swept = swept.filter(|(version, _)| from < **version && **version <= to);
        let swept: BTreeSet<_> = swept.flat_map(|(_, tables)| tables).collect();
        for table in &applied.swept {
            assert!(swept.contains(table), "{table:?} was not swept");
        }
        for table in swept.difference(&applied.swept.iter().collect()) {
            let there = self.model.at(to).contains_key(table);
            assert!(!there || reformed.contains(table), "{table:?} was swept");
        }
        assert!(applied.swept.is_sorted());
        let told =
            |table: &TableId| !applied.altered.contains(table) && !applied.swept.contains(table);
        expected.retain(|(table, _), _| told(table));
        let key_of_table: BTreeMap<_, _> = {
            let database = self.model.at(to);
            let keys = database.iter();
            keys.map(|(id, contents)| (*id, contents.table.key.clone()))
                .collect()
        };
        for change in &applied.changes {
            assert!(!applied.swept.contains(&change.table));
            if applied.altered.contains(&change.table) {
                continue;
            }
            let row = change.old.as_ref().or(change.new.as_ref()).unwrap();
            let key: Vec<Value> = row.project(&key_of_table[&change.table]);
            let key = (change.table, key);
            let found = expected.remove(&key);
            let (old, new) = found.unwrap_or_else(|| panic!("unexpected change of {key:?}"));
            let context = || format!("change of {key:?} from {from} to {to}");
            self.same(key.0, change.old.as_ref(), old.as_deref(), &context);
            self.same(key.0, change.new.as_ref(), new.as_deref(), &context);
        }
        assert!(expected.is_empty(), "missing changes {expected:?}");
    }

    /// The found row is the expected one, and its number belongs to it.
    fn same(
        &mut self,
        table: TableId,
        found: Option<&Row>,
        expected: Option<&Expected>,
        context: &dyn Fn() -> String,
    ) {
        let (found, expected) = match (found, expected) {
            (None, None) => return,
            (Some(found), Some(expected)) => (found, expected),
            (found, expected) => panic!("{}: found {found:?}, expected {expected:?}", context()),
        };
        let mut values = found.values().zip(&expected.values);
        let equal = found.values().len() == expected.values.len()
            && values.all(|(found, expected)| found == *expected);
        assert!(
            equal,
            "{}: found {found:?}, expected {expected:?}",
            context()
        );
        assert_eq!(found.version, expected.version, "{}", context());
        let id = *self.ids.entry((table, expected.birth)).or_insert(found.id);
        assert_eq!(
            id,
            found.id,
            "{}: another number for the same row",
            context()
        );
    }
}
