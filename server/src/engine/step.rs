//! One commit, as the plans it concerns are moved over it: on the engine thread, or on several.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{ChangeSet, LoggedDelta, PlanDelta, RowKeys};
use kelvin_storage::View;

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
    #[cfg(test)]
    hook: Option<super::hooks::PlanHook>,
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

impl Step {
    pub(super) fn new(
        changes: ChangeSet,
        (before, after): (View, View),
        encoder: Arc<RowEncoder>,
    ) -> Self {
        Self {
            changes,
            before,
            after,
            encoder,
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
    /// A sentence for the application's developer.
    pub(super) fn advance(
        &self,
        live: &mut LivePlan,
        encoded: &mut Encoded,
    ) -> Result<Advanced, String> {
        // A panic in one plan must not take the others with it.
        catch_unwind(AssertUnwindSafe(|| self.advance_unguarded(live, encoded)))
            .unwrap_or_else(|_| Err(DEFECT.to_owned()))
    }

    fn advance_unguarded(
        &self,
        live: &mut LivePlan,
        encoded: &mut Encoded,
    ) -> Result<Advanced, String> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            hook.call(&live.plan);
        }
        let started = Instant::now();
        let state = Arc::make_mut(&mut live.state);
        let delta = state
            .advance(&self.changes, &self.before, &self.after)
            .map_err(|error| error.to_string())?;
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
            self.encode(live, &delta, encoded, &mut advanced)?;
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
