//! The upstream's schema changes.

use kelvin_protocol::Value;
use kelvin_replication::{ErrorKind, Options};
use kelvin_storage::{Replica, Table, TableId};

use crate::cluster::Cluster;
use crate::following::{Following, give_up, options, prepared, row, rows, wait};

/// Changes that the replica follows, each with a change of a row after it or without one.
/// Statements make one transaction, but for those after a bar.
const FOLLOWED: &[&str] = &[
    "ALTER TABLE t ADD n int DEFAULT 7; INSERT INTO t VALUES (2, 'b', 8)",
    "ALTER TABLE t ADD n int DEFAULT 7",
    "ALTER TABLE t ADD n int",
    "ALTER TABLE t ADD n int | UPDATE t SET n = id",
    "ALTER TABLE t ADD n timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE t ADD n jsonb DEFAULT '{\"a\": [1]}', ADD m text[] DEFAULT '{x,\"y,z\"}', ADD o \
     numeric DEFAULT 1.5, ADD p date DEFAULT '1969-07-20', ADD q boolean DEFAULT true",
    "ALTER TABLE t ADD n int; INSERT INTO t VALUES (3, 'c', 'd', 4); \
     ALTER TABLE t DROP title; INSERT INTO t VALUES (5, 6); UPDATE t SET n = 0 WHERE id = 1",
    "ALTER TABLE t ADD n int DEFAULT 1 | ALTER TABLE t ADD m int DEFAULT 2 | UPDATE t SET n = 3",
    "ALTER TABLE t DROP title; INSERT INTO t VALUES (2)",
    "ALTER TABLE t DROP title",
    "ALTER TABLE t ADD p point DEFAULT '(1,2)' | UPDATE t SET title = 'b'",
    "ALTER TABLE t RENAME title TO name; INSERT INTO t VALUES (2, 'b')",
    "ALTER TABLE t RENAME title TO name",
    "ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (2, 'b')",
    "ALTER TABLE t RENAME TO s",
    "ALTER TABLE t ALTER title SET NOT NULL, ADD UNIQUE (title)",
    "ALTER TABLE t ALTER code TYPE varchar(9); INSERT INTO t VALUES (2, 'b', 'longer')",
    "DROP TABLE t",
    "ALTER TABLE t DROP CONSTRAINT t_pkey",
    "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD UNIQUE (title)",
    "ALTER TABLE t REPLICA IDENTITY NOTHING",
    "CREATE TABLE unkeyed (x int); ALTER TABLE t ADD n int",
];

/// Every table with its columns and rows, and what is left out.
pub(crate) fn contents(replica: &Replica) -> String {
    let view = replica.latest().unwrap();
    let mut contents = String::new();
    let mut tables = view.catalog().tables().to_vec();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    for table in tables {
        if table.schema == "public" {
            let table = Table {
                id: TableId(0),
                indexes: Vec::new(),
                ..(*table).clone()
            };
            let rows = rows(replica, &table.name);
            contents += &format!("{table:?}: {rows:?}\n");
        }
    }
    let unsynced = view.catalog().unsynced().iter().map(|table| &table.name);
    contents + &format!("{:?}", unsynced.collect::<Vec<_>>())
}

#[tokio::test]
async fn a_changed_schema_is_followed_to_what_a_new_copy_would_have() {
    let cluster = Cluster::start();
    for change in FOLLOWED {
        cluster
            .sql(
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public;
                 DROP PUBLICATION IF EXISTS _zero_public_0, _fresh_public_0;
                 CREATE TABLE t (id int PRIMARY KEY, title text, code varchar(5));
                 CREATE TABLE keyless (x int); CREATE TABLE other (id int PRIMARY KEY);
                 INSERT INTO t VALUES (1, 'a')",
            )
            .await;
        let (options, _directory) = options(&cluster);
        let following = Following::start(&options).await;
        let replica_version = following.replica.identity().replica_version;
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        let (mut fresh, _fresh_directory) = self::options(&cluster);
        fresh.app_id = "fresh".into();
        let expected = {
            let copied = prepared(&fresh).await;
            contents(&copied.replica)
        };
        give_up(&fresh).await;
        wait(|| following.ended() || contents(&following.replica) == expected).await;
        assert!(
            !following.ended(),
            "{change}: {}",
            following.failure().await
        );
        assert_eq!(contents(&following.replica), expected, "{change}");
        assert_eq!(
            following.replica.identity().replica_version,
            replica_version
        );
        following.stop().await;
        // It is opened as it is.
        let again = Following::start(&options).await;
        assert_eq!(contents(&again.replica), expected, "{change}");
        assert_eq!(again.replica.identity().replica_version, replica_version);
        again.stop().await;
        give_up(&options).await;
    }
}

#[tokio::test]
async fn own_tables_of_another_form_end_in_a_new_copy_with_a_newer_version() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, title text); INSERT INTO t VALUES (1, 'a')")
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    following.until_rows("t", &[row(&["1", "a"])]).await;
    let version = following.replica.watermark();
    cluster
        .sql(
            "ALTER TABLE zero_0.clients DROP COLUMN \"userID\";
             ALTER TABLE zero_0.clients ADD \"userID\" text",
        )
        .await;
    wait(|| following.ended()).await;
    assert!(following.ended());
    let error = following.failure().await;
    assert_eq!(error.kind(), ErrorKind::Resync, "{error}");
    give_up(&options).await;
    let again = Following::start(&options).await;
    assert!(again.replica.watermark() > version);
    assert_eq!(again.replica.identity().epoch, 0);
    again.stop().await;
    give_up(&options).await;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_publication_that_is_gone_is_made_anew_and_costs_what_differs() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let version = following.replica.watermark();
    cluster
        .sql("DROP PUBLICATION _zero_public_0; INSERT INTO t VALUES (2)")
        .await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    cluster.sql("DELETE FROM t WHERE id = 1").await;
    following.until_rows("t", &[row(&["2"])]).await;
    assert!(following.replica.identity().replica_version > version);
    following.stop().await;
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

#[tokio::test]
async fn what_is_published_no_longer_is_let_go_without_a_new_copy() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, title text); INSERT INTO t VALUES (1, 'a');
             CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION mine FOR TABLE t, u",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        publications: vec!["mine".into()],
        ..options
    };
    let mut following = Following::start(&options).await;
    cluster.sql("ALTER PUBLICATION mine DROP TABLE u").await;
    wait(|| following.ended() || following.replica.catalog().table("u").is_none()).await;
    assert!(following.replica.catalog().table("u").is_none());
    cluster.sql("ALTER PUBLICATION mine SET TABLE t (id)").await;
    cluster.sql("INSERT INTO t VALUES (2, 'b')").await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    // A column that comes back has values nobody told us.
    cluster.sql("ALTER PUBLICATION mine SET TABLE t").await;
    following
        .until_rows("t", &[row(&["1", "a"]), row(&["2", "b"])])
        .await;
    following.stop().await;
}

#[tokio::test]
async fn changes_in_a_row_under_load_lead_to_what_postgresql_has() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, c0 int); CREATE TABLE busy (id int PRIMARY KEY);
             INSERT INTO t SELECT n, n FROM generate_series(1, 100) n",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let client = cluster.client().await;
    for n in 1..=20 {
        let last = n - 1;
        let statements = [
            format!("ALTER TABLE t ADD c{n} int DEFAULT {n}"),
            format!("UPDATE t SET c{n} = c{n} + id WHERE id % 7 = {n} % 7"),
            format!("INSERT INTO busy VALUES ({n})"),
            format!("INSERT INTO t VALUES (1000 + {n})"),
            format!("ALTER TABLE t DROP c{last}"),
        ];
        for statement in statements {
            client.batch_execute(&statement).await.unwrap();
        }
        // Each change is seen before the next one comes.
        let column = format!("c{n}");
        let seen = |following: &Following| {
            let catalog = following.replica.catalog();
            let table = catalog.table("t").unwrap();
            table.columns.len() == 2 && table.column(&column).is_some()
        };
        wait(|| following.ended() || seen(&following)).await;
        assert!(seen(&following), "{column}");
    }
    let expected = client.query("SELECT id, c20 FROM t ORDER BY id", &[]).await;
    let expected: Vec<_> = expected
        .unwrap()
        .iter()
        .map(|row| {
            let number = |at| Value::from(f64::from(row.get::<_, i32>(at)));
            vec![number(0), number(1)]
        })
        .collect();
    following.until_rows("t", &expected).await;
    following.stop().await;
}
