//! Whether there is room: slots, WAL senders, connections.

use super::APPLICATION;
use super::examination::Scope;
use super::finding::{Finding, State, count};
use crate::options::Options;
use crate::{Result, advice};

const SLOTS: &str = "slots";
const SENDERS: &str = "senders";
const CONNECTIONS: &str = "connections";

/// Connections beside those that copy: set-up, snapshot, schema watch, and one to mend things with.
const FURTHER_CONNECTIONS: i64 = 4;

/// A resource of which some is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    used: i64,
    limit: i64,
    /// Whether some of it is ours already.
    ours: bool,
}

impl Usage {
    fn free(self) -> i64 {
        (self.limit - self.used).max(0)
    }

    fn shown(self) -> String {
        format!("{} of {} are free", self.free(), self.limit)
    }
}

const SLOT_USAGE: &str = r"
    SELECT count(*), current_setting('max_replication_slots')::bigint,
           coalesce(bool_or(slot_name ~ $1 AND database = current_database()), false),
           string_agg(slot_name, ', ' ORDER BY slot_name) FILTER (WHERE NOT active)
    FROM pg_replication_slots";

pub(super) async fn slots(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope
        .sql
        .query_one(SLOT_USAGE, &[&scope.options.shard().slot_names()])
        .await?;
    let usage = Usage {
        used: row.try_get(0)?,
        limit: row.try_get(1)?,
        ours: row.try_get(2)?,
    };
    let idle: Option<String> = row.try_get(3)?;
    let raise = scope.provider.set(
        "max_replication_slots",
        &(usage.limit + 4).to_string(),
        true,
    );
    Ok(vec![judge_slots(usage, idle.as_deref(), &raise)])
}

fn judge_slots(usage: Usage, idle: Option<&str>, raise: &str) -> Finding {
    let subject = "replication slots";
    let drop = idle.map(|names| {
        format!(
            "drop those nobody needs (SELECT pg_drop_replication_slot('…'); idle: {names}), or "
        )
    });
    let fix = format!("{}{raise}", drop.unwrap_or_default());
    match usage.free() {
        0 if !usage.ours => {
            let mut advice = advice::no_free_slot(&format!("all {} are used", usage.limit));
            advice.fix = fix;
            Finding::of(State::Error, SLOTS, subject, advice)
        }
        0 => Finding::note(
            SLOTS,
            subject,
            format!(
                "{}, one is ours; a second kelvin of this app could not start",
                usage.shown()
            ),
            fix,
        ),
        _ => Finding::ok(SLOTS, subject, usage.shown()),
    }
}

const SENDER_USAGE: &str = "
    SELECT count(*) FILTER (WHERE application_name IS DISTINCT FROM $1),
           current_setting('max_wal_senders')::bigint,
           EXISTS (SELECT 1 FROM pg_replication_slots
                   WHERE active AND slot_name ~ $2 AND database = current_database())
    FROM pg_stat_replication";

pub(super) async fn senders(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let pattern = scope.options.shard().slot_names();
    let row = scope
        .sql
        .query_one(SENDER_USAGE, &[&APPLICATION, &pattern])
        .await?;
    let usage = Usage {
        used: row.try_get(0)?,
        limit: row.try_get(1)?,
        ours: row.try_get(2)?,
    };
    let fix = scope
        .provider
        .set("max_wal_senders", &(usage.limit + 4).to_string(), true);
    let subject = "WAL senders";
    Ok(vec![match usage.free() {
        0 if !usage.ours => {
            let found = format!("all {} are used, and kelvin needs one", usage.limit);
            Finding::error(SENDERS, subject, found, fix)
        }
        0 => Finding::note(
            SENDERS,
            subject,
            format!("{}, one is ours", usage.shown()),
            fix,
        ),
        _ => Finding::ok(SENDERS, subject, usage.shown()),
    }])
}

const CONNECTION_USAGE: &str = "
    SELECT (SELECT count(*) FROM pg_stat_activity
            WHERE backend_type IS NULL OR backend_type = 'client backend'),
           current_setting('max_connections')::bigint
             - current_setting('superuser_reserved_connections')::bigint,
           (SELECT count(*) FROM pg_stat_activity WHERE usename = session_user),
           (SELECT rolconnlimit::bigint FROM pg_roles WHERE rolname = session_user)";

pub(super) async fn connections(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope.sql.query_one(CONNECTION_USAGE, &[]).await?;
    let all = Usage {
        used: row.try_get(0)?,
        limit: row.try_get(1)?,
        ours: false,
    };
    let role = Usage {
        used: row.try_get(2)?,
        limit: row.try_get(3)?,
        ours: false,
    };
    let raise = scope
        .provider
        .set("max_connections", &(all.limit * 2).to_string(), true);
    let mut findings = vec![judge_connections(all, scope.options, &raise)];
    // A role without a limit has -1.
    if role.limit >= 0 {
        let raise = format!("ALTER ROLE {} CONNECTION LIMIT -1", scope.role());
        findings.push(judge_connections(role, scope.options, &raise));
    }
    Ok(findings)
}

fn judge_connections(usage: Usage, options: &Options, raise: &str) -> Finding {
    let copying = i64::try_from(options.copy_workers.max(1)).unwrap_or(i64::MAX - 16);
    let needed = copying + FURTHER_CONNECTIONS;
    if usage.free() >= needed {
        return Finding::ok(CONNECTIONS, CONNECTIONS, usage.shown());
    }
    let needed = count(
        usize::try_from(needed).unwrap_or(usize::MAX),
        "connection",
        "connections",
    );
    Finding::warning(
        CONNECTIONS,
        CONNECTIONS,
        format!("{}, but the first copy takes {needed}", usage.shown()),
        format!("{raise}, or lower ZERO_INITIAL_SYNC_TABLE_COPY_WORKERS"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used: i64, limit: i64, ours: bool) -> Usage {
        Usage { used, limit, ours }
    }

    #[test]
    fn a_full_house_is_an_error_only_for_those_who_are_not_in() {
        let state = |usage| judge_slots(usage, None, "raise").state;
        assert_eq!(state(usage(4, 4, false)), State::Error);
        assert_eq!(state(usage(4, 4, true)), State::Note);
        assert_eq!(state(usage(3, 4, false)), State::Ok);
        let finding = judge_slots(usage(1, 1, false), Some("old"), "raise it");
        let fix = finding.fix.unwrap();
        assert!(
            fix.contains("idle: old") && fix.ends_with("raise it"),
            "{fix}"
        );
    }

    #[test]
    fn connections_must_do_for_the_copy() {
        let options = Options::default();
        let state =
            |free: i64| judge_connections(usage(100 - free, 100, false), &options, "").state;
        assert_eq!(state(9), State::Ok);
        assert_eq!(state(8), State::Warning);
    }
}
