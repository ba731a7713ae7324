//! Functions and event triggers by which PostgreSQL tells of changes of the schema in the stream.
//!
//! INVARIANT: they never break or hold up a statement of somebody else. Whatever fails within them
//! is caught, and they take no lock on a table.

use tokio_postgres::{GenericClient, Transaction};

use crate::Result;
use crate::options::{Options, Shard};
use crate::quote::{identifier, literal, qualified};

/// Commands after which tables may be others.
const TAGS: [&str; 9] = [
    "CREATE TABLE",
    "CREATE TABLE AS",
    "SELECT INTO",
    "ALTER TABLE",
    "CREATE INDEX",
    "ALTER SCHEMA",
    "ALTER TYPE",
    "ALTER PUBLICATION",
    "COMMENT",
];

/// Which tables the publications publish with every kind of change, of all or of one. Unlike
/// `pg_publication_tables`, it locks none.
const PUBLISHED: &str = "
    SELECT c.oid
    FROM pg_class c
    CROSS JOIN LATERAL (
      SELECT c.oid AS relid
      UNION SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) AS a (relid)
      WHERE c.relispartition) AS a
    JOIN pg_class r ON r.oid = a.relid
    JOIN pg_publication p ON p.pubname = ANY (PUBLICATIONS)
    WHERE (one IS NULL OR c.oid = one)
      AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
      AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate
      AND (c.relkind = 'r' OR p.pubviaroot)
      AND (p.puballtables
           OR EXISTS (SELECT FROM pg_publication_rel e WHERE e.prpubid = p.oid AND e.prrelid = r.oid)
           OR EXISTS (SELECT FROM pg_publication_namespace s
                      WHERE s.pnpubid = p.oid AND s.pnnspid = r.relnamespace))
    GROUP BY c.oid
    HAVING bool_or(NOT p.pubviaroot) OR bool_or(r.oid = c.oid)";

const DDL_END: &str = "
    DECLARE
      one record;
      roots bigint[];
      fresh bigint[];
      now8 bigint;
    BEGIN
      IF TG_TAG = 'ALTER PUBLICATION' OR TG_TAG = 'COMMENT' AND EXISTS (
        SELECT FROM pg_event_trigger_ddl_commands() AS d
        JOIN pg_publication p ON p.oid = d.objid
        WHERE d.object_type = 'publication' AND p.pubname = ANY (PUBLICATIONS))
      THEN
        PERFORM pg_logical_emit_message(true, PREFIX, json_build_object('published',
          coalesce((SELECT json_agg(t::bigint) FROM IS_PUBLISHED(NULL) AS t), '[]'))::text);
        RETURN;
      END IF;
      IF TG_TAG = 'COMMENT' THEN
        RETURN;
      END IF;
      IF TG_TAG IN ('ALTER TYPE', 'ALTER SCHEMA') THEN
        PERFORM pg_logical_emit_message(true, PREFIX, '{}');
        RETURN;
      END IF;
      FOR one IN
        SELECT DISTINCT coalesce(x.indrelid, c.oid)::bigint AS oid, t.relkind, t.relispartition
        FROM pg_event_trigger_ddl_commands() AS d
        JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_index x ON x.indexrelid = c.oid
        JOIN pg_class t ON t.oid = coalesce(x.indrelid, c.oid)
        WHERE t.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      LOOP
        IF TG_TAG = 'CREATE TABLE' AND one.relispartition THEN
          PERFORM pg_logical_emit_message(true, PREFIX, json_build_object('made',
            json_build_object('table', one.oid, 'parent', i.inhparent::bigint))::text)
          FROM pg_inherits i WHERE i.inhrelid = one.oid::oid;
        ELSIF NOT EXISTS (SELECT FROM IS_PUBLISHED(one.oid::oid)) THEN
          IF TG_TAG = 'ALTER TABLE' THEN
            PERFORM pg_logical_emit_message(true, PREFIX,
              json_build_object('unpublished', ARRAY[one.oid])::text);
          END IF;
        ELSE
          PERFORM pg_logical_emit_message(true, PREFIX, '{}');
        END IF;
        IF TG_TAG = 'ALTER TABLE' AND one.relkind = 'p' THEN
          -- Rows of this transaction are seen, but not by its snapshot, until a later one has ended:
          -- a snapshot does not list its own transaction as running.
          now8 := pg_current_xact_id()::text::bigint;
          fresh := ARRAY(
            SELECT i.inhrelid::bigint FROM pg_inherits i
            CROSS JOIN LATERAL (
              SELECT (now8 >> 32 << 32) + i.xmin::text::bigint AS at) AS x
            WHERE i.inhparent = one.oid::oid AND i.xmin::text::bigint > 2
              AND (CASE
                WHEN x.at >= now8
                  AND x.at < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                THEN pg_xact_status(x.at::text::xid8) = 'in progress'
                ELSE NOT pg_visible_in_snapshot(
                  (CASE WHEN x.at > now8 + 2147483648 THEN x.at - 4294967296 ELSE x.at END)
                    ::text::xid8, pg_current_snapshot()) END));
          roots := ARRAY(
            SELECT a.relid::oid::bigint FROM pg_partition_ancestors(one.oid::oid) AS a (relid));
          PERFORM pg_logical_emit_message(true, PREFIX, json_build_object('partitioned',
            json_build_object('table', one.oid, 'roots', roots, 'fresh', fresh))::text);
        END IF;
      END LOOP;
    EXCEPTION WHEN OTHERS THEN
      RAISE LOG 'kelvin cannot tell of %: %', TG_TAG, SQLERRM;
    END";

const DROPPED: &str = "
    BEGIN
      IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d
                 WHERE NOT d.is_temporary AND d.original
                   AND d.object_type IN ('table', 'publication', 'schema')) THEN
        PERFORM pg_logical_emit_message(true, PREFIX, '{}');
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE LOG 'kelvin cannot tell of %: %', TG_TAG, SQLERRM;
    END";

/// Of the reasons for a rewrite, 4 is another type, or the same by another expression.
const REWRITE: &str = "
    DECLARE
      rewritten oid := pg_event_trigger_table_rewrite_oid();
    BEGIN
      IF pg_event_trigger_table_rewrite_reason() & 4 <> 0 AND EXISTS (
        SELECT FROM pg_class WHERE oid = rewritten AND relpersistence = 'p')
      THEN
        PERFORM pg_logical_emit_message(true, PREFIX, json_build_object('rewritten', ARRAY(
          SELECT rewritten::bigint
          UNION SELECT a.relid::oid::bigint FROM pg_partition_ancestors(rewritten) AS a (relid)))::text);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE LOG 'kelvin cannot tell of %: %', TG_TAG, SQLERRM;
    END";

/// An event trigger of ours.
struct Trigger {
    /// End of its name and of its function's.
    name: &'static str,
    event: &'static str,
    body: &'static str,
}

const TRIGGERS: [Trigger; 3] = [
    Trigger {
        name: "ddl_end",
        event: "ddl_command_end",
        body: DDL_END,
    },
    Trigger {
        name: "dropped",
        event: "sql_drop",
        body: DROPPED,
    },
    Trigger {
        name: "rewrite",
        event: "table_rewrite",
        body: REWRITE,
    },
];

/// Name of one of our event triggers, which are not in a schema.
fn trigger_name(shard: &Shard, trigger: &Trigger) -> String {
    format!("kelvin_{}_{}", shard.schema(), trigger.name)
}

/// Names of all of them.
pub(crate) fn trigger_names(shard: &Shard) -> Vec<String> {
    let names = TRIGGERS.iter().map(|trigger| trigger_name(shard, trigger));
    names.collect()
}

/// Creates what is missing or of another version, or drops it where it is not wanted. Without the
/// right to create event triggers kelvin does without.
pub(super) async fn ensure(
    transaction: &mut Transaction<'_>,
    options: &Options,
    publications: &[String],
) -> Result<()> {
    let shard = options.shard();
    let attempt = transaction.transaction().await?;
    let hook = ensure_hook(&attempt, &shard).await;
    end(attempt, hook, "migrations cannot call update_schemas()").await?;
    let attempt = transaction.transaction().await?;
    let triggers = if options.event_triggers {
        create(&attempt, &shard, publications).await
    } else {
        drop_all(&attempt, &shard).await
    };
    let without = "some changes of the schema are found later, and a few not at all";
    end(attempt, triggers, without).await
}

/// Keeps what was done, or nothing of it where the role may not do it.
async fn end(attempt: Transaction<'_>, outcome: Result<()>, without: &str) -> Result<()> {
    match outcome {
        Ok(()) => attempt.commit().await?,
        Err(error) if error.sqlstate() == Some("42501") => {
            attempt.rollback().await?;
            tracing::info!(%error, "the role may not manage event triggers or functions: {without}");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The function by which migrations say that they are done, if zero-cache's is not there already.
/// zero-cache replaces this one by its own.
async fn ensure_hook(transaction: &Transaction<'_>, shard: &Shard) -> Result<()> {
    let there = transaction
        .query_opt(
            "SELECT 1 FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
             WHERE n.nspname = $1 AND f.proname = 'update_schemas' AND f.pronargs = 0",
            &[&shard.schema()],
        )
        .await?;
    if there.is_none() {
        let create = format!(
            "CREATE FUNCTION {}() RETURNS void LANGUAGE plpgsql AS $kelvin$
             BEGIN
               PERFORM pg_logical_emit_message(true, {}, '{{}}');
             END $kelvin$",
            qualified(&shard.schema(), "update_schemas"),
            literal(&shard.ddl_prefix())
        );
        transaction.batch_execute(&create).await?;
    }
    Ok(())
}

async fn create(
    transaction: &Transaction<'_>,
    shard: &Shard,
    publications: &[String],
) -> Result<()> {
    let names: Vec<_> = publications.iter().map(|name| literal(name)).collect();
    let names = format!("ARRAY[{}]::name[]", names.join(", "));
    let published = qualified(&shard.schema(), "kelvin_published");
    let fill = |body: &str| {
        body.replace("PUBLICATIONS", &names)
            .replace("IS_PUBLISHED", &published)
            .replace("PREFIX", &literal(&shard.ddl_prefix()))
    };
    let head = format!("{published}(one oid) RETURNS SETOF oid LANGUAGE sql STABLE");
    ensure_function(
        transaction,
        shard,
        "kelvin_published",
        &head,
        &fill(PUBLISHED),
    )
    .await?;
    for trigger in &TRIGGERS {
        let function = format!("kelvin_{}", trigger.name);
        let called = qualified(&shard.schema(), &function);
        let head = format!("{called}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER");
        ensure_function(transaction, shard, &function, &head, &fill(trigger.body)).await?;
        let name = trigger_name(shard, trigger);
        let there = "SELECT 1 FROM pg_event_trigger WHERE evtname = $1";
        if transaction.query_opt(there, &[&name]).await?.is_some() {
            continue;
        }
        let tags: Vec<_> = TAGS.iter().map(|tag| literal(tag)).collect();
        let filter = match trigger.event {
            "ddl_command_end" => format!("WHEN TAG IN ({})", tags.join(", ")),
            _ => String::new(),
        };
        let name = identifier(&name);
        // Also for sessions that apply what comes from elsewhere, where ordinary triggers rest.
        let create = format!(
            "CREATE EVENT TRIGGER {name} ON {} {filter} EXECUTE FUNCTION {called}();
             ALTER EVENT TRIGGER {name} ENABLE ALWAYS",
            trigger.event
        );
        transaction.batch_execute(&create).await?;
    }
    Ok(())
}

/// Creates or replaces a function, unless it is there as it is to be.
async fn ensure_function(
    transaction: &Transaction<'_>,
    shard: &Shard,
    name: &str,
    head: &str,
    body: &str,
) -> Result<()> {
    let source = transaction
        .query_opt(
            "SELECT f.prosrc FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
             WHERE n.nspname = $1 AND f.proname = $2",
            &[&shard.schema(), &name],
        )
        .await?;
    let source: Option<String> = source.map(|row| row.try_get(0)).transpose()?;
    if source.as_deref() == Some(body) {
        return Ok(());
    }
    let create = format!(
        "CREATE OR REPLACE FUNCTION {head} SET search_path = pg_catalog, pg_temp
         AS $kelvin${body}$kelvin$"
    );
    Ok(transaction.batch_execute(&create).await?)
}

/// Drops the event triggers and their functions where no replica is left that listens to them.
pub(crate) async fn drop_unheard(client: &impl GenericClient, shard: &Shard) -> Result<()> {
    let listening = format!("SELECT 1 FROM {} LIMIT 1", shard.replicas_table());
    if client.query_opt(&listening, &[]).await?.is_none() {
        drop_all(client, shard).await?;
    }
    Ok(())
}

/// Drops the event triggers and their functions.
async fn drop_all(client: &impl GenericClient, shard: &Shard) -> Result<()> {
    let names = trigger_names(shard);
    let there = client
        .query(
            "SELECT evtname::text FROM pg_event_trigger WHERE evtname = ANY ($1)",
            &[&names],
        )
        .await?;
    for row in there {
        let name: String = row.try_get(0)?;
        let drop = format!("DROP EVENT TRIGGER {}", identifier(&name));
        client.batch_execute(&drop).await?;
    }
    let functions = TRIGGERS.iter().map(|it| format!("kelvin_{}()", it.name));
    let functions = functions.chain(["kelvin_published(oid)".to_owned()]);
    for function in functions {
        let schema = identifier(&shard.schema());
        let drop = format!("DROP FUNCTION IF EXISTS {schema}.{function}");
        client.batch_execute(&drop).await?;
    }
    Ok(())
}
