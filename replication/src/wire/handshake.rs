//! Start-up, TLS and authentication of a replication connection.

use std::collections::HashMap;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::channel::Channel;
use super::message::Fields;
use super::socket::{Duplex, Socket, dial};
use crate::advice::{Advice, no_tls};
use crate::tls::{TlsConnector, client_config};
use crate::{Address, Error, Host, Result, TlsMode};

const OK: i32 = 0;
const CLEARTEXT_PASSWORD: i32 = 3;
const MD5_PASSWORD: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Most parameters of a server that are kept; PostgreSQL 18 reports 15.
const MAX_PARAMETERS: usize = 64;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Replication commands, and SQL in one database.
    Replication,
    /// SQL.
    Sql,
}

/// What the server says of itself at log-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The process that serves the session, for cancel requests.
    pub(crate) process: Option<i32>,
    /// Settings it reports, such as `server_version`.
    pub(crate) parameters: HashMap<String, String>,
}

/// Connects, secures and logs in; the connection is then ready for a query.
pub(super) async fn connect(
    address: &Address,
    application: &str,
    max_message: usize,
    purpose: Purpose,
) -> Result<(Channel, Greeting)> {
    let work = async {
        let socket = dial(address).await?;
        let (socket, end_point) = secure(address, socket).await?;
        let mut channel = Channel::new(socket, max_message);
        start(address, application, purpose, &mut channel)?;
        channel.flush().await?;
        let greeting = authenticate(address, &mut channel, end_point).await?;
        Ok((channel, greeting))
    };
    // The dial has this time for itself; the handshake after it has as much again.
    let limit = address.connect_timeout * 2;
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout(format!(
            "{} accepted the connection but did not finish the log-in within {limit:?}",
            address.host
        )))
    })
}

type Secured = (Box<dyn Duplex>, Option<Vec<u8>>);

/// Asks for TLS as the address says. The second part is the channel binding.
async fn secure(address: &Address, mut socket: Socket) -> Result<Secured> {
    let (Some(config), Host::Tcp(name, _)) = (client_config(address)?, &address.host) else {
        return Ok((Box::new(socket), None));
    };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    match socket.read_u8().await? {
        b'S' => {
            let stream = TlsConnector::new(config, name)?.handshake(socket).await?;
            let end_point = stream.end_point();
            Ok((Box::new(stream), end_point))
        }
        _ if address.tls == TlsMode::Prefer => Ok((Box::new(socket), None)),
        _ => {
            let (found, fix) = no_tls(&address.host);
            Err(Advice::new(found, fix).into())
        }
    }
}

fn start(
    address: &Address,
    application: &str,
    purpose: Purpose,
    channel: &mut Channel,
) -> Result<()> {
    let mut parameters = vec![
        ("user", address.user.as_str()),
        ("database", address.database.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", application),
    ];
    if purpose == Purpose::Replication {
        parameters.push(("replication", "database"));
    }
    parameters.extend(
        address
            .options
            .as_deref()
            .map(|options| ("options", options)),
    );
    Ok(frontend::startup_message(
        parameters,
        &mut channel.outbound,
    )?)
}

/// Logs in over a connection whose start-up message is sent.
pub(crate) async fn authenticate(
    address: &Address,
    channel: &mut Channel,
    end_point: Option<Vec<u8>>,
) -> Result<Greeting> {
    let mut greeting = Greeting::default();
    let mut scram = Scram::new(address, end_point);
    loop {
        let (tag, mut body) = channel.message().await?;
        match tag {
            b'R' => {
                let method = body.i32()?;
                answer(address, method, body, &mut scram, channel)?;
                if !channel.outbound.is_empty() {
                    channel.flush().await?;
                }
            }
            b'Z' => return Ok(greeting),
            b'E' => return Err(body.server_error()?.into()),
            b'K' => greeting.process = Some(body.i32()?),
            b'S' if greeting.parameters.len() < MAX_PARAMETERS => {
                let (name, value) = (body.text()?, body.text()?);
                greeting.parameters.insert(name, value);
            }
            // Further parameters, notices, protocol negotiation.
            b'S' | b'N' | b'v' => {}
            other => return Err(unexpected("log-in", other)),
        }
    }
}

/// Puts the answer to an authentication request, if it wants one, into `channel.outbound`.
fn answer(
    address: &Address,
    method: i32,
    mut body: Fields,
    scram: &mut Scram<'_>,
    channel: &mut Channel,
) -> Result<()> {
    let out = &mut channel.outbound;
    match method {
        OK => {}
        CLEARTEXT_PASSWORD => frontend::password_message(password(address)?, out)?,
        MD5_PASSWORD => {
            let salt = body.u32()?.to_be_bytes();
            let hash = md5_hash(address.user.as_bytes(), password(address)?, salt);
            frontend::password_message(hash.as_bytes(), out)?;
        }
        SASL => scram.begin(body, out)?,
        SASL_CONTINUE => scram.go_on(&body, out)?,
        SASL_FINAL => scram.finish(&body)?,
        other => {
            return Err(Error::Config(format!(
                "PostgreSQL asks for an authentication method kelvin does not know (number \
                 {other}); allow scram-sha-256, md5 or password for role \"{}\" in pg_hba.conf",
                address.user
            )));
        }
    }
    Ok(())
}

fn password(address: &Address) -> Result<&[u8]> {
    address
        .password
        .as_ref()
        .map(String::as_bytes)
        .ok_or_else(|| {
            Error::Config(format!(
                "PostgreSQL asks for a password of role \"{}\", but the address has none",
                address.user
            ))
        })
}

/// A SCRAM exchange in progress.
struct Scram<'a> {
    address: &'a Address,
    end_point: Option<Vec<u8>>,
    exchange: Option<ScramSha256>,
}

impl<'a> Scram<'a> {
    fn new(address: &'a Address, end_point: Option<Vec<u8>>) -> Self {
        Self {
            address,
            end_point,
            exchange: None,
        }
    }

    fn begin(&mut self, mut mechanisms: Fields, out: &mut BytesMut) -> Result<()> {
        let (mut plain, mut bound) = (false, false);
        loop {
            match mechanisms.text()?.as_str() {
                "" => break,
                SCRAM_SHA_256 => plain = true,
                SCRAM_SHA_256_PLUS => bound = true,
                _ => {}
            }
        }
        let (mechanism, binding) = match (bound, self.end_point.take()) {
            (true, Some(hash)) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash),
            ),
            (false, Some(_)) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (_, None) if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(Error::Protocol("no SASL mechanism in common".into())),
        };
        let exchange = ScramSha256::new(password(self.address)?, binding);
        frontend::sasl_initial_response(mechanism, exchange.message(), out)?;
        self.exchange = Some(exchange);
        Ok(())
    }

    fn exchange(&mut self) -> Result<&mut ScramSha256> {
        self.exchange
            .as_mut()
            .ok_or_else(|| Error::Protocol("SASL goes on before it began".into()))
    }

    fn go_on(&mut self, body: &Fields, out: &mut BytesMut) -> Result<()> {
        let exchange = self.exchange()?;
        exchange.update(&body.0)?;
        frontend::sasl_response(exchange.message(), out)?;
        Ok(())
    }

    fn finish(&mut self, body: &Fields) -> Result<()> {
        Ok(self.exchange()?.finish(&body.0)?)
    }
}

pub(super) fn unexpected(during: &str, tag: u8) -> Error {
    Error::Protocol(format!(
        "unexpected message '{}' during {during}",
        tag.escape_ascii()
    ))
}
