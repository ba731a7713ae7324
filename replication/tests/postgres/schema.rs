//! The upstream's schema changes.

use kelvin_replication::{ErrorKind, Options};

use crate::cluster::Cluster;
use crate::following::{Following, give_up, options, row, wait};

/// Changes that need a new copy, each with a change of a row after it or without one.
const CHANGES: &[&str] = &[
    "ALTER TABLE t ADD n int DEFAULT 7; INSERT INTO t VALUES (2, 'b', 8)",
    "ALTER TABLE t ADD n int",
    "ALTER TABLE t DROP title; INSERT INTO t VALUES (2)",
    "ALTER TABLE t DROP title",
    "ALTER TABLE t RENAME title TO name; INSERT INTO t VALUES (2, 'b')",
    "ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (2, 'b')",
    "ALTER TABLE t ALTER title TYPE json USING '1'; INSERT INTO t VALUES (2, '2')",
    "CREATE TABLE s (id int PRIMARY KEY)",
    "CREATE TABLE s AS TABLE t; ALTER TABLE s ADD PRIMARY KEY (id)",
    "DROP TABLE t",
    "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD UNIQUE (title)",
    "ALTER TABLE t REPLICA IDENTITY NOTHING",
    "ALTER TABLE keyless ADD PRIMARY KEY (x)",
];

#[tokio::test]
async fn a_changed_schema_ends_in_a_new_copy_with_a_newer_version() {
    let cluster = Cluster::start();
    for change in CHANGES {
        cluster
            .sql(
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public;
                 DROP PUBLICATION IF EXISTS _zero_public_0;
                 CREATE TABLE t (id int PRIMARY KEY, title text); CREATE TABLE keyless (x int);
                 INSERT INTO t VALUES (1, 'a')",
            )
            .await;
        let (options, _directory) = options(&cluster);
        let mut following = Following::start(&options).await;
        following.until_rows("t", &[row(&["1", "a"])]).await;
        let version = following.replica.watermark();
        cluster.sql(change).await;
        let error = following.failure().await;
        assert_eq!(error.kind(), ErrorKind::Resync, "{change}: {error}");
        give_up(&options).await;
        let again = Following::start(&options).await;
        assert!(again.replica.watermark() > version, "{change}");
        assert_eq!(again.replica.identity().epoch, 0, "{change}");
        again.stop().await;
        give_up(&options).await;
    }
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn changed_publications_end_in_a_new_copy() {
    let cluster = Cluster::start();
    for change in [
        "ALTER PUBLICATION mine SET TABLE t WHERE (id > 1), u",
        "ALTER PUBLICATION mine SET TABLE t (id), u",
        "ALTER PUBLICATION mine ADD TABLE late",
        "ALTER PUBLICATION mine DROP TABLE u",
        "DROP PUBLICATION mine; INSERT INTO t VALUES (2)",
    ] {
        cluster
            .sql(
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public;
                 CREATE TABLE t (id int PRIMARY KEY, title text); INSERT INTO t VALUES (1);
                 CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY);
                 DROP PUBLICATION IF EXISTS mine; CREATE PUBLICATION mine FOR TABLE t, u",
            )
            .await;
        let (options, _directory) = options(&cluster);
        let options = Options {
            publications: vec!["mine".into()],
            ..options
        };
        let following = Following::start(&options).await;
        cluster.sql(change).await;
        let error = following.failure().await;
        assert_eq!(error.kind(), ErrorKind::Resync, "{change}: {error}");
        give_up(&options).await;
    }
}

#[tokio::test]
async fn a_new_index_is_added_without_a_new_copy() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, title text); INSERT INTO t VALUES (1, 'a');
             CREATE INDEX old ON t (title)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let indexes = |following: &Following| {
        following
            .replica
            .catalog()
            .table("t")
            .unwrap()
            .indexes
            .len()
    };
    assert_eq!(indexes(&following), 1);
    cluster
        .sql("CREATE INDEX fresh ON t (title DESC, id)")
        .await;
    wait(|| indexes(&following) == 2).await;
    assert_eq!(indexes(&following), 2);
    // One that is dropped is kept.
    cluster.sql("DROP INDEX CONCURRENTLY old").await;
    cluster.sql("INSERT INTO t VALUES (2, 'b')").await;
    following
        .until_rows("t", &[row(&["1", "a"]), row(&["2", "b"])])
        .await;
    assert_eq!(indexes(&following), 2);
    following.stop().await;
}

#[tokio::test]
async fn schema_changes_that_do_not_matter_disturb_nothing() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, m mood)")
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster.sql("ALTER TYPE mood ADD VALUE 'b'").await;
    cluster
        .sql(
            "CREATE SCHEMA private; CREATE TABLE private.x (id int PRIMARY KEY);
             CREATE VIEW v AS TABLE t; CREATE MATERIALIZED VIEW w AS TABLE t;
             ALTER TABLE t ALTER m SET DEFAULT 'b'; COMMENT ON TABLE t IS 'x';
             INSERT INTO private.x VALUES (1); INSERT INTO t (id) VALUES (1)",
        )
        .await;
    following.until_rows("t", &[row(&["1", "b"])]).await;
    tokio::time::sleep(options.schema_interval * 3).await;
    following.until_rows("t", &[row(&["1", "b"])]).await;
    following.stop().await;
}
