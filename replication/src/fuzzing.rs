//! What fuzz targets and benches need to see of the inside. No part of the interface.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kelvin_protocol::Value;
use kelvin_storage::{Catalog, Column, Table, Transaction};

use crate::backfill::Backfills;
use crate::copy::{Format, Rows};
use crate::decode::{Decoded, Decoder};
use crate::stream::{Assembled, Assembler, Message, Spool, Step, StreamSchema};
use crate::wire::{Channel, Inbound, ReplicationConnection, StreamOptions, authenticate};
use crate::{Address, Error, Result};

/// Largest message the server of a [`conversation`] may send, bytes.
const MAX_MESSAGE: usize = 1 << 16;

/// Bytes of transactions in progress that a [`Stream`] keeps.
const SPOOL: u64 = 1 << 20;

/// Puts transactions together from pgoutput messages.
pub struct Stream {
    assembler: Assembler,
    spool: Spool,
}

impl Stream {
    /// A stream of changes of these tables.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let schema = StreamSchema::new(catalog);
        Self {
            assembler: Assembler::new(schema, None, Backfills::new(0), usize::MAX),
            spool: Spool::new(PathBuf::new(), SPOOL),
        }
    }

    /// Takes in one message; gives the transaction it completes.
    ///
    /// # Errors
    /// As of the stream.
    pub fn push(&mut self, message: Bytes) -> Result<Option<Transaction>> {
        let in_transaction = self.assembler.in_transaction();
        let assembled = match self.spool.push(message, in_transaction)? {
            Step::Pass(message) => self.assembler.push(message)?,
            Step::Taken => return Ok(None),
            Step::Commit {
                mut replay,
                commit_lsn,
                end_lsn,
            } => {
                let final_lsn = commit_lsn;
                self.assembler.take(Message::Begin { final_lsn }, 0)?;
                // All of it is in memory.
                while let Some(message) = replay.next(&self.assembler)? {
                    self.assembler.push(message)?;
                }
                for relation in replay.recalled(&mut self.spool) {
                    self.assembler.recall(relation);
                }
                let commit = Message::Commit {
                    commit_lsn,
                    end_lsn,
                };
                self.assembler.take(commit, 0)?
            }
        };
        Ok(match assembled {
            Assembled::Transaction { transaction, .. } => Some(transaction),
            _ => None,
        })
    }
}

/// Reads the rows of a COPY whose bytes come in pieces: the rows up to its end or its first error.
pub fn copy_rows<'a>(
    table: &Table,
    binary: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Vec<Value>>, Result<()>) {
    let format = if binary { Format::Binary } else { Format::Text };
    let (mut reader, mut rows) = (Rows::new(table, format), Vec::new());
    for piece in pieces {
        let read = reader.read([piece], |row| {
            let values = row.iter().map(|value| value.as_ref().to_value());
            rows.push(values.collect());
            Ok(())
        });
        if let Err(error) = read {
            return (rows, Err(error));
        }
    }
    let end = reader.finish();
    (rows, end)
}

/// Decodes one value of a column; the error is a sentence.
///
/// # Errors
/// Where the bytes are no such value.
pub fn decode(column: &Column, binary: bool, bytes: &[u8]) -> Result<Value, String> {
    let decoder = Decoder::of(column);
    let decoded = if binary && decoder.knows_binary() {
        decoder.binary(bytes).map(Decoded::into_value)
    } else {
        decoder.text(bytes)
    };
    decoded.map_err(|error| error.to_string())
}

/// Logs in, asks who the server is and follows its stream, with a server that says `script`
/// whatever it is told. Gives the pgoutput messages that came, and how it ended.
pub async fn conversation(address: &Address, script: Vec<u8>) -> (Vec<Bytes>, Error) {
    let mut messages = Vec::new();
    let socket = tokio::io::join(Cursor::new(script), tokio::io::sink());
    let mut channel = Channel::new(Box::new(socket), MAX_MESSAGE);
    let talk = async {
        authenticate(address, &mut channel, None).await?;
        let mut connection = ReplicationConnection::over(channel);
        connection.identify().await?;
        let options = StreamOptions {
            binary: true,
            in_progress: true,
        };
        let publications = ["publication".into()];
        let mut stream = connection.start("slot", 0, &publications, options).await?;
        loop {
            match stream.next().await? {
                Inbound::Data(message) => messages.push(message),
                Inbound::Keepalive { wal_end, reply } => stream.status(wal_end, reply).await?,
            }
        }
    };
    let talk: Result<std::convert::Infallible> = talk.await;
    match talk {
        Err(error) => (messages, error),
        Ok(never) => match never {},
    }
}
