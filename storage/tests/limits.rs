//! Many tables, most of them idle: memory, journals and reopening stay within bounds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kelvin_protocol::Direction;
use kelvin_storage::{
    Catalog, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Scan, Table, TableId,
};
use sample::{item, items, transaction};

const DIR: &str = "KELVIN_LIMITS_DIR";
const MIB: u64 = 1024 * 1024;
/// More than the engine's queues hold when it opens its files.
const TABLES: u32 = 1100;
const BUSY: u32 = 10;
const BUDGET: u64 = 16 * MIB;
const JOURNALS: u64 = 64 * MIB;
/// Bytes of one row of the busy tables.
const ROW: usize = 128 * 1024;
const ROWS: u64 = 1600;

fn options() -> ReplicaOptions {
    ReplicaOptions {
        cache_bytes: 8 * MIB,
        memtable_bytes: 8 * MIB,
        write_buffer_bytes: BUDGET,
        journal_bytes: JOURNALS,
        history_bytes: 64 * MIB,
        worker_threads: 2,
        ..ReplicaOptions::default()
    }
}

fn table(number: u32) -> Table {
    let mut table = items(TableId(number));
    for (id, column, direction) in [(2, 2, Direction::Asc), (3, 1, Direction::Desc)] {
        table.indexes.push(Index {
            id: IndexId(id),
            name: format!("items_{id}"),
            columns: vec![(column, direction)],
            unique: false,
        });
    }
    table
}

/// Resident memory of this process in bytes: now, and at most so far.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() * 1024
    };
    (of("VmRSS"), of("VmHWM"))
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[test]
fn writes_to_few_of_many_tables() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let catalog = Catalog::new((1..=TABLES).map(table).collect(), vec![]);
    let loader = Replica::create(Path::new(&dir), &options(), catalog).unwrap();
    for id in 1..=TABLES {
        let mut part = loader.table(TableId(id)).unwrap();
        for row in 0..3 {
            part.insert(&item(row, "loaded")).unwrap();
        }
        part.finish().unwrap();
    }
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    // Every table has a little in memory, over what is in its files.
    for id in 1..=TABLES {
        let ops = (0..8).map(|row| RowOp::Insert {
            table: TableId(id),
            row: item(row, "idle"),
        });
        let version = 100 + u64::from(id);
        replica
            .apply(&[transaction(version, ops.collect())])
            .unwrap();
    }
    println!("resident with idle tables: {:?}", resident());
    let noise = incompressible(ROW + 16 * ROWS as usize);
    let (mut memory, mut journals, mut journal_bytes) = (0, 0, 0);
    for n in 0..ROWS {
        let version = 100 + u64::from(TABLES) + 1 + n;
        let mut row = item(u32::try_from(n % 40).unwrap(), "busy");
        let start = usize::try_from(n).unwrap() * 16;
        row[2] = noise[start..start + ROW].into();
        let table = TableId(1 + u32::try_from(n).unwrap() % BUSY);
        let ops = vec![RowOp::Insert { table, row }];
        replica.apply(&[transaction(version, ops)]).unwrap();
        let metrics = replica.metrics();
        memory = memory.max(metrics.memtable_bytes);
        journals = journals.max(metrics.journals);
        journal_bytes = journal_bytes.max(metrics.journal_bytes);
        if n % 100 == 0 {
            replica.maintain(Duration::from_secs(n)).unwrap();
        }
    }
    // Upkeep goes on in the background.
    for second in 0..20 {
        replica
            .maintain(Duration::from_secs(ROWS + second))
            .unwrap();
    }
    let metrics = replica.metrics();
    assert!(
        metrics.uncompacted <= 400,
        "{} tables wait: many more, and the engine could not open them",
        metrics.uncompacted
    );
    println!(
        "resident after writes: {:?}; most memory {memory}, {metrics:?}",
        resident()
    );
    // One batch holds the new row, its index entries, and the old row in the history.
    let batch = 4 * ROW as u64;
    assert!(memory <= BUDGET + batch, "{memory} bytes were in memory");
    assert!(
        journal_bytes <= 2 * JOURNALS + 128 * MIB,
        "{journals} journals of {journal_bytes} bytes were kept"
    );
    // What the test itself, the program and the allocator take is not the budget's.
    let (_, most) = resident();
    assert!(
        most < BUDGET + 8 * MIB + 192 * MIB,
        "{most} bytes were resident"
    );
    std::process::exit(0);
}

#[test]
fn a_thousand_tables_stay_within_their_memory_and_journals() {
    // Making so many tables syncs thousands of files; that is not what is tested.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_to_few_of_many_tables", "--nocapture"])
        .env(DIR, dir.path())
        .status()
        .unwrap();
    assert!(child.success());
    // The process ended without closing anything.
    let started = Instant::now();
    let replica = Replica::open(dir.path(), &options()).unwrap();
    println!("reopened in {:?}", started.elapsed());
    assert_eq!(replica.watermark(), 100 + u64::from(TABLES) + ROWS);
    let view = replica.latest().unwrap();
    for id in 1..=TABLES {
        let of = TableId(id);
        assert!(replica.row_count(of) >= 8);
        let scanned = view.scan(of, &Scan::of(IndexId(3))).unwrap().count();
        assert_eq!(scanned as u64, replica.row_count(of));
    }
    let version = replica.watermark() + 1;
    let ops = (1..=TABLES).map(|id| RowOp::Insert {
        table: TableId(id),
        row: item(1000, "after"),
    });
    replica
        .apply(&[transaction(version, ops.collect())])
        .unwrap();
}

/// Text no two parts of which are alike.
fn incompressible(bytes: usize) -> String {
    let mut state = 1u64;
    let mut text = String::new();
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}
