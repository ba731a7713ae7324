//! The listening socket and its connections.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::outbox::QueueBounds;
use super::site::{ConnectionHandler, Peer, Site};
use super::socket::SocketBounds;
use crate::config::Listen;

/// Request line and headers together may be so long: clients put their first message there.
const MAX_HEAD_BYTES: usize = 256 * 1024;
/// Headers of a request; proxies add theirs.
const MAX_HEADERS: usize = 200;
/// Pause after an `accept` that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error(
        "port {0} is taken by another process: stop that one (another kelvin or zero-cache?) or \
         choose a free port with ZERO_PORT"
    )]
    Taken(u16),
    /// The port needs privileges.
    #[error(
        "port {0} may not be opened by this user: choose a port from 1024 with ZERO_PORT, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Forbidden(u16),
    /// Anything else.
    #[error("cannot listen on port {0}: {1}")]
    Io(u16, std::io::Error),
}

/// A port that is open.
pub struct Listener {
    socket: TcpListener,
    bounds: SocketBounds,
    header_timeout: Duration,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Opens the port, on the configured address; without one on IPv6 and IPv4, and on IPv4 alone
    /// where there is no IPv6.
    ///
    /// # Errors
    /// The port cannot be had; the message says what to do.
    pub async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let port = listen.port;
        let address = listen.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let bound = TcpListener::bind(SocketAddr::from((address, port))).await;
        let socket = match bound {
            Err(error)
                if listen.address.is_none() && error.kind() != std::io::ErrorKind::AddrInUse =>
            {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
            }
            bound => bound,
        };
        let socket = socket.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ListenError::Taken(port),
            std::io::ErrorKind::PermissionDenied => ListenError::Forbidden(port),
            _ => ListenError::Io(port, error),
        })?;
        Ok(Self {
            socket,
            bounds: SocketBounds {
                max_message_bytes: listen.max_message_bytes,
                message_timeout: listen.message_timeout,
                send_timeout: listen.send_timeout,
                queue: QueueBounds {
                    bytes: listen.queue_bytes,
                    messages: listen.queue_messages,
                },
            },
            header_timeout: listen.header_timeout,
            connections: Arc::new(Semaphore::new(
                listen.max_connections.min(Semaphore::MAX_PERMITS),
            )),
        })
    }

    /// The port that was opened.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.socket.local_addr().ok().map(|address| address.port())
    }

    /// Serves until `shutdown`, then closes the port. Sockets that are open then stay with their
    /// handlers.
    pub async fn serve<H: ConnectionHandler>(self, site: Site<H>, shutdown: CancellationToken) {
        let site = Arc::new(site);
        loop {
            let Some((stream, peer)) = shutdown.run_until_cancelled(self.accept()).await else {
                return;
            };
            let connection = serve_one(
                stream,
                peer,
                Arc::clone(&site),
                self.header_timeout,
                shutdown.clone(),
            );
            tokio::spawn(connection);
        }
    }

    async fn accept(&self) -> (TcpStream, Peer) {
        loop {
            // Beyond the bound, connections wait in the kernel's queue.
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                std::future::pending().await
            };
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    let peer = Peer {
                        remote,
                        bounds: self.bounds,
                        permit: Arc::new(permit),
                    };
                    return (stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_one<H: ConnectionHandler>(
    stream: TcpStream,
    peer: Peer,
    site: Arc<Site<H>>,
    header_timeout: Duration,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |request| {
        let (site, peer) = (Arc::clone(&site), peer.clone());
        async move { Ok::<_, Infallible>(site.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended badly");
    }
}
