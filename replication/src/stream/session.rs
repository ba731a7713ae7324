//! One connection's worth of the stream.

use std::sync::Arc;
use std::time::Duration;

use kelvin_protocol::Version;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::assembler::{Assembled, Assembler, StreamSchema};
use super::backoff::Backoff;
use super::feedback::Feedback;
use super::lag::Lag;
use super::pgoutput::Message;
use super::queue::{Closed, Part, QueueSender, closed};
use super::spool::{Replay, Spool, Step};
use super::survey::Surveyor;
use crate::shift::Shift;
use crate::wire::{CopyBoth, Inbound};
use crate::{Error, Result};

/// Longest time between two status updates.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// Status updates in one `wal_sender_timeout`.
const STATUS_PER_TIMEOUT: u32 = 4;
/// Shortest time between two status updates about what became durable.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(20);
/// A day stands for "never" where there is no watchdog.
const NEVER: Duration = Duration::from_secs(86_400);

/// What a session works with.
pub(crate) struct Session<'a> {
    pub(crate) stream: CopyBoth,
    pub(crate) assembler: Assembler,
    /// Transactions in progress.
    pub(crate) spool: Spool,
    /// The schema behind the last transaction that went into the queue.
    pub(crate) schema: &'a mut StreamSchema,
    pub(crate) surveyor: Arc<Mutex<Surveyor>>,
    pub(crate) feedback: &'a mut Feedback,
    /// Starts over with each message.
    pub(crate) backoff: &'a mut Backoff,
    pub(crate) queue: QueueSender,
    /// Where the next part of a transaction goes, if one comes in parts.
    pub(crate) parts: Option<mpsc::Sender<Part>>,
    pub(crate) durable: watch::Receiver<Version>,
    pub(crate) lag: Lag,
    pub(crate) shift: Shift,
    /// Told when a table is described, for its schema may have changed.
    pub(crate) described: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
    /// The server's; zero for never.
    pub(crate) wal_sender_timeout: Duration,
    /// Silence after which the connection is given up.
    pub(crate) inbound_timeout: Option<Duration>,
}

enum Event {
    Message(Inbound),
    Durable,
    Tick,
    Silence,
    Shutdown,
}

struct Clocks {
    status: Interval,
    last_inbound: Instant,
    last_status: Instant,
}

impl Session<'_> {
    /// Streams until shutdown, which is `Ok`, or until something fails.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut clocks = self.clocks();
        loop {
            match self.event(&mut clocks).await? {
                Event::Shutdown => return Ok(()),
                Event::Silence => {
                    return Err(Error::Timeout(format!(
                        "PostgreSQL has been silent for {:?}",
                        clocks.last_inbound.elapsed()
                    )));
                }
                Event::Tick => {
                    // The server only speaks up when we are silent, so ask it whether it is there.
                    let silent = clocks.last_inbound.elapsed() >= clocks.status.period() / 2;
                    self.status(&mut clocks, silent).await?;
                }
                Event::Durable => {
                    let due = clocks.last_status + CONFIRM_INTERVAL;
                    tokio::time::sleep_until(due).await;
                    let version = *self.durable.borrow_and_update();
                    self.feedback.durable(version);
                    self.status(&mut clocks, false).await?;
                }
                Event::Message(message) => {
                    self.backoff.reset();
                    self.take(message, &mut clocks).await?;
                    while let Some(message) = self.stream.buffered()? {
                        self.take(message, &mut clocks).await?;
                    }
                    clocks.last_inbound = Instant::now();
                }
            }
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn clocks(&self) -> Clocks {
        let period = match self.wal_sender_timeout {
            Duration::ZERO => STATUS_INTERVAL,
            timeout => (timeout / STATUS_PER_TIMEOUT).min(STATUS_INTERVAL),
        };
        let mut status = interval(period.max(CONFIRM_INTERVAL));
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Clocks {
            status,
            last_inbound: Instant::now(),
            last_status: Instant::now(),
        }
    }

    async fn event(&mut self, clocks: &mut Clocks) -> Result<Event> {
        let deadline = clocks.last_inbound + self.inbound_timeout.unwrap_or(NEVER);
        tokio::select! {
            () = self.shutdown.cancelled() => Ok(Event::Shutdown),
            message = self.stream.next() => message.map(Event::Message),
            changed = self.durable.changed() => match changed {
                Ok(()) => Ok(Event::Durable),
                Err(_) => Err(Error::Protocol("the replica is no longer synced".into())),
            },
            _ = clocks.status.tick() => Ok(Event::Tick),
            () = sleep_until(deadline) => Ok(match self.inbound_timeout {
                Some(_) => Event::Silence,
                None => Event::Tick,
            }),
        }
    }

    async fn status(&mut self, clocks: &mut Clocks, reply: bool) -> Result<()> {
        let position = self.shift.lsn(self.feedback.confirm());
        self.stream.status(position, reply).await?;
        clocks.last_status = Instant::now();
        Ok(())
    }

    async fn take(&mut self, message: Inbound, clocks: &mut Clocks) -> Result<()> {
        // INVARIANT: a shutdown may have kept a transaction out of the queue, so nothing after it
        // is looked at, lest a position beyond it be confirmed.
        if self.shutdown.is_cancelled() {
            return Ok(());
        }
        match message {
            Inbound::Keepalive { wal_end, reply } => {
                // In the middle of a transaction the position may lie beyond its commit. What is
                // only spooled commits behind it.
                if !self.assembler.in_transaction() && !self.spool.in_chunk() {
                    self.feedback.received(self.shift.version(wal_end));
                }
                if reply {
                    self.status(clocks, false).await?;
                }
            }
            Inbound::Data(bytes) => {
                let in_transaction = self.assembler.in_transaction();
                match self.spool.push(bytes, in_transaction)? {
                    Step::Pass(bytes) => {
                        let assembled = self.assembler.push(bytes)?;
                        self.assembled(assembled, clocks).await?;
                        self.make_room(clocks).await?;
                    }
                    Step::Taken => {
                        if let Some(write) = self.spool.due()? {
                            let written = async move { write.run().await.map(Some) };
                            self.meanwhile(written, clocks).await?;
                        }
                    }
                    Step::Commit {
                        replay,
                        commit_lsn,
                        end_lsn,
                    } => {
                        let begin = Message::Begin {
                            final_lsn: commit_lsn,
                        };
                        let commit = Message::Commit {
                            commit_lsn,
                            end_lsn,
                        };
                        self.replay(begin, replay, commit, clocks).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a transaction that was in progress as if it came now.
    async fn replay(
        &mut self,
        begin: Message,
        mut replay: Replay,
        commit: Message,
        clocks: &mut Clocks,
    ) -> Result<()> {
        self.assembler.take(begin, 0)?;
        loop {
            while let Some(bytes) = replay.next(&self.assembler)? {
                let assembled = self.assembler.push(bytes)?;
                self.assembled(assembled, clocks).await?;
                self.make_room(clocks).await?;
                // INVARIANT: as in `take`, for a part may have been kept out of the queue.
                if self.shutdown.is_cancelled() {
                    return Ok(());
                }
            }
            let Some(read) = replay.read() else { break };
            let bytes = async move { read.run().await.map(Some) };
            match self.meanwhile(bytes, clocks).await? {
                Some(bytes) => replay.give(&bytes),
                None => return Ok(()),
            }
        }
        for relation in replay.recalled(&mut self.spool) {
            self.assembler.recall(relation);
        }
        let assembled = self.assembler.take(commit, 0)?;
        self.assembled(assembled, clocks).await?;
        self.make_room(clocks).await
    }

    /// Waits until more changes may be kept for tables that are copied.
    ///
    /// INVARIANT: in the middle of a transaction that is applied in parts nothing waits for a copy,
    /// for the copy may wait for the replica, which waits for the rest of the transaction.
    async fn make_room(&mut self, clocks: &mut Clocks) -> Result<()> {
        let may_wait = self.parts.is_none() && !self.assembler.schema().outstanding.is_empty();
        if may_wait && !self.assembler.backfills().has_room() {
            let backfills = self.assembler.backfills().clone();
            let room = async move {
                backfills.room().await;
                Ok(Some(()))
            };
            self.meanwhile(room, clocks).await?;
        }
        Ok(())
    }

    /// Does what came of a message.
    async fn assembled(&mut self, assembled: Assembled, clocks: &mut Clocks) -> Result<()> {
        match assembled {
            Assembled::Nothing => {}
            Assembled::Described => self.described.notify_one(),
            Assembled::Unclear(relation) => {
                let surveyor = Arc::clone(&self.surveyor);
                let look = async move { surveyor.lock().await.survey().await.map(Some) };
                if let Some(survey) = self.meanwhile(look, clocks).await? {
                    self.assembler.interpret(relation, &survey)?;
                }
                self.described.notify_one();
            }
            Assembled::Marked(number) => {
                let surveyor = Arc::clone(&self.surveyor);
                let look = async move { Ok(surveyor.lock().await.announced(number)) };
                if let Some(survey) = self.meanwhile(look, clocks).await? {
                    self.assembler.adopt(&survey)?;
                }
            }
            Assembled::Timed(number) => self.follow_lag(number),
            Assembled::Empty { end } => {
                self.feedback.received(end);
            }
            Assembled::Transaction {
                transaction,
                weight,
            } => {
                let (version, queue) = (transaction.version, self.queue.clone());
                let push = async move { queue.push(transaction, weight).await };
                if self.patiently(push, clocks).await?.is_some() {
                    self.enqueued(version);
                    self.assembler.renewal().map_or(Ok(()), Err)?;
                }
            }
            Assembled::Part {
                reform,
                version,
                ops,
                weight,
                last,
            } => {
                if let Some(reform) = reform {
                    let (version, queue) = (reform.version, self.queue.clone());
                    let push = async move { queue.push(reform, 0).await };
                    if self.patiently(push, clocks).await?.is_none() {
                        return Ok(());
                    }
                    self.enqueued(version);
                }
                self.pass_on(version, Part { ops, last }, weight, clocks)
                    .await?;
                if last {
                    self.assembler.renewal().map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(())
    }

    /// Times a message until what came before it is applied. One at a time is followed.
    fn follow_lag(&self, number: u64) {
        if !self.lag.received(number) {
            return;
        }
        let (queue, lag) = (self.queue.clone(), self.lag.clone());
        tokio::spawn(async move {
            match queue.settled().await {
                Ok(()) => lag.applied(number),
                Err(_) => lag.lost(number),
            }
        });
    }

    /// Waits for something. Meanwhile nothing is read, but the server still hears that we are
    /// alive. `None` at shutdown, or if that is what comes of it.
    async fn meanwhile<T>(
        &mut self,
        look: impl Future<Output = Result<Option<T>>>,
        clocks: &mut Clocks,
    ) -> Result<Option<T>> {
        let mut look = std::pin::pin!(look);
        loop {
            tokio::select! {
                biased;
                outcome = &mut look => return outcome,
                () = self.shutdown.cancelled() => return Ok(None),
                _ = clocks.status.tick() => {
                    let durable = *self.durable.borrow();
                    self.feedback.durable(durable);
                    self.status(clocks, false).await?;
                }
            }
        }
    }

    /// Waits for room in the queue. Meanwhile nothing is read, so TCP holds the server back, but
    /// the server still hears that we are alive. `None` at shutdown.
    async fn patiently<T>(
        &mut self,
        push: impl Future<Output = Result<T, Closed>>,
        clocks: &mut Clocks,
    ) -> Result<Option<T>> {
        let push = async move { push.await.map(Some).map_err(closed) };
        self.meanwhile(push, clocks).await
    }

    /// Hands on a part of a transaction.
    ///
    /// INVARIANT: it counts as queued when its last part is. If the session ends before, the parts
    /// end without it, what was applied is taken back, and the server sends all of it again.
    async fn pass_on(
        &mut self,
        version: Version,
        part: Part,
        weight: usize,
        clocks: &mut Clocks,
    ) -> Result<()> {
        let parts = match self.parts.take() {
            Some(parts) => parts,
            None => {
                let queue = self.queue.clone();
                let push = async move { queue.push_parts(version, weight).await };
                match self.patiently(push, clocks).await? {
                    Some(parts) => parts,
                    None => return Ok(()),
                }
            }
        };
        let last = part.last;
        let sender = parts.clone();
        let send = async move { sender.send(part).await.map_err(|_| Closed) };
        if self.patiently(send, clocks).await?.is_none() {
            return Ok(());
        }
        if last {
            self.enqueued(version);
        } else {
            self.parts = Some(parts);
        }
        Ok(())
    }

    fn enqueued(&mut self, version: Version) {
        self.feedback.enqueued(version);
        self.schema.clone_from(self.assembler.schema());
        self.assembler.backfills().settled();
    }
}
