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
    if !exists(transaction, &metadata).await? {
        create_metadata(transaction, &shard).await?;
    }
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

async fn create_metadata(transaction: &Transaction<'_>, shard: &Shard) -> Result<()> {
    let schema = shard.schema();
    let create = format!(
        "CREATE PUBLICATION {} FOR TABLE {}, {}, {}",
        identifier(&shard.metadata_publication()),
        qualified(&shard.app, "permissions"),
        qualified(&schema, "clients"),
        qualified(&schema, "mutations"),
    );
    Ok(transaction.batch_execute(&create).await?)
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
