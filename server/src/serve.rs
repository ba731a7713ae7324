//! `kelvin serve`: brings everything up, keeps it up, takes it down in order.
//!
//! ```text
//! prepare (check upstream, open or copy the replica)
//!   └► generation: engine, groups, replication stream ◄─┐
//!         ▲  ▲             └── lost slot, other schema ──┴─ copy what differs, clients stay
//!         │  └──── open again, all clients reconnect ◄── full or failing disk
//!         └─────── copy anew, all clients start afresh ◄── kelvin's own tables changed
//! ```
//! A generation lives on when its replica is brought up to the database by what differs, see
//! [`Prepared::run`]; it may also begin with that.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kelvin_protocol::{ErrorBody, ErrorKind};
use kelvin_replication::{ErrorKind as ReplicationErrorKind, Prepared};
use kelvin_storage::Clock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app_api::{AppApi, HttpClient};
use crate::auth::Authenticator;
use crate::config::Config;
use crate::engine::{Engine, EngineOptions};
use crate::http::{
    AdminGate, CloseCode, Connect, ConnectionHandler, Heartbeat, Listener, Readiness, Site, Socket,
    Statz,
};
use crate::mutation::{CatalogSource, Mutations};
use crate::query_report::Queries;
use crate::report::Reports;
use crate::sync::connection;
use crate::sync::desire::GroupLimits;
use crate::sync::registry::{Registry, Services};
use crate::sync::session::error_frames;
use crate::sync::store::LocalGroups;

/// How long clients stay away while there is no generation.
const RESYNC_BACKOFF_MS: u64 = 2_000;
/// How long groups may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause before the first repeated attempt to copy the database; it doubles from then on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// How long to wait for the last reader of a replica that is to be thrown away.
const RELEASE: Duration = Duration::from_secs(120);
/// How often to look whether it is gone.
const RELEASE_POLL: Duration = Duration::from_millis(50);
/// Pause before a resync that follows another one too soon.
const RESYNC_PAUSE: Duration = Duration::from_secs(5);
/// A generation that lasted this long does not make the pause before the next one longer.
const LASTING: Duration = Duration::from_secs(60);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Replication cannot start or go on.
    #[error(transparent)]
    Replication(#[from] kelvin_replication::Error),
    /// The port cannot be opened, and the like.
    #[error(transparent)]
    Http(#[from] crate::http::ListenError),
    /// A part of the server could not be set up.
    #[error("{0}")]
    SetUp(String),
}

/// Runs the server until `shutdown`. `ready` hears the port once clients can connect.
///
/// # Errors
/// [`ServeError`], with a message that says what to do.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(u16) + Send,
) -> Result<(), ServeError> {
    let started = Instant::now();
    tracing::info!(
        "starting server@{} protocolVersion={} taskID={} app={} shard={} port={}",
        config.server_version,
        kelvin_protocol::PROTOCOL_VERSION,
        config.task_id,
        config.app.id,
        config.app.shard_num,
        config.listen.port
    );
    let mut options = config.replication().options();
    options.storage.clock = monotonic_clock();
    // The port is claimed first: a port that is taken should not cost a copy of the database.
    let listener = Listener::bind(&config.listen).await?;
    let current = Arc::new(Current::default());
    let port = listener.port();
    let reports = Arc::new(Reports::new(Arc::clone(&current)));
    let site = site(&config, &current, &reports);
    let readiness = site.readiness.clone();
    if let Some(timeout) = config.listen.keepalive_timeout {
        drain_when_abandoned(site.heartbeat.clone(), timeout, shutdown.clone());
    }
    // From the start, so that an operator can ask how far the first copy is. Clients wait.
    let http = tokio::spawn(listener.serve(site, shutdown.clone()));
    let opening = move || {
        readiness.set(true);
        tracing::info!("kelvin ready ({} ms)", started.elapsed().as_millis());
        if let Some(port) = port {
            ready(port);
        }
    };
    let mut replicas = Replicas {
        config: &config,
        options,
        current,
        reports,
        shutdown: shutdown.clone(),
        opening: Some(opening),
    };
    let result = replicas.serve_each().await;
    shutdown.cancel();
    let _ = tokio::time::timeout(DRAIN, http).await;
    tracing::info!("stopped");
    result
}

/// The replicas that are served one after the other, each until it cannot go on.
struct Replicas<'a, R> {
    config: &'a Config,
    options: kelvin_replication::Options,
    current: Arc<Current>,
    reports: Arc<Reports>,
    shutdown: CancellationToken,
    /// Called when clients can connect for the first time.
    opening: Option<R>,
}

impl<R: FnOnce()> Replicas<'_, R> {
    /// Serves until the shutdown, or until the operator is needed.
    async fn serve_each(&mut self) -> Result<(), ServeError> {
        let mut reopening = RETRY_FIRST;
        loop {
            let served = self.opening.is_none();
            let prepared = tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                prepared = prepare(&self.options, &self.reports, served) => prepared?,
            };
            let opened = Instant::now();
            let Err(error) = self.serve(prepared).await? else {
                return Ok(());
            };
            if error.kind() == ReplicationErrorKind::Resync && self.config.auto_reset {
                tracing::warn!(
                    %error,
                    "the replica cannot be brought up to the database, which is copied anew"
                );
                if opened.elapsed() < RESYNC_PAUSE {
                    tokio::time::sleep(RESYNC_PAUSE).await;
                }
                discard(&self.options).await?;
            } else if error.reopens() {
                if opened.elapsed() >= LASTING {
                    reopening = RETRY_FIRST;
                }
                tracing::error!(%error, "the replica failed; it is opened again in {reopening:?}");
                self.reports.replica_failed(&error);
                tokio::select! {
                    () = self.shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(reopening) => {}
                }
                reopening = (reopening * 2).min(RETRY_LONGEST);
            } else {
                return Err(error.into());
            }
        }
    }

    /// Serves one replica. Inside is how following the database ended.
    async fn serve(
        &mut self,
        prepared: Prepared,
    ) -> Result<Result<(), kelvin_replication::Error>, ServeError> {
        let (registry, engine) = start_generation(self.config, &prepared)?;
        self.current.set(Some(Arc::clone(&registry)));
        self.reports
            .replica_opened(prepared.backfills(), prepared.lag());
        if let Some(opening) = self.opening.take() {
            opening();
        }
        let groups = self.config.groups.clone();
        let purge = tokio::spawn(purge_groups(Arc::clone(&registry), groups));
        let ended = tokio::select! {
            ended = prepared.run(Arc::new(engine.clone()), self.shutdown.clone()) => ended,
            () = engine.ended() => {
                let defect = "the engine thread ended by a defect; restart";
                return Err(ServeError::SetUp(defect.into()));
            }
        };
        purge.abort();
        self.current.set(None);
        registry.shut_down(DRAIN).await;
        engine.stop().await;
        Ok(ended)
    }
}

/// Prepares replication. At the first start a database that cannot be reached, or a disk that
/// cannot be written, is the operator's to mend; of a server that has `served` before, it is waited
/// for.
async fn prepare(
    options: &kelvin_replication::Options,
    reports: &Arc<Reports>,
    served: bool,
) -> Result<Prepared, ServeError> {
    let mut pause = RETRY_FIRST;
    loop {
        match kelvin_replication::prepare(options, Arc::clone(reports) as _).await {
            Ok(prepared) => return Ok(prepared),
            Err(error) if served && error.reopens() => {
                tracing::error!(%error, "the replica cannot be opened; trying again in {pause:?}");
                reports.replica_failed(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            Err(error) if served && error.may_pass() => {
                tracing::warn!(%error, "the database cannot be copied now; trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            // Only where the operator wants no copy that was not asked for.
            Err(error) if error.kind() == ReplicationErrorKind::Resync => {
                return Err(ServeError::SetUp(format!(
                    "replication cannot go on: {error}. With ZERO_AUTO_RESET=true what differs is \
                     copied from the database"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Throws the replica away once the last thread has let go of it: a query that is being hydrated
/// may hold it for as long as hydrations may take.
async fn discard(options: &kelvin_replication::Options) -> Result<(), ServeError> {
    let deadline = Instant::now() + RELEASE;
    loop {
        match kelvin_replication::discard(options).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() < deadline && is_locked(&error) => {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_locked(error: &kelvin_replication::Error) -> bool {
    match error {
        kelvin_replication::Error::Storage(error) => {
            error.kind() == kelvin_storage::ErrorKind::Locked
        }
        _ => false,
    }
}

/// Measures how long the replica holds up writers.
fn monotonic_clock() -> Clock {
    let started = Instant::now();
    Clock::new(move || started.elapsed())
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        advance_threads: config.engine.advance_threads,
        advance_timeout: config.engine.advance_timeout,
        advance_max_rows: config.engine.advance_max_rows,
        hydration_threads: config.engine.hydration_threads,
        hydration_max_rows: config.engine.hydration_max_rows,
        hydration_timeout: config.engine.hydration_timeout,
        slow_hydration: config.engine.slow_hydration,
        delta_log_bytes: config.engine.delta_log_bytes,
        ..EngineOptions::default()
    }
}

/// What lives on one replica: the engine and the client groups.
fn start_generation(
    config: &Config,
    prepared: &Prepared,
) -> Result<(Arc<Registry>, Engine), ServeError> {
    let set_up = |error: &dyn std::fmt::Display| ServeError::SetUp(error.to_string());
    let replica = prepared.replica.clone();
    let engine_options = engine_options(config);
    let (app_id, shard_num) = (config.app.id.clone(), config.app.shard_num);
    let engine = Engine::start(replica.clone(), &app_id, shard_num, engine_options.clone())
        .map_err(|error| set_up(&error))?;
    let client = HttpClient::new().map_err(|error| set_up(&error))?;
    let app_api = AppApi::new(&config.app_api, &config.app, &client);
    let app_api = Arc::new(app_api.map_err(|error| set_up(&error))?);
    let has_app_api = app_api.has_query() && app_api.has_mutate();
    let auth = Authenticator::new(&config.auth, has_app_api, client);
    let source = replica.clone();
    let catalog: CatalogSource = Arc::new(move || source.catalog());
    let mutations = Mutations::new(config, catalog, Arc::clone(&app_api));
    let services = Services {
        app_id,
        shard_num,
        epoch: replica.identity().epoch,
        store: Box::new(LocalGroups(replica.groups())),
        auth: auth.map_err(|error| set_up(&error))?,
        mutations: mutations.map_err(|error| set_up(&error))?,
        app_api,
        reading: Arc::new(Semaphore::new(engine_options.hydration_threads.max(1) * 2)),
        engine_options,
        retransform_interval: config.auth.retransform_interval,
        revalidate_interval: config.auth.revalidate_interval,
        limits: GroupLimits {
            queries: config.groups.max_queries,
            clients: config.groups.max_clients,
        },
        admin: AdminGate::new(config.admin_password.clone(), config.development),
        server_version: config.server_version.clone(),
        ids: AtomicU64::new(1),
        engine: engine.clone(),
        replica,
    };
    Ok((Arc::new(Registry::new(Arc::new(services))), engine))
}

fn site(config: &Config, current: &Arc<Current>, reports: &Arc<Reports>) -> Site<Current> {
    let metrics = Arc::clone(reports);
    Site {
        handler: Arc::clone(current),
        readiness: Readiness::new(false),
        heartbeat: Heartbeat::default(),
        admin: AdminGate::new(config.admin_password.clone(), config.development),
        statz: Arc::clone(reports) as Arc<dyn Statz>,
        metrics: Arc::new(move || metrics.prometheus()),
        queries: Arc::new(Queries::new(Arc::clone(current))),
    }
}

/// Drains when a load balancer that used to call `/keepalive` stays away.
fn drain_when_abandoned(heartbeat: Heartbeat, timeout: Duration, shutdown: CancellationToken) {
    tokio::spawn(async move {
        if shutdown
            .run_until_cancelled(heartbeat.missed(timeout))
            .await
            .is_some()
        {
            tracing::info!("initiating drain (/keepalive was not called for {timeout:?})");
            shutdown.cancel();
        }
    });
}

/// The generation that serves connections; none while the database is copied anew or the replica
/// opened again.
#[derive(Default)]
pub struct Current(RwLock<Option<Arc<Registry>>>);

impl Current {
    fn set(&self, registry: Option<Arc<Registry>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// The generation, if there is one.
    pub(crate) fn get(&self) -> Option<Arc<Registry>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ConnectionHandler for Current {
    async fn connected(&self, connect: Connect, socket: Socket) {
        if let Some(registry) = self.get() {
            return Box::pin(connection::serve(registry, connect, socket)).await;
        }
        let mut body = ErrorBody::new(ErrorKind::Rehome, "The server is preparing its database.");
        body.min_backoff_ms = Some(RESYNC_BACKOFF_MS);
        let _ = socket
            .writer
            .send_all(error_frames(body, CloseCode::NORMAL));
    }
}

/// Forgets groups nobody has connected to for long.
async fn purge_groups(registry: Arc<Registry>, limits: crate::config::Groups) {
    if limits.purge_batch == 0 {
        return;
    }
    let mut interval = tokio::time::interval(limits.purge_interval.max(Duration::from_secs(1)));
    loop {
        interval.tick().await;
        let services = Arc::clone(registry.services());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let before = now.saturating_sub(limits.inactivity_threshold).as_millis();
        let before = u64::try_from(before).unwrap_or(0);
        let purged = tokio::task::spawn_blocking(move || services.store.purge(before)).await;
        match purged {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => tracing::info!("forgot {count} inactive client groups"),
            Ok(Err(error)) => tracing::warn!(%error, "inactive client groups could not be purged"),
        }
    }
}
