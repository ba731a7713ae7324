//! Ordinary SQL connections, under the same rules as the replication connection.

use futures_util::FutureExt;
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres::{Client, NoTls};

use crate::tls::{TlsConnector, client_config};
use crate::wire::dial;
use crate::{Address, Error, Host, Result, TlsMode};

/// Settings that give values one text form and keep statements alive, whatever the role's or the
/// database's defaults are.
pub(crate) const SESSION_SETTINGS: [&str; 9] = [
    "SET DateStyle = 'ISO, MDY'",
    "SET IntervalStyle = 'postgres'",
    "SET TimeZone = 'UTC'",
    "SET extra_float_digits = 3",
    "SET bytea_output = 'hex'",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET idle_session_timeout = 0",
    // PostgreSQL 17 and newer.
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'",
];

/// Opens an ordinary SQL connection by a `postgres://` address. A task on the current Tokio runtime
/// drives it until the client is dropped.
///
/// # Errors
/// [`Error::Config`] if the address is not valid; else why the server cannot be reached or does not
/// let us in.
pub async fn connect_sql(url: &str) -> Result<Client> {
    connect(&Address::parse(url)?, "kelvin").await
}

/// Opens an ordinary SQL connection under this application name.
pub(crate) async fn connect(address: &Address, application: &str) -> Result<Client> {
    let config = configure(address, application);
    let limit = address.connect_timeout * 2;
    tokio::time::timeout(limit, open(address, &config))
        .await
        .unwrap_or_else(|_| {
            Err(Error::Timeout(format!(
                "{} accepted the connection but did not finish the log-in within {limit:?}",
                address.host
            )))
        })
}

async fn open(address: &Address, config: &Config) -> Result<Client> {
    let tls = match (client_config(address)?, &address.host) {
        (Some(tls), Host::Tcp(name, _)) => Some(TlsConnector::new(tls, name)?),
        _ => None,
    };
    let socket = dial(address).await?;
    let client = match tls {
        Some(tls) => {
            let (client, connection) = config.connect_raw(socket, tls).await?;
            tokio::spawn(connection.map(log_end));
            client
        }
        None => {
            let (client, connection) = config.connect_raw(socket, NoTls).await?;
            tokio::spawn(connection.map(log_end));
            client
        }
    };
    Ok(client)
}

fn configure(address: &Address, application: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&address.user)
        .dbname(&address.database)
        .application_name(application);
    if let Some(password) = &address.password {
        config.password(password);
    }
    if let Some(options) = &address.options {
        config.options(options);
    }
    let plain = matches!(address.host, Host::Unix(..));
    config.ssl_mode(match address.tls {
        TlsMode::Disable => SslMode::Disable,
        _ if plain => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    config
}

/// The client's own calls report the failure; this is only for the record.
fn log_end(result: std::result::Result<(), tokio_postgres::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a SQL connection ended");
    }
}

/// Sets [`SESSION_SETTINGS`] on a client.
pub(crate) async fn set_session(client: &Client) -> Result<()> {
    Ok(client.batch_execute(&SESSION_SETTINGS.join(";")).await?)
}
