//! Whether slots survive a failover to a standby.

use super::examination::Scope;
use super::finding::Finding;
use crate::Result;
use crate::preflight::FAILOVER_VERSION;
use crate::quote::identifier;

const FAILOVER: &str = "failover";
const OPTION: &str = "ZERO_UPSTREAM_PG_REPLICATION_SLOT_FAILOVER";

/// What matters for a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Whether the operator asks for failover slots.
    wanted: bool,
    version: i32,
    /// Standbys that stream now.
    standbys: i64,
    /// Whether the primary waits for standbys before it lets slots go on.
    waits: bool,
    /// Slots of this app without the flag.
    plain: Vec<String>,
}

const FACTS: &str = "
    SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND active),
           coalesce(current_setting('synchronized_standby_slots', true), '') <> '',
           ARRAY(SELECT slot_name::text FROM pg_replication_slots s
                 WHERE slot_name ~ $1 AND database = current_database() AND NOT temporary
                   AND to_jsonb(s)->>'failover' = 'false'
                 ORDER BY 1)";

pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope
        .sql
        .query_one(FACTS, &[&scope.options.shard().slot_names()])
        .await?;
    let facts = Facts {
        wanted: scope.options.failover_slot,
        version: scope.version,
        standbys: row.try_get(0)?,
        waits: row.try_get(1)?,
        plain: row.try_get(2)?,
    };
    let set = scope
        .provider
        .set("synchronized_standby_slots", "'SLOT_OF_THE_STANDBY'", false);
    Ok(judge(&facts, &set))
}

fn judge(facts: &Facts, set: &str) -> Vec<Finding> {
    let knows = facts.version >= FAILOVER_VERSION;
    let subject = "failover slots";
    if facts.wanted && !knows {
        return vec![Finding::warning(
            FAILOVER,
            subject,
            format!("{OPTION} has no effect before PostgreSQL 17"),
            "upgrade PostgreSQL, or leave the option out; a failover costs a new copy meanwhile",
        )];
    }
    if !facts.wanted {
        let found = "there is a standby; a failover to it would lose the slot and cost a new copy";
        let fix = if knows {
            format!("set {OPTION}=true, and sync_replication_slots = on at the standby")
        } else {
            "none before PostgreSQL 17".into()
        };
        return if facts.standbys > 0 {
            vec![Finding::note(FAILOVER, subject, found, fix)]
        } else {
            vec![Finding::ok(
                FAILOVER,
                subject,
                "not asked for, and no standby is connected",
            )]
        };
    }
    let mut findings = Vec::new();
    for name in &facts.plain {
        findings.push(Finding::warning(
            FAILOVER,
            format!("slot {name}"),
            "was made without the failover flag",
            format!(
                "over a replication connection, while kelvin is stopped: ALTER_REPLICATION_SLOT {} \
                 (FAILOVER true)",
                identifier(name)
            ),
        ));
    }
    if facts.standbys == 0 {
        findings.push(Finding::note(
            FAILOVER,
            subject,
            "asked for, but no standby is connected by a slot of its own",
            "at the standby: primary_slot_name, dbname in primary_conninfo, hot_standby_feedback = \
             on and sync_replication_slots = on",
        ));
    } else if !facts.waits {
        findings.push(Finding::warning(
            FAILOVER,
            subject,
            "synchronized_standby_slots is empty, so kelvin may be ahead of the standby",
            set,
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            FAILOVER,
            subject,
            "asked for; whether the standby has sync_replication_slots = on shows only there",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn states(facts: &Facts) -> Vec<State> {
        judge(facts, "set it")
            .iter()
            .map(|finding| finding.state)
            .collect()
    }

    fn wanted() -> Facts {
        Facts {
            wanted: true,
            version: 170_002,
            standbys: 1,
            waits: true,
            ..Facts::default()
        }
    }

    #[test]
    fn failover_slots_need_version_17_the_flag_and_a_primary_that_waits() {
        assert_eq!(states(&wanted()), [State::Ok]);
        let old = Facts {
            version: 160_004,
            ..wanted()
        };
        assert_eq!(states(&old), [State::Warning]);
        let ahead = Facts {
            waits: false,
            ..wanted()
        };
        assert_eq!(states(&ahead), [State::Warning]);
        let plain = Facts {
            plain: vec!["zero_0_a".into()],
            ..wanted()
        };
        assert_eq!(states(&plain), [State::Warning]);
        let alone = Facts {
            standbys: 0,
            ..wanted()
        };
        assert_eq!(states(&alone), [State::Note]);
    }

    #[test]
    fn a_standby_without_failover_slots_is_worth_a_note() {
        let unwanted = Facts {
            wanted: false,
            ..wanted()
        };
        assert_eq!(states(&unwanted), [State::Note]);
        let single = Facts {
            wanted: false,
            standbys: 0,
            ..wanted()
        };
        assert_eq!(states(&single), [State::Ok]);
    }
}
