//! A session joins its group: checks, credentials, and the catch-up to the group's state.

use std::collections::HashSet;
use std::sync::Arc;

use kelvin_ivm::Plan;
use kelvin_protocol::{
    ClientSchema, Cookie, Down, ErrorBody, ErrorKind, InitConnection, UpdateAuth, Version,
};

use super::poking::mutations_lost;
use super::{Attachment, Group, GroupMessage};
use crate::sync::catch_up::{CatchUpError, Held, Pasts, RowReader, question};
use crate::sync::poke::{Poke, PokeBody};
use crate::sync::record::{Definition, GroupRecord, QueryRecord};
use crate::sync::session::{Phase, SessionId};
use crate::sync::transform::Which;

/// Hash of the internal query for last mutation ids; reserved by the protocol.
const LAST_MUTATION_IDS: &str = "lmids";
/// Hash of the internal query for mutation results; reserved by the protocol.
const MUTATION_RESULTS: &str = "mutationResults";

impl Group {
    /// First message of a session.
    pub(super) fn init(&mut self, id: SessionId, init: InitConnection) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if !matches!(session.phase, Phase::New) {
            let message = "initConnection comes once, as the first message.";
            return self.fail_session(id, ErrorBody::new(ErrorKind::InvalidMessage, message));
        }
        if let Err(body) = self.check_cookie(session.cookie, &init) {
            return self.fail_session(id, body);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        crate::sync::caller::set_endpoints(Arc::make_mut(&mut session.caller), &init);
        session.init = Some(init);
        session.phase = Phase::Validating;
        self.validate(id);
    }

    /// Has the endpoint check a session's credentials; the answer comes as a message.
    pub(super) fn validate(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.validated_at = std::time::Instant::now();
        let (services, caller) = (Arc::clone(&self.services), Arc::clone(&session.caller));
        let revision = session.revision;
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            let result = services.app_api.validate(&caller).await;
            if let Some(group) = to_self.upgrade() {
                let _ = group
                    .send(GroupMessage::Validated(id, revision, result))
                    .await;
            }
        });
    }

    /// Whether a client at `cookie` can be served.
    fn check_cookie(&self, cookie: Option<Cookie>, init: &InitConnection) -> Result<(), ErrorBody> {
        let not_found = |message: &str| Err(ErrorBody::new(ErrorKind::ClientNotFound, message));
        match (cookie, &self.record) {
            (None, None) if init.client_schema.is_none() => Err(ErrorBody::new(
                ErrorKind::InvalidConnectionRequest,
                "A new client group must send its clientSchema.",
            )),
            (None, _) => Ok(()),
            (Some(_), None) => not_found("Client not found"),
            (Some(cookie), Some(record)) => {
                let replica = &self.services.replica;
                if cookie.epoch == record.epoch && cookie.config > record.config {
                    let message = "The client's cookie is ahead of the server's.";
                    let kind = ErrorKind::InvalidConnectionRequestBaseCookie;
                    return Err(ErrorBody::new(kind, message));
                }
                if !record.remembers(cookie, replica.horizon()) {
                    return not_found(
                        "The server's history no longer reaches back to this client.",
                    );
                }
                if cookie.version > replica.watermark() {
                    // After a power cut the replica replays what this client has already seen.
                    return Err(ErrorBody::rehome("The server is catching up.", 5_000));
                }
                Ok(())
            }
        }
    }

    /// The endpoint has spoken about a session's credentials.
    pub(super) async fn validated(
        &mut self,
        id: SessionId,
        revision: u64,
        result: Result<(), ErrorBody>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.revision != revision {
            return;
        }
        match result {
            Ok(()) => {}
            // A routine check that could not be made says nothing about the credentials.
            Err(body) if session.validated && !body.is_auth() => {
                tracing::warn!(group = %self.id, error = %body.message, "credentials unchecked");
                return;
            }
            Err(body) => return self.fail_session(id, body),
        }
        let pinned = self
            .pinned_user
            .get_or_insert_with(|| session.user_id.clone());
        if *pinned != session.user_id {
            let message = "This client group belongs to another user.";
            return self.fail_session(id, ErrorBody::new(ErrorKind::Unauthorized, message));
        }
        session.validated = true;
        if let Some(init) = session.init.take()
            && let Err(body) = self.admit(id, init).await
        {
            self.fail_session(id, body);
        }
    }

    /// Takes an accepted session in.
    async fn admit(&mut self, id: SessionId, init: InitConnection) -> Result<(), ErrorBody> {
        self.accept_schema(init.client_schema)?;
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        session.phase = Phase::Joining;
        if let Some(admitted) = session.admitted.take() {
            // The connection may have ended meanwhile.
            let _ = admitted.send(());
        }
        let client = session.client_id.clone();
        let (version, limits) = (self.version, self.services.limits);
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let mut patches =
            record.apply_desires(&client, init.desired_queries_patch, version, limits)?;
        let named = init
            .deleted
            .and_then(|deleted| deleted.client_ids)
            .unwrap_or_default();
        let mut forget = named.clone();
        if let Some(active) = init.active_clients {
            let inactive = |known: &&String| **known != client && !active.contains(*known);
            forget.extend(record.clients.iter().filter(inactive).cloned());
        }
        forget.retain(|forgotten| *forgotten != client);
        for (client, ops) in record.forget_clients(&forget, version) {
            patches.entry(client).or_default().extend(ops);
        }
        self.poke_desires(patches);
        if !named.is_empty() {
            self.announce_deleted(named);
        }
        self.transform(id, Which::All);
        if self.attachment == Attachment::Attached {
            self.catch_up_members().await;
        }
        Ok(())
    }

    /// Tells every member which clients were forgotten.
    pub(super) fn announce_deleted(&self, clients: Vec<String>) {
        let message = Down::delete_clients(clients);
        for session in self.sessions.values().filter(|session| session.is_member()) {
            session.send(&message);
        }
    }

    /// Stores the first schema of the group; a later one must equal it. The schema must fit the
    /// replica.
    fn accept_schema(&mut self, sent: Option<ClientSchema>) -> Result<(), ErrorBody> {
        let invalid = |message| Err(ErrorBody::new(ErrorKind::InvalidConnectionRequest, message));
        match (&mut self.record, sent) {
            (Some(record), Some(sent)) if record.client_schema != sent => {
                return invalid("Provided schema does not match previous schema");
            }
            (None, None) => return invalid("A new client group must send its clientSchema."),
            (None, Some(sent)) => {
                let mut record = GroupRecord::new(self.services.epoch, sent);
                self.add_internal_queries(&mut record)?;
                self.record = Some(record);
            }
            (Some(_), _) => {}
        }
        self.check_schema()
    }

    /// Whether the replica has what the group's clients declared.
    fn check_schema(&self) -> Result<(), ErrorBody> {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let catalog = self.services.replica.catalog();
        crate::sync::schema_check::check_schema(&record.client_schema, &catalog)
    }

    /// The schema changed. Clients that it no longer serves are told; returns whether it serves
    /// them.
    pub(super) fn schema_changed(&mut self) -> bool {
        let Err(body) = self.check_schema() else {
            return true;
        };
        let members = self.sessions.values().filter(|s| s.is_member());
        let members: Vec<SessionId> = members.map(|session| session.id).collect();
        for id in members {
            self.fail_session(id, body.clone());
        }
        false
    }

    /// Every group watches its last mutation ids and mutation results by ordinary queries.
    fn add_internal_queries(&self, record: &mut GroupRecord) -> Result<(), ErrorBody> {
        let schema = format!("{}_{}", self.services.app_id, self.services.shard_num);
        for (hash, table) in [
            (LAST_MUTATION_IDS, "clients"),
            (MUTATION_RESULTS, "mutations"),
        ] {
            let ast = serde_json::json!({
                "table": format!("{schema}.{table}"),
                "where": {
                    "type": "simple", "op": "=",
                    "left": {"type": "column", "name": "clientGroupID"},
                    "right": {"type": "literal", "value": self.id},
                },
            });
            let ast: Arc<str> = serde_json::to_string(&ast)
                .map_err(|error| ErrorBody::new(ErrorKind::Internal, error.to_string()))?
                .into();
            let query = QueryRecord::new(Definition::Internal(ast));
            record.queries.insert(hash.to_owned(), query);
        }
        Ok(())
    }

    /// Starts the catch-up of every session that waits for one.
    pub(super) async fn catch_up_members(&mut self) {
        let joining: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| matches!(session.phase, Phase::Joining))
            .map(|session| session.id)
            .collect();
        for id in joining {
            self.start_catch_up(id).await;
        }
    }

    /// Computes, beside the group, what brings a session to the group's present state.
    async fn start_catch_up(&mut self, id: SessionId) {
        let target = self.cookie();
        let reader = self.services.row_reader();
        let new: Vec<_> = self.subscribed.values().cloned().collect();
        let Some(base) = self.sessions.get(&id).map(|session| session.cookie) else {
            return;
        };
        let old = match self.held_at(base) {
            Ok(old) => old,
            Err(body) => return self.fail_session(id, body),
        };
        let queries = match &self.record {
            Some(record) => record.patches_since(base.map(|cookie| cookie.config)),
            None => return,
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.phase = Phase::CatchingUp {
            target,
            waiting: Vec::new(),
        };
        let mut body = PokeBody {
            queries,
            ..PokeBody::default()
        };
        if self.unchanged_since(&old) {
            return self.caught_up(id, target, Ok(body)).await;
        }
        let version = self.version;
        let engine = self.services.engine.clone();
        let question = question(&old, new.iter().map(|(plan, _)| plan), version);
        let pasts = async move {
            if question.plans.is_empty() {
                return Pasts::new();
            }
            // A stopped engine closes the group's channel, too.
            engine.pasts(question).await.unwrap_or_default()
        };
        self.work_after(pasts, move |pasts| {
            let result = read_difference(&reader, &old, (&new, version), &pasts, &mut body);
            GroupMessage::CaughtUp(id, target, result.map(|()| body))
        });
    }

    /// Whether nothing in the group's answer has changed since a client held `old`.
    fn unchanged_since(&self, old: &Held) -> bool {
        let same = |plan: &Arc<Plan>| {
            self.subscribed
                .get(&plan.id())
                .is_some_and(|(_, since)| *since <= old.version)
        };
        let held: HashSet<_> = old.plans.iter().map(|plan| plan.id()).collect();
        held.len() == self.subscribed.len() && old.plans.iter().all(same)
    }

    /// The plans a client at `cookie` holds.
    fn held_at(&mut self, cookie: Option<Cookie>) -> Result<Held, ErrorBody> {
        let (Some(cookie), Some(record)) = (cookie, &self.record) else {
            return Ok(Held::default());
        };
        if !record.remembers(cookie, self.services.replica.horizon()) {
            let message = "The server's history no longer reaches back to this client.";
            return Err(ErrorBody::new(ErrorKind::ClientNotFound, message));
        }
        let asts: Vec<Arc<str>> = record.plans_at(cookie.config).cloned().collect();
        if asts.is_empty() {
            return Ok(Held::default());
        }
        let not_found = |error| ErrorBody::new(ErrorKind::ClientNotFound, error);
        // The tables may have had another form then.
        let then = self.services.replica.at(cookie.version);
        let catalog = Arc::clone(then.map_err(|e| not_found(e.to_string()))?.catalog());
        let compiled = asts.iter().map(|ast| self.compile_for(ast, &catalog));
        let compiled: Result<Vec<_>, String> = compiled.collect();
        // Two queries may stand for one plan.
        let mut plans = compiled.map_err(not_found)?;
        let mut seen = HashSet::new();
        plans.retain(|plan| seen.insert(plan.id()));
        Ok(Held {
            plans,
            version: cookie.version,
        })
    }

    /// A session's catch-up is there.
    pub(super) async fn caught_up(
        &mut self,
        id: SessionId,
        target: Cookie,
        body: Result<PokeBody, CatchUpError>,
    ) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let expected =
            matches!(&session.phase, Phase::CatchingUp { target: t, .. } if *t == target);
        if let Ok(body) = &body
            && self.has_fallen(body)
        {
            return self.fail_session(id, mutations_lost());
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match body {
            Ok(body) if expected => session.caught_up(&Arc::new(Poke::new(target, &body))),
            // Overtaken: the session was sent through another catch-up meanwhile.
            Ok(_) => {}
            Err(CatchUpError::Plan { plan, message }) if self.subscribed.contains_key(&plan) => {
                session.phase = Phase::Joining;
                // While rows are being read the group is busy; it tries again after that.
                if !self.reading {
                    self.withdraw_plan(plan, message);
                }
                return;
            }
            Err(CatchUpError::Plan { message, .. }) => {
                // What the client holds cannot be evaluated any more: it starts afresh.
                let body = ErrorBody::new(ErrorKind::ClientNotFound, message);
                return self.fail_session(id, body);
            }
            Err(error @ (CatchUpError::Storage(_) | CatchUpError::Stale)) => {
                tracing::warn!(group = %self.id, %error, "a catch-up failed");
                let body = ErrorBody::rehome("The server's history moved on; reconnect.", 1_000);
                return self.fail_session(id, body);
            }
        }
        if self.attachment == Attachment::Attached && !self.reading {
            self.restart_joining(id).await;
        }
    }

    async fn restart_joining(&mut self, id: SessionId) {
        let joining = |s: &crate::sync::session::Session| matches!(s.phase, Phase::Joining);
        if self.sessions.get(&id).is_some_and(joining) {
            Box::pin(self.start_catch_up(id)).await;
        }
    }

    /// New credentials on an open connection.
    pub(super) async fn update_auth(&mut self, id: SessionId, body: &UpdateAuth) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (previous, user) = (session.auth.clone(), session.user_id.clone());
        let token = Some(body.auth.as_str());
        let services = Arc::clone(&self.services);
        let resolved = services
            .auth
            .resolve(previous.as_ref(), user.as_deref(), token)
            .await;
        let auth = match resolved {
            Ok(auth) => auth,
            Err(body) => return self.fail_session(id, body),
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.auth == auth {
            return;
        }
        session.auth = auth;
        session.revision += 1;
        session.validated = false;
        crate::sync::caller::set_auth(Arc::make_mut(&mut session.caller), session.auth.as_ref());
        self.validate(id);
        self.transform(id, Which::All);
    }
}

fn read_difference(
    reader: &RowReader,
    old: &Held,
    (new, version): (&[(Arc<Plan>, Version)], Version),
    pasts: &Pasts,
    body: &mut PokeBody,
) -> Result<(), CatchUpError> {
    if old.plans.is_empty() {
        return reader.whole(new, version, body);
    }
    let plans = new.iter().map(|(plan, _)| Arc::clone(plan)).collect();
    reader.difference(old, &Held { plans, version }, pasts, body)
}
