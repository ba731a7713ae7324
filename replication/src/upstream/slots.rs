//! Replication slots of the shard: `kelvin_{app}_{n}_a`, `kelvin_{app}_{n}_b` and so on. Those of
//! a zero-cache for the same shard, `{app}_{n}_a` and so on, are left alone.

use std::time::Duration;

use kelvin_protocol::Version;
use tokio_postgres::{Client, Transaction};

use crate::options::{Options, Shard};
use crate::wire::{CreatedSlot, ReplicationConnection, SlotKind};
use crate::{Error, Lsn, Result, advice};

/// Letters a slot's suffix is made of.
const LETTERS: u32 = 26;
/// Attempts to end another process's hold on a slot before it is dropped.
const DROP_ATTEMPTS: u32 = 20;
const DROP_PAUSE: Duration = Duration::from_millis(100);

/// What the server says about a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    /// The process that streams from it.
    pub(crate) active_pid: Option<i32>,
    /// What the server believes to be durable here.
    pub(crate) confirmed: Version,
    /// Whether WAL it needs is gone.
    pub(crate) lost: bool,
}

/// Looks a slot up.
pub(crate) async fn slot_state(client: &Client, name: &str) -> Result<Option<SlotState>> {
    let row = client
        .query_opt(
            "SELECT active_pid, confirmed_flush_lsn::text,
                    restart_lsn IS NULL OR wal_status = 'lost'
             FROM pg_replication_slots
             WHERE slot_name = $1 AND database = current_database() AND plugin = 'pgoutput'",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let confirmed: Option<String> = row.try_get(1)?;
    Ok(Some(SlotState {
        active_pid: row.try_get(0)?,
        confirmed: confirmed
            .and_then(|lsn| lsn.parse::<Lsn>().ok())
            .map_or(0, |lsn| lsn.0),
        lost: row.try_get(2)?,
    }))
}

/// Ends the process that streams from the slot, if there is one.
pub(crate) async fn terminate_user(client: &Client, name: &str) -> Result<()> {
    client
        .execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
             WHERE slot_name = $1 AND active_pid IS NOT NULL",
            &[&name],
        )
        .await?;
    Ok(())
}

/// Drops a slot, if it is there, whoever streams from it.
pub(crate) async fn drop_slot(client: &Client, name: &str) -> Result<()> {
    for attempt in 1.. {
        terminate_user(client, name).await?;
        let dropped = client
            .execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE slot_name = $1",
                &[&name],
            )
            .await
            .map_err(Error::from);
        match dropped {
            Err(error) if in_use(&error) && attempt < DROP_ATTEMPTS => {
                tokio::time::sleep(DROP_PAUSE).await;
            }
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    Ok(())
}

fn in_use(error: &Error) -> bool {
    error.sqlstate() == Some("55006")
}

/// Creates a slot under a free name, and drops slots of the shard that nobody claims.
///
/// The lock is the one zero-cache takes, so that its clean-up and ours do not meet. The caller
/// registers the slot before it commits `transaction`.
pub(crate) async fn create(
    transaction: &Transaction<'_>,
    connection: &mut ReplicationConnection,
    options: &Options,
    failover: bool,
) -> Result<(String, CreatedSlot)> {
    let shard = options.shard();
    let lock = format!("replication-slot-management:{}", shard.schema());
    transaction
        .execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&lock])
        .await?;
    drop_unclaimed(transaction, &shard).await?;
    let name = free_name(transaction, &shard).await?;
    let kind = if failover {
        SlotKind::Failover
    } else {
        SlotKind::Lasting
    };
    let slot = create_within(connection, &name, kind, options.slot_timeout).await?;
    Ok((name, slot))
}

/// Creates a slot that goes with the connection, for the sake of its snapshot.
pub(crate) async fn create_temporary(
    connection: &mut ReplicationConnection,
    name: &str,
    limit: Duration,
) -> Result<CreatedSlot> {
    create_within(connection, name, SlotKind::Temporary, limit).await
}

async fn create_within(
    connection: &mut ReplicationConnection,
    name: &str,
    kind: SlotKind,
    limit: Duration,
) -> Result<CreatedSlot> {
    // The server's own limit comes first, so that it gives up the slot too.
    let lock_timeout = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) / 30 * 29;
    let creation = connection.create_slot(name, kind, lock_timeout);
    tokio::time::timeout(limit, creation)
        .await
        .unwrap_or_else(|_| Err(busy(limit)))
        .map_err(|error| explain(error, limit))
}

fn busy(limit: Duration) -> Error {
    Error::Timeout(format!(
        "a replication slot could not be created within {limit:?}, for it has to wait for all \
         running transactions: end the long ones (see pg_stat_activity)"
    ))
}

fn explain(error: Error, limit: Duration) -> Error {
    match error.sqlstate() {
        Some("53400") => advice::no_free_slot(&error.to_string()).into(),
        Some("55P03") => busy(limit),
        _ => error,
    }
}

/// Says which slots of a zero-cache for the same shard nobody streams from: they are not ours to
/// drop, and hold back WAL until somebody does.
pub(crate) async fn tell_of_idle_peers(client: &Client, shard: &Shard) -> Result<()> {
    let idle = "
        SELECT slot_name::text,
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
        FROM pg_replication_slots
        WHERE slot_name ~ $1 AND NOT active AND NOT temporary AND database = current_database()";
    for row in client.query(idle, &[&shard.peer_slot_names()]).await? {
        let (slot, held_bytes): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        tracing::warn!(
            slot,
            held_bytes,
            "a replication slot of zero-cache is not in use and holds back WAL: unless zero-cache \
             is to come back, drop it with pg_drop_replication_slot"
        );
    }
    Ok(())
}

async fn drop_unclaimed(transaction: &Transaction<'_>, shard: &Shard) -> Result<()> {
    let pattern = shard.own_slot_names();
    let unclaimed = format!(
        "SELECT slot_name::text FROM pg_replication_slots
         WHERE slot_name ~ $1 AND NOT active AND NOT temporary
           AND database = current_database()
           AND slot_name NOT IN (SELECT slot FROM {})",
        shard.replicas_table()
    );
    for row in transaction.query(&unclaimed, &[&pattern]).await? {
        let name: String = row.try_get(0)?;
        tracing::info!(
            slot = name,
            "dropping a replication slot that nobody claims"
        );
        transaction
            .execute("SELECT pg_drop_replication_slot($1)", &[&name])
            .await?;
    }
    Ok(())
}

async fn free_name(transaction: &Transaction<'_>, shard: &Shard) -> Result<String> {
    let rows = transaction
        .query("SELECT slot_name::text FROM pg_replication_slots", &[])
        .await?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        taken.push(row.try_get::<_, String>(0)?);
    }
    (1..)
        .map(|number| shard.slot_prefix() + &suffix(number))
        .find(|name| !taken.contains(name))
        .ok_or_else(|| Error::Protocol("there are endless replication slots".into()))
}

/// `a` to `z`, `aa`, `ab`: bijective base 26 of a number from 1.
fn suffix(mut number: u32) -> String {
    let mut letters = Vec::new();
    while number > 0 {
        number -= 1;
        letters.push(char::from_u32(u32::from('a') + number % LETTERS).unwrap_or('a'));
        number /= LETTERS;
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_count_on_in_letters() {
        let shown: Vec<_> = [1, 26, 27, 52, 53, 702, 703].map(suffix).into();
        assert_eq!(shown, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
