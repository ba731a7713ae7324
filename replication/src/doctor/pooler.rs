//! What lies between here and PostgreSQL, and whether replication gets through.
//!
//! A pooler is known by its answers:
//! * **The process announced at log-in.** PostgreSQL announces the process that serves the session.
//!   Whoever stands in between has to announce something of its own, for it has to find the session
//!   that a cancel request means. So `pg_backend_pid()` tells another number.
//! * **The process of later transactions.** Two sessions that take turns with transactions keep
//!   their processes, unless a pooler hands out connections for a transaction at a time.
//! * **What arrives of the start.** Some poolers replace `application_name`, or report a
//!   `server_version` of their own.
//! * **The replication parameter.** `PgBouncer` before 1.23 refuses it; others drop it, and then
//!   replication commands are syntax errors.

use std::collections::BTreeSet;

use super::connection;
use super::finding::{Finding, State};
use super::provider::Provider;
use super::{APPLICATION, Limits};
use crate::options::Options;
use crate::quote::identifier;
use crate::wire::{Greeting, Purpose, ReplicationConnection};
use crate::{Address, Host, Result, advice};

const POOLER: &str = "pooler";
const REPLICATION: &str = "replication";
const WAY: &str = "way to the server";
const STREAM: &str = "replication connection";

/// Rounds of transactions in which a pooler may show that processes change. It needs two; some
/// take connections from the other end of their list.
const ROUNDS: usize = 3;

/// Looks at the way to the server, and opens a replication connection.
pub(super) async fn look(
    address: &Address,
    options: &Options,
    limits: &Limits,
    provider: Provider,
) -> Result<Vec<Finding>> {
    let link = Link {
        address,
        max_message: options.max_message_bytes,
    };
    let signs = link.signs().await?;
    // Where a pooler has but one connection to give, the sessions wait for each other.
    let turns = tokio::time::timeout(limits.query, link.take_turns()).await;
    let shared = matches!(turns, Ok(Ok(true)));
    let replication = link.replicate().await;
    Ok(judge(address, &signs, shared, replication, provider))
}

/// A way to the server.
struct Link<'a> {
    address: &'a Address,
    max_message: usize,
}

/// Signs of something in between; each one completes the sentence "… is in between: …".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Signs {
    seen: Vec<String>,
    /// The name of what is in between, where it gives itself away.
    name: Option<&'static str>,
}

const SELF: &str = "SELECT pg_backend_pid(), current_setting('application_name'),
                           current_setting('server_version')";
const PROCESS: &str = "SELECT pg_backend_pid()";

impl Link<'_> {
    async fn open(&self, purpose: Purpose) -> Result<(ReplicationConnection, Greeting)> {
        ReplicationConnection::log_in(self.address, APPLICATION, self.max_message, purpose).await
    }

    async fn signs(&self) -> Result<Signs> {
        let (mut session, greeting) = self.open(Purpose::Sql).await?;
        let rows = session.query(SELF).await?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let mut next = || row.next().flatten().unwrap_or_default();
        let mut signs = read_signs(&greeting, &next(), &next(), &next());
        // PostgreSQL knows no such setting; asked only where there is something, for it would log
        // it.
        if !signs.seen.is_empty() && session.query("SHOW SHARD").await.is_ok() {
            signs.seen.push("SHOW SHARD is answered".into());
            signs.name = signs.name.or(Some("PgCat"));
        }
        session.close().await;
        Ok(signs)
    }

    /// Whether processes change between transactions.
    async fn take_turns(&self) -> Result<bool> {
        let (mut one, _) = self.open(Purpose::Sql).await?;
        let (mut two, _) = self.open(Purpose::Sql).await?;
        let (mut of_one, mut of_two) = (BTreeSet::new(), BTreeSet::new());
        // Both hold a process at once. The one given back first is the one handed out last, or the
        // other way round, so each comes to hold the other's.
        one.query("BEGIN READ ONLY").await?;
        of_one.insert(process(&mut one).await?);
        two.query("BEGIN READ ONLY").await?;
        of_two.insert(process(&mut two).await?);
        one.query("COMMIT").await?;
        two.query("COMMIT").await?;
        for _ in 0..ROUNDS {
            of_one.insert(process(&mut one).await?);
            of_two.insert(process(&mut two).await?);
            of_two.insert(process(&mut two).await?);
        }
        one.close().await;
        two.close().await;
        Ok(of_one.len() > 1 || of_two.len() > 1)
    }

    /// Opens a replication connection and asks it who it is; gives its system identifier.
    async fn replicate(&self) -> Result<String> {
        let (mut connection, _) = self.open(Purpose::Replication).await?;
        let system = connection.identify().await?;
        connection.close().await;
        Ok(system.system_identifier)
    }
}

async fn process(session: &mut ReplicationConnection) -> Result<String> {
    let rows = session.query(PROCESS).await?;
    let process = rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next());
    Ok(process.flatten().unwrap_or_default())
}

fn read_signs(greeting: &Greeting, process: &str, application: &str, version: &str) -> Signs {
    let mut signs = Signs::default();
    let announced = greeting.process.map(|process| process.to_string());
    if announced
        .as_deref()
        .is_some_and(|announced| announced != process)
    {
        signs
            .seen
            .push("the session is served by another process than was announced".into());
    }
    if application != APPLICATION {
        signs
            .seen
            .push(format!("application_name arrives as {application:?}"));
        signs.name = name_in(application);
    }
    let reported = greeting.parameters.get("server_version");
    if let Some(reported) = reported.filter(|reported| *reported != version) {
        signs
            .seen
            .push(format!("server_version is reported as {reported:?}"));
        signs.name = signs.name.or_else(|| name_in(reported));
    }
    signs
}

fn name_in(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    ["PgBouncer", "PgCat", "Supavisor", "Odyssey", "PgDog"]
        .into_iter()
        .find(|name| text.contains(&name.to_ascii_lowercase()))
}

fn judge(
    address: &Address,
    signs: &Signs,
    shared: bool,
    replication: Result<String>,
    provider: Provider,
) -> Vec<Finding> {
    let refused = match &replication {
        Ok(_) => None,
        Err(error) => advice::pooled(error, address).map(|advice| (error, advice)),
    };
    // The parameter is refused in words of PgBouncer's own.
    let name = signs.name.or_else(|| match &refused {
        Some((error, _)) if error.to_string().contains("startup parameter") => Some("PgBouncer"),
        _ => None,
    });
    let what = name.map_or_else(
        || "a pooler or proxy".to_owned(),
        |name| format!("{name}, it seems,"),
    );
    let seen = signs.seen.join("; ");
    let pooler = if shared {
        let found = format!(
            "{what} is in between, and gives each transaction another connection of PostgreSQL"
        );
        Finding::error(POOLER, WAY, found, direct(address))
    } else if refused.is_some() {
        let why = if seen.is_empty() {
            "replication is refused"
        } else {
            &seen
        };
        Finding::error(
            POOLER,
            WAY,
            format!("{what} is in between: {why}"),
            direct(address),
        )
    } else if signs.seen.is_empty() {
        Finding::ok(POOLER, WAY, "direct, without a pooler")
    } else {
        let found = format!("{what} is in between, and lets replication through: {seen}");
        Finding::note(POOLER, WAY, found, direct(address))
    };
    let pooled = refused.is_some();
    vec![pooler, stream(address, replication, pooled, provider)]
}

fn stream(
    address: &Address,
    replication: Result<String>,
    pooled: bool,
    provider: Provider,
) -> Finding {
    let error = match replication {
        Ok(system) => {
            return Finding::ok(REPLICATION, STREAM, format!("opened; system {system}"));
        }
        Err(error) => error,
    };
    if error.sqlstate() == Some("42501") {
        let mut advice = advice::may_not_replicate(&error, address);
        advice.fix = provider.let_replicate(&identifier(&address.user));
        return Finding::of(State::Error, REPLICATION, STREAM, advice);
    }
    if pooled {
        return Finding::error(REPLICATION, STREAM, error.to_string(), direct(address));
    }
    let failed = connection::failed(&error, address);
    Finding {
        check: REPLICATION,
        subject: STREAM.into(),
        ..failed
    }
}

/// How to get to PostgreSQL itself.
fn direct(address: &Address) -> String {
    let Host::Tcp(host, port) = &address.host else {
        return "use the socket of PostgreSQL itself in ZERO_UPSTREAM_DB".into();
    };
    let hint = if host.ends_with(".pooler.supabase.com") {
        ": the direct connection, db.PROJECT.supabase.co:5432"
    } else if host.contains("-pooler.") {
        ": the same host name without -pooler"
    } else if *port == 5432 {
        ""
    } else {
        "; its port is usually 5432"
    };
    format!("use the address of PostgreSQL itself in ZERO_UPSTREAM_DB{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ServerError};

    fn greeting(process: i32, version: &str) -> Greeting {
        Greeting {
            process: Some(process),
            parameters: [("server_version".to_owned(), version.to_owned())].into(),
        }
    }

    fn refusal(code: &str) -> Result<String> {
        Err(Error::Server(ServerError {
            code: code.into(),
            message: "unsupported startup parameter: replication".into(),
            ..ServerError::default()
        }))
    }

    fn states(signs: &Signs, shared: bool, replication: Result<String>) -> [State; 2] {
        let address = Address::parse("postgres://db.example:6432/x").unwrap();
        let findings = judge(&address, signs, shared, replication, Provider::Own);
        [findings[0].state, findings[1].state]
    }

    #[test]
    fn a_server_that_answers_itself_shows_no_signs() {
        let signs = read_signs(&greeting(7, "15.3"), "7", APPLICATION, "15.3");
        assert_eq!(signs, Signs::default());
        assert_eq!(
            states(&signs, false, Ok("1".into())),
            [State::Ok, State::Ok]
        );
    }

    #[test]
    fn whatever_stands_in_between_shows() {
        let process = read_signs(&greeting(8, "15.3"), "7", APPLICATION, "15.3");
        assert_eq!(process.seen.len(), 1);
        let renamed = read_signs(&greeting(7, "15.3"), "7", "Supavisor", "15.3");
        assert_eq!(renamed.name, Some("Supavisor"));
        let version = read_signs(&greeting(7, "15.1 (pgcat)"), "7", APPLICATION, "15.3");
        assert_eq!(version.name, Some("PgCat"));
        let through = states(&process, false, Ok("1".into()));
        assert_eq!(through, [State::Note, State::Ok]);
        for code in ["08P01", "42601", "0A000"] {
            let stopped = states(&process, false, refusal(code));
            assert_eq!(stopped, [State::Error, State::Error], "{code}");
        }
        let shared = states(&process, true, Ok("1".into()));
        assert_eq!(shared, [State::Error, State::Ok]);
    }

    #[test]
    fn the_way_around_a_pooler_is_said_as_well_as_it_is_known() {
        let fix = |url: &str| direct(&Address::parse(url).unwrap());
        assert!(fix("postgres://ep-x-pooler.eu.neon.tech/db").contains("without -pooler"));
        assert!(fix("postgres://a.pooler.supabase.com:6543/db").contains("supabase.co:5432"));
        assert!(fix("postgres://db:6432/db").contains("5432"));
    }
}
