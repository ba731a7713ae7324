//! TCP and Unix sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::{Address, Error, Host, Result};

/// Silence after which the system asks whether the other end is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection is lost.
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay unacknowledged before the connection is lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// A byte stream both ways: a socket, plain or under TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A socket to a server.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Opens a socket to the server.
pub(crate) async fn dial(address: &Address) -> Result<Socket> {
    let opened = timeout(address.connect_timeout, open(&address.host));
    match opened.await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(Error::Io(io::Error::new(
            error.kind(),
            format!("cannot reach {}: {error}", address.host),
        ))),
        Err(_) => Err(Error::Timeout(format!(
            "cannot reach {}: no answer within {:?}",
            address.host, address.connect_timeout
        ))),
    }
}

async fn open(host: &Host) -> io::Result<Socket> {
    match host {
        Host::Tcp(name, port) => {
            let socket = TcpStream::connect((name.as_str(), *port)).await?;
            socket.set_nodelay(true)?;
            detect_loss(&socket)?;
            Ok(Socket::Tcp(socket))
        }
        Host::Unix(directory, port) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Ok(Socket::Unix(UnixStream::connect(path).await?))
        }
    }
}

/// Makes the system notice a machine or a way to it that is gone without a word. It does by itself
/// only after hours, and whoever waits for an answer would wait as long.
fn detect_loss(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

impl Socket {
    fn inner(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Tcp(socket) => Pin::new(socket),
            Self::Unix(socket) => Pin::new(socket),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
