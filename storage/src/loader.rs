//! Bulk load of a fresh replica.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fjall::{Database, PersistMode};
use kelvin_protocol::{Value, ValueRef, Version};

use crate::archive::{LOADED, encode_entry, encode_row, set_row_id};
use crate::directory::Directory;
use crate::engine;
use crate::era::{Spaces, TableRecord};
use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::layout::META;
use crate::meta::{BucketRange, Meta, MetaWriter, ReplicaIdentity};
use crate::shape::open_keyspace;
use crate::sorter::{Buffer, Run, RunDirectory};
use crate::table_space::TableSpace;
use crate::{Catalog, IndexId, Replica, ReplicaOptions, RowId, TableId};

/// A buffer smaller than this is not spilled, however many loaders share the memory.
const MIN_SPILL: u64 = 256 * 1024;

/// A replica being loaded. Dropping it without [`Loader::finish`] leaves a directory that counts as
/// [`Error::Missing`].
pub struct Loader {
    shared: Arc<Shared>,
    directory: Directory,
    db: Database,
    options: ReplicaOptions,
    catalog: Catalog,
}

struct Shared {
    tables: HashMap<TableId, Arc<TableSpace>>,
    runs: RunDirectory,
    sorted: Mutex<Sorted>,
    load_bytes: u64,
    live: AtomicUsize,
}

impl Shared {
    fn table(&self, id: TableId) -> Result<&Arc<TableSpace>> {
        let table = self.tables.get(&id);
        table.ok_or_else(|| Error::Invalid(format!("there is no table {}", id.0)))
    }
}

/// Runs of each table that wait for the merge.
#[derive(Default)]
struct Sorted {
    tables: HashMap<TableId, Vec<Run>>,
    memory_bytes: u64,
}

/// Loads rows of one table, in any order. There may be several for one table, in several threads.
pub struct TableLoader {
    shared: Arc<Shared>,
    space: Arc<TableSpace>,
    buffer: Buffer,
    runs: Vec<Run>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TableLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableLoader").finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts a fresh replica of these tables in `dir`, removing an earlier one.
    ///
    /// # Errors
    /// [`Error::Locked`] while the earlier one is open, [`Error::Foreign`] for files that are not
    /// ours, [`Error::Io`] for a directory that cannot be written.
    pub fn create(dir: &Path, options: &ReplicaOptions, catalog: Catalog) -> Result<Loader> {
        let directory = Directory::create(dir)?;
        let db = engine::open(&directory, options)?;
        let mut spaces = Spaces::new(&db, options);
        let mut tables = HashMap::new();
        for table in catalog.tables() {
            let stored = StoredTable::new((**table).clone(), table.id.0);
            tables.insert(table.id, Arc::new(spaces.table(stored)?));
        }
        let shared = Shared {
            tables,
            runs: RunDirectory::new(directory.runs()),
            sorted: Mutex::default(),
            load_bytes: options.load_bytes,
            live: AtomicUsize::new(0),
        };
        Ok(Loader {
            shared: Arc::new(shared),
            directory,
            db,
            options: options.clone(),
            catalog,
        })
    }
}

impl Loader {
    /// A loader for one table, or for a part of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a table the catalog does not have.
    pub fn table(&self, id: TableId) -> Result<TableLoader> {
        let space = self.shared.table(id)?.clone();
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        Ok(TableLoader {
            shared: self.shared.clone(),
            space,
            buffer: Buffer::default(),
            runs: Vec::new(),
        })
    }

    /// Merges what was loaded into the tables, and makes it a complete replica at `version`.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two rows of a table have one key; [`Error::Invalid`] while a
    /// [`TableLoader`] is not finished.
    pub fn finish(self, identity: ReplicaIdentity, version: Version) -> Result<Replica> {
        if self.shared.live.load(Ordering::Acquire) > 0 {
            return Err(Error::Invalid("a part of the load is not finished".into()));
        }
        let next_rows = self.ingest_all()?;
        let range = BucketRange {
            number: 0,
            from: version,
            to: None,
        };
        let keyspace = open_keyspace(&self.db, &self.options, META)?;
        let mut batch = self.db.batch();
        let mut meta = MetaWriter {
            meta: &keyspace,
            batch: &mut batch,
        };
        let stored = self.shared.tables.values().map(|space| &space.stored);
        let stored: Vec<_> = stored.map(|stored| (**stored).clone()).collect();
        for table in &stored {
            meta.table(table.table.id, version, Some(table))?;
        }
        meta.unsynced(self.catalog.unsynced())?;
        let highest = stored.iter().map(|table| table.space).max();
        let next_space = highest.unwrap_or(0).saturating_add(1);
        meta.next_space(next_space)?;
        meta.identity(&identity)?;
        meta.horizon(version)?;
        meta.loaded_at(version)?;
        meta.buckets(&[range])?;
        for (table, next) in &next_rows {
            meta.next_row(*table, *next)?;
        }
        for table in self.catalog.tables() {
            // Rows are numbered from zero without a gap.
            let rows = next_rows.get(&table.id).copied().unwrap_or_default();
            meta.row_count(table.id, rows.into())?;
        }
        // INVARIANT: the watermark makes the replica complete, so it is written when everything
        // else is on disk; the ingestions have synced their files.
        meta.watermark(version)?;
        batch.durability(Some(PersistMode::SyncAll)).commit()?;
        let runs = self.shared.runs.path();
        std::fs::remove_dir_all(runs).map_err(|error| Error::io(runs, error))?;
        let meta = Meta {
            watermark: version,
            horizon: version,
            loaded_at: version,
            tables: stored
                .into_iter()
                .map(|table| TableRecord {
                    since: version,
                    id: table.table.id,
                    table: Some(table),
                })
                .collect(),
            unsynced: self.catalog.unsynced().to_vec(),
            next_space,
            garbage: Vec::new(),
            identity,
            buckets: vec![range],
            next_rows,
            next_indexes: HashMap::new(),
        };
        Replica::assemble(self.directory, self.db, &self.options, meta)
    }

    /// Ingests every table, several at a time. Returns the next row number of each.
    fn ingest_all(&self) -> Result<HashMap<TableId, RowId>> {
        let sorted = {
            let mut sorted = self
                .shared
                .sorted
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut sorted.tables)
        };
        let queue = Mutex::new(sorted.into_iter());
        let next_rows = Mutex::new(HashMap::new());
        let work = || -> Result<()> {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((table, runs)) = next else {
                    return Ok(());
                };
                let next_row = self.ingest(self.shared.table(table)?, runs)?;
                let mut next_rows = next_rows.lock().unwrap_or_else(PoisonError::into_inner);
                next_rows.insert(table, next_row);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.options.worker_threads.max(1))
                .map(|_| scope.spawn(work))
                .collect();
            let results = workers.into_iter().map(|worker| {
                let panicked = |_| Error::Corrupt("the engine refused the load".into());
                worker.join().map_err(panicked).flatten()
            });
            results.collect::<Result<Vec<()>>>()
        })?;
        Ok(next_rows
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn ingest(&self, space: &TableSpace, runs: Vec<Run>) -> Result<RowId> {
        let rows_only = IndexId::PRIMARY.0.to_be_bytes();
        let mut next_row: RowId = 0;
        let mut last: Box<[u8]> = Box::default();
        let mut ingestion = space.keyspace.start_ingestion()?;
        for record in self.shared.runs.merge(runs)? {
            let (key, mut value) = record?;
            if key <= last {
                return Err(Error::Duplicate(space.table.name.clone()));
            }
            if key.starts_with(&rows_only) {
                set_row_id(&mut value, next_row);
                next_row = next_row
                    .checked_add(1)
                    .ok_or(Error::Exhausted(space.table.id))?;
            }
            ingestion.write(&*key, &*value)?;
            last = key;
        }
        ingestion.finish()?;
        Ok(next_row)
    }
}

impl TableLoader {
    /// Adds a row: one value for each column of the table.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row of the wrong length, [`Error::KeyTooLong`], or
    /// [`Error::Io`] from spilling.
    pub fn insert(&mut self, row: Vec<Value>) -> Result<()> {
        let key = self.space.row_key(&row)?;
        let value_at = |at: usize| row.get(at).map_or(ValueRef::Null, Value::as_ref);
        for index in &self.space.indexes {
            let (entry, offset) = index.entry_key(value_at, &key);
            self.buffer.push(entry, encode_entry(LOADED, offset));
        }
        let row_bytes = encode_row(LOADED, 0, 0, row.iter().map(Value::as_ref))?;
        self.buffer.push(key, row_bytes);
        drop(row);
        // Half of the memory is for what is being collected, half for what waits sorted.
        let live = self.shared.live.load(Ordering::Relaxed).max(1) as u64;
        let share = (self.shared.load_bytes / 2 / live).max(MIN_SPILL);
        if self.buffer.bytes() as u64 >= share {
            let run = std::mem::take(&mut self.buffer).into_run();
            self.runs.push(self.shared.runs.spill(run)?);
        }
        Ok(())
    }

    /// Hands over what was inserted.
    ///
    /// # Errors
    /// [`Error::Io`] from spilling.
    pub fn finish(mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.bytes() as u64;
        let mut runs = std::mem::take(&mut self.runs);
        if !buffer.is_empty() {
            let mut run = buffer.into_run();
            let stays = {
                let mut sorted = self.sorted();
                let stays = sorted.memory_bytes + bytes <= self.shared.load_bytes / 2;
                sorted.memory_bytes += if stays { bytes } else { 0 };
                stays
            };
            if !stays {
                run = self.shared.runs.spill(run)?;
            }
            runs.push(run);
        }
        self.sorted()
            .tables
            .entry(self.space.table.id)
            .or_default()
            .extend(runs);
        Ok(())
    }

    fn sorted(&self) -> std::sync::MutexGuard<'_, Sorted> {
        self.shared
            .sorted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TableLoader {
    fn drop(&mut self) {
        self.shared.live.fetch_sub(1, Ordering::Release);
    }
}
