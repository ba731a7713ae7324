//! REPLICA IDENTITY of tables without a primary key.

use tokio_postgres::Client;

use crate::Result;
use crate::quote::{identifier, qualified};

/// Longest wait for a lock on the user's table.
const LOCK_TIMEOUT: &str = "3s";

/// Tables without a primary key (a deferrable one does not count) whose identity is the default, each with the first unique index
/// that can serve in its place.
const CANDIDATES: &str = "
    SELECT DISTINCT ON (c.oid) n.nspname, c.relname, i.relname
    FROM pg_publication_tables p
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
    ORDER BY c.oid, i.relname";

/// Makes updates and deletes of such tables replicable. A failure only warns: the table belongs to
/// somebody else, or is locked.
pub(crate) async fn ensure_replica_identities(
    client: &Client,
    publications: &[String],
) -> Result<()> {
    for row in client.query(CANDIDATES, &[&publications]).await? {
        let (schema, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let index: String = row.try_get(2)?;
        let statement = format!(
            "SET lock_timeout = '{LOCK_TIMEOUT}';
             ALTER TABLE {} REPLICA IDENTITY USING INDEX {}",
            qualified(&schema, &table),
            identifier(&index)
        );
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
