//! Applying a transaction of any size, in parts of a bounded size.
//!
//! ```text
//! note that the transaction at v is under way ─► part ─► part … ─► last part, watermark = v
//! ```
//! Each part is one batch of rows, index entries, history and changelog, all of version v, made as
//! any other batch is, over what the parts before have written.
//!
//! INVARIANT: readers see all of it or nothing. Until the last part is committed the newest view is
//! one of the past, to which a row or entry that a part wrote is what the history says it was.
//! Views that are not of the past are made by whoever holds the right to write, which is kept until
//! then; and a transaction that was not finished keeps it from everybody else.
//!
//! INVARIANT: after a crash all of it is there or nothing. The note is on the disk before the first
//! part, and goes in the batch that sets the watermark. Where the note is found,
//! [`undo`](crate::undo) takes the parts back, for which each of them says in the changelog what it
//! wrote. Row counts and the numbers given to rows are written by the last part, so there is
//! nothing of them to take back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fail::fail_point;
use kelvin_protocol::{Value, Version};

use crate::apply::Completion;
use crate::error::{Error, Result};
use crate::overlay::{Overlay, Slots, Workshop};
use crate::replica::{Inner, Writer};
use crate::shape::Shape;
use crate::view::View;
use crate::{Applied, Datum, Replica, RowId, RowOp, TableId, changelog};

/// Operations whose rows are read ahead at once.
const WINDOW: usize = 256;
/// Bytes of an operation beside its values.
const OP_BYTES: usize = 64;

impl Replica {
    /// Applies one transaction, however large it is: operations are taken as they come, and written
    /// in parts of about [`part_bytes`](crate::ReplicaOptions::part_bytes). Readers see the replica
    /// as it was until all of it is there. If it fits into one part, it is applied as by
    /// [`Replica::apply`], else its tables are [swept](Applied::swept). At or below the watermark
    /// it is skipped, its operations are taken nevertheless.
    ///
    /// After an error from `ops` the replica can be read but not be written, until
    /// [`Replica::roll_back`] or the next opening takes back what was written.
    ///
    /// # Errors
    /// The first one of `ops`; [`Error::Invalid`] for an operation the catalog does not know and
    /// for any change of the schema, else as [`Replica::apply`].
    pub fn apply_in_parts<E: From<Error>>(
        &self,
        version: Version,
        ops: impl IntoIterator<Item = Result<RowOp, E>>,
    ) -> Result<Applied, E> {
        let inner = &self.inner;
        let mut writer = inner.writer()?;
        inner.rotate_if_full(&mut writer)?;
        let base = self.latest()?;
        let from = base.version();
        if version <= from {
            for op in ops {
                op?;
            }
            return Ok(Applied {
                from,
                version: from,
                changes: Vec::new(),
                swept: Vec::new(),
                altered: Vec::new(),
            });
        }
        let limit = inner.options.part_bytes;
        let mut parts = Parts::new(inner, &writer, &base, version);
        let shape = parts.shape.clone();
        drop(base);
        let (mut window, mut bytes) = (Vec::new(), 0);
        for op in ops {
            let op = op?;
            bytes += weight(&op);
            window.push(op);
            if window.len() >= WINDOW || bytes >= limit {
                parts.apply(&window)?;
                window.clear();
                bytes = 0;
            }
        }
        parts.apply(&window)?;
        let finished = parts.finish()?;
        writer.next_rows.extend(finished.taken);
        writer.bucket_bytes += finished.history_bytes;
        inner.publish(version, shape)?;
        inner.under_way.store(false, Ordering::Release);
        Ok(finished.applied)
    }

    /// Takes back what was written of a transaction whose operations ended with an error, so that
    /// the replica can be written again. Takes about as long as writing it took. Does nothing where
    /// there is nothing to take back.
    ///
    /// # Errors
    /// What reading and writing bring up; then the replica has to be opened anew.
    pub fn roll_back(&self) -> Result<()> {
        let inner = &self.inner;
        let _writer = inner.writer_to_roll_back()?;
        if !inner.under_way.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(version) = crate::meta::under_way(&inner.db.snapshot(), &inner.meta)? {
            let shape = self.latest()?.inner().shape.clone();
            crate::undo::roll_back(&inner.gate, &inner.meta, &shape, version, &|| {
                inner.show_partial(&shape).map(drop)
            })?;
        }
        inner.release_recent()?;
        inner.under_way.store(false, Ordering::Release);
        Ok(())
    }
}

/// A transaction that is written part by part.
struct Parts<'a> {
    inner: &'a Inner,
    overlay: Overlay<'a>,
    free: &'a HashMap<TableId, RowId>,
    workshop: Workshop<'a>,
    shape: Arc<Shape>,
    from: Version,
    version: Version,
    /// The number of the next record of the changelog. Once a part is written it is not zero, for
    /// that number is kept for the record that says so.
    sequence: u32,
    /// Spaces of the tables that were written to by the parts so far.
    spaces: BTreeSet<u32>,
    rows: usize,
    history_bytes: u64,
}

/// What it all comes to.
struct Finished {
    applied: Applied,
    taken: HashMap<TableId, RowId>,
    history_bytes: u64,
}

impl<'a> Parts<'a> {
    fn new(inner: &'a Inner, writer: &'a Writer, base: &View, version: Version) -> Self {
        let workshop = inner.workshop(writer);
        let free = &writer.next_rows;
        Self {
            inner,
            overlay: Overlay::new(base, free, workshop, Slots::default()),
            free,
            workshop,
            shape: base.inner().shape.clone(),
            from: base.version(),
            version,
            sequence: 0,
            spaces: BTreeSet::new(),
            rows: 0,
            history_bytes: 0,
        }
    }

    fn is_begun(&self) -> bool {
        self.sequence > 0
    }

    fn apply(&mut self, ops: &[RowOp]) -> Result<()> {
        self.overlay.read_ahead(&ops.iter().collect::<Vec<_>>());
        for (at, op) in ops.iter().enumerate() {
            self.overlay.arrive(at)?;
            match op {
                RowOp::Truncate { tables } => {
                    for table in tables {
                        self.truncate(*table)?;
                    }
                }
                RowOp::Schema(_) => {
                    return Err(Error::Invalid(
                        "a transaction that is applied in parts cannot change the schema".into(),
                    ));
                }
                op => self.overlay.apply(op, self.version)?,
            }
        }
        self.cut_if_full()
    }

    /// INVARIANT: what the overlay holds goes first. The rest is in the snapshot, under keys that
    /// no part writes to before the truncation is over, so going on behind the last key misses
    /// none.
    fn truncate(&mut self, table: TableId) -> Result<()> {
        let (limit, version) = (self.inner.options.part_bytes, self.version);
        self.overlay.truncate_known(table, version)?;
        let mut after = None;
        loop {
            after = self.overlay.truncate_some(table, after, limit, version)?;
            if after.is_none() {
                return Ok(());
            }
            self.cut_if_full()?;
        }
    }

    fn cut_if_full(&mut self) -> Result<()> {
        if self.overlay.weight() < self.inner.options.part_bytes {
            return Ok(());
        }
        if !self.is_begun() {
            self.begin()?;
        }
        let bucket = self.shape.active_bucket()?.clone();
        let bucket = &bucket;
        let mut batch = self.inner.db.batch();
        let touched = self.overlay.end_transaction();
        self.note(&touched);
        let records = changelog::records(touched.len());
        let (first, keyspace) = (self.sequence, &bucket.keyspace);
        let bytes = changelog::write(&mut batch, keyspace, self.version, first, &touched)?;
        self.sequence = self.following(records)?;
        self.history_bytes += bytes + self.overlay.write(&mut batch, bucket)?;
        let mut keyspaces = self.overlay.keyspaces();
        keyspaces.push(bucket.keyspace.clone());
        self.make_room()?;
        fail_point!("part-before-commit");
        self.inner.gate.commit(batch, &keyspaces)?;
        fail_point!("part-after-commit");
        let base = self.inner.show_partial(&self.shape)?;
        let carried = self.overlay.carry();
        self.overlay = Overlay::resume(&base, self.free, self.workshop, carried);
        Ok(())
    }

    /// INVARIANT: from before the note is written until the transaction is there as a whole, or
    /// taken back, nobody else writes. The note is safe from a power loss before any part is
    /// written, for a part may get to a sorted file, and so to the disk, before the journal does.
    fn begin(&mut self) -> Result<()> {
        self.inner.under_way.store(true, Ordering::Release);
        let mut batch = self.inner.db.batch();
        self.inner.meta_writer(&mut batch).under_way(self.version)?;
        let keyspaces = std::slice::from_ref(&self.inner.meta);
        self.inner.gate.commit(batch, keyspaces)?;
        self.inner.gate.sync()?;
        fail_point!("part-after-note");
        self.sequence = 1;
        Ok(())
    }

    fn note(&mut self, touched: &[(u32, fjall::Slice)]) {
        self.rows += touched.len();
        for (space, _) in touched {
            self.spaces.insert(*space);
        }
    }

    fn following(&self, records: usize) -> Result<u32> {
        let records = u32::try_from(records).ok();
        let next = records.and_then(|records| self.sequence.checked_add(records));
        next.ok_or_else(|| Error::Invalid("a transaction writes too many rows".into()))
    }

    fn make_room(&self) -> Result<()> {
        let inner = self.inner;
        inner.gate.make_room(|| inner.keyspaces(&self.shape))
    }

    /// Writes the last part, which makes all of them count.
    fn finish(mut self) -> Result<Finished> {
        let begun = self.is_begun();
        let bucket = self.shape.active_bucket()?.clone();
        let mut batch = self.inner.db.batch();
        let touched = self.overlay.end_transaction();
        self.note(&touched);
        let (first, keyspace) = (self.sequence, &bucket.keyspace);
        let mut bytes = changelog::write(&mut batch, keyspace, self.version, first, &touched)?;
        if begun {
            bytes += changelog::write_sweep(&mut batch, keyspace, self.version, &self.spaces);
            self.inner.meta_writer(&mut batch).forget_under_way();
        }
        self.make_room()?;
        let era = self.shape.era()?;
        let tables = self.spaces.iter().filter_map(|space| era.space(*space));
        let tables: BTreeSet<_> = tables.map(|space| space.table.id).collect();
        let completion = Completion {
            batch,
            bucket: &bucket,
            version: self.version,
            transactions: 1,
            rows: begun.then_some(self.rows),
        };
        let (outcome, written) = self.inner.complete(self.overlay, completion)?;
        let (changes, swept) = if begun {
            (Vec::new(), tables.into_iter().collect())
        } else {
            (outcome.changes, Vec::new())
        };
        Ok(Finished {
            applied: Applied {
                from: self.from,
                version: self.version,
                changes,
                swept,
                altered: Vec::new(),
            },
            taken: outcome.taken,
            history_bytes: self.history_bytes + bytes + written,
        })
    }
}

/// Estimated bytes of an operation.
fn weight(op: &RowOp) -> usize {
    let value = |value: &Value| {
        let text = match value {
            Value::String(text) | Value::Json(text) => text.len(),
            _ => 0,
        };
        text + size_of::<Value>()
    };
    let datum = |datum: &Datum| match datum {
        Datum::Value(of) => value(of),
        Datum::Unchanged => size_of::<Value>(),
    };
    let all = |values: &[Value]| values.iter().map(value).sum::<usize>();
    let values = match op {
        RowOp::Insert { row, .. } => all(row),
        RowOp::Update { old_key, row, .. } => {
            old_key.as_deref().map_or(0, all) + row.iter().map(datum).sum::<usize>()
        }
        RowOp::Delete { key, .. } => all(key),
        RowOp::Truncate { .. } | RowOp::Schema(_) => 0,
    };
    values + OP_BYTES
}
