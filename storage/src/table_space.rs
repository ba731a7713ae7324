//! One table as it is kept: keys, entries and records.

use std::sync::Arc;

use fjall::{Keyspace, Slice};
use kelvin_protocol::{Direction, Value, ValueRef, Version};

use crate::archive::{Record, RowEncoder, RowHead, decode_row};
use crate::error::{Error, Result};
use crate::evolution::{Reading, StoredTable};
use crate::fences::Fences;
use crate::key::{IndexLimit, MAX_PRIMARY_BYTES, encode, encode_all};
use crate::layout::{SPACE_BYTES, put_space, space_key};
use crate::neighbours::Nearness;
use crate::young_runs::YoungRuns;
use crate::{Index, IndexId, Row, RowId, Table};

/// One form of one table and where it is kept.
pub(crate) struct TableSpace {
    pub(crate) stored: Arc<StoredTable>,
    pub(crate) table: Arc<Table>,
    pub(crate) keyspace: Keyspace,
    pub(crate) indexes: Vec<IndexSpace>,
    pub(crate) young: Arc<YoungRuns>,
    pub(crate) fences: Fences,
    /// How records of each layout are read.
    readings: Vec<Reading>,
    /// The layout records are written with.
    layout: u16,
}

/// How entries of one index look.
#[derive(Clone, Debug)]
pub(crate) struct IndexSpace {
    pub(crate) id: IndexId,
    pub(crate) columns: Vec<(usize, Direction)>,
    pub(crate) limit: IndexLimit,
    pub(crate) nearness: Arc<Nearness>,
}

impl TableSpace {
    /// A table in a keyspace.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a table whose key or indexes name columns it does not have.
    pub(crate) fn new(stored: StoredTable, keyspace: Keyspace) -> Result<Self> {
        let table = &stored.table;
        let indexes: Vec<_> = table.indexes.iter().map(IndexSpace::new).collect();
        let indexed = table.indexes.iter().flat_map(|index| &index.columns);
        let mut columns = table.key.iter().copied().chain(indexed.map(|(at, _)| *at));
        let out_of_range = columns.any(|at| at >= table.columns.len());
        if out_of_range || indexes.iter().any(|index| index.id == IndexId::PRIMARY) {
            return Err(Error::Invalid(format!(
                "table {:?} contradicts itself",
                table.name
            )));
        }
        Ok(Self {
            readings: stored.readings(),
            layout: stored.layout()?,
            table: Arc::new(stored.table.clone()),
            stored: Arc::new(stored),
            keyspace,
            indexes,
            young: Arc::default(),
            fences: Fences::default(),
        })
    }

    /// Names the keyspace and the keys in the history.
    pub(crate) fn number(&self) -> u32 {
        self.stored.space
    }

    /// The row in these bytes; `loaded_at` is the version of rows of the initial copy.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for bytes that are no row of this table.
    #[inline]
    pub(crate) fn read(&self, bytes: Slice, loaded_at: Version) -> Result<Row> {
        decode_row(bytes, &self.readings, loaded_at)
    }

    /// The row with these values, as it is stored; `older` are its entries that stood before it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that cannot be encoded.
    pub(crate) fn write<'v>(
        &self,
        encoder: &mut RowEncoder,
        version: Version,
        id: RowId,
        older: &[(IndexId, Version)],
        values: impl Iterator<Item = ValueRef<'v>>,
    ) -> Result<Row> {
        let head = RowHead {
            version,
            id,
            layout: self.layout,
            older,
        };
        let bytes = encoder.encode(head, values)?;
        Ok(Row::new(version, id, Record::read(bytes.into())?, None))
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
        self.check_width(values.len())?;
        self.row_key_of(|at| values.get(at).map_or(ValueRef::Null, Value::as_ref))
    }

    /// # Errors
    /// [`Error::Invalid`] where a row of so many values has not one for each column.
    pub(crate) fn check_width(&self, values: usize) -> Result<()> {
        let columns = self.table.columns.len();
        if values != columns {
            return Err(Error::Invalid(format!(
                "a row of table {:?} has {columns} columns, not {values}",
                self.table.name
            )));
        }
        Ok(())
    }

    /// Key in the table of the row whose values `value_at` gives.
    pub(crate) fn row_key_of<'v>(
        &self,
        value_at: impl Fn(usize) -> ValueRef<'v>,
    ) -> Result<Vec<u8>> {
        let mut key = Vec::with_capacity(48);
        self.put_row_key(value_at, &mut key)?;
        Ok(key)
    }

    /// Puts the key in the table of the row whose values `value_at` gives into an empty vector.
    pub(crate) fn put_row_key<'v>(
        &self,
        value_at: impl Fn(usize) -> ValueRef<'v>,
        key: &mut Vec<u8>,
    ) -> Result<()> {
        put_space(IndexId::PRIMARY, key);
        encode_all(self.table.key.iter().map(|at| value_at(*at)), key);
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

    /// The key of the row with these values, unless it is so long that no row has it.
    pub(crate) fn key_if_any(&self, values: &[Value]) -> Result<Option<Vec<u8>>> {
        match self.primary_key(values) {
            Ok(key) => Ok(Some(key)),
            Err(Error::KeyTooLong { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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
            nearness: Arc::default(),
        }
    }

    /// Whether a row with other values has the same entry.
    pub(crate) fn agrees<'v>(&self, row: &Row, value_at: impl Fn(usize) -> ValueRef<'v>) -> bool {
        let mut columns = self.columns.iter();
        columns.all(|(at, _)| row.value(*at) == value_at(*at))
    }

    /// Key of the entry for a row, and the offset of the primary key in it. `value_at` gives the
    /// row's values, `row_key` is its key in the table.
    pub(crate) fn entry_key<'v>(
        &self,
        value_at: impl Fn(usize) -> ValueRef<'v>,
        row_key: &[u8],
    ) -> (Vec<u8>, usize) {
        let mut key = Vec::with_capacity(48);
        let offset = self.put_entry_key(value_at, row_key, &mut key);
        (key, offset)
    }

    /// Puts the key of the entry for a row into an empty vector. Returns the offset of the primary
    /// key in it.
    pub(crate) fn put_entry_key<'v>(
        &self,
        value_at: impl Fn(usize) -> ValueRef<'v>,
        row_key: &[u8],
        key: &mut Vec<u8>,
    ) -> usize {
        put_space(self.id, key);
        for (at, direction) in &self.columns {
            self.limit.encode(value_at(*at), *direction, key);
        }
        let offset = key.len();
        key.extend_from_slice(row_key.get(SPACE_BYTES..).unwrap_or_default());
        offset
    }

    /// Appends values for the columns from `first` on: those of the index, then those of the key.
    pub(crate) fn encode_from(&self, first: usize, values: &[Value], out: &mut Vec<u8>) {
        for (at, value) in values.iter().enumerate() {
            match self.columns.get(first + at) {
                Some((_, direction)) => self.limit.encode(value.as_ref(), *direction, out),
                None => encode(value.as_ref(), out),
            }
        }
    }
}
