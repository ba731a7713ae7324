//! A thread that copies chunk after chunk over its own connection.
//!
//! Decoding and sorting are work for a processor, so they do not run on the shared runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::chunk::Chunk;
use super::rows::Rows;
use super::{Copy, Load, Part};
use crate::progress::CopyCounters;
use crate::quote::{literal, qualified};
use crate::{Error, Result, sql};

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

/// What a worker has copied since it last told.
#[derive(Default)]
struct Tally {
    rows: u64,
    bytes: u64,
}

impl Tally {
    fn tell(&mut self, counters: &CopyCounters) {
        let Self { rows, bytes } = std::mem::take(self);
        counters.rows.fetch_add(rows, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

async fn work<L: Load>(copy: &Copy<L>) -> Result<()> {
    let client = sql::connect(&copy.address, APPLICATION).await?;
    sql::set_session(&client).await?;
    client
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            literal(&copy.snapshot)
        ))
        .await?;
    while let Some(chunk) = copy.next() {
        copy_chunk(copy, &client, &chunk).await?;
        if chunk.done() {
            copy.counters.tables_done.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(table = chunk.table.name, "copied a table");
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

async fn copy_chunk<L: Load>(copy: &Copy<L>, client: &Client, chunk: &Chunk) -> Result<()> {
    let mut part = copy.loader.part(chunk.table.id)?;
    let mut rows = Rows::new(&chunk.table, chunk.format);
    let mut tally = Tally::default();
    let stream = client.copy_out(&chunk.statement).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(bytes) = stream.try_next().await? {
        if copy.given_up() {
            return Err(Error::Timeout("the copy was given up".into()));
        }
        tally.rows += rows.read(&bytes, |row| part.row(row))?;
        tally.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        part.hand_on().await?;
        if tally.bytes >= TALLY_BYTES {
            tally.tell(&copy.counters);
        }
    }
    tally.tell(&copy.counters);
    rows.finish()?;
    is_as_discovered(client, chunk).await?;
    part.finish().await
}

/// Makes sure that what was copied is what the snapshot has.
///
/// INVARIANT: COPY finds a table by the name it has now, and a rewrite hides rows from snapshots
/// that are older. Neither can happen between COPY and this, for COPY holds its lock on the table
/// until the transaction ends.
///
/// # Errors
/// [`Error::Timeout`] where it is not: the next snapshot shows the table as it is now.
async fn is_as_discovered(client: &Client, chunk: &Chunk) -> Result<()> {
    let table = &chunk.table;
    let same = "SELECT coalesce(to_regclass($1)::oid = $2, false)
                       AND coalesce(pg_relation_filenode($2), 0) = $3";
    let name = qualified(&table.schema, &table.upstream_name);
    let about: [&(dyn ToSql + Sync); 3] = [&name, &table.oid, &chunk.filenode];
    if client.query_one(same, &about).await?.try_get(0)? {
        return Ok(());
    }
    Err(Error::Timeout(format!(
        "table {:?} was renamed or rewritten while it was copied",
        table.name
    )))
}
