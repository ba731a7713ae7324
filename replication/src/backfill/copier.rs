//! Copies the tables that are outstanding, one after the other.

use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{Catalog, LoadedTable, Replica};
use tokio::sync::{Mutex, Notify};
use tokio_postgres::{Client, Transaction};

use super::outstanding::{Backfills, Run};
use crate::discovery::{Discovery, ORIGINS, READINGS, ROW_FILTERS, amend_detail, discover};
use crate::prepare::{blocking, import};
use crate::quote::qualified;
use crate::shift::Shift;
use crate::stream::{KnownTables, Surveyor, known};
use crate::wire::ReplicationConnection;
use crate::{Address, Error, Options, Result, advice, sql, upstream};

/// Application name of the connections.
const APPLICATION: &str = "kelvin-backfill";
/// Longest wait for a change of the table's schema that is under way.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '30s'";
/// Time between two attempts to let the stream come to a place behind the copy.
const NUDGE_INTERVAL: Duration = Duration::from_secs(2);

/// Longest wait for the replica to say that a table stands still, which it does long before the
/// table is copied.
const MARK_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two looks at it.
const MARK_POLL: Duration = Duration::from_millis(10);

/// Copies tables beside the stream.
pub(crate) struct Copier {
    pub(crate) backfills: Backfills,
    pub(crate) options: Options,
    pub(crate) address: Address,
    pub(crate) publications: Vec<String>,
    /// The slot of the stream; those for snapshots are named after it.
    pub(crate) slot: String,
    pub(crate) shift: Shift,
    pub(crate) replica: Replica,
    pub(crate) surveyor: Arc<Mutex<Surveyor>>,
    /// Set off when the schema is to be looked at.
    pub(crate) described: Arc<Notify>,
}

impl Copier {
    /// Copies whatever is outstanding. A copy that fails is tried again in growing pauses; the
    /// stream goes on without the table.
    pub(crate) async fn run(self) -> std::convert::Infallible {
        loop {
            let run = self.backfills.next().await;
            let table = &run.known.name;
            tracing::info!(
                table,
                reason = run.known.why,
                "copying a table beside the stream"
            );
            let copied = tokio::select! {
                biased;
                () = run.token.cancelled() => {
                    tracing::info!(table, "gave up copying a table beside the stream");
                    continue;
                }
                copied = self.copy(&run) => copied,
            };
            match copied {
                Ok(()) => self.settle(&run).await,
                Err(error) => {
                    tracing::warn!(table, %error, "a table cannot be copied beside the stream now");
                    self.backfills.failed(&run, &error);
                    // So that the catalog says so.
                    self.described.notify_one();
                }
            }
        }
    }

    async fn copy(&self, run: &Run) -> Result<()> {
        let name = format!("{}_backfill_{}", self.slot, run.oid);
        // PostgreSQL waits for transactions to end on behalf of an attempt that was given up, too,
        // and does not notice meanwhile that nobody is connected any more.
        let client = sql::connect(&self.address, APPLICATION).await?;
        upstream::drop_slot(&client, &name).await?;
        drop(client);
        let limit = self.options.max_message_bytes;
        let mut connection = ReplicationConnection::open(&self.address, APPLICATION, limit).await?;
        // INVARIANT: what commits is kept from here on, which is before the snapshot is taken.
        self.backfills.begin(run);
        let created =
            upstream::create_temporary(&mut connection, &name, self.options.slot_timeout).await?;
        let from = self.shift.version(created.consistent_point);
        self.backfills.snapshot(run, from);
        // Whatever was running when the slot was asked for has ended, for PostgreSQL waits for it.
        if self.backfills.awaited().is_some() {
            self.described.notify_one();
        }
        let mut client = sql::connect(&self.address, APPLICATION).await?;
        sql::set_session(&client).await?;
        let transaction = import(&mut client, &created.snapshot).await?;
        let discovery = self.discover(&transaction, run).await?;
        let loaded = self.load(run, discovery, created.snapshot, from).await?;
        // The snapshot and the lock on the table lived as long as these.
        transaction.commit().await?;
        connection.close().await;
        let (table, rows) = (&run.known.name, loaded.rows());
        tracing::info!(table, rows, "copied a table beside the stream");
        self.backfills.copied(run, from, loaded);
        Ok(())
    }

    /// The table as of the snapshot, and nothing else.
    async fn discover(&self, transaction: &Transaction<'_>, run: &Run) -> Result<Discovery> {
        // INVARIANT: what such a publication leaves out would be missing once it publishes all.
        let partial = "SELECT pubname::text FROM pg_publication WHERE pubname = ANY ($1) AND NOT
                       (pubinsert AND pubupdate AND pubdelete AND pubtruncate)";
        let partial = transaction.query(partial, &[&self.publications]).await?;
        if let Some(row) = partial.first() {
            // No error of the kind that gives the table up: the publication may be as before soon.
            let advice = advice::publication_leaves_out(row.try_get(0)?);
            return Err(Error::Timeout(advice.to_string()));
        }
        let mut discovery = discover(transaction, &self.publications).await?;
        if let Some(left_out) = discovery.left_out.iter().find(|it| it.oid == run.oid) {
            return Err(Error::Config(left_out.why.to_string()));
        }
        let mut tables = discovery.catalog.tables().iter().zip(&discovery.sources);
        let Some((table, source)) = tables.find(|(table, _)| table.oid == run.oid) else {
            return Err(Error::Timeout("it is not published any more".into()));
        };
        let (table, source) = (table.clone(), source.clone());
        // So that a table which a migration holds for hours does not keep others from being copied.
        let name = qualified(&table.schema, &table.upstream_name);
        transaction.batch_execute(LOCK_TIMEOUT).await?;
        let lock = format!("LOCK TABLE {name} IN ACCESS SHARE MODE");
        transaction.batch_execute(&lock).await?;
        discovery.catalog = Catalog::new(vec![(*table).clone()], Vec::new());
        discovery.sources = vec![source];
        discovery.heaps.retain(|oid, _| *oid == run.oid);
        discovery.measure(transaction).await?;
        Ok(discovery)
    }

    /// Copies and sorts the rows.
    async fn load(
        &self,
        run: &Run,
        mut discovery: Discovery,
        snapshot: String,
        from: u64,
    ) -> Result<LoadedTable> {
        let learned = known(&discovery);
        let tables = discovery.catalog.tables().iter();
        let mut tables = tables.map(|table| (**table).clone());
        let table = tables
            .next()
            .ok_or_else(|| Error::Protocol("no table to copy".into()))?;
        let replica = self.replica.clone();
        // The rows are as of the last commit before the snapshot, whichever that was.
        let version = from.saturating_sub(1);
        let load = blocking(move || Ok(replica.load_table(table, version)?)).await?;
        discovery.catalog = Catalog::new(vec![(**load.table()).clone()], Vec::new());
        let progress = self.backfills.progress(run.oid);
        let (options, address) = (&self.options, &self.address);
        let load =
            crate::copy::copy(options, address, snapshot, &discovery, load, &progress).await?;
        let loaded = blocking(move || Ok(load.finish()?)).await?;
        self.remember(run, &discovery, learned).await?;
        Ok(loaded)
    }

    /// Writes down under which conditions, and through what, the table's rows are held from now on.
    ///
    /// INVARIANT: the replica says by then that the table stands still, so that a crash before the
    /// rows are there makes it be copied once more.
    async fn remember(&self, run: &Run, discovery: &Discovery, learned: KnownTables) -> Result<()> {
        let deadline = tokio::time::Instant::now() + MARK_TIMEOUT;
        let stands_still = || {
            let catalog = self.replica.catalog();
            let mut unsynced = catalog.unsynced().iter();
            unsynced.any(|table| table.name == run.known.name)
        };
        while !stands_still() {
            if tokio::time::Instant::now() >= deadline {
                let message = "the replica does not come to where it stands still";
                return Err(Error::Timeout(message.into()));
            }
            tokio::time::sleep(MARK_POLL).await;
        }
        // Held to the end, for the schema watch writes the identity too.
        let mut surveyor = self.surveyor.lock().await;
        surveyor.teach(learned);
        let tables = discovery.catalog.tables().iter();
        let names: Vec<_> = tables.map(|table| table.name.clone()).collect();
        let details = [
            (ROW_FILTERS, discovery.row_filters()),
            (ORIGINS, discovery.origins()),
            (READINGS, discovery.readings()),
        ];
        let replica = self.replica.clone();
        let copied_at = replica.identity().replica_version;
        let written = blocking(move || {
            Ok(replica.update_identity(|identity| {
                // INVARIANT: what was found out by looking at one upstream is not said of another.
                if identity.replica_version != copied_at {
                    return;
                }
                for (name, now) in details {
                    if let Some(detail) = identity.details.get_mut(name) {
                        for table in &names {
                            *detail = amend_detail(detail, table, &now);
                        }
                    }
                }
            })?)
        })
        .await;
        drop(surveyor);
        written
    }

    /// Waits until the table is on its way to the replica, and sees to it that the stream comes to
    /// a place where it can be.
    async fn settle(&self, run: &Run) {
        loop {
            if let Err(error) = self.nudge().await {
                tracing::debug!(%error, "cannot put a message into the stream");
            }
            let settling = self.backfills.settling(run);
            if tokio::time::timeout(NUDGE_INTERVAL, settling).await.is_ok() {
                return;
            }
            // Another table may have its name.
            self.described.notify_one();
        }
    }

    /// Makes a transaction that changes nothing.
    async fn nudge(&self) -> Result<()> {
        let client: Client = sql::connect(&self.address, APPLICATION).await?;
        let prefix = format!("kelvin/{}/backfill", self.options.shard().schema());
        let message = "SELECT pg_logical_emit_message(true, $1, '')";
        client.execute(message, &[&prefix]).await?;
        Ok(())
    }
}
