//! What event triggers and hooks tell of the schema.

use std::time::Duration;

use kelvin_replication::Options;
use kelvin_storage::ReplicaIdentity;

use crate::cluster::Cluster;
use crate::following::{Following, give_up, of_a_new_copy, options, prepared, row, wait};
use crate::schema::contents;

/// So long that nothing is found by looking every so often.
const NEVER: Duration = Duration::from_secs(3600);

const SCHEMA: &str = "DROP SCHEMA IF EXISTS apart CASCADE; DROP SCHEMA public CASCADE;
    CREATE SCHEMA public; CREATE SCHEMA apart;
    DROP PUBLICATION IF EXISTS _zero_public_0, _fresh_public_0;
    CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2);
    CREATE TABLE r (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE r0 PARTITION OF r FOR VALUES FROM (0) TO (9); INSERT INTO r VALUES (1, 1);
    CREATE TABLE other (id int PRIMARY KEY)";

/// Changes of rows that neither the stream nor a comparison of catalogs tells of. Statements make
/// one transaction, but for those after a bar.
const UNTOLD: &[&str] = &[
    "ALTER TABLE t ALTER n TYPE int USING n + 10",
    "ALTER TABLE t ALTER n TYPE int USING n + 10; INSERT INTO t VALUES (3, 3)",
    "UPDATE t SET n = 5 WHERE id = 1; ALTER TABLE t ALTER n TYPE int USING n + 10 | \
     UPDATE t SET n = n + 1 WHERE id = 2",
    "ALTER TABLE r ALTER n TYPE int USING n + 10",
    "CREATE TABLE r1 (id int PRIMARY KEY, n int); INSERT INTO r1 VALUES (10, 10); \
     ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (9) TO (19)",
    "CREATE TABLE r1 (LIKE r INCLUDING ALL) PARTITION BY RANGE (id); \
     CREATE TABLE r11 PARTITION OF r1 FOR VALUES FROM (9) TO (19); \
     INSERT INTO r1 VALUES (10, 10); ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (9) TO (19)",
    "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (9) TO (19); \
     ALTER TABLE r DETACH PARTITION r1; INSERT INTO r1 VALUES (10, 10); \
     ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (9) TO (19)",
    "ALTER TABLE t SET SCHEMA apart | UPDATE apart.t SET n = 7 | ALTER TABLE apart.t SET SCHEMA public",
    "ALTER TABLE t SET SCHEMA apart; UPDATE apart.t SET n = 7; ALTER TABLE apart.t SET SCHEMA public",
    "ALTER PUBLICATION _zero_public_0 SET (publish = 'insert') | UPDATE t SET n = 7; \
     DELETE FROM t WHERE id = 2 | \
     ALTER PUBLICATION _zero_public_0 SET (publish = 'insert, update, delete, truncate')",
    "ALTER PUBLICATION _zero_public_0 DROP TABLES IN SCHEMA public | UPDATE t SET n = 7 | \
     ALTER PUBLICATION _zero_public_0 ADD TABLES IN SCHEMA public",
    "ALTER TABLE t SET UNLOGGED | UPDATE t SET n = 7 | ALTER TABLE t SET LOGGED",
    "SET session_replication_role = replica; ALTER TABLE t ALTER n TYPE int USING n + 10; \
     RESET session_replication_role",
];

/// What a replica says of itself, apart from versions.
fn lineage(identity: &ReplicaIdentity) -> (u64, String) {
    (identity.replica_version, identity.slot.clone())
}

#[tokio::test]
async fn what_only_a_trigger_tells_leads_to_what_a_new_copy_would_have() {
    let cluster = Cluster::start();
    for change in UNTOLD {
        cluster.sql(SCHEMA).await;
        let (options, _directory) = options(&cluster);
        let following = Following::start(&options).await;
        let before = lineage(&following.replica.identity());
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        let expected = of_a_new_copy(&cluster, &options, contents).await;
        wait(|| following.ended() || contents(&following.replica) == expected).await;
        let copies = following.backfills.list();
        assert!(!following.ended(), "{change}");
        let ours = contents(&following.replica);
        assert_eq!(ours, expected, "{change}: {copies:?}");
        assert_eq!(lineage(&following.replica.identity()), before, "{change}");
        following.stop().await;
        give_up(&options).await;
    }
}

#[tokio::test]
async fn a_partition_that_comes_with_rows_is_told_however_many_transactions_end_meanwhile() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let client = cluster.client().await;
    let statements = "BEGIN; CREATE TABLE r1 (id int PRIMARY KEY, n int);
         INSERT INTO r1 VALUES (10, 10); SAVEPOINT s";
    client.batch_execute(statements).await.unwrap();
    cluster.sql("INSERT INTO other VALUES (1)").await;
    let statements = "ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (9) TO (19); COMMIT";
    client.batch_execute(statements).await.unwrap();
    let rows = [row(&["1", "1"]), row(&["10", "10"])];
    following.until_rows("r", &rows).await;
    following.stop().await;
}

/// Changes that are followed without a copy, also with triggers.
const HARMLESS: &[&str] = &[
    "ALTER TABLE t ADD m int DEFAULT 3 | UPDATE t SET m = 4 WHERE id = 1",
    "ALTER TABLE t RENAME n TO m; ALTER TABLE t RENAME TO s",
    "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (9) TO (19); INSERT INTO r VALUES (10, 10); \
     ALTER TABLE r ADD m int",
    "ALTER PUBLICATION _zero_public_0 ADD TABLE t; ALTER PUBLICATION _zero_public_0 DROP TABLE t",
    "CREATE TEMP TABLE x (id int); ALTER TABLE x ALTER id TYPE int USING 1; DROP TABLE x",
    "CREATE TABLE apart.x (id int PRIMARY KEY, n int); \
     ALTER TABLE apart.x ALTER n TYPE int USING 1; DROP TABLE apart.x",
];

#[tokio::test]
async fn triggers_make_no_copy_necessary_where_a_change_can_be_followed() {
    let cluster = Cluster::start();
    for change in HARMLESS {
        cluster.sql(SCHEMA).await;
        let (options, _directory) = options(&cluster);
        let following = Following::start(&options).await;
        let forms = following.replica.catalog().unsynced().to_vec();
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        cluster.sql("INSERT INTO other VALUES (1)").await;
        let mut copied = false;
        wait(|| {
            copied |= !following.backfills.list().is_empty();
            following.rows("other") == [row(&["1"])]
        })
        .await;
        let unsynced = following.replica.catalog().unsynced().to_vec();
        assert_eq!(unsynced, forms, "{change}");
        assert!(!copied && !following.ended(), "{change}");
        following.stop().await;
        give_up(&options).await;
    }
}

/// Options under which changes are only found when somebody tells of them.
fn told_only(cluster: &Cluster, event_triggers: bool) -> (Options, tempfile::TempDir) {
    let (options, directory) = options(cluster);
    let options = Options {
        schema_interval: NEVER,
        event_triggers,
        ..options
    };
    (options, directory)
}

#[tokio::test]
async fn migrations_that_call_the_hook_and_messages_of_zero_cache_are_heard_at_once() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = told_only(&cluster, false);
    let following = Following::start(&options).await;
    for (column, told) in [
        ("a", "SELECT zero_0.update_schemas()"),
        (
            "b",
            "SELECT pg_logical_emit_message(true, 'zero/0/ddl', '{\"type\": \"ddlUpdate\"}')",
        ),
        ("c", "SELECT pg_logical_emit_message(true, 'zero/0', 'x')"),
    ] {
        // What the start brings about is over by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let add = format!("ALTER TABLE t ADD {column} int");
        cluster.sql(&format!("{add}; {told}")).await;
        let has = || {
            let catalog = following.replica.catalog();
            catalog
                .table("t")
                .is_some_and(|table| table.column(column).is_some())
        };
        wait(has).await;
        assert!(has(), "{told}");
    }
    following.stop().await;
}

#[tokio::test]
async fn triggers_tell_at_once_of_what_no_row_follows() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = told_only(&cluster, true);
    let following = Following::start(&options).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.sql("ALTER TABLE t ADD a int").await;
    let columns = || {
        following
            .replica
            .catalog()
            .table("t")
            .map(|it| it.columns.len())
    };
    wait(|| columns() == Some(3)).await;
    assert_eq!(columns(), Some(3));
    cluster.sql("DROP TABLE t").await;
    wait(|| columns().is_none()).await;
    assert_eq!(columns(), None);
    following.stop().await;
}

const OURS: &str = "SELECT string_agg(evtname, ' ' ORDER BY evtname) FROM pg_event_trigger";

#[tokio::test]
async fn triggers_are_made_once_and_dropped_where_they_are_not_wanted() {
    let cluster = Cluster::start();
    let (options, _directory) = options(&cluster);
    drop(prepared(&options).await);
    let expected = "kelvin_zero_0_ddl_end kelvin_zero_0_dropped kelvin_zero_0_rewrite";
    assert_eq!(cluster.value(OURS).await.as_deref(), Some(expected));
    // Those of an earlier version are brought up to date.
    cluster
        .sql(
            "CREATE OR REPLACE FUNCTION zero_0.kelvin_dropped() RETURNS event_trigger
               LANGUAGE plpgsql AS 'BEGIN RAISE LOG ''old''; END';
             DROP EVENT TRIGGER kelvin_zero_0_rewrite",
        )
        .await;
    drop(prepared(&options).await);
    assert_eq!(cluster.value(OURS).await.as_deref(), Some(expected));
    let old =
        "SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%old%' AND proname = 'kelvin_dropped'";
    assert_eq!(cluster.value(old).await.as_deref(), Some("0"));
    give_up(&options).await;
    assert_eq!(cluster.value(OURS).await, None);
    drop(prepared(&options).await);
    assert_eq!(cluster.value(OURS).await.as_deref(), Some(expected));
    let without = Options {
        event_triggers: false,
        ..options
    };
    drop(prepared(&without).await);
    assert_eq!(cluster.value(OURS).await, None);
    let functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'kelvin\\_%'";
    assert_eq!(cluster.value(functions).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn no_statement_fails_because_of_a_trigger() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    drop(prepared(&options).await);
    cluster.sql("CREATE INDEX CONCURRENTLY i ON t (n)").await;
    cluster.sql("DROP INDEX CONCURRENTLY i").await;
    // A role that may do nothing but what is its own.
    cluster
        .sql(
            "CREATE ROLE app LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO app;
             SET ROLE app; CREATE TABLE mine (id int PRIMARY KEY, n int);
             ALTER TABLE mine ALTER n TYPE int USING 1; COMMENT ON TABLE mine IS 'x';
             DROP TABLE mine",
        )
        .await;
    // Even where nothing of what it relies on is there.
    cluster.sql("DROP FUNCTION zero_0.kelvin_published").await;
    cluster
        .sql("CREATE TABLE s (id int); ALTER TABLE s ADD n int; DROP TABLE s")
        .await;
}
