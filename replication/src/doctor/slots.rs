//! The slots of this app: whose they are, and how far behind.

use std::collections::HashMap;

use serde_json::Value;

use super::examination::Scope;
use super::finding::{Finding, State, bytes};
use crate::lineage::Lineage;
use crate::quote::{literal, qualified};
use crate::{Lsn, Result};

const SLOT: &str = "slot";

/// WAL that a slot nobody reads from may hold before that is a warning, in bytes.
const MUCH_WAL: u64 = 1 << 30;

/// Who made a slot, as its name and the table of its maker's replicas say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Kelvin,
    ZeroCache,
    /// Nobody claims it.
    Unknown,
}

/// A slot of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    name: String,
    maker: Maker,
    /// Whether it is the one the replica here follows.
    of_replica: bool,
    active: bool,
    /// WAL not confirmed, in bytes.
    lag: u64,
    /// WAL kept for it, in bytes.
    held: u64,
    /// `wal_status`: reserved, extended, unreserved or lost.
    wal: String,
    /// Why it is invalid, where the server says so.
    invalid: Option<String>,
}

/// Every column there is, for they differ between versions.
const SLOTS: &str = "
    SELECT to_jsonb(s),
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                 ELSE pg_current_wal_lsn() END)::text
    FROM pg_replication_slots s
    WHERE slot_name ~ $1 AND database = current_database()
      AND NOT temporary
    ORDER BY slot_name";

pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let shard = scope.options.shard();
    let rows = scope.sql.query(SLOTS, &[&shard.slot_names()]).await?;
    let makers = makers(&scope).await?;
    let remembered = Lineage::read(&scope.options.replica_dir).and_then(|lineage| lineage.slot);
    let mut slots = Vec::with_capacity(rows.len());
    for row in rows {
        let (facts, now): (Value, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        slots.push(read(&facts, now.as_deref(), &makers, remembered.as_deref()));
    }
    let mut findings: Vec<_> = slots
        .iter()
        .map(|slot| judge(slot, scope.options.auto_reset))
        .collect();
    match remembered {
        Some(name) if !slots.iter().any(|slot| slot.name == name) => {
            findings.push(gone(&name, scope.options.auto_reset));
        }
        None if slots.is_empty() => {
            findings.push(Finding::ok(
                SLOT,
                "slots of this app",
                "none yet; the first start makes one",
            ));
        }
        _ => {}
    }
    let both = [Maker::Kelvin, Maker::ZeroCache]
        .iter()
        .all(|maker| slots.iter().any(|slot| slot.active && slot.maker == *maker));
    if both {
        findings.push(Finding::ok(
            "side_by_side",
            "zero-cache",
            "runs beside kelvin for the same app; each leaves the slots of the other alone",
        ));
    }
    Ok(findings)
}

/// Who made which slot. The tables are not there before the first start, and may be closed to the
/// role.
async fn makers(scope: &Scope<'_>) -> Result<HashMap<String, Maker>> {
    let shard = scope.options.shard();
    let theirs = qualified(&shard.schema(), "replicas");
    // A copy of zero-cache that is not finished has not said so yet.
    let sources = [
        (shard.replicas_table(), "true", Maker::Kelvin),
        (
            theirs,
            r#""initialSyncContext" IS NOT NULL"#,
            Maker::ZeroCache,
        ),
    ];
    let readable = "SELECT coalesce(has_table_privilege(to_regclass($1), 'SELECT'), false)";
    let mut makers = HashMap::new();
    for (table, condition, maker) in sources {
        let row = scope.sql.query_one(readable, &[&table]).await?;
        if !row.try_get::<_, bool>(0)? {
            continue;
        }
        let query = format!("SELECT slot FROM {table} WHERE {condition}");
        for row in scope.sql.query(&query, &[]).await? {
            makers.insert(row.try_get(0)?, maker);
        }
    }
    Ok(makers)
}

fn read(
    facts: &Value,
    now: Option<&str>,
    makers: &HashMap<String, Maker>,
    remembered: Option<&str>,
) -> Slot {
    let text = |name: &str| facts.get(name).and_then(Value::as_str);
    let flag = |name: &str| facts.get(name).and_then(Value::as_bool).unwrap_or(false);
    let position = |text: Option<&str>| text.and_then(|lsn| lsn.parse::<Lsn>().ok());
    let now = position(now);
    let behind = |name: &str| match (now, position(text(name))) {
        (Some(now), Some(there)) => now.0.saturating_sub(there.0),
        _ => 0,
    };
    let name = text("slot_name").unwrap_or_default().to_owned();
    let conflict = flag("conflicting").then(|| "it conflicts with recovery".to_owned());
    Slot {
        maker: makers.get(&name).copied().unwrap_or(Maker::Unknown),
        of_replica: remembered == Some(name.as_str()),
        active: flag("active"),
        lag: behind("confirmed_flush_lsn"),
        held: behind("restart_lsn"),
        wal: text("wal_status").unwrap_or("lost").to_owned(),
        invalid: text("invalidation_reason").map(str::to_owned).or(conflict),
        name,
    }
}

fn judge(slot: &Slot, auto_reset: bool) -> Finding {
    let subject = format!("slot {}", slot.name);
    let drop = format!("SELECT pg_drop_replication_slot({})", literal(&slot.name));
    let whose = match (slot.maker, slot.of_replica) {
        (_, true) => "of the replica here",
        (Maker::Kelvin, _) => "of another kelvin",
        (Maker::ZeroCache, _) => "of zero-cache",
        (Maker::Unknown, _) => "of nobody known",
    };
    if slot.wal == "lost" || slot.invalid.is_some() {
        let why = slot.invalid.as_deref().unwrap_or("WAL it needs is gone");
        let state = if auto_reset || !slot.of_replica {
            State::Warning
        } else {
            State::Error
        };
        let fix = match (slot.of_replica, auto_reset) {
            (true, true) => "start kelvin, which copies what its replica lacks".to_owned(),
            (true, false) => {
                "start kelvin with ZERO_AUTO_RESET=true, to copy what its replica lacks".to_owned()
            }
            (false, _) => drop,
        };
        let advice = crate::advice::Advice::new(format!("{whose}, invalidated: {why}"), fix);
        return Finding::of(state, SLOT, subject, advice);
    }
    let lag = format!(
        "{} behind, holds {} of WAL",
        bytes(slot.lag),
        bytes(slot.held)
    );
    let fix = if slot.of_replica {
        "start kelvin; if it is not to come back: ".to_owned() + &drop
    } else {
        "none needed, if it is to come back; else: ".to_owned() + &drop
    };
    if slot.wal == "unreserved" {
        let found = format!("{whose}, {lag}, and is about to be invalidated");
        return Finding::warning(SLOT, subject, found, fix);
    }
    if slot.active {
        return Finding::ok(SLOT, subject, format!("{whose}, active, {lag}"));
    }
    let found = format!("{whose}, inactive, {lag}");
    if slot.held >= MUCH_WAL {
        Finding::warning(SLOT, subject, found, fix)
    } else {
        Finding::note(SLOT, subject, found, fix)
    }
}

fn gone(name: &str, auto_reset: bool) -> Finding {
    let subject = format!("slot {name}");
    let found = "of the replica here, is not in PostgreSQL any more";
    if auto_reset {
        let fix = "start kelvin, which copies what its replica lacks";
        Finding::warning(SLOT, subject, found, fix)
    } else {
        let fix = "start kelvin with ZERO_AUTO_RESET=true, to copy what its replica lacks";
        Finding::error(SLOT, subject, found, fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(changes: &Value) -> Slot {
        let mut facts = serde_json::json!({
            "slot_name": "kelvin_zero_0_a", "active": false, "wal_status": "reserved",
            "restart_lsn": "0/1000", "confirmed_flush_lsn": "0/2000",
        });
        for (name, value) in changes.as_object().unwrap() {
            facts[name] = value.clone();
        }
        let makers = HashMap::from([("kelvin_zero_0_a".to_owned(), Maker::Kelvin)]);
        read(&facts, Some("0/3000"), &makers, Some("kelvin_zero_0_a"))
    }

    #[test]
    fn a_slot_is_told_by_what_each_version_says_of_it() {
        let ours = slot(&serde_json::json!({}));
        assert_eq!((ours.lag, ours.held), (0x1000, 0x2000));
        assert!(ours.of_replica && !ours.active && ours.invalid.is_none());
        let idle = slot(&serde_json::json!({ "invalidation_reason": "idle_timeout" }));
        assert_eq!(idle.invalid.as_deref(), Some("idle_timeout"));
        let conflicting = slot(&serde_json::json!({ "conflicting": true }));
        assert!(conflicting.invalid.is_some());
    }

    #[test]
    fn only_what_ends_replication_is_worse_than_a_warning() {
        let state = |changes: Value, auto_reset| judge(&slot(&changes), auto_reset).state;
        let lost = || serde_json::json!({ "wal_status": "lost" });
        assert_eq!(state(lost(), true), State::Warning);
        assert_eq!(state(lost(), false), State::Error);
        assert_eq!(
            state(serde_json::json!({ "wal_status": "unreserved" }), true),
            State::Warning
        );
        assert_eq!(
            state(serde_json::json!({ "active": true }), true),
            State::Ok
        );
        assert_eq!(state(serde_json::json!({}), true), State::Note);
        let mut much = slot(&serde_json::json!({}));
        much.held = MUCH_WAL;
        assert_eq!(judge(&much, true).state, State::Warning);
    }
}
