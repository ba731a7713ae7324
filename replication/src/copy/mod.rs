//! Copying tables: all rows they have in the snapshot that a new slot exports.

mod chunk;
mod rows;
mod worker;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kelvin_storage::{Loader, Table, TableId, TableLoad, TableLoader};
use tokio::sync::mpsc;

pub(crate) use chunk::{Chunk, Format, plan};
pub(crate) use rows::Rows;

use crate::decode::Decoded;
use crate::discovery::Discovery;
use crate::options::Options;
use crate::progress::{CopyCounters, Progress};
use crate::{Address, Error, Result};

/// Time between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Connections that may break in one copy, over all workers. Their work is done once more, from the
/// same snapshot; beyond that, the copy fails.
const MAX_RECONNECTS: u32 = 10;
/// Pause before a connection is made anew, times how many broke so far.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Where rows are copied to.
pub(crate) trait Load: Send + Sync + 'static {
    /// Takes the rows of one chunk.
    type Part: Part;

    /// What takes a part of a table's rows.
    fn part(&self, table: TableId) -> Result<Self::Part>;
}

/// Takes rows, one after the other.
pub(crate) trait Part {
    /// Takes a row: one value for each column.
    fn row(&mut self, row: &[Decoded<'_>]) -> Result<()>;

    /// Hands on what came of the rows so far, where it has to be. Called every few rows.
    async fn hand_on(&mut self) -> Result<()> {
        Ok(())
    }

    /// There are no more rows.
    async fn finish(self) -> Result<()>;

    /// Takes back what it was given, as far as that makes a difference: the chunk is copied once
    /// more, or its table is left out.
    fn abandon(self) -> Result<()>;
}

impl Load for Loader {
    type Part = TableLoader;

    fn part(&self, table: TableId) -> Result<TableLoader> {
        Ok(self.table(table)?)
    }
}

impl Load for TableLoad {
    type Part = TableLoader;

    fn part(&self, _table: TableId) -> Result<TableLoader> {
        Ok(Self::part(self))
    }
}

impl Part for TableLoader {
    fn row(&mut self, row: &[Decoded<'_>]) -> Result<()> {
        Ok(self.insert_with(row, Decoded::as_ref)?)
    }

    async fn finish(self) -> Result<()> {
        Ok(Self::finish(self)?)
    }

    fn abandon(self) -> Result<()> {
        Ok(Self::abandon(self)?)
    }
}

/// Tables that were renamed, rewritten or dropped while they were copied, and what happened.
pub(crate) type LeftOut = BTreeMap<TableId, String>;

/// What the workers share.
pub(crate) struct Copy<L> {
    address: Address,
    snapshot: String,
    /// Largest message that is taken from PostgreSQL.
    max_message: usize,
    loader: L,
    queue: Mutex<VecDeque<Chunk>>,
    counters: CopyCounters,
    /// Tables without which the copy may go on.
    dispensable: HashSet<TableId>,
    /// Those it went on without, and why.
    left_out: Mutex<LeftOut>,
    /// Connections that broke.
    broken: AtomicU32,
    /// Set when the copy is given up; the workers then stop.
    stop: Arc<AtomicBool>,
}

/// Gives the copy up when it is dropped.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<L> Copy<L> {
    fn given_up(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn next(&self) -> Option<Chunk> {
        if self.given_up() {
            return None;
        }
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    fn left_out(&self) -> MutexGuard<'_, LeftOut> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_left_out(&self, table: &Table) -> bool {
        self.left_out().contains_key(&table.id)
    }

    /// Goes on without a table, if that may be.
    fn leave_out(&self, table: &Table, why: &str) -> bool {
        if !self.dispensable.contains(&table.id) {
            return false;
        }
        if self.left_out().insert(table.id, why.to_owned()).is_none() {
            self.counters.tables_done.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                table = table.name,
                why,
                "a table is left out of the copy, and copied beside the stream afterwards"
            );
        }
        true
    }

    /// Waits a while where a connection broke; an error where too many did.
    async fn reconnects(&self, error: Error) -> Result<()> {
        let broken = self.broken.fetch_add(1, Ordering::Relaxed) + 1;
        if broken > MAX_RECONNECTS || self.given_up() {
            return Err(error);
        }
        tracing::warn!(
            %error,
            "a connection that copies broke: what it was copying is copied once more"
        );
        tokio::time::sleep(RECONNECT_PAUSE * broken).await;
        Ok(())
    }
}

/// Copies everything into the loader. The connection that exported the snapshot must stay idle
/// until this returns.
pub(crate) async fn copy<L: Load>(
    options: &Options,
    address: &Address,
    snapshot: String,
    discovery: &Discovery,
    loader: L,
    progress: &Arc<dyn Progress>,
) -> Result<L> {
    let all = HashSet::new();
    let copied = copy_most(options, address, snapshot, discovery, loader, progress, all);
    Ok(copied.await?.0)
}

/// As [`copy`], but for those of the `dispensable` tables that are renamed, rewritten or dropped
/// meanwhile. Parts of these may have come to the loader.
pub(crate) async fn copy_most<L: Load>(
    options: &Options,
    address: &Address,
    snapshot: String,
    discovery: &Discovery,
    loader: L,
    progress: &Arc<dyn Progress>,
    dispensable: HashSet<TableId>,
) -> Result<(L, LeftOut)> {
    let chunks = plan(discovery, options.text_copy, options.copy_workers);
    let rows = discovery.sources.iter().map(|source| source.rows).sum();
    let tables = u64::try_from(discovery.sources.len()).unwrap_or(u64::MAX);
    let workers = options.copy_workers.clamp(1, chunks.len().max(1));
    let copy = Arc::new(Copy {
        address: address.clone(),
        snapshot,
        max_message: options.max_message_bytes,
        loader,
        queue: Mutex::new(chunks.into()),
        counters: CopyCounters::new(tables, rows),
        dispensable,
        left_out: Mutex::default(),
        broken: AtomicU32::new(0),
        stop: Arc::new(AtomicBool::new(false)),
    });
    // Also when this future is dropped: the workers would hold the directory.
    let give_up = GiveUp(Arc::clone(&copy.stop));
    let (done, results) = mpsc::channel(workers);
    for number in 0..workers {
        worker::spawn(number, Arc::clone(&copy), done.clone())?;
    }
    drop(done);
    settled(&copy, results, &give_up, progress).await?;
    // Every worker has dropped its handle before it closed its channel.
    let copy = Arc::into_inner(copy);
    let copy = copy.ok_or_else(|| Error::Protocol("a copy worker outlived its work".into()))?;
    let left_out = copy.left_out.into_inner();
    Ok((
        copy.loader,
        left_out.unwrap_or_else(PoisonError::into_inner),
    ))
}

/// Waits for all workers, and tells meanwhile how far they are.
async fn settled<L>(
    copy: &Copy<L>,
    mut results: mpsc::Receiver<Result<()>>,
    give_up: &GiveUp,
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    let mut failure = None;
    let mut report = tokio::time::interval(REPORT_INTERVAL);
    loop {
        tokio::select! {
            result = results.recv() => match result {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    give_up.0.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            },
            _ = report.tick() => {
                progress.copying(copy.counters.now());
                copy.counters.log();
            }
        }
    }
    progress.copying(copy.counters.now());
    failure.map_or(Ok(()), Err)
}
