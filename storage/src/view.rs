//! Reads at one version.

use std::sync::Arc;

use fjall::{Readable, Slice, Snapshot};
use kelvin_protocol::{Value, Version};

use crate::archive::since;
use crate::era::Era;
use crate::error::{Error, Result};
use crate::past::ended_at;
use crate::scan::{RowScan, Scan, primary_key};
use crate::shape::Shape;
use crate::table_space::TableSpace;
use crate::{Catalog, IndexId, Row, TableId};

/// The database exactly as it was at one version. Cloning is cheap.
///
/// It pins what it reads, so let go of it when the work it was made for is done.
#[derive(Clone)]
pub struct View {
    inner: Arc<ViewInner>,
}

pub(crate) struct ViewInner {
    pub(crate) version: Version,
    /// Whether newer versions may be in the snapshot, so that history has to be consulted.
    pub(crate) past: bool,
    pub(crate) snapshot: Snapshot,
    /// The newest version in the snapshot.
    pub(crate) seen_at: Version,
    /// Whether the snapshot may hold parts of a transaction beyond that version.
    pub(crate) partial: bool,
    pub(crate) shape: Arc<Shape>,
    /// The schema at the version.
    pub(crate) era: Arc<Era>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("version", &self.inner.version)
            .field("past", &self.inner.past)
            .finish_non_exhaustive()
    }
}

impl View {
    /// A view at `version` of a snapshot that was taken at the watermark `seen_at`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is no schema for the version.
    pub(crate) fn new(
        version: Version,
        seen_at: Version,
        snapshot: Snapshot,
        shape: Arc<Shape>,
    ) -> Result<Self> {
        let inner = ViewInner {
            version,
            past: version < seen_at,
            snapshot,
            seen_at,
            partial: false,
            era: shape.era_at(version)?.clone(),
            shape,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A view at `version` of a snapshot that may hold parts of a transaction, taken while the
    /// watermark is `seen_at`.
    ///
    /// INVARIANT: it shows nothing of them. Each part is written whole, and writes to the history
    /// what its rows and entries were; so whatever is younger than the view has its past there.
    pub(crate) fn partial(
        version: Version,
        seen_at: Version,
        snapshot: Snapshot,
        shape: Arc<Shape>,
    ) -> Result<Self> {
        let inner = ViewInner {
            version,
            past: true,
            snapshot,
            seen_at,
            partial: true,
            era: shape.era_at(version)?.clone(),
            shape,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn inner(&self) -> &Arc<ViewInner> {
        &self.inner
    }

    /// The version it shows.
    #[must_use]
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// The tables there are.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.inner.era.catalog
    }

    /// The row with these values of the table's `key` columns, in their order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown table or a key of the wrong length, else what reading
    /// brings up.
    pub fn get(&self, table: TableId, key: &[Value]) -> Result<Option<Row>> {
        let space = self.inner.era.table(table)?;
        match space.key_if_any(key)? {
            Some(key) => self.inner.row(space, &key),
            None => Ok(None),
        }
    }

    /// The first row whose `columns` equal `values`; meant for the columns of a unique key, in any
    /// order. Takes the best index there is, and reads the whole table where there is none.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn get_by_unique(
        &self,
        table: TableId,
        columns: &[usize],
        values: &[Value],
    ) -> Result<Option<Row>> {
        let space = self.inner.era.table(table)?;
        if columns.len() != values.len() {
            return Err(Error::Invalid(
                "as many values as columns are needed".into(),
            ));
        }
        let value_of = |at: &usize| {
            let position = columns.iter().position(|column| column == at)?;
            values.get(position).cloned()
        };
        let leading = |of: &mut dyn Iterator<Item = usize>| -> Vec<Value> {
            of.map_while(|at| value_of(&at)).collect()
        };
        let mut index = IndexId::PRIMARY;
        let mut prefix = leading(&mut space.table.key.iter().copied());
        for other in &space.indexes {
            if prefix.len() == columns.len() {
                break;
            }
            let longer = leading(&mut other.columns.iter().map(|(at, _)| *at));
            if longer.len() > prefix.len() {
                (index, prefix) = (other.id, longer);
            }
        }
        let scan = Scan::of(index).prefix(prefix);
        for row in self.scan(table, &scan)? {
            let row = row?;
            if columns
                .iter()
                .zip(values)
                .all(|(at, value)| row.value(*at) == *value)
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Ordered scan of the rows or of an index.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown table or index, or more values than there are columns.
    pub fn scan(&self, table: TableId, scan: &Scan) -> Result<RowScan> {
        RowScan::new(&self.inner, table, scan)
    }
}

impl ViewInner {
    /// The row under a key of the table.
    pub(crate) fn row(&self, space: &TableSpace, key: &[u8]) -> Result<Option<Row>> {
        self.record(space, key)?
            .map(|bytes| self.decode(space, bytes))
            .transpose()
    }

    /// The record under a key of the table.
    pub(crate) fn record(&self, space: &TableSpace, key: &[u8]) -> Result<Option<Slice>> {
        self.shape.reads.point();
        let current = self.snapshot.get(&space.keyspace, key)?;
        if !self.past {
            return Ok(current);
        }
        let end = match &current {
            Some(bytes) => Some(since(bytes)?),
            None => None,
        };
        if end.is_some_and(|began| began <= self.version) {
            return Ok(current);
        }
        ended_at(self, space.number(), key, end)
    }

    /// The row that an entry of an index leads to.
    pub(crate) fn row_of(&self, space: &TableSpace, entry: Result<(Slice, Slice)>) -> Result<Row> {
        let (key, value) = entry?;
        self.indexed(space, &primary_key(&key, &value)?)
    }

    /// The row under a key that an index leads to.
    pub(crate) fn indexed(&self, space: &TableSpace, key: &[u8]) -> Result<Row> {
        self.expected(space, self.record(space, key)?)
    }

    /// The row in the record that an index leads to.
    pub(crate) fn expected(&self, space: &TableSpace, record: Option<Slice>) -> Result<Row> {
        let record = record.ok_or_else(|| {
            Error::Corrupt(format!(
                "an index of table {:?} leads to a row that is not there",
                space.table.name
            ))
        })?;
        self.decode(space, record)
    }

    #[inline]
    pub(crate) fn decode(&self, space: &TableSpace, bytes: Slice) -> Result<Row> {
        space.read(bytes, self.shape.loaded_at)
    }
}
