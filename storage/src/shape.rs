//! What there is to read: the schema at each version, and the parts of the history.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use kelvin_protocol::Version;

use crate::Index;
use crate::counters::ReadCounters;
use crate::era::Era;
use crate::error::{Error, Result};
use crate::layout::bucket_keyspace;
use crate::meta::BucketRange;
use crate::table_space::TableSpace;
use crate::young_runs::YoungRuns;

/// Everything a view needs besides a snapshot. Never changes; a new one takes its place.
#[derive(Clone)]
pub(crate) struct Shape {
    /// The schema at every version that can be read, oldest first. The last one is that of now.
    pub(crate) eras: Vec<Arc<Era>>,
    /// Parts of the history, oldest first. The last one is written to.
    pub(crate) buckets: Vec<Bucket>,
    /// Version of rows that came with the initial copy.
    pub(crate) loaded_at: Version,
    /// What views read.
    pub(crate) reads: Arc<ReadCounters>,
}

/// One part of the history and where it is kept.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) range: BucketRange,
    pub(crate) keyspace: Keyspace,
    pub(crate) young: Arc<YoungRuns>,
}

impl Shape {
    /// The schema at `version`.
    pub(crate) fn era_at(&self, version: Version) -> Result<&Arc<Era>> {
        let mut eras = self.eras.iter().rev();
        eras.find(|era| era.since <= version)
            .or(self.eras.first())
            .ok_or_else(|| Error::Corrupt("it has no catalog".into()))
    }

    /// The schema of now.
    pub(crate) fn era(&self) -> Result<&Arc<Era>> {
        self.era_at(Version::MAX)
    }

    /// Every table that any readable version has, once for each keyspace it is or was kept in.
    pub(crate) fn spaces(&self) -> HashMap<u32, &Arc<TableSpace>> {
        let spaces = self.eras.iter().flat_map(|era| era.tables.values());
        spaces.map(|space| (space.number(), space)).collect()
    }

    /// The keyspaces of all tables and of the history.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        let spaces = self.spaces();
        let tables = spaces.values().map(|space| &space.keyspace);
        let buckets = self.buckets.iter().map(|bucket| &bucket.keyspace);
        tables.chain(buckets).cloned().collect()
    }

    /// Makes an index part of the table it was built on, in every era that has its columns.
    /// `record` hears of each form of the table once, with the first era that has it.
    pub(crate) fn add_index(
        &mut self,
        built_on: &TableSpace,
        index: &Index,
        mut record: impl FnMut(&Era, &TableSpace) -> Result<()>,
    ) -> Result<()> {
        let mut forms: Vec<(Arc<TableSpace>, Arc<TableSpace>)> = Vec::new();
        for era in &mut self.eras {
            let Some(old) = era.space(built_on.number()).cloned() else {
                continue;
            };
            let Some(index) = built_on.stored.index_for(index, &old.stored) else {
                continue;
            };
            let known = forms.iter().find(|(form, _)| Arc::ptr_eq(form, &old));
            let new = match known {
                Some((_, new)) => new.clone(),
                None => {
                    let mut stored = (*old.stored).clone();
                    stored.table.indexes.push(index);
                    let new = Arc::new(TableSpace::new(stored, old.keyspace.clone())?);
                    record(era, &new)?;
                    forms.push((old, new.clone()));
                    new
                }
            };
            *era = Arc::new(era.with(new));
        }
        Ok(())
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
    /// Begins a part of the history in a keyspace of its own.
    pub(crate) fn begin(db: &Database, range: BucketRange) -> Result<Self> {
        let keyspace = open_keyspace(db, &bucket_keyspace(range.number))?;
        Ok(Self::new(range, keyspace))
    }

    /// A part of the history that is on record.
    pub(crate) fn recorded(db: &Database, range: BucketRange) -> Result<Self> {
        let keyspace = recorded_keyspace(db, &bucket_keyspace(range.number))?;
        Ok(Self::new(range, keyspace))
    }

    fn new(range: BucketRange, keyspace: Keyspace) -> Self {
        Self {
            range,
            keyspace,
            young: Arc::default(),
        }
    }
}

/// Opens a keyspace, creating it where it is not there.
///
/// The engine puts down the limit of a memtable for good, so it is given none: see
/// [`WriteGate::admit`](crate::gate::WriteGate::admit).
pub(crate) fn open_keyspace(db: &Database, name: &str) -> Result<Keyspace> {
    Ok(db.keyspace(name, || {
        KeyspaceCreateOptions::default().max_memtable_size(u64::MAX)
    })?)
}

/// Opens a keyspace that is on record.
///
/// INVARIANT: a keyspace is created before anything speaks of it, and dropped when nothing on disk
/// does any more. So one that is not there is lost, and must not be taken for an empty one.
pub(crate) fn recorded_keyspace(db: &Database, name: &str) -> Result<Keyspace> {
    if !db.keyspace_exists(name) {
        return Err(Error::Corrupt(format!("its keyspace {name:?} is gone")));
    }
    Ok(db.keyspace(name, KeyspaceCreateOptions::default)?)
}
