//! Plans of a group whose past is known, so that none of their answers needs to be evaluated.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kelvin_ivm::{NetTouches, Plan, PlanId, RowKey};
use kelvin_protocol::Version;
use kelvin_storage::{Row, Table, TableId};

use super::catch_up::Held;
use crate::engine::{PastsQuestion, PlanPast};

/// The past of plans, as the engine tells it.
pub type Pasts = HashMap<PlanId, PlanPast>;

/// What the engine can say of how a client's plans became those of its group at `until`.
pub fn question<'a>(
    old: &'a Held,
    new: impl Iterator<Item = &'a Arc<Plan>>,
    until: Version,
) -> PastsQuestion {
    let held: BTreeMap<PlanId, &Plan> = old.plans.iter().map(|p| (p.id(), &**p)).collect();
    let now: BTreeMap<PlanId, &Plan> = new.map(|p| (p.id(), &**p)).collect();
    let kept = now.keys().filter(|id| held.contains_key(*id)).copied();
    let plans: Vec<PlanId> = kept.collect();
    let others = held.len() > plans.len() || now.len() > plans.len();
    let mut seen = HashSet::new();
    let all: BTreeMap<PlanId, &Plan> = held.into_iter().chain(now).collect();
    let tables = all.values().flat_map(|plan| plan.tables());
    // Seen before: the rows of this table may be in the views of several plans.
    let tables: BTreeSet<TableId> = tables.filter(|table| !seen.insert(*table)).collect();
    PastsQuestion {
        plans,
        since: old.version,
        until,
        others,
        tables: tables.into_iter().collect(),
    }
}

/// The followed plans of a group that held a row at the older version, and that hold it at the
/// newer one: one of each, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holders {
    pub(super) was: Option<PlanId>,
    pub(super) is: Option<PlanId>,
}

/// What the logs say happened between two versions.
pub(super) struct Followed<'a> {
    plans: Vec<(PlanId, NetTouches, &'a PlanPast)>,
}

impl<'a> Followed<'a> {
    /// Follows each plan from the version its past begins at up to `until`.
    pub(super) fn new(pasts: &'a Pasts, until: Version) -> Self {
        let follow =
            |(id, past): (&PlanId, &'a PlanPast)| (*id, NetTouches::new(&past.deltas, until), past);
        Self {
            plans: pasts.iter().map(follow).collect(),
        }
    }

    /// Every row that entered, left or changed in one of the views.
    pub(super) fn touched(&self) -> HashMap<(TableId, &RowKey), Holders> {
        let mut touched: HashMap<_, Holders> = HashMap::new();
        for (id, net, _) in &self.plans {
            for (table, key, touch) in net.rows() {
                let holders = touched.entry((table, key)).or_default();
                holders.was = holders.was.or(touch.was.then_some(*id));
                holders.is = holders.is.or(touch.is.then_some(*id));
            }
        }
        touched
    }

    /// Whether a plan held this row all the time, as it is: no other plan that lost it takes it
    /// from the client, and no other plan that got it brings anything new.
    pub(super) fn stayed(&self, table: &Table, row: &Row) -> bool {
        let key = row.project(&table.key);
        self.plans.iter().any(|(_, net, past)| {
            // Row numbers are not given twice: the number in the newest view is this row's.
            let rows = past.members.get(&table.id);
            net.stayed(table.id, &key, || {
                rows.is_some_and(|rows| rows.contains(row.id))
            })
        })
    }
}
