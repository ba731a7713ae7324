//! The engine thread: live plans, attached groups, and the order of what happens to them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Plan, PlanId, PlanState, Router};
use kelvin_protocol::Version;
use kelvin_storage::{Replica, TableId};
use roaring::RoaringBitmap;
use tokio::sync::{mpsc, watch};

use super::advance_pool::AdvancePool;
use super::delta_logs::DeltaLogs;
use super::fast_forward::fast_forward;
use super::hydration::HydrationPool;
use super::pasts::Recalls;
use super::snapshot::SnapshotCache;
use super::step::AdvanceLimits;
use super::{
    Command, Durations, EngineMetrics, EngineOptions, GroupEvent, GroupId, Hydrated,
    HydrationError, PlanCosts, Reconciled,
};

/// How often idle plans, and hydrations that were left, are looked for.
const TICK: Duration = Duration::from_secs(5);

/// A plan that is kept up to date.
pub(super) struct LivePlan {
    pub(super) plan: Arc<Plan>,
    /// Shared with those who recall the plan's past, shortly.
    pub(super) state: Arc<PlanState>,
    pub(super) groups: HashSet<GroupId>,
    pub(super) last_changed: Version,
    pub(super) costs: PlanCosts,
    /// How long its advances took, once there was one.
    pub(super) advance_times: Option<Box<Durations>>,
    /// Rows of the view, as they are in the sum over all plans.
    pub(super) rows: u64,
    idle_since: Option<Instant>,
}

/// An attached group.
pub(super) struct AttachedGroup {
    pub(super) events: mpsc::Sender<GroupEvent>,
    pub(super) plans: HashSet<PlanId>,
    wanted: Option<Wanted>,
}

/// A reconcile request that is not answered yet.
struct Wanted {
    plans: HashSet<PlanId>,
    failed: Vec<(PlanId, String)>,
}

/// A plan that is being hydrated, or waits for it.
struct Hydrating {
    plan: Arc<Plan>,
    /// Groups that wait for it.
    waiting: HashSet<GroupId>,
    /// Since when there is none.
    deserted: Option<Instant>,
}

/// All state of the engine. Only its own thread touches it.
pub(super) struct EngineThread {
    pub(super) replica: Replica,
    pub(super) snapshots: Arc<SnapshotCache>,
    pub(super) pool: HydrationPool,
    pub(super) version: Version,
    pub(super) plans: HashMap<PlanId, LivePlan>,
    pub(super) logs: DeltaLogs,
    pub(super) recalls: Recalls,
    pub(super) router: Router,
    pub(super) groups: HashMap<GroupId, AttachedGroup>,
    /// Plans in the pool.
    hydrating: HashMap<PlanId, Hydrating>,
    /// When plans in the pool were left by their last group, oldest first. It holds what happened
    /// within `hydration_deserted`.
    deserted: VecDeque<(Instant, PlanId)>,
    /// Plans hydrated at a version the engine has not reached yet.
    early: Vec<(PlanId, Hydrated)>,
    pub(super) signals: Signals,
    pub(super) metrics: EngineMetrics,
    pub(super) helpers: AdvancePool,
    pub(super) options: EngineOptions,
}

/// What the engine tells everybody.
pub(super) struct Signals {
    /// Counts changes of the application's permissions.
    pub(super) permissions: watch::Sender<u64>,
    /// Version of the last change of the schema.
    pub(super) schema: watch::Sender<Version>,
    /// Counts, as of the last commit.
    pub(super) metrics: watch::Sender<EngineMetrics>,
}

/// Starts the thread and the ticks that remind it of idle plans.
pub(super) fn spawn(
    mut engine: EngineThread,
    mut inbox: mpsc::Receiver<Command>,
    ticks: mpsc::WeakSender<Command>,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            while let Some(command) = inbox.blocking_recv() {
                if matches!(command, Command::Stop) {
                    break;
                }
                engine.handle(command);
            }
            tracing::debug!("engine stopped");
        })?;
    std::thread::Builder::new()
        .name("engine-tick".into())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let Some(engine) = ticks.upgrade() else {
                    return;
                };
                if engine.blocking_send(Command::Tick).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

impl EngineThread {
    pub(super) fn new(
        replica: Replica,
        snapshots: Arc<SnapshotCache>,
        (pool, helpers): (HydrationPool, AdvancePool),
        signals: Signals,
        options: EngineOptions,
    ) -> Self {
        let version = replica.watermark();
        Self {
            replica,
            snapshots,
            pool,
            version,
            plans: HashMap::new(),
            logs: DeltaLogs::new(options.delta_log_bytes, version),
            recalls: Recalls::default(),
            router: Router::new(),
            groups: HashMap::new(),
            hydrating: HashMap::new(),
            deserted: VecDeque::new(),
            early: Vec::new(),
            signals,
            metrics: EngineMetrics {
                version,
                ..EngineMetrics::default()
            },
            helpers,
            options,
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Commit(applied) => {
                self.commit(applied);
                self.activate_early();
            }
            Command::Attach { group, events } => {
                let plans = HashSet::new();
                self.groups.insert(
                    group,
                    AttachedGroup {
                        events,
                        plans,
                        wanted: None,
                    },
                );
            }
            Command::Reconcile { group, plans } => self.reconcile(group, plans),
            Command::Detach { group } => self.detach(group),
            Command::Hydrated { plan, result } => self.hydrated(plan, result),
            Command::Pasts { question, answer } => {
                self.pasts(question, answer);
            }
            Command::Recalled(recalled) => self.recalled(recalled),
            Command::Report { most, answer } => {
                let _ = answer.send(self.report(most));
            }
            Command::ReportOf { plans, answer } => {
                let _ = answer.send(self.reports_of(&plans));
            }
            Command::Find { id, answer } => {
                let _ = answer.send(self.find(&id));
            }
            Command::Tick => {
                self.drop_idle_plans();
                self.cancel_deserted();
            }
            Command::Stop => {}
        }
        self.publish_metrics();
    }

    fn publish_metrics(&mut self) {
        self.metrics.version = self.version;
        self.metrics.plans = self.plans.len();
        self.metrics.groups = self.groups.len();
        self.metrics.delta_log_bytes = self.logs.bytes();
        self.signals.metrics.send_replace(self.metrics);
    }

    fn reconcile(&mut self, group: GroupId, plans: Vec<Arc<Plan>>) {
        let Some(attached) = self.groups.get_mut(&group) else {
            return;
        };
        let ids: HashSet<PlanId> = plans.iter().map(|plan| plan.id()).collect();
        let before = attached.wanted.take().map(|wanted| wanted.plans);
        let left = before.into_iter().flatten().filter(|id| !ids.contains(id));
        let left: Vec<PlanId> = left.collect();
        attached.wanted = Some(Wanted {
            plans: ids,
            failed: Vec::new(),
        });
        for plan in plans {
            let id = plan.id();
            if self.plans.contains_key(&id) {
                continue;
            }
            let hydrating = self.hydrating.entry(id).or_insert_with(|| {
                self.pool.submit(Arc::clone(&plan));
                Hydrating {
                    plan,
                    waiting: HashSet::new(),
                    deserted: None,
                }
            });
            hydrating.waiting.insert(group);
            hydrating.deserted = None;
        }
        self.leave_hydrations(group, left);
        self.answer_if_complete(group);
    }

    fn hydrated(&mut self, id: PlanId, result: Result<Hydrated, HydrationError>) {
        match result {
            Err(HydrationError::Failed(message)) => self.hydration_failed(id, &message),
            Err(HydrationError::Stale) => self.hydration_stale(id),
            Ok(first) if first.state.version() > self.version => self.early.push((id, first)),
            Ok(first) => self.activate(id, first),
        }
    }

    fn hydration_failed(&mut self, id: PlanId, message: &str) {
        tracing::warn!(plan = %id, error = %message, "a query could not be hydrated");
        let Some(Hydrating { waiting, .. }) = self.hydrating.remove(&id) else {
            return;
        };
        self.answer_without(id, message, waiting);
    }

    /// Tells groups that wait for a plan that it failed, once they have the others.
    pub(super) fn answer_without(&mut self, id: PlanId, why: &str, waiting: HashSet<GroupId>) {
        for group in waiting {
            if let Some(wanted) = self.groups.get_mut(&group).and_then(|g| g.wanted.as_mut())
                && wanted.plans.remove(&id)
            {
                wanted.failed.push((id, why.to_owned()));
            }
            self.answer_if_complete(group);
        }
    }

    /// A table of the plan changed while it was on its way: those who wait for it compile their
    /// queries anew.
    fn hydration_stale(&mut self, id: PlanId) {
        let Some(Hydrating { waiting, .. }) = self.hydrating.remove(&id) else {
            return;
        };
        for group in waiting {
            self.detach(group);
        }
    }

    /// Takes up plans that were hydrated ahead of the engine and that it has now caught up with.
    fn activate_early(&mut self) {
        let version = self.version;
        let ready = self
            .early
            .extract_if(.., |(_, first)| first.state.version() <= version);
        for (id, first) in ready.collect::<Vec<_>>() {
            self.activate(id, first);
        }
    }

    /// Brings a hydrated plan up to the engine's version and answers those who waited for it.
    fn activate(&mut self, id: PlanId, first: Hydrated) {
        let Hydrated {
            mut state,
            mut last_changed,
            took,
            examined,
        } = first;
        if state.version() < self.version {
            let Some(Hydrating { plan, .. }) = self.hydrating.get(&id) else {
                return;
            };
            let slices = (AdvanceLimits::of(&self.options), self.options.forward_rows);
            match fast_forward(&self.replica, plan, &mut state, self.version, slices) {
                Ok(true) => last_changed = self.version,
                Ok(false) => {}
                Err(HydrationError::Stale) => return self.hydration_stale(id),
                Err(HydrationError::Failed(message)) => {
                    return self.hydration_failed(id, &message);
                }
            }
        }
        let Some(Hydrating { plan, waiting, .. }) = self.hydrating.remove(&id) else {
            return;
        };
        self.metrics.hydrations += 1;
        self.metrics.costs.hydrated(took, examined);
        self.metrics.hydration_times.record(took);
        let rows = state.row_count();
        self.metrics.plan_rows += rows;
        let mut costs = PlanCosts::default();
        costs.hydrated(took, examined);
        self.router.insert(id, &plan);
        self.router.narrow(&state);
        self.logs.open(id, self.version);
        let idle_since = Some(Instant::now());
        let groups = HashSet::new();
        self.plans.insert(
            id,
            LivePlan {
                plan,
                state: Arc::new(state),
                groups,
                last_changed,
                costs,
                advance_times: None,
                rows,
                idle_since,
            },
        );
        for group in waiting {
            self.answer_if_complete(group);
        }
    }

    /// Groups that wait for an answer with one of these plans in it, by the plan.
    pub(super) fn waiting_for(&self, plans: &HashSet<PlanId>) -> HashMap<PlanId, HashSet<GroupId>> {
        let mut waiting: HashMap<PlanId, HashSet<GroupId>> = HashMap::new();
        if plans.is_empty() {
            return waiting;
        }
        for (group, attached) in &self.groups {
            let wanted = attached.wanted.iter().flat_map(|wanted| &wanted.plans);
            for id in wanted.filter(|id| plans.contains(id)) {
                waiting.entry(*id).or_default().insert(*group);
            }
        }
        waiting
    }

    fn answer_if_complete(&mut self, group: GroupId) {
        let Some(attached) = self.groups.get_mut(&group) else {
            return;
        };
        let complete = attached
            .wanted
            .as_ref()
            .is_some_and(|wanted| wanted.plans.iter().all(|id| self.plans.contains_key(id)));
        if !complete {
            return;
        }
        let Some(wanted) = attached.wanted.take() else {
            return;
        };
        let before = std::mem::replace(&mut attached.plans, wanted.plans);
        let now = attached.plans.clone();
        self.count_subscriptions(before.len(), now.len());
        for id in &now {
            if let Some(live) = self.plans.get_mut(id) {
                live.groups.insert(group);
                live.idle_since = None;
            }
        }
        let removed: Vec<PlanId> = before.difference(&now).copied().collect();
        for id in &removed {
            self.unsubscribe(group, *id);
        }
        let changed_at = |id: &PlanId| self.plans.get(id).map_or(self.version, |p| p.last_changed);
        let reconciled = Reconciled {
            version: self.version,
            added: now
                .difference(&before)
                .map(|id| (*id, changed_at(id)))
                .collect(),
            gone: self.gone(&removed, &now),
            failed: wanted.failed,
        };
        self.notify(group, GroupEvent::Reconciled(reconciled));
    }

    /// Rows of the removed plans that no plan of `kept` holds.
    fn gone(&self, removed: &[PlanId], kept: &HashSet<PlanId>) -> Vec<(TableId, RoaringBitmap)> {
        let mut gone: HashMap<TableId, RoaringBitmap> = HashMap::new();
        for live in removed.iter().filter_map(|id| self.plans.get(id)) {
            for (table, rows) in live.state.rows() {
                *gone.entry(table).or_default() |= rows;
            }
        }
        for live in kept.iter().filter_map(|id| self.plans.get(id)) {
            for (table, rows) in live.state.rows() {
                if let Some(candidates) = gone.get_mut(&table) {
                    *candidates -= rows;
                }
            }
        }
        gone.into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .collect()
    }

    /// Sends an event to a group, or cuts the group off if it does not keep up.
    pub(super) fn notify(&mut self, group: GroupId, event: GroupEvent) {
        let Some(attached) = self.groups.get(&group) else {
            return;
        };
        if attached.events.try_send(event).is_ok() {
            self.metrics.deliveries += 1;
            return;
        }
        if !attached.events.is_closed() {
            self.metrics.cut_off += 1;
            tracing::debug!(
                group = group.0,
                "a group does not keep up and will catch up by a diff"
            );
        }
        self.detach(group);
    }

    pub(super) fn detach(&mut self, group: GroupId) {
        let Some(attached) = self.groups.remove(&group) else {
            return;
        };
        self.count_subscriptions(attached.plans.len(), 0);
        for id in attached.plans {
            self.unsubscribe(group, id);
        }
        let wanted = attached.wanted.into_iter();
        self.leave_hydrations(group, wanted.flat_map(|wanted| wanted.plans));
    }

    /// A group does not wait for these plans any more, some of which may not hydrate.
    ///
    /// What others wait for is not looked at: after a restart all clients come within seconds.
    fn leave_hydrations(&mut self, group: GroupId, plans: impl IntoIterator<Item = PlanId>) {
        for id in plans {
            if let Some(hydrating) = self.hydrating.get_mut(&id)
                && hydrating.waiting.remove(&group)
                && hydrating.waiting.is_empty()
            {
                let now = Instant::now();
                hydrating.deserted = Some(now);
                self.deserted.push_back((now, id));
            }
        }
        self.cancel_deserted();
    }

    /// Ends hydrations that nobody has waited for in a while. Looks at those that are due only.
    fn cancel_deserted(&mut self) {
        let limit = self.options.hydration_deserted;
        let mut over = HashSet::new();
        while let Some((since, id)) = self.deserted.pop_front_if(|(at, _)| at.elapsed() >= limit) {
            // Else somebody waits for it again, has left it later, or it is done.
            let hydrating = self.hydrating.get(&id);
            if hydrating.is_some_and(|hydrating| hydrating.deserted == Some(since)) {
                self.hydrating.remove(&id);
                over.insert(id);
            }
        }
        if !over.is_empty() {
            self.pool.cancel(&over);
        }
    }

    fn unsubscribe(&mut self, group: GroupId, id: PlanId) {
        if let Some(live) = self.plans.get_mut(&id) {
            live.groups.remove(&group);
            if live.groups.is_empty() {
                live.idle_since = Some(Instant::now());
            }
        }
    }

    /// A group had so many plans and has so many now.
    ///
    /// INVARIANT: called wherever the plans of a group change. They are not counted anew, for there
    /// may be tens of thousands of groups, all of which come within seconds after a restart.
    pub(super) fn count_subscriptions(&mut self, before: usize, now: usize) {
        let others = self.metrics.subscriptions.saturating_sub(before);
        self.metrics.subscriptions = others + now;
    }

    fn drop_idle_plans(&mut self) {
        let limit = self.options.plan_idle;
        let idle = |live: &LivePlan| {
            live.idle_since
                .is_some_and(|since| since.elapsed() >= limit)
        };
        let idle = self.plans.iter().filter(|(_, live)| idle(live));
        let mut dropped: HashSet<PlanId> = idle.map(|(id, _)| *id).collect();
        if dropped.is_empty() {
            return;
        }
        // A group may wait for it and for others that take long.
        let wanted = self
            .groups
            .values()
            .filter_map(|group| group.wanted.as_ref());
        for id in wanted.flat_map(|wanted| &wanted.plans) {
            dropped.remove(id);
        }
        for id in dropped {
            self.forget(id);
        }
    }

    /// Drops a plan and its routes.
    pub(super) fn forget(&mut self, id: PlanId) -> Option<LivePlan> {
        self.router.remove(&id);
        self.logs.forget(id);
        let live = self.plans.remove(&id)?;
        let rows = &mut self.metrics.plan_rows;
        *rows = rows.saturating_sub(live.rows);
        Some(live)
    }
}

/// Whether a plan reads one of these tables.
pub(super) fn reads_any(plan: &Plan, tables: &[TableId]) -> bool {
    !tables.is_empty() && plan.tables().iter().any(|table| tables.contains(table))
}
