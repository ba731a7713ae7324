//! Changes after the copy.

use kelvin_protocol::Value;
use kelvin_replication::{LagReport, Options};

use crate::cluster::Cluster;
use crate::following::{Following, options, prepared, row, wait};
use crate::modes::disconnect;

#[tokio::test]
async fn rows_are_copied_and_then_kept_up_to_date() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE issue (id text PRIMARY KEY, title text);
             INSERT INTO issue VALUES ('a', 'one')",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    following.until_rows("issue", &[row(&["a", "one"])]).await;
    cluster
        .sql("INSERT INTO issue VALUES ('b', 'two'), ('c', 'three')")
        .await;
    cluster
        .sql("UPDATE issue SET title = 'uno' WHERE id = 'a'")
        .await;
    cluster
        .sql("UPDATE issue SET id = 'z' WHERE id = 'b'; DELETE FROM issue WHERE id = 'c'")
        .await;
    following
        .until_rows("issue", &[row(&["a", "uno"]), row(&["z", "two"])])
        .await;
    cluster.sql("TRUNCATE issue").await;
    following.until_rows("issue", &[]).await;
    following.stop().await;
}

#[tokio::test]
async fn versions_are_commit_lsns_and_transactions_are_whole() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)")
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let copied = following.replica.watermark();
    cluster
        .sql(
            "BEGIN; UPDATE t SET n = 1; SAVEPOINT s; UPDATE t SET n = 99; ROLLBACK TO s;
             INSERT INTO t VALUES (2, 2); DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 3);
             COMMIT",
        )
        .await;
    following
        .until_rows("t", &[row(&["1", "1"]), row(&["3", "3"])])
        .await;
    let version = following.replica.watermark();
    let flushed = cluster
        .value("SELECT pg_current_wal_lsn() - '0/0'")
        .await
        .unwrap();
    assert!(copied < version && version < flushed.parse::<u64>().unwrap());
    let commits = following.commits.0.lock().unwrap().clone();
    assert_eq!(commits, [(copied, version, 2)]);
    following.stop().await;
}

#[tokio::test]
async fn unchanged_large_values_are_kept_under_every_identity() {
    for identity in ["DEFAULT", "FULL", "USING INDEX t_other"] {
        let cluster = Cluster::start();
        cluster
            .sql(&format!(
                "CREATE TABLE t (id int PRIMARY KEY, other text NOT NULL, n int, big text);
                 CREATE UNIQUE INDEX t_other ON t (other);
                 ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
                 ALTER TABLE t ALTER other SET STORAGE EXTERNAL;
                 ALTER TABLE t REPLICA IDENTITY {identity};
                 INSERT INTO t VALUES (1, repeat('k', 2500), 1, repeat('x', 10000))"
            ))
            .await;
        let (options, _directory) = options(&cluster);
        let mut following = Following::start(&options).await;
        let other = "k".repeat(2500);
        let expected = |id: f64, other: &str, n: f64| {
            let big = "x".repeat(10_000);
            vec![vec![id.into(), Value::from(other), n.into(), big.into()]]
        };
        following.until_rows("t", &expected(1.0, &other, 1.0)).await;
        cluster.sql("UPDATE t SET n = 2").await;
        following.until_rows("t", &expected(1.0, &other, 2.0)).await;
        cluster.sql("UPDATE t SET id = 7").await;
        following.until_rows("t", &expected(7.0, &other, 2.0)).await;
        cluster.sql("UPDATE t SET other = 'short', n = 3").await;
        following
            .until_rows("t", &expected(7.0, "short", 3.0))
            .await;
        cluster.sql("DELETE FROM t").await;
        following.until_rows("t", &[]).await;
        following.stop().await;
    }
}

#[tokio::test]
async fn keys_that_change_places_end_up_right() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, n text);
             ALTER TABLE t REPLICA IDENTITY FULL;
             INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster.sql("UPDATE t SET id = id + 10 WHERE id > 1").await;
    cluster
        .sql("UPDATE t SET id = 2 WHERE id = 13; DELETE FROM t WHERE id = 1")
        .await;
    following
        .until_rows("t", &[row(&["2", "c"]), row(&["12", "b"])])
        .await;
    following.stop().await;
}

#[tokio::test]
async fn a_table_without_a_primary_key_follows_its_unique_index() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (a text NOT NULL UNIQUE, b int);
             INSERT INTO t VALUES ('x', 1), ('y', 2)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster
        .sql("UPDATE t SET a = 'w' WHERE a = 'y'; DELETE FROM t WHERE a = 'x'")
        .await;
    following.until_rows("t", &[row(&["w", "2"])]).await;
    following.stop().await;
}

#[tokio::test]
async fn truncating_several_tables_empties_those_that_are_held() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a PRIMARY KEY);
             CREATE TABLE keyless (x int);
             INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster
        .sql("BEGIN; TRUNCATE a, keyless CASCADE; INSERT INTO a VALUES (9); COMMIT")
        .await;
    following.until_rows("a", &[row(&["9"])]).await;
    following.until_rows("b", &[]).await;
    following.stop().await;
}

#[tokio::test]
async fn a_large_transaction_and_many_small_ones_arrive_complete() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, filler text)")
        .await;
    let (options, _directory) = options(&cluster);
    let following = Following::start(&options).await;
    cluster
        .sql("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i")
        .await;
    cluster
        .sql(
            "DO $$ BEGIN FOR i IN 50001..51000 LOOP
               INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$",
        )
        .await;
    wait(|| following.rows("t").len() == 51_000).await;
    assert_eq!(following.rows("t").len(), 51_000);
    following.stop().await;
}

#[tokio::test]
async fn what_is_durable_is_confirmed_and_idle_traffic_too() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY); CREATE UNLOGGED TABLE elsewhere (x text)")
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster.sql("INSERT INTO t VALUES (1)").await;
    following.until_rows("t", &[row(&["1"])]).await;
    // Traffic that replicates nothing moves the slot as well.
    cluster
        .sql("CREATE TEMP TABLE x AS SELECT 1; SELECT pg_switch_wal()")
        .await;
    let behind = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots";
    let mut last = None;
    for _ in 0..300 {
        last = cluster.value(behind).await;
        if last
            .as_deref()
            .is_some_and(|bytes| bytes.parse::<i64>().unwrap() <= 1000)
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let bytes: i64 = last.unwrap().parse().unwrap();
    assert!(bytes <= 1000, "{bytes} bytes behind");
    following.stop().await;
}

#[tokio::test]
async fn the_lag_is_measured_by_messages_that_come_by_the_stream() {
    let cluster = Cluster::start();
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        lag_report_interval: Some(std::time::Duration::from_millis(100)),
        ..options
    };
    let prepared = prepared(&options).await;
    let lag = prepared.lag();
    assert_eq!(lag.report(), LagReport::default());
    let mut following = Following::go_on(prepared);
    wait(|| lag.report().count >= 2).await;
    let report = lag.report();
    assert!(report.count >= 2);
    assert!(report.received.is_some() && report.applied.is_some());
    // They leave no trace but in what is confirmed, and go on after a lost connection.
    assert!(following.commits.0.lock().unwrap().is_empty());
    disconnect(&cluster).await;
    cluster.sql("INSERT INTO t VALUES (1)").await;
    following.until_rows("t", &[row(&["1"])]).await;
    let before = lag.report().count;
    wait(|| lag.report().count > before + 1).await;
    assert!(lag.report().count > before + 1);
    following.stop().await;
}
