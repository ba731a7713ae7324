//! What storage costs beside the engine it stands on. See the README.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

#[path = "../measure.rs"]
mod measure;
mod plain;
mod syncing;
#[path = "../world.rs"]
mod world;

use std::time::{Duration, Instant};

use kelvin_protocol::{Value, ValueRef, Version};
use kelvin_storage::{Catalog, Replica, Row, Scan, StorageMetrics, View};
use measure::{Measure, size};
use plain::Plain;
use tempfile::TempDir;
use world::{BY_MODIFIED, ISSUE};

/// The one of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Issues a transaction writes.
const BATCH: usize = 100;
/// Issues of a scan.
const PAGE: usize = 50;

/// Both stores with the same issues.
struct Stores {
    _dirs: [TempDir; 2],
    replica: Replica,
    plain: Plain,
    issues: usize,
    /// When each issue was modified last.
    modified: Vec<usize>,
    clock: usize,
}

impl Stores {
    fn new(issues: usize) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let rows = rows(issues);
        let plain = Plain::create(dirs[1].path(), issues);
        plain.load(&sorted(&rows));
        let replica = world::load(dirs[0].path(), world::catalog(false), &[(ISSUE, rows)]);
        Self {
            _dirs: dirs,
            replica,
            plain,
            issues,
            modified: (0..issues).collect(),
            clock: issues,
        }
    }

    /// Issues to write next, each once, and as they were before.
    fn next(&mut self, count: usize) -> (Vec<Vec<Value>>, Vec<Vec<Value>>) {
        let first = fastrand::usize(0..self.issues);
        (0..count)
            .map(|n| {
                let id = (first + n * 977) % self.issues;
                self.clock += 1;
                let old = std::mem::replace(&mut self.modified[id], self.clock);
                let issue = |modified| world::issue(id, modified, "ann");
                (issue(self.clock), issue(old))
            })
            .unzip()
    }

    /// Writes both; the time of the one that is asked for.
    fn write(&mut self, count: usize) -> [Duration; 2] {
        let (rows, old) = self.next(count);
        let transaction = world::write(&self.replica, ISSUE, rows.clone());
        let writes = plain::writes(transaction.version, &rows, &old);
        let start = Instant::now();
        self.plain.write(writes);
        let plain = start.elapsed();
        let transactions = [transaction];
        let start = Instant::now();
        let applied = self.replica.apply(&transactions);
        let kelvin = start.elapsed();
        applied.unwrap();
        [kelvin, plain]
    }

    /// Whether one of them flushes or compacts.
    fn is_busy(&self) -> bool {
        is_busy(&self.replica) || self.plain.is_busy()
    }

    fn any(&self) -> usize {
        fastrand::usize(0..self.issues - PAGE)
    }

    fn any_id(&self) -> Value {
        Value::from(self.any() as f64)
    }
}

fn rows(issues: usize) -> Vec<Vec<Value>> {
    (0..issues).map(|id| world::issue(id, id, "ann")).collect()
}

fn sorted(rows: &[Vec<Value>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<_> = rows.iter().flat_map(|row| plain::records(row)).collect();
    records.sort_unstable();
    records
}

/// Looks at every value.
fn read(row: &Row) -> usize {
    let length = |value: ValueRef<'_>| value.as_str().map_or(1, str::len);
    row.values().map(length).sum()
}

fn get(view: &View, id: Value) -> usize {
    read(&view.get(ISSUE, &[id]).unwrap().unwrap())
}

fn scan(view: &View, scan: &Scan) -> usize {
    let rows = view.scan(ISSUE, scan).unwrap().take(PAGE);
    rows.map(|row| read(&row.unwrap())).sum()
}

fn apply(measure: &mut Measure, stores: &mut Stores) {
    let group = format!("apply {BATCH} rows with an index, the same bytes");
    let mut plain = Vec::new();
    measure.run_timed(&group, "kelvin", BATCH, |iterations| {
        let times = (0..iterations).map(|_| {
            // Each would else wait for flushes and compactions of the other.
            while stores.is_busy() {
                std::thread::sleep(Duration::from_millis(1));
            }
            stores.write(BATCH)
        });
        let sum = |sum: [Duration; 2], time: [Duration; 2]| [sum[0] + time[0], sum[1] + time[1]];
        let [kelvin, fjall] = times.fold([Duration::ZERO; 2], sum);
        plain.push(fjall.as_secs_f64() * 1e9 / iterations as f64);
        kelvin
    });
    measure.beside(&group, "fjall", plain);
}

fn newest(measure: &mut Measure, stores: &Stores) {
    let view = stores.replica.latest().unwrap();
    let group = "newest point read";
    let kelvin = || get(&view, stores.any_id());
    let fjall = || stores.plain.get(stores.any());
    measure.run_both(group, 1, ("kelvin", kelvin), ("fjall", fjall));
    let group = "scan of 50 by key";
    let kelvin = || scan(&view, &Scan::all().start(vec![stores.any_id()], true));
    let fjall = || stores.plain.scan(stores.any(), PAGE);
    measure.run_both(group, PAGE, ("kelvin", kelvin), ("fjall", fjall));
    let group = "scan of 50 by key, records looked at too";
    let kelvin = || scan(&view, &Scan::all().start(vec![stores.any_id()], true));
    let fjall = || stores.plain.scan_through(stores.any(), PAGE);
    measure.run_both(group, PAGE, ("kelvin", kelvin), ("fjall", fjall));
    let group = "scan of 50 by an index";
    let kelvin = || scan(&view, &Scan::of(BY_MODIFIED));
    let fjall = || stores.plain.scan_index(PAGE);
    measure.run_both(group, PAGE, ("kelvin", kelvin), ("fjall", fjall));
}

/// Reads at a version from before many transactions, beside reads of now. Before that version came
/// as many: what has ended since then lies among what had ended before, and is the more to step
/// over.
fn past(measure: &mut Measure, stores: &mut Stores, before: usize, versions: usize) {
    for _ in 0..before {
        stores.write(10);
    }
    let then: Version = stores.replica.watermark();
    let modified_then = stores.modified.clone();
    for _ in 0..versions {
        stores.write(10);
    }
    // How many files there are to look into is else left to chance.
    settle(&stores.replica);
    let stores: &Stores = stores;
    let past = stores.replica.at(then).unwrap();
    let now = stores.replica.latest().unwrap();
    // Rows that nobody has read yet are in files, and so is what leads to them.
    let cold = Value::from(stores.modified[stores.any()] as f64);
    let cold = timed(|| scan(&now, &Scan::of(BY_MODIFIED).start(vec![cold], true)));
    let first = timed(|| scan(&past, &Scan::of(BY_MODIFIED)));
    let again = timed(|| scan(&past, &Scan::of(BY_MODIFIED)));
    let group = format!("first scan of 50 by an index {versions} versions back");
    measure.note(&group, "first", first, "the second", again);
    measure.note(&group, "first", first, "a first one of now", cold);
    let group = format!("point read {versions} versions back");
    let at = |view| move || get(view, stores.any_id());
    measure.run_both(&group, 1, ("then", at(&past)), ("now", at(&now)));
    let group = format!("scan of 50 by key {versions} versions back");
    let at = |view| move || scan(view, &Scan::all().start(vec![stores.any_id()], true));
    measure.run_both(&group, PAGE, ("then", at(&past)), ("now", at(&now)));
    let group = format!("scan of 50 by an index {versions} versions back");
    let at = |view, modified: &[usize]| {
        let start = Value::from(modified[stores.any()] as f64);
        scan(view, &Scan::of(BY_MODIFIED).start(vec![start], true))
    };
    let (then, current) = (|| at(&past, &modified_then), || at(&now, &stores.modified));
    measure.run_both(&group, PAGE, ("then", then), ("now", current));
    // Where everything since lies in front of what was first then, and what is first now is not on
    // the disk yet.
    let group = format!("scan of the first 50 by an index {versions} versions back");
    let at = |view| move || scan(view, &Scan::of(BY_MODIFIED));
    measure.run_both(&group, PAGE, ("then", at(&past)), ("now", at(&now)));
}

/// What is left on the disk once the history is gone, beside a fresh load of the same rows.
fn space(measure: &mut Measure, stores: &Stores) {
    let replica = &stores.replica;
    let before = replica.metrics();
    replica.trim_history(replica.watermark()).unwrap();
    for second in 0..5 {
        replica.maintain(Duration::from_secs(second)).unwrap();
    }
    settle(replica);
    let after = replica.metrics();
    let dir = tempfile::tempdir().unwrap();
    let modified = stores.modified.iter().enumerate();
    let rows = modified.map(|(id, modified)| world::issue(id, *modified, "ann"));
    let tables = [(ISSUE, rows.collect())];
    let fresh = world::load(dir.path(), world::catalog(false), &tables);
    settle(&fresh);
    let bytes = |of: &StorageMetrics| (of.table_bytes + of.history_bytes) as f64;
    let group = "space after the history is removed";
    measure.note(
        group,
        "after",
        bytes(&after),
        "a fresh load",
        bytes(&fresh.metrics()),
    );
    measure.note(group, "after", bytes(&after), "before", bytes(&before));
}

/// Waits until the engine has done what it had to.
fn settle(replica: &Replica) {
    let mut idle = 0;
    while idle < 10 {
        std::thread::sleep(Duration::from_millis(50));
        idle = if is_busy(replica) { 0 } else { idle + 1 };
    }
}

fn is_busy(replica: &Replica) -> bool {
    let metrics = replica.metrics();
    metrics.outstanding_flushes > 0 || metrics.active_compactions > 0
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_secs_f64()
}

/// Both take the same rows, which is all that a fresh store is made for, and both have them on the
/// disk in the end; the engine gets them encoded and sorted.
fn bulk_load(measure: &mut Measure, issues: usize) {
    let records = sorted(&rows(issues));
    let issue = world::catalog(false).table_by_id(ISSUE).unwrap().clone();
    let catalog = Catalog::new(vec![(*issue).clone()], Vec::new());
    for order in ["in order of the key", "scattered"] {
        let group = format!("bulk load of {issues} rows {order} with an index");
        let mut ids: Vec<_> = (0..issues).collect();
        if order == "scattered" {
            fastrand::shuffle(&mut ids);
        }
        let rows = ids.into_iter().map(|id| world::issue(id, id, "ann"));
        let tables = [(ISSUE, rows.collect())];
        measure.run_timed(&group, "kelvin", issues, |iterations| {
            let load = |_| {
                let (dir, catalog) = (tempfile::tempdir().unwrap(), catalog.clone());
                let start = Instant::now();
                let replica = world::load(dir.path(), catalog, &tables);
                let elapsed = start.elapsed();
                drop(replica);
                elapsed
            };
            (0..iterations).map(load).sum()
        });
        measure.run_timed(&group, "fjall", issues, |iterations| {
            let load = |_| {
                let dir = tempfile::tempdir().unwrap();
                let start = Instant::now();
                let plain = Plain::create(dir.path(), 0);
                plain.load(&records);
                plain.sync();
                let elapsed = start.elapsed();
                drop(plain);
                elapsed
            };
            (0..iterations).map(load).sum()
        });
    }
}

fn main() {
    let mut measure = Measure::new();
    let issues = size("ROWS", 100_000);
    let mut stores = Stores::new(issues);
    newest(&mut measure, &stores);
    apply(&mut measure, &mut stores);
    // How much `apply` writes depends on how fast it is, and so would what is read of the past.
    stores = Stores::new(issues);
    let versions = size("VERSIONS", 10_000);
    past(
        &mut measure,
        &mut stores,
        size("BEFORE", versions),
        versions,
    );
    space(&mut measure, &stores);
    drop(stores);
    bulk_load(&mut measure, size("LOAD_ROWS", 100_000));
    syncing::syncing(&mut measure);
    measure.finish();
}
