//! Bulk load of a fresh replica, or of one table beside a live one: an external sort into the
//! engine.
//!
//! Parts ([`TableLoader`]) encode rows and index entries into buffers. One whose records came in
//! order of their keys is ingested by a thread of its own, while the part goes on; a full one whose
//! records did not is sorted and written to a run on disk. At the end all runs of the rows of a
//! table, and those of each of its indexes, are merged and ingested, several at once.

mod budget;
mod buffer;
mod chunk;
mod ingest;
mod merge;
mod part;
mod run;
mod stream;
mod table;
mod tally;
mod writeback;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fail::fail_point;
use fjall::{Database, PersistMode};
use kelvin_protocol::Version;

use budget::{Budget, Reservation};
pub(crate) use buffer::Buffer;
use ingest::{Range, ingest_all};
use part::Lane;
pub use part::TableLoader;
pub(crate) use run::{Run, RunDirectory};
use stream::{Numbers, Stream, Stretches};
pub use table::{LoadedTable, TableLoad};
use tally::Tally;
use writeback::Writeback;

use crate::archive::LOADED;
use crate::directory::Directory;
use crate::engine;
use crate::era::{Spaces, TableRecord};
use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::layout::{GROUPS, META, bucket_keyspace};
use crate::meta::{BucketRange, Meta, MetaWriter, ReplicaIdentity};
use crate::shape::open_keyspace;
use crate::table_space::TableSpace;
use crate::{Catalog, Replica, ReplicaOptions, RowId, TableId, UnsyncedTable};

/// Part of the history a fresh replica starts with.
const FIRST_BUCKET: u64 = 0;

/// A replica being loaded. Dropping it without [`Loader::finish`] leaves a directory that counts as
/// [`Error::Missing`].
pub struct Loader {
    opening: Opening,
    shared: Arc<Shared>,
    directory: Directory,
    db: Database,
    options: ReplicaOptions,
    catalog: Catalog,
    /// Number for the next keyspace of a table.
    next_space: u32,
}

struct Shared {
    tables: HashMap<TableId, Arc<TableSpace>>,
    runs: RunDirectory,
    budget: Arc<Budget>,
    /// Version that the rows carry.
    version: Version,
    /// Whether what comes in order is ingested at once. Each of these ingestions keeps commits
    /// waiting while it ends, so this is not for a load beside them.
    streams: bool,
    writeback: Arc<Writeback>,
    stretches: Stretches,
    numbers: Mutex<HashMap<TableId, Arc<Numbers>>>,
    tally: Tally,
    sorted: Mutex<Sorted>,
    /// Whether a part was dropped before it was finished.
    given_up: AtomicBool,
}

/// What waits for the merge.
#[derive(Default)]
struct Sorted {
    /// Runs of the rows of each table, and of each of its indexes.
    tables: HashMap<TableId, Vec<Vec<Run>>>,
    /// Ingestions of them that are open.
    streams: HashMap<TableId, Vec<Vec<Stream>>>,
    /// Memory of those that are not on disk.
    memory: Vec<Reservation>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}

impl Shared {
    fn new(
        tables: HashMap<TableId, Arc<TableSpace>>,
        runs: PathBuf,
        options: &ReplicaOptions,
        version: Version,
        streams: bool,
    ) -> Result<Self> {
        let read_bytes = Budget::read_bytes(options.load_bytes, options.worker_threads);
        Ok(Self {
            writeback: Arc::new(Writeback::start(&runs)?),
            tables,
            runs: RunDirectory::new(runs, read_bytes),
            budget: Arc::new(Budget::new(options.load_bytes)),
            version,
            streams,
            stretches: Stretches::default(),
            numbers: Mutex::default(),
            tally: Tally::default(),
            sorted: Mutex::default(),
            given_up: AtomicBool::new(false),
        })
    }

    /// Makes sure that every part handed over all of its rows.
    ///
    /// INVARIANT: a part that failed or was forgotten must not become a table without its rows.
    fn check_complete(&self) -> Result<()> {
        if self.budget.parts() > 0 {
            return Err(Error::Invalid("a part of the load is not finished".into()));
        }
        if self.given_up.load(Ordering::Acquire) {
            return Err(Error::Invalid("a part of the load was given up".into()));
        }
        Ok(())
    }

    fn table(&self, id: TableId) -> Result<&Arc<TableSpace>> {
        let table = self.tables.get(&id);
        table.ok_or_else(|| Error::Invalid(format!("there is no table {}", id.0)))
    }

    fn sorted(&self) -> std::sync::MutexGuard<'_, Sorted> {
        self.sorted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers for the rows of a table.
    fn numbers(&self, table: TableId) -> Arc<Numbers> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.entry(table).or_default().clone()
    }

    /// The next row number of each table.
    fn next_rows(&self) -> HashMap<TableId, RowId> {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |(table, numbers): (&TableId, &Arc<Numbers>)| (*table, numbers.next());
        numbers.iter().map(next).collect()
    }

    /// Takes what a part has of the rows and the indexes of a table, and what that reserves in
    /// memory.
    fn hand_over(&self, table: TableId, lanes: Vec<Lane>, memory: Option<Reservation>) {
        let mut sorted = self.sorted();
        let Sorted {
            tables, streams, ..
        } = &mut *sorted;
        let runs = tables.entry(table).or_default();
        let streams = streams.entry(table).or_default();
        runs.resize_with(lanes.len(), Vec::new);
        streams.resize_with(lanes.len(), Vec::new);
        for ((lane, runs), streams) in lanes.into_iter().zip(runs).zip(streams) {
            runs.extend(lane.runs);
            streams.extend(lane.stream);
        }
        sorted.memory.extend(memory);
    }

    /// Ends the ingestions that are open.
    ///
    /// INVARIANT: in order of the keys. The engine moves what it got to its last level without
    /// rewriting it, as long as that is not among what is there.
    fn finish_streams(&self) -> Result<()> {
        let streams = std::mem::take(&mut self.sorted().streams);
        for mut range in streams.into_values().flatten() {
            range.sort_unstable_by(|a, b| a.first().cmp(b.first()));
            for stream in range {
                let (place, records) = stream.finish()?;
                self.tally.arrived(place, records);
            }
        }
        Ok(())
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Takes everything that waits, rows and indexes apart.
    fn take_ranges(&self) -> Vec<Range> {
        let tables = std::mem::take(&mut self.sorted().tables);
        let ranges = tables.into_iter().flat_map(|(table, all)| {
            let range = move |(at, runs)| Range {
                place: (table, at),
                runs,
            };
            let any = all.into_iter().enumerate();
            any.filter(|(_, runs)| !runs.is_empty()).map(range)
        });
        ranges.collect()
    }
}

impl Replica {
    /// Starts a fresh replica of these tables in `dir`, removing an earlier one.
    ///
    /// # Errors
    /// As [`Replica::found`].
    pub fn create(dir: &Path, options: &ReplicaOptions, catalog: Catalog) -> Result<Loader> {
        Self::found(dir, options)?.loader(catalog)
    }

    /// Starts a fresh replica in `dir`, removing an earlier one, before its tables are known.
    ///
    /// # Errors
    /// [`Error::Locked`] while the earlier one is open, [`Error::Foreign`] for files that are not
    /// ours, [`Error::Io`] for a directory that cannot be written.
    pub fn found(dir: &Path, options: &ReplicaOptions) -> Result<Foundation> {
        let directory = Directory::create(dir)?;
        let db = engine::open(&directory, options)?;
        let opening = Opening::begin(db.clone(), directory.path())?;
        Ok(Foundation {
            opening,
            directory,
            db,
            options: options.clone(),
        })
    }
}

/// A replica without tables yet. Dropping it leaves a directory that counts as [`Error::Missing`].
pub struct Foundation {
    opening: Opening,
    directory: Directory,
    db: Database,
    options: ReplicaOptions,
}

impl std::fmt::Debug for Foundation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foundation").finish_non_exhaustive()
    }
}

impl Foundation {
    /// Begins to load these tables.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be created.
    pub fn loader(self, catalog: Catalog) -> Result<Loader> {
        let Self {
            opening,
            directory,
            db,
            options,
        } = self;
        let mut spaces = Spaces::new(&db);
        let mut tables = HashMap::new();
        for table in catalog.tables() {
            let stored = StoredTable::new((**table).clone(), table.id.0);
            tables.insert(table.id, Arc::new(spaces.table(stored)?));
        }
        let numbers = tables
            .values()
            .map(|space: &Arc<TableSpace>| space.number());
        let next_space = numbers.max().unwrap_or(0).saturating_add(1);
        let shared = Shared::new(tables, directory.runs(), &options, LOADED, true)?;
        Ok(Loader {
            opening,
            shared: Arc::new(shared),
            directory,
            db,
            options,
            catalog,
            next_space,
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
        Ok(TableLoader::new(self.shared.clone(), space))
    }

    /// Leaves a table out of the replica, with what was loaded of it. The catalog says why.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a table the catalog does not have, or while a [`TableLoader`] is not
    /// finished.
    pub fn leave_out(&mut self, id: TableId, reason: String) -> Result<()> {
        let unfinished = || Error::Invalid("a part of the load is not finished".into());
        let shared = Arc::get_mut(&mut self.shared).ok_or_else(unfinished)?;
        let space = shared.table(id)?.clone();
        shared.tables.remove(&id);
        let sorted = shared.sorted.get_mut();
        let sorted = sorted.unwrap_or_else(PoisonError::into_inner);
        drop((sorted.streams.remove(&id), sorted.tables.remove(&id)));
        shared.tally.forget(id);
        let mut unsynced = self.catalog.unsynced().to_vec();
        unsynced.push(UnsyncedTable {
            name: space.table.name.clone(),
            reason,
        });
        let tables = self.catalog.tables().iter();
        let others = tables.filter(|table| table.id != id).cloned().collect();
        self.catalog = Catalog::of(others, unsynced);
        Ok(self.db.delete_keyspace(space.keyspace.clone())?)
    }

    /// Merges what was loaded into the tables, and makes it a complete replica at `version`.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two rows of a table have one key; [`Error::Invalid`] while a
    /// [`TableLoader`] is not finished, or when one was dropped before it was.
    pub fn finish(mut self, identity: ReplicaIdentity, version: Version) -> Result<Replica> {
        self.shared.check_complete()?;
        self.ingest()?;
        let next_rows = self.shared.next_rows();
        let range = BucketRange {
            number: FIRST_BUCKET,
            from: version,
            to: None,
        };
        let stored = self.shared.tables.values().map(|space| &space.stored);
        let tables: Vec<_> = stored
            .map(|stored| TableRecord {
                since: version,
                id: stored.table.id,
                table: Some((**stored).clone()),
            })
            .collect();
        let meta = Meta {
            under_way: None,
            watermark: version,
            horizon: version,
            loaded_at: version,
            tables,
            unsynced: self.catalog.unsynced().to_vec(),
            next_space: self.next_space,
            garbage: Vec::new(),
            identity,
            buckets: vec![range],
            next_rows,
            next_indexes: HashMap::new(),
        };
        let keyspace = open_keyspace(&self.db, META)?;
        let mut batch = self.db.batch();
        let mut writer = MetaWriter {
            meta: &keyspace,
            batch: &mut batch,
        };
        writer.all(&meta)?;
        for table in self.catalog.tables() {
            writer.row_count(table.id, self.shared.numbers(table.id).rows())?;
        }
        // INVARIANT: the watermark makes the replica complete, so it is written when everything
        // else is on disk; the ingestions have synced their files.
        writer.watermark(version)?;
        fail_point!("load-before-complete");
        batch.durability(Some(PersistMode::SyncAll)).commit()?;
        fail_point!("load-after-complete");
        let runs = self.shared.runs.path();
        std::fs::remove_dir_all(runs).map_err(|error| Error::io(runs, error))?;
        Replica::assemble(self.directory, self.db, &self.options, meta)
    }

    /// Ingests everything.
    fn ingest(&mut self) -> Result<()> {
        self.shared.finish_streams()?;
        let ranges = self.shared.take_ranges();
        ingest_all(&self.shared, ranges, self.options.worker_threads)?;
        self.shared.tally.check()?;
        self.opening.wait()
    }
}

/// Creates the keyspaces of a replica that are not those of its tables. The engine syncs a lot for
/// each, which it can do while rows come. None of them makes a replica of it: a load counts when
/// its watermark is written.
struct Opening(Option<JoinHandle<Result<()>>>);

impl Opening {
    fn begin(db: Database, directory: &Path) -> Result<Self> {
        let open = move || {
            [META, GROUPS, &bucket_keyspace(FIRST_BUCKET)]
                .into_iter()
                .try_for_each(|name| open_keyspace(&db, name).map(drop))
        };
        let thread = std::thread::Builder::new().name("load-open".into());
        let thread = thread.spawn(open);
        let thread = thread.map_err(|error| Error::io(directory, error))?;
        Ok(Self(Some(thread)))
    }

    fn wait(&mut self) -> Result<()> {
        let panicked = |_| Error::Corrupt("the engine refused the load".into());
        match self.0.take() {
            Some(thread) => thread.join().map_err(panicked).flatten(),
            None => Ok(()),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // INVARIANT: nothing writes to the directory when the load is gone.
        if let Err(error) = self.wait() {
            tracing::debug!(%error, "a load that is given up could not open its files");
        }
    }
}
