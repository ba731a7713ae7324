//! One commit through the engine: route, advance, encode, hand out.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use kelvin_ivm::{ChangeSet, PlanId, PlanState};
use kelvin_storage::{Applied, RowId, TableId};

use super::advance_pool::{Moved, Moving};
use super::patch::PlanPatch;
use super::step::{AdvanceLimits, Advanced, Broken, DEFECT, Encoded, Step};
use super::thread::{AttachedGroup, EngineThread, reads_any};
use super::{GroupEvent, GroupId};

/// What a commit did to the plans it concerned.
#[derive(Default)]
struct Outcomes {
    patches: HashMap<PlanId, Arc<PlanPatch>>,
    failed: Vec<(PlanId, String)>,
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
        let plans = self.router.route(&changes);
        let step = Step::new(
            changes,
            (before, after),
            Arc::clone(self.snapshots.encoder()),
            AdvanceLimits::of(&self.options),
        );
        #[cfg(test)]
        let step = step.with_hook(self.options.hooks.advance.clone());
        let outcomes = self.advance(step, plans);
        self.version = version;
        self.logs.reached(version);
        self.metrics.commits += 1;
        for (id, message) in &outcomes.failed {
            self.fail(*id, message);
        }
        self.hand_out(&outcomes.patches);
        // INVARIANT: behind the commit, whose version their answer has.
        let failed = outcomes.failed.iter().map(|(id, _)| *id).collect();
        let mut waiting = self.waiting_for(&failed);
        for (id, message) in &outcomes.failed {
            let groups = waiting.remove(id).unwrap_or_default();
            self.answer_without(*id, message, groups);
        }
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
        let stale: HashSet<PlanId> = stale.map(|(id, _)| *id).collect();
        let waiting = self.waiting_for(&stale).into_values();
        let mut groups: HashSet<GroupId> = waiting.flatten().collect();
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
        self.metrics.subscriptions = 0;
    }

    /// Moves plans on this thread, and on the helping ones what is left once that has taken long
    /// enough to be worth a hand-off. Returns what groups are to be told, and what failed.
    ///
    /// INVARIANT: all plans are over the commit when it returns.
    fn advance(&mut self, step: Step, plans: Vec<PlanId>) -> Outcomes {
        let started = Instant::now();
        let alone = self.options.advance_alone;
        let mut encoded = Encoded::default();
        let mut outcomes = Outcomes::default();
        let mut plans = plans.into_iter();
        while let Some(id) = plans.next() {
            let Some(live) = self.plans.get_mut(&id) else {
                continue;
            };
            let outcome = step.advance(live, &mut encoded);
            self.settle(id, outcome, &mut outcomes);
            if self.helpers.helps() && plans.len() > 1 && started.elapsed() >= alone {
                break;
            }
        }
        if plans.len() > 0 {
            self.advance_together(step, plans, &mut encoded, &mut outcomes);
        }
        outcomes
    }

    fn advance_together(
        &mut self,
        step: Step,
        plans: impl Iterator<Item = PlanId>,
        encoded: &mut Encoded,
        outcomes: &mut Outcomes,
    ) {
        let plans: Vec<PlanId> = plans.filter(|id| self.plans.contains_key(id)).collect();
        let moving = plans.iter().filter_map(|id| {
            let live = self.plans.remove(id)?;
            Some(Moving { id: *id, live })
        });
        let moving = moving.collect();
        for Moved { id, live, outcome } in self.helpers.advance(&Arc::new(step), moving, encoded) {
            self.plans.insert(id, live);
            self.settle(id, outcome, outcomes);
        }
        for id in plans {
            if !self.plans.contains_key(&id) {
                outcomes.failed.push((id, DEFECT.to_owned()));
            }
        }
    }

    /// Takes note of what moving a plan came to.
    fn settle(&mut self, id: PlanId, outcome: Result<Advanced, Broken>, outcomes: &mut Outcomes) {
        let advanced = match outcome {
            Ok(advanced) => advanced,
            Err(broken) => {
                self.metrics.over_budget += u64::from(broken.over_budget);
                return outcomes.failed.push((id, broken.message));
            }
        };
        let Some(live) = self.plans.get(&id) else {
            return;
        };
        let (took, examined) = (advanced.took, advanced.examined);
        let costs = &mut self.metrics.costs;
        costs.advanced(took, examined, advanced.delta_rows);
        self.metrics.advance_times.record(took);
        let rows = self.metrics.plan_rows + live.rows;
        self.metrics.plan_rows = rows.saturating_sub(advanced.rows_before);
        // INVARIANT: before anything else is routed, see `Router::narrow`.
        self.router.narrow(&live.state);
        if let Some(logged) = advanced.logged {
            self.logs.push(id, logged, live.rows);
        }
        if let Some(patch) = advanced.patch {
            outcomes.patches.insert(id, Arc::new(patch));
        }
    }

    /// Drops a broken plan and tells the groups that have it. Nobody else notices.
    fn fail(&mut self, id: PlanId, message: &str) {
        tracing::error!(plan = %id, error = %message, "a query failed and was dropped");
        let groups = match self.forget(id) {
            Some(live) => live.groups,
            None => self.groups_with(id),
        };
        for group in groups {
            let attached = self.groups.get_mut(&group);
            if attached.is_some_and(|attached| attached.plans.remove(&id)) {
                self.count_subscriptions(1, 0);
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

    /// Groups that have a plan, by what each has: the plan was lost with a thread.
    fn groups_with(&self, id: PlanId) -> HashSet<GroupId> {
        let has = |attached: &AttachedGroup| attached.plans.contains(&id);
        let having = self.groups.iter().filter(|(_, attached)| has(attached));
        having.map(|(group, _)| *group).collect()
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

    /// The row deletions of `patches` that apply to `group`.
    fn dels_of(&self, group: GroupId, patches: &[Arc<PlanPatch>]) -> Vec<Arc<str>> {
        let Some(attached) = self.groups.get(&group) else {
            return Vec::new();
        };
        // Looked up once, and only where a row left: there may be thousands of rows and plans.
        let states: OnceCell<Vec<&PlanState>> = OnceCell::new();
        let look_up = || {
            let lives = attached.plans.iter().filter_map(|id| self.plans.get(id));
            lives.map(|live| &*live.state).collect()
        };
        departures(patches, |table, row| {
            let mut states = states.get_or_init(look_up).iter();
            states.any(|state| state.contains(table, row))
        })
    }
}

/// The row deletions of patches, each once: of keys that are gone, and of rows that left a plan and
/// that no plan of the group holds, as `held` says. A row that leaves many plans is asked for once.
fn departures(
    patches: &[Arc<PlanPatch>],
    mut held: impl FnMut(TableId, RowId) -> bool,
) -> Vec<Arc<str>> {
    let mut dels: Vec<Arc<str>> = Vec::new();
    let (mut rekeyed, mut left) = (HashSet::new(), HashSet::new());
    for patch in patches {
        let keys = patch.rekeyed.iter().filter(|del| rekeyed.insert(&***del));
        dels.extend(keys.cloned());
        for (table, row, del) in &patch.left {
            if left.insert((*table, *row)) && !held(*table, *row) {
                dels.push(Arc::clone(del));
            }
        }
    }
    dels
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1);

    #[test]
    fn a_row_that_leaves_many_plans_is_looked_for_and_told_once() {
        let patch = || PlanPatch {
            rekeyed: vec!["the old key".into()],
            left: [7, 8]
                .map(|row| (TABLE, row, format!("del {row}").into()))
                .to_vec(),
            ..PlanPatch::default()
        };
        let patches: Vec<_> = (0..1_000).map(|_| Arc::new(patch())).collect();
        let mut asked = Vec::new();
        let dels = departures(&patches, |table, row| {
            asked.push((table, row));
            row == 8
        });
        assert_eq!(asked, [(TABLE, 7), (TABLE, 8)]);
        assert_eq!(dels, ["the old key".into(), "del 7".into()]);
    }
}
