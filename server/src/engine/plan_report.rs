//! What live plans cost, for operators.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kelvin_ivm::{DeltaLog, Plan, PlanId};
use kelvin_protocol::Version;

use super::Durations;
use super::thread::{EngineThread, LivePlan};

/// What was spent on a plan, or on all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanCosts {
    /// Time of hydrations.
    pub hydration: Duration,
    /// Rows that hydrations examined.
    pub hydration_examined: u64,
    /// Commits that were looked at.
    pub advances: u64,
    /// Time of these.
    pub advancing: Duration,
    /// Rows they examined.
    pub advance_examined: u64,
    /// Commits that changed the view.
    pub deltas: u64,
    /// Rows that entered, left or changed by them.
    pub delta_rows: u64,
}

impl PlanCosts {
    /// Time in all.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.hydration + self.advancing
    }

    pub(super) fn hydrated(&mut self, took: Duration, examined: u64) {
        self.hydration += took;
        self.hydration_examined += examined;
    }

    pub(super) fn advanced(&mut self, took: Duration, examined: u64, rows: usize) {
        self.advances += 1;
        self.advancing += took;
        self.advance_examined += examined;
        self.deltas += u64::from(rows > 0);
        self.delta_rows += rows as u64;
    }
}

/// What one live plan costs.
#[derive(Clone, Debug)]
pub struct PlanReport {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Groups that have it.
    pub subscribers: usize,
    /// Rows of its view.
    pub rows: u64,
    /// Version at which its view last changed.
    pub last_changed: Version,
    /// Version its delta log reaches back to.
    pub log_since: Version,
    /// Memory the log takes, in bytes.
    pub log_bytes: usize,
    /// What it cost since it was hydrated.
    pub costs: PlanCosts,
    /// How long its advances took.
    pub advance_times: Durations,
}

/// The plans an operator may want to look at.
#[derive(Clone, Debug, Default)]
pub struct PlanReports {
    /// Live plans there are.
    pub plans: usize,
    /// Those that took most time, most first.
    pub slowest: Vec<PlanReport>,
    /// Those with most rows, most first.
    pub widest: Vec<PlanReport>,
}

impl EngineThread {
    pub(super) fn report(&self, most: usize) -> PlanReports {
        PlanReports {
            plans: self.plans.len(),
            slowest: self.most_by(most, |live| live.costs.time()),
            widest: self.most_by(most, |live| live.state.row_count()),
        }
    }

    /// Keeps no more than is asked for, however many plans there are.
    fn most_by<K: Ord>(&self, most: usize, key: impl Fn(&LivePlan) -> K) -> Vec<PlanReport> {
        let mut best: BTreeMap<(Reverse<K>, PlanId), &LivePlan> = BTreeMap::new();
        for (id, live) in &self.plans {
            best.insert((Reverse(key(live)), *id), live);
            if best.len() > most {
                best.pop_last();
            }
        }
        best.into_values()
            .map(|live| self.report_on(live))
            .collect()
    }

    pub(super) fn reports_of(&self, plans: &[PlanId]) -> HashMap<PlanId, PlanReport> {
        let live = plans
            .iter()
            .filter_map(|id| Some((*id, self.plans.get(id)?)));
        live.map(|(id, live)| (id, self.report_on(live))).collect()
    }

    fn report_on(&self, live: &LivePlan) -> PlanReport {
        let log = self.logs.get(live.plan.id());
        PlanReport {
            log_since: log.map_or(self.version, DeltaLog::since),
            log_bytes: log.map_or(0, DeltaLog::bytes),
            plan: Arc::clone(&live.plan),
            subscribers: live.groups.len(),
            rows: live.state.row_count(),
            last_changed: live.last_changed,
            costs: live.costs,
            advance_times: live.advance_times.as_deref().copied().unwrap_or_default(),
        }
    }

    /// At most two plans whose ids begin like this: more than one is too many.
    pub(super) fn find(&self, id: &str) -> Vec<Arc<Plan>> {
        let wanted = id.to_ascii_lowercase();
        let plans = self.plans.iter();
        let fitting =
            plans.filter(|(id, _)| !wanted.is_empty() && id.to_string().starts_with(&wanted));
        fitting
            .take(2)
            .map(|(_, live)| Arc::clone(&live.plan))
            .collect()
    }
}
