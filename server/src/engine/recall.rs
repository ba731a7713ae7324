//! What happened to a plan before it was kept up to date, by the changelog: its view is taken back
//! commit by commit, which lets its delta log begin earlier.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kelvin_ivm::{ChangeSet, LoggedDelta, Plan, PlanId, PlanState, Router, RowKeys};
use kelvin_protocol::Version;
use kelvin_storage::{Replica, Result, TableId, Written};

use super::delta_logs::most_logged;

/// Pairs of a transaction and a table it wrote to that are known at a time. A client that was away
/// for longer is brought up by evaluations.
const WRITTEN: usize = 200_000;

/// Rows of changes that are kept for the next plan, while there is one. A transaction that changed
/// more is not gone back over.
const KEPT_ROWS: u64 = 20_000;

/// A log to be begun earlier.
pub(super) struct RecallJob {
    /// The plan's state.
    pub(super) state: Arc<PlanState>,
    /// The version it stands for.
    pub(super) at: Version,
    /// The version its log begins at.
    pub(super) since: Version,
    /// The version it is to begin at.
    pub(super) to: Version,
    /// Changed rows of the plan's tables that may be looked at.
    pub(super) most: u64,
}

/// What became of a [`RecallJob`].
pub(super) struct Recalled {
    pub(super) plan: PlanId,
    pub(super) since: Version,
    pub(super) to: Version,
    pub(super) most: u64,
    /// The steps between the two versions, oldest first; `None` if evaluations are better.
    pub(super) deltas: Option<Vec<Arc<LoggedDelta>>>,
}

/// Reads the changelog for all plans.
pub(super) struct Recall {
    replica: Replica,
    timeout: Duration,
    written: Mutex<KnownWritten>,
    steps: Mutex<KeptSteps>,
}

/// Which transactions wrote to which tables in `(from, to]`.
#[derive(Default)]
struct KnownWritten {
    from: Version,
    to: Version,
    pairs: usize,
    known: Written,
    /// Rows that each transaction wrote.
    sizes: HashMap<Version, u64>,
    /// From here on back there are too many.
    too_far: Version,
}

/// Reversed changes between two versions, those read last.
#[derive(Default)]
struct KeptSteps {
    steps: HashMap<(Version, Version), (Arc<ChangeSet>, u64)>,
    order: VecDeque<(Version, Version)>,
    rows: u64,
}

impl Recall {
    /// `timeout` is the longest one recall may take.
    pub(super) fn new(replica: Replica, timeout: Duration) -> Self {
        Self {
            replica,
            timeout,
            written: Mutex::default(),
            steps: Mutex::default(),
        }
    }

    /// Nobody is waiting: lets go of the rows that were kept.
    pub(super) fn rest(&self) {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = KeptSteps::default();
    }

    /// Takes a plan's view back, step by step.
    pub(super) fn run(&self, job: RecallJob) -> Recalled {
        let plan = job.state.plan().id();
        let (since, to, most) = (job.since, job.to, job.most);
        let deltas = self.deltas(job).unwrap_or_else(|error| {
            tracing::debug!(%plan, %error, "a plan's past cannot be recalled");
            None
        });
        Recalled {
            plan,
            since,
            to,
            most,
            deltas,
        }
    }

    fn deltas(
        &self,
        job: RecallJob,
    ) -> std::result::Result<Option<Vec<Arc<LoggedDelta>>>, kelvin_ivm::Error> {
        let started = Instant::now();
        let plan = Arc::clone(job.state.plan());
        let Some(commits) = self.commits(&plan, &job)? else {
            return Ok(None);
        };
        let mut state = PlanState::clone(&job.state);
        let most_logged = most_logged(state.row_count());
        // The engine copies a state that somebody else has when it moves it on.
        drop(job.state);
        let mut router = Router::new();
        router.insert(plan.id(), &plan);
        let (mut deltas, mut logged) = (VecDeque::new(), 0);
        for newer in commits.into_iter().rev() {
            let older = newer.saturating_sub(1);
            let changes = self.changes(older, newer)?;
            if router.route(&changes).is_empty() {
                continue;
            }
            let (before, after) = (self.replica.at(older)?, self.replica.at(newer)?);
            let late = started.elapsed() > self.timeout;
            if late || !plan.is_current(before.catalog()) || !plan.is_current(after.catalog()) {
                return Ok(None);
            }
            let delta = state.rewind(&changes, &after, &before)?;
            // What is younger than the log's beginning is in it.
            if newer > job.since || delta.is_empty() {
                continue;
            }
            let keys = &mut RowKeys::default();
            let step = LoggedDelta::new((newer, older), &delta, before.catalog(), keys).reversed();
            logged += step.rows.len();
            if logged > most_logged {
                return Ok(None);
            }
            deltas.push_front(Arc::new(step));
        }
        Ok(Some(deltas.into()))
    }

    /// The transactions in `(job.to, job.at]` that wrote to the plan's tables; `None` where it is
    /// too much that they wrote, or cannot be told.
    fn commits(&self, plan: &Plan, job: &RecallJob) -> Result<Option<BTreeSet<Version>>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !written.reach(&self.replica, job.to, job.at)? {
            return Ok(None);
        }
        let (mut commits, mut rows) = (BTreeSet::new(), 0);
        let none = BTreeMap::new();
        for table in plan.tables() {
            if written.broken_after(table, job.to) {
                return Ok(None);
            }
            let versions = written.known.rows.get(&table).unwrap_or(&none);
            for (version, count) in
                versions.range((Bound::Excluded(job.to), Bound::Included(job.at)))
            {
                rows += count;
                let size = written.sizes.get(version).copied().unwrap_or(0);
                if rows > job.most || size > KEPT_ROWS {
                    return Ok(None);
                }
                commits.insert(*version);
            }
        }
        Ok(Some(commits))
    }

    /// The reversed changes between two versions.
    fn changes(&self, older: Version, newer: Version) -> Result<Arc<ChangeSet>> {
        let span = (older, newer);
        let lock = || self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((changes, _)) = lock().steps.get(&span) {
            return Ok(Arc::clone(changes));
        }
        let applied = self.replica.changes(older, newer)?;
        let rows = applied.changes.len() as u64 + 1;
        let changes = Arc::new(ChangeSet::new(applied).reversed());
        lock().keep(span, &changes, rows);
        Ok(changes)
    }
}

impl KnownWritten {
    /// Makes it known what was written in `(from, to]`; `false` if that is too much.
    fn reach(&mut self, replica: &Replica, from: Version, to: Version) -> Result<bool> {
        if from <= self.too_far {
            return Ok(false);
        }
        let apart = self.to < from || to < self.from || self.pairs > WRITTEN;
        if apart || self.from == self.to {
            self.forget(to);
        }
        for (from, to) in [(from, self.from), (self.to, to)] {
            if from >= to {
                continue;
            }
            let Some(more) = replica.written(from, to, WRITTEN)? else {
                self.forget(to);
                self.too_far = self.too_far.max(from);
                return Ok(false);
            };
            self.from = self.from.min(from);
            self.to = self.to.max(to);
            for (table, versions) in more.rows {
                self.pairs += versions.len();
                for (version, rows) in &versions {
                    *self.sizes.entry(*version).or_default() += rows;
                }
                self.known.rows.entry(table).or_default().extend(versions);
            }
            for (table, version) in more.broken {
                let broken = self.known.broken.entry(table).or_default();
                *broken = version.max(*broken);
            }
        }
        Ok(true)
    }

    fn forget(&mut self, at: Version) {
        *self = Self {
            from: at,
            to: at,
            too_far: self.too_far,
            ..Self::default()
        };
    }

    /// Whether the table was altered, or written to beyond telling, after the version.
    fn broken_after(&self, table: TableId, version: Version) -> bool {
        self.known
            .broken
            .get(&table)
            .is_some_and(|at| *at > version)
    }
}

impl KeptSteps {
    fn keep(&mut self, span: (Version, Version), changes: &Arc<ChangeSet>, rows: u64) {
        let slot = (Arc::clone(changes), rows);
        if rows > KEPT_ROWS || self.steps.insert(span, slot).is_some() {
            return;
        }
        self.rows += rows;
        self.order.push_back(span);
        while self.rows > KEPT_ROWS
            && let Some(oldest) = self.order.pop_front()
        {
            self.rows -= self.steps.remove(&oldest).map_or(0, |(_, rows)| rows);
        }
    }
}
