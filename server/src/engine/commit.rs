//! One commit through the engine: route, advance, encode, hand out.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use kelvin_ivm::{ChangeSet, LoggedDelta, PlanDelta, PlanId, RowKeys};
use kelvin_storage::{Applied, TableId, View};

use super::patch::{EncodedRows, PlanPatch};
use super::thread::{EngineThread, reads_any};
use super::{GroupEvent, GroupId};

/// What is made of the rows of one commit once, for all plans.
#[derive(Default)]
struct Encoded {
    rows: EncodedRows,
    keys: RowKeys,
}

impl EngineThread {
    /// Moves every plan the commit may concern from `applied.from` to `applied.version`.
    pub(super) fn commit(&mut self, applied: Applied) {
        if applied.version <= self.version {
            return;
        }
        self.note_permissions(&applied);
        // Before the router is asked: it knows tables by number, plans their columns by position.
        self.drop_altered(&applied);
        self.drop_plans_over(
            &applied.swept,
            "a transaction was too large to tell its changes",
        );
        let (from, version) = (applied.from.min(self.version), applied.version);
        let views = self
            .replica
            .at(from)
            .and_then(|b| Ok((b, self.replica.at(version)?)));
        let (before, after) = match views {
            Ok(views) => views,
            Err(error) => return self.lost_views(version, &error),
        };
        let changes = ChangeSet::new(applied);
        let mut encoded = Encoded::default();
        let mut patches: HashMap<PlanId, Arc<PlanPatch>> = HashMap::new();
        for id in self.router.route(&changes) {
            match self.advance(id, &changes, &before, &after, &mut encoded) {
                Ok(None) => {}
                Ok(Some(patch)) => {
                    patches.insert(id, Arc::new(patch));
                }
                Err(message) => self.fail(id, &message),
            }
        }
        self.version = version;
        self.logs.reached(version);
        self.metrics.commits += 1;
        self.hand_out(&patches);
    }

    fn note_permissions(&self, applied: &Applied) {
        let table = self.snapshots.encoder().internal().permissions;
        if applied
            .changes
            .iter()
            .any(|change| Some(change.table) == table)
            || table.is_some_and(|table| {
                applied.altered.contains(&table) || applied.swept.contains(&table)
            })
        {
            self.signals.permissions.send_modify(|number| *number += 1);
        }
    }

    /// Plans over tables that have another form now are of no use any more. The groups that have
    /// them are cut off: they compile their queries anew and bring their clients up by a
    /// difference, for which every row of these tables counts as changed. Nobody else notices.
    fn drop_altered(&mut self, applied: &Applied) {
        if applied.altered.is_empty() {
            return;
        }
        self.drop_plans_over(&applied.altered, "the schema changed");
        self.signals.schema.send_replace(applied.version);
    }

    /// Drops the plans over these tables and cuts off the groups that have them.
    fn drop_plans_over(&mut self, tables: &[TableId], why: &str) {
        if tables.is_empty() {
            return;
        }
        let stale = self
            .plans
            .iter()
            .filter(|(_, live)| reads_any(&live.plan, tables));
        let stale: Vec<PlanId> = stale.map(|(id, _)| *id).collect();
        let mut groups = self.waiting_for_any(&stale);
        for live in stale.into_iter().filter_map(|id| self.forget(id)) {
            groups.extend(live.groups);
        }
        tracing::debug!(
            groups = groups.len(),
            "cut off to catch up by a difference: {why}"
        );
        for group in groups {
            self.detach(group);
        }
    }

    /// The history a commit needs is gone: the engine fell behind further than the replica
    /// remembers. Every group starts again from the newest state.
    fn lost_views(&mut self, version: u64, error: &kelvin_storage::Error) {
        tracing::warn!(%error, "the engine fell behind the history; all groups catch up");
        self.version = version;
        self.logs.reached(version);
        let ids: Vec<PlanId> = self.plans.keys().copied().collect();
        for id in ids {
            self.forget(id);
        }
        self.groups.clear();
    }

    fn advance(
        &mut self,
        id: PlanId,
        changes: &ChangeSet,
        before: &View,
        after: &View,
        encoded: &mut Encoded,
    ) -> Result<Option<PlanPatch>, String> {
        let Some(live) = self.plans.get_mut(&id) else {
            return Ok(None);
        };
        // A panic in one plan must not take the others with it.
        let started = Instant::now();
        let advanced = catch_unwind(AssertUnwindSafe(|| {
            Arc::make_mut(&mut live.state).advance(changes, before, after)
        }))
        .map_err(|_| "the query hit a defect of the server".to_owned())?;
        let delta: PlanDelta = advanced.map_err(|error| error.to_string())?;
        let (took, examined) = (started.elapsed(), live.state.examined());
        live.costs.advanced(took, examined, delta.rows.len());
        self.metrics
            .costs
            .advanced(took, examined, delta.rows.len());
        let before = std::mem::replace(&mut live.rows, live.state.row_count());
        self.metrics.plan_rows = (self.metrics.plan_rows + live.rows).saturating_sub(before);
        // INVARIANT: before anything else is routed, see `Router::narrow`.
        self.router.narrow(&live.state);
        if delta.rows.is_empty() {
            return Ok(None);
        }
        live.last_changed = after.version();
        let step = (changes.from(), changes.version());
        let logged = LoggedDelta::new(step, &delta, after.catalog(), &mut encoded.keys);
        self.logs.push(id, logged, live.rows);
        if live.groups.is_empty() {
            return Ok(None);
        }
        let plan = Arc::clone(&live.plan);
        let encoder = self.snapshots.encoder();
        let patch = encoder
            .encode(&plan, &delta, after.catalog(), &mut encoded.rows)
            .map_err(|error| error.to_string())?;
        Ok(Some(patch))
    }

    /// Drops a broken plan and tells the groups that have it. Nobody else notices.
    fn fail(&mut self, id: PlanId, message: &str) {
        tracing::error!(plan = %id, error = %message, "a query failed and was dropped");
        let Some(live) = self.forget(id) else { return };
        for group in live.groups {
            if let Some(attached) = self.groups.get_mut(&group) {
                attached.plans.remove(&id);
            }
            self.notify(
                group,
                GroupEvent::PlanFailed {
                    plan: id,
                    message: message.to_owned(),
                },
            );
        }
    }

    /// Gives each group that has a changed plan one event with all its changes.
    fn hand_out(&mut self, patches: &HashMap<PlanId, Arc<PlanPatch>>) {
        let mut affected: HashMap<GroupId, Vec<Arc<PlanPatch>>> = HashMap::new();
        for (id, patch) in patches {
            for group in self.plans.get(id).into_iter().flat_map(|live| &live.groups) {
                affected.entry(*group).or_default().push(Arc::clone(patch));
            }
        }
        for (group, patches) in affected {
            let dels = self.dels_of(group, &patches);
            let event = GroupEvent::Commit {
                version: self.version,
                patches,
                dels,
            };
            self.notify(group, event);
        }
    }

    /// The row deletions of `patches` that apply to `group`: a row that another plan of the group
    /// still holds stays.
    fn dels_of(&self, group: GroupId, patches: &[Arc<PlanPatch>]) -> Vec<Arc<str>> {
        let Some(attached) = self.groups.get(&group) else {
            return Vec::new();
        };
        let held = |table, row| {
            let mut plans = attached.plans.iter().filter_map(|id| self.plans.get(id));
            plans.any(|live| live.state.contains(table, row))
        };
        let mut dels: Vec<Arc<str>> = Vec::new();
        let mut told = HashSet::new();
        for patch in patches {
            dels.extend(patch.rekeyed.iter().cloned());
            for (table, row, del) in &patch.left {
                if !held(*table, *row) && told.insert((*table, *row)) {
                    dels.push(Arc::clone(del));
                }
            }
        }
        dels
    }
}
