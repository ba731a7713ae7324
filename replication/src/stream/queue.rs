//! The queue between the stream and the replica, bounded by number and by size.

use std::sync::Arc;

use kelvin_storage::Transaction;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Options;

/// Bytes one permit stands for; permits count in 32 bits.
const PERMIT_BYTES: usize = 1024;

/// A transaction that holds its share of the queue's memory.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) transaction: Transaction,
    share: OwnedSemaphorePermit,
}

impl Queued {
    /// The transaction, and its share, which is given back when it is dropped.
    pub(crate) fn into_parts(self) -> (Transaction, OwnedSemaphorePermit) {
        (self.transaction, self.share)
    }
}

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
        let permits = (weight / PERMIT_BYTES).clamp(1, self.permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory);
        let share = memory
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Closed)?;
        let queued = Queued { transaction, share };
        self.sender.send(queued).await.map_err(|_| Closed)
    }
}
