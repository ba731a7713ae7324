//! Damaged files of a replica.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use arbitrary::{Result, Unstructured};
use kelvin_protocol::{Value, Version};
use kelvin_storage::{
    Error, IndexId, Replica, ReplicaIdentity, RowOp, Scan, TableId, Transaction, View,
};

use crate::input::list;
use crate::tables::{MEMBER, catalog, options};

/// Version of the load; the last of the transactions after it is at `LAST`.
const LOADED: Version = 100;
const LAST: Version = 112;
const MEMBERS: u32 = 20;
const TABLE: TableId = MEMBER;

/// Most damages to one replica.
const DAMAGES: u8 = 4;

/// A list of damages to the files of a replica, each a file, a place and a byte to exclude or (the
/// byte being 0) the end of the file there. The replica opens at one of its versions and shows what
/// it was, or says what is wrong: never a panic, never rows that never were.
pub fn recovery(data: &[u8]) {
    static QUIET: Once = Once::new();
    QUIET.call_once(silence_caught_panics);
    if let Ok(damages) = list(&mut Unstructured::new(data), DAMAGES, damage) {
        check(&damages);
    }
}

thread_local! {
    /// Whether panics of this thread are caught, and what the last one said.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The engine panics on some damages, which storage catches; under a fuzzer, whose hook aborts,
/// that would be the end of it.
fn silence_caught_panics() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let caught = CAUGHT.with_borrow_mut(|caught| {
            if let Some(message) = caught {
                *message = info.to_string();
            }
            caught.is_some()
        });
        if !caught {
            hook(info);
        }
    }));
}

struct Damage {
    file: usize,
    place: usize,
    byte: u8,
}

fn damage(input: &mut Unstructured<'_>) -> Result<Damage> {
    Ok(Damage {
        file: input.arbitrary::<u8>()?.into(),
        place: input.arbitrary::<u16>()?.into(),
        byte: input.arbitrary()?,
    })
}

fn check(damages: &[Damage]) {
    let mut files = sound().clone();
    let names: Vec<PathBuf> = files.keys().cloned().collect();
    for damage in damages {
        let name = &names[damage.file % names.len()];
        let Some(bytes) = files.get_mut(name).filter(|bytes| !bytes.is_empty()) else {
            continue;
        };
        let place = damage.place % bytes.len();
        if damage.byte == 0 {
            bytes.truncate(place);
        } else {
            bytes[place] ^= damage.byte;
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &files);
    CAUGHT.set(Some(String::new()));
    let outcome = panic::catch_unwind(|| look(dir.path()));
    let message = CAUGHT.take();
    match outcome {
        Ok(Ok(version)) => assert!((LOADED..=LAST).contains(&version)),
        Ok(Err(_)) => {}
        Err(_) => panic!("{}", message.unwrap_or_default()),
    }
}

/// Opens the replica and compares all it shows.
fn look(dir: &Path) -> Result<Version, Error> {
    let replica = Replica::open(dir, &options())?;
    let version = replica.watermark();
    for at in [version, replica.horizon()] {
        compare(&replica.at(at)?, at)?;
    }
    let _groups = replica.groups().get("group")?;
    let _changes = replica.changes(replica.horizon(), version)?;
    let op = RowOp::Delete {
        table: TABLE,
        key: row(0, 1)[..2].to_vec(),
    };
    let ops = vec![op];
    replica.apply(&[Transaction {
        version: version + 1,
        ops,
    }])?;
    Ok(version)
}

fn compare(view: &View, version: Version) -> Result<(), Error> {
    let expected = rows(version);
    let mut found = Vec::new();
    for row in view.scan(TABLE, &Scan::of(IndexId::PRIMARY))? {
        found.push(row?.to_values());
    }
    assert_eq!(found, expected, "at version {version}");
    for row in &expected {
        let found = view.get(TABLE, &row[..2])?;
        assert_eq!(found.map(|row| row.to_values()).as_ref(), Some(row));
    }
    Ok(())
}

fn row(member: u32, version: Version) -> Vec<Value> {
    vec![
        Value::from(f64::from(member)),
        Value::from(format!("member {member}")),
        Value::from(version.is_multiple_of(2)),
    ]
}

/// The transaction at `version`: one member changes, another one comes.
fn ops(version: Version) -> Vec<RowOp> {
    let n = u32::try_from(version - LOADED).expect("few versions");
    let insert = |member| RowOp::Insert {
        table: TABLE,
        row: row(member, version),
    };
    vec![insert(n % MEMBERS), insert(MEMBERS + n)]
}

/// All rows at a version, in the order of their key.
fn rows(version: Version) -> Vec<Vec<Value>> {
    let mut rows: BTreeMap<u32, Vec<Value>> = (0..MEMBERS).map(|n| (n, row(n, 1))).collect();
    for version in LOADED + 1..=version.min(LAST) {
        let n = u32::try_from(version - LOADED).expect("few versions");
        rows.insert(n % MEMBERS, row(n % MEMBERS, version));
        rows.insert(MEMBERS + n, row(MEMBERS + n, version));
    }
    rows.into_values().collect()
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a sound replica, made once; without the zeros at their ends, which the journal is
/// allocated ahead with.
fn sound() -> &'static Files {
    static SOUND: OnceLock<Files> = OnceLock::new();
    SOUND.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let loader = Replica::create(dir.path(), &options(), catalog()).expect("a replica");
        let mut table = loader.table(TABLE).expect("a table");
        for member in 0..MEMBERS {
            table.insert(&row(member, 1)).expect("a row");
        }
        table.finish().expect("a loaded table");
        let replica = loader
            .finish(ReplicaIdentity::default(), LOADED)
            .expect("a replica");
        for version in LOADED + 1..=LAST {
            let ops = ops(version);
            replica
                .apply(&[Transaction { version, ops }])
                .expect("applied");
        }
        let record = ("group".to_owned(), Some(b"record".to_vec()));
        replica.groups().write([record]).expect("a record");
        replica.sync().expect("durable");
        drop(replica);
        let mut files = Files::new();
        read(dir.path(), Path::new(""), &mut files);
        files
    })
}

fn read(root: &Path, under: &Path, files: &mut Files) {
    let entries = fs::read_dir(root.join(under)).expect("a directory");
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = under.join(entry.file_name());
        if entry.path().is_dir() {
            read(root, &name, files);
        } else {
            let mut bytes = fs::read(entry.path()).expect("a file");
            let used = bytes.iter().rposition(|byte| *byte != 0);
            bytes.truncate(used.map_or(0, |last| last + 1));
            files.insert(name, bytes);
        }
    }
}

fn write(root: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = root.join(name);
        let parent = path.parent().expect("a parent");
        fs::create_dir_all(parent).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
}
