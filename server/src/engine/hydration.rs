//! A small pool of threads that hydrate plans beside the engine thread.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Budget, ErrorKind, Plan, PlanId, PlanState};
use kelvin_storage::{IndexBuilder, Replica, Row, TableId, View};
use tokio::sync::mpsc::WeakSender;

use super::fast_forward::fast_forward;
use super::hydration_queue::{HydrationQueue, Job, Turn};
use super::recall::{Recall, RecallJob, Recalled};
use super::snapshot::SnapshotCache;
use super::step::{AdvanceLimits, DEFECT};
use super::whole_result::WholeResult;
use super::{Command, EngineOptions, Hydrated, HydrationError};

/// Rows of a result that are encoded while the plan hydrates; a larger result is encoded when a
/// group asks for it, so that a hydration holds little in memory.
const ENCODE_UP_TO: usize = 20_000;

/// How often a plan is brought up to what was committed meanwhile; each round has less to do.
const FOLLOW_ROUNDS: usize = 4;
/// A round that took less than this is the last: the engine thread can afford the next.
const FOLLOWED: Duration = Duration::from_millis(2);

/// Threads that are at least there, so that one is left when another is at a long hydration.
const MIN_THREADS: usize = 2;

/// The threads, and what waits for them.
pub struct HydrationPool {
    queue: Arc<HydrationQueue>,
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
        let threads = options.hydration_threads.max(MIN_THREADS);
        let queue = Arc::new(HydrationQueue::new(threads, options.hydration_slice));
        let recall = Arc::new(Recall::new(replica.clone(), options.hydration_timeout));
        for number in 0..threads {
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
        self.queue.hydrate(plan);
    }

    /// Nobody waits for these plans any more.
    pub(super) fn cancel(&self, plans: &HashSet<PlanId>) {
        self.queue.cancel(plans);
    }

    /// Has the log of a plan begin earlier.
    pub(super) fn recall(&self, job: RecallJob) {
        self.queue.recall(job);
    }
}

impl Drop for HydrationPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Worker {
    queue: Arc<HydrationQueue>,
    replica: Replica,
    snapshots: Arc<SnapshotCache>,
    builder: Arc<IndexBuilder>,
    engine: WeakSender<Command>,
    recall: Arc<Recall>,
    options: EngineOptions,
}

impl Worker {
    fn run(self) {
        while let Some(job) = self.queue.next(|| self.recall.rest()) {
            let done = match job {
                Job::Recall(job) => self.recalled(job),
                Job::Hydrate(plan, turn) => {
                    let done = self.hydrated(&plan, &turn);
                    self.queue.finish(&plan, &turn);
                    if turn.has_given_up() || turn.is_cancelled() {
                        continue;
                    }
                    done
                }
            };
            let Some(engine) = self.engine.upgrade() else {
                return;
            };
            if engine.blocking_send(done).is_err() {
                return;
            }
        }
    }

    fn hydrated(&self, plan: &Arc<Plan>, turn: &Arc<Turn>) -> Command {
        let work = AssertUnwindSafe(|| self.hydrate(plan, turn));
        // A panic in one plan must not take the pool with it.
        let result =
            catch_unwind(work).unwrap_or_else(|_| Err(HydrationError::Failed(DEFECT.to_owned())));
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

    fn hydrate(&self, plan: &Arc<Plan>, turn: &Arc<Turn>) -> Result<Hydrated, HydrationError> {
        let view = self.replica.latest();
        let view = view.map_err(|error| HydrationError::Failed(error.to_string()))?;
        if !plan.is_current(view.catalog()) {
            return Err(HydrationError::Stale);
        }
        let hydrated = self.hydrate_at(plan, &view, turn);
        let mut hydrated = hydrated.map_err(HydrationError::Failed)?;
        self.follow(plan, &mut hydrated)?;
        Ok(hydrated)
    }

    fn hydrate_at(
        &self,
        plan: &Arc<Plan>,
        view: &View,
        turn: &Arc<Turn>,
    ) -> Result<Hydrated, String> {
        super::access::ask_for_indexes(&self.replica, &self.builder, plan);
        let budget = self.budget(plan, turn);
        let mut result = Some(WholeResult::new(
            self.snapshots.encoder(),
            plan,
            view.catalog(),
        ));
        let mut rows = 0;
        let mut sink = |table: TableId, row: &Row| {
            rows += 1;
            if rows > ENCODE_UP_TO {
                result = None;
            }
            if let Some(result) = &mut result {
                result.add(table, row);
            }
            ControlFlow::Continue(())
        };
        let hydrated = PlanState::hydrate(Arc::clone(plan), view, &budget, &mut sink);
        let state = hydrated.map_err(|error| self.told(&error))?;
        if let Some(result) = result {
            self.snapshots.insert(plan, view, result)?;
        }
        let took = turn.took();
        let (rows, ms) = (state.row_count(), took.as_millis());
        if took >= self.options.slow_hydration {
            tracing::warn!(plan = %plan.id(), rows, ms, "slow hydration");
        } else {
            tracing::debug!(plan = %plan.id(), rows, ms, "hydrated");
        }
        Ok(Hydrated {
            examined: state.examined(),
            last_changed: state.version(),
            state,
            took,
        })
    }

    /// The budget of a plan's turn, which ends when it has to give up its thread, too.
    fn budget(&self, plan: &Arc<Plan>, turn: &Arc<Turn>) -> Budget {
        let (queue, turn) = (Arc::clone(&self.queue), Arc::clone(turn));
        let timeout = self.options.hydration_timeout;
        #[cfg(test)]
        let (hook, plan) = (self.options.hooks.hydrate.clone(), Arc::clone(plan));
        #[cfg(not(test))]
        let _ = plan;
        Budget::rows(self.options.hydration_max_rows).with_stop(move || {
            let stop = turn.is_cancelled() || turn.elapsed() > timeout || queue.must_give_up(&turn);
            #[cfg(test)]
            if let Some(hook) = hook.as_ref().filter(|_| !stop && turn.is_long()) {
                hook.call(&plan);
            }
            stop
        })
    }

    /// The reason for the application's developer.
    fn told(&self, error: &kelvin_ivm::Error) -> String {
        let options = &self.options;
        let (what, setting) = match error.kind() {
            ErrorKind::Stopped => {
                let timeout = options.hydration_timeout.as_millis();
                let what = format!("took longer than {timeout} ms");
                (what, "ZERO_KELVIN_HYDRATION_TIMEOUT_MS")
            }
            ErrorKind::Budget => {
                let what = format!("examined more than {} rows", options.hydration_max_rows);
                (what, "ZERO_KELVIN_HYDRATION_MAX_ROWS")
            }
            _ => return error.to_string(),
        };
        format!("the query {what} to hydrate; narrow it, or raise {setting}")
    }

    /// Brings a plan up to what was committed while it hydrated, and while it was brought up, so
    /// that little of that is left to the engine thread, where all others would wait for it.
    fn follow(&self, plan: &Plan, hydrated: &mut Hydrated) -> Result<(), HydrationError> {
        for _ in 0..FOLLOW_ROUNDS {
            let latest = self.replica.watermark();
            if latest == hydrated.state.version() {
                break;
            }
            let started = Instant::now();
            let slices = (
                AdvanceLimits::beside(&self.options),
                self.options.forward_rows,
            );
            if fast_forward(&self.replica, plan, &mut hydrated.state, latest, slices)? {
                hydrated.last_changed = latest;
            }
            if started.elapsed() < FOLLOWED {
                break;
            }
        }
        Ok(())
    }
}

/// The budget of one evaluation that starts at `started`.
pub fn budget(options: &EngineOptions, started: Instant) -> Budget {
    let timeout = options.hydration_timeout;
    Budget::rows(options.hydration_max_rows).with_stop(move || started.elapsed() > timeout)
}
