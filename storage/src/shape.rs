//! How the tables of the catalog map to keyspaces and keys at one time.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use kelvin_protocol::{Direction, Value, Version};

use crate::error::{Error, Result};
use crate::key::{IndexLimit, MAX_PRIMARY_BYTES, encode, encode_all};
use crate::layout::{SPACE_BYTES, bucket_keyspace, put_space, space_key, table_keyspace};
use crate::meta::BucketRange;
use crate::{Catalog, Index, IndexId, ReplicaOptions, Table, TableId};

/// Everything a view needs besides a snapshot. Never changes; a new one takes its place.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tables: HashMap<TableId, Arc<TableSpace>>,
    /// Parts of the history, oldest first. The last one is written to.
    pub(crate) buckets: Vec<Bucket>,
    /// Version of rows that came with the initial copy.
    pub(crate) loaded_at: Version,
}

/// One part of the history and where it is kept.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) range: BucketRange,
    pub(crate) keyspace: Keyspace,
}

/// One table and where it is kept.
pub(crate) struct TableSpace {
    pub(crate) table: Arc<Table>,
    pub(crate) keyspace: Keyspace,
    pub(crate) indexes: Vec<IndexSpace>,
}

/// How entries of one index look.
#[derive(Clone, Debug)]
pub(crate) struct IndexSpace {
    pub(crate) id: IndexId,
    pub(crate) columns: Vec<(usize, Direction)>,
    pub(crate) limit: IndexLimit,
}

impl Shape {
    /// Opens (or creates) the keyspaces of a catalog.
    pub(crate) fn open(
        db: &Database,
        options: &ReplicaOptions,
        catalog: Arc<Catalog>,
        ranges: &[BucketRange],
        loaded_at: Version,
    ) -> Result<Self> {
        let tables = catalog
            .tables()
            .iter()
            .map(|table| Ok((table.id, Arc::new(TableSpace::open(db, options, table)?))))
            .collect::<Result<_>>()?;
        let buckets = ranges
            .iter()
            .map(|range| Bucket::open(db, options, *range))
            .collect::<Result<_>>()?;
        Ok(Self {
            catalog,
            tables,
            buckets,
            loaded_at,
        })
    }

    /// The table with this number.
    pub(crate) fn table(&self, id: TableId) -> Result<&Arc<TableSpace>> {
        self.tables
            .get(&id)
            .ok_or_else(|| Error::Invalid(format!("there is no table {}", id.0)))
    }

    /// The part of the history that is written to.
    pub(crate) fn active_bucket(&self) -> Result<&Bucket> {
        self.buckets
            .last()
            .ok_or_else(|| Error::Corrupt("it has no history".into()))
    }

    /// The extents of all parts of the history.
    pub(crate) fn ranges(&self) -> Vec<BucketRange> {
        self.buckets.iter().map(|bucket| bucket.range).collect()
    }
}

impl Bucket {
    /// Opens (or creates) the keyspace of one part of the history.
    pub(crate) fn open(
        db: &Database,
        options: &ReplicaOptions,
        range: BucketRange,
    ) -> Result<Self> {
        Ok(Self {
            range,
            keyspace: open_keyspace(db, options, &bucket_keyspace(range.number))?,
        })
    }
}

impl TableSpace {
    fn open(db: &Database, options: &ReplicaOptions, table: &Arc<Table>) -> Result<Self> {
        let keyspace = open_keyspace(db, options, &table_keyspace(table.id))?;
        Self::new(table.clone(), keyspace)
    }

    /// A table in a keyspace.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a table whose key or indexes name columns it does not have.
    pub(crate) fn new(table: Arc<Table>, keyspace: Keyspace) -> Result<Self> {
        let indexes: Vec<_> = table.indexes.iter().map(IndexSpace::new).collect();
        let mut columns = table.key.iter().copied().chain(
            table
                .indexes
                .iter()
                .flat_map(|index| index.columns.iter().map(|(at, _)| *at)),
        );
        let out_of_range = columns.any(|at| at >= table.columns.len());
        if out_of_range || indexes.iter().any(|index| index.id == IndexId::PRIMARY) {
            return Err(Error::Invalid(format!(
                "table {:?} contradicts itself",
                table.name
            )));
        }
        Ok(Self {
            table,
            keyspace,
            indexes,
        })
    }

    /// The index with this number.
    pub(crate) fn index(&self, id: IndexId) -> Result<&IndexSpace> {
        self.indexes
            .iter()
            .find(|index| index.id == id)
            .ok_or_else(|| {
                Error::Invalid(format!("table {:?} has no index {}", self.table.name, id.0))
            })
    }

    /// Key in the table of the row with these values.
    pub(crate) fn row_key(&self, values: &[Value]) -> Result<Vec<u8>> {
        let mut key = Vec::with_capacity(48);
        self.put_row_key(values, &mut key)?;
        Ok(key)
    }

    /// Puts the key in the table of the row with these values into an empty vector.
    pub(crate) fn put_row_key(&self, values: &[Value], key: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.table.columns.len() {
            return Err(Error::Invalid(format!(
                "a row of table {:?} has {} columns, not {}",
                self.table.name,
                self.table.columns.len(),
                values.len()
            )));
        }
        put_space(IndexId::PRIMARY, key);
        encode_all(self.table.key.iter().filter_map(|at| values.get(*at)), key);
        self.check_length(key)
    }

    /// Key in the table of the row with these values of the primary key.
    pub(crate) fn primary_key(&self, values: &[Value]) -> Result<Vec<u8>> {
        if values.len() != self.table.key.len() {
            return Err(Error::Invalid(format!(
                "the key of table {:?} has {} columns, not {}",
                self.table.name,
                self.table.key.len(),
                values.len()
            )));
        }
        let mut key = space_key(IndexId::PRIMARY);
        encode_all(values, &mut key);
        self.check_length(&key)?;
        Ok(key)
    }

    fn check_length(&self, key: &[u8]) -> Result<()> {
        let bytes = key.len() - SPACE_BYTES;
        if bytes > MAX_PRIMARY_BYTES {
            return Err(Error::KeyTooLong {
                table: self.table.name.clone(),
                bytes,
                max: MAX_PRIMARY_BYTES,
            });
        }
        Ok(())
    }
}

impl IndexSpace {
    /// How entries of `index` look.
    pub(crate) fn new(index: &Index) -> Self {
        Self {
            id: index.id,
            limit: IndexLimit::of(index.columns.len()),
            columns: index.columns.clone(),
        }
    }

    /// Key of the entry for a row, and the offset of the primary key in it. `row_key` is the row's
    /// key in the table.
    pub(crate) fn entry_key(&self, row: &[Value], row_key: &[u8]) -> (Vec<u8>, usize) {
        let mut key = Vec::with_capacity(48);
        let offset = self.put_entry_key(row, row_key, &mut key);
        (key, offset)
    }

    /// Puts the key of the entry for a row into an empty vector. Returns the offset of the primary
    /// key in it.
    pub(crate) fn put_entry_key(&self, row: &[Value], row_key: &[u8], key: &mut Vec<u8>) -> usize {
        put_space(self.id, key);
        for (at, direction) in &self.columns {
            let value = row.get(*at).unwrap_or(&Value::Null);
            self.limit.encode(value, *direction, key);
        }
        let offset = key.len();
        key.extend_from_slice(row_key.get(SPACE_BYTES..).unwrap_or_default());
        offset
    }

    /// Appends values for the columns from `first` on: those of the index, then those of the key.
    pub(crate) fn encode_from(&self, first: usize, values: &[Value], out: &mut Vec<u8>) {
        for (at, value) in values.iter().enumerate() {
            match self.columns.get(first + at) {
                Some((_, direction)) => self.limit.encode(value, *direction, out),
                None => encode(value, out),
            }
        }
    }
}

/// Opens a keyspace, creating it where it is not there.
pub(crate) fn open_keyspace(
    db: &Database,
    options: &ReplicaOptions,
    name: &str,
) -> Result<Keyspace> {
    let memtable = options.memtable_bytes;
    Ok(db.keyspace(name, || {
        KeyspaceCreateOptions::default().max_memtable_size(memtable)
    })?)
}
