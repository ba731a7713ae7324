//! Questions of groups about the past of their plans.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kelvin_ivm::PlanId;
use kelvin_protocol::Version;
use tokio::sync::oneshot;

use super::delta_logs::PlanPast;
use super::recall::{RecallJob, Recalled};
use super::thread::EngineThread;
use super::{PastsQuestion, PlanCosts};

/// A plan is recalled only where the evaluations of all its groups would examine as many rows:
/// below that they cost less than finding out.
const RECALL_FROM_EXAMINED: u64 = 32;

/// Changed rows that are looked at for each row that these evaluations would examine. A changed row
/// is read at two versions, once for all plans; an examined one at two, and for each group.
const RECALL_PER_EXAMINED: u64 = 4;

/// Changed rows that are looked at, at most.
const RECALL_ROWS: u64 = 50_000;

/// Plans whose past is being read from the changelog, and who waits for it.
#[derive(Default)]
pub(super) struct Recalls {
    under_way: HashSet<PlanId>,
    /// Bounded by the connections: one that is being caught up asks once.
    waiting: Vec<Waiting>,
}

struct Waiting {
    question: PastsQuestion,
    answer: oneshot::Sender<HashMap<PlanId, PlanPast>>,
    /// Plans whose past is being read.
    plans: HashSet<PlanId>,
}

impl EngineThread {
    /// Answers a group's question, once the past of each plan is known or known to be no use.
    pub(super) fn pasts(
        &mut self,
        question: PastsQuestion,
        answer: oneshot::Sender<HashMap<PlanId, PlanPast>>,
    ) {
        let mut plans = HashSet::new();
        for id in &question.plans {
            if self.recall(*id, question.since) {
                plans.insert(*id);
            }
        }
        self.recalls.waiting.push(Waiting {
            question,
            answer,
            plans,
        });
        self.answer_pasts();
    }

    /// Whether a plan's past since `to` is being read, or will be.
    fn recall(&mut self, id: PlanId, to: Version) -> bool {
        let Some(live) = self.plans.get(&id) else {
            return false;
        };
        let most = rows_worth(&live.costs, live.groups.len());
        let begun = self.logs.get(id).map(kelvin_ivm::DeltaLog::since);
        let (Some(most), Some(since)) = (most, begun) else {
            return false;
        };
        if !self.logs.may_recall(id, to, most) {
            return false;
        }
        if self.recalls.under_way.insert(id) {
            self.pool.recall(RecallJob {
                state: Arc::clone(&live.state),
                at: self.version,
                since,
                to,
                most,
            });
        }
        true
    }

    /// A plan's past was read from the changelog, or not.
    pub(super) fn recalled(&mut self, recalled: Recalled) {
        let Recalled {
            plan,
            since,
            to,
            most,
            deltas,
        } = recalled;
        self.recalls.under_way.remove(&plan);
        if let (Some(deltas), Some(live)) = (deltas, self.plans.get(&plan)) {
            let rows = live.state.row_count();
            self.logs.extend_back(plan, (since, to), deltas, rows);
        }
        if self.logs.after(plan, to).is_none() {
            self.logs.note_in_vain(plan, to, most);
        }
        let mut waiting = std::mem::take(&mut self.recalls.waiting);
        // Whoever came meanwhile may have to go back further: the furthest first, for all.
        let wait = |waiting: &&mut Waiting| waiting.plans.contains(&plan);
        let mut wait: Vec<&mut Waiting> = waiting.iter_mut().filter(wait).collect();
        wait.sort_by_key(|waiting| waiting.question.since);
        for waiting in wait {
            if !self.recall(plan, waiting.question.since) {
                waiting.plans.remove(&plan);
            }
        }
        self.recalls.waiting = waiting;
        self.answer_pasts();
    }

    fn answer_pasts(&mut self) {
        let waiting = std::mem::take(&mut self.recalls.waiting);
        let ready = |waiting: &Waiting| waiting.plans.is_empty();
        let (ready, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(ready);
        self.recalls.waiting = waiting;
        for Waiting {
            question, answer, ..
        } in ready
        {
            let _ = answer.send(self.known_pasts(&question));
        }
    }

    /// Costs what changed, and a copy of bitmaps where plans may hold the same rows.
    fn known_pasts(&mut self, question: &PastsQuestion) -> HashMap<PlanId, PlanPast> {
        let mut pasts = HashMap::new();
        let reached = question.until <= self.version;
        for id in question.plans.iter().filter(|_| reached) {
            let Some(deltas) = self.logs.after(*id, question.since) else {
                continue;
            };
            let recalled = self.logs.is_recalled(*id, question.since);
            self.metrics.pasts.recalled += u64::from(recalled);
            self.metrics.pasts.logged += u64::from(!recalled);
            let members = HashMap::new();
            pasts.insert(*id, PlanPast { deltas, members });
        }
        let missing = question.plans.len() - pasts.len();
        self.metrics.pasts.evaluated += missing as u64;
        let unchanged = pasts.values().all(|past| past.deltas.is_empty());
        if missing == 0 && !question.others && unchanged {
            return pasts;
        }
        for (id, past) in &mut pasts {
            let Some(live) = self.plans.get(id) else {
                continue;
            };
            let rows = live.state.rows();
            let wanted = rows.filter(|(table, _)| question.tables.contains(table));
            past.members = wanted.map(|(table, rows)| (table, rows.clone())).collect();
        }
        pasts
    }
}

/// Changed rows worth looking at to spare so many groups two evaluations each; `None` if none are.
fn rows_worth(costs: &PlanCosts, groups: usize) -> Option<u64> {
    let groups = (groups as u64).max(1);
    let examined = costs.hydration_examined.saturating_mul(groups);
    let rows = examined.saturating_mul(RECALL_PER_EXAMINED);
    (examined >= RECALL_FROM_EXAMINED).then(|| rows.min(RECALL_ROWS))
}
