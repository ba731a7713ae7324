//! REPLICA IDENTITY of tables without a primary key.

use tokio_postgres::{Client, GenericClient};

use crate::Result;
use crate::discovery::Selection;
use crate::quote::{identifier, qualified};

/// Longest wait for a lock on the user's table.
const LOCK_TIMEOUT: &str = "3s";

/// Columns and conditions of the query on candidates; the relation comes in between.
const CANDIDATES: [&str; 2] = [
    "
    SELECT DISTINCT ON (c.oid) n.nspname, c.relname, i.relname, c.oid
    FROM ",
    " p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    JOIN pg_index x ON x.indrelid = c.oid
    JOIN pg_class i ON i.oid = x.indexrelid
    WHERE p.pubname = ANY ($1) AND c.relreplident = 'd'
      AND NOT EXISTS (
        SELECT 1 FROM pg_index k
        WHERE k.indrelid = c.oid AND k.indisprimary AND k.indimmediate)
      AND x.indisunique AND x.indimmediate AND x.indisvalid
      AND x.indpred IS NULL AND x.indexprs IS NULL
      AND NOT EXISTS (
        SELECT 1 FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, at)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE k.at <= x.indnkeyatts AND NOT a.attnotnull)
    ORDER BY c.oid, i.relname",
];

/// A table without a primary key (a deferrable one does not count) whose identity is the default,
/// with the first unique index that can serve in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityCandidate {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) index: String,
}

impl IdentityCandidate {
    /// What makes updates and deletes of the table replicable.
    pub(crate) fn statement(&self) -> String {
        format!(
            "ALTER TABLE {} REPLICA IDENTITY USING INDEX {}",
            qualified(&self.schema, &self.table),
            identifier(&self.index)
        )
    }
}

/// Looks for tables that need an identity and can get one.
pub(crate) async fn identity_candidates(
    client: &impl GenericClient,
    selection: &Selection,
) -> Result<Vec<IdentityCandidate>> {
    let query = CANDIDATES.join(&selection.relation());
    let mut candidates = Vec::new();
    for row in client.query(&query, &[&selection.publications]).await? {
        candidates.push(IdentityCandidate {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            index: row.try_get(2)?,
            oid: row.try_get(3)?,
        });
    }
    Ok(candidates)
}

/// Makes updates and deletes of such tables replicable. A failure only warns: the table belongs to
/// somebody else, or is locked.
pub(crate) async fn ensure_replica_identities(
    client: &Client,
    publications: &[String],
) -> Result<()> {
    for candidate in identity_candidates(client, &Selection::of(publications)).await? {
        let statement = format!(
            "SET lock_timeout = '{LOCK_TIMEOUT}'; {}",
            candidate.statement()
        );
        let IdentityCandidate {
            schema,
            table,
            index,
            ..
        } = candidate;
        let outcome = client.batch_execute(&statement).await;
        client.batch_execute("RESET lock_timeout").await?;
        match outcome {
            Ok(()) => tracing::info!(
                schema,
                table,
                index,
                "set REPLICA IDENTITY, for the table has no primary key"
            ),
            Err(error) => tracing::warn!(
                schema,
                table,
                index,
                error = %crate::Error::Sql(error),
                "cannot set REPLICA IDENTITY: updates and deletes of this table fail in \
                 PostgreSQL until its owner does"
            ),
        }
    }
    Ok(())
}
