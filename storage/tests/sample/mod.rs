//! A replica of one table of items.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use kelvin_protocol::{Direction, Value, ValueType, Version};
use kelvin_storage::{
    Catalog, Column, ErrorKind, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, RowOp,
    Table, TableId, Transaction,
};

pub const ITEMS: TableId = TableId(7);
pub const BY_NAME: IndexId = IndexId(1);

pub const MIB: u64 = 1024 * 1024;

/// Opens a replica that may be locked for a moment yet.
pub fn open_soon(dir: &Path) -> kelvin_storage::Result<Replica> {
    open_soon_with(dir, &options())
}

pub fn open_soon_with(dir: &Path, options: &ReplicaOptions) -> kelvin_storage::Result<Replica> {
    once_unlocked(|| Replica::open(dir, options))
}

/// Does what needs a directory that may be locked for a moment yet: a child that another test
/// starts has a copy of the lock until it runs its own program.
pub fn once_unlocked<T>(
    attempt: impl Fn() -> kelvin_storage::Result<T>,
) -> kelvin_storage::Result<T> {
    for _ in 0..1000 {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Locked => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
    attempt()
}

pub fn catalog() -> Catalog {
    Catalog::new(vec![items(ITEMS)], vec![])
}

pub fn items(id: TableId) -> Table {
    let column = |name: &str, attnum, value_type| Column {
        name: name.into(),
        attnum,
        upstream_type: "text".into(),
        type_oid: 25,
        value_type,
        not_null: false,
    };
    Table {
        id,
        name: if id == ITEMS {
            "items".into()
        } else {
            format!("items{}", id.0)
        },
        schema: "public".into(),
        upstream_name: "items".into(),
        oid: 16384,
        columns: vec![
            column("id", 1, ValueType::Number),
            column("name", 2, ValueType::String),
            column("note", 3, ValueType::String),
        ],
        unsynced_columns: vec![],
        key: vec![0],
        unique_keys: vec![vec![0]],
        indexes: vec![Index {
            id: BY_NAME,
            name: "items_name".into(),
            columns: vec![(1, Direction::Asc)],
            unique: false,
        }],
    }
}

pub fn options() -> ReplicaOptions {
    ReplicaOptions {
        cache_bytes: 8 * 1024 * 1024,
        memtable_bytes: 64 * 1024,
        worker_threads: 1,
        ..ReplicaOptions::default()
    }
}

pub fn item(id: u32, name: &str) -> Vec<Value> {
    vec![
        f64::from(id).into(),
        name.into(),
        format!("note of {name}").into(),
    ]
}

pub fn insert(id: u32, name: &str) -> RowOp {
    RowOp::Insert {
        table: ITEMS,
        row: item(id, name),
    }
}

pub fn delete(id: u32) -> RowOp {
    RowOp::Delete {
        table: ITEMS,
        key: vec![f64::from(id).into()],
    }
}

pub fn transaction(version: Version, ops: Vec<RowOp>) -> Transaction {
    Transaction { version, ops }
}

/// A replica at version 100 with these items.
pub fn load(dir: &Path, ids: Range<u32>) -> Replica {
    load_with(dir, &options(), ids)
}

pub fn load_with(dir: &Path, options: &ReplicaOptions, ids: Range<u32>) -> Replica {
    let loader = Replica::create(dir, options, catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    for id in ids {
        part.insert(&item(id, &format!("item {id}"))).unwrap();
    }
    part.finish().unwrap();
    loader.finish(ReplicaIdentity::default(), 100).unwrap()
}

/// Most memory of this process that was resident at one time, in bytes. Linux only.
pub fn peak_memory() -> u64 {
    memory("VmHWM:")
}

/// Memory of this process that is resident now, in bytes. Linux only.
pub fn resident_memory() -> u64 {
    memory("VmRSS:")
}

fn memory(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(of));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}
