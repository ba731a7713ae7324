//! Transactions that stay open: a new slot waits for them, and WAL is held back to their start.

use super::examination::Scope;
use super::finding::{Finding, State, count, seconds};
use crate::Result;
use crate::quote::literal;

const TRANSACTIONS: &str = "transactions";
const PREPARED: &str = "prepared";

/// Most transactions that are told one by one.
const MAX_TOLD: usize = 5;

/// A transaction that wrote something and is not at its end.
struct Open {
    /// The process, or the identifier of a prepared one, as a statement to end it wants it.
    end: String,
    what: String,
    age: u64,
}

/// Only one that wrote something has a `backend_xid`, and only these are waited for.
const WRITERS: &str = "
    SELECT pid, coalesce(usename::text, ''), coalesce(state, ''),
           floor(extract(epoch FROM now() - xact_start))::bigint
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    ORDER BY xact_start";

const SEES_OTHERS: &str = "
    SELECT rolsuper OR pg_has_role(session_user, 'pg_read_all_stats', 'MEMBER')
    FROM pg_roles WHERE rolname = session_user";

pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let mut open = Vec::new();
    for row in scope.sql.query(WRITERS, &[]).await? {
        let (pid, role, state): (i32, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        open.push(Open {
            end: format!("SELECT pg_terminate_backend({pid})"),
            what: format!("process {pid} of role {role:?}, {state}"),
            age: u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0),
        });
    }
    let mut findings = judge(&open, TRANSACTIONS, "open transactions", &scope);
    let sees: bool = scope.sql.query_one(SEES_OTHERS, &[]).await?.try_get(0)?;
    if !sees {
        findings.retain(|finding| finding.state > State::Ok);
        let found = "only those of the role itself can be seen";
        let fix = format!("GRANT pg_read_all_stats TO {}", scope.role());
        findings.push(Finding::note(TRANSACTIONS, "open transactions", found, fix));
    }
    Ok(findings)
}

const PREPARED_ONES: &str = "
    SELECT gid, owner::text, floor(extract(epoch FROM now() - prepared))::bigint
    FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

pub(super) async fn prepared(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let mut open = Vec::new();
    for row in scope.sql.query(PREPARED_ONES, &[]).await? {
        let (gid, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let name = literal(&gid);
        open.push(Open {
            end: format!("COMMIT PREPARED {name} or ROLLBACK PREPARED {name}"),
            what: format!("{name} of role {role:?}"),
            age: u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0),
        });
    }
    Ok(judge(&open, PREPARED, "prepared transactions", &scope))
}

/// `open` is in the order of age, oldest first.
fn judge(open: &[Open], check: &'static str, subject: &str, scope: &Scope<'_>) -> Vec<Finding> {
    let long = scope.limits.long_transaction.as_secs();
    // A slot is not waited for longer than this.
    let waits = scope.options.slot_timeout.as_secs();
    let mut findings = Vec::new();
    for old in open
        .iter()
        .filter(|one| one.age >= waits.min(long))
        .take(MAX_TOLD)
    {
        let age = seconds(old.age);
        let finding = if old.age >= long {
            let found = format!(
                "{}: open for {age}, which holds back WAL of every slot",
                old.what
            );
            Finding::warning(check, subject, found, &old.end)
        } else {
            let found = format!(
                "{}: open for {age}; a first copy waits for its end",
                old.what
            );
            Finding::note(check, subject, found, &old.end)
        };
        findings.push(finding);
    }
    if findings.is_empty() {
        let found = match open.len() {
            0 => "none".to_owned(),
            number => format!("{}, none for long", count(number, "writes", "write")),
        };
        findings.push(Finding::ok(check, subject, found));
    }
    findings
}
