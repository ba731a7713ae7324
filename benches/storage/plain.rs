//! The engine by itself: the keys and records that storage writes for issues, and nothing else.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use kelvin_protocol::{Direction, Value};
use kelvin_storage::fuzzing::{encode_row, index_key};

/// Which of the two orders a key is in.
const ROWS: [u8; 2] = [0, 0];
const BY_MODIFIED: [u8; 2] = [0, 1];

/// Bytes of an index entry's value.
const ENTRY: [u8; 11] = [1; 11];

/// A database of issues.
pub struct Plain {
    database: Database,
    issues: Keyspace,
    /// Keys of the first rows, made ahead: reads cost what the engine takes for them.
    keys: Vec<Vec<u8>>,
}

/// Key of a row.
fn row_key(id: &Value) -> Vec<u8> {
    let key = index_key(std::slice::from_ref(id), &[Direction::Asc]);
    [&ROWS[..], &key].concat()
}

/// Key of an entry of the index by `modified`.
fn entry_key(modified: &Value, id: &Value) -> Vec<u8> {
    let values = [modified.clone(), id.clone()];
    let key = index_key(&values, &[Direction::Desc, Direction::Asc]);
    [&BY_MODIFIED[..], &key].concat()
}

/// Both records of an issue.
pub fn records(row: &[Value]) -> [(Vec<u8>, Vec<u8>); 2] {
    let value = encode_row(1, 1, row).unwrap();
    [
        (row_key(&row[0]), value),
        (entry_key(&row[4], &row[0]), ENTRY.to_vec()),
    ]
}

impl Plain {
    /// An empty one for so many issues, tuned as storage tunes it.
    pub fn create(dir: &Path, issues: usize) -> Self {
        let database = Database::builder(dir)
            .cache_size(256 * 1024 * 1024)
            .worker_threads(2)
            .open()
            .unwrap();
        let options = || KeyspaceCreateOptions::default().max_memtable_size(8 * 1024 * 1024);
        let keyspace = database.keyspace("issues", options).unwrap();
        Self {
            database,
            issues: keyspace,
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

    /// Writes issues in one batch, each with its new index entry in place of the old one.
    pub fn write(&self, rows: &[Vec<Value>], old_modified: &[Value]) {
        let mut batch = self.database.batch();
        for (row, old) in rows.iter().zip(old_modified) {
            batch.remove(&self.issues, entry_key(old, &row[0]));
            for (key, value) in records(row) {
                batch.insert(&self.issues, key, value);
            }
        }
        batch.commit().unwrap();
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

    /// Reads the records of some issues in the order of the index.
    pub fn scan_index(&self, count: usize) -> usize {
        let keys = self.issues.prefix(BY_MODIFIED).take(count);
        keys.map(|record| {
            let (key, _) = record.into_inner().unwrap();
            // Behind the index, an inverted number of ten bytes.
            let primary = [&ROWS[..], &key[12..]].concat();
            self.issues.get(primary).unwrap().unwrap().len()
        })
        .sum()
    }
}
