//! Bringing a replica that is there up to an upstream whose stream it cannot follow any more.
//!
//! ```text
//! mark ─► old slot goes ─► new slot, snapshot at C ─► COPY, each row compared with the replica's
//!     ─► what differs, as one transaction of version C − 1 ─► durable ─► identity: the new slot
//! ```
//! A row that is the same is not written: it keeps its version, and whoever has seen it hears
//! nothing. The replica is read all the while, and shows its last state until the difference is
//! there as a whole. Tables whose form is another one now are not compared: they stand still, and
//! are copied [beside the stream](crate::backfill), as are those that are new. Those that were made
//! anew in the same form, as in a logical copy of the database, are compared like any other.
//!
//! Where LSNs went back, because the server was restored or replaced, versions are
//! [shifted](crate::shift::Shift) from then on, so that they go on rising.
//!
//! INVARIANT: the mark is on the disk before the old slot goes and until the identity names the new
//! one, which it does when the difference is durable. A replica with a mark follows no slot, so a
//! crash at any moment begins all of this again: neither an old slot is followed with a newer
//! state, nor a new one, which may even have the name of the old, with an older state.

mod compare;
mod delivery;
mod judge;
mod renewal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kelvin_protocol::Version;
use kelvin_storage::{Replica, RowOp, SchemaChange, Transaction};
use tokio::sync::watch;

use self::compare::compare;
use self::delivery::Delivery;
use self::judge::Judgement;
use self::renewal::Renewal;
use crate::discovery::{Discovery, discover};
use crate::lineage::Lineage;
use crate::preflight::{self, Upstream};
use crate::prepare::{
    Course, blocking, claim, clean_up, details, discover_in, lacking, warn_of_unsynced,
};
use crate::shift::Shift;
use crate::stream::{QueueSender, closed};
use crate::upstream::{self, RegisteredReplica};
use crate::wire::CreatedSlot;
use crate::{Error, ErrorKind, Options, Progress, Result};

/// Detail of a replica's identity that says why it follows no slot.
pub(crate) const RESYNC: &str = "resync";

/// Pause before the first repeated attempt; it doubles from then on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What bringing a replica up to its upstream came to, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resynced {
    /// Rows that were the same.
    pub kept: u64,
    /// Rows that had other values.
    pub changed: u64,
    /// Rows that were not there.
    pub added: u64,
    /// Rows that are no more.
    pub removed: u64,
}

/// Brings a replica up.
pub(crate) struct Resync<'a> {
    pub(crate) options: &'a Options,
    pub(crate) replica: &'a Replica,
    /// Of the thread that writes to the replica.
    pub(crate) queue: &'a QueueSender,
    /// The version that is durable.
    pub(crate) durable: watch::Receiver<Version>,
    pub(crate) progress: &'a Arc<dyn Progress>,
}

impl Resync<'_> {
    /// Brings the replica up, over as many attempts as it takes. Nothing about the server ends
    /// this: the operator may mend it meanwhile.
    ///
    /// # Errors
    /// `Resync` where only a new copy of everything helps, and `Storage`.
    pub(crate) async fn run(&self, reason: &str) -> Result<Course> {
        tracing::warn!(
            reason,
            "the stream cannot be followed: copying what differs from the replica, which is served \
             as it is until then"
        );
        self.progress.resyncing(reason);
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.attempt(reason).await {
                Ok(course) => return Ok(course),
                Err(error) => error,
            };
            if matches!(error.kind(), ErrorKind::Resync | ErrorKind::Storage) {
                return Err(error);
            }
            tracing::error!(%error, "what differs cannot be copied now; trying again in {pause:?}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn attempt(&self, reason: &str) -> Result<Course> {
        // What was queued is applied; what did not come to its end is taken back.
        self.queue.settled().await.map_err(closed)?;
        self.mark(reason).await?;
        let options = self.options;
        let mut upstream = preflight::check(options).await?;
        let publications = upstream::ensure(&mut upstream.client, options).await?;
        upstream::ensure_replica_identities(&upstream.client, &publications).await?;
        let now = discover(&upstream.client, &publications).await?;
        self.check(&now)?;
        let lineage = self.leave_old_slot(&upstream).await?;
        let mut connection =
            preflight::open_replication(&upstream.address, &upstream.client, options).await?;
        let failover = options.failover_slot && upstream.facts.knows_failover_slots();
        let (slot, created, registered) =
            claim(options, &mut upstream.client, &mut connection, failover).await?;
        let lineage = Lineage {
            slot: Some(slot.clone()),
            ..lineage
        };
        let work = async {
            lineage.write(&options.replica_dir)?;
            let registered = registered?;
            let from_slot = FromSlot {
                resync: self,
                upstream: &upstream,
                publications: &publications,
                created: &created,
                registered: &registered,
                lineage: &lineage,
            };
            from_slot.run().await
        };
        let outcome = work.await;
        // The exported snapshot lived as long as this connection was idle.
        connection.close().await;
        if outcome.is_err() {
            clean_up(options, &slot).await;
        }
        outcome
    }

    /// # Errors
    /// [`Error::Resync`] where kelvin's own tables cannot be brought up.
    fn check(&self, now: &Discovery) -> Result<()> {
        let held = self.replica.catalog();
        match lacking(&held, now, &self.options.internal_schemas()) {
            Some(reason) => Err(Error::Resync(reason)),
            None => Ok(()),
        }
    }

    async fn mark(&self, reason: &str) -> Result<()> {
        let (replica, reason) = (self.replica.clone(), reason.to_owned());
        blocking(move || {
            Ok(replica.update_identity(|identity| {
                identity.details.insert(RESYNC.to_owned(), reason);
            })?)
        })
        .await
    }

    /// Drops the slots that the replica is known to have had, so that they hold no WAL and make
    /// room. Gives what is known of the lineage then.
    async fn leave_old_slot(&self, upstream: &Upstream) -> Result<Lineage> {
        let identity = self.replica.identity();
        let known = Lineage::read(&self.options.replica_dir).unwrap_or_default();
        let shard = self.options.shard();
        let mut old = vec![identity.slot];
        old.extend(known.slot);
        old.dedup();
        for slot in old {
            upstream::drop_slot(&upstream.client, &slot).await?;
            upstream::forget(&upstream.client, &shard, &slot).await?;
        }
        let lineage = Lineage {
            // Versions of the replica go on, whatever the upstream has been through.
            epoch: identity.epoch.max(known.epoch),
            system_identifier: upstream.system.system_identifier.clone(),
            timeline: upstream.system.timeline,
            watermark: self.replica.watermark().max(known.watermark),
            slot: None,
        };
        // The directory is tried before anything is created upstream.
        lineage.write(&self.options.replica_dir)?;
        Ok(lineage)
    }
}

/// What is left to do when there is a slot.
struct FromSlot<'a> {
    resync: &'a Resync<'a>,
    upstream: &'a Upstream,
    publications: &'a [String],
    created: &'a CreatedSlot,
    registered: &'a RegisteredReplica,
    lineage: &'a Lineage,
}

impl FromSlot<'_> {
    async fn run(&self) -> Result<Course> {
        let Resync {
            options,
            replica,
            progress,
            ..
        } = *self.resync;
        let discovery = discover_in(self.upstream, self.created, self.publications).await?;
        warn_of_unsynced(&discovery);
        self.resync.check(&discovery)?;
        let renewal = Renewal::of(&replica.catalog(), &discovery.catalog);
        let judgement = Judgement::of(&renewal.catalog, &discovery);
        // INVARIANT: the slot streams what commits at its consistent point or later, and the
        // replica skips what commits at its version or earlier. So its version is one less; and one
        // less again is that of the tables that stand still.
        let from = self.created.consistent_point;
        let shift = Shift::of(&replica.identity()).to_pass(replica.watermark(), from);
        let version = shift.version(from).saturating_sub(1);
        self.change_schema(renewal, &judgement, version.saturating_sub(1))
            .await?;
        tracing::info!(
            tables = judgement.alike.sources.len(),
            slot = self.registered.slot,
            "comparing with PostgreSQL"
        );
        let delivery = Delivery::new(self.resync.queue, version, options.transaction_bytes);
        let copy = (&self.upstream.address, self.created.snapshot.clone());
        let (difference, delivered) =
            compare(options, copy, &judgement.alike, replica, progress, delivery).await?;
        delivered.finish().await?;
        self.durable(version).await?;
        let mut details = details(&discovery, self.upstream.system.timeline);
        shift.note(&mut details);
        self.switch(version, details).await?;
        let Resynced {
            kept,
            changed,
            added,
            removed,
        } = difference;
        tracing::info!(
            kept,
            changed,
            added,
            removed,
            slot = self.registered.slot,
            "the replica is brought up to PostgreSQL"
        );
        progress.resynced(difference);
        Ok(Course {
            publications: self.publications.to_vec(),
            slot: self.registered.slot.clone(),
            system_identifier: self.upstream.system.system_identifier.clone(),
            shift,
            facts: self.upstream.facts,
            known: judgement.known,
        })
    }

    /// Brings tables under the identity they have now, and notes which stand still: the stream then
    /// knows them as outstanding.
    ///
    /// INVARIANT: it does so before any row is written, because a transaction in parts cannot
    /// change the schema. After a crash in between there is the mark, and all tables are judged
    /// anew.
    async fn change_schema(
        &self,
        renewal: Renewal,
        judgement: &Judgement,
        version: Version,
    ) -> Result<()> {
        let mut changes = renewal.changes;
        if renewal.catalog.unsynced() != judgement.unsynced {
            changes.push(SchemaChange::SetUnsynced(judgement.unsynced.clone()));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let ops = changes.into_iter();
        let ops = ops.map(|change| RowOp::Schema(Box::new(change))).collect();
        let transaction = Transaction { version, ops };
        let queue = self.resync.queue;
        queue.push(transaction, 0).await.map_err(closed)?;
        queue.settled().await.map_err(closed)
    }

    /// Waits until the replica is safe from a power loss up to a version.
    async fn durable(&self, version: Version) -> Result<()> {
        let mut durable = self.resync.durable.clone();
        let reached = durable.wait_for(|now| *now >= version).await;
        reached
            .map(drop)
            .map_err(|_| Error::Protocol("the replica is no longer synced".into()))
    }

    /// Lets the replica be one that follows the new slot.
    async fn switch(&self, version: Version, details: HashMap<String, String>) -> Result<()> {
        let Resync {
            options, replica, ..
        } = *self.resync;
        let (client, shard) = (&self.upstream.client, options.shard());
        upstream::finish(client, &shard, self.registered, &options.task_id).await?;
        let (replica, slot) = (replica.clone(), self.registered.slot.clone());
        let (publications, lineage) = (self.publications.to_vec(), self.lineage.clone());
        let (directory, system) = (
            options.replica_dir.clone(),
            self.upstream.system.system_identifier.clone(),
        );
        blocking(move || {
            replica.update_identity(|identity| {
                identity.replica_version = version;
                identity.system_identifier = system;
                identity.slot = slot;
                identity.publications = publications;
                // The mark is not among these.
                identity.details = details;
            })?;
            let lineage = Lineage {
                watermark: version,
                ..lineage
            };
            if let Err(error) = lineage.write(&directory) {
                tracing::warn!(%error, "the record beside the replica is out of date");
            }
            Ok(())
        })
        .await?;
        // From here on the slot is in use: whatever fails now must not have it dropped.
        if let Err(error) = upstream::retire_older(client, &shard, self.registered).await {
            tracing::warn!(%error, "slots of older replicas cannot be dropped");
        }
        Ok(())
    }
}
