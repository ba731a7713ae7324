//! One commit, as the plans it concerns are moved over it: on the engine thread, or on several.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Budget, ChangeSet, ErrorKind, LoggedDelta, PlanDelta, RowKeys};
use kelvin_storage::View;

use super::EngineOptions;
use super::patch::{EncodedRows, PlanPatch, RowEncoder};
use super::thread::LivePlan;

/// What a client is told of a plan that panicked.
pub(super) const DEFECT: &str = "the query hit a defect of the server";

/// The changes of a commit and the database on both sides of it.
pub(super) struct Step {
    changes: ChangeSet,
    before: View,
    after: View,
    encoder: Arc<RowEncoder>,
    limits: AdvanceLimits,
    #[cfg(test)]
    hook: Option<super::hooks::PlanHook>,
}

/// What moving one plan over a commit may take.
#[derive(Clone, Copy)]
pub(super) struct AdvanceLimits {
    max_rows: u64,
    timeout: Duration,
}

/// A plan that is of no use any more.
pub(super) struct Broken {
    /// For the application's developer.
    pub(super) message: String,
    /// Whether it took more than it may.
    pub(super) over_budget: bool,
}

/// What is made of the rows of one commit once, for all plans that one thread advances.
#[derive(Default)]
pub(super) struct Encoded {
    rows: EncodedRows,
    keys: RowKeys,
}

/// What moving a plan over a commit took, and what came of it.
pub(super) struct Advanced {
    pub(super) took: Duration,
    /// Rows it examined.
    pub(super) examined: u64,
    /// Rows that entered, left or changed.
    pub(super) delta_rows: usize,
    /// Rows of the view before.
    pub(super) rows_before: u64,
    /// For the plan's log; `None` if the view is as it was.
    pub(super) logged: Option<LoggedDelta>,
    /// For the groups, if there are any.
    pub(super) patch: Option<PlanPatch>,
}

impl AdvanceLimits {
    pub(super) fn of(options: &EngineOptions) -> Self {
        Self {
            max_rows: options.advance_max_rows,
            timeout: options.advance_timeout,
        }
    }

    /// For a plan that is moved on a hydration thread, where nobody else waits for it.
    pub(super) fn beside(options: &EngineOptions) -> Self {
        Self {
            max_rows: options.hydration_max_rows,
            timeout: options.hydration_timeout,
        }
    }

    /// The budget of a plan that is moved since `started`.
    pub(super) fn budget(self, started: Instant) -> Budget {
        Budget::rows(self.max_rows).with_stop(move || started.elapsed() > self.timeout)
    }

    /// Why moving a plan failed.
    pub(super) fn told(self, error: &kelvin_ivm::Error) -> Broken {
        let what = match error.kind() {
            ErrorKind::Stopped => format!("took longer than {} ms", self.timeout.as_millis()),
            ErrorKind::Budget => format!("examined more than {} rows", self.max_rows),
            _ => return Broken::by(&error.to_string()),
        };
        Broken {
            message: format!(
                "the query {what} to be brought up to a commit; narrow it, or raise \
                 ZERO_KELVIN_ADVANCE_TIMEOUT_MS or ZERO_KELVIN_ADVANCE_MAX_ROWS"
            ),
            over_budget: true,
        }
    }
}

impl Broken {
    fn by(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            over_budget: false,
        }
    }
}

impl Step {
    pub(super) fn new(
        changes: ChangeSet,
        (before, after): (View, View),
        encoder: Arc<RowEncoder>,
        limits: AdvanceLimits,
    ) -> Self {
        Self {
            changes,
            before,
            after,
            encoder,
            limits,
            #[cfg(test)]
            hook: None,
        }
    }

    /// Calls this before each plan.
    #[cfg(test)]
    pub(super) fn with_hook(mut self, hook: Option<super::hooks::PlanHook>) -> Self {
        self.hook = hook;
        self
    }

    /// Moves one plan, its counts included. After an error it is of no use.
    ///
    /// # Errors
    /// Why it is broken.
    pub(super) fn advance(
        &self,
        live: &mut LivePlan,
        encoded: &mut Encoded,
    ) -> Result<Advanced, Broken> {
        // A panic in one plan must not take the others with it.
        catch_unwind(AssertUnwindSafe(|| self.advance_unguarded(live, encoded)))
            .unwrap_or_else(|_| Err(Broken::by(DEFECT)))
    }

    fn advance_unguarded(
        &self,
        live: &mut LivePlan,
        encoded: &mut Encoded,
    ) -> Result<Advanced, Broken> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            hook.call(&live.plan);
        }
        let started = Instant::now();
        let state = Arc::make_mut(&mut live.state);
        let budget = self.limits.budget(started);
        let delta = state
            .advance_within(&self.changes, &self.before, &self.after, &budget)
            .map_err(|error| self.limits.told(&error))?;
        let (took, examined, delta_rows) = (started.elapsed(), state.examined(), delta.rows.len());
        let rows = state.row_count();
        let rows_before = std::mem::replace(&mut live.rows, rows);
        live.costs.advanced(took, examined, delta_rows);
        live.advance_times.get_or_insert_default().record(took);
        let mut advanced = Advanced {
            took,
            examined,
            delta_rows,
            rows_before,
            logged: None,
            patch: None,
        };
        if !delta.rows.is_empty() {
            live.last_changed = self.after.version();
            self.encode(live, &delta, encoded, &mut advanced)
                .map_err(|message| Broken::by(&message))?;
        }
        Ok(advanced)
    }

    fn encode(
        &self,
        live: &LivePlan,
        delta: &PlanDelta,
        encoded: &mut Encoded,
        advanced: &mut Advanced,
    ) -> Result<(), String> {
        let span = (self.changes.from(), self.changes.version());
        let catalog = self.after.catalog();
        let logged = LoggedDelta::new(span, delta, catalog, &mut encoded.keys);
        advanced.logged = Some(logged);
        if !live.groups.is_empty() {
            let patch = self
                .encoder
                .encode(&live.plan, delta, catalog, &mut encoded.rows)
                .map_err(|error| error.to_string())?;
            advanced.patch = Some(patch);
        }
        Ok(())
    }
}
