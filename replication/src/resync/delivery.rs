//! The difference on its way to the replica.

use kelvin_protocol::{Value, Version};
use kelvin_storage::{RowOp, Transaction};
use tokio::sync::mpsc;

use crate::Result;
use crate::stream::{Part, QueueSender, closed};

/// Estimated bytes an operation takes beside its texts and values.
const OP_OVERHEAD: usize = 128;

/// Operations, and their estimated bytes in memory.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<RowOp>,
    pub(super) weight: usize,
}

impl Batch {
    pub(super) fn push(&mut self, op: RowOp) {
        let values = match &op {
            RowOp::Insert { row, .. } => row.as_slice(),
            RowOp::Delete { key, .. } => key.as_slice(),
            _ => &[],
        };
        let text = |value: &Value| match value {
            Value::String(text) | Value::Json(text) => text.len(),
            _ => 0,
        };
        let texts: usize = values.iter().map(text).sum();
        self.weight += OP_OVERHEAD + texts + size_of_val(values);
        self.ops.push(op);
    }
}

/// Puts operations together to one transaction. What fits into memory is applied when all of it is
/// there; beyond, it is applied in parts, as it comes.
///
/// INVARIANT: it counts only when [`Delivery::finish`] has handed on the last part. Dropped before,
/// what was applied is taken back.
pub(super) struct Delivery {
    queue: QueueSender,
    version: Version,
    /// Estimated bytes beyond which the transaction goes in parts.
    limit: usize,
    waiting: Batch,
    parts: Option<mpsc::Sender<Part>>,
}

impl Delivery {
    pub(super) fn new(queue: &QueueSender, version: Version, limit: usize) -> Self {
        Self {
            queue: queue.clone(),
            version,
            limit,
            waiting: Batch::default(),
            parts: None,
        }
    }

    /// Takes batches until there are no more.
    pub(super) async fn take(mut self, mut batches: mpsc::Receiver<Batch>) -> Result<Self> {
        while let Some(batch) = batches.recv().await {
            self.waiting.weight += batch.weight;
            self.waiting.ops.extend(batch.ops);
            if self.parts.is_some() || self.waiting.weight > self.limit {
                self.hand_on(false).await?;
            }
        }
        Ok(self)
    }

    async fn hand_on(&mut self, last: bool) -> Result<()> {
        let Batch { ops, weight } = std::mem::take(&mut self.waiting);
        let parts = match &self.parts {
            Some(parts) => parts,
            None => {
                let parts = self.queue.push_parts(self.version, weight).await;
                self.parts.insert(parts.map_err(closed)?)
            }
        };
        let sent = parts.send(Part { ops, last }).await;
        sent.map_err(|_| closed(crate::stream::Closed))
    }

    /// Lets the transaction be applied.
    pub(super) async fn finish(mut self) -> Result<()> {
        if self.parts.is_some() {
            return self.hand_on(true).await;
        }
        let Batch { ops, weight } = self.waiting;
        let transaction = Transaction {
            version: self.version,
            ops,
        };
        let pushed = self.queue.push(transaction, weight).await;
        pushed.map_err(closed)
    }
}
