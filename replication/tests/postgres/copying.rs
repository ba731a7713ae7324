//! The initial copy.

use std::sync::{Arc, Mutex};

use kelvin_protocol::Value;
use kelvin_replication::{CopyProgress, ErrorKind, Options, Prepared, Progress, prepare};
use kelvin_storage::{Replica, TableId};

use crate::cluster::Cluster;
use crate::following::{Following, options, prepared, row, rows, wait};

#[derive(Default)]
struct Last(Mutex<CopyProgress>);

impl Progress for Last {
    fn copying(&self, progress: CopyProgress) {
        *self.0.lock().unwrap() = progress;
    }
}

/// Keeps the copy, and with it every session, waiting at its end.
struct Slow;

impl Progress for Slow {
    fn copying(&self, _progress: CopyProgress) {
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
}

#[tokio::test]
async fn time_outs_of_the_database_do_not_end_the_sessions_of_a_copy() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             ALTER DATABASE postgres SET idle_session_timeout = '1s';
             ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '1s'",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let prepared = prepare(&options, Arc::new(Slow)).await.unwrap();
    assert_eq!(rows(&prepared.replica, "t"), [row(&["1"])]);
}

#[tokio::test]
async fn a_large_table_is_copied_in_parts_without_loss_or_duplicates() {
    let cluster = Cluster::start();
    // More than one part of 16,384 blocks, with few rows.
    cluster
        .sql(
            "CREATE TABLE wide (id int PRIMARY KEY, filler char(4000));
             ALTER TABLE wide ALTER filler SET STORAGE PLAIN;
             INSERT INTO wide SELECT i, 'x' FROM generate_series(1, 34000) i;
             ANALYZE wide",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let progress = Arc::new(Last::default());
    let prepared = prepare(&options, Arc::clone(&progress) as Arc<dyn Progress>)
        .await
        .unwrap();
    let ids: Vec<_> = rows(&prepared.replica, "wide")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let expected: Vec<_> = (1..=34_000).map(|id| Value::from(f64::from(id))).collect();
    assert!(ids == expected, "{} rows", ids.len());
    let last = *progress.0.lock().unwrap();
    // The permissions row is one more.
    assert_eq!((last.tables_done, last.tables, last.rows), (4, 4, 34_001));
    assert!(last.bytes > 34_000 * 4000 && last.estimated_rows >= 34_000);
}

/// Two chunks, of few rows.
const WIDE: &str = "CREATE TABLE wide (id int PRIMARY KEY, filler char(4000));
    ALTER TABLE wide ALTER filler SET STORAGE PLAIN;
    INSERT INTO wide SELECT i, 'x' FROM generate_series(1, 34000) i;
    ANALYZE wide";

fn check_wide(replica: &Replica) {
    let rows = rows(replica, "wide");
    let ids = rows.iter().map(|row| row[0].clone());
    assert!(ids.eq((1..=34_000).map(|id| Value::from(f64::from(id)))));
}

/// Asks until the answer is not 0, while the copy goes on.
async fn in_the_middle(cluster: &Cluster, query: &str) {
    let client = cluster.client().await;
    loop {
        let row = client.query_one(query, &[]).await.unwrap();
        if row.get::<_, i64>(0) > 0 {
            return;
        }
    }
}

/// Ends one connection that has copied some rows of a chunk and not all.
const END_ONE: &str = "SELECT count(pg_terminate_backend(pid)) FROM
    (SELECT pid FROM pg_stat_progress_copy WHERE tuples_processed BETWEEN 500 AND 8000 LIMIT 1) it";

#[tokio::test]
async fn a_connection_that_breaks_costs_its_chunk_alone() {
    let cluster = Cluster::start();
    cluster.sql(WIDE).await;
    let (options, _directory) = options(&cluster);
    let progress = Arc::new(Last::default());
    let told = Arc::clone(&progress) as Arc<dyn Progress>;
    let (prepared, ()) = tokio::join!(prepare(&options, told), in_the_middle(&cluster, END_ONE));
    let prepared = prepared.unwrap();
    check_wide(&prepared.replica);
    assert_eq!(
        prepared.replica.row_count(table_id(&prepared, "wide")),
        34_000
    );
    // What was copied in vain is not told; the permissions row is one more.
    let last = *progress.0.lock().unwrap();
    assert_eq!((last.tables_done, last.tables, last.rows), (4, 4, 34_001));
    // It follows the slot that the snapshot is of.
    let mut following = Following::go_on(prepared);
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
        .await;
    following.until_rows("t", &[row(&["1"])]).await;
    following.stop().await;
}

fn table_id(prepared: &Prepared, name: &str) -> TableId {
    prepared.replica.catalog().table(name).unwrap().id
}

#[tokio::test]
async fn a_copy_whose_connections_break_again_and_again_fails_and_leaves_no_slot_behind() {
    let cluster = Cluster::start();
    cluster.sql(WIDE).await;
    let (options, _directory) = options(&cluster);
    let end_all = "SELECT count(pg_terminate_backend(pid)) * 0 FROM pg_stat_activity
                   WHERE application_name = 'kelvin-initial-copy'";
    let error = tokio::select! {
        outcome = prepare(&options, Arc::new(())) => outcome.err().unwrap(),
        () = in_the_middle(&cluster, end_all) => unreachable!(),
    };
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
    check_wide(&prepared(&options).await.replica);
}

#[tokio::test]
async fn a_copy_whose_snapshot_is_gone_fails_and_the_next_one_begins_anew() {
    let cluster = Cluster::start();
    cluster.sql(WIDE).await;
    let (options, _directory) = options(&cluster);
    let end_snapshot = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name IN ('kelvin-initial-copy', 'kelvin-replicator')
        AND EXISTS (SELECT FROM pg_stat_progress_copy WHERE tuples_processed > 500)";
    let (outcome, ()) = tokio::join!(
        prepare(&options, Arc::new(())),
        in_the_middle(&cluster, end_snapshot)
    );
    let error = outcome.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    check_wide(&prepared(&options).await.replica);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn tables_that_change_while_others_are_copied_are_left_out_and_copied_afterwards() {
    let cluster = Cluster::start();
    cluster.sql(WIDE).await;
    cluster
        .sql(
            "CREATE TABLE named (id int PRIMARY KEY); INSERT INTO named VALUES (1);
             CREATE TABLE typed (id int PRIMARY KEY, a int); INSERT INTO typed VALUES (1, 2);
             CREATE TABLE narrowed (id int PRIMARY KEY, a int); INSERT INTO narrowed VALUES (1, 2);
             CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1);
             CREATE TABLE same (id int PRIMARY KEY); INSERT INTO same VALUES (1)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    // So that the others are not locked yet when their turn has not come.
    let options = Options {
        copy_workers: 1,
        ..options
    };
    let progress = Arc::new(Last::default());
    let told = Arc::clone(&progress) as Arc<dyn Progress>;
    let change = async {
        let copying = "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 500";
        in_the_middle(&cluster, copying).await;
        cluster
            .sql(
                "ALTER TABLE named RENAME TO renamed; INSERT INTO renamed VALUES (2);
                 ALTER TABLE typed ALTER a TYPE text; UPDATE typed SET a = 'x';
                 ALTER TABLE narrowed DROP a; DROP TABLE gone;
                 INSERT INTO same VALUES (2)",
            )
            .await;
    };
    let (prepared, ()) = tokio::join!(prepare(&options, told), change);
    let prepared = prepared.unwrap();
    check_wide(&prepared.replica);
    assert_eq!(rows(&prepared.replica, "same"), [row(&["1"])]);
    let catalog = prepared.replica.catalog();
    let mut left: Vec<_> = catalog
        .unsynced()
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["gone", "named", "narrowed", "typed"]);
    let last = *progress.0.lock().unwrap();
    assert_eq!((last.tables_done, last.tables), (9, 9));
    let identity = prepared.replica.identity();

    let mut following = Following::go_on(prepared);
    following
        .until_rows("renamed", &[row(&["1"]), row(&["2"])])
        .await;
    following.until_rows("typed", &[row(&["1", "x"])]).await;
    following.until_rows("narrowed", &[row(&["1"])]).await;
    following
        .until_rows("same", &[row(&["1"]), row(&["2"])])
        .await;
    check_wide(&following.replica);
    cluster
        .sql("INSERT INTO renamed VALUES (3); DELETE FROM typed")
        .await;
    following
        .until_rows("renamed", &[row(&["1"]), row(&["2"]), row(&["3"])])
        .await;
    following.until_rows("typed", &[]).await;
    let settled = || following.replica.catalog().unsynced().is_empty();
    wait(settled).await;
    assert_eq!(following.replica.catalog().unsynced(), []);
    assert_eq!(following.replica.identity().slot, identity.slot);
    following.stop().await;
}

#[tokio::test]
async fn row_filters_and_column_lists_hold_for_copy_and_stream_alike() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, shown text, hidden text);
             CREATE TABLE u (id int PRIMARY KEY);
             INSERT INTO t VALUES (1, 'a', 'x'), (-1, 'b', 'x'), (200, 'c', 'x');
             INSERT INTO u VALUES (1), (2);
             CREATE PUBLICATION low FOR TABLE t (id, shown) WHERE (id < 0), TABLE u WHERE (id = 1);
             CREATE PUBLICATION high FOR TABLE t (id, shown) WHERE (id > 100), TABLE u",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        publications: vec!["low".into(), "high".into()],
        ..options
    };
    let mut following = Following::start(&options).await;
    following
        .until_rows("t", &[row(&["-1", "b"]), row(&["200", "c"])])
        .await;
    following.until_rows("u", &[row(&["1"]), row(&["2"])]).await;
    cluster
        .sql("INSERT INTO t VALUES (2, 'd', 'x'), (-2, 'e', 'x'); UPDATE t SET id = 5 WHERE id = 200")
        .await;
    following
        .until_rows("t", &[row(&["-2", "e"]), row(&["-1", "b"])])
        .await;
    following.stop().await;
}

#[tokio::test]
async fn partitions_come_as_their_root_and_inheritance_children_as_themselves() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE parent (id int PRIMARY KEY);
             CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
             INSERT INTO p VALUES (1), (11); INSERT INTO parent VALUES (1);
             INSERT INTO child VALUES (2)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster
        .sql("INSERT INTO p VALUES (2), (12); INSERT INTO child VALUES (3)")
        .await;
    following
        .until_rows("p", &[row(&["1"]), row(&["2"]), row(&["11"]), row(&["12"])])
        .await;
    following.until_rows("parent", &[row(&["1"])]).await;
    following
        .until_rows("child", &[row(&["2"]), row(&["3"])])
        .await;
    assert!(following.replica.catalog().table("p1").is_none());
    following.stop().await;
}

#[tokio::test]
async fn tables_that_cannot_be_synced_are_named_and_the_rest_is_served() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (1);
             CREATE TABLE \"two words\" (a int PRIMARY KEY);
             CREATE TABLE nothing (a int PRIMARY KEY);
             ALTER TABLE nothing REPLICA IDENTITY NOTHING;
             CREATE TABLE by_point (a bytea PRIMARY KEY);
             CREATE SCHEMA other; CREATE TABLE other.fine (a int PRIMARY KEY);
             CREATE TABLE fine (a int PRIMARY KEY); INSERT INTO fine VALUES (1);
             CREATE PUBLICATION mine FOR TABLES IN SCHEMA public, other",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        publications: vec!["mine".into()],
        ..options
    };
    let mut following = Following::start(&options).await;
    cluster
        .sql(
            "INSERT INTO keyless VALUES (2); INSERT INTO \"two words\" VALUES (1);
             INSERT INTO nothing VALUES (1); INSERT INTO by_point VALUES ('x');
             INSERT INTO other.fine VALUES (3)",
        )
        .await;
    following.until_rows("other.fine", &[row(&["3"])]).await;
    following.until_rows("fine", &[row(&["1"])]).await;
    let catalog = following.replica.catalog();
    let unsynced: Vec<_> = catalog
        .unsynced()
        .iter()
        .map(|table| table.name.as_str())
        .collect();
    assert_eq!(unsynced, ["by_point", "keyless", "nothing", "two words"]);
    following.stop().await;
}

#[tokio::test]
async fn a_copy_that_fails_leaves_no_slot_behind() {
    let cluster = Cluster::start();
    // A row filter that fails on the second row.
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (0);
             CREATE PUBLICATION bad FOR TABLE t WHERE (1 / id > 0)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let bad = Options {
        publications: vec!["bad".into()],
        ..options.clone()
    };
    assert!(prepare(&bad, Arc::new(())).await.is_err());
    let slots = "SELECT (SELECT count(*) FROM pg_replication_slots)
                      + (SELECT count(*) FROM zero_0.\"kelvinReplicas\")";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
    // The next attempt finds nothing in its way.
    assert_eq!(rows(&prepared(&options).await.replica, "t").len(), 2);
}

#[tokio::test]
async fn a_copy_that_is_given_up_lets_go_of_its_directory() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 200000)")
        .await;
    let (options, _directory) = options(&cluster);
    let progress = Arc::new(Last::default());
    let started = Arc::clone(&progress);
    tokio::select! {
        outcome = prepare(&options, progress as Arc<dyn Progress>) => drop(outcome.unwrap()),
        () = wait(|| started.0.lock().unwrap().tables > 0) => {}
    }
    let mut outcome = prepare(&options, Arc::new(())).await;
    for _ in 0..100 {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        outcome = prepare(&options, Arc::new(())).await;
    }
    assert_eq!(rows(&outcome.unwrap().replica, "t").len(), 200_000);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("1"));
}
