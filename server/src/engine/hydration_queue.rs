//! What the hydration threads have to do, and in which order, so that slow queries delay no others.
//!
//! Nobody knows how long a query takes before it was tried. Each gets a slice; one that goes on
//! beyond it counts as long. All threads but one may be at long ones. Where no more may, a query
//! that has had its slice gives up its thread to those that wait, and is hydrated from the start
//! when it is its turn among the long.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kelvin_ivm::{Plan, PlanId};

use super::recall::RecallJob;

/// Work for one thread.
pub(super) enum Job {
    /// To hydrate a plan.
    Hydrate(Arc<Plan>, Arc<Turn>),
    /// To recall the past of a plan.
    Recall(RecallJob),
}

/// Plans to hydrate, and to recall the past of. It is bounded by the engine: a plan is in it at most
/// once for each.
pub(super) struct HydrationQueue {
    state: Mutex<State>,
    wake: Condvar,
    /// Threads that may be at long hydrations.
    most_long: usize,
    slice: Duration,
}

#[derive(Default)]
struct State {
    recalls: VecDeque<RecallJob>,
    fresh: VecDeque<Arc<Plan>>,
    /// Plans that gave up their thread, with the time they had.
    long: VecDeque<(Arc<Plan>, Duration)>,
    /// The turns of plans that are on threads.
    running: HashMap<PlanId, Arc<Turn>>,
    /// Threads that are at long hydrations.
    at_long: usize,
    closed: bool,
}

/// One turn of a plan on a thread.
pub(super) struct Turn {
    started: Instant,
    /// Time it had before, in vain.
    spent: Duration,
    /// Whether it counts as long.
    long: AtomicBool,
    given_up: AtomicBool,
    cancelled: AtomicBool,
}

impl Turn {
    fn new(spent: Duration, long: bool) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            spent,
            long: AtomicBool::new(long),
            given_up: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        })
    }

    /// Time since it began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time the plan had on threads, that of an earlier turn included.
    pub(super) fn took(&self) -> Duration {
        self.spent + self.elapsed()
    }

    /// Whether it counts as long, and so keeps its thread.
    #[cfg(test)]
    pub(super) fn is_long(&self) -> bool {
        self.long.load(Ordering::Relaxed)
    }

    /// Whether nobody waits for the plan any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether it gave up its thread.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

impl HydrationQueue {
    /// A queue for so many threads, two at least. A hydration that takes longer than `slice` is a
    /// long one.
    pub(super) fn new(threads: usize, slice: Duration) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            most_long: threads.saturating_sub(1).max(1),
            slice,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a plan at the end, to be hydrated.
    pub(super) fn hydrate(&self, plan: Arc<Plan>) {
        self.lock().fresh.push_back(plan);
        self.wake.notify_one();
    }

    /// Nobody waits for these plans any more: they are not begun, or end at their next look at the
    /// clock. There may be thousands, as where a network fails.
    pub(super) fn cancel(&self, plans: &HashSet<PlanId>) {
        let mut state = self.lock();
        state.fresh.retain(|plan| !plans.contains(&plan.id()));
        state.long.retain(|(plan, _)| !plans.contains(&plan.id()));
        for id in plans {
            if let Some(turn) = state.running.remove(id) {
                turn.cancelled.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Puts a plan whose log is to begin earlier ahead of all that are to be hydrated: it takes
    /// less, and its clients have waited for their queries already.
    pub(super) fn recall(&self, job: RecallJob) {
        self.lock().recalls.push_back(job);
        self.wake.notify_one();
    }

    /// Ends all threads once they are done with what they are at.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits for something to do, calling `rest` before each wait; `None` once it is closed.
    ///
    /// Long plans go ahead of fresh ones, for they have waited longer, but leave one thread to them:
    /// neither kind waits for ever.
    pub(super) fn next(&self, rest: impl Fn()) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take(self.most_long) {
                return Some(job);
            }
            rest();
            let woken = self.wake.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a hydration has to give up its thread, asked as it goes on.
    pub(super) fn must_give_up(&self, turn: &Turn) -> bool {
        if turn.long.load(Ordering::Relaxed) || turn.elapsed() <= self.slice {
            return false;
        }
        let mut state = self.lock();
        if state.at_long < self.most_long && state.long.is_empty() {
            state.at_long += 1;
            turn.long.store(true, Ordering::Relaxed);
            return false;
        }
        let others = !state.fresh.is_empty() || !state.recalls.is_empty();
        if others {
            turn.given_up.store(true, Ordering::Relaxed);
        }
        others
    }

    /// A turn is over, however it ended. A plan that gave up its thread is among the long now.
    pub(super) fn finish(&self, plan: &Arc<Plan>, turn: &Turn) {
        let mut state = self.lock();
        if turn.long.load(Ordering::Relaxed) {
            state.at_long -= 1;
        }
        // One that was cancelled may be on another thread again.
        let runs = state.running.get(&plan.id());
        if runs.is_some_and(|running| std::ptr::eq(Arc::as_ptr(running), turn)) {
            state.running.remove(&plan.id());
        }
        if turn.has_given_up() && !turn.is_cancelled() {
            state.long.push_back((Arc::clone(plan), turn.took()));
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl State {
    fn take(&mut self, most_long: usize) -> Option<Job> {
        if let Some(job) = self.recalls.pop_front() {
            return Some(Job::Recall(job));
        }
        if self.at_long < most_long
            && let Some((plan, spent)) = self.long.pop_front()
        {
            self.at_long += 1;
            return Some(self.begin(plan, Turn::new(spent, true)));
        }
        let plan = self.fresh.pop_front()?;
        Some(self.begin(plan, Turn::new(Duration::ZERO, false)))
    }

    fn begin(&mut self, plan: Arc<Plan>, turn: Arc<Turn>) -> Job {
        self.running.insert(plan.id(), Arc::clone(&turn));
        Job::Hydrate(plan, turn)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::tests::{plan, replica};

    fn next(queue: &HydrationQueue) -> (Arc<Plan>, Arc<Turn>) {
        match queue.next(|| {}) {
            Some(Job::Hydrate(plan, turn)) => (plan, turn),
            _ => panic!("there is nothing to hydrate"),
        }
    }

    #[test]
    fn a_plan_that_nobody_waits_for_is_not_begun_and_does_not_go_on() {
        let (_dir, replica) = replica();
        let top = |limit| {
            let by_id = json!([["id", "asc"]]);
            plan(
                &replica,
                json!({"table": "issue", "orderBy": by_id, "limit": limit}),
            )
        };
        let plans = [1, 2, 3].map(top);
        let queue = HydrationQueue::new(2, Duration::ZERO);
        for plan in &plans {
            queue.hydrate(Arc::clone(plan));
        }
        let (first, turn) = next(&queue);
        assert!(!queue.must_give_up(&turn), "the first may go on");
        let (second, given_up) = next(&queue);
        assert!(queue.must_give_up(&given_up), "another one waits");
        queue.cancel(&HashSet::from([first.id(), second.id()]));
        assert!(turn.is_cancelled() && given_up.is_cancelled());
        // It is asked for again before its thread has noticed.
        queue.hydrate(Arc::clone(&first));
        queue.finish(&second, &given_up);
        let (third, _) = next(&queue);
        let (again, anew) = next(&queue);
        assert_eq!((third.id(), again.id()), (plans[2].id(), first.id()));
        queue.finish(&first, &turn);
        queue.cancel(&HashSet::from([first.id()]));
        assert!(anew.is_cancelled());
        queue.cancel(&HashSet::from([third.id()]));
        queue.hydrate(Arc::clone(&third));
        queue.hydrate(Arc::clone(&plans[1]));
        queue.cancel(&HashSet::from([third.id()]));
        assert_eq!(next(&queue).0.id(), plans[1].id());
    }
}
