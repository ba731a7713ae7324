//! Reading the rows that operations are about, ahead of them and on several threads.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use fjall::{Readable, Slice, Snapshot};
use kelvin_protocol::Version;

use super::Overlay;
use crate::error::{Error, Result};
use crate::table_space::TableSpace;
use crate::{Row, RowOp};

/// Operations whose rows are read ahead at once: a bound of memory.
pub(crate) const WINDOW: usize = 4096;
/// Rows that are worth another thread. Starting one takes as long as reading some twenty.
const ROWS_PER_THREAD: usize = 48;
/// Threads at the most; it is the commits' only work that can be shared.
const THREADS: usize = 4;

/// A row to be read.
type Wanted = (Arc<TableSpace>, Slice);

impl Overlay<'_> {
    /// Reads the rows that these operations are about, if they are many.
    pub(crate) fn prefetch(&mut self, ops: &[&RowOp]) -> Result<()> {
        let threads = available_parallelism().map_or(1, NonZero::get).min(THREADS);
        let threads = threads.min(ops.len() / ROWS_PER_THREAD);
        if threads < 2 {
            return Ok(());
        }
        // What is wrong with an operation is told when it is its turn.
        let wanted: Vec<Wanted> = ops.iter().filter_map(|op| self.row_of(op)).collect();
        let size = wanted.len().div_ceil(threads).max(1);
        let (snapshot, loaded_at) = (&self.snapshot, self.loaded_at);
        let parts = std::thread::scope(|scope| {
            let mut parts = wanted.chunks(size);
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts
                .map(|part| scope.spawn(move || read(snapshot, loaded_at, part)))
                .collect();
            let mut parts = vec![read(snapshot, loaded_at, own)];
            let panicked = |_| Err(Error::Corrupt("the engine failed to read".into()));
            parts.extend(
                others
                    .into_iter()
                    .map(|part| part.join().unwrap_or_else(panicked)),
            );
            parts
        });
        let mut rows = Vec::with_capacity(wanted.len());
        for part in parts {
            rows.extend(part?);
        }
        for ((space, key), row) in wanted.into_iter().zip(rows) {
            self.take_in(&space, key, row)?;
        }
        Ok(())
    }

    /// Where the row of an operation lies.
    fn row_of(&self, op: &RowOp) -> Option<Wanted> {
        let (space, key) = match op {
            RowOp::Insert { table, row } => {
                let space = self.space(*table).ok()?;
                let key = space.row_key(row).ok()?;
                (space, key)
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let space = self.space(*table).ok()?;
                let key = match old_key {
                    Some(key) => space.primary_key(key).ok()?,
                    None => space.primary_key(&super::key_of(&space, row).ok()?).ok()?,
                };
                (space, key)
            }
            RowOp::Delete { table, key } => {
                let space = self.space(*table).ok()?;
                let key = space.primary_key(key).ok()?;
                (space, key)
            }
            RowOp::Truncate { .. } | RowOp::Schema(_) => return None,
        };
        Some((space, key.into()))
    }
}

fn read(snapshot: &Snapshot, loaded_at: Version, wanted: &[Wanted]) -> Result<Vec<Option<Row>>> {
    let row = |(space, key): &Wanted| match snapshot.get(&space.keyspace, key)? {
        Some(bytes) => space.read(bytes, loaded_at).map(Some),
        None => Ok(None),
    };
    wanted.iter().map(row).collect()
}
