//! Reading the rows that operations are about, ahead of them and on several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use fjall::{Readable, Slice, Snapshot};
use kelvin_protocol::Version;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Overlay;
use crate::error::{Error, Result};
use crate::table_space::TableSpace;
use crate::{Row, RowOp};

/// Operations whose rows are read ahead at once: a bound of memory.
pub(crate) const WINDOW: usize = 4096;
/// Rows that are worth another thread, which has to be woken.
const ROWS_PER_THREAD: usize = 32;
/// Rows that a thread takes at once.
const PIECE: usize = 8;
/// Threads that read at the most, that of the writer included.
const THREADS: usize = 4;

/// Threads that read beside the writer. They start when they are first of use.
#[derive(Default)]
pub(crate) struct Readers(OnceLock<Option<ThreadPool>>);

impl Readers {
    /// None where the machine has no core for them, or no thread to give.
    fn pool(&self) -> Option<&ThreadPool> {
        let start = || {
            let cores = available_parallelism().map_or(1, usize::from);
            let others = cores.min(THREADS).checked_sub(1).filter(|n| *n > 0)?;
            let builder = ThreadPoolBuilder::new().num_threads(others);
            let builder = builder.thread_name(|at| format!("replica-read-{at}"));
            builder.build().ok()
        };
        self.0.get_or_init(start).as_ref()
    }
}

/// A row to be read.
type Wanted = (Arc<TableSpace>, Slice);

impl Overlay<'_> {
    /// Reads the rows that these operations are about, if they are many.
    pub(crate) fn prefetch(&mut self, ops: &[&RowOp]) -> Result<()> {
        self.reserve(ops.len());
        if ops.len() < 2 * ROWS_PER_THREAD {
            return Ok(());
        }
        let Some(pool) = self.workshop.readers.pool() else {
            return Ok(());
        };
        // What is wrong with an operation is told when it is its turn.
        let wanted: Vec<Wanted> = ops.iter().filter_map(|op| self.row_of(op)).collect();
        let work = Work {
            snapshot: &self.snapshot,
            loaded_at: self.loaded_at,
            next: AtomicUsize::new(0),
            pieces: wanted.chunks(PIECE).collect(),
        };
        let helpers = pool.current_num_threads().min(ops.len() / ROWS_PER_THREAD);
        let mut others: Vec<_> = (0..helpers).map(|_| Ok(vec![])).collect();
        let mut done = pool.in_place_scope(|scope| {
            for rows in &mut others {
                scope.spawn(|_| *rows = work.share());
            }
            work.share()
        })?;
        for other in others {
            done.extend(other?);
        }
        done.sort_unstable_by_key(|(piece, _)| *piece);
        let rows = done.into_iter().flat_map(|(_, rows)| rows);
        for ((space, key), row) in wanted.into_iter().zip(rows) {
            self.take_in(&space, key, row)?;
        }
        Ok(())
    }

    /// Makes room for what so many operations touch, for growing bit by bit takes several times as
    /// long.
    fn reserve(&mut self, ops: usize) {
        self.slots.rows.reserve(ops);
        self.slots.row_at.reserve(ops);
        self.slots.touched.reserve(ops);
        // An entry that goes and one that comes, for a table of one index.
        self.slots.entries.reserve(2 * ops);
        self.slots.entry_at.reserve(2 * ops);
        self.slots.ended.reserve(2 * ops);
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

/// Rows to be read, of which each thread takes a piece as soon as it is done with the last, so that
/// one that wakes up late is not waited for.
struct Work<'a> {
    snapshot: &'a Snapshot,
    loaded_at: Version,
    next: AtomicUsize,
    pieces: Vec<&'a [Wanted]>,
}

/// Rows of pieces, by the number of the piece.
type Done = Vec<(usize, Vec<Option<Row>>)>;

impl Work<'_> {
    /// Reads pieces until none is left.
    fn share(&self) -> Result<Done> {
        let next = || {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            Some((at, *self.pieces.get(at)?))
        };
        let read = |(at, piece)| Ok((at, self.read(piece)?));
        let pieces = || std::iter::from_fn(next).map(read).collect();
        // A panic of the engine would else be handed on to the writer.
        catch_unwind(AssertUnwindSafe(pieces))
            .unwrap_or_else(|_| Err(Error::Corrupt("the engine failed to read".into())))
    }

    fn read(&self, piece: &[Wanted]) -> Result<Vec<Option<Row>>> {
        let row = |(space, key): &Wanted| match self.snapshot.get(&space.keyspace, key)? {
            Some(bytes) => space.read(bytes, self.loaded_at).map(Some),
            None => Ok(None),
        };
        piece.iter().map(row).collect()
    }
}
