//! Notices changes of the upstream's schema that bring no change of a row.

use std::sync::Arc;
use std::time::Duration;

use kelvin_storage::{IndexBuilder, Replica};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, IsolationLevel};

use crate::discovery::{SchemaDifference, difference, discover};
use crate::{Address, Error, Result, sql};

/// Application name of the connection that looks.
const APPLICATION: &str = "kelvin-schema-watch";
/// Time for several descriptions to come together.
const SETTLE: Duration = Duration::from_millis(100);
/// Longest look.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '30s'";

/// Compares the upstream's schema with the replica's, every so often and when a table is described.
pub(crate) struct SchemaWatch {
    /// Time between two looks.
    pub(crate) interval: Duration,
    pub(crate) address: Address,
    pub(crate) publications: Vec<String>,
    /// `server_version_num`.
    pub(crate) version: i32,
    pub(crate) replica: Replica,
    pub(crate) indexes: IndexBuilder,
    /// Set off when a table is described.
    pub(crate) described: Arc<Notify>,
}

impl SchemaWatch {
    /// Watches until the schema differs in a way that needs a new copy. A look that fails is tried
    /// again at the next occasion; the stream tells the operator about a server that is away.
    pub(crate) async fn run(self) -> Error {
        let mut client = None;
        loop {
            let _ = timeout(self.interval, self.described.notified()).await;
            sleep(SETTLE).await;
            match self.look(&mut client).await {
                Ok(None) => {}
                Ok(Some(reason)) => return Error::Resync(reason),
                Err(error) => {
                    tracing::debug!(%error, "cannot look at the schema");
                    client = None;
                }
            }
        }
    }

    /// One look: why a new copy is needed, if it is.
    async fn look(&self, client: &mut Option<Client>) -> Result<Option<String>> {
        let client = match client {
            Some(client) if !client.is_closed() => client,
            slot => {
                let fresh = sql::connect(&self.address, APPLICATION).await?;
                sql::set_session(&fresh).await?;
                fresh.batch_execute(STATEMENT_TIMEOUT).await?;
                slot.insert(fresh)
            }
        };
        // One snapshot for all queries, so that a change is seen whole or not at all.
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let now = discover(&transaction, &self.publications, self.version).await?;
        transaction.commit().await?;
        match difference(&self.replica, &now) {
            None => Ok(None),
            Some(SchemaDifference::Structure(reason)) => Ok(Some(reason)),
            Some(SchemaDifference::Indexes(missing)) => {
                for index in missing {
                    // One that finds no room is asked for again at the next look.
                    if self.indexes.request(index.table, &index.columns) {
                        tracing::debug!(index = index.name, "an index is new in PostgreSQL");
                    }
                }
                Ok(None)
            }
        }
    }
}
