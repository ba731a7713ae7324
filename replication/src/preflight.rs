//! Whether the server can be replicated from, and if not, what to do about it.

use std::time::Duration;

use tokio_postgres::Client;

use crate::options::Options;
use crate::wire::{ReplicationConnection, SystemIdentity};
use crate::{Address, Error, Result, advice, sql};

/// Oldest `server_version_num` that is supported.
pub(crate) const OLDEST_VERSION: i32 = 150_000;
/// First version that knows failover slots.
pub(crate) const FAILOVER_VERSION: i32 = 170_000;

/// Application name of the SQL connection that sets things up.
const SETUP_NAME: &str = "kelvin-setup";
/// Application name of the replication connection.
pub(crate) const REPLICATOR_NAME: &str = "kelvin-replicator";

/// A server that passed the checks.
pub(crate) struct Upstream {
    pub(crate) address: Address,
    pub(crate) client: Client,
    pub(crate) facts: Facts,
    pub(crate) system: SystemIdentity,
}

/// What there is to know about a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// `server_version_num`.
    pub(crate) version: i32,
    /// Silence after which the server ends a stream; zero for never.
    pub(crate) wal_sender_timeout: Duration,
}

impl Facts {
    pub(crate) fn knows_failover_slots(self) -> bool {
        self.version >= FAILOVER_VERSION
    }

    /// Whether a connection that meets a transaction goes on to take for published, also behind it,
    /// what was published when the transaction first changed a table.
    pub(crate) fn lingers(self) -> bool {
        fixed_by(self.version).is_some()
    }
}

/// The version to which a server of this `server_version_num` that [lingers](Facts::lingers) has to
/// be updated (it was seen in 15.12, 16.8 and 17.4, but not in these).
pub(crate) fn fixed_by(version: i32) -> Option<&'static str> {
    let (fixed, name) = match version / 10_000 {
        15 => (150_013, "15.13"),
        16 => (160_009, "16.9"),
        17 => (170_005, "17.5"),
        _ => return None,
    };
    (version < fixed).then_some(name)
}

/// Connects both ways and checks everything replication needs.
pub(crate) async fn check(options: &Options) -> Result<Upstream> {
    options.validate()?;
    let address = Address::parse(&options.upstream)?;
    let client = sql::connect(&address, SETUP_NAME)
        .await
        .map_err(|error| explain(error, &address))?;
    // A server that is too old does not know all settings of the session.
    let facts = check_settings(&client, &address).await?;
    sql::set_session(&client).await?;
    let mut connection = open_replication(&address, &client, options).await?;
    let system = connection
        .identify()
        .await
        .map_err(|error| pooled(error, &address))?;
    connection.close().await;
    Ok(Upstream {
        address,
        client,
        facts,
        system,
    })
}

async fn check_settings(client: &Client, address: &Address) -> Result<Facts> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int,
                    current_setting('server_version'),
                    current_setting('wal_level'),
                    (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
                    pg_is_in_recovery()",
            &[],
        )
        .await?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST_VERSION {
        let version: String = row.try_get(1)?;
        return Err(advice::too_old(&address.host, &version).into());
    }
    if row.try_get(4)? {
        return Err(advice::standby(&address.host).into());
    }
    let wal_level: String = row.try_get(2)?;
    if wal_level != "logical" {
        return Err(advice::not_logical(&address.host, &wal_level).into());
    }
    let millis: i64 = row.try_get(3)?;
    Ok(Facts {
        version,
        wal_sender_timeout: Duration::from_millis(u64::try_from(millis).unwrap_or(0)),
    })
}

/// Opens a replication connection. A role that may give itself the right to replicate does so once.
pub(crate) async fn open_replication(
    address: &Address,
    client: &Client,
    options: &Options,
) -> Result<ReplicationConnection> {
    let open = || ReplicationConnection::open(address, REPLICATOR_NAME, options.max_message_bytes);
    let error = match open().await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    if error.sqlstate() == Some("42501") {
        let granted = client
            .batch_execute("ALTER ROLE CURRENT_USER REPLICATION")
            .await;
        if granted.is_ok() {
            tracing::info!(
                role = address.user,
                "gave the role the REPLICATION attribute"
            );
            return open().await.map_err(|error| explain(error, address));
        }
        return Err(advice::may_not_replicate(&error, address).into());
    }
    Err(explain(pooled(error, address), address))
}

fn pooled(error: Error, address: &Address) -> Error {
    advice::pooled(&error, address).map_or(error, Error::from)
}

/// Says what to do about a connection that does not come about.
pub(crate) fn explain(error: Error, address: &Address) -> Error {
    match advice::no_connection(&error, address) {
        Some(reason) if reason.may_pass => Error::Unreachable(reason.advice.to_string()),
        Some(reason) => reason.advice.into(),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minor_versions_before_the_fix_linger() {
        let fixed = [
            (150_012, "15.13", 150_013),
            (160_008, "16.9", 160_009),
            (170_004, "17.5", 170_005),
        ];
        for (last, name, first) in fixed {
            assert_eq!(fixed_by(last), Some(name));
            assert_eq!(fixed_by(first), None);
        }
        assert_eq!(fixed_by(180_000), None);
    }
}
