//! The front end: one port for HTTP and WebSocket clients.
//!
//! [`Listener`] opens the port and serves a [`Site`]; each client that connects becomes a
//! [`Connect`] and a [`Socket`], handed to the [`ConnectionHandler`]. A socket's two halves are
//! independent: the reader gives whole, checked messages, the writer queues without ever waiting.
//!
//! # Invariants
//! * A WebSocket handshake never fails in HTTP; what is wrong is said in a close frame.
//! * Memory of a connection is bounded: one message of the client and one queue to it.
//! * Nothing a client sends can panic or reach another connection.

mod admin;
mod close;
mod connect;
mod frame;
mod handshake;
mod listener;
mod outbox;
mod readiness;
mod site;
mod socket;
mod writer;

#[cfg(test)]
mod tests;

pub use admin::{AdminGate, AskedQuery, QueryDesk, Refusal, Statz};
pub use close::{Close, CloseCode};
pub use connect::{Connect, ConnectParams, RequestHeaders};
pub use listener::{ListenError, Listener};
pub use outbox::{OutFrame, QueueBounds, SendError};
pub use readiness::{Heartbeat, Readiness};
pub use site::{ConnectionHandler, Metrics, Site};
pub use socket::{Incoming, Socket, SocketBounds, SocketError, SocketReader};
pub use writer::SocketWriter;
