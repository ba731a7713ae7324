//! The `kelvinReplicas` table: which replica follows which slot. A slot without a row there is
//! dropped by whoever starts next.

use std::time::{SystemTime, UNIX_EPOCH};

use kelvin_protocol::{Version, to_lexi};
use tokio_postgres::{Client, GenericClient};

use crate::Result;
use crate::options::Shard;

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredReplica {
    pub(crate) id: String,
    pub(crate) slot: String,
}

/// Claims a slot. Until [`finish`] the replica counts as unusable.
pub(crate) async fn register(
    client: &impl GenericClient,
    shard: &Shard,
    slot: &str,
    version: Version,
) -> Result<RegisteredReplica> {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let replica = RegisteredReplica {
        id: since_epoch.as_millis().to_string(),
        slot: slot.to_owned(),
    };
    let table = shard.replicas_table();
    let insert = format!("INSERT INTO {table} (id, slot, version) VALUES ($1, $2, $3)");
    client
        .execute(&insert, &[&replica.id, &slot, &to_lexi(version)])
        .await?;
    Ok(replica)
}

/// Marks the replica as usable.
pub(crate) async fn finish(
    client: &Client,
    shard: &Shard,
    replica: &RegisteredReplica,
    task_id: &str,
) -> Result<()> {
    let update = format!(
        r#"UPDATE {} SET "copied" = true, "taskID" = $2 WHERE "id" = $1"#,
        shard.replicas_table()
    );
    client.execute(&update, &[&replica.id, &task_id]).await?;
    Ok(())
}

/// Gives up the claim on a slot.
pub(crate) async fn forget(client: &Client, shard: &Shard, slot: &str) -> Result<()> {
    let delete = format!("DELETE FROM {} WHERE slot = $1", shard.replicas_table());
    client.execute(&delete, &[&slot]).await?;
    Ok(())
}

/// Drops slots of replicas registered before ours that nobody streams from, so that they do not
/// hold back WAL for ever.
pub(crate) async fn retire_older(
    client: &Client,
    shard: &Shard,
    replica: &RegisteredReplica,
) -> Result<()> {
    let table = shard.replicas_table();
    let older = format!(
        "SELECT r.slot FROM {table} r LEFT JOIN pg_replication_slots s ON s.slot_name = r.slot
         WHERE NOT coalesce(s.active, false) AND r.slot <> $2
           AND r.rank < (SELECT rank FROM {table} WHERE id = $1)"
    );
    for row in client.query(&older, &[&replica.id, &replica.slot]).await? {
        let slot: String = row.try_get(0)?;
        tracing::info!(
            slot,
            "dropping the slot of an older replica that is not running"
        );
        forget(client, shard, &slot).await?;
        super::drop_slot(client, &slot).await?;
    }
    Ok(())
}
