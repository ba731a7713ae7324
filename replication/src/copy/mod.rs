//! Copying tables: all rows they have in the snapshot that a new slot exports.

mod chunk;
mod rows;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kelvin_storage::{Loader, TableId, TableLoad, TableLoader};
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
}

/// What the workers share.
pub(crate) struct Copy<L> {
    address: Address,
    snapshot: String,
    loader: L,
    queue: Mutex<VecDeque<Chunk>>,
    counters: CopyCounters,
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
    let chunks = plan(discovery, options.text_copy, options.copy_workers);
    let rows = discovery.sources.iter().map(|source| source.rows).sum();
    let tables = u64::try_from(discovery.sources.len()).unwrap_or(u64::MAX);
    let workers = options.copy_workers.clamp(1, chunks.len().max(1));
    let copy = Arc::new(Copy {
        address: address.clone(),
        snapshot,
        loader,
        queue: Mutex::new(chunks.into()),
        counters: CopyCounters::new(tables, rows),
        stop: Arc::new(AtomicBool::new(false)),
    });
    // Also when this future is dropped: the workers would hold the directory.
    let give_up = GiveUp(Arc::clone(&copy.stop));
    let (done, mut results) = mpsc::channel(workers);
    for number in 0..workers {
        worker::spawn(number, Arc::clone(&copy), done.clone())?;
    }
    drop(done);
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
    if let Some(error) = failure {
        return Err(error);
    }
    // Every worker has dropped its handle before it closed its channel.
    Arc::into_inner(copy)
        .map(|copy| copy.loader)
        .ok_or_else(|| Error::Protocol("a copy worker outlived its work".into()))
}
