//! Loading one table beside a live replica.
//!
//! The rows go into a keyspace of their own that nothing on disk speaks of, while commits go on.
//! One transaction then makes it a table, with all of its rows at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fail::fail_point;
use kelvin_protocol::Version;

use super::ingest::ingest_all;
use super::{Shared, TableLoader};
use crate::era::Spaces;
use crate::error::Result;
use crate::evolution::StoredTable;
use crate::sorted_ingest::Folder;
use crate::table_space::TableSpace;
use crate::{Replica, RowId, Table};

/// A table that is being loaded. Dropping it removes what was loaded.
pub struct TableLoad {
    shared: Arc<Shared>,
    fresh: Fresh,
    _folder: Folder,
}

/// A table that is loaded, with its rows: see
/// [`SchemaChange::LoadTable`](crate::SchemaChange::LoadTable). The rows go with the last handle
/// that is dropped without having been applied.
#[derive(Clone)]
pub struct LoadedTable {
    loaded: Arc<Loaded>,
}

struct Loaded {
    fresh: Fresh,
    rows: RowId,
    version: Version,
}

/// The keyspace that is loaded into. It is dropped unless it is kept.
struct Fresh {
    replica: Replica,
    space: Arc<TableSpace>,
    kept: AtomicBool,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            return;
        }
        let keyspace = self.space.keyspace.clone();
        // What is left is an orphan, which the next opening removes.
        if let Err(error) = self.replica.inner.gate.drop_keyspace(keyspace) {
            tracing::debug!(%error, "what was loaded cannot be removed now");
        }
    }
}

impl std::fmt::Debug for TableLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let table = &self.fresh.space.table.name;
        f.debug_struct("TableLoad")
            .field("table", table)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LoadedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedTable")
            .field("table", &self.table().name)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Begins to load a table beside the replica, with rows as of `version`. It is given a number
    /// of its own, in place of the one it has. Waits for a commit that is under way; not to be
    /// called from an asynchronous task.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a table that contradicts itself; else what
    /// creating files brings up.
    pub fn load_table(&self, table: Table, version: Version) -> Result<TableLoad> {
        let (id, number) = {
            let mut writer = self.inner.writer()?;
            (writer.take_table()?, writer.take_space()?)
        };
        let stored = StoredTable::new(Table { id, ..table }, number);
        let options = &self.inner.options;
        let space = Arc::new(Spaces::new(&self.inner.db).table(stored)?);
        let fresh = Fresh {
            replica: self.clone(),
            space: space.clone(),
            kept: AtomicBool::new(false),
        };
        let folder = self.inner.scratch.folder()?;
        let tables = HashMap::from([(id, space)]);
        let shared = Shared::new(tables, folder.path().into(), options, version, false)?;
        Ok(TableLoad {
            shared: Arc::new(shared),
            fresh,
            _folder: folder,
        })
    }
}

impl TableLoad {
    /// The table, with its number.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.fresh.space.table
    }

    /// A loader for a part of the rows.
    #[must_use]
    pub fn part(&self) -> TableLoader {
        TableLoader::new(self.shared.clone(), self.fresh.space.clone())
    }

    /// Merges what was loaded. Takes time in proportion to the table.
    ///
    /// # Errors
    /// As [`Loader::finish`](crate::Loader::finish).
    pub fn finish(self) -> Result<LoadedTable> {
        self.shared.check_complete()?;
        let ranges = self.shared.take_ranges();
        let threads = self.fresh.replica.inner.options.worker_threads;
        ingest_all(&self.shared, ranges, threads)?;
        self.shared.tally.check()?;
        let rows = self.shared.next_rows();
        fail_point!("load-table-after-ingest");
        Ok(LoadedTable {
            loaded: Arc::new(Loaded {
                rows: rows.get(&self.table().id).copied().unwrap_or_default(),
                version: self.shared.version,
                fresh: self.fresh,
            }),
        })
    }
}

impl LoadedTable {
    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.loaded.fresh.space.table
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> RowId {
        self.loaded.rows
    }

    pub(crate) fn version(&self) -> Version {
        self.loaded.version
    }

    pub(crate) fn space(&self) -> &Arc<TableSpace> {
        &self.loaded.fresh.space
    }

    /// Whether it was loaded for this replica.
    pub(crate) fn is_of(&self, replica: &Replica) -> bool {
        Arc::ptr_eq(&self.loaded.fresh.replica.inner, &replica.inner)
    }

    /// Leaves the keyspace where it is when the last handle goes.
    pub(crate) fn keep(&self) {
        self.loaded.fresh.kept.store(true, Ordering::Release);
    }
}
