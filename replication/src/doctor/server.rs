//! What kind of server it is.

use super::examination::Scope;
use super::finding::{Finding, State};
use super::provider::{Provider, ROLES};
use crate::preflight::{OLDEST_VERSION, fixed_by};
use crate::{Result, advice};

const VERSION: &str = "version";
const STANDBY: &str = "standby";
const WAL_LEVEL: &str = "wal_level";

/// `server_version_num`, and who runs the server.
pub(super) async fn identify(scope: &Scope<'_>) -> Result<(i32, Provider)> {
    let names: Vec<&str> = ROLES.iter().map(|(role, _)| *role).collect();
    let row = scope
        .sql
        .query_one(
            "SELECT current_setting('server_version_num')::int,
                    ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1))",
            &[&names],
        )
        .await?;
    let roles: Vec<String> = row.try_get(1)?;
    Ok((row.try_get(0)?, Provider::of(&roles)))
}

pub(super) async fn version(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope
        .sql
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
            &[],
        )
        .await?;
    let (number, text): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let finding = if number < OLDEST_VERSION {
        let advice = advice::too_old(&scope.address.host, &text);
        Finding::of(State::Error, VERSION, VERSION, advice)
    } else if let Some(fixed_by) = fixed_by(number) {
        let advice = advice::lingers(&text, fixed_by);
        Finding::of(State::Note, VERSION, VERSION, advice)
    } else {
        let by = scope.provider.name().map(|name| format!(", by {name}"));
        let found = format!("PostgreSQL {text}{}", by.unwrap_or_default());
        Finding::ok(VERSION, VERSION, found)
    };
    Ok(vec![finding])
}

pub(super) async fn standby(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope
        .sql
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await?;
    let subject = "kind of server";
    let finding = if row.try_get(0)? {
        Finding::of(
            State::Error,
            STANDBY,
            subject,
            advice::standby(&scope.address.host),
        )
    } else {
        Finding::ok(STANDBY, subject, "a primary, which takes writes")
    };
    Ok(vec![finding])
}

pub(super) async fn wal_level(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let row = scope
        .sql
        .query_one("SELECT current_setting('wal_level')", &[])
        .await?;
    let level: String = row.try_get(0)?;
    if level == "logical" {
        return Ok(vec![Finding::ok(WAL_LEVEL, WAL_LEVEL, level)]);
    }
    let mut advice = advice::not_logical(&scope.address.host, &level);
    if let Some(fix) = scope.provider.logical_decoding() {
        fix.clone_into(&mut advice.fix);
    }
    Ok(vec![Finding::of(
        State::Error,
        WAL_LEVEL,
        WAL_LEVEL,
        advice,
    )])
}
