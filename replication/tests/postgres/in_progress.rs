//! Transactions that PostgreSQL sends before they commit.

use std::time::Duration;

use kelvin_protocol::Value;
use kelvin_replication::Options;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::cluster::{Cluster, Setup};
use crate::following::{Following, PATIENCE, options, row, wait};
use crate::large::{low, upstream};
use crate::modes::{assert_each_once, begun_with, disconnect};

/// So that a few hundred rows are sent at once.
pub(crate) const SMALL_MEMORY: &str = "logical_decoding_work_mem = '64kB'";

fn cluster() -> Cluster {
    Cluster::with(Setup {
        settings: SMALL_MEMORY,
        ..Setup::default()
    })
}

/// Options for a fresh directory, with room for transactions in progress.
fn keeping(cluster: &Cluster) -> (Options, TempDir) {
    let (options, directory) = options(cluster);
    let options = Options {
        spool_bytes: 1 << 30,
        ..options
    };
    (options, directory)
}

const SCHEMA: &str = "
    CREATE TABLE t (id int PRIMARY KEY, n int, big text);
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO t SELECT i, i, 'here' FROM generate_series(1, 400) i;
    INSERT INTO other SELECT i FROM generate_series(1, 10) i";

/// Waits until PostgreSQL has sent chunks of so many bytes.
async fn streamed(cluster: &Cluster, bytes: u64) {
    let query = "SELECT sum(stream_bytes)::bigint FROM pg_stat_replication_slots";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let sent = cluster.value(query).await;
        if sent.is_some_and(|sent| sent.parse::<u64>().unwrap() >= bytes) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing was sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection with a transaction.
async fn begin(cluster: &Cluster) -> Client {
    let client = cluster.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    client
}

/// Inserts a thousand rows from `first` on, more than is sent at once.
async fn insert(client: &Client, first: u32) {
    let last = first + 999;
    let insert = format!(
        "INSERT INTO t SELECT i, {first}, repeat('x', 100) FROM generate_series({first}, {last}) i"
    );
    client.batch_execute(&insert).await.unwrap();
}

/// Waits until both tables are as PostgreSQL has them.
async fn until_alike(cluster: &Cluster, following: &Following) {
    for table in ["t", "other"] {
        let expected = upstream(cluster, table).await;
        wait(|| following.ended() || following.rows(table) == expected).await;
        assert!(!following.ended());
        assert_eq!(following.rows(table).len(), expected.len(), "{table}");
        assert!(following.rows(table) == expected, "{table}");
    }
}

/// Two transactions whose chunks come in turns, with savepoints, and others between them; one of
/// them is rolled back.
async fn write_by_turns(cluster: &Cluster) {
    let (one, two, lost) = (
        begin(cluster).await,
        begin(cluster).await,
        begin(cluster).await,
    );
    for round in 0..3 {
        insert(&one, 10_000 + 1000 * round).await;
        insert(&two, 20_000 + 1000 * round).await;
        insert(&lost, 30_000 + 1000 * round).await;
        let small = format!("INSERT INTO t VALUES ({round} + 1000, 0, 'small')");
        cluster.sql(&small).await;
        one.batch_execute("SAVEPOINT s; DELETE FROM other")
            .await
            .unwrap();
        insert(&one, 40_000).await;
        one.batch_execute("SAVEPOINT within").await.unwrap();
        insert(&one, 50_000).await;
        one.batch_execute("RELEASE within; ROLLBACK TO s; UPDATE t SET n = -1 WHERE id = 11000")
            .await
            .unwrap();
        two.batch_execute("SAVEPOINT kept").await.unwrap();
        insert(&two, 60_000 + 1000 * round).await;
        two.batch_execute("RELEASE kept; UPDATE t SET big = NULL WHERE id % 7 = 0 AND id > 60000")
            .await
            .unwrap();
    }
    two.batch_execute("DELETE FROM t WHERE id % 3 = 0 AND id > 20000; COMMIT")
        .await
        .unwrap();
    lost.batch_execute("ROLLBACK").await.unwrap();
    one.batch_execute("TRUNCATE other; INSERT INTO other VALUES (77); COMMIT")
        .await
        .unwrap();
    cluster.sql("INSERT INTO t VALUES (0, 0, 'after')").await;
}

#[tokio::test]
async fn transactions_that_come_by_turns_arrive_whole_and_in_the_order_of_their_commits() {
    for (parts, text_stream) in [(false, false), (true, true)] {
        let cluster = cluster();
        cluster.sql(SCHEMA).await;
        let (options, _directory) = keeping(&cluster);
        let options = if parts { low(options) } else { options };
        let options = Options {
            text_stream,
            ..options
        };
        let following = Following::start(&options).await;
        write_by_turns(&cluster).await;
        until_alike(&cluster, &following).await;
        streamed(&cluster, 100_000).await;
        assert_each_once(&following);
        // Three small ones, two large ones, and the last.
        assert_eq!(following.commits.0.lock().unwrap().len(), 6);
        following.stop().await;
    }
}

#[tokio::test]
async fn a_schema_that_changes_within_a_transaction_in_progress_is_followed_when_it_commits() {
    for event_triggers in [true, false] {
        let cluster = cluster();
        cluster.sql(SCHEMA).await;
        let (options, _directory) = keeping(&cluster);
        let options = Options {
            event_triggers,
            ..options
        };
        let mut following = Following::start(&options).await;
        let (one, lost) = (begin(&cluster).await, begin(&cluster).await);
        insert(&one, 10_000).await;
        one.batch_execute("ALTER TABLE t ADD added int DEFAULT 3, DROP big; CREATE TABLE fresh (id int PRIMARY KEY)")
            .await
            .unwrap();
        one.batch_execute(
            "INSERT INTO t SELECT i, 0, i FROM generate_series(20000, 21000) i;
             INSERT INTO fresh SELECT i FROM generate_series(1, 5) i",
        )
        .await
        .unwrap();
        lost.batch_execute(
            "ALTER TABLE other ADD gone text; INSERT INTO other
             SELECT i, repeat('x', 100) FROM generate_series(1000, 3000) i; ROLLBACK",
        )
        .await
        .unwrap();
        cluster.sql("INSERT INTO other VALUES (99)").await;
        let mut others: Vec<_> = (1..=10)
            .map(|id| vec![Value::from(f64::from(id))])
            .collect();
        others.push(row(&["99"]));
        following.until_rows("other", &others).await;
        assert_eq!(following.rows("t").len(), 400);
        one.batch_execute("COMMIT").await.unwrap();
        until_alike(&cluster, &following).await;
        let fresh: Vec<_> = (1..=5).map(|id| vec![Value::from(f64::from(id))]).collect();
        following.until_rows("fresh", &fresh).await;
        streamed(&cluster, 50_000).await;
        assert_each_once(&following);
        following.stop().await;
    }
}

#[tokio::test]
async fn what_is_only_in_progress_is_sent_again_after_a_restart_or_a_lost_connection() {
    let cluster = cluster();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = keeping(&cluster);
    let following = Following::start(&options).await;
    let one = begin(&cluster).await;
    insert(&one, 10_000).await;
    streamed(&cluster, 50_000).await;
    // What commits meanwhile is confirmed.
    cluster.sql("INSERT INTO other VALUES (50)").await;
    wait(|| following.rows("other").len() == 11).await;
    let confirmed = "SELECT 1 FROM pg_replication_slots WHERE confirmed_flush_lsn
                     >= (SELECT pg_current_wal_lsn() - 500)";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while cluster.value(confirmed).await.is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "nothing is confirmed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort().await;
    let following = Following::start(&options).await;
    insert(&one, 11_000).await;
    disconnect(&cluster).await;
    insert(&one, 12_000).await;
    one.batch_execute("COMMIT").await.unwrap();
    until_alike(&cluster, &following).await;
    assert_eq!(following.rows("t").len(), 3400);
    assert_each_once(&following);
    assert_eq!(following.commits.0.lock().unwrap().len(), 1);
    following.stop().await;
}

#[tokio::test]
async fn what_is_more_than_may_be_kept_is_left_to_postgresql() {
    let cluster = cluster();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = keeping(&cluster);
    let options = Options {
        spool_bytes: 200_000,
        ..options
    };
    let following = Following::start(&options).await;
    begun_with(&cluster, "streaming 'on'").await;
    let one = begin(&cluster).await;
    for round in 0..3 {
        insert(&one, 10_000 + 1000 * round).await;
        let small = format!("INSERT INTO other VALUES (100 + {round})");
        cluster.sql(&small).await;
    }
    begun_with(&cluster, "proto_version '1'").await;
    one.batch_execute("COMMIT").await.unwrap();
    until_alike(&cluster, &following).await;
    assert_each_once(&following);
    // It is tried again with the next connection.
    disconnect(&cluster).await;
    begun_with(&cluster, "streaming 'on'").await;
    cluster.sql("INSERT INTO other VALUES (200)").await;
    until_alike(&cluster, &following).await;
    following.stop().await;
}

#[tokio::test]
async fn transactions_in_progress_are_not_asked_for_where_nothing_may_be_kept() {
    let cluster = cluster();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = keeping(&cluster);
    let options = Options {
        spool_bytes: 0,
        ..options
    };
    let following = Following::start(&options).await;
    begun_with(&cluster, "proto_version '1'").await;
    write_by_turns(&cluster).await;
    until_alike(&cluster, &following).await;
    following.stop().await;
}
