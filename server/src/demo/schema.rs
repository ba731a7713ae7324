//! The tables of the demo: made empty, then finished when they are full.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::Error;
use super::cluster::{Cluster, DATABASE};

/// The empty tables.
const TABLES: &str = include_str!("schema.sql");

/// Keys and indexes.
const FINISH: &str = include_str!("finish.sql");

/// Foreign keys and triggers.
const TRIGGERS: &str = include_str!("triggers.sql");

/// What parts the groups of [`FINISH`].
const GROUP_END: &str = "\n-----\n";

/// A connection is given this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the demo's database. The connection is closed when the client is dropped.
///
/// # Errors
/// When PostgreSQL does not let it in.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let mut config: tokio_postgres::Config = url
        .parse()
        .map_err(Error::sql("reading the address of the demo's PostgreSQL"))?;
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .application_name("kelvin demo");
    let (client, connection) = config
        .connect(NoTls)
        .await
        .map_err(Error::sql("connecting to the demo's PostgreSQL"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the database and its empty tables.
///
/// # Errors
/// When PostgreSQL refuses a statement.
pub async fn create(cluster: &Cluster) -> Result<Client, Error> {
    let server = connect(&cluster.url("postgres")).await?;
    server
        .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
        .await
        .map_err(Error::sql("making the demo's database"))?;
    let client = connect(&cluster.url(DATABASE)).await?;
    client
        .batch_execute(TABLES)
        .await
        .map_err(Error::sql("making the demo's tables"))?;
    Ok(client)
}

/// Gives the full tables their keys, indexes and triggers.
///
/// # Errors
/// When PostgreSQL refuses a statement.
pub async fn finish(cluster: &Cluster, client: &Client) -> Result<(), Error> {
    let indexing = "indexing the demo's tables";
    let mut groups = Vec::new();
    for group in FINISH.split(GROUP_END) {
        let url = cluster.url(DATABASE);
        groups.push(async move {
            let client = connect(&url).await?;
            // One statement a transaction: a lock is held no longer than the statement runs.
            for statement in group.split_inclusive(";\n") {
                client
                    .batch_execute(statement)
                    .await
                    .map_err(Error::sql(indexing))?;
            }
            Ok::<(), Error>(())
        });
    }
    futures_util::future::try_join_all(groups).await?;
    client
        .batch_execute(TRIGGERS)
        .await
        .map_err(Error::sql("finishing the demo's tables"))
}
