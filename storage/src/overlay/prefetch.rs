//! Reading the rows that operations are about, ahead of them and on several threads, while the
//! writer applies those whose rows are there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;

use fjall::{Readable, Slice, Snapshot};
use kelvin_protocol::Version;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Overlay;
use crate::error::{Error, Result};
use crate::table_space::TableSpace;
use crate::{Row, RowOp};

/// Operations whose rows are read ahead at once: a bound of memory.
const WINDOW: usize = 4096;
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

/// An operation of the transaction at a version.
pub(crate) type Step<'t> = (Version, &'t RowOp);

/// A row to be read.
type Wanted = (Arc<TableSpace>, Slice);

impl Overlay<'_> {
    /// Calls `apply` for each step, in order, and meanwhile reads the rows that the next ones are
    /// about, if they are many.
    pub(crate) fn apply_all<'t>(
        &mut self,
        steps: &[Step<'t>],
        mut apply: impl FnMut(&mut Self, Step<'t>) -> Result<()>,
    ) -> Result<()> {
        for window in steps.chunks(WINDOW) {
            self.reserve(window.len());
            self.apply_window(window, &mut apply)?;
        }
        Ok(())
    }

    fn apply_window<'t>(
        &mut self,
        steps: &[Step<'t>],
        apply: &mut impl FnMut(&mut Self, Step<'t>) -> Result<()>,
    ) -> Result<()> {
        let readers = self.workshop.readers;
        let many = steps.len() >= 2 * ROWS_PER_THREAD;
        let Some(pool) = many.then(|| readers.pool()).flatten() else {
            return steps.iter().try_for_each(|step| apply(self, *step));
        };
        let wanted = self.wanted(steps);
        let work = Work {
            snapshot: self.snapshot.clone(),
            loaded_at: self.loaded_at,
            next: AtomicUsize::new(0),
            pieces: wanted.chunks(PIECE).map(Piece::new).collect(),
        };
        let helpers = pool
            .current_num_threads()
            .min(steps.len() / ROWS_PER_THREAD);
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work.share());
            }
            let mut each = || {
                for (piece, steps) in steps.chunks(PIECE).enumerate() {
                    for (wanted, row) in work.rows(piece)? {
                        if let Some((space, key)) = wanted {
                            self.take_in(space, key.clone(), row)?;
                        }
                    }
                    steps.iter().try_for_each(|step| apply(self, *step))?;
                }
                Ok(())
            };
            let applied = each();
            work.stop();
            applied
        })
    }

    /// The rows that steps are about; those behind a change of the schema or a truncation are not
    /// told. What is wrong with an operation is told when it is its turn.
    ///
    /// INVARIANT: what is read ahead is what the snapshot of now has, in the form the table has
    /// now. Such an operation may change either.
    fn wanted(&self, steps: &[Step<'_>]) -> Vec<Option<Wanted>> {
        let ops = steps.iter().map(|(_, op)| *op);
        let ops = ops.take_while(|op| !matches!(op, RowOp::Schema(_) | RowOp::Truncate { .. }));
        ops.map(|op| self.row_of(op)).collect()
    }

    /// Makes room for what so many operations touch, for growing bit by bit takes several times as
    /// long.
    fn reserve(&mut self, ops: usize) {
        self.rows.reserve(ops);
        self.row_at.reserve(ops);
        self.touched.reserve(ops);
        // An entry that goes and one that comes, for a table of one index.
        self.entries.reserve(2 * ops);
        self.entry_at.reserve(2 * ops);
        self.ended.reserve(2 * ops);
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
    snapshot: Snapshot,
    loaded_at: Version,
    next: AtomicUsize,
    pieces: Vec<Piece<'a>>,
}

/// Some rows, in the order they are wanted in.
struct Piece<'a> {
    wanted: &'a [Option<Wanted>],
    rows: Mutex<Option<Result<Vec<Option<Row>>>>>,
}

impl<'a> Piece<'a> {
    fn new(wanted: &'a [Option<Wanted>]) -> Self {
        Self {
            wanted,
            rows: Mutex::new(None),
        }
    }

    fn put(&self, rows: Result<Vec<Option<Row>>>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    fn take(&self) -> Option<Result<Vec<Option<Row>>>> {
        self.rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Work<'_> {
    /// A piece that nobody has taken.
    fn claim(&self) -> Option<(usize, &Piece<'_>)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        Some((at, self.pieces.get(at)?))
    }

    /// Leaves the pieces that nobody has taken.
    fn stop(&self) {
        self.next.store(self.pieces.len(), Ordering::Relaxed);
    }

    /// Reads pieces until none is left.
    fn share(&self) {
        while let Some((_, piece)) = self.claim() {
            piece.put(self.read(piece));
        }
    }

    /// The rows of a piece; of none where there is no such piece. While another thread reads them,
    /// this one reads others, and those it would have to wait for it reads as well.
    fn rows(&self, at: usize) -> Result<impl Iterator<Item = (&Option<Wanted>, Option<Row>)>> {
        let wanted = self.pieces.get(at).map_or(&[][..], |piece| piece.wanted);
        let rows = match self.pieces.get(at) {
            Some(piece) => self.wait_for(at, piece)?,
            None => Vec::new(),
        };
        Ok(wanted.iter().zip(rows))
    }

    fn wait_for(&self, at: usize, piece: &Piece<'_>) -> Result<Vec<Option<Row>>> {
        loop {
            if let Some(rows) = piece.take() {
                return rows;
            }
            match self.claim() {
                Some((other, piece)) if other != at => piece.put(self.read(piece)),
                _ => return self.read(piece),
            }
        }
    }

    fn read(&self, piece: &Piece<'_>) -> Result<Vec<Option<Row>>> {
        let row = |wanted: &Option<Wanted>| {
            let Some((space, key)) = wanted else {
                return Ok(None);
            };
            match self.snapshot.get(&space.keyspace, key)? {
                Some(bytes) => space.read(bytes, self.loaded_at).map(Some),
                None => Ok(None),
            }
        };
        // A panic of the engine would else be handed on to the writer.
        catch_unwind(AssertUnwindSafe(|| piece.wanted.iter().map(row).collect()))
            .unwrap_or_else(|_| Err(Error::Corrupt("the engine failed to read".into())))
    }
}
