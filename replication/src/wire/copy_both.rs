//! The stream of changes, and what is said back.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use kelvin_protocol::Version;

use super::channel::Channel;
use super::handshake::unexpected;
use super::message::Fields;
use crate::{Error, Result};

/// Seconds from 1970 to 2000, where PostgreSQL's clock begins.
const POSTGRES_EPOCH_SECONDS: u64 = 946_684_800;

/// A connection in CopyBoth mode.
pub(crate) struct CopyBoth {
    channel: Channel,
}

/// A message of the stream.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A pgoutput message.
    Data(Bytes),
    /// Everything up to `wal_end` has been sent.
    Keepalive {
        /// How far the server has read its WAL.
        wal_end: Version,
        /// Whether the server waits for an answer.
        reply: bool,
    },
}

impl CopyBoth {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Inbound> {
        loop {
            let (tag, body) = self.channel.message().await?;
            if let Some(message) = read(tag, body)? {
                return Ok(message);
            }
        }
    }

    /// The next message that is here already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Inbound>> {
        while let Some((tag, body)) = self.channel.buffered()? {
            if let Some(message) = read(tag, Fields(body))? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Tells the server that everything up to `confirmed` is durable here (zero confirms nothing)
    /// and that we are alive. With `reply` the server answers at once. Not cancel-safe.
    pub(crate) async fn status(&mut self, confirmed: Version, reply: bool) -> Result<()> {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let clock = since_epoch
            .as_micros()
            .saturating_sub(u128::from(POSTGRES_EPOCH_SECONDS) * 1_000_000);
        let out = &mut self.channel.outbound;
        out.put_u8(b'd');
        out.put_i32(4 + 34);
        out.put_u8(b'r');
        for _written_flushed_applied in 0..3 {
            out.put_u64(confirmed);
        }
        out.put_i64(i64::try_from(clock).unwrap_or(i64::MAX));
        out.put_u8(u8::from(reply));
        self.channel.flush().await
    }
}

/// Reads a message of the stream; `None` for one that says nothing of interest.
fn read(tag: u8, mut body: Fields) -> Result<Option<Inbound>> {
    match tag {
        b'd' => match body.u8()? {
            b'w' => {
                let (_start, _end, _clock) = (body.u64()?, body.u64()?, body.i64()?);
                Ok(Some(Inbound::Data(body.0)))
            }
            b'k' => {
                let wal_end = body.u64()?;
                let _clock = body.i64()?;
                let reply = body.u8()? == 1;
                Ok(Some(Inbound::Keepalive { wal_end, reply }))
            }
            other => Err(unexpected("the stream's copy data", other)),
        },
        b'E' => Err(body.server_error()?.into()),
        b'c' | b'C' => Err(Error::Io(std::io::Error::new(
            std::io::ErrorKind::ConnectionReset,
            "the server ended the stream",
        ))),
        b'N' | b'S' => Ok(None),
        other => Err(unexpected("the stream", other)),
    }
}
