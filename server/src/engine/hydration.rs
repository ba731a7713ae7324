//! A small pool of threads that hydrate plans beside the engine thread.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use kelvin_ivm::{Budget, Plan, PlanState};
use kelvin_storage::{IndexBuilder, Replica, Row, TableId, View};
use tokio::sync::mpsc::WeakSender;

use super::recall::{Recall, RecallJob, Recalled};
use super::snapshot::SnapshotCache;
use super::{Command, EngineOptions, Hydrated, HydrationError};

/// Rows of a result that are encoded while the plan hydrates; a larger result is encoded when a
/// group asks for it, so that a hydration holds few rows in memory.
const ENCODE_UP_TO: usize = 20_000;

enum Job {
    Hydrate(Arc<Plan>),
    Recall(RecallJob),
}

/// Queue of plans to hydrate, and to recall the past of. It is bounded by the engine: a plan is in
/// it at most once for each.
pub struct HydrationPool {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl HydrationPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        replica: &Replica,
        snapshots: &Arc<SnapshotCache>,
        builder: &Arc<IndexBuilder>,
        engine: &WeakSender<Command>,
        options: &EngineOptions,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let recall = Arc::new(Recall::new(replica.clone(), options.hydration_timeout));
        for number in 0..options.hydration_threads.max(1) {
            let worker = Worker {
                queue: Arc::clone(&queue),
                replica: replica.clone(),
                snapshots: Arc::clone(snapshots),
                builder: Arc::clone(builder),
                engine: engine.clone(),
                recall: Arc::clone(&recall),
                options: options.clone(),
            };
            std::thread::Builder::new()
                .name(format!("hydrate-{number}"))
                .spawn(move || worker.run())?;
        }
        Ok(Self { queue })
    }

    /// Puts a plan at the end of the queue, to be hydrated.
    pub fn submit(&self, plan: Arc<Plan>) {
        self.push(Job::Hydrate(plan));
    }

    /// Puts a plan whose log is to begin earlier ahead of all that are to be hydrated: it takes
    /// less, and its clients have waited for their queries already.
    pub(super) fn recall(&self, job: RecallJob) {
        self.push(Job::Recall(job));
    }

    fn push(&self, job: Job) {
        let mut state = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match job {
            Job::Hydrate(_) => state.jobs.push_back(job),
            Job::Recall(_) => state.jobs.push_front(job),
        }
        self.queue.wake.notify_one();
    }
}

impl Drop for HydrationPool {
    fn drop(&mut self) {
        let mut state = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        self.queue.wake.notify_all();
    }
}

struct Worker {
    queue: Arc<Queue>,
    replica: Replica,
    snapshots: Arc<SnapshotCache>,
    builder: Arc<IndexBuilder>,
    engine: WeakSender<Command>,
    recall: Arc<Recall>,
    options: EngineOptions,
}

impl Worker {
    fn run(self) {
        while let Some(job) = self.next() {
            let done = match job {
                Job::Hydrate(plan) => self.hydrated(&plan),
                Job::Recall(job) => self.recalled(job),
            };
            let Some(engine) = self.engine.upgrade() else {
                return;
            };
            if engine.blocking_send(done).is_err() {
                return;
            }
        }
    }

    fn hydrated(&self, plan: &Arc<Plan>) -> Command {
        let work = AssertUnwindSafe(|| self.hydrate(plan));
        // A panic in one plan must not take the pool with it.
        let result = catch_unwind(work).unwrap_or_else(|_| {
            let message = "the query hit a defect of the server";
            Err(HydrationError::Failed(message.to_owned()))
        });
        Command::Hydrated {
            plan: plan.id(),
            result,
        }
    }

    fn recalled(&self, job: RecallJob) -> Command {
        let unknown = Recalled {
            plan: job.state.plan().id(),
            since: job.since,
            to: job.to,
            most: job.most,
            deltas: None,
        };
        let work = AssertUnwindSafe(|| self.recall.run(job));
        Command::Recalled(catch_unwind(work).unwrap_or(unknown))
    }

    fn next(&self) -> Option<Job> {
        let mut state = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            self.recall.rest();
            state = self
                .queue
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hydrate(&self, plan: &Arc<Plan>) -> Result<Hydrated, HydrationError> {
        let view = self.replica.latest();
        let view = view.map_err(|error| HydrationError::Failed(error.to_string()))?;
        if !plan.is_current(view.catalog()) {
            return Err(HydrationError::Stale);
        }
        self.hydrate_at(plan, &view).map_err(HydrationError::Failed)
    }

    fn hydrate_at(&self, plan: &Arc<Plan>, view: &View) -> Result<Hydrated, String> {
        super::access::ask_for_indexes(&self.replica, &self.builder, plan);
        let started = Instant::now();
        let budget = budget(&self.options, started);
        let mut rows = Vec::new();
        let mut overflow = false;
        let mut sink = |table: TableId, row: &Row| {
            overflow |= rows.len() >= ENCODE_UP_TO;
            if !overflow {
                rows.push((table, row.clone()));
            }
            ControlFlow::Continue(())
        };
        let state = PlanState::hydrate(Arc::clone(plan), view, &budget, &mut sink)
            .map_err(|error| error.to_string())?;
        if !overflow {
            self.snapshots.insert(plan, view, rows)?;
        }
        let took = started.elapsed();
        let (rows, ms) = (state.row_count(), took.as_millis());
        if took >= self.options.slow_hydration {
            tracing::warn!(plan = %plan.id(), rows, ms, "slow hydration");
        } else {
            tracing::debug!(plan = %plan.id(), rows, ms, "hydrated");
        }
        Ok(Hydrated { state, took })
    }
}

/// The budget of one evaluation that starts at `started`.
pub fn budget(options: &EngineOptions, started: Instant) -> Budget {
    let timeout = options.hydration_timeout;
    Budget::rows(options.hydration_max_rows).with_stop(move || started.elapsed() > timeout)
}
