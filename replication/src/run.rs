//! Following the stream, over reconnects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_protocol::Version;
use kelvin_storage::IndexBuilder;
use tokio::sync::{Mutex, Notify, watch};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::backfill::Copier;
use crate::preflight::{REPLICATOR_NAME, explain};
use crate::prepare::{Course, Prepared, blocking};
use crate::resync::Resync;
use crate::stream::{
    Applier, Assembler, Backoff, Durability, Feedback, LagProbe, Marks, Modes, QueueSender,
    SchemaWatch, Session, Severity, Spool, StreamSchema, Surveyor, closed,
};
use crate::timeline::{self, TIMELINE};
use crate::wire::{CopyBoth, ReplicationConnection, StreamOptions, SystemIdentity};
use crate::{CommitListener, Error, ErrorKind, Result, sql, upstream};

/// Attempts to get a slot that another process streams from.
const TAKEOVER_ATTEMPTS: u32 = 50;
const TAKEOVER_PAUSE: Duration = Duration::from_millis(100);

/// Pause before the replica is brought up again that was brought up shortly before; it doubles from
/// then on.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
/// Longest such pause.
const AGAIN_LONGEST: Duration = Duration::from_secs(300);
/// A stream that was followed for so long does not make the next pause longer.
const LASTING: Duration = Duration::from_secs(60);

impl Prepared {
    /// Follows the stream until `shutdown`: applies every transaction, tells `listener`, confirms
    /// to PostgreSQL what is durable. Reconnects by itself, with growing pauses. Where the stream
    /// cannot be followed any more, the replica is brought up to the upstream by what differs, if
    /// [`Options::auto_reset`](crate::Options::auto_reset) allows it; `listener` hears of that as
    /// of one commit.
    ///
    /// # Errors
    /// * `Resync`: the slot or the upstream is not the one the replica was copied from, or its
    ///   schema changed in a way that cannot be followed, and the replica cannot be brought up to
    ///   it. Drop every handle on the replica, [`discard`](crate::discard) it and
    ///   [`prepare`](crate::prepare) anew.
    /// * `Config`: only the operator can mend it. What keeps it from connecting is not among these,
    ///   for it may be mended while kelvin runs.
    /// * `Storage`: the replica cannot be written.
    pub async fn run(
        mut self,
        listener: Arc<dyn CommitListener>,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let (replica, interval) = (self.replica.clone(), self.options.sync_interval);
        let durability = blocking(move || Durability::start(replica, interval)).await?;
        let mark = durability.mark();
        let mut applier = Applier::start(&self.options, self.replica.clone(), listener, mark)?;
        let course = std::mem::replace(&mut self.course, Err(String::new()));
        let runner = Runner {
            indexes: Arc::new(IndexBuilder::start(self.replica.clone())?),
            prepared: Arc::new(self),
            queue: applier.queue(),
            durable: durability.durable(),
            shutdown,
        };
        let outcome = tokio::select! {
            biased;
            outcome = runner.run(course) => outcome,
            error = applier.failed() => Err(error),
            error = durability.failed() => Err(error),
        };
        // They may hold the replica.
        runner.prepared.backfills.restart(&BTreeMap::new(), None);
        drop(runner);
        applier.stop().await;
        durability.stop().await;
        outcome
    }
}

/// Follows one course after the other.
struct Runner {
    prepared: Arc<Prepared>,
    indexes: Arc<IndexBuilder>,
    queue: QueueSender,
    durable: watch::Receiver<Version>,
    shutdown: CancellationToken,
}

impl Runner {
    async fn run(&self, mut course: Result<Course, String>) -> Result<()> {
        let (mut pause, mut is_again) = (AGAIN_FIRST, false);
        loop {
            let begun = Instant::now();
            let reason = match course {
                Err(reason) => reason,
                Ok(course) => match Box::pin(self.follow(course)).await {
                    Err(Error::Resync(reason)) if self.prepared.options.auto_reset => reason,
                    ended => return ended,
                },
            };
            // Something may be wrong that a resync does not mend.
            if begun.elapsed() >= LASTING {
                (pause, is_again) = (AGAIN_FIRST, false);
            }
            if std::mem::replace(&mut is_again, true) {
                tracing::warn!(reason, "the stream ended soon; going on in {pause:?}");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.shutdown.cancelled() => return Ok(()),
                }
                pause = (pause * 2).min(AGAIN_LONGEST);
            }
            course = tokio::select! {
                course = Box::pin(self.bring_up(&reason)) => Ok(course?),
                () = self.shutdown.cancelled() => return Ok(()),
            };
        }
    }

    /// Makes the replica one that can follow the stream again.
    async fn bring_up(&self, reason: &str) -> Result<Course> {
        let prepared = &self.prepared;
        let resync = Resync {
            options: &prepared.options,
            replica: &prepared.replica,
            queue: &self.queue,
            durable: self.durable.clone(),
            progress: &prepared.progress,
        };
        resync.run(reason).await
    }

    /// Follows the stream, with all that goes on beside it.
    async fn follow(&self, mut course: Course) -> Result<()> {
        let prepared = &self.prepared;
        let described = Arc::new(Notify::new());
        let surveyor = Surveyor::new(
            &prepared.options,
            prepared.address.clone(),
            course.publications.clone(),
            std::mem::take(&mut course.known),
        );
        let (marks, broken) = (surveyor.marks(), surveyor.broken());
        let surveyor = Arc::new(Mutex::new(surveyor));
        let watch = SchemaWatch {
            interval: prepared.options.schema_interval,
            surveyor: Arc::clone(&surveyor),
            replica: prepared.replica.clone(),
            indexes: Arc::clone(&self.indexes),
            described: Arc::clone(&described),
            backfills: prepared.backfills.clone(),
        };
        let copier = Copier {
            backfills: prepared.backfills.clone(),
            options: prepared.options.clone(),
            address: prepared.address.clone(),
            publications: course.publications.clone(),
            slot: course.slot.clone(),
            shift: course.shift,
            replica: prepared.replica.clone(),
            surveyor: Arc::clone(&surveyor),
            described: Arc::clone(&described),
        };
        let probe = LagProbe {
            interval: prepared.options.lag_report_interval,
            surveyor: Arc::clone(&surveyor),
            lag: prepared.lag.clone(),
        };
        // What changed while nobody followed is looked for at once.
        described.notify_one();
        let follower = Follower {
            prepared: Arc::clone(prepared),
            course,
            surveyor,
            marks,
            broken,
            described,
            shutdown: self.shutdown.clone(),
            queue: self.queue.clone(),
            durable: self.durable.clone(),
        };
        let outcome = tokio::select! {
            biased;
            outcome = follower.follow() => outcome,
            never = watch.run() => match never {},
            never = copier.run() => match never {},
            never = probe.run() => match never {},
        };
        // What was copied for this stream is of no use to the next.
        prepared.backfills.restart(&BTreeMap::new(), None);
        outcome
    }
}

/// Keeps a session going.
struct Follower {
    prepared: Arc<Prepared>,
    course: Course,
    surveyor: Arc<Mutex<Surveyor>>,
    /// Those of the surveyor, who may be held up by a connection that is lost.
    marks: Marks,
    /// Ends what the surveyor is at when the stream breaks off.
    broken: Arc<Notify>,
    described: Arc<Notify>,
    shutdown: CancellationToken,
    queue: QueueSender,
    durable: watch::Receiver<Version>,
}

impl Follower {
    async fn follow(self) -> Result<()> {
        let mut feedback = Feedback::new(*self.durable.borrow());
        let mut backoff = Backoff::default();
        let lingers = self.course.facts.lingers();
        let catalog = self.prepared.replica.catalog();
        let mut schema = StreamSchema::new(catalog).lingering(lingers);
        let mut modes = Modes::default();
        loop {
            let mode = modes.choose(&self.prepared.options, &schema, feedback.start());
            let ended = tokio::select! {
                ended = self.session(mode, &mut feedback, &mut schema, &mut backoff) => ended,
                () = self.shutdown.cancelled() => return Ok(()),
            };
            let Err(error) = ended else { return Ok(()) };
            if !error.may_pass() {
                return Err(error);
            }
            self.broken.notify_waiters();
            // A look that was given up is made up for.
            self.described.notify_one();
            if modes.learn(mode, &error, feedback.start()) {
                tracing::info!(%error, "the stream is begun anew otherwise");
                continue;
            }
            let (wait, severity) = backoff.next();
            report(&error, wait, severity);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Connects and streams until something fails.
    async fn session(
        &self,
        mode: StreamOptions,
        feedback: &mut Feedback,
        schema: &mut StreamSchema,
        backoff: &mut Backoff,
    ) -> Result<()> {
        let prepared = &self.prepared;
        let stream = self.connect(mode, feedback).await.map_err(mendable)?;
        let timeout = self.course.facts.wal_sender_timeout;
        let watchdog = (!timeout.is_zero()).then(|| timeout * 2);
        let backfills = prepared.backfills.clone();
        backfills.restart(&schema.outstanding, schema.awaited);
        let session = Session {
            stream,
            assembler: Assembler::new(
                schema.clone(),
                Some(self.marks.clone()),
                backfills,
                prepared.options.transaction_bytes,
            )
            .shifted(self.course.shift)
            .in_binary(mode.binary),
            lag: prepared.lag.clone(),
            spool: Spool::new(
                prepared.options.replica_dir.clone(),
                prepared.options.spool_bytes,
            ),
            shift: self.course.shift,
            schema,
            surveyor: Arc::clone(&self.surveyor),
            feedback,
            backoff,
            queue: self.queue.clone(),
            parts: None,
            durable: self.durable.clone(),
            described: Arc::clone(&self.described),
            shutdown: self.shutdown.clone(),
            wal_sender_timeout: timeout,
            inbound_timeout: prepared.options.inbound_timeout.or(watchdog),
        };
        session.run().await.map_err(lost_publication)
    }

    async fn connect(&self, mode: StreamOptions, feedback: &mut Feedback) -> Result<CopyBoth> {
        let prepared = &self.prepared;
        let (address, slot) = (&prepared.address, self.course.slot.as_str());
        let client = sql::connect(address, REPLICATOR_NAME)
            .await
            .map_err(|error| explain(error, address))?;
        for attempt in 1.. {
            let confirmed = self.check_slot(&client).await?;
            feedback.slot_confirmed(self.course.shift.version(confirmed));
            match self.start(mode, feedback).await {
                Err(error) if error.sqlstate() == Some("55006") && attempt < TAKEOVER_ATTEMPTS => {
                    tokio::time::sleep(TAKEOVER_PAUSE).await;
                }
                // The slot was invalidated, or logical decoding was turned off; the checks before
                // the new copy tell.
                Err(error) if error.sqlstate() == Some("55000") => {
                    return Err(Error::Resync(format!(
                        "slot {slot:?} cannot be used: {error}"
                    )));
                }
                outcome => return outcome,
            }
        }
        Err(Error::Timeout(format!("slot {slot:?} stays in use")))
    }

    /// Makes sure that the slot is there and free; gives the position it is confirmed to.
    async fn check_slot(&self, client: &Client) -> Result<u64> {
        let slot = self.course.slot.as_str();
        let Some(state) = upstream::slot_state(client, slot).await? else {
            return Err(Error::Resync(format!("slot {slot:?} is gone")));
        };
        if state.lost {
            return Err(Error::Resync(format!(
                "slot {slot:?} has lost WAL it needs"
            )));
        }
        if let Some(pid) = state.active_pid {
            tracing::info!(slot, pid, "ending the process that streams from our slot");
            upstream::terminate_user(client, slot).await?;
        }
        Ok(state.confirmed)
    }

    async fn start(&self, mode: StreamOptions, feedback: &Feedback) -> Result<CopyBoth> {
        let prepared = &self.prepared;
        let limit = prepared.options.max_message_bytes;
        let address = &prepared.address;
        let mut connection = ReplicationConnection::open(address, REPLICATOR_NAME, limit)
            .await
            .map_err(|error| explain(error, address))?;
        let system = connection.identify().await?;
        if system.system_identifier != self.course.system_identifier {
            return Err(Error::Resync(
                "there is another PostgreSQL cluster at the address now".into(),
            ));
        }
        let shift = self.course.shift;
        if shift.version(system.flushed) < feedback.start().saturating_sub(1) {
            return Err(Error::Resync(
                "PostgreSQL has gone back in time, as after a restore".into(),
            ));
        }
        self.check_timeline(&mut connection, &system, feedback)
            .await?;
        let start = shift.lsn(feedback.start());
        let (slot, publications) = (&self.course.slot, &self.course.publications);
        let stream = connection.start(slot, start, publications, mode).await?;
        tracing::info!(slot, start = %crate::Lsn(start), ?mode, "streaming from PostgreSQL");
        Ok(stream)
    }

    /// Makes sure that a server on another timeline has all that the replica has.
    ///
    /// INVARIANT: the new timeline is noted before anything of it is streamed. What is held then is
    /// before its beginning, and never has to be looked at again.
    async fn check_timeline(
        &self,
        connection: &mut ReplicationConnection,
        system: &SystemIdentity,
        feedback: &Feedback,
    ) -> Result<()> {
        let replica = &self.prepared.replica;
        let identity = replica.identity();
        let known = identity.details.get(TIMELINE);
        let known = known.and_then(|text| text.parse::<u32>().ok());
        if known == Some(system.timeline) {
            return Ok(());
        }
        // Replicas of earlier versions do not say.
        if let Some(known) = known {
            let reached = self.course.shift.lsn(feedback.start().saturating_sub(1));
            timeline::check(connection, system, known, reached).await?;
        }
        // Nobody may write while parts of a transaction that broke off are taken back.
        self.queue.settled().await.map_err(closed)?;
        let (replica, timeline) = (replica.clone(), system.timeline);
        blocking(move || {
            Ok(replica.update_identity(|identity| {
                let timeline = timeline.to_string();
                identity.details.insert(TIMELINE.to_owned(), timeline);
            })?)
        })
        .await
    }
}

/// Nothing about connecting ends a server that runs: the operator may mend it meanwhile.
fn mendable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Config => Error::Unreachable(error.to_string()),
        _ => error,
    }
}

/// A publication that was dropped and created again does not help: the stream reads the catalog as
/// it was at each change.
fn lost_publication(error: Error) -> Error {
    match error.sqlstate() {
        Some("42704") => Error::Resync(format!("a publication is gone: {error}")),
        _ => error,
    }
}

fn report(error: &Error, wait: Duration, severity: Severity) {
    debug_assert!(error.kind() != ErrorKind::Resync);
    match severity {
        Severity::Info => tracing::info!(%error, ?wait, "the stream ended, connecting again"),
        Severity::Warn => tracing::warn!(%error, ?wait, "the stream ended, connecting again"),
        Severity::Error => tracing::error!(%error, ?wait, "the stream ended, connecting again"),
    }
}
