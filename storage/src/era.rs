//! The schema over a range of versions.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::{Database, Keyspace};
use kelvin_protocol::Version;

use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::layout::table_keyspace;
use crate::shape::{open_keyspace, recorded_keyspace};
use crate::table_space::TableSpace;
use crate::{Catalog, TableId, UnsyncedTable};

/// The tables as they were from one version on, until the next era began.
pub(crate) struct Era {
    pub(crate) since: Version,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tables: HashMap<TableId, Arc<TableSpace>>,
    by_space: HashMap<u32, TableId>,
}

impl Era {
    /// An era of these tables.
    pub(crate) fn new(
        since: Version,
        tables: HashMap<TableId, Arc<TableSpace>>,
        unsynced: Vec<UnsyncedTable>,
    ) -> Self {
        let mut listed: Vec<_> = tables.values().map(|space| space.table.clone()).collect();
        listed.sort_by_key(|table| table.id);
        let by_space = tables.iter().map(|(id, space)| (space.number(), *id));
        Self {
            since,
            catalog: Arc::new(Catalog::of(listed, unsynced)),
            by_space: by_space.collect(),
            tables,
        }
    }

    /// The same era with another form of a table.
    pub(crate) fn with(&self, form: Arc<TableSpace>) -> Self {
        let mut tables = self.tables.clone();
        tables.insert(form.table.id, form);
        Self::new(self.since, tables, self.catalog.unsynced().to_vec())
    }

    /// Tables that are in one of two eras only, or whose rows read differently in the other.
    pub(crate) fn altered_since(&self, before: &Self) -> Vec<TableId> {
        let same = |id: &TableId| match (before.tables.get(id), self.tables.get(id)) {
            (Some(was), Some(is)) => Arc::ptr_eq(was, is) || is.stored.reads_as(&was.stored),
            _ => false,
        };
        let gone = before
            .tables
            .keys()
            .filter(|id| !self.tables.contains_key(id));
        let mut altered: Vec<_> = self.tables.keys().chain(gone).copied().collect();
        altered.retain(|id| !same(id));
        altered.sort_unstable();
        altered
    }

    /// The table with this number.
    pub(crate) fn table(&self, id: TableId) -> Result<&Arc<TableSpace>> {
        self.tables
            .get(&id)
            .ok_or_else(|| Error::Invalid(format!("there is no table {}", id.0)))
    }

    /// The table that is kept in this keyspace.
    pub(crate) fn space(&self, number: u32) -> Option<&Arc<TableSpace>> {
        self.tables.get(self.by_space.get(&number)?)
    }
}

/// The next number of a space, which is not given again.
pub(crate) fn take_space(next: &mut u32) -> Result<u32> {
    let number = *next;
    let exhausted = || Error::Invalid("the numbers of spaces are used up".into());
    *next = number.checked_add(1).ok_or_else(exhausted)?;
    Ok(number)
}

/// What the catalog on disk says of one table from one version on.
pub(crate) struct TableRecord {
    pub(crate) since: Version,
    pub(crate) id: TableId,
    /// `None` where it was dropped.
    pub(crate) table: Option<StoredTable>,
}

/// Opens the keyspaces of tables while eras are put together, each once.
pub(crate) struct Spaces<'a> {
    db: &'a Database,
    /// Whether keyspaces that are not there are made; else all of them have to be there.
    made: bool,
    opened: HashMap<u32, Keyspace>,
}

impl<'a> Spaces<'a> {
    /// Makes the keyspaces of tables that are new.
    pub(crate) fn new(db: &'a Database) -> Self {
        Self {
            db,
            made: true,
            opened: HashMap::new(),
        }
    }

    /// Finds the keyspaces of tables that are on record.
    pub(crate) fn recorded(db: &'a Database) -> Self {
        Self {
            db,
            made: false,
            opened: HashMap::new(),
        }
    }

    /// The table in its keyspace.
    pub(crate) fn table(&mut self, stored: StoredTable) -> Result<TableSpace> {
        let number = stored.space;
        let keyspace = match self.opened.get(&number) {
            Some(keyspace) => keyspace.clone(),
            None => {
                let name = table_keyspace(number);
                let keyspace = if self.made {
                    open_keyspace(self.db, &name)?
                } else {
                    recorded_keyspace(self.db, &name)?
                };
                self.opened.insert(number, keyspace.clone());
                keyspace
            }
        };
        TableSpace::new(stored, keyspace)
    }

    /// The eras that these records tell of, oldest first.
    pub(crate) fn eras(
        &mut self,
        mut records: Vec<TableRecord>,
        unsynced: &[UnsyncedTable],
        horizon: Version,
    ) -> Result<Vec<Arc<Era>>> {
        records.sort_by_key(|record| (record.since, record.id));
        let mut eras: Vec<Arc<Era>> = Vec::new();
        let mut tables = HashMap::new();
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            let since = record.since;
            match record.table {
                Some(stored) => tables.insert(record.id, Arc::new(self.table(stored)?)),
                None => tables.remove(&record.id),
            };
            let last_of_era = records.peek().is_none_or(|next| next.since > since);
            let readable = records.peek().is_none_or(|next| next.since > horizon);
            if last_of_era && readable {
                eras.push(Arc::new(Era::new(since, tables.clone(), unsynced.to_vec())));
            }
        }
        if eras.is_empty() {
            eras.push(Arc::new(Era::new(horizon, tables, unsynced.to_vec())));
        }
        Ok(eras)
    }
}
