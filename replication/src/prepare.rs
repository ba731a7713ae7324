//! From nothing, or from what there is, to a replica that can follow the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{
    Catalog, ErrorKind as StorageErrorKind, Foundation, Loader, Replica, ReplicaIdentity,
};
use tokio_postgres::{Client, IsolationLevel};

use crate::backfill::Backfills;
use crate::copy::copy_most;
use crate::discovery::{
    Discovery, ORIGINS, OriginId, READINGS, ROW_FILTERS, Reading, discover, made_anew, read_detail,
    table_difference,
};
use crate::lineage::Lineage;
use crate::options::Options;
use crate::preflight::{self, Upstream};
use crate::progress::Progress;
use crate::quote::literal;
use crate::resync::RESYNC;
use crate::shift::Shift;
use crate::stream::{Known, KnownTables, Lag, known};
use crate::timeline::TIMELINE;
use crate::upstream::{self, RegisteredReplica};
use crate::wire::{CreatedSlot, ReplicationConnection};
use crate::{Address, Error, Result, sql};

/// Application name of the connection that reads the schema of the snapshot.
const SNAPSHOT_NAME: &str = "kelvin-initial-schema";

/// Longest wait for threads that are letting go of a replica.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at it.
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// A replica, and everything needed to follow its upstream: see [`Prepared::run`].
pub struct Prepared {
    /// The replica, readable at once.
    pub replica: Replica,
    pub(crate) options: Options,
    pub(crate) address: Address,
    /// What to follow, or why the replica does not continue the upstream: then a
    /// [`Resync`](crate::resync::Resync) comes first.
    pub(crate) course: Result<Course, String>,
    pub(crate) backfills: Backfills,
    pub(crate) lag: Lag,
    pub(crate) progress: Arc<dyn Progress>,
}

/// What a replica follows.
pub(crate) struct Course {
    pub(crate) publications: Vec<String>,
    pub(crate) slot: String,
    pub(crate) system_identifier: String,
    pub(crate) shift: Shift,
    pub(crate) facts: preflight::Facts,
    /// Of the tables as the replica holds them.
    pub(crate) known: KnownTables,
}

impl Prepared {
    /// The tables that are copied beside the stream while [`Prepared::run`] goes on.
    #[must_use]
    pub fn backfills(&self) -> Backfills {
        self.backfills.clone()
    }

    /// How far the replica lags behind while [`Prepared::run`] goes on.
    #[must_use]
    pub fn lag(&self) -> Lag {
        self.lag.clone()
    }
}

/// Checks the server, creates what is missing in the upstream, and opens the replica there is, or
/// copies a new one. A replica that does not continue the upstream, but may be brought up to it, is
/// opened too: [`Prepared::run`] then begins with that.
///
/// # Errors
/// [`Error::kind`] says what to do. `Config` texts say what the operator has to mend. Where a copy
/// fails, its slot is dropped again.
pub async fn prepare(options: &Options, progress: Arc<dyn Progress>) -> Result<Prepared> {
    let mut upstream = preflight::check(options).await?;
    let publications = upstream::ensure(&mut upstream.client, options).await?;
    upstream::ensure_replica_identities(&upstream.client, &publications).await?;
    upstream::tell_of_idle_peers(&upstream.client, &options.shard()).await?;
    let there = match open(options).await? {
        None => None,
        Some(replica) => match fitness(options, &upstream, &replica, &publications).await? {
            Fitness::Continues(known) => {
                tracing::info!(
                    version = replica.watermark(),
                    "continuing with the replica there is"
                );
                Some((replica, Ok(known)))
            }
            Fitness::Differs(reason) | Fitness::Useless(reason) if !options.auto_reset => {
                return Err(Error::Resync(reason));
            }
            Fitness::Differs(reason) => {
                tracing::warn!(
                    reason,
                    version = replica.watermark(),
                    "the replica does not continue the upstream: what differs will be copied, \
                     and until then it is served as it is"
                );
                Some((replica, Err(reason)))
            }
            Fitness::Useless(reason) => {
                tracing::warn!(
                    reason,
                    "the replica does not continue the upstream: copying anew"
                );
                remember(options, &replica)?;
                None
            }
        },
    };
    let (replica, known) = match there {
        Some(there) => there,
        None => {
            let progress = Arc::clone(&progress);
            let (replica, known) = copy(options, &mut upstream, &publications, progress).await?;
            (replica, Ok(known))
        }
    };
    let identity = replica.identity();
    let course = known.map(|known| Course {
        publications,
        shift: Shift::of(&identity),
        slot: identity.slot,
        system_identifier: identity.system_identifier,
        facts: upstream.facts,
        known,
    });
    Ok(Prepared {
        replica,
        options: options.clone(),
        address: upstream.address,
        course,
        backfills: Backfills::new(options.backfill_bytes),
        lag: Lag::default(),
        progress,
    })
}

/// Drops the replica's slot and wipes the replica, so that [`prepare`] copies anew. Event triggers
/// go with the last replica of the shard. The lineage of versions is remembered. A thread that is
/// just letting go of the replica is waited for, a few seconds at most.
///
/// # Errors
/// [`Error::Storage`] while the replica is open or cannot be removed. A slot that cannot be dropped
/// now is dropped by the next [`prepare`].
pub async fn discard(options: &Options) -> Result<()> {
    if let Some(replica) = open_released(options).await? {
        remember(options, &replica)?;
    }
    let directory = options.replica_dir.clone();
    blocking(move || Ok(Replica::wipe(&directory)?)).await?;
    let lineage = Lineage::read(&options.replica_dir).unwrap_or_default();
    if let Err(error) = drop_remembered(options, lineage).await {
        tracing::warn!(%error, "the old slot or the event triggers cannot be dropped now");
    }
    Ok(())
}

async fn drop_remembered(options: &Options, mut lineage: Lineage) -> Result<()> {
    let Some(slot) = lineage.slot.take() else {
        return Ok(());
    };
    let client = sql::connect(&Address::parse(&options.upstream)?, SNAPSHOT_NAME).await?;
    upstream::drop_slot(&client, &slot).await?;
    let shard = options.shard();
    upstream::forget(&client, &shard, &slot).await?;
    lineage.write(&options.replica_dir)?;
    upstream::drop_unheard(&client, &shard).await
}

/// Opens the replica once nobody else has it open.
async fn open_released(options: &Options) -> Result<Option<Replica>> {
    let deadline = tokio::time::Instant::now() + RELEASE_TIMEOUT;
    loop {
        match open(options).await {
            Err(Error::Storage(error))
                if error.kind() == StorageErrorKind::Locked
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the replica, if there is one that can be read.
async fn open(options: &Options) -> Result<Option<Replica>> {
    let (directory, storage) = (options.replica_dir.clone(), options.storage.clone());
    let opened = blocking(move || Ok(Replica::open(&directory, &storage)));
    match opened.await? {
        Ok(replica) => Ok(Some(replica)),
        Err(error) => match error.kind() {
            StorageErrorKind::Missing => Ok(None),
            StorageErrorKind::Corrupt
            | StorageErrorKind::NewerFormat
            | StorageErrorKind::OlderFormat => {
                if !options.auto_reset {
                    return Err(Error::Resync(error.to_string()));
                }
                tracing::warn!(%error, "the replica cannot be read: copying anew");
                Ok(None)
            }
            _ => Err(error.into()),
        },
    }
}

/// Whether a replica continues the upstream.
enum Fitness {
    /// It does, and this is known of its tables.
    Continues(KnownTables),
    /// It does not, for this reason, but can be brought up to it.
    Differs(String),
    /// It does not, and cannot be.
    Useless(String),
}

async fn fitness(
    options: &Options,
    upstream: &Upstream,
    replica: &Replica,
    publications: &[String],
) -> Result<Fitness> {
    let now = discover(&upstream.client, publications).await?;
    let (catalog, identity) = (replica.catalog(), replica.identity());
    let internal = options.internal_schemas();
    if let Some(reason) = lacking(&catalog, &now, &internal) {
        return Ok(Fitness::Useless(reason));
    }
    let mut own = catalog.tables().iter();
    let other = own.find(|table| {
        let now = now.catalog.table(&table.name);
        internal.contains(&table.schema) && now.is_some_and(|now| now.oid != table.oid)
    });
    let differs = if identity.details.contains_key(RESYNC) {
        Some("it was being brought up to the upstream, and that did not come to its end".into())
    } else if identity.system_identifier != upstream.system.system_identifier {
        Some("it was copied from another PostgreSQL cluster".into())
    } else if replica.watermark() > Shift::of(&identity).version(upstream.system.flushed) {
        Some("PostgreSQL has gone back in time, as after a restore".into())
    } else if identity.publications != publications {
        Some("the list of publications has changed".into())
    } else if let Some(table) = other {
        Some(format!("table {:?} was made anew", table.name))
    } else {
        match upstream::slot_state(&upstream.client, &identity.slot).await? {
            None => Some(format!("slot {:?} is gone", identity.slot)),
            Some(slot) if slot.lost => {
                Some(format!("slot {:?} has lost WAL it needs", identity.slot))
            }
            Some(_) => None,
        }
    };
    Ok(match differs {
        Some(reason) => Fitness::Differs(reason),
        None => Fitness::Continues(known_of(&catalog, &identity, &now)),
    })
}

/// Which table of kelvin's own has not the form it is held in, if one has not. One that was made
/// anew has.
pub(crate) fn lacking(held: &Catalog, now: &Discovery, internal: &[String]) -> Option<String> {
    let tables = held.tables().iter();
    let mut internal = tables.filter(|table| internal.contains(&table.schema));
    internal.find_map(|table| match now.catalog.table(&table.name) {
        None => Some(format!("table {:?} is gone", table.name)),
        Some(now) if made_anew(table, now).is_some() => None,
        Some(now) => {
            let what = table_difference(table, now)?;
            Some(format!("{what} of table {:?} changed", table.name))
        }
    })
}

/// What is known of the tables of a replica while nobody followed the stream: what it held them
/// under, and of those that are as they were also how they are stored. The schema watch finds the
/// others.
fn known_of(held: &Catalog, identity: &ReplicaIdentity, now: &Discovery) -> KnownTables {
    let detail = |name| identity.details.get(name).map(String::as_str);
    let mut filters = read_detail::<String>(detail(ROW_FILTERS).unwrap_or_default());
    // A replica of an earlier version does not say.
    let mut origins = detail(ORIGINS).map(read_detail::<OriginId>);
    let mut readings = read_detail::<Reading>(detail(READINGS).unwrap_or_default());
    let mut stored = known(now);
    let known = held.tables().iter().map(|table| {
        let filters = filters.remove(&table.name).unwrap_or_default();
        let readings = readings.remove(&table.name).unwrap_or_default();
        let origins = origins.as_mut();
        let origins = origins.map(|all| all.remove(&table.name).unwrap_or_default());
        let alike = now.catalog.table(&table.name);
        let alike = alike.filter(|now| table_difference(table, now).is_none());
        let known = match alike.and_then(|now| stored.remove(&now.oid)) {
            Some(stored) => stored.with_rows(filters, origins, readings),
            None => Known::of_rows(filters, origins, readings),
        };
        (table.oid, known)
    });
    known.collect()
}

/// Notes what a replica that is about to be wiped leaves behind.
fn remember(options: &Options, replica: &Replica) -> Result<()> {
    let identity = replica.identity();
    let known = Lineage::read(&options.replica_dir).unwrap_or_default();
    let lineage = Lineage {
        epoch: identity.epoch.max(known.epoch),
        system_identifier: identity.system_identifier,
        watermark: replica.watermark().max(known.watermark),
        slot: Some(identity.slot),
        timeline: known.timeline,
    };
    lineage.write(&options.replica_dir)
}

/// Copies a new replica, and cleans up where that fails.
async fn copy(
    options: &Options,
    upstream: &mut Upstream,
    publications: &[String],
    progress: Arc<dyn Progress>,
) -> Result<(Replica, KnownTables)> {
    let shard = options.shard();
    let mut lineage = match Lineage::read(&options.replica_dir) {
        Some(lineage) => lineage.continued(&upstream.system),
        None => Lineage::first(&upstream.system),
    };
    if let Some(old) = lineage.slot.take() {
        tracing::info!(
            slot = old,
            "an earlier copy did not come to its end, or is of no more use: copying everything \
             from a new snapshot"
        );
        upstream::drop_slot(&upstream.client, &old).await?;
        upstream::forget(&upstream.client, &shard, &old).await?;
    }
    // The directory is tried before anything is created upstream.
    lineage.write(&options.replica_dir)?;
    let failover = options.failover_slot && upstream.facts.knows_failover_slots();
    let claimed = async {
        let mut connection =
            preflight::open_replication(&upstream.address, &upstream.client, options).await?;
        let claimed = claim(options, &mut upstream.client, &mut connection, failover).await?;
        Ok::<_, Error>((connection, claimed))
    };
    // Both mostly wait: one for the server, the other for the disk.
    let (claimed, foundation) = tokio::join!(claimed, found(options));
    let (connection, (slot, created, registered)) = claimed?;
    lineage.slot = Some(slot.clone());
    lineage.write(&options.replica_dir)?;
    let work = async {
        let (registered, foundation) = (registered?, foundation?);
        let copy = SnapshotCopy {
            options,
            upstream,
            publications,
            registered: &registered,
            created: &created,
            lineage: &lineage,
        };
        let copied = copy.run(foundation, &progress).await?;
        copy.announce().await?;
        Ok(copied)
    };
    let outcome = work.await;
    // The exported snapshot lived as long as this connection was idle.
    connection.close().await;
    if outcome.is_err() {
        clean_up(options, &slot).await;
    }
    outcome
}

/// Makes the files of a fresh replica, in place of those of an earlier one.
async fn found(options: &Options) -> Result<Foundation> {
    let (directory, storage) = (options.replica_dir.clone(), options.storage.clone());
    blocking(move || Ok(Replica::found(&directory, &storage)?)).await
}

pub(crate) type Claim = (String, CreatedSlot, Result<RegisteredReplica>);

/// Creates a slot and registers it. Where only the latter fails, the slot has to be dropped again.
pub(crate) async fn claim(
    options: &Options,
    client: &mut Client,
    connection: &mut ReplicationConnection,
    failover: bool,
) -> Result<Claim> {
    let transaction = client.transaction().await?;
    let (slot, created) = upstream::create(&transaction, connection, options, failover).await?;
    let shard = options.shard();
    let register = upstream::register(&transaction, &shard, &slot, created.consistent_point);
    let registered = match register.await {
        Ok(registered) => transaction
            .commit()
            .await
            .map(|()| registered)
            .map_err(Into::into),
        Err(error) => Err(error),
    };
    Ok((slot, created, registered))
}

/// Drops the slot of a copy that failed, over a connection of its own.
pub(crate) async fn clean_up(options: &Options, slot: &str) {
    let work = async {
        let client = sql::connect(&Address::parse(&options.upstream)?, SNAPSHOT_NAME).await?;
        upstream::drop_slot(&client, slot).await?;
        upstream::forget(&client, &options.shard(), slot).await
    };
    if let Err(error) = work.await {
        tracing::warn!(slot, %error, "the slot of the failed copy cannot be dropped now");
    }
}

/// One initial copy.
struct SnapshotCopy<'a> {
    options: &'a Options,
    upstream: &'a Upstream,
    publications: &'a [String],
    registered: &'a RegisteredReplica,
    created: &'a CreatedSlot,
    lineage: &'a Lineage,
}

impl SnapshotCopy<'_> {
    async fn run(
        &self,
        foundation: Foundation,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Replica, KnownTables)> {
        let discovery = discover_in(self.upstream, self.created, self.publications).await?;
        warn_of_unsynced(&discovery);
        tracing::info!(
            tables = discovery.sources.len(),
            slot = self.registered.slot,
            "copying from PostgreSQL"
        );
        let catalog = discovery.catalog.clone();
        let loader = blocking(move || Ok(foundation.loader(catalog)?)).await?;
        let snapshot = self.created.snapshot.clone();
        let address = &self.upstream.address;
        let options = self.options;
        let internal = options.internal_schemas();
        let tables = discovery.catalog.tables().iter();
        let dispensable = tables.filter(|table| !internal.contains(&table.schema));
        let dispensable = dispensable.map(|table| table.id).collect();
        let copied = copy_most(
            options,
            address,
            snapshot,
            &discovery,
            loader,
            progress,
            dispensable,
        );
        let (mut loader, left_out) = copied.await?;
        // The schema watch finds that they are not held, and has them copied beside the stream.
        for (table, why) in &left_out {
            loader.leave_out(*table, format!("it is to be copied: {why}"))?;
        }
        let discovery = discovery.without(&left_out);
        tracing::info!("sorting what was copied");
        let replica = self.finish(loader, &discovery).await?;
        Ok((replica, known(&discovery)))
    }

    async fn finish(&self, loader: Loader, discovery: &Discovery) -> Result<Replica> {
        // INVARIANT: the slot streams what commits at its consistent point or later, and the
        // replica skips what commits at its version or earlier. So its version is one less.
        let version = self.created.consistent_point.saturating_sub(1);
        let identity = ReplicaIdentity {
            replica_version: version,
            epoch: self.lineage.epoch,
            system_identifier: self.lineage.system_identifier.clone(),
            slot: self.registered.slot.clone(),
            publications: self.publications.to_vec(),
            details: details(discovery, self.lineage.timeline),
        };
        let replica = blocking(move || {
            let replica = loader.finish(identity, version)?;
            replica.sync()?;
            Ok(replica)
        });
        let replica = replica.await?;
        let lineage = Lineage {
            watermark: version,
            ..self.lineage.clone()
        };
        lineage.write(&self.options.replica_dir)?;
        Ok(replica)
    }

    /// Tells other servers of the app that this replica is usable, and tidies up after older ones.
    async fn announce(&self) -> Result<()> {
        let (client, shard) = (&self.upstream.client, self.options.shard());
        upstream::finish(client, &shard, self.registered, &self.options.task_id).await?;
        if let Err(error) = upstream::retire_older(client, &shard, self.registered).await {
            tracing::warn!(%error, "slots of older replicas cannot be dropped");
        }
        Ok(())
    }
}

/// The schema as of the snapshot of a new slot.
pub(crate) async fn discover_in(
    upstream: &Upstream,
    created: &CreatedSlot,
    publications: &[String],
) -> Result<Discovery> {
    let mut client = sql::connect(&upstream.address, SNAPSHOT_NAME).await?;
    sql::set_session(&client).await?;
    let transaction = import(&mut client, &created.snapshot).await?;
    let mut discovery = discover(&transaction, publications).await?;
    discovery.measure(&transaction).await?;
    Ok(discovery)
}

/// What the identity of a replica says of tables that are held as they are there, and of the
/// server's timeline.
pub(crate) fn details(discovery: &Discovery, timeline: u32) -> HashMap<String, String> {
    HashMap::from([
        (ROW_FILTERS.to_owned(), discovery.row_filters()),
        (ORIGINS.to_owned(), discovery.origins()),
        (READINGS.to_owned(), discovery.readings()),
        (TIMELINE.to_owned(), timeline.to_string()),
    ])
}

/// A transaction that sees an exported snapshot.
pub(crate) async fn import<'a>(
    client: &'a mut Client,
    snapshot: &str,
) -> Result<tokio_postgres::Transaction<'a>> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    transaction
        .batch_execute(&format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot)))
        .await?;
    Ok(transaction)
}

pub(crate) fn warn_of_unsynced(discovery: &Discovery) {
    for table in discovery.catalog.unsynced() {
        tracing::warn!(
            table = table.name,
            reason = table.reason,
            "a table is not synced"
        );
    }
    for table in discovery.catalog.tables() {
        for (column, reason) in &table.unsynced_columns {
            tracing::warn!(table = table.name, column, reason, "a column is not synced");
        }
    }
}

/// Runs work on the replica's files away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Protocol(format!("work on the replica: {error}"))))
}
