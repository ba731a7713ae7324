//! The thread that writes to the replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_protocol::Version;
use kelvin_storage::{Applied, Replica, RowOp, Transaction};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::durability::AppliedMark;
use super::queue::{Part, QueueSender, Queued, queue};
use crate::{CommitListener, Error, Options, Result};

/// Most transactions applied as one batch.
const BATCH_TRANSACTIONS: usize = 1024;
/// Operations beyond which no further transaction joins a batch.
const BATCH_OPERATIONS: usize = 4096;
/// Time between two rounds of upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for the thread at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A handle on the thread.
pub(crate) struct Applier {
    queue: QueueSender,
    stop: CancellationToken,
    /// How the thread ended; taken once that is known.
    outcome: Option<oneshot::Receiver<Result<()>>>,
}

impl Applier {
    pub(crate) fn start(
        options: &Options,
        replica: Replica,
        listener: Arc<dyn CommitListener>,
        mark: AppliedMark,
    ) -> Result<Self> {
        let (queue, transactions) = queue(options);
        let stop = CancellationToken::new();
        let (result, outcome) = oneshot::channel();
        let worker = Worker {
            replica,
            listener,
            mark,
            transactions,
            waiting: None,
            stop: stop.clone(),
            started: Instant::now(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name("replica-apply".into())
            .spawn(move || {
                // Nobody may be left to hear it.
                let _ = result.send(worker.work(&runtime));
            })?;
        Ok(Self {
            queue,
            stop,
            outcome: Some(outcome),
        })
    }

    pub(crate) fn queue(&self) -> QueueSender {
        self.queue.clone()
    }

    /// Waits until the thread fails. Cancel-safe; to be called no more once it has.
    pub(crate) async fn failed(&mut self) -> Error {
        let ended = match &mut self.outcome {
            Some(outcome) => outcome.await,
            None => Ok(Ok(())),
        };
        self.outcome = None;
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => Error::Protocol("the thread that applies ended".into()),
        }
    }

    /// Ends the thread after the batch it is at. What is queued is not applied; PostgreSQL sends it
    /// again.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Some(outcome) = self.outcome
            && tokio::time::timeout(STOP_TIMEOUT, outcome).await.is_err()
        {
            tracing::warn!("the thread that applies does not end: its listener blocks");
        }
    }
}

struct Worker {
    replica: Replica,
    listener: Arc<dyn CommitListener>,
    mark: AppliedMark,
    transactions: Receiver<Queued>,
    /// A transaction that could not join the last batch.
    waiting: Option<Queued>,
    stop: CancellationToken,
    started: Instant,
}

enum Work {
    Transaction(Queued),
    Upkeep,
    Stop,
}

impl Worker {
    fn work(mut self, runtime: &tokio::runtime::Runtime) -> Result<()> {
        let mut upkeep = Instant::now() + UPKEEP_INTERVAL;
        loop {
            match runtime.block_on(self.next(upkeep)) {
                Work::Transaction(first) => self.apply(first)?,
                Work::Upkeep => {
                    self.replica.maintain(self.started.elapsed())?;
                    upkeep = Instant::now() + UPKEEP_INTERVAL;
                }
                Work::Stop => return Ok(()),
            }
        }
    }

    async fn next(&mut self, upkeep: Instant) -> Work {
        if !self.stop.is_cancelled()
            && let Some(queued) = self.waiting.take()
        {
            return Work::Transaction(queued);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Work::Stop,
            () = tokio::time::sleep_until(upkeep.into()) => Work::Upkeep,
            queued = self.transactions.recv() => queued.map_or(Work::Stop, Work::Transaction),
        }
    }

    /// Applies a transaction together with those that queued up behind it: one by one while there
    /// is time, in batches under load.
    fn apply(&mut self, first: Queued) -> Result<()> {
        let mut shares = Vec::new();
        let mut batch: Vec<Transaction> = Vec::new();
        let mut operations = 0;
        let mut next = Some(first);
        while let Some(queued) = next {
            let kind = Kind::of(&queued);
            if kind != Kind::Plain && !batch.is_empty() {
                self.waiting = Some(queued);
                break;
            }
            let (transaction, share) = match queued {
                Queued::Parts(version, parts, share) => {
                    return self.apply_parts(version, parts, share);
                }
                Queued::Whole(transaction, share) if kind == Kind::Emptying => {
                    return self.apply_emptying(transaction, share);
                }
                Queued::Whole(transaction, share) => (transaction, share),
                Queued::Barrier(waiting) => {
                    // Whoever waited may have given up.
                    let _ = waiting.send(());
                    return Ok(());
                }
            };
            operations += transaction.ops.len();
            batch.push(transaction);
            shares.push(share);
            let full = kind != Kind::Plain
                || batch.len() >= BATCH_TRANSACTIONS
                || operations >= BATCH_OPERATIONS;
            next = if full {
                None
            } else {
                self.transactions.try_recv().ok()
            };
        }
        let applied = self.replica.apply(&batch)?;
        drop(batch);
        drop(shares);
        self.applied(applied);
        Ok(())
    }

    /// Applies a transaction as its parts come. One that does not come to its end is taken back; at
    /// the end of the thread that is left to the next opening.
    fn apply_parts(
        &self,
        version: Version,
        parts: Receiver<Part>,
        share: OwnedSemaphorePermit,
    ) -> Result<()> {
        let parts = Parts {
            parts,
            ops: Vec::new().into_iter(),
            last: false,
            stop: self.stop.clone(),
        };
        tracing::info!(version, "applying a large transaction in parts");
        match self.replica.apply_in_parts(version, parts) {
            Ok(applied) => {
                drop(share);
                self.applied(applied);
                Ok(())
            }
            Err(Interrupted::Broken) if self.stop.is_cancelled() => Ok(()),
            Err(Interrupted::Broken) => Ok(self.replica.roll_back()?),
            Err(Interrupted::Storage(error)) => Err(error.into()),
        }
    }

    /// Applies a transaction that empties tables: however many rows they have.
    fn apply_emptying(&self, transaction: Transaction, share: OwnedSemaphorePermit) -> Result<()> {
        let ops = transaction
            .ops
            .into_iter()
            .map(Ok::<_, kelvin_storage::Error>);
        let applied = self.replica.apply_in_parts(transaction.version, ops)?;
        drop(share);
        self.applied(applied);
        Ok(())
    }

    fn applied(&self, applied: Applied) {
        self.mark.applied(applied.version);
        self.listener.committed(applied);
    }
}

/// The operations of a transaction that comes in parts.
struct Parts {
    parts: Receiver<Part>,
    ops: std::vec::IntoIter<RowOp>,
    last: bool,
    stop: CancellationToken,
}

/// Why a transaction in parts was not applied.
enum Interrupted {
    /// It did not come to its end.
    Broken,
    Storage(kelvin_storage::Error),
}

impl From<kelvin_storage::Error> for Interrupted {
    fn from(error: kelvin_storage::Error) -> Self {
        Self::Storage(error)
    }
}

impl Iterator for Parts {
    type Item = Result<RowOp, Interrupted>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(op) = self.ops.next() {
                return Some(Ok(op));
            }
            if self.last {
                return None;
            }
            // The session waits with its next part for as long as it lives.
            match self.parts.blocking_recv() {
                Some(part) if !self.stop.is_cancelled() => {
                    self.last = part.last;
                    self.ops = part.ops.into_iter();
                }
                _ => return Some(Err(Interrupted::Broken)),
            }
        }
    }
}

/// How a transaction is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In a batch with others.
    Plain,
    /// By itself, for it changes the schema.
    Reforming,
    /// By itself, for it truncates tables and leaves the schema as it is.
    Emptying,
    /// By itself, as its parts come.
    Parted,
    /// No transaction at all.
    Barrier,
}

impl Kind {
    fn of(queued: &Queued) -> Self {
        let transaction = match queued {
            Queued::Whole(transaction, _) => transaction,
            Queued::Parts(..) => return Self::Parted,
            Queued::Barrier(_) => return Self::Barrier,
        };
        let mut kind = Self::Plain;
        for op in &transaction.ops {
            match op {
                RowOp::Schema(_) => return Self::Reforming,
                RowOp::Truncate { .. } => kind = Self::Emptying,
                _ => {}
            }
        }
        kind
    }
}
