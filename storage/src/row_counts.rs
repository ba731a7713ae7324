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

#[cfg(test)]
mod tests {
    use kelvin_protocol::{Value, ValueType};

    use super::*;
    use crate::{Catalog, Column, ReplicaIdentity, ReplicaOptions, Table};

    const TABLE: TableId = TableId(3);

    fn table() -> Table {
        let column = Column {
            name: "id".into(),
            attnum: 1,
            upstream_type: "int4".into(),
            type_oid: 23,
            value_type: ValueType::Number,
            not_null: true,
        };
        Table {
            id: TABLE,
            name: "item".into(),
            schema: "public".into(),
            upstream_name: "item".into(),
            oid: 16384,
            columns: vec![column],
            unsynced_columns: vec![],
            key: vec![0],
            unique_keys: vec![vec![0]],
            indexes: vec![],
        }
    }

    #[test]
    fn a_table_without_a_record_is_counted_when_the_replica_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let options = ReplicaOptions::default();
        let catalog = Catalog::new(vec![table()], vec![]);
        let loader = Replica::create(dir.path(), &options, catalog).unwrap();
        let mut part = loader.table(TABLE).unwrap();
        for id in 0..25 {
            part.insert(&[Value::from(f64::from(id))]).unwrap();
        }
        part.finish().unwrap();
        let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
        let inner = &replica.inner;
        for record in inner.db.snapshot().prefix(&inner.meta, "rows/") {
            inner.meta.remove(record.key().unwrap()).unwrap();
        }
        drop(replica);
        for _ in 0..2 {
            let replica = Replica::open(dir.path(), &options).unwrap();
            assert_eq!(replica.row_count(TABLE), 25);
        }
    }
}
