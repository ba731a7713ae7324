//! Runs the checks, each within its limits.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Transaction};

use super::finding::{Finding, State};
use super::provider::Provider;
use super::{
    APPLICATION, Limits, capacity, connection, failover, pooler, privileges, publications, replica,
    server, settings, slots, tables, transactions,
};
use crate::advice::Advice;
use crate::options::Options;
use crate::quote::identifier;
use crate::{Address, Error, Result, sql};

/// What a check works with: a read-only transaction, and what is known by now.
pub(super) struct Scope<'a> {
    pub(super) sql: &'a Transaction<'a>,
    pub(super) options: &'a Options,
    pub(super) address: &'a Address,
    pub(super) limits: &'a Limits,
    /// `server_version_num`; 0 where it could not be found out.
    pub(super) version: i32,
    pub(super) provider: Provider,
}

impl Scope<'_> {
    /// The role of the address, quoted.
    pub(super) fn role(&self) -> String {
        identifier(&self.address.user)
    }

    /// The database of the address, quoted.
    pub(super) fn database(&self) -> String {
        identifier(&self.address.database)
    }
}

/// Looks at everything replication needs, and gives what was found in the order it was looked at.
/// Nothing upstream is changed, and nothing of the replica.
pub async fn examine(options: &Options, limits: &Limits) -> Vec<Finding> {
    let invalid = |error: &Error| {
        let fix = "correct ZERO_UPSTREAM_DB, ZERO_APP_ID or ZERO_APP_PUBLICATIONS";
        vec![Finding::wrong_options(error.to_string(), fix)]
    };
    if let Err(error) = options.validate() {
        return invalid(&error);
    }
    let address = match Address::parse(&options.upstream) {
        Ok(address) => address,
        Err(error) => return invalid(&error),
    };
    let mut examination = Examination {
        options,
        address: &address,
        limits,
        deadline: Instant::now() + limits.total,
        client: None,
        version: 0,
        provider: Provider::Own,
        published: None,
        findings: Vec::new(),
    };
    if examination.connect().await {
        Box::pin(examination.look_at_server()).await;
        Box::pin(examination.look_at_database()).await;
    }
    let mut findings = examination.findings;
    findings.extend(replica::look(options, examination.published).await);
    findings
}

struct Examination<'a> {
    options: &'a Options,
    address: &'a Address,
    limits: &'a Limits,
    deadline: Instant,
    client: Option<Client>,
    version: i32,
    provider: Provider,
    /// Bytes of the published tables in PostgreSQL.
    published: Option<u64>,
    findings: Vec<Finding>,
}

impl Examination<'_> {
    /// Whether there is a connection; else a finding says why not.
    async fn connect(&mut self) -> bool {
        let error = match timeout(self.limits.check, self.open()).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(_) => Error::Timeout(format!(
                "no connection to {} within {:?}",
                self.address.host, self.limits.check
            )),
        };
        self.findings.push(connection::failed(&error, self.address));
        false
    }

    async fn open(&mut self) -> Result<()> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(sql::connect(self.address, APPLICATION).await?);
        }
        Ok(())
    }

    async fn look_at_server(&mut self) {
        self.check("connection", "connection", connection::look)
            .await;
        self.identify().await;
        self.check("version", "version", server::version).await;
        self.check("standby", "kind of server", server::standby)
            .await;
        self.check("wal_level", "wal_level", server::wal_level)
            .await;
        self.check("slots", "replication slots", capacity::slots)
            .await;
        self.check("senders", "WAL senders", capacity::senders)
            .await;
        self.check("connections", "connections", capacity::connections)
            .await;
        let paths = pooler::look(self.address, self.options, self.limits, self.provider);
        match self.within(paths).await {
            Ok(findings) => self.findings.extend(findings),
            Err(error) => self.unchecked("pooler", "way to the server", &error),
        }
    }

    async fn look_at_database(&mut self) {
        self.check("set_up", "right to set up", privileges::set_up)
            .await;
        self.check("publish", "right to publish", privileges::publish)
            .await;
        self.check("select", "right to read", privileges::select)
            .await;
        self.check("row_security", "row security", privileges::row_security)
            .await;
        self.check(
            "event_triggers",
            "event triggers",
            privileges::event_triggers,
        )
        .await;
        self.check("publication", "publications", publications::look)
            .await;
        self.check("partitions", "partitions", publications::partitions)
            .await;
        self.check("row_filters", "row filters", publications::row_filters)
            .await;
        self.check("column_lists", "column lists", publications::column_lists)
            .await;
        let mut published = None;
        self.check("tables", "tables", async |scope: Scope<'_>| {
            let (findings, bytes) = tables::look(&scope).await?;
            published = Some(bytes);
            Ok(findings)
        })
        .await;
        self.published = published;
        self.check("replica_identity", "replica identity", tables::identities)
            .await;
        self.check("unlogged", "unlogged tables", tables::unlogged)
            .await;
        self.check("settings", "settings", settings::look).await;
        self.check("slot", "slots of this app", slots::look).await;
        self.check("failover", "failover", failover::look).await;
        self.check("transactions", "open transactions", transactions::look)
            .await;
        self.check("prepared", "prepared transactions", transactions::prepared)
            .await;
    }

    /// Finds out what later checks depend on. Where that fails, they say so themselves.
    async fn identify(&mut self) {
        let mut known = None;
        self.check("version", "version", async |scope: Scope<'_>| {
            known = Some(server::identify(&scope).await?);
            Ok(Vec::new())
        })
        .await;
        if let Some((version, provider)) = known {
            (self.version, self.provider) = (version, provider);
        }
    }

    /// Runs a check in a read-only transaction of its own.
    async fn check(
        &mut self,
        name: &'static str,
        subject: &str,
        check: impl AsyncFnOnce(Scope<'_>) -> Result<Vec<Finding>>,
    ) {
        // A check that is cut off in the middle takes its connection with it.
        let client = self.client.take();
        let (version, provider) = (self.version, self.provider);
        let (address, options, limits) = (self.address, self.options, self.limits);
        let work = async {
            let mut client = match client {
                Some(client) if !client.is_closed() => client,
                _ => sql::connect(address, APPLICATION).await?,
            };
            let transaction = begin(&mut client, limits.query).await?;
            let scope = Scope {
                sql: &transaction,
                options,
                address,
                limits,
                version,
                provider,
            };
            let outcome = check(scope).await;
            transaction.rollback().await?;
            Ok((outcome, client))
        };
        match self.within(work).await {
            Ok((Ok(findings), client)) => {
                self.client = Some(client);
                self.findings.extend(findings);
            }
            Ok((Err(error), client)) => {
                self.client = Some(client);
                self.unchecked(name, subject, &error);
            }
            Err(error) => self.unchecked(name, subject, &error),
        }
    }

    /// Cuts off work that takes too long.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(format!(
                "the {:?} for all checks together are used up",
                self.limits.total
            )));
        }
        let limit = left.min(self.limits.check);
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Error::Timeout(format!(
                "there was no answer within {limit:?}"
            )))
        })
    }

    fn unchecked(&mut self, name: &'static str, subject: &str, error: &Error) {
        self.findings
            .push(unchecked(name, subject, error, self.address));
    }
}

/// Begins a transaction that changes nothing and ends by itself.
async fn begin(client: &mut Client, limit: Duration) -> Result<Transaction<'_>> {
    let transaction = client.build_transaction().read_only(true).start().await?;
    let millis = limit.as_millis();
    // INVARIANT: settings are those of the transaction alone. Behind a pooler, what is set for the
    // session would be somebody else's next.
    let limits = format!(
        "SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis};
         SET LOCAL idle_in_transaction_session_timeout = 0"
    );
    transaction.batch_execute(&limits).await?;
    Ok(transaction)
}

/// What is said of a check that failed by itself.
pub(super) fn unchecked(
    name: &'static str,
    subject: &str,
    error: &Error,
    address: &Address,
) -> Finding {
    if let Error::Config(text) = error {
        let advice = Advice::of_text(text, "mend that first");
        return Finding::of(State::Error, name, subject, advice);
    }
    let found = format!("could not be checked: {error}");
    match error.sqlstate() {
        Some("42501") => {
            let fix = format!("GRANT pg_monitor TO {}", identifier(&address.user));
            Finding::note(name, subject, found, fix)
        }
        // Tables, columns, functions and settings that a hosted server left out.
        Some("42P01" | "42703" | "42883" | "42704" | "0A000") => {
            let fix = "nothing can be done here; ask the provider of the server";
            Finding::note(name, subject, found, fix)
        }
        // A statement, or its wait for a lock, took too long.
        Some("57014" | "55P03") => {
            let fix = "run kelvin doctor again when the server is less busy";
            Finding::warning(name, subject, found, fix)
        }
        _ => {
            let fix = "run kelvin doctor again, and see the log of PostgreSQL if it stays so";
            Finding::warning(name, subject, found, fix)
        }
    }
}
