//! Building a secondary index beside the stream.
//!
//! ```text
//! reserve a number ─► entries of the rows at version v ─► entries of what ended up to v
//!        ─► catch up with (v, v'], (v', v''] … until little is left ─► the rest, and publish
//! ```
//! Commits go on meanwhile; they wait for the last step only, which is bounded. Nobody sees the
//! index before it is complete. Each of its entries lives as long as the row version it was made
//! from, which comes to the same as if it had been kept while its columns did not change.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use fail::fail_point;
use fjall::{Keyspace, OwnedWriteBatch, Readable};
use kelvin_protocol::Direction;

use crate::archive::{encode_entry, since};
use crate::changelog::{Entry, Sweeps, walk};
use crate::error::{Error, Result};
use crate::layout::{ended_key, ended_prefix, space_key, split_ended};
use crate::meta::Garbage;
use crate::replica::Writer;
use crate::sorted_ingest::SortedIngest;
use crate::table_space::{IndexSpace, TableSpace};
use crate::view::{View, ViewInner};
use crate::{Index, IndexId, Replica, Row, TableId};

/// Records written in one batch while commits wait for it.
const BATCH: usize = 4096;
/// Changed rows that are few enough to let commits wait for them.
const LAST_ROUND: usize = 1024;
/// Rounds of catching up after which commits wait, however much is left: the stream is faster.
const ROUNDS: u32 = 16;
/// Rows between two looks at whether to go on.
const PATIENCE: u64 = 1024;

/// An index that is being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexBuild {
    /// The table.
    pub table: TableId,
    /// Positions of the columns, with directions.
    pub columns: Vec<(usize, Direction)>,
    /// Rows done so far.
    pub rows_done: u64,
    /// Rows of the table when the build began.
    pub rows_total: u64,
}

/// The builds under way.
#[derive(Default)]
pub(crate) struct Builds(Mutex<Vec<Arc<Build>>>);

struct Build {
    space: u32,
    index: Index,
    table: TableId,
    rows_total: u64,
    rows_done: AtomicU64,
}

impl Builds {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Build>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Space and number of each index that is being built.
    pub(crate) fn numbers(&self) -> Vec<(u32, IndexId)> {
        let list = self.list();
        list.iter()
            .map(|build| (build.space, build.index.id))
            .collect()
    }
}

/// Takes a build off the list, however it ends.
struct Listed<'a> {
    builds: &'a Builds,
    build: Arc<Build>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut list = self.builds.list();
        list.retain(|build| !Arc::ptr_eq(build, &self.build));
    }
}

impl Replica {
    /// Builds a secondary index over `columns`, from the rows there are, while commits go on. It is
    /// kept up from then on and serves every version from the horizon on. Returns when it is
    /// usable; an index that is there already is returned as it is. `go_on` is asked every so
    /// often.
    ///
    /// Takes time in proportion to the table: not to be called from an asynchronous task, nor,
    /// unless commits are to wait, from the thread that applies.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown table or column, when the table's numbers for indexes are
    /// used up, or when the table changed its form meanwhile; [`Error::Cancelled`] when `go_on`
    /// says no; [`Error::Building`] where the same is being built already; [`Error::BelowHorizon`]
    /// when history went faster than the build; else what reading and writing bring up.
    pub fn add_index(
        &self,
        table: TableId,
        columns: &[(usize, Direction)],
        go_on: &dyn Fn() -> bool,
    ) -> Result<IndexId> {
        let (work, listed) = match self.begin_build(table, columns)? {
            Begun::There(id) => return Ok(id),
            Begun::Build(work, listed) => (work, listed),
        };
        let id = work.index.id;
        let pause = || {
            if go_on() {
                Ok(())
            } else {
                Err(Error::Cancelled)
            }
        };
        self.build_current(&work, &pause)?;
        pause()?;
        self.build_history(&work)?;
        pause()?;
        self.catch_up(work, &pause)?;
        drop(listed);
        Ok(id)
    }

    /// The indexes that are being built, and how far they are.
    #[must_use]
    pub fn index_builds(&self) -> Vec<IndexBuild> {
        let list = self.inner.builds.list();
        list.iter()
            .map(|build| IndexBuild {
                table: build.table,
                columns: build.index.columns.clone(),
                rows_done: build
                    .rows_done
                    .load(Ordering::Relaxed)
                    .min(build.rows_total),
                rows_total: build.rows_total,
            })
            .collect()
    }

    fn begin_build(&self, table: TableId, columns: &[(usize, Direction)]) -> Result<Begun<'_>> {
        let mut writer = self.inner.writer()?;
        let view = self.latest()?;
        let space = view.inner().era.table(table)?.clone();
        let known = |(at, _): &(usize, Direction)| *at < space.table.columns.len();
        if columns.is_empty() || !columns.iter().all(known) {
            return Err(Error::Invalid(format!(
                "table {:?} has no such columns to index",
                space.table.name
            )));
        }
        if let Some(index) = space.indexes.iter().find(|index| index.columns == columns) {
            return Ok(Begun::There(index.id));
        }
        let mut list = self.inner.builds.list();
        let same = |build: &Arc<Build>| build.table == table && build.index.columns == columns;
        if list.iter().any(same) {
            return Err(Error::Building(space.table.name.clone()));
        }
        let index = Index {
            id: self.reserve(&mut writer, &space)?,
            name: name(&space, columns),
            columns: columns.to_vec(),
            unique: false,
        };
        let build = Arc::new(Build {
            space: space.number(),
            index: index.clone(),
            table,
            rows_total: self.row_count(table),
            rows_done: AtomicU64::new(0),
        });
        list.push(build.clone());
        let listed = Listed {
            builds: &self.inner.builds,
            build: build.clone(),
        };
        let work = Work {
            entries: IndexSpace::new(&index),
            index,
            space,
            view,
            build,
        };
        Ok(Begun::Build(work, listed))
    }

    /// INVARIANT: the number is spent, and its entries are noted as garbage, before anything is
    /// written under it. If the build ends half-way, none will ever take what is left of it for its
    /// own, and upkeep removes it.
    fn reserve(&self, writer: &mut Writer, space: &TableSpace) -> Result<IndexId> {
        let table = space.table.id;
        let highest = space.indexes.iter().map(|index| index.id.0).max();
        let reserved = writer.next_indexes.get(&table).copied().unwrap_or(1);
        let id = reserved.max(highest.unwrap_or(0).saturating_add(1));
        let next = id
            .checked_add(1)
            .ok_or_else(|| Error::Invalid("the table has no more numbers for indexes".into()))?;
        let garbage = Garbage {
            space: space.number(),
            index: IndexId(id),
            since: 0,
        };
        let mut batch = self.inner.db.batch();
        let mut meta = self.inner.meta_writer(&mut batch);
        meta.next_index(table, next)?;
        meta.garbage(garbage)?;
        self.inner
            .gate
            .commit(batch, std::slice::from_ref(&self.inner.meta))?;
        fail_point!("index-build-after-reserve");
        writer.next_indexes.insert(table, next);
        writer.garbage.push(garbage);
        Ok(IndexId(id))
    }

    /// Entries of the rows there are, by sorted ingestion.
    fn build_current(&self, work: &Work, pause: &dyn Fn() -> Result<()>) -> Result<()> {
        let limit = self.inner.options.load_bytes;
        let mut ingest = SortedIngest::new(&self.inner.scratch, limit)?;
        let view = work.view.inner();
        let rows = space_key(IndexId::PRIMARY);
        for (record, count) in view.snapshot.prefix(&work.space.keyspace, rows).zip(1u64..) {
            let (key, value) = record.into_inner()?;
            let since = since(&value)?;
            let row = work.space.read(value, view.shape.loaded_at)?;
            let (entry, offset) = work.entry(&row, &key);
            ingest.push(&entry, &encode_entry(since, offset))?;
            if count % PATIENCE == 0 {
                work.build.rows_done.store(count, Ordering::Relaxed);
                pause()?;
            }
        }
        let twice = || Error::Corrupt("an index has two entries for one row".into());
        ingest.finish(&work.space.keyspace, twice)?;
        fail_point!("index-build-after-ingest");
        Ok(())
    }

    /// Entries of what ended before the build began.
    fn build_history(&self, work: &Work) -> Result<()> {
        let view = work.view.inner();
        let rows = ended_prefix(work.space.number(), &space_key(IndexId::PRIMARY));
        for bucket in &view.shape.buckets {
            let mut entries = Vec::new();
            for record in view.snapshot.prefix(&bucket.keyspace, &rows) {
                let (history_key, value) = record.into_inner()?;
                entries.push(work.ended_entry(view, &history_key, value)?);
                if entries.len() >= BATCH {
                    self.write_ended(bucket.range.number, std::mem::take(&mut entries))?;
                }
            }
            self.write_ended(bucket.range.number, entries)?;
        }
        Ok(())
    }

    /// Writes entries into a part of the history, unless the horizon has passed it by now.
    fn write_ended(&self, bucket: u64, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        let _writer = self.inner.writer()?;
        let latest = self.latest()?;
        let mut buckets = latest.inner().shape.buckets.iter();
        let Some(bucket) = buckets.find(|other| other.range.number == bucket) else {
            return Ok(());
        };
        let mut batch = self.inner.db.batch();
        for (key, value) in entries {
            batch.insert(&bucket.keyspace, key, value);
        }
        self.inner
            .gate
            .commit(batch, std::slice::from_ref(&bucket.keyspace))?;
        fail_point!("index-build-after-history");
        Ok(())
    }

    /// Goes after the commits since the build began, then lets the index be seen.
    fn catch_up(&self, mut work: Work, pause: &dyn Fn() -> Result<()>) -> Result<()> {
        for _ in 0..ROUNDS {
            let after = self.latest()?;
            let mut rows = 0;
            self.changed(&work, &after, LAST_ROUND + 1, |keys| {
                rows += keys.len();
                Ok(ControlFlow::Break(()))
            })?;
            if rows <= LAST_ROUND {
                break;
            }
            work.follow(&after)?;
            self.changed(&work, &after, BATCH, |keys| {
                let writer = self.inner.writer()?;
                let mut batch = self.inner.db.batch();
                let latest = self.latest()?;
                work.bring_up(&after, &latest, &keys, &mut batch)?;
                self.inner.gate.commit(batch, &work.written(&latest)?)?;
                drop(writer);
                pause()?;
                Ok(ControlFlow::Continue(()))
            })?;
            work.view = after;
        }
        let mut writer = self.inner.writer()?;
        let after = self.latest()?;
        work.follow(&after)?;
        let written = work.written(&after)?;
        let mut batch = self.inner.db.batch();
        self.changed(&work, &after, BATCH, |keys| {
            work.bring_up(&after, &after, &keys, &mut batch)?;
            let batch = std::mem::replace(&mut batch, self.inner.db.batch());
            self.inner.gate.commit(batch, &written)?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.install(&mut writer, &work, batch)
    }

    /// Keys of the table's rows that were written since the work's view, so many at a time. Some
    /// come again with later ones.
    fn changed(
        &self,
        work: &Work,
        after: &View,
        at_a_time: usize,
        mut visit: impl FnMut(Vec<fjall::Slice>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (before, after) = (work.view.inner(), after.inner());
        let horizon = self.horizon();
        if before.version < horizon && before.version < after.version {
            return Err(Error::BelowHorizon {
                asked: before.version,
                horizon,
            });
        }
        let number = work.space.number();
        let mut keys = HashSet::new();
        let mut gone_on = ControlFlow::Continue(());
        walk(before, after, Sweeps::Enter, |_, entry| {
            let Entry::Rows(rows) = entry else {
                return Ok(ControlFlow::Continue(()));
            };
            let rows = rows.into_iter().filter(|(space, _)| *space == number);
            keys.extend(rows.map(|(_, key)| key));
            if keys.len() >= at_a_time {
                gone_on = visit(keys.drain().collect())?;
            }
            Ok(gone_on)
        })?;
        if gone_on.is_continue() && !keys.is_empty() {
            visit(keys.into_iter().collect()).map(drop)?;
        }
        Ok(())
    }

    /// Makes the index part of the table, in every era that has its columns.
    fn install(&self, writer: &mut Writer, work: &Work, mut batch: OwnedWriteBatch) -> Result<()> {
        let (mut shape, horizon) = self.inner.shape();
        let mut meta = self.inner.meta_writer(&mut batch);
        shape.add_index(&work.space, &work.index, |era, form| {
            let since = writer.form_of(form.table.id, era.since);
            meta.table(form.table.id, since, Some(&form.stored))
        })?;
        let garbage = |garbage: &Garbage| {
            (garbage.space, garbage.index) == (work.space.number(), work.index.id)
        };
        if let Some(at) = writer.garbage.iter().position(garbage) {
            meta.forget_garbage(writer.garbage.swap_remove(at));
        }
        let mut keyspaces = work.written(&work.view)?;
        keyspaces.push(self.inner.meta.clone());
        fail_point!("index-build-before-install");
        self.inner.gate.commit(batch, &keyspaces)?;
        fail_point!("index-build-after-install");
        self.inner.publish_shape(shape, horizon)
    }
}

enum Begun<'a> {
    There(IndexId),
    Build(Work, Listed<'a>),
}

/// One build.
struct Work {
    index: Index,
    entries: IndexSpace,
    /// The table as it was when the build began.
    space: Arc<TableSpace>,
    /// What the entries so far agree with.
    view: View,
    build: Arc<Build>,
}

impl Work {
    /// Takes over the form the table has by now, which can read what was written since.
    fn follow(&mut self, after: &View) -> Result<()> {
        let now = after.inner().era.table(self.build.table)?;
        if !self
            .space
            .stored
            .agrees_on(&self.index.columns, &now.stored)
        {
            return Err(Error::Invalid(format!(
                "table {:?} changed while an index on it was built",
                self.space.table.name
            )));
        }
        self.space = now.clone();
        Ok(())
    }

    /// The keyspaces a batch of entries is written to.
    fn written(&self, latest: &View) -> Result<Vec<Keyspace>> {
        let bucket = latest.inner().shape.active_bucket()?;
        Ok(vec![self.space.keyspace.clone(), bucket.keyspace.clone()])
    }

    fn entry(&self, row: &Row, key: &[u8]) -> (Vec<u8>, usize) {
        self.entries.entry_key(|at| row.value(at), key)
    }

    /// The entry of a row version that ended.
    fn ended_entry(
        &self,
        view: &ViewInner,
        history_key: &[u8],
        value: fjall::Slice,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let (key, end) = split_ended(history_key)
            .ok_or_else(|| Error::Corrupt("a history key is cut short".into()))?;
        let since = since(&value)?;
        let row = self.space.read(value, view.shape.loaded_at)?;
        let (entry, offset) = self.entry(&row, key);
        let key = ended_key(self.space.number(), &entry, end);
        Ok((key, encode_entry(since, offset)))
    }

    /// Moves the entries of rows from how they were in the work's view to how they are in `after`.
    /// `latest` says which parts of the history are still there.
    fn bring_up(
        &self,
        after: &View,
        latest: &View,
        keys: &[fjall::Slice],
        batch: &mut OwnedWriteBatch,
    ) -> Result<()> {
        let (before, after) = (self.view.inner(), after.inner());
        let latest = latest.inner();
        let keyspace = &self.space.keyspace;
        for key in keys {
            let old = before.record(&self.space, key)?;
            let new = after.record(&self.space, key)?;
            let entry = |record: Option<fjall::Slice>| -> Result<_> {
                let Some(record) = record else {
                    return Ok(None);
                };
                let since = since(&record)?;
                let row = self.space.read(record, after.shape.loaded_at)?;
                let (entry, offset) = self.entry(&row, key);
                Ok(Some((entry, encode_entry(since, offset))))
            };
            let (old, new) = (entry(old)?, entry(new)?);
            if let Some((old, _)) = old
                && new.as_ref().is_none_or(|(new, _)| *new != old)
            {
                batch.remove(keyspace, old);
            }
            if let Some((new, value)) = new {
                batch.insert(keyspace, new, value);
            }
            self.ended_since(after, latest, key, batch)?;
        }
        Ok(())
    }

    /// Entries of the versions of one row that ended since the work's view.
    fn ended_since(
        &self,
        after: &ViewInner,
        latest: &ViewInner,
        key: &[u8],
        batch: &mut OwnedWriteBatch,
    ) -> Result<()> {
        let Some(first) = self.view.version().checked_add(1) else {
            return Ok(());
        };
        let number = self.space.number();
        let range = ended_key(number, key, first)..=ended_key(number, key, after.version);
        for bucket in &latest.shape.buckets {
            let range = range.clone();
            if bucket.range.to.is_some_and(|to| to < first) {
                continue;
            }
            for record in after.snapshot.range(&bucket.keyspace, range) {
                let (history_key, value) = record.into_inner()?;
                let (key, value) = self.ended_entry(after, &history_key, value)?;
                batch.insert(&bucket.keyspace, key, value);
            }
        }
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
