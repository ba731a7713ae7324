//! Applying transactions.

use std::sync::Arc;

use fail::fail_point;
use fjall::OwnedWriteBatch;
use kelvin_protocol::Version;

use crate::error::{Error, Result};
use crate::overlay::{Outcome, Overlay, WINDOW};
use crate::replica::{Inner, Writer};
use crate::shape::Bucket;
use crate::view::View;
use crate::{Applied, Replica, RowOp, SchemaChange, TableId, Transaction};

impl Replica {
    /// Applies transactions in one atomic batch: after a crash either all of them are there or
    /// none. Transactions at or below the watermark are skipped, so that replays are harmless. One
    /// thread applies; it may be held up by flushes, so never call this from an asynchronous task.
    ///
    /// # Errors
    /// [`Error::Invalid`] for operations the catalog does not know, and for a change of the schema
    /// in one of several transactions; [`Error::Poisoned`], [`Error::Stalled`], [`Error::DiskFull`]
    /// and [`Error::Io`] from writing. Nothing is applied then.
    pub fn apply(&self, transactions: &[Transaction]) -> Result<Applied> {
        let is_schema = |op: &RowOp| matches!(op, RowOp::Schema(_));
        if transactions.len() > 1 && transactions.iter().any(|t| t.ops.iter().any(is_schema)) {
            return Err(Error::Invalid(
                "a transaction that changes the schema is applied by itself".into(),
            ));
        }
        let foreign = |op: &RowOp| match op {
            RowOp::Schema(change) => match &**change {
                SchemaChange::LoadTable(loaded) => !loaded.is_of(self),
                _ => false,
            },
            _ => false,
        };
        if transactions.iter().any(|t| t.ops.iter().any(foreign)) {
            return Err(Error::Invalid(
                "a table was loaded for another replica".into(),
            ));
        }
        let mut writer = self.inner.writer()?;
        self.inner.rotate_if_full(&mut writer)?;
        let base = self.latest()?;
        let from = base.version();
        let new = transactions.iter().filter(|new| new.version > from);
        let Some(version) = new.map(|new| new.version).max() else {
            return Ok(Applied {
                from,
                version: from,
                changes: Vec::new(),
                swept: Vec::new(),
                altered: Vec::new(),
            });
        };
        let shape = &base.inner().shape;
        self.inner.gate.make_room(|| self.inner.keyspaces(shape))?;
        let outcome = self.commit(&mut writer, &base, transactions, version)?;
        let (changes, schema) = (outcome.changes, outcome.schema);
        let mut shape = shape.clone();
        let mut altered: Vec<TableId> = Vec::new();
        if let Some(schema) = schema {
            writer.next_space = schema.next_space;
            writer.next_indexes.extend(&schema.next_indexes);
            writer.garbage.extend_from_slice(schema.garbage());
            let forms = schema.altered.iter().map(|table| (*table, version));
            writer.forms.extend(forms);
            let era = Arc::new(schema.into_era(version));
            altered = era.altered_since(&base.inner().era);
            Arc::make_mut(&mut shape).eras.push(era);
        }
        self.inner.publish(version, shape)?;
        Ok(Applied {
            from,
            version,
            changes,
            swept: Vec::new(),
            altered,
        })
    }

    /// Moves the watermark alone, for upstream progress that touches no table of ours. No-op when
    /// `version` is not ahead.
    ///
    /// # Errors
    /// As [`Replica::apply`].
    pub fn advance(&self, version: Version) -> Result<()> {
        self.apply(&[Transaction {
            version,
            ops: Vec::new(),
        }])?;
        Ok(())
    }

    /// Commits what takes the replica from `base` to `version`.
    fn commit(
        &self,
        writer: &mut Writer,
        base: &View,
        transactions: &[Transaction],
        version: Version,
    ) -> Result<Outcome> {
        let inner = &self.inner;
        let slots = std::mem::take(&mut writer.slots);
        let workshop = inner.workshop(writer);
        let mut overlay = Overlay::new(base, &writer.next_rows, workshop, slots);
        let mut batch = inner.db.batch();
        let bucket = base.inner().shape.active_bucket()?;
        let (mut last, mut history_bytes, mut count) = (base.version(), 0, 0);
        // Operations so far, those of skipped transactions included, and those whose rows are read
        // ahead.
        let (mut at, mut first, mut end) = (0, 0, 0);
        for transaction in transactions {
            if transaction.version <= last {
                at += transaction.ops.len();
                continue;
            }
            last = transaction.version;
            count += 1;
            for op in &transaction.ops {
                if at >= end {
                    let ahead = transactions.iter().flat_map(|transaction| &transaction.ops);
                    overlay.read_ahead(&ahead.skip(at).take(WINDOW).collect::<Vec<_>>());
                    (first, end) = (at, at + WINDOW);
                }
                overlay.arrive(at - first)?;
                at += 1;
                overlay.apply(op, last)?;
            }
            let touched = overlay.end_transaction();
            history_bytes +=
                crate::changelog::write(&mut batch, &bucket.keyspace, last, 0, &touched)?;
        }
        let completion = Completion {
            batch,
            bucket,
            version,
            transactions: count,
            rows: None,
        };
        let (mut outcome, bytes) = inner.complete(overlay, completion)?;
        writer.next_rows.extend(std::mem::take(&mut outcome.taken));
        writer.slots = std::mem::take(&mut outcome.slots);
        writer.bucket_bytes += history_bytes + bytes;
        Ok(outcome)
    }
}

/// What there is beside an overlay when its batch is completed.
pub(crate) struct Completion<'b> {
    /// With the changelog in it.
    pub(crate) batch: OwnedWriteBatch,
    pub(crate) bucket: &'b Bucket,
    /// The new watermark.
    pub(crate) version: Version,
    /// How many transactions it is, and how many rows they changed if not those of the overlay; for
    /// metrics.
    pub(crate) transactions: usize,
    pub(crate) rows: Option<usize>,
}

impl Inner {
    /// Commits what takes the replica to its new watermark. Returns the bytes of history, roughly.
    pub(crate) fn complete(
        &self,
        mut overlay: Overlay<'_>,
        completion: Completion<'_>,
    ) -> Result<(Outcome, u64)> {
        let Completion {
            mut batch,
            bucket,
            version,
            ..
        } = completion;
        let history_bytes = overlay.write(&mut batch, bucket)?;
        let mut keyspaces = overlay.keyspaces();
        keyspaces.extend([bucket.keyspace.clone(), self.meta.clone()]);
        let outcome = overlay.finish();
        let counts = self.row_counts.after(&outcome.grown);
        let mut meta = self.meta_writer(&mut batch);
        for (table, next) in &outcome.taken {
            meta.next_row(*table, *next)?;
        }
        for (table, rows) in &counts {
            meta.row_count(*table, *rows)?;
        }
        if let Some(schema) = &outcome.schema {
            schema.record(&mut meta, version)?;
        }
        meta.watermark(version)?;
        // INVARIANT: rows, index entries, history, changelog, row counts and watermark are in this
        // one batch, and so is a change of the schema.
        fail_point!("apply-before-commit");
        if let Some(schema) = &outcome.schema {
            // INVARIANT: from here on the batch may be on disk, whatever the engine says of it.
            schema.keep_loaded();
        }
        self.gate.commit(batch, &keyspaces)?;
        fail_point!("apply-after-commit");
        let rows = completion.rows.unwrap_or(outcome.changes.len());
        self.gate.counters.applied(completion.transactions, rows);
        self.row_counts.install(counts);
        Ok((outcome, history_bytes))
    }
}
