//! Sending pokes to a group's members.

use std::sync::Arc;

use kelvin_ivm::PlanId;
use kelvin_protocol::{Down, ErrorBody, ErrorKind, ErroredQuery, Version};

use super::{Group, GroupMessage};
use crate::engine::PlanPatch;
use crate::sync::catch_up::{CatchUpError, Held, Pasts};
use crate::sync::desire::DesiredPatches;
use crate::sync::poke::{Poke, PokeBody};

/// Tells the clients of a group that has to start afresh.
pub(super) fn mutations_lost() -> ErrorBody {
    let message = "The database has lost mutations of this client.";
    ErrorBody::new(ErrorKind::ClientNotFound, message)
}

impl Group {
    /// Sends a poke to the group's present cookie to every member.
    pub(super) fn poke(&mut self, body: &PokeBody) {
        if self.has_fallen(body) {
            let ids: Vec<_> = self.sessions.keys().copied().collect();
            ids.into_iter()
                .for_each(|id| self.fail_session(id, mutations_lost()));
            return;
        }
        let poke = Arc::new(Poke::new(self.cookie(), body));
        for session in self.sessions.values_mut() {
            session.poke(&poke);
        }
    }

    /// Whether clients of the group count on mutations that PostgreSQL has lost, as where it was
    /// restored. Clients take no last mutation id that is lower, and none of theirs would be
    /// accepted any more, so the group has to start afresh.
    pub(super) fn has_fallen(&self, body: &PokeBody) -> bool {
        let clients = self.record.as_ref().map(|record| &record.clients);
        let mut fallen = body.fallen.iter();
        fallen.any(|client| clients.is_some_and(|known| known.contains(&**client)))
    }

    /// Saves the record after a change of wishes and tells the members.
    pub(super) fn poke_desires(&mut self, patches: DesiredPatches) {
        if self.save() && !patches.is_empty() {
            self.poke(&PokeBody::of_desires(patches));
        }
    }

    /// A commit changed rows of the group.
    pub(super) fn commit(
        &mut self,
        version: Version,
        patches: &[Arc<PlanPatch>],
        dels: Vec<Arc<str>>,
    ) {
        self.version = version;
        let mut body = PokeBody {
            dels,
            ..PokeBody::default()
        };
        body.add_plans(patches.iter().map(|patch| &**patch));
        for patch in patches {
            if let Some(entry) = patch.plan.and_then(|plan| self.subscribed.get_mut(&plan)) {
                entry.1 = version;
            }
        }
        if !body.is_empty() || !body.fallen.is_empty() {
            self.poke(&body);
        }
    }

    /// A plan that members hold broke. What only it held is taken back, its queries are withdrawn
    /// and their clients told; the rest goes on. Engine events wait until that is done.
    pub(super) fn withdraw_plan(&mut self, plan: PlanId, message: String) {
        let version = self.version;
        let held = |keep: &dyn Fn(&PlanId) -> bool| Held {
            plans: self
                .subscribed
                .iter()
                .filter(|(id, _)| keep(id))
                .map(|(_, (plan, _))| Arc::clone(plan))
                .collect(),
            version,
        };
        let (old, new) = (held(&|_| true), held(&|id| *id != plan));
        self.reading = true;
        let reader = self.services.row_reader();
        self.work(move || {
            let mut body = PokeBody::default();
            let result = reader.difference(&old, &new, &Pasts::new(), &mut body);
            GroupMessage::PlanWithdrawn(plan, message, result.map(|()| body))
        });
    }

    /// What only a broken plan held is known.
    pub(super) async fn plan_withdrawn(
        &mut self,
        plan: PlanId,
        message: &str,
        body: Result<PokeBody, CatchUpError>,
    ) {
        self.reading = false;
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(group = %self.id, %error, "a group starts afresh");
                let body = ErrorBody::new(ErrorKind::ClientNotFound, message);
                let ids: Vec<_> = self.sessions.keys().copied().collect();
                ids.into_iter()
                    .for_each(|id| self.fail_session(id, body.clone()));
                return;
            }
        };
        let failed = self.queries_of(plan);
        self.subscribed.remove(&plan);
        let failed = failed
            .into_iter()
            .map(|hash| (hash, message.to_owned()))
            .collect();
        self.withdraw_failed(failed, body);
        self.catch_up_members().await;
        if self.reconciliation.is_none() {
            // The engine may still count the plan as subscribed.
            self.reconcile_now(true).await;
        }
    }

    /// Withdraws queries that failed and tells the clients that want them.
    /// `body` holds the rows they leave behind.
    pub(super) fn withdraw_failed(&mut self, failed: Vec<(String, String)>, body: PokeBody) {
        if failed.is_empty() && body.is_empty() {
            return;
        }
        let errors: Vec<ErroredQuery> = failed
            .iter()
            .map(|(hash, message)| self.errored(hash, message))
            .collect();
        let hashes: Vec<String> = failed.into_iter().map(|(hash, _)| hash).collect();
        self.withdraw_errored(&hashes, &errors, body);
    }

    /// Withdraws `hashes`, and sends `errors` and `body`.
    pub(super) fn withdraw_errored(
        &mut self,
        hashes: &[String],
        errors: &[ErroredQuery],
        mut body: PokeBody,
    ) {
        let version = self.version;
        let Some(record) = &mut self.record else {
            return;
        };
        let config = record.config + 1;
        for hash in hashes {
            self.targets.remove(hash);
            body.queries
                .got
                .extend(record.withdraw(hash, config, version));
        }
        record.config = config;
        if !self.save() {
            return;
        }
        self.send_errors(errors);
        self.poke(&body);
    }

    /// Sends each member the errors of the queries its client wants.
    fn send_errors(&self, errors: &[ErroredQuery]) {
        let Some(record) = &self.record else { return };
        for session in self.sessions.values().filter(|session| session.is_member()) {
            let wants = |error: &&ErroredQuery| {
                let query = record.queries.get(&error.id);
                query.is_some_and(|query| query.desires.contains_key(&session.client_id))
            };
            let errors: Vec<ErroredQuery> = errors.iter().filter(wants).cloned().collect();
            if !errors.is_empty() {
                session.send(&Down::transform_error(errors));
            }
        }
    }

    fn errored(&self, hash: &str, message: &str) -> ErroredQuery {
        let query = self
            .record
            .as_ref()
            .and_then(|record| record.queries.get(hash));
        ErroredQuery {
            error: "app",
            id: hash.to_owned(),
            name: query.map_or("query", |query| query.name()).to_owned(),
            message: Some(message.to_owned()),
            details: None,
        }
    }

    /// Queries that stand for a plan, or are about to.
    pub(super) fn queries_of(&self, plan: PlanId) -> Vec<String> {
        let Some(record) = &self.record else {
            return Vec::new();
        };
        let stands_for = |ast: &Arc<str>| self.compiled.get(ast).is_some_and(|p| p.id() == plan);
        record
            .live_queries()
            .filter(|(hash, query)| {
                self.targets
                    .get(*hash)
                    .or(query.current())
                    .is_some_and(stands_for)
            })
            .map(|(hash, _)| hash.clone())
            .collect()
    }
}
