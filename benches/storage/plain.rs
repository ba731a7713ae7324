//! The engine by itself: the keys and records that storage writes for issues, and nothing else.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use kelvin_protocol::{Direction, Value};
use kelvin_storage::ReplicaOptions;
use kelvin_storage::fuzzing::{encode_row, index_key};

/// Bytes storage buffers of a table at least; else an eighth of the table.
const SMALL_TABLE: u64 = 8 * 1024 * 1024;
/// About what an issue takes on the disk, its index entry included.
const ISSUE_BYTES: u64 = 300;

/// Which of the two orders a key is in.
const ROWS: [u8; 2] = [0, 0];
const BY_MODIFIED: [u8; 2] = [0, 1];

/// Bytes of an index entry's value before the offset of the row's key in its own.
const ENTRY: [u8; 9] = [1; 9];

/// Bytes of a key in the history before the key itself.
const ENDED: [u8; 5] = [1, 0, 0, 0, 1];

/// Which keyspace a record goes to.
#[derive(Clone, Copy)]
pub enum Place {
    Issues,
    History,
    Meta,
}

/// A key and its new value; none where it goes.
pub type Write = (Place, Vec<u8>, Option<Vec<u8>>);

/// A database of issues.
pub struct Plain {
    database: Database,
    issues: Keyspace,
    history: Keyspace,
    meta: Keyspace,
    /// Keys of the first rows, made ahead: reads cost what the engine takes for them.
    keys: Vec<Vec<u8>>,
}

/// Key of a row.
fn row_key(id: &Value) -> Vec<u8> {
    let key = index_key(std::slice::from_ref(id), &[Direction::Asc]);
    [&ROWS[..], &key].concat()
}

/// An entry of the index by `modified`.
fn entry(modified: &Value, id: &Value) -> (Vec<u8>, Vec<u8>) {
    let modified = index_key(std::slice::from_ref(modified), &[Direction::Desc]);
    let id = index_key(std::slice::from_ref(id), &[Direction::Asc]);
    let key = [&BY_MODIFIED[..], &modified, &id].concat();
    let offset = u16::try_from(key.len() - id.len()).unwrap();
    let value = [&ENTRY[..], &offset.to_be_bytes()].concat();
    (key, value)
}

/// Both records of an issue.
pub fn records(row: &[Value]) -> [(Vec<u8>, Vec<u8>); 2] {
    let value = encode_row(1, 1, row).unwrap();
    [(row_key(&row[0]), value), entry(&row[4], &row[0])]
}

/// Everything a transaction at `version` writes that puts `new` issues in place of `old` ones: rows
/// and index entries, what both were, the changelog and the watermark. The engine gets it for free.
pub fn writes(version: u64, new: &[Vec<Value>], old: &[Vec<Value>]) -> Vec<Write> {
    let mut writes = Vec::new();
    let end = version.to_be_bytes();
    let mut changed = Vec::new();
    for (new, old) in new.iter().zip(old) {
        for (key, value) in records(new) {
            writes.push((Place::Issues, key, Some(value)));
        }
        for (key, value) in records(old) {
            let ended = [&ENDED[..], &key, &end].concat();
            writes.push((Place::History, ended, Some(value)));
        }
        let [(row, _), (entry, _)] = records(old);
        writes.push((Place::Issues, entry, None));
        // What an archive takes for a key besides the key.
        changed.extend_from_slice(&[0; 12]);
        changed.extend_from_slice(&row);
    }
    let changelog = [&[0][..], &end, &[0; 4]].concat();
    writes.push((Place::History, changelog, Some(changed)));
    let watermark = version.to_string().into_bytes();
    writes.push((Place::Meta, b"watermark".to_vec(), Some(watermark)));
    writes
}

impl Plain {
    /// An empty one for so many issues, tuned as storage tunes it.
    pub fn create(dir: &Path, issues: usize) -> Self {
        let database = Database::builder(dir)
            .cache_size(256 * 1024 * 1024)
            .worker_threads(3)
            .open()
            .unwrap();
        let keyspace = |name, memtable| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable);
            database.keyspace(name, options).unwrap()
        };
        let memtable = ReplicaOptions::default().memtable_bytes;
        let of_table = (issues as u64 * ISSUE_BYTES / 8).clamp(SMALL_TABLE, memtable);
        Self {
            issues: keyspace("issues", of_table),
            history: keyspace("history", memtable),
            meta: keyspace("meta", memtable),
            database,
            keys: (0..issues)
                .map(|id| row_key(&Value::from(id as f64)))
                .collect(),
        }
    }

    /// Takes in records that are sorted already.
    pub fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) {
        let mut ingestion = self.issues.start_ingestion().unwrap();
        for (key, value) in records {
            ingestion.write(&key[..], &value[..]).unwrap();
        }
        ingestion.finish().unwrap();
    }

    /// Makes sure that everything survives a power loss.
    pub fn sync(&self) {
        self.database.persist(PersistMode::SyncAll).unwrap();
    }

    /// Writes records in one batch.
    pub fn write(&self, writes: Vec<Write>) {
        let mut batch = self.database.batch();
        for (place, key, value) in writes {
            let keyspace = match place {
                Place::Issues => &self.issues,
                Place::History => &self.history,
                Place::Meta => &self.meta,
            };
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit().unwrap();
    }

    /// Whether it flushes or compacts.
    pub fn is_busy(&self) -> bool {
        self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0
    }

    /// Reads the record of an issue.
    pub fn get(&self, id: usize) -> usize {
        self.issues.get(&self.keys[id]).unwrap().unwrap().len()
    }

    /// Reads the records of some issues from this one on.
    pub fn scan(&self, id: usize, count: usize) -> usize {
        let records = self.issues.range(&self.keys[id][..]..).take(count);
        records.map(|record| record.value().unwrap().len()).sum()
    }

    /// Reads the records of some issues from this one on, and looks at what is in them.
    pub fn scan_through(&self, id: usize, count: usize) -> usize {
        let records = self.issues.range(&self.keys[id][..]..).take(count);
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        records.map(|record| sum(&record.value().unwrap())).sum()
    }

    /// Reads the records of some issues in the order of the index.
    pub fn scan_index(&self, count: usize) -> usize {
        let keys = self.issues.prefix(BY_MODIFIED).take(count);
        keys.map(|record| {
            let (key, entry) = record.into_inner().unwrap();
            let offset = u16::from_be_bytes(*entry.last_chunk().unwrap());
            let primary = [&ROWS[..], &key[usize::from(offset)..]].concat();
            self.issues.get(primary).unwrap().unwrap().len()
        })
        .sum()
    }
}
