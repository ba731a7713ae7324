//! What the role may do, as the catalogs say.

use super::examination::Scope;
use super::finding::{Finding, State, count};
use super::publications;
use crate::quote::{identifier, qualified};
use crate::{Result, advice, upstream};

const SET_UP: &str = "set_up";
const PUBLISH: &str = "publish";
const SELECT: &str = "select";
const ROW_SECURITY: &str = "row_security";
const EVENT_TRIGGERS: &str = "event_triggers";

/// Most names written into one line; the rest is counted.
const MAX_NAMES: usize = 5;

/// The first few names, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    let shown = names.iter().take(MAX_NAMES).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMES));
    }
    text
}

/// Which of our tables are there, and what the role may not do that it has to.
const SET_UP_RIGHTS: &str = "
    WITH schemas AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY ($1)),
         tables AS (SELECT c.oid, format('%I.%I', s.nspname, c.relname) AS name
                    FROM schemas s JOIN pg_class c ON c.relnamespace = s.oid
                    WHERE (s.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[])))
    SELECT has_database_privilege(current_database(), 'CREATE'),
           ARRAY(SELECT nspname::text FROM schemas),
           ARRAY(SELECT nspname::text FROM schemas WHERE NOT has_schema_privilege(oid, 'USAGE')
                 ORDER BY 1),
           ARRAY(SELECT nspname::text FROM schemas WHERE NOT has_schema_privilege(oid, 'CREATE')
                 ORDER BY 1),
           (SELECT count(*) FROM tables),
           ARRAY(SELECT name FROM tables
                 WHERE NOT (has_table_privilege(oid, 'SELECT')
                            AND has_table_privilege(oid, 'INSERT')
                            AND has_table_privilege(oid, 'UPDATE')
                            AND has_table_privilege(oid, 'DELETE'))
                 ORDER BY 1)";

/// Whether the schemas with the tables of the app are there or can be created.
pub(super) async fn set_up(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let shard = scope.options.shard();
    let expected = upstream::tables(&shard);
    let (schemas, names): (Vec<_>, Vec<_>) = expected.iter().cloned().unzip();
    let row = scope
        .sql
        .query_one(SET_UP_RIGHTS, &[&schemas, &names])
        .await?;
    let (creates, there): (bool, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
    let (mut closed, fixed): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
    let (count, tables): (i64, Vec<String>) = (row.try_get(4)?, row.try_get(5)?);
    let complete = usize::try_from(count) == Ok(expected.len());
    if !complete {
        closed.extend(fixed);
        closed.sort();
        closed.dedup();
    }
    let subject = "right to set up";
    let (role, database) = (scope.role(), scope.database());
    let mut findings = Vec::new();
    if there.len() < 2 && !creates {
        let cause = format!("no CREATE on database {database}");
        let mut advice = advice::may_not_set_up(&cause, scope.options);
        advice.fix = format!("GRANT CREATE ON DATABASE {database} TO {role}");
        findings.push(Finding::of(State::Error, SET_UP, subject, advice));
    }
    for schema in closed {
        let name = identifier(&schema);
        let found = format!("the role may not use schema {name}, which is kelvin's, as its own");
        let fix = format!("ALTER SCHEMA {name} OWNER TO {role}");
        findings.push(Finding::error(SET_UP, subject, found, fix));
    }
    if !tables.is_empty() {
        let grants = tables
            .iter()
            .map(|table| format!("ALTER TABLE {table} OWNER TO {role}"));
        let fix = grants.collect::<Vec<_>>().join("; ");
        let found = format!("the role may not read and write {}", some(&tables));
        findings.push(Finding::error(SET_UP, subject, found, fix));
    }
    if findings.is_empty() {
        let state = if complete {
            "are there"
        } else {
            "can be created"
        };
        let found = format!("schemas {} and {} {state}", shard.app, shard.schema());
        findings.push(Finding::ok(SET_UP, subject, found));
    }
    Ok(findings)
}

/// Whether the publications that are kelvin's are there or can be created.
pub(super) async fn publish(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let shard = scope.options.shard();
    let mut missing = vec![shard.metadata_publication()];
    if scope.options.publications.is_empty() {
        missing.push(shard.default_publication());
    }
    let there = publications::existing(&scope, &missing).await?;
    missing.retain(|name| !there.contains(name));
    let row = scope
        .sql
        .query_one(
            "SELECT has_database_privilege(current_database(), 'CREATE'),
                    (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),
                    EXISTS (SELECT 1 FROM pg_roles
                            WHERE rolname = $1 AND pg_has_role(session_user, oid, 'MEMBER'))",
            &[&scope.provider.admin_role().unwrap_or_default()],
        )
        .await?;
    let (creates, superuser, admin): (bool, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let subject = "right to publish";
    let all = missing.contains(&shard.default_publication());
    let own = "create a publication yourself (CREATE PUBLICATION my_pub FOR TABLE …) and name it in \
               ZERO_APP_PUBLICATIONS";
    let finding = if missing.is_empty() {
        Finding::ok(PUBLISH, subject, "kelvin's publications are there")
    } else if superuser || (creates && !all) {
        Finding::ok(PUBLISH, subject, "kelvin's publications can be created")
    } else if all && admin {
        let name = scope.provider.name().unwrap_or("this service");
        let found = format!(
            "{name} decides whether the role may publish all tables of schema public; the catalogs \
             do not tell"
        );
        Finding::note(PUBLISH, subject, found, format!("if it is refused, {own}"))
    } else if all {
        let found =
            "only a superuser may publish all tables of schema public, which is the default";
        Finding::error(PUBLISH, subject, found, own)
    } else {
        let found = format!("the role may not create publication {}", some(&missing));
        let fix = format!(
            "GRANT CREATE ON DATABASE {} TO {}",
            scope.database(),
            scope.role()
        );
        Finding::error(PUBLISH, subject, found, fix)
    };
    Ok(vec![finding])
}

/// Whether each published table can be read.
pub(super) async fn select(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let tables = publications::tables(
        &scope,
        "NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))",
    )
    .await?;
    let subject = "right to read";
    let names: Vec<_> = tables
        .iter()
        .map(|(schema, name)| qualified(schema, name))
        .collect();
    if names.is_empty() {
        return Ok(vec![Finding::ok(
            SELECT,
            subject,
            "every published table can be read",
        )]);
    }
    let mut schemas: Vec<_> = tables
        .iter()
        .map(|(schema, _)| identifier(schema))
        .collect();
    schemas.dedup();
    let role = scope.role();
    let found = format!(
        "{} cannot be read: {}",
        count(names.len(), "published table", "published tables"),
        some(&names)
    );
    let fix = format!(
        "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {} TO {role}",
        schemas.join(", "),
        names.join(", ")
    );
    Ok(vec![Finding::error(SELECT, subject, found, fix)])
}

/// Whether policies hide rows from the role. The copy would lack them, while the stream has all.
pub(super) async fn row_security(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let tables = publications::tables(&scope, "row_security_active(c.oid)").await?;
    let names: Vec<_> = tables
        .iter()
        .map(|(schema, name)| qualified(schema, name))
        .collect();
    let subject = "row security";
    if names.is_empty() {
        let found = "hides no row of a published table from the role";
        return Ok(vec![Finding::ok(ROW_SECURITY, subject, found)]);
    }
    let found = format!(
        "policies hide rows of {} from the copy, but not from the stream of changes",
        some(&names)
    );
    let fix = format!("ALTER ROLE {} BYPASSRLS", scope.role());
    Ok(vec![Finding::error(ROW_SECURITY, subject, found, fix)])
}

const TRIGGERS: &str = "
    SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
             OR EXISTS (SELECT 1 FROM pg_roles
                        WHERE rolname = $1 AND pg_has_role(session_user, oid, 'MEMBER')),
           ARRAY(SELECT evtname::text FROM pg_event_trigger WHERE evtname = ANY ($2) ORDER BY 1)";

/// Whether event triggers are there or could be created, by which kelvin learns of changes that
/// nothing else tells of. Those of zero-cache are another matter.
pub(super) async fn event_triggers(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let (app, number) = (&scope.options.app_id, scope.options.shard_num);
    let peers = [
        format!("{app}_ddl_start_{number}"),
        format!("{app}_ddl_end_{number}"),
    ];
    let own = upstream::trigger_names(&scope.options.shard());
    let names = [peers.as_slice(), own.as_slice()].concat();
    let admin = scope.provider.admin_role().unwrap_or_default();
    let row = scope.sql.query_one(TRIGGERS, &[&admin, &names]).await?;
    let allowed: bool = row.try_get(0)?;
    let there: Vec<String> = row.try_get(1)?;
    let subject = "event triggers";
    let complete = own.iter().all(|name| there.contains(name));
    let found = match (complete, allowed) {
        (true, _) => "kelvin's are there",
        (false, true) => "can be created by the role",
        (false, false) => {
            "cannot be created by the role; kelvin compares catalogs, and does not notice what is \
             changed back at once or computed anew in the same type"
        }
    };
    let mut findings = vec![Finding::ok(EVENT_TRIGGERS, subject, found)];
    let theirs: Vec<_> = there.iter().filter(|name| peers.contains(name)).collect();
    if !theirs.is_empty() {
        let drops = theirs
            .iter()
            .map(|name| format!("DROP EVENT TRIGGER {}", identifier(name)));
        let fix = format!(
            "none needed; when zero-cache will not come back: {}",
            drops.collect::<Vec<_>>().join("; ")
        );
        let names: Vec<_> = theirs.into_iter().cloned().collect();
        let found = format!("those of zero-cache are there ({})", some(&names));
        findings.push(Finding::note(EVENT_TRIGGERS, subject, found, fix));
    }
    Ok(findings)
}
