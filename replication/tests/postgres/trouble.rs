//! Connections, slots and servers that go away.

use kelvin_replication::Options;

use crate::cluster::{Cluster, Setup};
use crate::following::{Following, options, prepared, row};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
const SLOT: &str = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots";

#[tokio::test]
async fn a_restart_resumes_without_a_new_copy() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster.sql("INSERT INTO t VALUES (2)").await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    let identity = following.replica.identity();
    following.stop().await;
    cluster
        .sql("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1")
        .await;
    let mut again = Following::start(&options).await;
    again.until_rows("t", &[row(&["2"]), row(&["3"])]).await;
    assert_eq!(again.replica.identity(), identity);
    again.stop().await;
}

// PostgreSQL stops only when the stream has confirmed everything, so the stream needs a thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_or_cuts_the_stream_is_followed_again() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        .await;
    cluster.sql("INSERT INTO t VALUES (2)").await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    for mode in ["fast", "immediate"] {
        cluster.stop(mode);
        cluster.launch();
        let id = if mode == "fast" { "3" } else { "4" };
        cluster.sql(&format!("INSERT INTO t VALUES ({id})")).await;
        let expected: Vec<_> = ["1", "2", "3", "4"]
            .iter()
            .take_while(|there| **there <= id)
            .map(|id| row(&[id]))
            .collect();
        following.until_rows("t", &expected).await;
    }
    following.stop().await;
}

#[tokio::test]
async fn another_process_on_our_slot_is_ended() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let ours = prepared(&options).await;
    let mut holder = cluster.hold_slot("kelvin_zero_0_a", "_zero_public_0").await;
    let mut following = Following::go_on(ours);
    cluster.sql("INSERT INTO t VALUES (2)").await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    following.stop().await;
    assert!(!holder.wait().unwrap().success());
}

#[tokio::test]
async fn a_server_of_another_lineage_starts_a_new_epoch() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    Following::start(&options).await.stop().await;
    // Kelvin's own tables have another form there, so that nothing is compared.
    let other = Cluster::start();
    other
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (5);
             CREATE SCHEMA zero_0;
             CREATE TABLE zero_0.clients (
                 \"clientGroupID\" text, \"clientID\" text, \"lastMutationID\" bigint NOT NULL,
                 \"userID\" text, more int, PRIMARY KEY (\"clientGroupID\", \"clientID\"))",
        )
        .await;
    let moved = Options {
        upstream: other.url(),
        ..options
    };
    let mut following = Following::start(&moved).await;
    following.until_rows("t", &[row(&["5"])]).await;
    assert_eq!(following.replica.identity().epoch, 1);
    following.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_lost_leaves_no_slot_behind() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    Following::start(&options).await.stop().await;
    // The disk is gone, with all that was known of the slot.
    std::fs::remove_dir_all(&options.replica_dir).unwrap();
    Following::start(&options).await.stop().await;
    assert_eq!(
        cluster.value(SLOT).await.as_deref(),
        Some("kelvin_zero_0_b")
    );
    // A copy that was broken off by a crash left its slot in the record.
    std::fs::remove_dir_all(options.replica_dir.join("store")).unwrap();
    Following::start(&options).await.stop().await;
    assert_eq!(
        cluster.value(SLOT).await.as_deref(),
        Some("kelvin_zero_0_a")
    );
}

#[tokio::test]
async fn a_server_that_never_times_out_is_followed() {
    for settings in ["wal_sender_timeout = 0", "wal_sender_timeout = 500"] {
        let cluster = Cluster::with(Setup {
            settings,
            ..Setup::default()
        });
        cluster.sql(TABLE).await;
        let (options, _directory) = options(&cluster);
        let mut following = Following::start(&options).await;
        following.until_rows("t", &[row(&["1"])]).await;
        let pid = "SELECT pid FROM pg_stat_replication";
        let mut before = None;
        while before.is_none() {
            before = cluster.value(pid).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(cluster.value(pid).await, before, "{settings}");
        cluster.sql("INSERT INTO t VALUES (2)").await;
        following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
        following.stop().await;
    }
}
