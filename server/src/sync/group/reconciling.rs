//! Making the engine's subscriptions of a group what its queries stand for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kelvin_ivm::{Plan, PlanId};
use kelvin_protocol::ErrorBody;
use tokio::sync::mpsc;

use super::{Attachment, Group, GroupMessage};
use crate::engine::{EVENT_QUEUE, Reconciled};
use crate::sync::catch_up::CatchUpError;
use crate::sync::poke::PokeBody;

/// A reconciliation the engine or a reader is working on.
pub(super) struct InFlight {
    /// What each query will stand for.
    queries: BTreeMap<String, Arc<str>>,
    /// Queries to withdraw, unless somebody wants them again meanwhile.
    expired: BTreeSet<String>,
    /// The plans of `queries`.
    plans: HashMap<PlanId, Arc<Plan>>,
    /// Whether the members' cookies are to move even if nothing changed.
    refresh: bool,
}

impl Group {
    /// Reconciles if there is anything to reconcile.
    pub(super) async fn reconcile(&mut self) {
        self.reconcile_now(false).await;
    }

    /// Asks the engine for the plans the group needs now; with `refresh` also if it has them.
    pub(super) async fn reconcile_now(&mut self, refresh: bool) {
        if self.reconciliation.is_some() || self.reading {
            self.reconcile_again = true;
            return;
        }
        self.reconcile_again = false;
        let in_flight = match self.plan_reconciliation(refresh) {
            Ok(Some(in_flight)) => in_flight,
            Ok(None) => return,
            Err(failed) => {
                // Compiled once, and now no more: the schema changed under them. The members' own
                // catch-ups take the rows back that these queries leave behind.
                self.leave_engine().await;
                self.withdraw_failed(failed, PokeBody::default());
                return Box::pin(self.reconcile_now(refresh)).await;
            }
        };
        if self.attachment == Attachment::Detached && !self.attach().await {
            // The engine is gone, and the server with it: clients find another or come back later.
            self.attachment = Attachment::Detached;
            let body = ErrorBody::rehome("The server is stopping.", 5_000);
            let ids: Vec<_> = self.sessions.keys().copied().collect();
            ids.into_iter()
                .for_each(|id| self.fail_session(id, body.clone()));
            return;
        }
        let plans = in_flight.plans.values().cloned().collect();
        self.reconciliation = Some(in_flight);
        // A stopped engine closes the event channel, which ends the group's work in order.
        let _ = self
            .services
            .engine
            .reconcile(self.attachment_id, plans)
            .await;
    }

    async fn attach(&mut self) -> bool {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        self.attachment_id = self.services.next_group_id();
        self.events = events;
        self.attachment = Attachment::Attaching;
        self.services
            .engine
            .attach(self.attachment_id, sender)
            .await
            .is_ok()
    }

    /// Gives up the place in the engine; every member is caught up once the group has one again.
    async fn leave_engine(&mut self) {
        if self.attachment != Attachment::Detached {
            let _ = self.services.engine.detach(self.attachment_id).await;
        }
        self.attachment = Attachment::Detached;
        self.subscribed.clear();
        self.rejoin_members();
    }

    /// What is to be done, `None` if nothing is; else the queries that no longer compile.
    fn plan_reconciliation(
        &mut self,
        refresh: bool,
    ) -> Result<Option<InFlight>, Vec<(String, String)>> {
        let Some(record) = self.record.as_ref() else {
            return Ok(None);
        };
        let expired: BTreeSet<String> = record.expired().into_iter().collect();
        let queries: BTreeMap<String, Arc<str>> = record
            .live_queries()
            .filter(|(hash, _)| !expired.contains(*hash))
            .filter_map(|(hash, query)| {
                let ast = self.targets.get(hash).or(query.current())?;
                Some((hash.clone(), Arc::clone(ast)))
            })
            .collect();
        let settled = queries
            .iter()
            .all(|(hash, ast)| record.queries.get(hash).and_then(|q| q.current()) == Some(ast));
        let mut plans = HashMap::new();
        let mut failed = Vec::new();
        for (hash, ast) in &queries {
            match self.compile(ast) {
                Ok(plan) => {
                    plans.insert(plan.id(), plan);
                }
                Err(message) => failed.push((hash.clone(), message)),
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        let subscribed = plans.len() == self.subscribed.len()
            && plans.keys().all(|id| self.subscribed.contains_key(id));
        let attached = self.attachment == Attachment::Attached;
        if attached && settled && subscribed && expired.is_empty() && !refresh {
            return Ok(None);
        }
        Ok(Some(InFlight {
            queries,
            expired,
            plans,
            refresh,
        }))
    }

    /// The engine has answered: read the rows of what was added and removed.
    pub(super) fn reconciled(&mut self, reconciled: Reconciled) {
        let Some(in_flight) = &self.reconciliation else {
            return;
        };
        let first = self.attachment == Attachment::Attaching;
        let added: Vec<(Arc<Plan>, u64)> = reconciled
            .added
            .iter()
            .filter(|_| !first)
            .filter_map(|(id, since)| Some((Arc::clone(in_flight.plans.get(id)?), *since)))
            .collect();
        let removed: Vec<Arc<Plan>> = self
            .subscribed
            .iter()
            .filter(|(id, _)| !in_flight.plans.contains_key(*id))
            .map(|(_, (plan, _))| Arc::clone(plan))
            .collect();
        self.reading = true;
        let reader = self.services.row_reader();
        self.work(move || {
            let mut body = PokeBody::default();
            let version = reconciled.version;
            // On the first reconciliation members are caught up one by one instead.
            let result = reader
                .whole(&added, version, &mut body)
                .and_then(|()| reader.removals(&removed, &reconciled.gone, version, &mut body));
            GroupMessage::RowsRead(reconciled, result.map(|()| body))
        });
    }

    /// The rows are there: note what holds now, and tell the members.
    pub(super) async fn rows_read(
        &mut self,
        reconciled: Reconciled,
        body: Result<PokeBody, CatchUpError>,
    ) {
        self.reading = false;
        let Some(in_flight) = self.reconciliation.take() else {
            return;
        };
        let mut body = match body {
            Ok(body) => body,
            Err(error) => return self.reading_failed(&in_flight, &error).await,
        };
        let failed: HashMap<PlanId, String> = reconciled.failed.iter().cloned().collect();
        self.version = self.version.max(reconciled.version);
        self.note_subscriptions(&in_flight, &reconciled);
        let failed_queries = self.note_assignments(&in_flight, &failed, &mut body);
        if !self.save() {
            return;
        }
        let moved = !body.is_empty();
        if self.attachment == Attachment::Attaching {
            self.attachment = Attachment::Attached;
            self.rejoin_members();
        } else if moved {
            self.poke(&body);
        } else if in_flight.refresh {
            self.poke_version();
        }
        self.withdraw_failed(failed_queries, PokeBody::default());
        self.forget_unused_plans();
        self.catch_up_members().await;
        if self.reconcile_again {
            Box::pin(self.reconcile()).await;
        }
    }

    fn note_subscriptions(&mut self, in_flight: &InFlight, reconciled: &Reconciled) {
        let failed: HashSet<PlanId> = reconciled.failed.iter().map(|(id, _)| *id).collect();
        let wanted = |id: &PlanId| in_flight.plans.contains_key(id) && !failed.contains(id);
        self.subscribed.retain(|id, _| wanted(id));
        for (id, since) in &reconciled.added {
            if let Some(plan) = in_flight.plans.get(id) {
                self.subscribed.insert(*id, (Arc::clone(plan), *since));
            }
        }
    }

    /// Writes down what each query stands for from now on. Returns queries that failed.
    fn note_assignments(
        &mut self,
        in_flight: &InFlight,
        failed: &HashMap<PlanId, String>,
        body: &mut PokeBody,
    ) -> Vec<(String, String)> {
        let version = self.version;
        let mut failed_queries = Vec::new();
        let Some(record) = &mut self.record else {
            return failed_queries;
        };
        let config = record.config + 1;
        let mut changed = false;
        for (hash, ast) in &in_flight.queries {
            let failure = self
                .compiled
                .get(ast)
                .and_then(|plan| failed.get(&plan.id()));
            if let Some(message) = failure {
                failed_queries.push((hash.clone(), message.clone()));
                continue;
            }
            let query = record.queries.get(hash);
            if query.is_none_or(|query| query.removed.is_some() || query.current() == Some(ast)) {
                continue;
            }
            changed = true;
            body.queries
                .got
                .extend(record.assign(hash, ast, config, version));
        }
        let still_expired: BTreeSet<String> = record.expired().into_iter().collect();
        for hash in &in_flight.expired {
            if still_expired.contains(hash) {
                changed = true;
                self.targets.remove(hash);
                body.queries
                    .got
                    .extend(record.withdraw(hash, config, version));
            } else {
                self.reconcile_again = true;
            }
        }
        if changed || !body.is_empty() {
            record.config = config;
        }
        failed_queries
    }

    /// Rows could not be read. A failing plan costs its queries; anything else a fresh start.
    async fn reading_failed(&mut self, in_flight: &InFlight, error: &CatchUpError) {
        match error {
            CatchUpError::Plan { plan, message } if in_flight.plans.contains_key(plan) => {
                let failed = self.queries_of(*plan);
                let failed = failed
                    .into_iter()
                    .map(|hash| (hash, message.clone()))
                    .collect();
                self.withdraw_failed(failed, PokeBody::default());
            }
            error => tracing::warn!(group = %self.id, %error, "a reconciliation starts again"),
        }
        // The engine already counts the new plans as subscribed: start from a clean slate.
        self.leave_engine().await;
        Box::pin(self.reconcile()).await;
    }

    /// Drops compiled plans that no query of the group stands for any more.
    fn forget_unused_plans(&mut self) {
        let Some(record) = &self.record else { return };
        let mut used: HashSet<&Arc<str>> = self.targets.values().collect();
        used.extend(
            record
                .queries
                .values()
                .flat_map(|q| &q.assignments)
                .map(|a| &a.ast),
        );
        let used: HashSet<Arc<str>> = used.into_iter().cloned().collect();
        self.compiled.retain(|ast, _| used.contains(ast));
    }
}
