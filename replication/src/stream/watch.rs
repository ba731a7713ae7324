//! Notices changes of the upstream's schema that bring no change of a row.

use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{IndexBuilder, Replica};
use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

use super::evolution::same_unsynced;
use super::survey::Surveyor;
use crate::discovery::{ROW_FILTERS, SchemaDifference, difference};
use crate::{Error, Result};

/// Time for several descriptions to come together.
const SETTLE: Duration = Duration::from_millis(100);

/// Compares the upstream's schema with the replica's, every so often and when a table is described.
pub(crate) struct SchemaWatch {
    /// Time between two looks.
    pub(crate) interval: Duration,
    pub(crate) surveyor: Arc<Mutex<Surveyor>>,
    pub(crate) replica: Replica,
    pub(crate) indexes: IndexBuilder,
    /// Set off when a table is described.
    pub(crate) described: Arc<Notify>,
}

impl SchemaWatch {
    /// Watches until the schema differs in a way that needs a new copy, as far as it can tell; the
    /// stream tells the rest. A look that fails is tried again at the next occasion; the stream tells
    /// the operator about a server that is away.
    pub(crate) async fn run(self) -> Error {
        loop {
            let _ = timeout(self.interval, self.described.notified()).await;
            sleep(SETTLE).await;
            match self.look().await {
                Ok(None) => {}
                Ok(Some(reason)) => return Error::Resync(reason),
                Err(error) => tracing::debug!(%error, "cannot look at the schema"),
            }
        }
    }

    /// One look: why a new copy is needed, if it is.
    async fn look(&self) -> Result<Option<String>> {
        let mut surveyor = self.surveyor.lock().await;
        let survey = surveyor.survey().await?;
        let now = &survey.discovery;
        // No message of the stream tells of these.
        if self.replica.identity().details.get(ROW_FILTERS) != Some(&now.row_filters()) {
            return Ok(Some("the row filters of the publications changed".into()));
        }
        let found = difference(&self.replica, now);
        if matches!(found, Some(SchemaDifference::Structure(_)))
            || !same_unsynced(&self.replica.catalog(), &now.catalog)
        {
            // The stream may still be on its way to the change. It decides.
            surveyor.announce(survey).await?;
            return Ok(None);
        }
        surveyor.learn(&survey);
        drop(surveyor);
        if let Some(SchemaDifference::Indexes(missing)) = found {
            for index in missing {
                // One that finds no room is asked for again at the next look.
                if self.indexes.request(index.table, &index.columns) {
                    tracing::debug!(index = index.name, "an index is new in PostgreSQL");
                }
            }
        }
        Ok(None)
    }
}
