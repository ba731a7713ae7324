//! The queue between the stream and the replica, bounded by number and by size.

use std::sync::Arc;

use kelvin_protocol::Version;
use kelvin_storage::{RowOp, Transaction};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Error, Options};

/// Bytes one permit stands for; permits count in 32 bits.
const PERMIT_BYTES: usize = 1024;

/// What is to be applied next.
#[derive(Debug)]
pub(crate) enum Queued {
    /// A transaction that holds its share of the queue's memory.
    Whole(Transaction, OwnedSemaphorePermit),
    /// A transaction that comes in parts. If they end before the last one, it is not to be applied.
    Parts(Version, Receiver<Part>, OwnedSemaphorePermit),
    /// Somebody who waits until everything before is applied, or taken back.
    Barrier(oneshot::Sender<()>),
}

/// Operations of one transaction.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) ops: Vec<RowOp>,
    /// Whether the transaction ends with them.
    pub(crate) last: bool,
}

/// Parts of a transaction that may wait to be applied.
const PARTS_WAITING: usize = 1;

/// The stream's end.
#[derive(Clone)]
pub(crate) struct QueueSender {
    sender: Sender<Queued>,
    memory: Arc<Semaphore>,
    permits: usize,
}

/// The reader of the queue is gone.
#[derive(Debug)]
pub(crate) struct Closed;

/// What that means to whoever wanted to put something in.
pub(crate) fn closed(_: Closed) -> Error {
    Error::Protocol("the queue is closed".into())
}

/// A queue with the limits of the options.
pub(crate) fn queue(options: &Options) -> (QueueSender, Receiver<Queued>) {
    let (sender, receiver) = channel(options.queue_transactions.max(1));
    let permits = (options.queue_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS >> 32);
    let memory = Arc::new(Semaphore::new(permits));
    let sender = QueueSender {
        sender,
        memory,
        permits,
    };
    (sender, receiver)
}

impl QueueSender {
    /// Waits for room and puts the transaction in. A transaction larger than the whole queue waits
    /// until it is empty. Cancel-safe in that it then was not put in.
    pub(crate) async fn push(&self, transaction: Transaction, weight: usize) -> Result<(), Closed> {
        let share = self.share(weight).await?;
        let queued = Queued::Whole(transaction, share);
        self.sender.send(queued).await.map_err(|_| Closed)
    }

    /// Waits for room and puts in a transaction whose parts follow; `weight` is that of the first.
    /// Cancel-safe as above.
    pub(crate) async fn push_parts(
        &self,
        version: Version,
        weight: usize,
    ) -> Result<Sender<Part>, Closed> {
        let share = self.share(weight).await?;
        let (sender, parts) = channel(PARTS_WAITING);
        let queued = Queued::Parts(version, parts, share);
        self.sender.send(queued).await.map_err(|_| Closed)?;
        Ok(sender)
    }

    /// Waits until everything that was put in before is applied, or taken back where it did not
    /// come to its end.
    pub(crate) async fn settled(&self) -> Result<(), Closed> {
        let (sender, settled) = oneshot::channel();
        let barrier = Queued::Barrier(sender);
        self.sender.send(barrier).await.map_err(|_| Closed)?;
        settled.await.map_err(|_| Closed)
    }

    async fn share(&self, weight: usize) -> Result<OwnedSemaphorePermit, Closed> {
        let permits = (weight / PERMIT_BYTES).clamp(1, self.permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory);
        memory.acquire_many_owned(permits).await.map_err(|_| Closed)
    }
}
