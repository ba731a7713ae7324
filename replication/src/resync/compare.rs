//! Comparing the rows of a snapshot with those of the replica.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

use kelvin_protocol::{Value, ValueRef, Version};
use kelvin_storage::{IndexId, Replica, Row, RowOp, Scan, Table, TableId, View};
use roaring::RoaringBitmap;
use tokio::sync::mpsc;

use super::Resynced;
use super::delivery::{Batch, Delivery};
use crate::copy::{Load, Part};
use crate::decode::Decoded;
use crate::discovery::Discovery;
use crate::prepare::blocking;
use crate::{Address, Error, Options, Progress, Result};

/// Estimated bytes of operations that are handed on together.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that may wait.
const BATCHES: usize = 4;
/// Rows that are compared with one view, or looked through in one scan. A view keeps what is
/// written meanwhile in memory, so none is held for long.
const VIEW_ROWS: usize = 1024;

/// Copies the tables of `alike` from the snapshot, and gives what differs from the replica to
/// `delivery`.
///
/// INVARIANT: nobody else writes rows to the replica meanwhile, so all that is read is of the
/// version at which it stands now.
pub(super) async fn compare(
    options: &Options,
    (address, snapshot): (&Address, String),
    alike: &Discovery,
    replica: &Replica,
    progress: &Arc<dyn Progress>,
    delivery: Delivery,
) -> Result<(Resynced, Delivery)> {
    let (sender, batches) = mpsc::channel(BATCHES);
    let comparison = Comparison::new(replica.clone(), alike, sender);
    let compared = async {
        let copied = crate::copy::copy(options, address, snapshot, alike, comparison, progress);
        let comparison = copied.await?;
        // The channel ends with the comparison.
        blocking(move || comparison.finish()).await
    };
    tokio::try_join!(compared, delivery.take(batches))
}

/// All tables that are compared.
struct Comparison {
    replica: Replica,
    version: Version,
    tables: HashMap<TableId, Arc<Compared>>,
    batches: mpsc::Sender<Batch>,
}

/// A table that is compared.
struct Compared {
    table: Arc<Table>,
    found: Mutex<Found>,
}

/// What has been found of a table.
#[derive(Default)]
struct Found {
    /// The numbers of the rows that are in the snapshot too.
    seen: RoaringBitmap,
    sum: Resynced,
}

impl Comparison {
    fn new(replica: Replica, alike: &Discovery, batches: mpsc::Sender<Batch>) -> Self {
        let tables = alike.catalog.tables().iter().map(|table| {
            let compared = Compared {
                table: Arc::clone(table),
                found: Mutex::default(),
            };
            (table.id, Arc::new(compared))
        });
        Self {
            version: replica.watermark(),
            tables: tables.collect(),
            replica,
            batches,
        }
    }

    /// Removes the rows that are not in the snapshot, and adds everything up. Blocks.
    fn finish(self) -> Result<Resynced> {
        let mut sum = Resynced::default();
        for compared in self.tables.values() {
            let mut found = compared.found.lock();
            let found = found.as_deref_mut().map_err(|_| broken())?;
            sum += found.sum;
            // Every row that was seen is there, so as many are all.
            if self.replica.row_count(compared.table.id) != found.seen.len() {
                sum.removed += self.remove_unseen(&compared.table, &found.seen)?;
            }
        }
        Ok(sum)
    }

    fn remove_unseen(&self, table: &Table, seen: &RoaringBitmap) -> Result<u64> {
        let (mut batch, mut removed) = (Batch::default(), 0);
        let mut after: Option<Vec<Value>> = None;
        loop {
            let view = latest(&self.replica, self.version)?;
            let mut scan = Scan::of(IndexId::PRIMARY);
            if let Some(key) = after.take() {
                scan = scan.start(key, false);
            }
            let mut rows = 0;
            for row in view.scan(table.id, &scan)?.take(VIEW_ROWS) {
                let row = row?;
                rows += 1;
                if rows == VIEW_ROWS {
                    after = Some(row.project(&table.key));
                }
                if !seen.contains(row.id) {
                    removed += 1;
                    batch.push(RowOp::Delete {
                        table: table.id,
                        key: row.project(&table.key),
                    });
                }
            }
            drop(view);
            let last = after.is_none();
            if self.batches.is_closed() {
                return Err(broken());
            }
            if batch.weight >= BATCH_BYTES || (last && !batch.ops.is_empty()) {
                let sent = self.batches.blocking_send(std::mem::take(&mut batch));
                sent.map_err(|_| broken())?;
            }
            if last {
                return Ok(removed);
            }
        }
    }
}

impl Load for Comparison {
    type Part = ComparedPart;

    fn part(&self, table: TableId) -> Result<ComparedPart> {
        let compared = self.tables.get(&table).ok_or_else(broken)?;
        Ok(ComparedPart {
            compared: Arc::clone(compared),
            view: latest(&self.replica, self.version)?,
            replica: self.replica.clone(),
            version: self.version,
            rows: 0,
            found: Found::default(),
            batch: Batch::default(),
            batches: self.batches.clone(),
        })
    }
}

/// A chunk of a table.
struct ComparedPart {
    compared: Arc<Compared>,
    view: View,
    replica: Replica,
    version: Version,
    /// Rows compared with the view.
    rows: usize,
    found: Found,
    batch: Batch,
    batches: mpsc::Sender<Batch>,
}

impl ComparedPart {
    async fn send(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batches.send(batch).await.map_err(|_| broken())
    }
}

impl Part for ComparedPart {
    fn row(&mut self, row: &[Decoded<'_>]) -> Result<()> {
        let table = &self.compared.table;
        let value = |at: &usize| {
            row.get(*at)
                .map_or(Value::Null, |it| it.as_ref().to_value())
        };
        let key: Vec<_> = table.key.iter().map(value).collect();
        let held = self.view.get(table.id, &key)?;
        self.rows += 1;
        let sum = &mut self.found.sum;
        if let Some(held) = &held {
            self.found.seen.insert(held.id);
            if is_same(held, row) {
                sum.kept += 1;
                return Ok(());
            }
            sum.changed += 1;
        } else {
            sum.added += 1;
        }
        self.batch.push(RowOp::Insert {
            table: table.id,
            row: row.iter().map(|value| value.as_ref().to_value()).collect(),
        });
        Ok(())
    }

    async fn hand_on(&mut self) -> Result<()> {
        if self.rows >= VIEW_ROWS {
            self.rows = 0;
            self.view = latest(&self.replica, self.version)?;
        }
        if self.batch.weight >= BATCH_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        if !self.batch.ops.is_empty() {
            self.send().await?;
        }
        let found = self.compared.found.lock();
        let mut found = found.unwrap_or_else(PoisonError::into_inner);
        found.seen |= &self.found.seen;
        found.sum += self.found.sum;
        Ok(())
    }

    fn abandon(self) -> Result<()> {
        // What was sent is sent once more: writing the same row twice is writing it once. Nothing
        // of it was added up.
        Ok(())
    }
}

impl AddAssign for Resynced {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.changed += other.changed;
        self.added += other.added;
        self.removed += other.removed;
    }
}

/// The newest view, which has to be at `version`.
fn latest(replica: &Replica, version: Version) -> Result<View> {
    let view = replica.latest()?;
    if view.version() == version {
        return Ok(view);
    }
    Err(Error::Protocol(
        "the replica was written while it was compared".into(),
    ))
}

/// Whether a row that is held has these values, whatever layout it was written with.
fn is_same(held: &Row, row: &[Decoded<'_>]) -> bool {
    let held = held.values();
    held.len() == row.len()
        && held
            .zip(row)
            .all(|(held, now)| is_identical(held, now.as_ref()))
}

/// Whether two values are the same to the bit, where ZQL takes 0 and -0 for equal.
fn is_identical(held: ValueRef<'_>, now: ValueRef<'_>) -> bool {
    match (held, now) {
        (ValueRef::Null, ValueRef::Null) => true,
        (ValueRef::Bool(held), ValueRef::Bool(now)) => held == now,
        (ValueRef::Number(held), ValueRef::Number(now)) => {
            held.to_bits() == now.to_bits() || (held.is_nan() && now.is_nan())
        }
        (ValueRef::BigInt(held), ValueRef::BigInt(now)) => held == now,
        (ValueRef::String(held), ValueRef::String(now))
        | (ValueRef::Json(held), ValueRef::Json(now)) => held == now,
        _ => false,
    }
}

fn broken() -> Error {
    Error::Protocol("the comparison was given up".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_only_where_they_read_the_same() {
        let values = [
            ValueRef::Null,
            ValueRef::Bool(false),
            ValueRef::Bool(true),
            ValueRef::Number(0.0),
            ValueRef::Number(-0.0),
            ValueRef::Number(f64::NAN),
            ValueRef::BigInt(0),
            ValueRef::String(""),
            ValueRef::String("1"),
            ValueRef::Json("1"),
            ValueRef::Json("1.0"),
        ];
        for (at, one) in values.iter().enumerate() {
            for (other_at, other) in values.iter().enumerate() {
                assert_eq!(
                    is_identical(*one, *other),
                    at == other_at,
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
