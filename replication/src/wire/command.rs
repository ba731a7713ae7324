//! Replication commands.

use kelvin_protocol::Version;
use postgres_protocol::message::frontend;

use super::channel::Channel;
use super::copy_both::CopyBoth;
use super::copy_out::CopyOut;
use super::handshake::{Greeting, Purpose, connect, unexpected};
use super::message::Fields;
use crate::quote::{identifier, literal};
use crate::{Address, Error, Lsn, Result};

/// A logged-in connection that takes SQL and replication commands.
pub(crate) struct ReplicationConnection {
    channel: Channel,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SystemIdentity {
    /// Identifier of the database cluster.
    pub(crate) system_identifier: String,
    /// Its timeline.
    pub(crate) timeline: u32,
    /// Where its WAL is flushed to.
    pub(crate) flushed: Version,
}

/// The answer to `CREATE_REPLICATION_SLOT`.
#[derive(Clone, Debug)]
pub(crate) struct CreatedSlot {
    /// The slot streams what commits from here on.
    pub(crate) consistent_point: Version,
    /// Names the snapshot of the database at that point, until the next command here.
    pub(crate) snapshot: String,
}

/// How the stream is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    /// With values in binary form, where their types have one.
    pub(crate) binary: bool,
    /// With large transactions while they are in progress.
    pub(crate) in_progress: bool,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// It stays until it is dropped.
    Lasting,
    /// It stays, and is kept on standbys too.
    Failover,
    /// It goes with its connection.
    Temporary,
}

/// A result row of a simple query: texts, or nothing for NULL.
type TextRow = Vec<Option<String>>;

impl ReplicationConnection {
    /// Connects and logs in.
    pub(crate) async fn open(
        address: &Address,
        application: &str,
        max_message: usize,
    ) -> Result<Self> {
        let (mut connection, _) =
            Self::log_in(address, application, max_message, Purpose::Replication).await?;
        // Values arrive as text, and these settings shape that text.
        for setting in crate::sql::SESSION_SETTINGS {
            connection.query(setting).await?;
        }
        Ok(connection)
    }

    /// Connects and logs in, and leaves the session as it is: nothing is set that a pooler could
    /// hand on to somebody else.
    pub(crate) async fn log_in(
        address: &Address,
        application: &str,
        max_message: usize,
        purpose: Purpose,
    ) -> Result<(Self, Greeting)> {
        let (channel, greeting) = connect(address, application, max_message, purpose).await?;
        Ok((Self::over(channel), greeting))
    }

    /// Goes on with a connection that is logged in.
    pub(crate) fn over(channel: Channel) -> Self {
        Self { channel }
    }

    /// Says goodbye, so that the server does not log a lost connection.
    pub(crate) async fn close(mut self) {
        frontend::terminate(&mut self.channel.outbound);
        // It may be lost indeed.
        let _ = self.channel.flush().await;
    }

    /// Runs one statement and gives its rows.
    pub(crate) async fn query(&mut self, statement: &str) -> Result<Vec<TextRow>> {
        frontend::query(statement, &mut self.channel.outbound)?;
        self.channel.flush().await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (tag, body) = self.channel.message().await?;
            match tag {
                b'D' => rows.push(text_row(body)?),
                b'E' => failure = Some(body.server_error()?),
                b'Z' => break,
                b'T' | b'C' | b'I' | b'S' | b'N' | b'A' => {}
                other => return Err(unexpected("a query", other)),
            }
        }
        failure.map_or(Ok(rows), |error| Err(error.into()))
    }

    /// Runs a COPY TO STDOUT and gives what it sends.
    pub(crate) async fn copy_out(&mut self, statement: &str) -> Result<CopyOut<'_>> {
        frontend::query(statement, &mut self.channel.outbound)?;
        self.channel.flush().await?;
        Ok(CopyOut::new(&mut self.channel))
    }

    /// Which cluster this is and where its WAL stands.
    pub(crate) async fn identify(&mut self) -> Result<SystemIdentity> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let answer = || -> Option<SystemIdentity> {
            let row = rows.first()?;
            Some(SystemIdentity {
                system_identifier: row.first()?.clone()?,
                timeline: row.get(1)?.as_ref()?.parse().ok()?,
                flushed: row.get(2)?.as_ref()?.parse::<Lsn>().ok()?.0,
            })
        };
        answer().ok_or_else(|| Error::Protocol("IDENTIFY_SYSTEM gave no identity".into()))
    }

    /// The history of a timeline: a line for each one before it, with where it was left.
    pub(crate) async fn timeline_history(&mut self, timeline: u32) -> Result<String> {
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().nth(1));
        content
            .flatten()
            .ok_or_else(|| Error::Protocol("TIMELINE_HISTORY gave no history".into()))
    }

    /// Creates a logical slot and exports its snapshot. Waits for running transactions, as long as
    /// `lock_timeout_ms` allows.
    pub(crate) async fn create_slot(
        &mut self,
        name: &str,
        kind: SlotKind,
        lock_timeout_ms: u64,
    ) -> Result<CreatedSlot> {
        self.query(&format!("SET lock_timeout = {lock_timeout_ms}"))
            .await?;
        let (life, options) = match kind {
            SlotKind::Lasting => ("", ""),
            SlotKind::Failover => ("", " (FAILOVER)"),
            SlotKind::Temporary => ("TEMPORARY ", ""),
        };
        let name = identifier(name);
        let command = format!("CREATE_REPLICATION_SLOT {name} {life}LOGICAL pgoutput{options}");
        let rows = self.query(&command).await?;
        let answer = || -> Option<CreatedSlot> {
            let row = rows.first()?;
            Some(CreatedSlot {
                consistent_point: row.get(1)?.as_ref()?.parse::<Lsn>().ok()?.0,
                snapshot: row.get(2)?.clone()?,
            })
        };
        answer().ok_or_else(|| Error::Protocol("CREATE_REPLICATION_SLOT gave no slot".into()))
    }

    /// Begins to stream what committed at `start` or later.
    pub(crate) async fn start(
        mut self,
        slot: &str,
        start: Version,
        publications: &[String],
        options: StreamOptions,
    ) -> Result<CopyBoth> {
        let binary = options.binary;
        let in_progress = if options.in_progress {
            "proto_version '2', streaming 'on'"
        } else {
            "proto_version '1'"
        };
        let names: Vec<_> = publications.iter().map(|name| identifier(name)).collect();
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} ({in_progress}, messages 'true', \
             binary '{binary}', publication_names {})",
            identifier(slot),
            Lsn(start),
            literal(&names.join(","))
        );
        frontend::query(&command, &mut self.channel.outbound)?;
        self.channel.flush().await?;
        loop {
            let (tag, body) = self.channel.message().await?;
            match tag {
                b'W' => return Ok(CopyBoth::new(self.channel)),
                b'E' => return Err(body.server_error()?.into()),
                b'N' | b'S' => {}
                other => return Err(unexpected("START_REPLICATION", other)),
            }
        }
    }
}

fn text_row(mut body: Fields) -> Result<TextRow> {
    let count = body.i16()?;
    (0..count)
        .map(|_| match body.i32()? {
            -1 => Ok(None),
            length => {
                let text = body.bytes(length)?;
                Ok(Some(String::from_utf8_lossy(&text).into_owned()))
            }
        })
        .collect()
}
