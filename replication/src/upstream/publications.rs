//! Publications: which tables are replicated.

use tokio_postgres::Transaction;

use crate::options::{Options, Shard};
use crate::quote::{identifier, qualified};
use crate::{Result, advice};

/// Creates the publications that are ours, checks the user's, and gives all names, sorted.
pub(super) async fn ensure(
    transaction: &Transaction<'_>,
    options: &Options,
) -> Result<Vec<String>> {
    let shard = options.shard();
    let metadata = shard.metadata_publication();
    ensure_metadata(transaction, &shard, &metadata).await?;
    let mut names = options.publications.clone();
    if names.is_empty() {
        let default = shard.default_publication();
        if !exists(transaction, &default).await? {
            let create = format!(
                "CREATE PUBLICATION {} FOR TABLES IN SCHEMA public
                 WITH (publish_via_partition_root = true)",
                identifier(&default)
            );
            transaction.batch_execute(&create).await?;
        }
        names.push(default);
    }
    for name in &names {
        check(transaction, name).await?;
    }
    names.push(metadata);
    names.sort();
    names.dedup();
    Ok(names)
}

async fn exists(transaction: &Transaction<'_>, name: &str) -> Result<bool> {
    let row = transaction
        .query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[&name])
        .await?;
    Ok(row.is_some())
}

/// A publication with all of our tables that the replica holds. Those that were dropped left it, and
/// are in none when they are made anew.
async fn ensure_metadata(transaction: &Transaction<'_>, shard: &Shard, name: &str) -> Result<()> {
    let schema = shard.schema();
    let mut tables = vec![
        qualified(&shard.app, "permissions"),
        qualified(&schema, "clients"),
        qualified(&schema, "mutations"),
    ];
    let change = if exists(transaction, name).await? {
        let there = transaction
            .query(
                "SELECT n.nspname::text, c.relname::text
                 FROM pg_publication p
                 JOIN pg_publication_rel r ON r.prpubid = p.oid
                 JOIN pg_class c ON c.oid = r.prrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE p.pubname = $1",
                &[&name],
            )
            .await?;
        for row in there {
            let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let there = qualified(&schema, &name);
            tables.retain(|table| *table != there);
        }
        format!("ALTER PUBLICATION {} ADD TABLE", identifier(name))
    } else {
        format!("CREATE PUBLICATION {} FOR TABLE", identifier(name))
    };
    if !tables.is_empty() {
        let change = format!("{change} {}", tables.join(", "));
        transaction.batch_execute(&change).await?;
    }
    Ok(())
}

async fn check(transaction: &Transaction<'_>, name: &str) -> Result<()> {
    let row = transaction
        .query_opt(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate
             FROM pg_publication WHERE pubname = $1",
            &[&name],
        )
        .await?;
    match row.map(|row| row.try_get::<_, bool>(0)).transpose()? {
        Some(true) => Ok(()),
        Some(false) => Err(advice::publication_leaves_out(name).into()),
        None => Err(advice::publication_missing(name).into()),
    }
}
