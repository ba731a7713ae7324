//! What is wrong with a server and what to do about it, in words that the start of a replica and
//! the doctor share.

use std::fmt;

use crate::options::Options;
use crate::quote::identifier;
use crate::{Address, Error, Host, TlsMode};

/// One thing an operator has to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// What was found.
    pub(crate) found: String,
    /// What to do about it: a statement, a setting or an option.
    pub(crate) fix: String,
}

impl Advice {
    pub(crate) fn new(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            fix: fix.into(),
        }
    }

    /// The advice in the text of an [`Error::Config`]; some of those texts only say what was found.
    pub(crate) fn of_text(text: &str, otherwise: &str) -> Self {
        let (found, fix) = text.rsplit_once(": ").unwrap_or((text, otherwise));
        Self::new(found, fix)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.found, self.fix)
    }
}

impl From<Advice> for Error {
    fn from(advice: Advice) -> Self {
        Self::Config(advice.to_string())
    }
}

pub(crate) fn too_old(host: &Host, version: &str) -> Advice {
    Advice::new(
        format!("{host} runs PostgreSQL {version}, but kelvin needs version 15 or newer"),
        "upgrade the server",
    )
}

pub(crate) fn lingers(version: &str, fixed_by: &str) -> Advice {
    Advice::new(
        format!(
            "PostgreSQL {version} goes on to send what was published before, where a transaction that \
             wrote to a table was open when a publication changed: kelvin streams over a new \
             connection then, and copies the table once such transactions have ended"
        ),
        format!("update the server to {fixed_by} or later"),
    )
}

pub(crate) fn standby(host: &Host) -> Advice {
    Advice::new(
        format!("{host} is a read-only standby"),
        "use the address of the primary server",
    )
}

pub(crate) fn not_logical(host: &Host, level: &str) -> Advice {
    Advice::new(
        format!(
            "wal_level of PostgreSQL at {host} is '{level}', but logical replication needs \
             'logical'"
        ),
        "run ALTER SYSTEM SET wal_level = logical (or set it in postgresql.conf, or turn on \
         logical replication in your provider's settings) and restart PostgreSQL",
    )
}

pub(crate) fn may_not_replicate(error: &Error, address: &Address) -> Advice {
    let role = identifier(&address.user);
    Advice::new(
        format!("role {role} may not replicate ({error})"),
        format!(
            "run ALTER ROLE {role} REPLICATION as a superuser (on Amazon RDS: GRANT \
             rds_replication TO {role})"
        ),
    )
}

/// A pooler does not pass the replication parameter on, or takes commands for SQL.
pub(crate) fn pooled(error: &Error, address: &Address) -> Option<Advice> {
    let refused = matches!(error.sqlstate(), Some("08P01" | "42601" | "0A000"));
    refused.then(|| {
        Advice::new(
            format!(
                "{} does not accept replication connections ({error}). A connection pooler such \
                 as PgBouncer seems to be in between",
                address.host
            ),
            "use the address of PostgreSQL itself",
        )
    })
}

pub(crate) fn no_free_slot(cause: &str) -> Advice {
    Advice::new(
        format!("PostgreSQL has no free replication slot ({cause})"),
        "drop unused ones (see pg_replication_slots) or raise max_replication_slots and restart it",
    )
}

pub(crate) fn publication_leaves_out(name: &str) -> Advice {
    Advice::new(
        format!("publication {name:?} leaves out some operations"),
        format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
            identifier(name)
        ),
    )
}

pub(crate) fn publication_missing(name: &str) -> Advice {
    Advice::new(
        format!("publication {name:?} does not exist"),
        format!(
            "create it (CREATE PUBLICATION {} FOR TABLE …) or correct ZERO_APP_PUBLICATIONS",
            identifier(name)
        ),
    )
}

pub(crate) fn may_not_set_up(cause: &str, options: &Options) -> Advice {
    let shard = options.shard();
    Advice::new(
        format!("the role may not set up the schemas and publications kelvin needs ({cause})"),
        format!(
            "either give it the right (GRANT CREATE ON DATABASE … TO …; it must own {:?} and \
             {:?}) or, where only the publication for all tables of schema public is refused, \
             create one yourself (CREATE PUBLICATION my_pub FOR TABLE … ) and name it in \
             ZERO_APP_PUBLICATIONS",
            shard.app,
            shard.schema()
        ),
    )
}

/// Why there is no connection.
pub(crate) struct NoConnection {
    pub(crate) advice: Advice,
    /// Whether it may pass by itself, as when a server restarts.
    pub(crate) may_pass: bool,
}

/// What to do about a connection that does not come about; `None` where there is nothing to say
/// beyond the error itself.
pub(crate) fn no_connection(error: &Error, address: &Address) -> Option<NoConnection> {
    let (host, user, database) = (&address.host, &address.user, &address.database);
    let (found, fix) = match error.sqlstate() {
        Some("28P01") => (
            format!("PostgreSQL at {host} does not accept the password of role \"{user}\""),
            "correct it in the address (special characters must be percent-encoded)".to_owned(),
        ),
        Some("28000") => (
            format!("PostgreSQL at {host} does not let role \"{user}\" in"),
            format!(
                "check that the role exists, and that pg_hba.conf lets it connect to \
                 \"{database}\" and to replication from here{}",
                tls_advice(address)
            ),
        ),
        Some("3D000") => (
            format!("there is no database \"{database}\" at {host}"),
            format!("create it (CREATE DATABASE \"{database}\") or correct the address"),
        ),
        Some("53300") => (
            format!("PostgreSQL at {host} has no free connection"),
            "close some, or raise max_connections and max_wal_senders and restart it".to_owned(),
        ),
        Some(_) => return None,
        None => return no_answer(error, address),
    };
    Some(NoConnection {
        advice: Advice::new(format!("{found} ({error})"), fix),
        may_pass: false,
    })
}

fn tls_advice(address: &Address) -> &'static str {
    match address.tls {
        TlsMode::Disable => "; it may ask for TLS, which sslmode=disable rules out",
        _ => "",
    }
}

fn no_answer(error: &Error, address: &Address) -> Option<NoConnection> {
    match error {
        Error::Io(_) | Error::Timeout(_) => {
            let tls = match address.host {
                Host::Tcp(..) if address.tls != TlsMode::Disable => {
                    "; if it is TLS that fails, see sslmode and sslrootcert"
                }
                _ => "",
            };
            let fix = format!(
                "check that PostgreSQL runs there, accepts connections from here \
                 (listen_addresses, firewall) and that the address is right{tls}"
            );
            Some(NoConnection {
                advice: Advice::new(error.to_string(), fix),
                may_pass: true,
            })
        }
        // TLS refused and certificates that do not verify arrive in other guises here.
        Error::Sql(sql) if sql.code().is_none() => Some(no_session(error, address)),
        _ => None,
    }
}

fn no_session(error: &Error, address: &Address) -> NoConnection {
    let (host, text) = (&address.host, error.to_string());
    let (found, fix) = if text.contains("does not support TLS") {
        no_tls(host)
    } else if text.contains("certificate") {
        (
            format!("the certificate of PostgreSQL at {host} is not trusted ({error})"),
            "give its authority in sslrootcert, or check less with sslmode=require",
        )
    } else if text.contains("password missing") {
        (
            format!(
                "PostgreSQL at {host} asks for a password of role \"{}\", but the address has none",
                address.user
            ),
            "write it into the address: postgres://role:password@host/database",
        )
    } else {
        return NoConnection {
            advice: Advice::new(
                format!("no connection to {host} ({error})"),
                "check that it is PostgreSQL that listens there, and see its log",
            ),
            may_pass: true,
        };
    };
    NoConnection {
        advice: Advice::new(found, fix),
        may_pass: false,
    }
}

/// What is found and what to do where TLS is asked for in vain.
pub(crate) fn no_tls(host: &Host) -> (String, &'static str) {
    (
        format!("PostgreSQL at {host} does not offer TLS, but sslmode asks for it"),
        "turn ssl on in postgresql.conf or use sslmode=disable",
    )
}
