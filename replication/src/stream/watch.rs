//! Notices changes of the upstream's schema that bring no change of a row.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{IndexBuilder, Replica};
use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

use super::survey::Surveyor;
use crate::Result;
use crate::backfill::Backfills;
use crate::discovery::{ORIGINS, READINGS, ROW_FILTERS, SchemaDifference, difference};
use crate::prepare::blocking;

/// Time for several descriptions to come together.
const SETTLE: Duration = Duration::from_millis(100);

/// Compares the upstream's schema with the replica's, every so often and when a table is described.
pub(crate) struct SchemaWatch {
    /// Time between two looks.
    pub(crate) interval: Duration,
    pub(crate) surveyor: Arc<Mutex<Surveyor>>,
    pub(crate) replica: Replica,
    pub(crate) indexes: Arc<IndexBuilder>,
    /// Set off when a table is described.
    pub(crate) described: Arc<Notify>,
    pub(crate) backfills: Backfills,
}

impl SchemaWatch {
    /// Watches. A look that fails is tried again at the next occasion; the stream tells the
    /// operator about a server that is away.
    pub(crate) async fn run(self) -> Infallible {
        loop {
            let _ = timeout(self.interval, self.described.notified()).await;
            sleep(SETTLE).await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "cannot look at the schema");
            }
        }
    }

    /// One look.
    async fn look(&self) -> Result<()> {
        let mut surveyor = self.surveyor.lock().await;
        let survey = surveyor.survey().await?;
        let now = &survey.discovery;
        // What is outstanding differs until it is copied.
        let outstanding = self.backfills.oids();
        let found = difference(&self.replica.catalog(), now, &outstanding);
        let mut known = now.heaps.keys().filter(|oid| !outstanding.contains(oid));
        let rows = known.any(|oid| survey.rows_differ(*oid).is_some());
        let unsynced = self.backfills.unsynced(now.catalog.unsynced());
        let held = self.replica.catalog();
        let gone = outstanding.iter().any(|oid| !now.heaps.contains_key(oid));
        let awaited = self.backfills.awaited();
        let ended = awaited.is_some_and(|xid| survey.running.oldest >= xid);
        if matches!(found, Some(SchemaDifference::Structure(_)))
            || rows
            || gone
            || ended
            || !self.backfills.same_unsynced(held.unsynced(), &unsynced)
        {
            // The stream may still be on its way to the change. It decides.
            return surveyor.announce(survey).await;
        }
        surveyor.learn(&survey, &outstanding);
        let details = [
            (ROW_FILTERS, now.row_filters()),
            (ORIGINS, now.origins()),
            (READINGS, now.readings()),
        ];
        // What is outstanding is not held as it is there.
        if outstanding.is_empty() {
            self.note(details).await?;
        }
        drop(surveyor);
        if let Some(SchemaDifference::Indexes(missing)) = found {
            for index in missing {
                // One that finds no room is asked for again at the next look.
                if self.indexes.request(index.table, &index.columns) {
                    tracing::debug!(index = index.name, "an index is new in PostgreSQL");
                }
            }
        }
        Ok(())
    }

    /// Writes down which rows are published and how they read, if that is not known yet.
    ///
    /// What a copy beside the stream changed is written down with it; this is for tables that were
    /// renamed.
    async fn note(&self, details: [(&str, String); 3]) -> Result<()> {
        let identity = self.replica.identity();
        let known = |(name, text): &(&str, String)| identity.details.get(*name) == Some(text);
        if details.iter().all(known) {
            return Ok(());
        }
        let details = details.map(|(name, text)| (name.to_owned(), text));
        let replica = self.replica.clone();
        blocking(move || {
            Ok(replica.update_identity(|now| {
                // INVARIANT: what was found out by looking at one upstream is not said of another.
                // This may come late, when nobody looks any more.
                if now.replica_version == identity.replica_version {
                    now.details.extend(details);
                }
            })?)
        })
        .await
    }
}
