//! From nothing, or from what there is, to a replica that can follow the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{Catalog, ErrorKind as StorageErrorKind, Loader, Replica, ReplicaIdentity};
use tokio_postgres::{Client, IsolationLevel};

use crate::backfill::Backfills;
use crate::discovery::{
    Discovery, ORIGINS, OriginId, READINGS, ROW_FILTERS, Reading, discover, read_detail,
    table_difference,
};
use crate::lineage::Lineage;
use crate::options::Options;
use crate::preflight::{self, Upstream};
use crate::progress::Progress;
use crate::quote::literal;
use crate::stream::{Known, KnownTables, known};
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
    pub(crate) publications: Vec<String>,
    pub(crate) slot: String,
    pub(crate) system_identifier: String,
    pub(crate) facts: preflight::Facts,
    /// Of the tables as the replica holds them.
    pub(crate) known: KnownTables,
    pub(crate) backfills: Backfills,
}

impl Prepared {
    /// The tables that are copied beside the stream while [`Prepared::run`] goes on.
    #[must_use]
    pub fn backfills(&self) -> Backfills {
        self.backfills.clone()
    }
}

/// Checks the server, creates what is missing in the upstream, and opens the replica there is, or
/// copies a new one.
///
/// # Errors
/// [`Error::kind`] says what to do. `Config` texts say what the operator has to mend. Where a copy
/// fails, its slot is dropped again.
pub async fn prepare(options: &Options, progress: Arc<dyn Progress>) -> Result<Prepared> {
    let mut upstream = preflight::check(options).await?;
    let publications = upstream::ensure(&mut upstream.client, options).await?;
    upstream::ensure_replica_identities(&upstream.client, &publications).await?;
    upstream::tell_of_idle_peers(&upstream.client, &options.shard()).await?;
    let replica = match open(options).await? {
        None => None,
        Some(replica) => match fitness(options, &upstream, &replica, &publications).await? {
            Ok(known) => Some((replica, known)),
            Err(reason) if options.auto_reset => {
                tracing::warn!(
                    reason,
                    "the replica does not continue the upstream: copying anew"
                );
                remember(options, &replica)?;
                None
            }
            Err(reason) => return Err(Error::Resync(reason)),
        },
    };
    let (replica, known) = match replica {
        Some((replica, known)) => {
            tracing::info!(
                version = replica.watermark(),
                "continuing with the replica there is"
            );
            (replica, known)
        }
        None => copy(options, &mut upstream, &publications, progress).await?,
    };
    let identity = replica.identity();
    Ok(Prepared {
        replica,
        options: options.clone(),
        address: upstream.address,
        publications,
        slot: identity.slot,
        system_identifier: identity.system_identifier,
        facts: upstream.facts,
        known,
        backfills: Backfills::new(options.backfill_bytes),
    })
}

/// Drops the replica's slot and wipes the replica, so that [`prepare`] copies anew. The lineage of
/// versions is remembered. A thread that is just letting go of the replica is waited for, a few
/// seconds at most.
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
        tracing::warn!(%error, "the old replication slot cannot be dropped now");
    }
    Ok(())
}

async fn drop_remembered(options: &Options, mut lineage: Lineage) -> Result<()> {
    let Some(slot) = lineage.slot.take() else {
        return Ok(());
    };
    let client = sql::connect(&Address::parse(&options.upstream)?, SNAPSHOT_NAME).await?;
    upstream::drop_slot(&client, &slot).await?;
    upstream::forget(&client, &options.shard(), &slot).await?;
    lineage.write(&options.replica_dir)
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

/// What is known of the tables of a replica that continues the upstream, or why it does not.
async fn fitness(
    options: &Options,
    upstream: &Upstream,
    replica: &Replica,
    publications: &[String],
) -> Result<std::result::Result<KnownTables, String>> {
    let identity = replica.identity();
    if identity.system_identifier != upstream.system.system_identifier {
        return Ok(Err("it was copied from another PostgreSQL cluster".into()));
    }
    if replica.watermark() > upstream.system.flushed {
        return Ok(Err(
            "PostgreSQL has gone back in time, as after a restore".into()
        ));
    }
    if identity.publications != publications {
        return Ok(Err("the list of publications has changed".into()));
    }
    match upstream::slot_state(&upstream.client, &identity.slot).await? {
        None => return Ok(Err(format!("slot {:?} is gone", identity.slot))),
        Some(slot) if slot.lost => {
            return Ok(Err(format!(
                "slot {:?} has lost WAL it needs",
                identity.slot
            )));
        }
        Some(_) => {}
    }
    let now = discover(&upstream.client, publications, upstream.facts.version).await?;
    let catalog = replica.catalog();
    let gone = lacking(&catalog, &now, &options.internal_schemas());
    Ok(match gone {
        Some(reason) => Err(reason),
        None => Ok(known_of(&catalog, &identity, &now)),
    })
}

/// Which table of kelvin's own is not as it is held, if one is not.
fn lacking(held: &Catalog, now: &Discovery, internal: &[String]) -> Option<String> {
    let tables = held.tables().iter();
    let mut internal = tables.filter(|table| internal.contains(&table.schema));
    internal.find_map(|table| match now.catalog.table(&table.name) {
        None => Some(format!("table {:?} is gone", table.name)),
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
        upstream::drop_slot(&upstream.client, &old).await?;
        upstream::forget(&upstream.client, &shard, &old).await?;
    }
    // The directory is tried before anything is created upstream.
    lineage.write(&options.replica_dir)?;
    let mut connection =
        preflight::open_replication(&upstream.address, &upstream.client, options).await?;
    let failover = options.failover_slot && upstream.facts.knows_failover_slots();
    let (slot, created, registered) =
        claim(options, &mut upstream.client, &mut connection, failover).await?;
    lineage.slot = Some(slot.clone());
    lineage.write(&options.replica_dir)?;
    let work = async {
        let registered = registered?;
        let copy = SnapshotCopy {
            options,
            upstream,
            publications,
            registered: &registered,
            created: &created,
            lineage: &lineage,
        };
        let copied = copy.run(&progress).await?;
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

type Claim = (String, CreatedSlot, Result<RegisteredReplica>);

/// Creates a slot and registers it. Where only the latter fails, the slot has to be dropped again.
async fn claim(
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
async fn clean_up(options: &Options, slot: &str) {
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
    async fn run(&self, progress: &Arc<dyn Progress>) -> Result<(Replica, KnownTables)> {
        let discovery = self.discover().await?;
        warn_of_unsynced(&discovery);
        tracing::info!(
            tables = discovery.sources.len(),
            slot = self.registered.slot,
            "copying from PostgreSQL"
        );
        let loader = self.create(&discovery).await?;
        let snapshot = self.created.snapshot.clone();
        let address = &self.upstream.address;
        let options = self.options;
        let loader =
            crate::copy::copy(options, address, snapshot, &discovery, loader, progress).await?;
        tracing::info!("sorting what was copied");
        let replica = self.finish(loader, &discovery).await?;
        Ok((replica, known(&discovery)))
    }

    /// The schema as of the snapshot.
    async fn discover(&self) -> Result<Discovery> {
        let mut client = sql::connect(&self.upstream.address, SNAPSHOT_NAME).await?;
        sql::set_session(&client).await?;
        let transaction = import(&mut client, &self.created.snapshot).await?;
        let version = self.upstream.facts.version;
        let mut discovery = discover(&transaction, self.publications, version).await?;
        discovery.measure(&transaction).await?;
        Ok(discovery)
    }

    async fn create(&self, discovery: &Discovery) -> Result<Loader> {
        let (directory, storage) = (
            self.options.replica_dir.clone(),
            self.options.storage.clone(),
        );
        let catalog = discovery.catalog.clone();
        blocking(move || Ok(Replica::create(&directory, &storage, catalog)?)).await
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
            details: HashMap::from([
                (ROW_FILTERS.to_owned(), discovery.row_filters()),
                (ORIGINS.to_owned(), discovery.origins()),
                (READINGS.to_owned(), discovery.readings()),
            ]),
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

fn warn_of_unsynced(discovery: &Discovery) {
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
