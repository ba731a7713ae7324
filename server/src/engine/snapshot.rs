//! Whole results of plans, encoded, for groups that join a plan that is already there.

use std::collections::{BTreeMap, HashMap};
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
    /// Counts uses.
    clock: u64,
    /// Each result, and when it was used last.
    by_plan: HashMap<PlanId, (u64, Arc<PlanSnapshot>)>,
    /// The same plans by their last use: what makes room is found without looking at all.
    by_use: BTreeMap<u64, PlanId>,
}

impl Entries {
    /// The result of a plan, which is used now.
    fn used(&mut self, plan: PlanId) -> Option<&Arc<PlanSnapshot>> {
        let (used, snapshot) = self.by_plan.get_mut(&plan)?;
        self.clock += 1;
        self.by_use.remove(used);
        self.by_use.insert(self.clock, plan);
        *used = self.clock;
        Some(snapshot)
    }

    /// Takes a result in, in place of an earlier one of the plan.
    fn insert(&mut self, plan: PlanId, snapshot: Arc<PlanSnapshot>) {
        self.remove(plan);
        self.clock += 1;
        self.bytes += snapshot.bytes;
        self.by_use.insert(self.clock, plan);
        self.by_plan.insert(plan, (self.clock, snapshot));
    }

    fn remove(&mut self, plan: PlanId) {
        if let Some((used, snapshot)) = self.by_plan.remove(&plan) {
            self.by_use.remove(&used);
            self.bytes -= snapshot.bytes;
        }
    }

    /// Drops what was used longest ago until no more than `limit` bytes are left.
    fn shrink_to(&mut self, limit: usize) {
        while self.bytes > limit
            && let Some((_, plan)) = self.by_use.first_key_value()
        {
            self.remove(*plan);
        }
    }
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
        let snapshot = entries.used(plan)?;
        (since..=until)
            .contains(&snapshot.version)
            .then(|| Arc::clone(snapshot))
    }

    fn keep(&self, plan: PlanId, snapshot: &Arc<PlanSnapshot>) {
        if snapshot.bytes > self.limit / 4 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(plan, Arc::clone(snapshot));
        entries.shrink_to(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::InternalTables;
    use crate::engine::tests::{plan, replica};

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let (_dir, replica) = replica();
        let top = |limit| plan(&replica, json!({"table": "issue", "limit": limit})).id();
        let [a, b, c, d] = [1, 2, 3, 4].map(top);
        let encoder = RowEncoder::new(InternalTables::default());
        let cache = SnapshotCache::new(Arc::new(encoder), 100);
        let keep = |plan, bytes| {
            let snapshot = PlanSnapshot {
                version: 7,
                patch: PlanPatch::default(),
                bytes,
            };
            cache.keep(plan, &Arc::new(snapshot));
        };
        let kept = || {
            let entries = cache.entries.lock().unwrap();
            let by_use: Vec<_> = entries.by_use.values().copied().collect();
            assert_eq!(by_use.len(), entries.by_plan.len());
            (by_use, entries.bytes)
        };
        for (plan, bytes) in [(a, 25), (b, 25), (c, 25), (b, 20)] {
            keep(plan, bytes);
        }
        assert_eq!(kept(), (vec![a, c, b], 70));
        assert!(cache.cached(a, 7, 9).is_some());
        // Of another span, but somebody is about to make one of this plan.
        assert!(cache.cached(c, 8, 9).is_none());
        keep(d, 25);
        assert_eq!(kept(), (vec![b, a, c, d], 95));
        keep(d, 26);
        assert_eq!(kept(), (vec![b, a, c, d], 95));
        keep(b, 25);
        keep(top(5), 25);
        assert_eq!(kept(), (vec![c, d, b, top(5)], 100));
    }
}
