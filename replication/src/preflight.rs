//! Whether the server can be replicated from, and if not, what to do about it.

use std::time::Duration;

use tokio_postgres::Client;

use crate::options::Options;
use crate::wire::{ReplicationConnection, SystemIdentity};
use crate::{Address, Error, Host, Result, TlsMode, sql};

/// Oldest `server_version_num` that is supported.
const OLDEST_VERSION: i32 = 150_000;
/// First version that knows failover slots.
const FAILOVER_VERSION: i32 = 170_000;

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
}

/// Connects both ways and checks everything replication needs.
pub(crate) async fn check(options: &Options) -> Result<Upstream> {
    options.validate()?;
    let address = Address::parse(&options.upstream)?;
    let client = sql::connect(&address, SETUP_NAME)
        .await
        .map_err(|error| explain(error, &address))?;
    sql::set_session(&client).await?;
    let facts = check_settings(&client, &address).await?;
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
        return Err(Error::Config(format!(
            "{} runs PostgreSQL {}, but kelvin needs version 15 or newer: upgrade the server",
            address.host,
            row.try_get::<_, String>(1)?
        )));
    }
    if row.try_get(4)? {
        return Err(Error::Config(format!(
            "{} is a read-only standby: use the address of the primary server",
            address.host
        )));
    }
    let wal_level: String = row.try_get(2)?;
    if wal_level != "logical" {
        return Err(Error::Config(format!(
            "wal_level of PostgreSQL at {} is '{wal_level}', but logical replication needs \
             'logical': run ALTER SYSTEM SET wal_level = logical (or set it in postgresql.conf, or \
             turn on logical replication in your provider's settings) and restart PostgreSQL",
            address.host
        )));
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
        return Err(Error::Config(format!(
            "role \"{0}\" may not replicate ({error}): run ALTER ROLE \"{0}\" REPLICATION as a \
             superuser (on Amazon RDS: GRANT rds_replication TO \"{0}\")",
            address.user
        )));
    }
    Err(explain(pooled(error, address), address))
}

/// A pooler does not pass the replication parameter on, or takes commands for SQL.
fn pooled(error: Error, address: &Address) -> Error {
    match error.sqlstate() {
        Some("08P01" | "42601" | "0A000") => Error::Config(format!(
            "{} does not accept replication connections ({error}). A connection pooler such as \
             PgBouncer seems to be in between: use the address of PostgreSQL itself",
            address.host
        )),
        _ => error,
    }
}

/// Says what to do about a connection that does not come about.
pub(crate) fn explain(error: Error, address: &Address) -> Error {
    let (host, user, database) = (&address.host, &address.user, &address.database);
    let advice = match error.sqlstate() {
        Some("28P01") => format!(
            "PostgreSQL at {host} does not accept the password of role \"{user}\": correct it in \
             the address (special characters must be percent-encoded)"
        ),
        Some("28000") => format!(
            "PostgreSQL at {host} does not let role \"{user}\" in: check that the role exists, and \
             that pg_hba.conf lets it connect to \"{database}\" and to replication from here{}",
            tls_advice(address)
        ),
        Some("3D000") => format!(
            "there is no database \"{database}\" at {host}: create it (CREATE DATABASE \
             \"{database}\") or correct the address"
        ),
        Some("53300") => format!(
            "PostgreSQL at {host} has no free connection: close some, or raise max_connections and \
             max_wal_senders and restart it"
        ),
        Some(_) => return error,
        None => return explain_io(error, address),
    };
    Error::Config(format!("{advice} ({error})"))
}

fn tls_advice(address: &Address) -> &'static str {
    match address.tls {
        TlsMode::Disable => "; it may ask for TLS, which sslmode=disable rules out",
        _ => "",
    }
}

fn explain_io(error: Error, address: &Address) -> Error {
    match error {
        Error::Io(_) | Error::Timeout(_) => Error::Unreachable(format!(
            "{error}. Check that PostgreSQL runs there, accepts connections from here \
             (listen_addresses, firewall) and that the address is right{}",
            match address.host {
                Host::Unix(..) => "",
                Host::Tcp(..) if address.tls == TlsMode::Disable => "",
                Host::Tcp(..) => "; if it is TLS that fails, see sslmode and sslrootcert",
            }
        )),
        // TLS refused and certificates that do not verify arrive in other guises here.
        Error::Sql(ref sql) if sql.code().is_none() => {
            let text = error.to_string();
            if text.contains("does not support TLS") {
                return Error::Config(format!(
                    "PostgreSQL at {} does not offer TLS, but sslmode asks for it: turn ssl on in \
                     postgresql.conf or use sslmode=disable",
                    address.host
                ));
            }
            if text.contains("certificate") {
                return Error::Config(format!(
                    "the certificate of PostgreSQL at {} is not trusted ({error}): give its \
                     authority in sslrootcert, or check less with sslmode=require",
                    address.host
                ));
            }
            if text.contains("password missing") {
                return Error::Config(format!(
                    "PostgreSQL at {} asks for a password of role \"{}\", but the address has none",
                    address.host, address.user
                ));
            }
            Error::Unreachable(format!("no connection to {}: {error}", address.host))
        }
        error => error,
    }
}
