//! A thread that copies chunk after chunk over its own connection.
//!
//! Decoding and sorting are work for a processor, so they do not run on the shared runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::chunk::Chunk;
use super::rows::Rows;
use super::{Copy, Load, Part};
use crate::progress::CopyCounters;
use crate::quote::{literal, qualified};
use crate::sql::SESSION_SETTINGS;
use crate::wire::{Purpose, ReplicationConnection};
use crate::{Error, Result};

/// Application name of the connections that copy.
const APPLICATION: &str = "kelvin-initial-copy";
/// Bytes between two updates of the counters that all workers share.
const TALLY_BYTES: u64 = 64 * 1024;

/// Starts a worker. It sends its one result when it has dropped its handle on `copy`.
pub(super) fn spawn<L: Load>(
    number: usize,
    copy: Arc<Copy<L>>,
    done: mpsc::Sender<Result<()>>,
) -> Result<()> {
    std::thread::Builder::new()
        .name(format!("copy-{number}"))
        .spawn(move || {
            let result = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Into::into)
                .and_then(|runtime| runtime.block_on(work(&copy)));
            drop(copy);
            // The receiver is gone only if the whole copy was given up.
            let _ = done.blocking_send(result);
        })?;
    Ok(())
}

/// What a worker has copied of a chunk.
#[derive(Default)]
struct Tally {
    /// Rows and bytes that are not told yet.
    new: (u64, u64),
    /// Those that are.
    told: (u64, u64),
}

impl Tally {
    fn tell(&mut self, counters: &CopyCounters) {
        let (rows, bytes) = std::mem::take(&mut self.new);
        counters.rows.fetch_add(rows, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.told.0 += rows;
        self.told.1 += bytes;
    }

    fn take_back(&self, counters: &CopyCounters) {
        counters.rows.fetch_sub(self.told.0, Ordering::Relaxed);
        counters.bytes.fetch_sub(self.told.1, Ordering::Relaxed);
    }
}

async fn work<L: Load>(copy: &Copy<L>) -> Result<()> {
    let mut connection = None;
    while let Some(chunk) = copy.next() {
        // Another worker may have found that the table is to be left out.
        while !copy.is_left_out(&chunk.table) {
            let error = match attempt(copy, &mut connection, &chunk).await {
                Ok(()) => {
                    if chunk.done() {
                        copy.counters.tables_done.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(table = chunk.table.name, "copied a table");
                    }
                    break;
                }
                Err(error) => error,
            };
            // Its transaction, if it has one, is of no more use.
            connection = None;
            let lost = is_lost(&error);
            match error {
                Failure::Changed(why) if copy.leave_out(&chunk.table, &why) => {}
                Failure::Changed(why) => return Err(Error::Timeout(why)),
                Failure::Other(error) if lost => copy.reconnects(error).await?,
                Failure::Other(error) => return Err(error),
            }
        }
    }
    if let Some(mut connection) = connection {
        connection.query("COMMIT").await?;
        connection.close().await;
    }
    Ok(())
}

/// Why a chunk could not be copied.
enum Failure {
    /// The table is not any more what the snapshot has. The next snapshot shows it as it is now.
    Changed(String),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Whether the connection broke, and not the copy. As long as the one that exported the snapshot
/// lives, another one can go on with it; else that says so.
fn is_lost(failure: &Failure) -> bool {
    let Failure::Other(error) = failure else {
        return false;
    };
    match (error, error.sqlstate()) {
        (Error::Io(_), None) => true,
        // An operator or a server that stops has ended it, or it did not come to be.
        (_, Some(code)) => code.starts_with("57P") || code.starts_with("08"),
        _ => false,
    }
}

/// Copies a chunk, over a new connection if there is none.
async fn attempt<L: Load>(
    copy: &Copy<L>,
    connection: &mut Option<ReplicationConnection>,
    chunk: &Chunk,
) -> Result<(), Failure> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(copy).await?),
    };
    let mut part = copy.loader.part(chunk.table.id)?;
    let mut tally = Tally::default();
    let copied = copy_chunk(copy, connection, chunk, &mut part, &mut tally).await;
    if let Err(failure) = copied {
        tally.take_back(&copy.counters);
        part.abandon()?;
        return Err(failure);
    }
    Ok(part.finish().await?)
}

/// A connection that sees the snapshot.
async fn connect<L>(copy: &Copy<L>) -> Result<ReplicationConnection> {
    let (address, limit) = (&copy.address, copy.max_message);
    let opened = ReplicationConnection::log_in(address, APPLICATION, limit, Purpose::Sql);
    let (mut connection, _) = opened.await?;
    connection.query(&SESSION_SETTINGS.join(";")).await?;
    // Rows come in the order they lie in, which mostly is that of their keys.
    let begin = format!(
        "SET synchronize_seqscans = off; SET standard_conforming_strings = on; \
         BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        literal(&copy.snapshot)
    );
    connection.query(&begin).await?;
    Ok(connection)
}

async fn copy_chunk<L: Load>(
    copy: &Copy<L>,
    connection: &mut ReplicationConnection,
    chunk: &Chunk,
    part: &mut L::Part,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut rows = Rows::new(&chunk.table, chunk.format);
    let gone = |error| is_gone(error, chunk);
    let mut stream = connection.copy_out(&chunk.statement).await?;
    while let Some(pieces) = stream.next().await.map_err(gone)? {
        if copy.given_up() {
            return Err(Error::Timeout("the copy was given up".into()).into());
        }
        let (new_rows, new_bytes) = (&mut tally.new.0, &mut tally.new.1);
        let pieces = pieces.inspect(|piece| *new_bytes += piece.len() as u64);
        *new_rows += rows.read(pieces, |row| part.row(row))?;
        part.hand_on().await?;
        if tally.new.1 >= TALLY_BYTES {
            tally.tell(&copy.counters);
        }
    }
    tally.tell(&copy.counters);
    rows.finish()?;
    is_as_discovered(connection, chunk).await
}

/// What a failure of COPY means: it finds a table and its columns by the names they have now.
fn is_gone(error: Error, chunk: &Chunk) -> Failure {
    match error.sqlstate() {
        // Undefined table, column, schema.
        Some("42P01" | "42703" | "3F000") => Failure::Changed(changed(chunk)),
        _ => error.into(),
    }
}

fn changed(chunk: &Chunk) -> String {
    let table = &chunk.table.name;
    format!("table {table:?} was renamed, rewritten or dropped while it was copied")
}

/// Makes sure that what was copied is what the snapshot has.
///
/// INVARIANT: COPY finds a table by the name it has now, and a rewrite hides rows from snapshots
/// that are older. Neither can happen between COPY and this, for COPY holds its lock on the table
/// until the transaction ends.
async fn is_as_discovered(
    connection: &mut ReplicationConnection,
    chunk: &Chunk,
) -> Result<(), Failure> {
    let table = &chunk.table;
    let name = literal(&qualified(&table.schema, &table.upstream_name));
    let (oid, filenode) = (table.oid, chunk.filenode);
    let same = format!(
        "SELECT coalesce(to_regclass({name})::oid = {oid}::oid, false)
                AND coalesce(pg_relation_filenode({oid}::oid::regclass), 0) = {filenode}::oid"
    );
    let rows = connection.query(&same).await?;
    let same = rows.first().and_then(|row| row.first()?.as_deref());
    if same == Some("t") {
        return Ok(());
    }
    Err(Failure::Changed(changed(chunk)))
}
