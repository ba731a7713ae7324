//! Which tables are published, and how.

use super::examination::Scope;
use super::finding::{Finding, State, count};
use super::privileges::some;
use crate::discovery::Selection;
use crate::quote::{identifier, qualified};
use crate::{Result, advice};

const PUBLICATION: &str = "publication";
const PARTITIONS: &str = "partitions";
const ROW_FILTERS: &str = "row_filters";
const COLUMN_LISTS: &str = "column_lists";

/// Tables of the app that its own publication has.
const METADATA_TABLES: i64 = 3;

/// Which of these publications exist.
pub(super) async fn existing(scope: &Scope<'_>, names: &[String]) -> Result<Vec<String>> {
    let query = "SELECT pubname::text FROM pg_publication WHERE pubname = ANY ($1)";
    let mut there = Vec::new();
    for row in scope.sql.query(query, &[&names]).await? {
        there.push(row.try_get(0)?);
    }
    Ok(there)
}

/// What is published to this app, or will be when kelvin has started once.
pub(super) async fn selection(scope: &Scope<'_>) -> Result<Selection> {
    let shard = scope.options.shard();
    let mut publications = scope.options.publications.clone();
    let mut pending = None;
    if publications.is_empty() {
        let default = shard.default_publication();
        if existing(scope, std::slice::from_ref(&default))
            .await?
            .is_empty()
        {
            pending = Some(default.clone());
        }
        publications.push(default);
    }
    publications.push(shard.metadata_publication());
    Ok(Selection {
        publications,
        pending,
    })
}

/// Schema and name of the published tables that meet a condition on `n`, their `pg_namespace`, and
/// `c`, their `pg_class`.
pub(super) async fn tables(scope: &Scope<'_>, condition: &str) -> Result<Vec<(String, String)>> {
    let selection = selection(scope).await?;
    let query = format!(
        "SELECT DISTINCT n.nspname::text, c.relname::text
         FROM {} p
         JOIN pg_namespace n ON n.nspname = p.schemaname
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE p.pubname = ANY ($1) AND ({condition})
         ORDER BY 1, 2",
        selection.relation()
    );
    let mut tables = Vec::new();
    for row in scope.sql.query(&query, &[&selection.publications]).await? {
        tables.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(tables)
}

const FACTS: &str = "
    SELECT pubname::text, pubinsert AND pubupdate AND pubdelete AND pubtruncate,
           (SELECT count(*) FROM pg_publication_tables t WHERE t.pubname = p.pubname)
    FROM pg_publication p WHERE pubname = ANY ($1) ORDER BY 1";

/// Each publication: whether it is there, publishes something, and publishes every operation.
pub(super) async fn look(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let selection = selection(&scope).await?;
    let metadata = scope.options.shard().metadata_publication();
    let mut facts = std::collections::BTreeMap::new();
    for row in scope.sql.query(FACTS, &[&selection.publications]).await? {
        let name: String = row.try_get(0)?;
        facts.insert(
            name,
            (row.try_get::<_, bool>(1)?, row.try_get::<_, i64>(2)?),
        );
    }
    let judged = selection.publications.iter().map(|name| {
        let subject = format!("publication {name}");
        match facts.get(name) {
            None if scope.options.publications.contains(name) => {
                let advice = advice::publication_missing(name);
                Finding::of(State::Error, PUBLICATION, subject, advice)
            }
            None => Finding::ok(PUBLICATION, subject, "is created at the first start"),
            Some((false, _)) => {
                let advice = advice::publication_leaves_out(name);
                Finding::of(State::Error, PUBLICATION, subject, advice)
            }
            Some((true, tables)) if *name == metadata => judge_metadata(&subject, name, *tables),
            Some((true, 0)) => Finding::warning(
                PUBLICATION,
                subject,
                "publishes no table",
                format!("ALTER PUBLICATION {} ADD TABLE …", identifier(name)),
            ),
            Some((true, tables)) => {
                let number = usize::try_from(*tables).unwrap_or(usize::MAX);
                Finding::ok(PUBLICATION, subject, count(number, "table", "tables"))
            }
        }
    });
    let mut findings: Vec<Finding> = judged.collect();
    findings.extend(changed(&scope, &selection).await?);
    Ok(findings)
}

fn judge_metadata(subject: &str, name: &str, tables: i64) -> Finding {
    if tables == METADATA_TABLES {
        return Finding::ok(PUBLICATION, subject, "the app's own tables");
    }
    Finding::error(
        PUBLICATION,
        subject,
        format!("has {tables} of the app's own {METADATA_TABLES} tables"),
        format!(
            "DROP PUBLICATION {}; kelvin creates it at its next start",
            identifier(name)
        ),
    )
}

/// Whether the list of publications is another one than at the last start.
async fn changed(scope: &Scope<'_>, selection: &Selection) -> Result<Option<Finding>> {
    let table = qualified(&scope.options.shard().schema(), "shardConfig");
    let readable = "SELECT coalesce(has_table_privilege(to_regclass($1), 'SELECT'), false)";
    let readable = scope.sql.query_one(readable, &[&table]).await?;
    if !readable.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let query = format!("SELECT publications FROM {table} LIMIT 1");
    let Some(row) = scope.sql.query_opt(&query, &[]).await? else {
        return Ok(None);
    };
    let (mut before, mut now): (Vec<String>, _) = (row.try_get(0)?, selection.publications.clone());
    before.sort();
    now.sort();
    if before == now {
        return Ok(None);
    }
    let found = format!(
        "the last start had other ones ({}), so all tables will be compared with the replica",
        some(&before)
    );
    let fix = "none needed, if that is meant; else correct ZERO_APP_PUBLICATIONS";
    Ok(Some(Finding::note(PUBLICATION, "publications", found, fix)))
}

const BY_PARTITION: &str = "
    SELECT p.pubname::text, count(*)
    FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname
    JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    WHERE p.pubname = ANY ($1) AND NOT p.pubviaroot AND c.relispartition
    GROUP BY 1 ORDER BY 1";

/// Whether partitions arrive as tables of their own.
pub(super) async fn partitions(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let selection = selection(&scope).await?;
    let mut findings = Vec::new();
    for row in scope
        .sql
        .query(BY_PARTITION, &[&selection.publications])
        .await?
    {
        let (name, number): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let partitions = count(
            usize::try_from(number).unwrap_or(usize::MAX),
            "partition",
            "partitions",
        );
        findings.push(Finding::warning(
            PARTITIONS,
            format!("publication {name}"),
            format!("publishes {partitions} as tables of their own, not as the one they make up"),
            format!(
                "ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
                identifier(&name)
            ),
        ));
    }
    Ok(findings)
}

const FILTERED: &str = "
    SELECT pubname::text, ARRAY_AGG(format('%s (%s)', tablename, rowfilter) ORDER BY tablename)
    FROM pg_publication_tables WHERE pubname = ANY ($1) AND rowfilter IS NOT NULL
    GROUP BY 1 ORDER BY 1";

/// Tables of which only some rows are published.
pub(super) async fn row_filters(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let fix = "none needed, if that is meant; else ALTER PUBLICATION … SET TABLE … without WHERE";
    partly(&scope, FILTERED, ROW_FILTERS, "only some rows", fix).await
}

const LISTED: &str = "
    SELECT p.pubname::text, ARRAY_AGG(c.relname::text ORDER BY c.relname)
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid
    WHERE p.pubname = ANY ($1) AND r.prattrs IS NOT NULL
    GROUP BY 1 ORDER BY 1";

/// Tables of which only some columns are published.
pub(super) async fn column_lists(scope: Scope<'_>) -> Result<Vec<Finding>> {
    let fix = "none needed, if that is meant; else ALTER PUBLICATION … SET TABLE … without columns";
    partly(&scope, LISTED, COLUMN_LISTS, "only some columns", fix).await
}

async fn partly(
    scope: &Scope<'_>,
    query: &str,
    check: &'static str,
    part: &str,
    fix: &str,
) -> Result<Vec<Finding>> {
    let selection = selection(scope).await?;
    let mut findings = Vec::new();
    for row in scope.sql.query(query, &[&selection.publications]).await? {
        let (name, tables): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
        let found = format!("publishes {part} of {}", some(&tables));
        findings.push(Finding::note(
            check,
            format!("publication {name}"),
            found,
            fix,
        ));
    }
    Ok(findings)
}
