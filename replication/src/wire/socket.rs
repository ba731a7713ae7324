//! TCP and Unix sockets.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::{Address, Error, Host, Result};

/// A byte stream both ways: a socket, plain or under TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens a socket to the server.
pub(crate) async fn dial(address: &Address) -> Result<Box<dyn Duplex>> {
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

async fn open(host: &Host) -> io::Result<Box<dyn Duplex>> {
    match host {
        Host::Tcp(name, port) => {
            let socket = TcpStream::connect((name.as_str(), *port)).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket))
        }
        Host::Unix(directory, port) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(UnixStream::connect(path).await?))
        }
    }
}
