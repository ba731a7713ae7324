//! Records about the replica as a whole.

use std::collections::HashMap;
use std::path::Path;

use fjall::{Keyspace, OwnedWriteBatch, Readable, Snapshot};
use kelvin_protocol::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::era::TableRecord;
use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::{IndexId, RowId, TableId, UnsyncedTable};

const WATERMARK: &str = "watermark";
/// The version of a transaction of which parts may be written.
const UNDER_WAY: &str = "under-way";
const HORIZON: &str = "horizon";
const LOADED_AT: &str = "loaded-at";
const UNSYNCED: &str = "unsynced";
/// Followed by the number of a table and the version since which it has this form.
const TABLE: &str = "table/";
/// Followed by the number of a space and that of an index whose entries are to be removed.
const GARBAGE: &str = "garbage/";
const NEXT_SPACE: &str = "next-space";
const IDENTITY: &str = "identity";
const BUCKETS: &str = "buckets";
/// Followed by the number of a table.
const NEXT_ROW: &str = "next-row/";
/// Followed by the number of a table.
const NEXT_INDEX: &str = "next-index/";
/// Followed by the number of a table.
const ROWS: &str = "rows/";

/// Which upstream a replica was copied from. The caller writes it at the end of the load and
/// compares it after every opening.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaIdentity {
    /// Version of the initial copy.
    pub replica_version: Version,
    /// Lineage of the upstream, as in cookies.
    pub epoch: u32,
    /// `system_identifier` of the upstream cluster.
    pub system_identifier: String,
    /// Replication slot.
    pub slot: String,
    /// Publications that are followed.
    pub publications: Vec<String>,
    /// Whatever else the caller wants to find again.
    #[serde(default)]
    pub details: HashMap<String, String>,
}

/// A part of the history: everything that ended in `(from, to]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketRange {
    pub(crate) number: u64,
    pub(crate) from: Version,
    /// `None` for the one that is written to.
    pub(crate) to: Option<Version>,
}

/// Everything [`read`] finds.
pub(crate) struct Meta {
    pub(crate) watermark: Version,
    /// The version of a transaction that was not finished.
    pub(crate) under_way: Option<Version>,
    pub(crate) horizon: Version,
    pub(crate) loaded_at: Version,
    pub(crate) tables: Vec<TableRecord>,
    pub(crate) unsynced: Vec<UnsyncedTable>,
    pub(crate) identity: ReplicaIdentity,
    pub(crate) buckets: Vec<BucketRange>,
    pub(crate) next_rows: HashMap<TableId, RowId>,
    pub(crate) next_indexes: HashMap<TableId, u16>,
    pub(crate) next_space: u32,
    pub(crate) garbage: Vec<Garbage>,
}

/// Entries of an index that is no more. They go when no version that can be read has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbage {
    pub(crate) space: u32,
    pub(crate) index: IndexId,
    /// The first version without it; zero for one that was never finished.
    pub(crate) since: Version,
}

/// Reads all of it.
///
/// # Errors
/// [`Error::Missing`] where the load never finished.
pub(crate) fn read(path: &Path, snapshot: &Snapshot, meta: &Keyspace) -> Result<Meta> {
    let reader = Reader { snapshot, meta };
    // INVARIANT: the watermark is written by the last batch of the load, so that a load that was
    // broken off counts as no replica at all.
    let Some(watermark) = reader.find(WATERMARK)? else {
        return Err(Error::Missing(path.into()));
    };
    Ok(Meta {
        watermark,
        under_way: reader.find(UNDER_WAY)?,
        horizon: reader.get(HORIZON)?,
        loaded_at: reader.get(LOADED_AT)?,
        tables: reader.tables()?,
        unsynced: reader.get(UNSYNCED)?,
        next_space: reader.get(NEXT_SPACE)?,
        garbage: reader.garbage()?,
        identity: reader.get(IDENTITY)?,
        buckets: reader.get(BUCKETS)?,
        next_rows: reader.by_table(NEXT_ROW)?,
        next_indexes: reader.by_table(NEXT_INDEX)?,
    })
}

/// The row counts on record.
pub(crate) fn row_counts(snapshot: &Snapshot, meta: &Keyspace) -> Result<HashMap<TableId, u64>> {
    Reader { snapshot, meta }.by_table(ROWS)
}

/// The version of a transaction of which parts may be written.
pub(crate) fn under_way(snapshot: &Snapshot, meta: &Keyspace) -> Result<Option<Version>> {
    Reader { snapshot, meta }.find(UNDER_WAY)
}

struct Reader<'a> {
    snapshot: &'a Snapshot,
    meta: &'a Keyspace,
}

impl Reader<'_> {
    fn find<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.snapshot.get(self.meta, name)? else {
            return Ok(None);
        };
        parse(name, &bytes).map(Some)
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.find(name)?
            .ok_or_else(|| Error::Corrupt(format!("its record {name:?} is missing")))
    }

    fn by_table<T: DeserializeOwned>(&self, prefix: &str) -> Result<HashMap<TableId, T>> {
        let records = self.all(prefix, |name| Some(TableId(name.parse().ok()?)))?;
        Ok(records.into_iter().collect())
    }

    fn tables(&self) -> Result<Vec<TableRecord>> {
        let records = self.all(TABLE, |name| {
            let (id, since) = name.split_once('/')?;
            Some((TableId(id.parse().ok()?), since.parse().ok()?))
        })?;
        let record = |((id, since), table)| TableRecord { since, id, table };
        Ok(records.into_iter().map(record).collect())
    }

    fn garbage(&self) -> Result<Vec<Garbage>> {
        let records = self.all(GARBAGE, |name| {
            let (space, index) = name.split_once('/')?;
            Some((space.parse().ok()?, IndexId(index.parse().ok()?)))
        })?;
        let garbage = |((space, index), since)| Garbage {
            space,
            index,
            since,
        };
        Ok(records.into_iter().map(garbage).collect())
    }

    /// Every record whose name starts with `prefix`, with what `parse_name` makes of the rest.
    fn all<N, T: DeserializeOwned>(
        &self,
        prefix: &str,
        parse_name: impl Fn(&str) -> Option<N>,
    ) -> Result<Vec<(N, T)>> {
        let mut found = Vec::new();
        for record in self.snapshot.prefix(self.meta, prefix) {
            let (name, bytes) = record.into_inner()?;
            let name = std::str::from_utf8(&name)
                .ok()
                .and_then(|name| parse_name(name.strip_prefix(prefix)?))
                .ok_or_else(|| Error::Corrupt(format!("a record {prefix:?} with an odd name")))?;
            found.push((name, parse(prefix, &bytes)?));
        }
        Ok(found)
    }
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Corrupt(format!("its record {name:?} is unreadable: {error}")))
}

/// Writes records about the replica into a batch.
pub(crate) struct MetaWriter<'a> {
    pub(crate) meta: &'a Keyspace,
    pub(crate) batch: &'a mut OwnedWriteBatch,
}

impl MetaWriter<'_> {
    fn put<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::Invalid(format!("{name:?} cannot be encoded: {error}")))?;
        self.batch.insert(self.meta, name, bytes);
        Ok(())
    }

    /// All of it but the watermark, for a replica that is new.
    pub(crate) fn all(&mut self, meta: &Meta) -> Result<()> {
        for form in &meta.tables {
            self.table(form.id, form.since, form.table.as_ref())?;
        }
        self.unsynced(&meta.unsynced)?;
        self.next_space(meta.next_space)?;
        self.identity(&meta.identity)?;
        self.horizon(meta.horizon)?;
        self.loaded_at(meta.loaded_at)?;
        self.buckets(&meta.buckets)?;
        for (table, next) in &meta.next_rows {
            self.next_row(*table, *next)?;
        }
        Ok(())
    }

    pub(crate) fn watermark(&mut self, version: Version) -> Result<()> {
        self.put(WATERMARK, &version)
    }

    /// A transaction is about to be written in parts.
    pub(crate) fn under_way(&mut self, version: Version) -> Result<()> {
        self.put(UNDER_WAY, &version)
    }

    /// It is there as a whole, or no more at all.
    pub(crate) fn forget_under_way(&mut self) {
        self.batch.remove(self.meta, UNDER_WAY);
    }

    pub(crate) fn horizon(&mut self, version: Version) -> Result<()> {
        self.put(HORIZON, &version)
    }

    pub(crate) fn loaded_at(&mut self, version: Version) -> Result<()> {
        self.put(LOADED_AT, &version)
    }

    pub(crate) fn identity(&mut self, identity: &ReplicaIdentity) -> Result<()> {
        self.put(IDENTITY, identity)
    }

    pub(crate) fn buckets(&mut self, buckets: &[BucketRange]) -> Result<()> {
        self.put(BUCKETS, &buckets)
    }

    pub(crate) fn unsynced(&mut self, tables: &[UnsyncedTable]) -> Result<()> {
        self.put(UNSYNCED, &tables)
    }

    /// The form of a table since a version; `None` where it was dropped then.
    pub(crate) fn table(
        &mut self,
        id: TableId,
        since: Version,
        table: Option<&StoredTable>,
    ) -> Result<()> {
        self.put(&table_name(id, since), &table)
    }

    /// Forgets a form that no version which can be read has.
    pub(crate) fn forget_table(&mut self, id: TableId, since: Version) {
        self.batch.remove(self.meta, table_name(id, since));
    }

    pub(crate) fn garbage(&mut self, garbage: Garbage) -> Result<()> {
        self.put(&garbage_name(garbage), &garbage.since)
    }

    pub(crate) fn forget_garbage(&mut self, garbage: Garbage) {
        self.batch.remove(self.meta, garbage_name(garbage));
    }

    pub(crate) fn next_space(&mut self, next: u32) -> Result<()> {
        self.put(NEXT_SPACE, &next)
    }

    pub(crate) fn next_row(&mut self, table: TableId, row: RowId) -> Result<()> {
        self.put(&format!("{NEXT_ROW}{}", table.0), &row)
    }

    pub(crate) fn next_index(&mut self, table: TableId, index: u16) -> Result<()> {
        self.put(&format!("{NEXT_INDEX}{}", table.0), &index)
    }

    pub(crate) fn row_count(&mut self, table: TableId, rows: u64) -> Result<()> {
        self.put(&format!("{ROWS}{}", table.0), &rows)
    }
}

fn table_name(id: TableId, since: Version) -> String {
    format!("{TABLE}{}/{since}", id.0)
}

fn garbage_name(garbage: Garbage) -> String {
    format!("{GARBAGE}{}/{}", garbage.space, garbage.index.0)
}
