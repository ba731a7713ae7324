//! Reading the rows that operations are about, ahead of them and on several threads.

use std::collections::HashMap;
use std::num::NonZero;
use std::thread::available_parallelism;

use fjall::{Keyspace, Readable, Slice, Snapshot};

use super::{Overlay, Place};
use crate::RowOp;
use crate::error::{Error, Result};

/// Operations whose rows are read ahead at once: a bound of memory.
pub(crate) const WINDOW: usize = 4096;
/// Rows that are worth another thread. Starting one takes as long as reading some twenty.
const ROWS_PER_THREAD: usize = 48;
/// Threads at the most; it is the commits' only work that can be shared.
const THREADS: usize = 4;

/// Rows that were read ahead; none for those that are not there.
pub(super) type Fetched = HashMap<Place, Option<Slice>>;

impl Overlay<'_> {
    /// Reads the rows that these operations are about, if they are many.
    pub(crate) fn prefetch(&mut self, ops: &[&RowOp]) -> Result<()> {
        self.fetched.clear();
        let threads = available_parallelism().map_or(1, NonZero::get).min(THREADS);
        let threads = threads.min(ops.len() / ROWS_PER_THREAD);
        if threads < 2 {
            return Ok(());
        }
        let mut wanted = Vec::with_capacity(ops.len());
        for op in ops {
            // What is wrong with an operation is told when it is its turn.
            if let Some((keyspace, place)) = self.place_of(op)
                && !self.row_at.contains_key(&place)
            {
                wanted.push((keyspace, place));
            }
        }
        let size = wanted.len().div_ceil(threads).max(1);
        let snapshot = &self.snapshot;
        let parts = std::thread::scope(|scope| {
            let mut parts = wanted.chunks(size);
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts
                .map(|part| scope.spawn(move || read(snapshot, part)))
                .collect();
            let mut parts = vec![read(snapshot, own)];
            let panicked = |_| Err(Error::Corrupt("the engine failed to read".into()));
            parts.extend(
                others
                    .into_iter()
                    .map(|part| part.join().unwrap_or_else(panicked)),
            );
            parts
        });
        for part in parts {
            self.fetched.extend(part?);
        }
        Ok(())
    }

    /// Where the row of an operation lies.
    fn place_of(&self, op: &RowOp) -> Option<(Keyspace, Place)> {
        let (table, key) = match op {
            RowOp::Insert { table, row } => {
                let space = self.space(*table).ok()?;
                (*table, space.row_key(row).ok()?)
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
                (*table, key)
            }
            RowOp::Delete { table, key } => {
                let space = self.space(*table).ok()?;
                (*table, space.primary_key(key).ok()?)
            }
            RowOp::Truncate { .. } | RowOp::Schema(_) => return None,
        };
        let space = self.space(table).ok()?;
        Some((space.keyspace.clone(), (space.number(), key.into())))
    }
}

fn read(snapshot: &Snapshot, wanted: &[(Keyspace, Place)]) -> Result<Vec<(Place, Option<Slice>)>> {
    let found = wanted.iter().map(|(keyspace, place)| {
        let found = snapshot.get(keyspace, &place.1)?;
        Ok((place.clone(), found))
    });
    found.collect()
}
