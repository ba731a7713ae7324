//! Threads that help the engine thread where a commit concerns many plans.
//!
//! The engine thread gives the plans away, takes part in moving them, and has all of them back
//! before it goes on: that is the version barrier. A plan belongs to one thread at a time, so moving
//! it takes no lock; one is taken for each portion of plans.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kelvin_ivm::PlanId;

use super::step::{Advanced, Broken, Encoded, Step};
use super::thread::LivePlan;

/// Each thread takes its share of the plans that are left in so many portions: many are moved
/// between two looks at the lock at first, few at the end, where threads would wait for the last.
const PORTIONS: usize = 4;

/// A plan on its way over a commit.
pub(super) struct Moving {
    pub(super) id: PlanId,
    pub(super) live: LivePlan,
}

/// A plan that is over the commit, or broken.
pub(super) struct Moved {
    pub(super) id: PlanId,
    pub(super) live: LivePlan,
    pub(super) outcome: Result<Advanced, Broken>,
}

/// The helping threads; none if the engine is to use one thread.
pub(super) struct AdvancePool {
    shared: Arc<Shared>,
}

struct Shared {
    /// The engine thread among them.
    threads: usize,
    board: Mutex<Board>,
    /// There are plans to be moved, or the pool is closed.
    work: Condvar,
    /// The last portion has come back.
    complete: Condvar,
}

/// What is to be done, and what was. Bounded: it is empty between two commits.
#[derive(Default)]
struct Board {
    step: Option<Arc<Step>>,
    waiting: Vec<Moving>,
    /// Portions that threads are at.
    out: usize,
    done: Vec<Moved>,
    closed: bool,
}

impl AdvancePool {
    /// Starts the threads that help the engine thread, one less than `threads`.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let shared = Shared {
            threads: threads.max(1),
            board: Mutex::default(),
            work: Condvar::new(),
            complete: Condvar::new(),
        };
        // Dropped, and with it closed, where a thread cannot be started.
        let pool = Self {
            shared: Arc::new(shared),
        };
        for number in 1..pool.shared.threads {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("advance-{number}"))
                .spawn(move || shared.help())?;
        }
        Ok(pool)
    }

    /// Whether there is anybody to help.
    pub(super) fn helps(&self) -> bool {
        self.shared.threads > 1
    }

    /// Moves all plans. Those that are missing in the answer were lost with a thread.
    ///
    /// INVARIANT: when it returns, no thread has a plan, or will take one, of this commit.
    pub(super) fn advance(
        &self,
        step: &Arc<Step>,
        plans: Vec<Moving>,
        encoded: &mut Encoded,
    ) -> Vec<Moved> {
        let mut board = self.shared.lock();
        board.done.reserve(plans.len());
        board.waiting = plans;
        board.step = Some(Arc::clone(step));
        self.shared.work.notify_all();
        drop(board);
        while let Some(portion) = Portion::take(&self.shared) {
            portion.advance(encoded);
        }
        let mut board = self.shared.lock();
        while board.out > 0 {
            let woken = self.shared.complete.wait(board);
            board = woken.unwrap_or_else(PoisonError::into_inner);
        }
        board.step = None;
        std::mem::take(&mut board.done)
    }
}

impl Drop for AdvancePool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a helping thread does until the pool is closed.
    fn help(&self) {
        while self.wait() {
            // Let go of after each commit.
            let mut encoded = Encoded::default();
            while let Some(portion) = Portion::take(self) {
                portion.advance(&mut encoded);
            }
        }
    }

    /// Waits until there is something to do; `false` if there never will be.
    fn wait(&self) -> bool {
        let mut board = self.lock();
        while board.waiting.is_empty() && !board.closed {
            let woken = self.work.wait(board);
            board = woken.unwrap_or_else(PoisonError::into_inner);
        }
        !board.closed
    }
}

/// Plans that one thread is at. However it ends, the engine thread is told.
struct Portion<'a> {
    shared: &'a Shared,
    step: Arc<Step>,
    waiting: Vec<Moving>,
    done: Vec<Moved>,
}

impl<'a> Portion<'a> {
    /// The next plans to be moved, if any are left.
    fn take(shared: &'a Shared) -> Option<Self> {
        let mut board = shared.lock();
        let step = board.step.clone()?;
        let left = board.waiting.len();
        if left == 0 {
            return None;
        }
        let many = (left / (shared.threads * PORTIONS)).max(1);
        let waiting = board.waiting.split_off(left - many);
        board.out += 1;
        Some(Self {
            shared,
            step,
            done: Vec::with_capacity(waiting.len()),
            waiting,
        })
    }

    fn advance(mut self, encoded: &mut Encoded) {
        for Moving { id, mut live } in std::mem::take(&mut self.waiting) {
            let outcome = self.step.advance(&mut live, encoded);
            self.done.push(Moved { id, live, outcome });
        }
    }
}

impl Drop for Portion<'_> {
    fn drop(&mut self) {
        let mut board = self.shared.lock();
        board.done.append(&mut self.done);
        board.out -= 1;
        if board.out == 0 && board.waiting.is_empty() {
            self.shared.complete.notify_one();
        }
    }
}
