//! One socket: from the handshake to its end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kelvin_protocol::{
    Cookie, Down, ErrorBody, ErrorKind, InitConnection, MIN_PROTOCOL_VERSION, Mutation,
    MutationKind, PROTOCOL_VERSION, PushBody, Up,
};
use tokio::sync::{mpsc, oneshot};

use super::caller;
use super::group::GroupMessage;
use super::registry::Registry;
use super::session::{Phase, Session, SessionId, error_frames};
use crate::app_api::Caller;
use crate::auth::Auth;
use crate::http::{
    Close, CloseCode, Connect, Incoming, OutFrame, Socket, SocketError, SocketReader, SocketWriter,
};
use crate::mutation::{CrudOutcome, PushContext};

/// Messages of a connection that may wait while an earlier one is being processed.
const INBOX: usize = 64;
/// How often a client is told that the server is alive while its inbox is full: its pings are not
/// read then.
const PONG_INTERVAL: Duration = Duration::from_secs(3);

/// Serves one connection until it ends.
pub async fn serve(registry: Arc<Registry>, connect: Connect, socket: Socket) {
    let Socket { reader, writer } = socket;
    let (session, connection, init) = match accept(&registry, connect, &writer).await {
        Ok(accepted) => accepted,
        Err((body, code)) => return refuse(&writer, body, code),
    };
    session.send(&Down::connected(connection.ws_id.clone(), now_ms()));
    let group = connection.group.clone();
    let id = session.id;
    let joining = GroupMessage::Connect(Box::new(session));
    if group.send(joining).await.is_err() {
        return writer.close(Close::default());
    }
    let (inbox, messages) = mpsc::channel(INBOX);
    let processing = tokio::spawn(connection.process(init, messages));
    read(reader, &writer, inbox).await;
    let _ = processing.await;
    let _ = group.send(GroupMessage::Disconnect(id)).await;
}

type Accepted = (Session, Connection, Option<InitConnection>);

/// A connection whose handshake makes sense, as its group will see it and as its task does, with
/// the first message if the handshake had it. Otherwise what the client is told, and how it is
/// closed.
async fn accept(
    registry: &Arc<Registry>,
    connect: Connect,
    writer: &SocketWriter,
) -> Result<Accepted, (ErrorBody, CloseCode)> {
    let services = registry.services();
    let params = &connect.params;
    let token = connect.auth_token.as_deref();
    let auth = services
        .auth
        .resolve(None, params.user_id.as_deref(), token);
    let auth = auth.await.map_err(|body| (body, CloseCode::AUTH))?;
    check_version(connect.protocol_version)?;
    let cookie = params.base_cookie.as_deref().map(str::parse::<Cookie>);
    // Another server's cookie: the client starts afresh.
    let cookie = cookie.transpose().map_err(|error| {
        let body = ErrorBody::new(ErrorKind::ClientNotFound, error.to_string());
        (body, CloseCode::NORMAL)
    })?;
    let (admit, admitted) = oneshot::channel();
    let caller = Arc::new(caller::of_connection(&connect, auth.as_ref()));
    let session = Session {
        id: SessionId(services.next_id()),
        client_id: params.client_id.clone(),
        protocol: connect.protocol_version,
        writer: writer.clone(),
        user_id: params.user_id.clone(),
        auth: auth.clone(),
        caller: Arc::clone(&caller),
        revision: 0,
        validated: false,
        validated_at: Instant::now(),
        cookie,
        phase: Phase::New,
        init: None,
        admitted: Some(admit),
    };
    let connection = Connection {
        id: session.id,
        group_id: params.client_group_id.clone(),
        client_id: params.client_id.clone(),
        ws_id: params.wsid.clone(),
        group: registry.group(&params.client_group_id),
        writer: writer.clone(),
        registry: Arc::clone(registry),
        caller,
        auth,
        revision: 0,
        admitted: Some(admitted),
    };
    let init = connect.init.transpose().map_err(|problem| {
        let body = ErrorBody::new(ErrorKind::InvalidMessage, problem);
        (body, CloseCode::NORMAL)
    })?;
    Ok((session, connection, init))
}

fn check_version(spoken: u32) -> Result<(), (ErrorBody, CloseCode)> {
    if (MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&spoken) {
        return Ok(());
    }
    let message = format!(
        "server speaks protocol versions {MIN_PROTOCOL_VERSION} to {PROTOCOL_VERSION}, the client \
         {spoken}"
    );
    let body = ErrorBody::new(ErrorKind::VersionNotSupported, message);
    Err((body, CloseCode::NORMAL))
}

fn refuse(writer: &SocketWriter, body: ErrorBody, code: CloseCode) {
    let _ = writer.send_all(error_frames(body, code));
}

struct Connection {
    id: SessionId,
    group_id: String,
    client_id: String,
    ws_id: String,
    group: mpsc::Sender<GroupMessage>,
    writer: SocketWriter,
    registry: Arc<Registry>,
    caller: Arc<Caller>,
    auth: Option<Auth>,
    revision: u64,
    /// Taken when the group has accepted the connection.
    admitted: Option<oneshot::Receiver<()>>,
}

/// What to do after a message.
enum Next {
    Read,
    End,
}

impl Connection {
    /// Processes the messages of the connection, one after the other.
    async fn process(mut self, init: Option<InitConnection>, mut messages: mpsc::Receiver<Up>) {
        if let Some(init) = init {
            self.init(init).await;
        }
        while let Some(message) = messages.recv().await {
            if matches!(self.receive(message).await, Next::End) {
                return;
            }
        }
    }

    fn send(&self, down: &Down) {
        let _ = self
            .writer
            .send_all(vec![OutFrame::Text(down.to_text().into())]);
    }

    async fn init(&mut self, init: InitConnection) {
        caller::set_endpoints(Arc::make_mut(&mut self.caller), &init);
        self.tell(GroupMessage::Init(self.id, Box::new(init))).await;
    }

    async fn receive(&mut self, message: Up) -> Next {
        let id = self.id;
        match message {
            Up::InitConnection(init) => self.init(*init).await,
            Up::ChangeDesiredQueries(body) => {
                self.tell(GroupMessage::ChangeDesiredQueries(id, body))
                    .await;
            }
            Up::DeleteClients(body) => self.tell(GroupMessage::DeleteClients(id, body)).await,
            Up::UpdateAuth(body) => return self.update_auth(body).await,
            Up::Inspect(body) => self.tell(GroupMessage::Inspect(id, Box::new(body))).await,
            Up::Push(body) => return self.push(body).await,
            Up::AckMutationResponses(ack) => {
                let mutations = &self.registry.services().mutations;
                mutations.ack(&self.group_id, &ack, &self.caller);
            }
            Up::Ping | Up::Pull | Up::CloseConnection => {}
        }
        Next::Read
    }

    /// Sends to the group. A group that is gone has closed this socket already.
    async fn tell(&self, message: GroupMessage) {
        let _ = self.group.send(message).await;
    }

    fn fail(&self, body: ErrorBody) -> Next {
        tracing::info!(
            group = %self.group_id, client = %self.client_id, kind = ?body.kind,
            error = %body.message, "closing a connection"
        );
        refuse(&self.writer, body, CloseCode::NORMAL);
        Next::End
    }

    async fn update_auth(&mut self, body: kelvin_protocol::UpdateAuth) -> Next {
        let services = self.registry.services();
        let user = self.caller.user_id.clone();
        let token = Some(body.auth.as_str());
        match services
            .auth
            .resolve(self.auth.as_ref(), user.as_deref(), token)
            .await
        {
            Ok(auth) if auth != self.auth => {
                caller::set_auth(Arc::make_mut(&mut self.caller), auth.as_ref());
                self.auth = auth;
                self.revision += 1;
            }
            Ok(_) => {}
            Err(body) => return self.fail(body),
        }
        self.tell(GroupMessage::UpdateAuth(self.id, body)).await;
        Next::Read
    }

    async fn push(&mut self, body: PushBody) -> Next {
        if body.client_group_id != self.group_id {
            let message = "The push names another client group than the connection.";
            return self.fail(ErrorBody::new(ErrorKind::InvalidPush, message));
        }
        // INVARIANT: nothing is written for a connection whose user the group has not accepted.
        if let Some(admitted) = self.admitted.take()
            && admitted.await.is_err()
        {
            return Next::End;
        }
        match body.mutations.first().map(|mutation| mutation.kind) {
            None => Next::Read,
            Some(MutationKind::Custom) => self.push_custom(body),
            Some(MutationKind::Crud) => self.push_crud(body.mutations).await,
        }
    }

    fn push_custom(&self, body: PushBody) -> Next {
        let group = self.group.clone();
        let context = PushContext {
            group_id: self.group_id.clone(),
            client_id: self.client_id.clone(),
            ws_id: self.ws_id.clone(),
            revision: self.revision,
            caller: Arc::clone(&self.caller),
            on_failure: Arc::new(move |client: String, body: ErrorBody| {
                let group = group.clone();
                tokio::spawn(async move {
                    let _ = group.send(GroupMessage::Fail(client, Box::new(body))).await;
                });
            }),
        };
        match self
            .registry
            .services()
            .mutations
            .push_custom(context, body)
        {
            Ok(()) => Next::Read,
            Err(body) => self.fail(*body),
        }
    }

    async fn push_crud(&self, mutations: Vec<Mutation>) -> Next {
        for mutation in mutations {
            let services = self.registry.services();
            let auth = self.auth.as_ref();
            match services
                .mutations
                .crud(&self.group_id, &mutation, auth)
                .await
            {
                CrudOutcome::Done => {}
                CrudOutcome::Reported(body) => self.send(&Down::error(*body)),
                CrudOutcome::Fatal(body) => return self.fail(*body),
            }
        }
        Next::Read
    }
}

/// Reads a socket until it ends. Pings are answered here, past every queue; all else waits its turn
/// in the inbox, and with the inbox full, in the socket.
async fn read(mut reader: SocketReader, writer: &SocketWriter, inbox: mpsc::Sender<Up>) {
    let mut waiting: Option<Up> = None;
    let mut alive = tokio::time::interval(PONG_INTERVAL);
    loop {
        tokio::select! {
            incoming = reader.next(), if waiting.is_none() => match parse(incoming) {
                Ok(Some(Up::Ping)) => {
                    let _ = writer.send(OutFrame::Text(Down::pong().to_text().into()));
                }
                Ok(message @ Some(_)) => waiting = message,
                Ok(None) => return,
                Err(body) => return refuse(writer, *body, CloseCode::NORMAL),
            },
            permit = inbox.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                (Ok(permit), Some(message)) => permit.send(message),
                _ => return,
            },
            _ = alive.tick(), if waiting.is_some() => {
                let _ = writer.send(OutFrame::Text(Down::pong().to_text().into()));
            }
            () = writer.closed() => return,
        }
    }
}

/// A message; `None` at the end of the socket.
fn parse(incoming: Result<Option<Incoming>, SocketError>) -> Result<Option<Up>, Box<ErrorBody>> {
    let invalid = |message| Err(Box::new(ErrorBody::new(ErrorKind::InvalidMessage, message)));
    match incoming {
        Ok(Some(Incoming::Text(text))) => match Up::parse(&text) {
            Ok(message) => Ok(Some(message)),
            Err(error) => invalid(format!("cannot read the message: {error}")),
        },
        Ok(Some(Incoming::Binary(_))) => invalid("clients send text messages only".to_owned()),
        Ok(None) => Ok(None),
        Err(error) => {
            tracing::debug!(%error, "socket failed");
            Ok(None)
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
