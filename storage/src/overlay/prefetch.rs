//! Reading the rows that operations are about, ahead of them and on several threads.
//!
//! ```text
//! operations     |piece|piece|piece|piece|piece|
//! other threads                read ►
//! the writer      applied ►
//! ```
//! The writer does not wait for a piece that another thread is about to read, as long as there is
//! one behind it that nobody has begun: it reads that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
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
/// What is there of the rows of a piece, or why they cannot be had.
type Rows = Result<Vec<(Wanted, Option<Row>)>>;

impl Overlay<'_> {
    /// Begins to read the rows that these operations are about, if they are many. Before each of
    /// them is applied, [`arrive`](Self::arrive) is called.
    pub(crate) fn read_ahead(&mut self, ops: &[&RowOp]) {
        self.reserve(ops.len());
        self.ahead = None;
        // Such a change gives rows another form or place than they are read in.
        let is_schema = |op: &&RowOp| matches!(op, RowOp::Schema(_));
        if ops.len() < 2 * ROWS_PER_THREAD || ops.iter().any(is_schema) {
            return;
        }
        let Some(pool) = self.workshop.readers.pool() else {
            return;
        };
        // What is wrong with an operation is told when it is its turn.
        let wanted = |ops: &[&RowOp]| ops.iter().filter_map(|op| self.row_of(op)).collect();
        let work = Arc::new(Work {
            snapshot: self.snapshot.clone(),
            loaded_at: self.loaded_at,
            begun: AtomicUsize::new(0),
            pieces: ops.chunks(PIECE).map(wanted).map(Mutex::new).collect(),
        });
        let helpers = pool.current_num_threads().min(ops.len() / ROWS_PER_THREAD);
        let (done, from_helpers) = channel();
        for _ in 0..helpers {
            let (work, done) = (work.clone(), done.clone());
            pool.spawn(move || work.share(&done));
        }
        let read = work.pieces.iter().map(|_| None).collect();
        self.ahead = Some(Ahead {
            work,
            from_helpers,
            read,
            arrived: 0,
        });
    }

    /// Takes in the rows of the operation that is next, by its place among those whose rows are
    /// read ahead.
    pub(crate) fn arrive(&mut self, at: usize) -> Result<()> {
        let piece = at / PIECE;
        while let Some(ahead) = &mut self.ahead
            && ahead.arrived <= piece
        {
            for ((space, key), row) in ahead.take_next()? {
                self.take_in(&space, key, row)?;
            }
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

/// Rows that are read ahead, as the writer sees them.
pub(super) struct Ahead {
    work: Arc<Work>,
    from_helpers: Receiver<(usize, Rows)>,
    /// Pieces that are read and were not taken yet.
    read: Vec<Option<Rows>>,
    /// Pieces that were taken.
    arrived: usize,
}

impl Ahead {
    /// The next piece. While another thread is about to read it, the writer reads those behind it.
    fn take_next(&mut self) -> Rows {
        loop {
            while let Ok((piece, rows)) = self.from_helpers.try_recv() {
                self.keep(piece, rows);
            }
            if let Some(rows) = self.read.get_mut(self.arrived).and_then(Option::take) {
                self.arrived += 1;
                return rows;
            }
            let (piece, rows) = match self.work.begin() {
                Some((piece, wanted)) => (piece, self.work.read(wanted)),
                None => self.from_helpers.recv().map_err(|_| failed())?,
            };
            self.keep(piece, rows);
        }
    }

    fn keep(&mut self, piece: usize, rows: Rows) {
        if let Some(place) = self.read.get_mut(piece) {
            *place = Some(rows);
        }
    }
}

impl Drop for Ahead {
    /// Nobody wants the rest.
    fn drop(&mut self) {
        let end = self.work.pieces.len();
        self.work.begun.store(end, Ordering::Relaxed);
    }
}

/// Rows to be read, of which each thread takes a piece as soon as it is done with the last, so that
/// one that wakes up late is not waited for.
struct Work {
    snapshot: Snapshot,
    loaded_at: Version,
    /// Pieces that a thread has taken on.
    begun: AtomicUsize,
    pieces: Vec<Mutex<Vec<Wanted>>>,
}

impl Work {
    /// Reads pieces until none is left, or nobody wants them.
    fn share(&self, done: &Sender<(usize, Rows)>) {
        while let Some((piece, wanted)) = self.begin() {
            if done.send((piece, self.read(wanted))).is_err() {
                return;
            }
        }
    }

    /// Takes on the next piece.
    fn begin(&self) -> Option<(usize, Vec<Wanted>)> {
        let at = self.begun.fetch_add(1, Ordering::Relaxed);
        let piece = self.pieces.get(at)?;
        let wanted = std::mem::take(&mut *piece.lock().unwrap_or_else(PoisonError::into_inner));
        Some((at, wanted))
    }

    fn read(&self, wanted: Vec<Wanted>) -> Rows {
        let row = |(space, key): &Wanted| match self.snapshot.get(&space.keyspace, key)? {
            Some(bytes) => space.read(bytes, self.loaded_at).map(Some),
            None => Ok(None),
        };
        let rows = wanted.into_iter().map(|wanted| {
            let row = row(&wanted)?;
            Ok((wanted, row))
        });
        // A panic of the engine would else end the process, or leave the writer waiting.
        catch_unwind(AssertUnwindSafe(|| rows.collect())).unwrap_or_else(|_| Err(failed()))
    }
}

fn failed() -> Error {
    Error::Corrupt("the engine failed to read".into())
}
