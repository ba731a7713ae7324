//! The engine: every distinct query once.
//!
//! One thread owns the state of all live plans. It takes commits from the replica's apply thread
//! and requests from client groups, in one order, and tells each group what happened to it over the
//! group's own bounded channel, in that same order.
//!
//! ```text
//! apply thread ──Commit──►┐                        ┌──► group: Commit(version, patches, dels)
//! client groups ─Reconcile►│ engine thread: router,├──► group: Reconciled(version, …)
//! hydration pool ─Hydrated►┘ plan states, bitmaps  └──► …
//! ```
//!
//! Where a commit concerns many plans, other threads help to move them over it. The engine thread
//! gives them away and has all of them back before it tells any group of the version.
//!
//! INVARIANT: when a group receives an event of version V, it has received everything that concerns
//! it up to V before. That is what lets a group mint the cookie (V, config) for what it sends.
//!
//! A group that does not drain its channel is cut off: the engine drops its end, the group notices,
//! attaches anew and brings its clients up by a diff. The engine never waits for a group.

mod access;
mod advance_pool;
mod commit;
mod delta_logs;
mod durations;
mod fast_forward;
#[cfg(test)]
mod hooks;
mod hydration;
mod hydration_queue;
mod pasts;
mod patch;
mod plan_report;
mod recall;
mod snapshot;
mod step;
#[cfg(test)]
mod tests;
mod thread;
mod whole_result;

use std::collections::HashMap;
use std::sync::Arc;

use kelvin_ivm::{Plan, PlanId};
use kelvin_protocol::Version;
use kelvin_replication::CommitListener;
use kelvin_storage::{Applied, IndexBuilder, Replica, TableId};
use tokio::sync::{mpsc, oneshot, watch};

pub use delta_logs::{PastCounts, PlanPast};
pub use durations::Durations;
pub use hydration::budget;
pub use patch::{EncodedRows, InternalTables, PlanPatch, RowEncoder, encode_row, fallen};
pub use plan_report::{PlanCosts, PlanReport, PlanReports};
pub use snapshot::{PlanSnapshot, SnapshotCache};

/// Names one attachment of one client group; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u64);

/// What a client group hears from the engine.
#[derive(Debug)]
pub enum GroupEvent {
    /// A commit changed rows of the group's plans.
    Commit {
        /// Version after the commit.
        version: Version,
        /// One patch for each plan that changed, shared with every other group of that plan.
        patches: Vec<Arc<PlanPatch>>,
        /// Row deletions that apply to this group: rows that no plan of the group holds any more.
        dels: Vec<Arc<str>>,
    },
    /// The answer to a [`Reconcile`](Engine::reconcile).
    Reconciled(Reconciled),
    /// A plan broke while it was kept up to date. It is no longer subscribed.
    PlanFailed {
        /// The plan.
        plan: PlanId,
        /// Why, for the application's developer.
        message: String,
    },
}

/// The group now has the plans it asked for, as of one version.
#[derive(Debug)]
pub struct Reconciled {
    /// The version.
    pub version: Version,
    /// Plans the group did not have before, each with the version since which it has not changed.
    pub added: Vec<(PlanId, Version)>,
    /// Rows that only removed plans held, for each table.
    pub gone: Vec<(kelvin_storage::TableId, roaring::RoaringBitmap)>,
    /// Plans that could not be hydrated, with the reason.
    pub failed: Vec<(PlanId, String)>,
}

/// Limits of the engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that move plans over a commit that concerns many, the engine thread among them.
    pub advance_threads: usize,
    /// How long the engine thread works at a commit before the others help it. Waking them and
    /// handing plans over costs some tens of microseconds, which a small commit is to be spared.
    pub advance_alone: std::time::Duration,
    /// Rows a plan may examine while it is moved over a commit.
    pub advance_max_rows: u64,
    /// How long moving a plan over a commit may take. All groups wait for it.
    pub advance_timeout: std::time::Duration,
    /// Threads that hydrate plans; there are two at least.
    pub hydration_threads: usize,
    /// A hydration that takes longer gives up its thread where others wait and it is not among the
    /// few that may go on.
    pub hydration_slice: std::time::Duration,
    /// How long a plan goes on hydrating after its last group left: one that lost its connection is
    /// back within seconds.
    pub hydration_deserted: std::time::Duration,
    /// Rows a plan may examine while it hydrates.
    pub hydration_max_rows: u64,
    /// How long a plan may take to hydrate.
    pub hydration_timeout: std::time::Duration,
    /// Changed rows that are in memory at a time while a plan is brought up to what was committed
    /// since it began to hydrate; a larger transaction is whole.
    pub forward_rows: u64,
    /// Hydrations that take longer are logged.
    pub slow_hydration: std::time::Duration,
    /// How long a plan is kept up to date after its last group left.
    pub plan_idle: std::time::Duration,
    /// Bytes of encoded plan results that are kept for groups to come.
    pub snapshot_cache_bytes: usize,
    /// Bytes of the plans' delta logs.
    pub delta_log_bytes: usize,
    /// What tests do to plans.
    #[cfg(test)]
    pub(crate) hooks: hooks::Hooks,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            advance_threads: 1,
            advance_alone: std::time::Duration::from_micros(250),
            advance_max_rows: 2_000_000,
            advance_timeout: std::time::Duration::from_secs(10),
            hydration_threads: std::thread::available_parallelism().map_or(2, usize::from),
            hydration_slice: std::time::Duration::from_millis(200),
            hydration_deserted: std::time::Duration::from_secs(10),
            hydration_max_rows: 2_000_000,
            hydration_timeout: std::time::Duration::from_secs(60),
            forward_rows: fast_forward::SLICE_ROWS,
            slow_hydration: std::time::Duration::from_millis(100),
            plan_idle: std::time::Duration::from_secs(60),
            snapshot_cache_bytes: 64 << 20,
            delta_log_bytes: 64 << 20,
            #[cfg(test)]
            hooks: hooks::Hooks::default(),
        }
    }
}

/// Commits and requests that may wait for the engine thread. Beyond it the apply thread waits, and
/// with it, by back-pressure, PostgreSQL.
const COMMAND_QUEUE: usize = 1024;

/// Events that may wait for one group. Beyond it the group is cut off and catches up by a diff.
pub const EVENT_QUEUE: usize = 256;

enum Command {
    Commit(Applied),
    Attach {
        group: GroupId,
        events: mpsc::Sender<GroupEvent>,
    },
    Reconcile {
        group: GroupId,
        plans: Vec<Arc<Plan>>,
    },
    Detach {
        group: GroupId,
    },
    Hydrated {
        plan: PlanId,
        result: Result<Hydrated, HydrationError>,
    },
    Recalled(recall::Recalled),
    /// See [`Engine::pasts`].
    Pasts {
        question: PastsQuestion,
        answer: oneshot::Sender<HashMap<PlanId, PlanPast>>,
    },
    /// See [`Engine::plan_reports`].
    Report {
        most: usize,
        answer: oneshot::Sender<PlanReports>,
    },
    /// See [`Engine::reports_of`].
    ReportOf {
        plans: Vec<PlanId>,
        answer: oneshot::Sender<HashMap<PlanId, PlanReport>>,
    },
    /// See [`Engine::plan`].
    Find {
        id: String,
        answer: oneshot::Sender<Vec<Arc<Plan>>>,
    },
    Tick,
    Stop,
}

/// What a group wants to know of the past of its plans.
#[derive(Clone, Debug)]
pub struct PastsQuestion {
    /// The plans.
    pub plans: Vec<PlanId>,
    /// The version a client comes back with.
    pub since: Version,
    /// The version it is brought to; the engine stands there or beyond.
    pub until: Version,
    /// Whether clients hold, or will hold, rows of other plans, too.
    pub others: bool,
    /// Tables whose rows in the views matter: those that more than one plan of the group has.
    pub tables: Vec<TableId>,
}

/// A plan's first state, and how long it took.
struct Hydrated {
    state: kelvin_ivm::PlanState,
    /// A version since which the view has not changed.
    last_changed: Version,
    took: std::time::Duration,
    /// Rows that the hydration examined.
    examined: u64,
}

/// Why a plan could not be hydrated.
enum HydrationError {
    /// A table of it has another form than the plan was compiled for.
    Stale,
    /// For the application's developer.
    Failed(String),
}

/// Counts for the metrics page.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineMetrics {
    /// Version the plans stand at.
    pub version: Version,
    /// Live plans.
    pub plans: usize,
    /// Attached groups.
    pub groups: usize,
    /// Subscriptions of groups to plans.
    pub subscriptions: usize,
    /// Commits applied to plans since the start.
    pub commits: u64,
    /// Plan changes handed to groups since the start.
    pub deliveries: u64,
    /// Plans that were hydrated since the start.
    pub hydrations: u64,
    /// Plans that failed since the start because a commit took them more than it may.
    pub over_budget: u64,
    /// How clients that came back since the start were brought up.
    pub pasts: PastCounts,
    /// Memory the plans' delta logs take, in bytes.
    pub delta_log_bytes: usize,
    /// Groups that were cut off since the start because they did not keep up.
    pub cut_off: u64,
    /// Rows in the views of all live plans, once for each plan.
    pub plan_rows: u64,
    /// What hydrations and advances cost since the start, of plans that are gone, too.
    pub costs: PlanCosts,
    /// How long each hydration took.
    pub hydration_times: Durations,
    /// How long it took to bring a plan from one version to the next.
    pub advance_times: Durations,
}

/// Handle of the engine thread.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    snapshots: Arc<SnapshotCache>,
    permissions: watch::Receiver<u64>,
    schema: watch::Receiver<Version>,
    metrics: watch::Receiver<EngineMetrics>,
}

impl Engine {
    /// Starts the engine at the replica's watermark.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        replica: Replica,
        app_id: &str,
        shard: u32,
        options: EngineOptions,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (permissions_out, permissions) = watch::channel(0);
        let (schema_out, schema) = watch::channel(replica.watermark());
        let (metrics_out, metrics) = watch::channel(EngineMetrics::default());
        let tables = InternalTables::find(&replica.catalog(), app_id, shard);
        let encoder = Arc::new(RowEncoder::new(tables));
        let snapshots = Arc::new(SnapshotCache::new(encoder, options.snapshot_cache_bytes));
        let builder = IndexBuilder::start(replica.clone()).map_err(std::io::Error::other)?;
        let pool = hydration::HydrationPool::start(
            &replica,
            &snapshots,
            &Arc::new(builder),
            &commands.downgrade(),
            &options,
        )?;
        let helpers = advance_pool::AdvancePool::start(options.advance_threads)?;
        let thread = thread::EngineThread::new(
            replica,
            Arc::clone(&snapshots),
            (pool, helpers),
            thread::Signals {
                permissions: permissions_out,
                schema: schema_out,
                metrics: metrics_out,
            },
            options,
        );
        thread::spawn(thread, inbox, commands.downgrade())?;
        Ok(Self {
            commands,
            snapshots,
            permissions,
            schema,
            metrics,
        })
    }

    /// Attaches a group; its events come over `events`, until the group detaches or is cut off.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn attach(
        &self,
        group: GroupId,
        events: mpsc::Sender<GroupEvent>,
    ) -> Result<(), EngineStopped> {
        self.send(Command::Attach { group, events }).await
    }

    /// Asks for exactly these plans; answered by [`GroupEvent::Reconciled`]. One request of a group
    /// at a time.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn reconcile(
        &self,
        group: GroupId,
        plans: Vec<Arc<Plan>>,
    ) -> Result<(), EngineStopped> {
        self.send(Command::Reconcile { group, plans }).await
    }

    /// What happened to plans since a client's version: of those that are live and whose delta log
    /// reaches back to it.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn pasts(
        &self,
        question: PastsQuestion,
    ) -> Result<HashMap<PlanId, PlanPast>, EngineStopped> {
        let (answer, pasts) = oneshot::channel();
        self.send(Command::Pasts { question, answer }).await?;
        pasts.await.map_err(|_| EngineStopped)
    }

    /// Detaches a group.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn detach(&self, group: GroupId) -> Result<(), EngineStopped> {
        self.send(Command::Detach { group }).await
    }

    /// Stops the engine thread after what it is doing; groups see their channel close.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }

    /// Waits until the engine thread has ended, which it does only when it is told to or by a
    /// defect.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Encoded results of plans.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<SnapshotCache> {
        &self.snapshots
    }

    /// A number that changes whenever the application's permissions changed.
    #[must_use]
    pub fn permissions_changed(&self) -> watch::Receiver<u64> {
        self.permissions.clone()
    }

    /// The version at which a table was last altered, or appeared, or went.
    #[must_use]
    pub fn schema_changed(&self) -> watch::Receiver<Version> {
        self.schema.clone()
    }

    /// Counts, as of the last commit.
    #[must_use]
    pub fn metrics(&self) -> EngineMetrics {
        *self.metrics.borrow()
    }

    /// What the live plans cost: the slowest and the widest, at most `most` of each. Looks at every
    /// live plan on the engine thread.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn plan_reports(&self, most: usize) -> Result<PlanReports, EngineStopped> {
        let (answer, reports) = oneshot::channel();
        self.send(Command::Report { most, answer }).await?;
        reports.await.map_err(|_| EngineStopped)
    }

    /// What those of these plans cost that are live.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn reports_of(
        &self,
        plans: Vec<PlanId>,
    ) -> Result<HashMap<PlanId, PlanReport>, EngineStopped> {
        let (answer, reports) = oneshot::channel();
        self.send(Command::ReportOf { plans, answer }).await?;
        reports.await.map_err(|_| EngineStopped)
    }

    /// The live plan whose id begins like this, if there is exactly one.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn plan(&self, id: &str) -> Result<Option<Arc<Plan>>, EngineStopped> {
        let (answer, found) = oneshot::channel();
        let id = id.to_owned();
        self.send(Command::Find { id, answer }).await?;
        let mut found = found.await.map_err(|_| EngineStopped)?;
        let one = found.pop();
        Ok(one.filter(|_| found.is_empty()))
    }

    async fn send(&self, command: Command) -> Result<(), EngineStopped> {
        self.commands.send(command).await.map_err(|_| EngineStopped)
    }
}

impl CommitListener for Engine {
    /// Hands a commit to the engine; waits while the engine is behind.
    fn committed(&self, applied: Applied) {
        // A closed channel means shutdown: the commit is in the replica, nobody is left to hear.
        let _ = self.commands.blocking_send(Command::Commit(applied));
    }
}

/// The engine thread has ended; the server is going down.
#[derive(Debug, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineStopped;
