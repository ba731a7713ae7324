//! Whether the server is reached, as whom, and how safely.

use super::examination::Scope;
use super::finding::{Finding, State};
use crate::advice::{self, Advice};
use crate::quote::identifier;
use crate::{Address, Error, Host, Result, TlsMode};

const CONNECTION: &str = "connection";
const TLS: &str = "tls";

/// Why there is no connection.
pub(super) fn failed(error: &Error, address: &Address) -> Finding {
    let advice = match (advice::no_connection(error, address), error) {
        (Some(reason), _) => reason.advice,
        (None, _) if error.sqlstate() == Some("42501") => Advice::new(
            error.to_string(),
            format!(
                "GRANT CONNECT ON DATABASE {} TO {}",
                identifier(&address.database),
                identifier(&address.user)
            ),
        ),
        (None, Error::Config(text)) => Advice::of_text(text, "correct ZERO_UPSTREAM_DB"),
        (None, _) => Advice::new(error.to_string(), "see the log of PostgreSQL"),
    };
    Finding::of(State::Error, CONNECTION, CONNECTION, advice)
}

const SESSION: &str = "
    SELECT session_user::text, current_database()::text,
           (SELECT version FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid())";

pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope.sql.query_one(SESSION, &[]).await?;
    let (role, database): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let tls: Option<String> = row.try_get(2)?;
    let found = format!(
        "{} as role {role:?}, database {database:?}",
        scope.address.host
    );
    Ok(vec![
        Finding::ok(CONNECTION, CONNECTION, found),
        encryption(scope.address, tls.as_deref()),
    ])
}

/// What to think of a connection with this version of TLS, or without.
fn encryption(address: &Address, version: Option<&str>) -> Finding {
    let local = is_local(&address.host);
    match (version, address.tls) {
        (None, _) if local => Finding::ok(TLS, "TLS", "none, and none is needed on one machine"),
        (None, _) => Finding::note(
            TLS,
            "TLS",
            "none: passwords and rows can be read on the way",
            "turn ssl on in PostgreSQL and add sslmode=require to ZERO_UPSTREAM_DB",
        ),
        (Some(version), TlsMode::VerifyFull) => Finding::ok(
            TLS,
            "TLS",
            format!("{version}, certificate and name checked"),
        ),
        (Some(version), TlsMode::VerifyCa) => {
            Finding::ok(TLS, "TLS", format!("{version}, certificate checked"))
        }
        (Some(version), TlsMode::Require) if address.root_certificates.is_some() => {
            Finding::ok(TLS, "TLS", format!("{version}, certificate checked"))
        }
        (Some(version), _) if local => Finding::ok(TLS, "TLS", version),
        (Some(version), _) => Finding::note(
            TLS,
            "TLS",
            format!("{version}, but the certificate of the server is not checked"),
            "add sslmode=verify-full to ZERO_UPSTREAM_DB, and sslrootcert=FILE where the \
             authority is not one the system trusts",
        ),
    }
}

/// Whether the way to the host never leaves the machine.
pub(super) fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(..) => true,
        Host::Tcp(name, _) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_asked_for_only_where_others_could_listen() {
        let state = |url: &str, version: Option<&str>| {
            encryption(&Address::parse(url).unwrap(), version).state
        };
        assert_eq!(state("postgres://localhost/x", None), State::Ok);
        assert_eq!(state("postgres://me@/x?host=/run", None), State::Ok);
        assert_eq!(state("postgres://db.example/x", None), State::Note);
        let tls = Some("TLSv1.3");
        assert_eq!(state("postgres://db.example/x", tls), State::Note);
        let checked = "postgres://db.example/x?sslmode=verify-full";
        assert_eq!(state(checked, tls), State::Ok);
    }
}
