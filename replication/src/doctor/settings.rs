//! Settings that end sessions, cut streams or give up slots.

use std::collections::HashMap;

use super::examination::Scope;
use super::finding::{Finding, bytes, seconds};
use super::provider::Provider;
use crate::Result;

/// Time-outs shorter than this cut the stream at every hiccup, in milliseconds.
const SHORT_SENDER_TIMEOUT: i64 = 5_000;
/// A slot that is given up sooner does not outlast a night without a server, in milliseconds.
const SHORT_SLOT_TIMEOUT: i64 = 86_400_000;

/// What PostgreSQL says of a setting, without what the doctor's own transaction sets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// In `unit`s.
    value: i64,
    unit: String,
}

impl Setting {
    /// The value in milliseconds.
    fn millis(&self) -> i64 {
        let factor = match self.unit.as_str() {
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => 1,
        };
        self.value.saturating_mul(factor)
    }

    /// The value in bytes.
    fn bytes(&self) -> u64 {
        let factor = match self.unit.as_str() {
            "kB" => 1 << 10,
            "8kB" => 1 << 13,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => 1,
        };
        u64::try_from(self.value)
            .unwrap_or(0)
            .saturating_mul(factor)
    }

    /// The time for people.
    fn time(&self) -> String {
        let millis = u64::try_from(self.millis()).unwrap_or(0);
        if millis < 1_000 {
            return format!("{millis} ms");
        }
        seconds(millis / 1_000)
    }
}

/// Those that every session of kelvin turns off.
const SESSION_TIMEOUTS: [&str; 4] = [
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
];

const OTHERS: [&str; 5] = [
    "wal_sender_timeout",
    "max_slot_wal_keep_size",
    "max_wal_size",
    "idle_replication_slot_timeout",
    "default_transaction_read_only",
];

/// How the findings say what to do.
struct Remedies {
    provider: Provider,
    /// `ALTER ROLE … IN DATABASE …`, which beats every other place a setting may come from.
    alter_role: String,
    /// Whether the operator set the silence after which the stream is reconnected.
    inbound_timeout: bool,
}

pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let query = "SELECT name, CASE vartype WHEN 'bool' THEN (reset_val = 'on')::int::text
                                           ELSE reset_val END, coalesce(unit, '')
                 FROM pg_settings WHERE name = ANY ($1)";
    let names = [&SESSION_TIMEOUTS[..], &OTHERS].concat();
    let mut settings = HashMap::new();
    for row in scope.sql.query(query, &[&names]).await? {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let unit = row.try_get(2)?;
        if let Ok(value) = value.parse() {
            settings.insert(name, Setting { value, unit });
        }
    }
    let remedies = Remedies {
        provider: scope.provider,
        alter_role: format!(
            "ALTER ROLE {} IN DATABASE {} SET",
            scope.role(),
            scope.database()
        ),
        inbound_timeout: scope.options.inbound_timeout.is_some(),
    };
    Ok(judge(&settings, &remedies))
}

fn judge(settings: &HashMap<String, Setting>, remedies: &Remedies) -> Vec<Finding> {
    let get = |name: &str| settings.get(name);
    let mut findings = Vec::new();
    findings.extend(get("wal_sender_timeout").map(|found| sender_timeout(found, remedies)));
    findings.push(session_timeouts(settings));
    let read_only = get("default_transaction_read_only");
    if read_only.is_some_and(|found| found.value == 1) {
        findings.push(Finding::error(
            "default_transaction_read_only",
            "default_transaction_read_only",
            "on: kelvin could not set up its tables, nor write mutations",
            format!(
                "{} default_transaction_read_only = off",
                remedies.alter_role
            ),
        ));
    }
    let wal_size = get("max_wal_size").map_or(0, Setting::bytes);
    let keep = get("max_slot_wal_keep_size");
    findings.extend(keep.map(|found| keep_size(found, wal_size, remedies.provider)));
    let idle = get("idle_replication_slot_timeout");
    findings.extend(idle.map(|found| slot_timeout(found, remedies.provider)));
    findings
}

fn sender_timeout(found: &Setting, remedies: &Remedies) -> Finding {
    const NAME: &str = "wal_sender_timeout";
    let set = format!("{} {NAME} = '60s'", remedies.alter_role);
    match found.millis() {
        0 if !remedies.inbound_timeout => Finding::warning(
            NAME,
            NAME,
            "0: a connection that is cut on the way is noticed by neither side",
            format!("set ZERO_UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS=120000, or: {set}"),
        ),
        0 => Finding::ok(
            NAME,
            NAME,
            "0, and ZERO_UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS is set",
        ),
        millis if millis < SHORT_SENDER_TIMEOUT => {
            let found = format!("{}: a short pause cuts the stream", found.time());
            Finding::warning(NAME, NAME, found, set)
        }
        _ => Finding::ok(NAME, NAME, found.time()),
    }
}

/// Time-outs that kelvin turns off wherever it works long.
fn session_timeouts(settings: &HashMap<String, Setting>) -> Finding {
    const CHECK: &str = "session_timeouts";
    let set: Vec<_> = SESSION_TIMEOUTS
        .into_iter()
        .filter_map(|name| Some((name, settings.get(name)?)))
        .filter(|(_, found)| found.value > 0)
        .map(|(name, found)| format!("{name} is {}", found.time()))
        .collect();
    if set.is_empty() {
        return Finding::ok(CHECK, "session time-outs", "none");
    }
    let found = format!(
        "{}; turned off where kelvin copies and streams",
        set.join(", ")
    );
    Finding::ok(CHECK, "session time-outs", found)
}

fn keep_size(found: &Setting, wal_size: u64, provider: Provider) -> Finding {
    const NAME: &str = "max_slot_wal_keep_size";
    if found.value < 0 {
        let set = provider.set(NAME, "'50GB'", false);
        return Finding::note(
            NAME,
            NAME,
            "no limit: while kelvin is away, WAL piles up until the disk of PostgreSQL is full",
            format!(
                "what the disk has to spare; beyond it all tables are compared with the replica: {set}"
            ),
        );
    }
    let size = found.bytes();
    if size < wal_size {
        let set = provider.set(NAME, &format!("'{}MB'", (wal_size * 4) >> 20), false);
        return Finding::warning(
            NAME,
            NAME,
            format!(
                "{}: less than max_wal_size ({}), so a short absence costs reading all tables",
                bytes(size),
                bytes(wal_size)
            ),
            set,
        );
    }
    Finding::ok(NAME, NAME, bytes(size))
}

fn slot_timeout(found: &Setting, provider: Provider) -> Finding {
    const NAME: &str = "idle_replication_slot_timeout";
    match found.millis() {
        0 => Finding::ok(NAME, NAME, "slots are kept however long kelvin is away"),
        millis if millis < SHORT_SLOT_TIMEOUT => Finding::warning(
            NAME,
            NAME,
            format!(
                "{}: a longer absence costs reading all tables",
                found.time()
            ),
            provider.set(NAME, "0", false),
        ),
        _ => Finding::ok(NAME, NAME, found.time()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn found(settings: &[(&str, i64, &str)]) -> Vec<(&'static str, State)> {
        found_with(settings, false)
    }

    fn found_with(settings: &[(&str, i64, &str)], inbound: bool) -> Vec<(&'static str, State)> {
        let settings = settings.iter().map(|(name, value, unit)| {
            let unit = (*unit).to_owned();
            (
                (*name).to_owned(),
                Setting {
                    value: *value,
                    unit,
                },
            )
        });
        let remedies = Remedies {
            provider: Provider::Own,
            alter_role: "ALTER ROLE r IN DATABASE d SET".into(),
            inbound_timeout: inbound,
        };
        let findings = judge(&settings.collect(), &remedies);
        for finding in &findings {
            assert_eq!(
                finding.state == State::Ok,
                finding.fix.is_none(),
                "{finding:?}"
            );
        }
        let states = findings
            .into_iter()
            .map(|finding| (finding.check, finding.state));
        states.filter(|(_, state)| *state != State::Ok).collect()
    }

    #[test]
    fn a_stream_must_be_watched_and_not_too_nervously() {
        let warned = [("wal_sender_timeout", State::Warning)];
        assert_eq!(found(&[("wal_sender_timeout", 0, "ms")]), warned);
        assert_eq!(found(&[("wal_sender_timeout", 500, "ms")]), warned);
        assert_eq!(found(&[("wal_sender_timeout", 60_000, "ms")]), []);
        assert_eq!(found_with(&[("wal_sender_timeout", 0, "ms")], true), []);
    }

    #[test]
    fn time_outs_of_sessions_are_told_and_do_no_harm() {
        for name in SESSION_TIMEOUTS {
            assert_eq!(found(&[(name, 60_000, "ms")]), []);
        }
        let read_only = "default_transaction_read_only";
        assert_eq!(found(&[(read_only, 1, "")]), [(read_only, State::Error)]);
    }

    #[test]
    fn a_slot_must_outlast_an_absence_and_not_fill_the_disk() {
        let (keep, wal) = ("max_slot_wal_keep_size", ("max_wal_size", 1024, "MB"));
        assert_eq!(found(&[(keep, -1, "MB"), wal]), [(keep, State::Note)]);
        assert_eq!(found(&[(keep, 100, "MB"), wal]), [(keep, State::Warning)]);
        assert_eq!(found(&[(keep, 4096, "MB"), wal]), []);
        let idle = "idle_replication_slot_timeout";
        assert_eq!(found(&[(idle, 3_600, "s")]), [(idle, State::Warning)]);
        assert_eq!(found(&[(idle, 2 * 86_400, "s")]), []);
        assert_eq!(found(&[(idle, 0, "s")]), []);
    }
}
