//! How the stream comes: in binary form or as text.

use kelvin_protocol::Value;
use kelvin_replication::Options;

use crate::cluster::Cluster;
use crate::following::{Following, PATIENCE, options, row};

/// Waits until the stream was begun with an option of pgoutput.
pub(crate) async fn begun_with(cluster: &Cluster, option: &str) {
    let query = format!(
        "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender'
         AND query LIKE 'START_REPLICATION%' AND strpos(query, $${option}$$) > 0"
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while cluster.value(&query).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "not {option}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Ends the connection of the stream, which is made anew.
pub(crate) async fn disconnect(cluster: &Cluster) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    cluster.sql(end).await;
}

const BINARY: &str = "binary 'true'";
const TEXT: &str = "binary 'false'";

/// Each commit goes on where the one before it ended.
pub(crate) fn assert_each_once(following: &Following) {
    let commits = following.commits.0.lock().unwrap();
    let gaps: Vec<_> = commits.windows(2).filter(|it| it[0].1 != it[1].0).collect();
    assert!(gaps.is_empty(), "{gaps:?}");
}

fn json(id: f64, array: &str) -> Vec<Value> {
    vec![id.into(), Value::Json(array.into())]
}

#[tokio::test]
async fn a_column_that_is_taken_as_text_turns_a_binary_stream_into_one_of_text() {
    for event_triggers in [true, false] {
        let cluster = Cluster::start();
        cluster
            .sql(
                "CREATE TYPE mood AS ENUM ('sad', 'glad');
                 CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
                 CREATE TABLE other (id int PRIMARY KEY, mood mood)",
            )
            .await;
        let (options, _directory) = options(&cluster);
        let options = Options {
            event_triggers,
            ..options
        };
        let mut following = Following::start(&options).await;
        begun_with(&cluster, BINARY).await;
        cluster.sql("INSERT INTO other VALUES (1, 'sad')").await;
        following.until_rows("other", &[row(&["1", "sad"])]).await;
        cluster
            .sql(
                "INSERT INTO t VALUES (2);
                 BEGIN; INSERT INTO other VALUES (2, 'glad');
                 ALTER TABLE t ADD took interval[]; INSERT INTO t VALUES (3, '{1 day,NULL}'); COMMIT;
                 UPDATE t SET took = '{02:03:04}' WHERE id = 2; UPDATE other SET mood = NULL",
            )
            .await;
        let null = |id: f64| vec![id.into(), Value::Null];
        let rows = [
            null(1.0),
            json(2.0, "[\"02:03:04\"]"),
            json(3.0, "[\"1 day\",null]"),
        ];
        following.until_rows("t", &rows).await;
        following.until_rows("other", &[null(1.0), null(2.0)]).await;
        begun_with(&cluster, TEXT).await;
        assert_each_once(&following);
        // Once nothing needs it, the next connection is in binary form again.
        cluster.sql("ALTER TABLE t DROP took").await;
        let rows = ["1", "2", "3"].map(|id| row(&[id]));
        following.until_rows("t", &rows).await;
        disconnect(&cluster).await;
        begun_with(&cluster, BINARY).await;
        cluster.sql("INSERT INTO t VALUES (4)").await;
        let rows = ["1", "2", "3", "4"].map(|id| row(&[id]));
        following.until_rows("t", &rows).await;
        following.stop().await;
    }
}

#[tokio::test]
async fn a_new_table_with_such_a_column_does_too() {
    let cluster = Cluster::start();
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    begun_with(&cluster, BINARY).await;
    cluster
        .sql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE new (id int PRIMARY KEY, all_of mood[])")
        .await;
    for id in 1..4 {
        let insert =
            format!("INSERT INTO new VALUES ({id}, '{{glad}}'); INSERT INTO t VALUES ({id})");
        cluster.sql(&insert).await;
    }
    let rows = [1.0, 2.0, 3.0].map(|id| json(id, "[\"glad\"]"));
    following.until_rows("new", &rows).await;
    begun_with(&cluster, TEXT).await;
    let rows = ["1", "2", "3"].map(|id| row(&[id]));
    following.until_rows("t", &rows).await;
    assert_each_once(&following);
    following.stop().await;
}

#[tokio::test]
async fn what_postgresql_fails_to_send_in_binary_form_is_asked_for_as_text() {
    let cluster = Cluster::start();
    // Without a key it is not synced, but its rows are sent all the same.
    cluster
        .sql(
            "CREATE EXTENSION isn; CREATE TABLE t (id int PRIMARY KEY);
             CREATE TABLE keyless (books isbn[])",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    begun_with(&cluster, BINARY).await;
    cluster
        .sql(
            "INSERT INTO t VALUES (1); INSERT INTO keyless VALUES ('{978-0-393-04002-9}');
             INSERT INTO t VALUES (2)",
        )
        .await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    begun_with(&cluster, TEXT).await;
    assert_each_once(&following);
    following.stop().await;
}

#[tokio::test]
async fn a_stream_in_text_can_be_asked_for() {
    let cluster = Cluster::start();
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        text_stream: true,
        ..options
    };
    let mut following = Following::start(&options).await;
    begun_with(&cluster, TEXT).await;
    cluster.sql("INSERT INTO t VALUES (1)").await;
    following.until_rows("t", &[row(&["1"])]).await;
    following.stop().await;
}
