//! Whole results of plans, encoded, for groups that join a plan that is already there.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use kelvin_ivm::{Budget, Plan, PlanId, evaluate};
use kelvin_protocol::Version;
use kelvin_storage::{Row, TableId, View};

use super::patch::{PlanPatch, RowEncoder};
use super::whole_result::WholeResult;

/// The whole result of a plan at one version, as a patch of nothing but additions.
#[derive(Debug)]
pub struct PlanSnapshot {
    /// The version.
    pub version: Version,
    /// The result.
    pub patch: PlanPatch,
    /// Bytes of JSON in it.
    pub bytes: usize,
}

/// Encoded results, the newest of each plan, within a bound of bytes.
pub struct SnapshotCache {
    encoder: Arc<RowEncoder>,
    limit: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    bytes: usize,
    clock: u64,
    by_plan: HashMap<PlanId, (u64, Arc<PlanSnapshot>)>,
}

impl SnapshotCache {
    /// A cache of at most `limit` bytes of JSON.
    #[must_use]
    pub fn new(encoder: Arc<RowEncoder>, limit: usize) -> Self {
        Self {
            encoder,
            limit,
            entries: Mutex::default(),
        }
    }

    /// The encoder the snapshots are made with.
    #[must_use]
    pub fn encoder(&self) -> &Arc<RowEncoder> {
        &self.encoder
    }

    /// The result of `plan` at the view's version, which has not changed since `unchanged_since`:
    /// from the cache if one of that span is there, else evaluated and kept.
    ///
    /// # Errors
    /// A sentence for the application's developer.
    pub fn get(
        &self,
        plan: &Plan,
        view: &View,
        unchanged_since: Version,
        budget: &Budget,
    ) -> Result<Arc<PlanSnapshot>, String> {
        if let Some(snapshot) = self.cached(plan.id(), unchanged_since, view.version()) {
            return Ok(snapshot);
        }
        let mut result = WholeResult::new(&self.encoder, plan, view.catalog());
        let mut sink = |table: TableId, row: &Row| {
            result.add(table, row);
            ControlFlow::Continue(())
        };
        evaluate(plan, view, budget, &mut sink).map_err(|error| error.to_string())?;
        self.insert(plan, view, result)
    }

    /// Keeps the result of `plan` at the view's version.
    ///
    /// # Errors
    /// A sentence for the application's developer.
    pub fn insert(
        &self,
        plan: &Plan,
        view: &View,
        result: WholeResult<'_>,
    ) -> Result<Arc<PlanSnapshot>, String> {
        let patch = result.finish().map_err(|error| error.to_string())?;
        let bytes = patch.puts.iter().map(|put| put.len() + 1).sum();
        let snapshot = Arc::new(PlanSnapshot {
            version: view.version(),
            patch,
            bytes,
        });
        self.keep(plan.id(), &snapshot);
        Ok(snapshot)
    }

    fn cached(&self, plan: PlanId, since: Version, until: Version) -> Option<Arc<PlanSnapshot>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clock += 1;
        let now = entries.clock;
        let (used, snapshot) = entries.by_plan.get_mut(&plan)?;
        *used = now;
        (since..=until)
            .contains(&snapshot.version)
            .then(|| Arc::clone(snapshot))
    }

    fn keep(&self, plan: PlanId, snapshot: &Arc<PlanSnapshot>) {
        if snapshot.bytes > self.limit / 4 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clock += 1;
        let slot = (entries.clock, Arc::clone(snapshot));
        if let Some((_, old)) = entries.by_plan.insert(plan, slot) {
            entries.bytes -= old.bytes;
        }
        entries.bytes += snapshot.bytes;
        while entries.bytes > self.limit {
            let oldest = entries
                .by_plan
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(id, _)| *id);
            let Some((_, dropped)) = oldest.and_then(|id| entries.by_plan.remove(&id)) else {
                break;
            };
            entries.bytes -= dropped.bytes;
        }
    }
}
