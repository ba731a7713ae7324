//! A client group: one task that owns the group's record, its sessions and its place in the engine.
//!
//! The task reacts to two streams: its mailbox (sockets, and results of work it had done elsewhere)
//! and the engine's events. It never blocks: HTTP calls and evaluations run beside it and come back
//! as messages. While rows of a reconciliation are being read, engine events wait in their channel,
//! so that pokes leave in the order of their versions.
//!
//! INVARIANT: the record is saved before a poke that carries its config number is sent. A client
//! can therefore never show a cookie that the record does not know.

mod expiry;
mod joining;
mod poking;
mod queries;
mod reconciling;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Plan, PlanId};
use kelvin_protocol::{
    ChangeDesiredQueries, Cookie, DeleteClients, ErrorBody, ErrorKind, InitConnection, Inspect,
    UpdateAuth, Version,
};
use tokio::sync::{mpsc, watch};

use super::catch_up::CatchUpError;
use super::poke::PokeBody;
use super::record::GroupRecord;
use super::registry::Services;
use super::session::{Session, SessionId};
use super::transform::Transformed;
use crate::engine::{GroupEvent, GroupId, Reconciled};
use crate::http::{Close, CloseCode};

/// Messages that may wait in a group's mailbox. Beyond it the group's sockets wait.
pub const MAILBOX: usize = 256;
/// How long a group outlives its last connection.
const LINGER: Duration = Duration::from_secs(5);
/// How often a group looks after itself.
const TICK: Duration = Duration::from_secs(10);

/// What a group is told.
pub enum GroupMessage {
    /// A socket connected.
    Connect(Box<Session>),
    /// A socket is gone.
    Disconnect(SessionId),
    /// First message of a connection.
    Init(SessionId, Box<InitConnection>),
    /// Queries to add and to drop.
    ChangeDesiredQueries(SessionId, ChangeDesiredQueries),
    /// Clients to forget.
    DeleteClients(SessionId, DeleteClients),
    /// New credentials.
    UpdateAuth(SessionId, UpdateAuth),
    /// A question of the inspector.
    Inspect(SessionId, Box<Inspect>),
    /// The endpoint has accepted or refused a session's credentials.
    Validated(SessionId, u64, Result<(), ErrorBody>),
    /// Queries were transformed.
    Transformed(Transformed),
    /// Rows of a reconciliation were read.
    RowsRead(Reconciled, Result<PokeBody, CatchUpError>),
    /// What only a broken plan held was computed.
    PlanWithdrawn(PlanId, String, Result<PokeBody, CatchUpError>),
    /// A session's catch-up was computed.
    CaughtUp(SessionId, Cookie, Result<PokeBody, CatchUpError>),
    /// An error for the sessions of a client, such as a failed push.
    Fail(String, Box<ErrorBody>),
    /// The server is going down: close every socket.
    Shutdown,
}

/// Whether the group has a place in the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attachment {
    Detached,
    /// Waits for the first reconciliation.
    Attaching,
    Attached,
}

/// A client group.
pub struct Group {
    id: String,
    pub(super) services: Arc<Services>,
    mailbox: mpsc::Receiver<GroupMessage>,
    to_self: mpsc::WeakSender<GroupMessage>,
    permissions: watch::Receiver<u64>,
    schema: watch::Receiver<Version>,
    pub(super) record: Option<GroupRecord>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// The user every session must be, once one was accepted.
    pinned_user: Option<Option<String>>,
    /// Version of what members hold.
    version: Version,
    attachment: Attachment,
    attachment_id: GroupId,
    events: mpsc::Receiver<GroupEvent>,
    /// Plans the engine keeps for the group, with the version since which each is unchanged.
    subscribed: HashMap<PlanId, (Arc<Plan>, Version)>,
    /// Compiled plans of the ASTs in use.
    pub(super) compiled: HashMap<Arc<str>, Arc<Plan>>,
    /// What each query should stand for.
    targets: BTreeMap<String, Arc<str>>,
    reconciliation: Option<reconciling::InFlight>,
    reconcile_again: bool,
    /// Whether rows are being read; engine events wait meanwhile.
    reading: bool,
    clock_since: Option<Instant>,
    empty_since: Option<Instant>,
    last_retransform: Instant,
    last_saved: Instant,
    pub(super) inspector_open: bool,
}

impl Group {
    /// A group that starts with its mailbox.
    #[must_use]
    pub fn new(
        id: String,
        services: Arc<Services>,
        mailbox: mpsc::Receiver<GroupMessage>,
        to_self: mpsc::WeakSender<GroupMessage>,
    ) -> Self {
        let permissions = services.engine.permissions_changed();
        let schema = services.engine.schema_changed();
        Self {
            id,
            services,
            mailbox,
            to_self,
            permissions,
            schema,
            record: None,
            sessions: BTreeMap::new(),
            pinned_user: None,
            version: 0,
            attachment: Attachment::Detached,
            attachment_id: GroupId(0),
            events: mpsc::channel(1).1,
            subscribed: HashMap::new(),
            compiled: HashMap::new(),
            targets: BTreeMap::new(),
            reconciliation: None,
            reconcile_again: false,
            reading: false,
            clock_since: None,
            empty_since: Some(Instant::now()),
            last_retransform: Instant::now(),
            last_saved: Instant::now(),
            inspector_open: false,
        }
    }

    /// Runs until the group has been empty for a while, or the server goes down.
    pub async fn run(mut self) {
        if let Err(error) = self.load() {
            tracing::error!(group = %self.id, %error, "a client group cannot be loaded");
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let listening = self.attachment != Attachment::Detached && !self.reading;
            let alarm = self.alarm();
            tokio::select! {
                message = self.mailbox.recv() => match message {
                    None | Some(GroupMessage::Shutdown) => break,
                    Some(message) => self.receive(message).await,
                },
                event = self.events.recv(), if listening => self.hear(event).await,
                changed = self.permissions.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.permissions_changed();
                }
                changed = self.schema.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.schema_changed();
                }
                _ = tick.tick() => self.look_after().await,
                () = tokio::time::sleep(alarm) => self.look_after().await,
            }
            if self.is_over() {
                break;
            }
        }
        self.end().await;
    }

    fn load(&mut self) -> Result<(), super::store::StoreError> {
        let record = self.services.store.load(&self.id)?;
        self.record = record.filter(|record| record.epoch == self.services.epoch);
        Ok(())
    }

    async fn receive(&mut self, message: GroupMessage) {
        match message {
            GroupMessage::Connect(session) => self.connect(*session),
            GroupMessage::Disconnect(session) => self.disconnect(session),
            GroupMessage::Init(session, init) => self.init(session, *init),
            GroupMessage::ChangeDesiredQueries(session, body) => {
                self.change_desired_queries(session, body).await;
            }
            GroupMessage::DeleteClients(session, body) => self.delete_clients(session, &body),
            GroupMessage::UpdateAuth(session, body) => self.update_auth(session, &body).await,
            GroupMessage::Inspect(session, question) => self.inspect(session, &question),
            GroupMessage::Validated(session, revision, result) => {
                self.validated(session, revision, result).await;
            }
            GroupMessage::Transformed(transformed) => self.transformed(transformed).await,
            GroupMessage::RowsRead(reconciled, body) => {
                self.rows_read(reconciled, body).await;
            }
            GroupMessage::PlanWithdrawn(plan, message, body) => {
                self.plan_withdrawn(plan, &message, body).await;
            }
            GroupMessage::CaughtUp(session, target, body) => {
                self.caught_up(session, target, body).await;
            }
            GroupMessage::Fail(client, body) => self.fail_client(&client, &body),
            GroupMessage::Shutdown => {}
        }
    }

    async fn hear(&mut self, event: Option<GroupEvent>) {
        match event {
            Some(GroupEvent::Commit {
                version,
                patches,
                dels,
            }) => {
                self.commit(version, &patches, dels);
            }
            Some(GroupEvent::Reconciled(reconciled)) => self.reconciled(reconciled),
            Some(GroupEvent::PlanFailed { plan, message }) => self.withdraw_plan(plan, message),
            None => self.cut_off().await,
        }
    }

    /// The engine dropped the group, because it did not keep up or because tables of its queries
    /// have another form now: start again from the newest state.
    async fn cut_off(&mut self) {
        self.attachment = Attachment::Detached;
        self.subscribed.clear();
        self.reconciliation = None;
        self.rejoin_members();
        if self.schema_changed() && self.sessions.values().any(Session::is_member) {
            self.reconcile().await;
        }
    }

    /// Sends every member through a catch-up.
    fn rejoin_members(&mut self) {
        for session in self
            .sessions
            .values_mut()
            .filter(|session| session.is_member())
        {
            session.phase = super::session::Phase::Joining;
        }
    }

    fn connect(&mut self, session: Session) {
        if let Some(pinned) = &self.pinned_user
            && *pinned != session.user_id
        {
            let message = "This client group belongs to another user.";
            session.fail(ErrorBody::new(ErrorKind::Unauthorized, message));
            return;
        }
        let replaced = self
            .sessions
            .values()
            .find(|old| old.client_id == session.client_id);
        if let Some(replaced) = replaced.map(|old| old.id)
            && let Some(old) = self.sessions.remove(&replaced)
        {
            old.writer.close(Close::new(
                CloseCode::NORMAL,
                "replaced by a newer connection",
            ));
        }
        self.clock_since.get_or_insert_with(Instant::now);
        self.empty_since = None;
        self.sessions.insert(session.id, session);
    }

    fn disconnect(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        if self.sessions.is_empty() && self.empty_since.is_none() {
            self.advance_clock();
            self.clock_since = None;
            self.empty_since = Some(Instant::now());
            self.save();
        }
    }

    fn is_over(&self) -> bool {
        self.empty_since
            .is_some_and(|since| since.elapsed() >= LINGER)
    }

    async fn end(&mut self) {
        self.advance_clock();
        self.save();
        if self.attachment != Attachment::Detached {
            let _ = self.services.engine.detach(self.attachment_id).await;
        }
        for session in self.sessions.values() {
            // No error message: clients reconnect at once, to whichever node takes them.
            session.writer.close(Close::default());
        }
        // INVARIANT: the record was saved before the mailbox closes, since that is when a successor
        // of this group may load it. Whoever connected meanwhile has to come again.
        self.mailbox.close();
        while let Ok(message) = self.mailbox.try_recv() {
            if let GroupMessage::Connect(session) = message {
                session.writer.close(Close::default());
            }
        }
    }

    /// Writes the record; a store that cannot be written fails every session, since no cookie may
    /// be handed out that the record does not know.
    fn save(&mut self) -> bool {
        self.last_saved = Instant::now();
        // What is written says when it was alive, or the next start could take it for forgotten.
        self.advance_clock();
        let Some(record) = &mut self.record else {
            return true;
        };
        let Err(error) = self.services.store.save(&self.id, record) else {
            return true;
        };
        tracing::error!(group = %self.id, %error, "a client group cannot be saved");
        let body = ErrorBody::rehome("The server cannot write its disk.", 30_000);
        for session in std::mem::take(&mut self.sessions).into_values() {
            session.fail(body.clone());
        }
        self.empty_since = Some(Instant::now());
        false
    }

    fn fail_session(&mut self, id: SessionId, body: ErrorBody) {
        if let Some(session) = self.sessions.remove(&id) {
            tracing::info!(
                group = %self.id, client = %session.client_id, kind = ?body.kind,
                error = %body.message, "closing a connection"
            );
            session.fail(body);
        }
        if self.sessions.is_empty() {
            self.empty_since.get_or_insert_with(Instant::now);
        }
    }

    fn fail_client(&mut self, client: &str, body: &ErrorBody) {
        let ids: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| session.client_id == client)
            .map(|session| session.id)
            .collect();
        for id in ids {
            self.fail_session(id, body.clone());
        }
    }

    fn cookie(&self) -> Cookie {
        let config = self.record.as_ref().map_or(0, |record| record.config);
        Cookie {
            epoch: self.services.epoch,
            version: self.version,
            config,
        }
    }

    /// Runs blocking work beside the group; its result comes back as a message.
    fn work(&self, work: impl FnOnce() -> GroupMessage + Send + 'static) {
        self.work_after(std::future::ready(()), |()| work());
    }

    /// The same, once `first` is there. While it waits it holds no place among the readers.
    fn work_after<T: Send + 'static>(
        &self,
        first: impl Future<Output = T> + Send + 'static,
        work: impl FnOnce(T) -> GroupMessage + Send + 'static,
    ) {
        let to_self = self.to_self.clone();
        let permits = Arc::clone(&self.services.reading);
        tokio::spawn(async move {
            let first = first.await;
            // A closed semaphore means shutdown.
            let Ok(_permit) = permits.acquire_owned().await else {
                return;
            };
            let Ok(message) = tokio::task::spawn_blocking(|| work(first)).await else {
                return;
            };
            if let Some(group) = to_self.upgrade() {
                let _ = group.send(message).await;
            }
        });
    }
}
