//! How many rows each table has, exactly, at the newest version.
//!
//! The counts are written in the batch that changes them, so they are as right as the rows are. A
//! table without a record is counted when the replica is opened.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use fjall::{Database, Keyspace, Readable};

use crate::error::Result;
use crate::layout::space_key;
use crate::meta::{self, MetaWriter};
use crate::shape::Shape;
use crate::table_space::TableSpace;
use crate::{IndexId, Replica, TableId};

/// The counts of the newest version.
#[derive(Debug, Default)]
pub(crate) struct RowCounts(RwLock<HashMap<TableId, u64>>);

impl RowCounts {
    /// Reads the counts, and takes those that are not on record.
    pub(crate) fn open(db: &Database, meta: &Keyspace, shape: &Shape) -> Result<Self> {
        let snapshot = db.snapshot();
        let mut counts = meta::row_counts(&snapshot, meta)?;
        let mut batch = db.batch();
        for (id, space) in &shape.era()?.tables {
            if !counts.contains_key(id) {
                let count = count(&snapshot, space)?;
                counts.insert(*id, count);
                let mut writer = MetaWriter {
                    meta,
                    batch: &mut batch,
                };
                writer.row_count(*id, count)?;
            }
        }
        batch.commit()?;
        Ok(Self(RwLock::new(counts)))
    }

    /// The counts of tables that have grown by so many rows, as they are afterwards.
    pub(crate) fn after(&self, grown: &HashMap<TableId, i64>) -> Vec<(TableId, u64)> {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let after = |(table, grown): (&TableId, &i64)| {
            let before = counts.get(table).copied().unwrap_or(0);
            (*table, before.saturating_add_signed(*grown))
        };
        let altered = grown.iter().filter(|(_, grown)| **grown != 0);
        altered.map(after).collect()
    }

    /// Takes over counts that are committed.
    pub(crate) fn install(&self, counts: Vec<(TableId, u64)>) {
        if counts.is_empty() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(counts);
    }

    /// The count of a table; zero for one that is not known.
    pub(crate) fn get(&self, table: TableId) -> u64 {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(&table).copied().unwrap_or(0)
    }
}

fn count(snapshot: &fjall::Snapshot, space: &TableSpace) -> Result<u64> {
    let mut count = 0;
    for record in snapshot.prefix(&space.keyspace, space_key(IndexId::PRIMARY)) {
        record.key()?;
        count += 1;
    }
    Ok(count)
}

impl Replica {
    /// Rows of a table at the newest version, exactly; zero for a table that is not there. Costs a
    /// look into a map.
    #[must_use]
    pub fn row_count(&self, table: TableId) -> u64 {
        self.inner.row_counts.get(table)
    }
}
