//! One connection of a client, as its group sees it.

use std::sync::Arc;
use std::time::Instant;

use kelvin_protocol::{Cookie, Down, ErrorBody, InitConnection};

use tokio::sync::oneshot;

use super::poke::Poke;
use crate::app_api::Caller;
use crate::auth::Auth;
use crate::http::{Close, CloseCode, OutFrame, SocketWriter};

/// Names a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Pokes that may wait for a session's catch-up. Beyond it the catch-up starts again.
const MAX_WAITING_POKES: usize = 1024;

/// How far a session has come.
pub enum Phase {
    /// Connected; its first message has not been processed.
    New,
    /// Its credentials are being checked.
    Validating,
    /// Accepted; waits for a catch-up to the group's state.
    Joining,
    /// Being brought up to `target`; later pokes wait.
    CatchingUp {
        /// The state it will have then.
        target: Cookie,
        /// What comes after.
        waiting: Vec<Arc<Poke>>,
    },
    /// Gets every poke of the group.
    Live,
}

/// A connection.
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// The client instance behind it.
    pub client_id: String,
    /// Protocol version it speaks.
    pub protocol: u32,
    /// Where its frames go.
    pub writer: SocketWriter,
    /// The user it claims to be; `None` is logged out.
    pub user_id: Option<String>,
    /// Its credentials.
    pub auth: Option<Auth>,
    /// What the application's endpoint is told about it.
    pub caller: Arc<Caller>,
    /// Counts changes of its credentials, so that a late check does not count for newer ones.
    pub revision: u64,
    /// Whether its credentials were accepted.
    pub validated: bool,
    /// When they were last checked, or their check began.
    pub validated_at: Instant,
    /// The state it holds.
    pub cookie: Option<Cookie>,
    /// How far it has come.
    pub phase: Phase,
    /// Its first message, until it is processed.
    pub init: Option<InitConnection>,
    /// Tells the connection that its group has taken it in; dropped if it does not.
    pub admitted: Option<oneshot::Sender<()>>,
}

impl Session {
    /// Whether it gets pokes, now or after its catch-up.
    #[must_use]
    pub fn is_member(&self) -> bool {
        matches!(
            self.phase,
            Phase::Joining | Phase::CatchingUp { .. } | Phase::Live
        )
    }

    /// Sends a message.
    pub fn send(&self, down: &Down) {
        self.deliver(vec![OutFrame::Text(down.to_text().into())]);
    }

    /// Sends an error and closes the connection.
    pub fn fail(&self, body: ErrorBody) {
        let code = if body.is_auth() {
            CloseCode::AUTH
        } else {
            CloseCode::NORMAL
        };
        self.deliver(error_frames(body, code));
    }

    /// Gives the session a poke, or keeps it until its catch-up is done.
    pub fn poke(&mut self, poke: &Arc<Poke>) {
        match &mut self.phase {
            Phase::Live => {
                let frames = poke.frames(self.cookie, self.protocol);
                self.cookie = Some(poke.cookie());
                self.deliver(frames);
            }
            Phase::CatchingUp { waiting, .. } if waiting.len() < MAX_WAITING_POKES => {
                waiting.push(Arc::clone(poke));
            }
            // Too far behind: the result of the running catch-up will be of no use.
            Phase::CatchingUp { .. } => self.phase = Phase::Joining,
            Phase::New | Phase::Validating | Phase::Joining => {}
        }
    }

    /// Ends a catch-up: sends its poke and those that waited.
    pub fn caught_up(&mut self, poke: &Arc<Poke>) {
        let Phase::CatchingUp { waiting, .. } = std::mem::replace(&mut self.phase, Phase::Live)
        else {
            self.phase = Phase::Joining;
            return;
        };
        self.poke(poke);
        for poke in waiting {
            self.poke(&poke);
        }
    }

    /// Queues frames. A client that takes nothing is cut off: its queue is dropped with the
    /// connection, and it is brought up by a diff when it comes back.
    fn deliver(&self, frames: Vec<OutFrame>) {
        if self.writer.send_all(frames).is_err() {
            tracing::info!(client = %self.client_id, "the client does not keep up; disconnecting");
            self.writer.abort(Close::default());
        }
    }
}

/// An error message, and the close frame behind it.
#[must_use]
pub fn error_frames(body: ErrorBody, code: CloseCode) -> Vec<OutFrame> {
    let close = Close::new(code, body.message.clone());
    vec![
        OutFrame::Text(Down::error(body).to_text().into()),
        OutFrame::Close(close),
    ]
}
