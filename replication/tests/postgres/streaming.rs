//! Changes after the copy.

use crate::cluster::Cluster;
use crate::following::{Following, options, row};

#[tokio::test]
async fn rows_are_copied_and_then_kept_up_to_date() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE issue (id text PRIMARY KEY, title text); INSERT INTO issue VALUES ('a', 'one')")
        .await;
    let (options, _directory) = options(&cluster);
    let following = Following::start(&options).await;
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
