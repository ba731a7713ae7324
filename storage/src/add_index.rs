//! Building a secondary index on live data.

use std::sync::Arc;

use fjall::Readable;
use kelvin_protocol::Direction;

use crate::archive::{encode_entry, since};
use crate::error::{Error, Result};
use crate::layout::{ended_key, ended_prefix, space_key, split_ended};
use crate::load::{Buffer, Run, RunDirectory};
use crate::shape::{IndexSpace, TableSpace};
use crate::view::View;
use crate::{Catalog, Index, IndexId, Replica, TableId};

/// Entries of the history written in one batch.
const BATCH: usize = 4096;
/// Bytes held of each run on disk while they are merged.
const READ_BYTES: usize = 64 * 1024;

impl Replica {
    /// Adds a secondary index over `columns`, built from the rows there are and kept up from then
    /// on. It serves every version from the horizon on. An index that is there already is returned
    /// as it is. To be called from the thread that applies: nothing is applied meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown table or column, or when the table's numbers for indexes are
    /// used up; else what reading and writing bring up.
    pub fn add_index(&self, table: TableId, columns: &[(usize, Direction)]) -> Result<IndexId> {
        let mut writer = self.inner.writer()?;
        let latest = self.latest()?;
        let space = latest.inner().shape.table(table)?.clone();
        if columns.is_empty()
            || columns
                .iter()
                .any(|(at, _)| *at >= space.table.columns.len())
        {
            return Err(Error::Invalid(format!(
                "table {:?} has no such columns to index",
                space.table.name
            )));
        }
        if let Some(index) = space.indexes.iter().find(|index| index.columns == columns) {
            return Ok(index.id);
        }
        let highest = space
            .indexes
            .iter()
            .map(|index| index.id.0)
            .max()
            .unwrap_or(0);
        let reserved = writer.next_indexes.get(&table).copied().unwrap_or(1);
        let id = reserved.max(highest.saturating_add(1));
        let next = id
            .checked_add(1)
            .ok_or_else(|| Error::Invalid("the table has no more numbers for indexes".into()))?;
        // INVARIANT: the number is spent before anything is written under it. If we die half-way,
        // the entries left behind belong to no index and none will ever take them for its own.
        let mut batch = self.inner.db.batch();
        self.inner.meta_writer(&mut batch).next_index(table, next)?;
        batch.commit()?;
        writer.next_indexes.insert(table, next);
        let index = Index {
            id: IndexId(id),
            name: name(&space, columns),
            columns: columns.to_vec(),
            unique: false,
        };
        let entries = IndexSpace::new(&index);
        self.build_current(&latest, &space, &entries)?;
        self.build_history(&latest, &space, &entries)?;
        self.install_index(&latest, &space, index)?;
        Ok(IndexId(id))
    }

    /// Entries of the rows there are, by sorted ingestion.
    fn build_current(&self, view: &View, space: &TableSpace, index: &IndexSpace) -> Result<()> {
        let path = self.inner.directory.runs();
        std::fs::create_dir_all(&path).map_err(|error| Error::io(&path, error))?;
        let runs = RunDirectory::new(path, READ_BYTES);
        let limit = usize::try_from(self.inner.options.load_bytes).unwrap_or(usize::MAX);
        let mut sorted = Vec::new();
        let mut buffer = Buffer::default();
        let rows = view
            .inner()
            .snapshot
            .prefix(&space.keyspace, space_key(IndexId::PRIMARY));
        for record in rows {
            let (key, value) = record.into_inner()?;
            let row = view.inner().decode(space, &value)?;
            let (entry, offset) = index.entry_key(&row.values, &key);
            buffer.push(&entry, &encode_entry(since(&value)?, offset))?;
            if buffer.bytes() >= limit {
                sorted.push(runs.spill(&mut buffer)?);
            }
        }
        sorted.push(Run::Memory(buffer));
        let mut ingestion = space.keyspace.start_ingestion()?;
        let mut last = Vec::new();
        let mut merge = runs.merge(sorted)?;
        while let Some((key, value)) = merge.next()? {
            if key <= last.as_slice() {
                return Err(Error::Corrupt(
                    "an index has two entries for one row".into(),
                ));
            }
            ingestion.write(key, value)?;
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(ingestion.finish()?)
    }

    /// Entries of the rows there were. Each lives as long as its row version did, which comes to the
    /// same as if it had been kept while its columns did not change.
    fn build_history(&self, view: &View, space: &TableSpace, index: &IndexSpace) -> Result<()> {
        let rows = ended_prefix(space.table.id, &space_key(IndexId::PRIMARY));
        for bucket in &view.inner().shape.buckets {
            let mut batch = self.inner.db.batch();
            for record in view.inner().snapshot.prefix(&bucket.keyspace, &rows) {
                let (history_key, value) = record.into_inner()?;
                let (key, end) = split_ended(&history_key)
                    .ok_or_else(|| Error::Corrupt("a history key is cut short".into()))?;
                let row = view.inner().decode(space, &value)?;
                let (entry, offset) = index.entry_key(&row.values, key);
                let entry = ended_key(space.table.id, &entry, end);
                batch.insert(
                    &bucket.keyspace,
                    entry,
                    encode_entry(since(&value)?, offset),
                );
                if batch.len() >= BATCH {
                    std::mem::replace(&mut batch, self.inner.db.batch()).commit()?;
                }
            }
            batch.commit()?;
        }
        Ok(())
    }

    fn install_index(&self, view: &View, space: &TableSpace, index: Index) -> Result<()> {
        let old = view.catalog();
        let mut table = (*space.table).clone();
        table.indexes.push(index);
        let tables = old.tables().iter().map(|other| {
            if other.id == table.id {
                table.clone()
            } else {
                (**other).clone()
            }
        });
        let catalog = Catalog::new(tables.collect(), old.unsynced().to_vec());
        let mut batch = self.inner.db.batch();
        self.inner.meta_writer(&mut batch).catalog(&catalog)?;
        let id = table.id;
        let space = TableSpace::new(Arc::new(table), space.keyspace.clone())?;
        batch.commit()?;
        let mut shape = (*view.inner().shape).clone();
        shape.catalog = Arc::new(catalog);
        shape.tables.insert(id, Arc::new(space));
        self.inner.publish_shape(shape, self.horizon());
        Ok(())
    }
}

fn name(space: &TableSpace, columns: &[(usize, Direction)]) -> String {
    let mut name = String::from("kelvin");
    for (at, direction) in columns {
        if let Some(column) = space.table.columns.get(*at) {
            name.push('_');
            name.push_str(&column.name);
        }
        if *direction == Direction::Desc {
            name.push_str("_desc");
        }
    }
    name
}
