//! What of the published tables can be synced, and what publishing does to them.

use std::collections::HashMap;

use super::examination::Scope;
use super::finding::{Finding, bytes, count};
use super::privileges::some;
use super::publications::{selection, tables as published};
use crate::Result;
use crate::discovery::{Discovery, LeftOut, Selection, client_name, discover_selected};
use crate::options::Shard;
use crate::quote::{identifier, qualified};
use crate::upstream::{IdentityCandidate, identity_candidates};

const TABLES: &str = "tables";
const TABLE: &str = "table";
const COLUMN: &str = "column";
const REPLICA_IDENTITY: &str = "replica_identity";
const UNLOGGED: &str = "unlogged";

/// What becomes of a table that PostgreSQL cannot tell the old rows of.
const UNWRITABLE: &str = "UPDATE and DELETE of it fail in PostgreSQL while it is published";

/// The published tables as the replica would hold them, and their size in bytes.
pub(super) async fn look(scope: &Scope<'_>) -> Result<(Vec<Finding>, u64)> {
    let selection = selection(scope).await?;
    let mut discovery = discover_selected(scope.sql, &selection).await?;
    discovery.measure(scope.sql).await?;
    let unwritable = unwritable(scope, &selection).await?;
    let candidates = identity_candidates(scope.sql, &selection).await?;
    let shard = scope.options.shard();
    let (summary, size) = summary(&discovery, &shard);
    let mut findings = vec![summary];
    for table in &discovery.left_out {
        findings.push(left_out(table, unwritable.contains_key(&table.oid)));
    }
    let is_left_out = |oid: u32| discovery.left_out.iter().any(|table| table.oid == oid);
    let mut writable_only: Vec<_> = unwritable.values().collect();
    writable_only.sort_by_key(|table| (&table.schema, &table.name));
    for table in writable_only {
        if !is_left_out(table.oid) {
            let candidate = candidates
                .iter()
                .find(|candidate| candidate.oid == table.oid);
            findings.push(without_identity(table, candidate));
        }
    }
    findings.extend(columns(&discovery));
    Ok((findings, size))
}

fn summary(discovery: &Discovery, shard: &Shard) -> (Finding, u64) {
    let ours = [shard.app.clone(), shard.schema()];
    let tables = discovery.catalog.tables().iter().zip(&discovery.sources);
    let of_app: Vec<_> = tables
        .filter(|(table, _)| !ours.contains(&table.schema))
        .collect();
    let size: u64 = of_app.iter().map(|(_, source)| source.size.bytes).sum();
    let finding = if of_app.is_empty() {
        let fix = "create tables, or name the publications of others in ZERO_APP_PUBLICATIONS";
        Finding::warning(TABLES, TABLES, "none can be synced", fix)
    } else {
        let held = count(of_app.len(), "table", "tables");
        Finding::ok(
            TABLES,
            TABLES,
            format!("{held} to sync, {} in PostgreSQL", bytes(size)),
        )
    };
    (finding, size)
}

fn left_out(table: &LeftOut, unwritable: bool) -> Finding {
    let also = if unwritable {
        format!("; {UNWRITABLE}")
    } else {
        String::new()
    };
    Finding::warning(
        TABLE,
        format!("table {}", table.name),
        format!("not synced, for {}{also}", table.why.found),
        &table.why.fix,
    )
}

fn columns(discovery: &Discovery) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in discovery.catalog.tables() {
        let Some((first, _)) = table.unsynced_columns.first() else {
            continue;
        };
        let columns = table.unsynced_columns.iter();
        let columns: Vec<_> = columns
            .map(|(name, why)| format!("{name} ({why})"))
            .collect();
        let upstream = qualified(&table.schema, &table.upstream_name);
        findings.push(Finding::note(
            COLUMN,
            format!("table {}", table.name),
            format!(
                "{} not synced: {}",
                count(columns.len(), "column is", "columns are"),
                some(&columns)
            ),
            format!(
                "none needed, if clients can do without; else another name, or a type that is \
                 supported: ALTER TABLE {upstream} ALTER COLUMN {} TYPE text",
                identifier(first)
            ),
        ));
    }
    findings
}

/// A published table of which PostgreSQL cannot tell the old rows.
struct Unwritable {
    oid: u32,
    schema: String,
    name: String,
    /// Whether the role may alter it.
    owned: bool,
}

async fn unwritable(scope: &Scope<'_>, selection: &Selection) -> Result<HashMap<u32, Unwritable>> {
    let query = format!(
        "SELECT DISTINCT c.oid, n.nspname::text, c.relname::text,
                pg_has_role(session_user, c.relowner, 'USAGE')
         FROM {} p
         JOIN pg_namespace n ON n.nspname = p.schemaname
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE p.pubname = ANY ($1) AND c.relkind = 'r'
           AND CASE c.relreplident
                 WHEN 'f' THEN false
                 WHEN 'n' THEN true
                 ELSE NOT EXISTS (
                   SELECT 1 FROM pg_index x
                   WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
                     AND CASE c.relreplident WHEN 'i' THEN x.indisreplident
                                             ELSE x.indisprimary END)
               END",
        selection.relation()
    );
    let mut found = HashMap::new();
    for row in scope.sql.query(&query, &[&selection.publications]).await? {
        let table = Unwritable {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            owned: row.try_get(3)?,
        };
        found.insert(table.oid, table);
    }
    Ok(found)
}

fn without_identity(table: &Unwritable, candidate: Option<&IdentityCandidate>) -> Finding {
    let subject = format!("table {}", client_name(&table.schema, &table.name));
    let upstream = qualified(&table.schema, &table.name);
    match candidate {
        Some(candidate) if table.owned => Finding::note(
            REPLICA_IDENTITY,
            subject,
            format!(
                "has no primary key; kelvin makes index {} its REPLICA IDENTITY at its start",
                identifier(&candidate.index)
            ),
            format!("none needed; to have it at once: {}", candidate.statement()),
        ),
        Some(candidate) => Finding::warning(
            REPLICA_IDENTITY,
            subject,
            format!("has no primary key and no REPLICA IDENTITY: {UNWRITABLE}"),
            candidate.statement(),
        ),
        None => Finding::warning(
            REPLICA_IDENTITY,
            subject,
            format!("has no REPLICA IDENTITY that can serve: {UNWRITABLE}"),
            format!("add a primary key, or: ALTER TABLE {upstream} REPLICA IDENTITY FULL"),
        ),
    }
}

/// Tables that write whole old rows into the WAL though they have a primary key.
pub(super) async fn identities(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let full = "c.relreplident = 'f' AND EXISTS (SELECT 1 FROM pg_index x \
                WHERE x.indrelid = c.oid AND x.indisprimary AND x.indimmediate)";
    let tables = published(&scope, full).await?;
    let names: Vec<_> = tables
        .iter()
        .map(|(schema, name)| qualified(schema, name))
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let statements = names
        .iter()
        .map(|name| format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"));
    let fix = statements.collect::<Vec<_>>().join("; ");
    let found = format!(
        "FULL for {}: each update and delete writes the whole old row into the WAL",
        some(&names)
    );
    let fix = format!("none needed, unless others need it: {fix}");
    Ok(vec![Finding::note(
        REPLICA_IDENTITY,
        "replica identity",
        found,
        fix,
    )])
}

const UNLOGGED_TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'u'
      AND (n.nspname = 'public' AND cardinality($1::text[]) = 0
           OR EXISTS (SELECT 1 FROM pg_publication_namespace s
                      JOIN pg_publication p ON p.oid = s.pnpubid
                      WHERE s.pnnspid = n.oid AND p.pubname = ANY ($1)))
    ORDER BY 1";

/// Tables that a publication of their schema leaves out without a word.
pub(super) async fn unlogged(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let mut names: Vec<String> = Vec::new();
    for row in scope
        .sql
        .query(UNLOGGED_TABLES, &[&scope.options.publications])
        .await?
    {
        names.push(row.try_get(0)?);
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let statements = names
        .iter()
        .map(|name| format!("ALTER TABLE {name} SET LOGGED"));
    let fix = statements.collect::<Vec<_>>().join("; ");
    let found = format!("not synced, for they are not in the WAL: {}", some(&names));
    Ok(vec![Finding::note(UNLOGGED, "unlogged tables", found, fix)])
}
