//! Tables that are copied beside the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use kelvin_protocol::Version;
use kelvin_replication::Options;
use kelvin_storage::ReplicaOptions;

use crate::cluster::Cluster;
use crate::following::{Following, PATIENCE, give_up, of_a_new_copy, options, row, wait};
use crate::schema::contents;

/// What there is before each change.
const SCHEMA: &str = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;
    DROP PUBLICATION IF EXISTS _zero_public_0, _fresh_public_0;
    CREATE TABLE t (id int PRIMARY KEY, title text); CREATE TABLE keyless (x int);
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO t VALUES (1, 'a'); INSERT INTO keyless VALUES (4)";

/// Changes for which a table has to be copied. Statements make one transaction, but for those after
/// a bar.
const COPIED: &[&str] = &[
    "CREATE TABLE s (id int PRIMARY KEY)",
    "CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1) | INSERT INTO s VALUES (2)",
    "CREATE TABLE s AS TABLE t; ALTER TABLE s ADD PRIMARY KEY (id)",
    "CREATE TABLE s (id int PRIMARY KEY, t text UNIQUE); CREATE INDEX ON s (t DESC); \
     INSERT INTO s SELECT n, n FROM generate_series(1, 5000) n | DELETE FROM s WHERE id % 3 = 0",
    "CREATE TABLE s (id int PRIMARY KEY) | INSERT INTO s VALUES (1) | DROP TABLE s",
    "CREATE TABLE s (id int PRIMARY KEY) | ALTER TABLE s ADD n int DEFAULT 3 | \
     INSERT INTO s VALUES (1) | ALTER TABLE s RENAME TO r",
    "ALTER TABLE t ADD n int DEFAULT random() * 9; INSERT INTO t VALUES (2, 'b', 8)",
    "ALTER TABLE t ADD n serial",
    "ALTER TABLE t ADD n int GENERATED ALWAYS AS IDENTITY | INSERT INTO t VALUES (2)",
    "ALTER TABLE t DROP title; ALTER TABLE t ADD title text DEFAULT 'x'",
    "ALTER TABLE t ADD n int; INSERT INTO t VALUES (2, 'b', 3); ALTER TABLE t DROP n, ADD n int",
    "ALTER TABLE t RENAME title TO name; ALTER TABLE t ADD title text; INSERT INTO t VALUES (2)",
    "ALTER TABLE t ADD n int; INSERT INTO t VALUES (2); ALTER TABLE t RENAME n TO m",
    "ALTER TABLE t DROP title; ALTER TABLE t ADD title text; INSERT INTO t VALUES (2, 'b'); \
     ALTER TABLE t RENAME title TO name; INSERT INTO t VALUES (3)",
    "ALTER TABLE t ALTER title TYPE varchar(9)",
    "ALTER TABLE keyless RENAME TO t2; DROP TABLE t; ALTER TABLE t2 RENAME TO t; \
     ALTER TABLE t ADD PRIMARY KEY (x)",
    "ALTER TABLE t RENAME TO old; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('x')",
    "DROP TABLE t; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('x')",
    "ALTER TABLE t ALTER title TYPE json USING '1'; INSERT INTO t VALUES (2, '2')",
    "ALTER TABLE t ALTER id TYPE text | INSERT INTO t VALUES ('x') | DELETE FROM t WHERE id = '1'",
    "UPDATE t SET title = 'a'; ALTER TABLE t ALTER title SET NOT NULL, DROP CONSTRAINT t_pkey, \
     ADD PRIMARY KEY (title)",
    "ALTER TABLE keyless ADD PRIMARY KEY (x)",
    "ALTER TABLE keyless ADD PRIMARY KEY (x) | INSERT INTO keyless VALUES (7) | \
     UPDATE keyless SET x = 8 WHERE x = 4",
];

/// Waits until the replica has what a new copy would have, and nothing is left to copy.
async fn settles(following: &Following, cluster: &Cluster, options: &Options, change: &str) {
    let expected = of_a_new_copy(cluster, options, contents).await;
    let settled = || contents(&following.replica) == expected;
    wait(|| following.ended() || settled()).await;
    let copies = following.backfills.list();
    assert_eq!(
        contents(&following.replica),
        expected,
        "{change}: {copies:?}"
    );
    assert!(!following.ended(), "{change}");
}

/// Starts, waits until what `change` did while nobody followed is there too, and stops. The version
/// the replica was first copied at.
async fn found_at_the_start(cluster: &Cluster, options: &Options, change: &str) -> Version {
    let following = Following::start(options).await;
    settles(&following, cluster, options, change).await;
    let replica_version = following.replica.identity().replica_version;
    following.stop().await;
    replica_version
}

#[tokio::test]
async fn a_table_that_cannot_be_followed_is_copied_and_nothing_else_is() {
    let cluster = Cluster::start();
    for change in COPIED {
        cluster.sql(SCHEMA).await;
        let (options, _directory) = options(&cluster);
        let following = Following::start(&options).await;
        let replica_version = following.replica.identity().replica_version;
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        settles(&following, &cluster, &options, change).await;
        // It is followed like any other table from then on.
        cluster.sql("INSERT INTO other VALUES (1)").await;
        for table in ["t", "s", "keyless"] {
            let delete = format!(
                "DO $$ BEGIN DELETE FROM {table}; EXCEPTION \
                                  WHEN undefined_table OR object_not_in_prerequisite_state \
                                  THEN NULL; END $$"
            );
            cluster.sql(&delete).await;
        }
        settles(&following, &cluster, &options, change).await;
        let identity = following.replica.identity();
        assert_eq!(identity.replica_version, replica_version, "{change}");
        following.stop().await;
        // It is opened as it is.
        let held = found_at_the_start(&cluster, &options, change).await;
        assert_eq!(held, replica_version, "{change}");
        give_up(&options).await;
    }
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
}

/// Writes to a table in every way until it is told to stop. Keys are apart from those of others.
async fn write(cluster: &Cluster, table: &str, writer: usize, stop: Arc<AtomicBool>) {
    let client = cluster.client().await;
    // One number for each round of all tests, so that no key comes twice.
    static ROUNDS: AtomicU32 = AtomicU32::new(0);
    while !stop.load(Ordering::Relaxed) {
        let n = ROUNDS.fetch_add(1, Ordering::Relaxed);
        let key = 1_000_000 + n;
        let statements = format!(
            "INSERT INTO {table} (id, title) VALUES ({key}, 'w{n}');
             UPDATE {table} SET title = 'u{n}' WHERE id % 97 = {n} % 97 AND id % 3 = {writer};
             UPDATE {table} SET id = -id WHERE id % 101 = {n} % 101 AND id % 3 = {writer};
             DELETE FROM {table} WHERE id % 89 = {n} % 89 AND id % 3 = {writer}"
        );
        client.batch_execute(&statements).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
}

/// Runs writers on a table while `work` goes on, and until the table is settled.
async fn under_load(
    cluster: &Arc<Cluster>,
    following: &Following,
    table: &'static str,
    work: impl Future<Output = ()>,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..3).map(|writer| {
        let (cluster, stop) = (Arc::clone(cluster), Arc::clone(&stop));
        tokio::spawn(async move { write(&cluster, table, writer, stop).await })
    });
    let writers: Vec<_> = writers.collect();
    work.await;
    let settled = || {
        let catalog = following.replica.catalog();
        let is_unsynced = catalog.unsynced().iter().any(|it| it.name == table);
        catalog.table(table).is_some() && !is_unsynced && following.backfills.list().is_empty()
    };
    wait(|| following.ended() || settled()).await;
    let copies = following.backfills.list();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(settled() && !following.ended(), "{copies:?}");
}

const BIG: &str = "CREATE TABLE big (id bigint PRIMARY KEY, title text, pad text);
    INSERT INTO big SELECT n, 't' || n, repeat('x', 300) FROM generate_series(1, 20000) n;
    CREATE INDEX ON big (title); CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY);
    CREATE PUBLICATION mine FOR TABLE t, u";

fn mine(options: Options) -> Options {
    Options {
        publications: vec!["mine".into()],
        ..options
    }
}

/// Changes after which rows are copied while they change.
const UNDER_LOAD: &[&str] = &[
    "ALTER PUBLICATION mine ADD TABLE big",
    "ALTER TABLE big ALTER title TYPE varchar(100)",
    "ALTER TABLE big ADD r double precision DEFAULT random()",
    "ALTER TABLE big DROP CONSTRAINT big_pkey, ADD PRIMARY KEY (id, title)",
    "ALTER PUBLICATION mine SET TABLE t, u, big WHERE (id % 5 <> 0)",
    "ALTER TABLE big REPLICA IDENTITY DEFAULT; \
     ALTER PUBLICATION mine SET TABLE t, u, big (id, title)",
    "ALTER PUBLICATION mine SET TABLE t, u, big",
    "ALTER PUBLICATION mine DROP TABLE big; ALTER PUBLICATION mine ADD TABLE big",
];

#[tokio::test]
async fn rows_written_while_a_table_is_copied_are_there_in_the_end() {
    let cluster = Arc::new(Cluster::start());
    cluster.sql(BIG).await;
    // Keys that change tell what they were, whatever a row filter looks at.
    cluster.sql("ALTER TABLE big REPLICA IDENTITY FULL").await;
    let (options, _directory) = options(&cluster);
    let options = mine(options);
    let following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    for change in UNDER_LOAD {
        let work = async {
            tokio::time::sleep(options.schema_interval).await;
            cluster.sql(change).await;
            tokio::time::sleep(options.schema_interval * 2).await;
        };
        under_load(&cluster, &following, "big", work).await;
        settles(&following, &cluster, &options, change).await;
    }
    assert_eq!(
        following.replica.identity().replica_version,
        replica_version
    );
    following.stop().await;
}

/// A transaction that writes, and so keeps slots from being created until it ends.
async fn hold_back(cluster: &Cluster) -> tokio_postgres::Client {
    let client = cluster.client().await;
    let statements = "BEGIN; SELECT pg_current_xact_id()";
    client.batch_execute(statements).await.unwrap();
    client
}

async fn until_copying(following: &Following, table: &str) {
    let copying = || {
        let copies = following.backfills.list();
        copies
            .iter()
            .any(|copy| copy.table == table && copy.running)
    };
    wait(|| following.ended() || copying()).await;
    assert!(copying(), "{:?}", following.backfills.list());
}

#[tokio::test]
async fn other_tables_go_on_while_a_table_is_copied_and_the_old_rows_stay_until_then() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let blocker = hold_back(&cluster).await;
    cluster
        .sql("ALTER TABLE t ALTER id TYPE bigint; INSERT INTO t VALUES (2, 'b')")
        .await;
    until_copying(&following, "t").await;
    cluster
        .sql("INSERT INTO other VALUES (1); UPDATE t SET title = 'c' WHERE id = 2")
        .await;
    following.until_rows("other", &[row(&["1"])]).await;
    assert_eq!(following.rows("t"), [row(&["1", "a"])]);
    let catalog = following.replica.catalog();
    assert!(catalog.unsynced().iter().any(|table| table.name == "t"));
    blocker.batch_execute("COMMIT").await.unwrap();
    following
        .until_rows("t", &[row(&["1", "a"]), row(&["2", "c"])])
        .await;
    settles(&following, &cluster, &options, "type").await;
    following.stop().await;
}

#[tokio::test]
async fn a_copy_that_is_broken_off_is_made_anew() {
    let cluster = Arc::new(Cluster::start());
    cluster.sql(BIG).await;
    cluster.sql("ALTER PUBLICATION mine ADD TABLE big").await;
    let (options, _directory) = options(&cluster);
    let options = mine(options);
    let mut following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    let blocker = hold_back(&cluster).await;
    cluster
        .sql("ALTER TABLE big ALTER title TYPE varchar(99)")
        .await;
    until_copying(&following, "big").await;
    cluster
        .sql("UPDATE big SET title = 'kept' WHERE id < 50")
        .await;
    // The stream loses its connection.
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active";
    cluster.sql(kill).await;
    cluster
        .sql("INSERT INTO t VALUES (1); DELETE FROM big WHERE id = 7")
        .await;
    following.until_rows("t", &[row(&["1"])]).await;
    until_copying(&following, "big").await;
    // The process ends, and the table gets the form back that it is held in.
    following.stop().await;
    blocker.batch_execute("COMMIT").await.unwrap();
    cluster
        .sql("ALTER TABLE big ALTER title TYPE text; INSERT INTO big VALUES (0, 'z')")
        .await;
    let following = Following::start(&options).await;
    settles(&following, &cluster, &options, "stopped").await;
    // PostgreSQL crashes.
    let work = async {
        cluster.sql("ALTER TABLE big ADD n serial").await;
        until_copying(&following, "big").await;
    };
    work.await;
    cluster.stop("immediate");
    cluster.launch();
    settles(&following, &cluster, &options, "crashed").await;
    assert_eq!(
        following.replica.identity().replica_version,
        replica_version
    );
    following.stop().await;
}

#[tokio::test]
async fn a_copy_that_waits_is_begun_anew_at_once_when_the_stream_breaks_off() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let blocker = hold_back(&cluster).await;
    cluster
        .sql("CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1)")
        .await;
    until_copying(&following, "s").await;
    let slots = "SELECT active_pid FROM pg_replication_slots WHERE active AND slot_name";
    let waiting = format!("{slots} LIKE '%backfill%'");
    let mut before = None;
    let patience = Instant::now() + PATIENCE;
    while before.is_none() && Instant::now() < patience {
        before = cluster.value(&waiting).await;
    }
    assert!(before.is_some());
    let kill = slots.replace("active_pid FROM", "pg_terminate_backend(active_pid) FROM");
    cluster.sql(&format!("{kill} NOT LIKE '%backfill%'")).await;
    let mut after = before.clone();
    while (after.is_none() || after == before) && Instant::now() < patience {
        after = cluster.value(&waiting).await;
    }
    assert!(after.is_some() && after != before);
    let copies = following.backfills.list();
    assert_eq!(copies[0].failures, 0, "{copies:?}");
    blocker.batch_execute("COMMIT").await.unwrap();
    following.until_rows("s", &[row(&["1"])]).await;
    following.stop().await;
}

#[tokio::test]
async fn the_stream_waits_for_the_copy_when_too_much_is_kept() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        backfill_bytes: 10_000,
        ..options
    };
    let mut following = Following::start(&options).await;
    let blocker = hold_back(&cluster).await;
    cluster
        .sql("CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (0)")
        .await;
    until_copying(&following, "s").await;
    let full = || {
        following
            .backfills
            .list()
            .iter()
            .any(|copy| copy.kept_bytes >= 10_000)
    };
    // Over a new connection, the copy is begun anew, and nothing is kept before that.
    let begun = Instant::now();
    for first in (1..).step_by(1000) {
        let rows = format!("INSERT INTO s SELECT generate_series({first}, {first} + 999)");
        cluster.sql(&rows).await;
        tokio::time::sleep(options.schema_interval).await;
        if full() || begun.elapsed() > PATIENCE {
            break;
        }
    }
    assert!(full(), "{:?}", following.backfills.list());
    cluster.sql("INSERT INTO other VALUES (1)").await;
    // What is kept does not grow, and the transaction after it is not seen yet.
    tokio::time::sleep(options.schema_interval).await;
    assert!(
        following
            .backfills
            .list()
            .iter()
            .all(|copy| copy.kept_bytes < 11_000)
    );
    assert!(following.rows("other").is_empty());
    blocker.batch_execute("COMMIT").await.unwrap();
    following.until_rows("other", &[row(&["1"])]).await;
    settles(&following, &cluster, &options, "full").await;
    following.stop().await;
}

#[tokio::test]
async fn transactions_too_large_for_memory_go_on_while_a_table_is_copied_that_they_change() {
    let cluster = Cluster::start();
    cluster.sql(BIG).await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        backfill_bytes: 20_000,
        transaction_bytes: 64 << 10,
        storage: ReplicaOptions {
            part_bytes: 16 << 10,
            ..options.storage.clone()
        },
        ..mine(options)
    };
    let following = Following::start(&options).await;
    cluster.sql("ALTER PUBLICATION mine ADD TABLE big").await;
    until_copying(&following, "big").await;
    for n in 0..4 {
        // Held and outstanding tables in one transaction, each with more than may be held of it.
        let large = format!(
            "INSERT INTO t SELECT {n} * 10000 + i FROM generate_series(1, 2000) i;
             UPDATE big SET title = title || '{n}' WHERE id % 4 = {n};
             INSERT INTO u SELECT {n} * 10000 + i FROM generate_series(1, 2000) i"
        );
        cluster.sql(&large).await;
    }
    settles(&following, &cluster, &options, "large transactions").await;
    assert_eq!(following.rows("u").len(), 8000);
    following.stop().await;
}

#[tokio::test]
async fn a_table_that_may_not_be_read_is_left_out_with_the_reason_until_it_may() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE ROLE app LOGIN REPLICATION; GRANT ALL ON DATABASE postgres TO app;
             GRANT SELECT ON t TO app; CREATE PUBLICATION mine FOR TABLE t",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        upstream: cluster.address("app", "postgres", ""),
        ..mine(options)
    };
    let mut following = Following::start(&options).await;
    cluster
        .sql(
            "CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (5);
             ALTER PUBLICATION mine ADD TABLE s; ALTER TABLE t ALTER id TYPE bigint;
             REVOKE SELECT ON t FROM app",
        )
        .await;
    let reason = |following: &Following, table: &str| {
        let catalog = following.replica.catalog();
        let unsynced = catalog.unsynced().iter().find(|it| it.name == table);
        unsynced.map(|it| it.reason.clone()).unwrap_or_default()
    };
    for table in ["s", "t"] {
        wait(|| reason(&following, table).contains("permission denied")).await;
        assert!(
            reason(&following, table).contains("permission denied"),
            "{table}"
        );
        wait(|| following.replica.catalog().table(table).is_none()).await;
        assert!(following.replica.catalog().table(table).is_none());
    }
    assert!(!following.ended());
    cluster
        .sql("GRANT SELECT ON s, t TO app; INSERT INTO t VALUES (2)")
        .await;
    following.until_rows("s", &[row(&["5"])]).await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    assert_eq!(reason(&following, "s"), "");
    following.stop().await;
}

#[tokio::test]
async fn changes_while_nobody_follows_are_found_at_the_next_start() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    following.stop().await;
    for change in [
        "CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1); INSERT INTO t VALUES (2, 'b')",
        "INSERT INTO t VALUES (3, 'c') | ALTER TABLE t ADD n int DEFAULT 7 | INSERT INTO t VALUES (4)",
        "ALTER TABLE t DROP title | UPDATE t SET n = 8 WHERE id = 3",
        "ALTER TABLE t ALTER n TYPE text | INSERT INTO t VALUES (5, 'x') | DELETE FROM t WHERE id = 1",
        "DROP TABLE s | INSERT INTO other VALUES (1)",
        "DROP TABLE t; CREATE TABLE t (x int PRIMARY KEY); INSERT INTO t VALUES (9)",
        "ALTER TABLE other RENAME TO another; ALTER TABLE t RENAME TO other",
        "ALTER TABLE other ADD y int, ADD z serial | ALTER TABLE other DROP CONSTRAINT t_pkey, \
         ADD PRIMARY KEY (z)",
    ] {
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        let held = found_at_the_start(&cluster, &options, change).await;
        assert_eq!(held, replica_version, "{change}");
    }
}

#[tokio::test]
async fn partitions_that_come_with_rows_or_go_with_them_are_noticed() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY, title text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE SCHEMA apart; CREATE TABLE apart.p3 (id int PRIMARY KEY, title text);
             INSERT INTO p VALUES (1, 'a'); INSERT INTO apart.p3 VALUES (21, 'c')",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let id = |following: &Following| following.replica.catalog().table("p").unwrap().id;
    let first = id(&following);
    // One that is made as a partition has no rows that were not told.
    cluster
        .sql(
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             INSERT INTO p VALUES (11, 'b')",
        )
        .await;
    following
        .until_rows("p", &[row(&["1", "a"]), row(&["11", "b"])])
        .await;
    tokio::time::sleep(options.schema_interval * 3).await;
    assert_eq!(id(&following), first);
    for change in [
        "ALTER TABLE p ATTACH PARTITION apart.p3 FOR VALUES FROM (20) TO (30)",
        "INSERT INTO p VALUES (22, 'd'); DROP TABLE p1",
        "ALTER TABLE p DETACH PARTITION p2",
    ] {
        cluster.sql(change).await;
        settles(&following, &cluster, &options, change).await;
    }
    following.stop().await;
    cluster
        .sql("ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)")
        .await;
    let following = Following::start(&options).await;
    settles(&following, &cluster, &options, "while nobody followed").await;
    following.stop().await;
}

#[tokio::test]
async fn a_column_in_place_of_one_that_is_not_synced_has_its_values() {
    let cluster = Cluster::start();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, c point); INSERT INTO t VALUES (1, '(1,1)')";
    cluster.sql(setup).await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    following.until_rows("t", &[row(&["1"])]).await;
    let change = "ALTER TABLE t DROP c, ADD c float8; INSERT INTO t VALUES (2, 7)";
    cluster.sql(change).await;
    let expected = [row(&["1", "null"]), row(&["2", "7"])];
    following.until_rows("t", &expected).await;
    following.stop().await;
}

#[tokio::test]
async fn partitions_are_followed_when_their_root_leaves_a_published_schema_or_enters_it() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY, title text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE SCHEMA apart",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    // PostgreSQL remembers as whose rows it sends those of a partition.
    cluster.sql("INSERT INTO p VALUES (1, 'a')").await;
    following.until_rows("p", &[row(&["1", "a"])]).await;
    cluster.sql("ALTER TABLE p SET SCHEMA apart").await;
    following.until_rows("p1", &[row(&["1", "a"])]).await;
    cluster.sql("INSERT INTO apart.p VALUES (2, 'b')").await;
    following
        .until_rows("p1", &[row(&["1", "a"]), row(&["2", "b"])])
        .await;
    cluster.sql("TRUNCATE p1").await;
    following.until_rows("p1", &[]).await;
    cluster.sql("ALTER TABLE apart.p SET SCHEMA public").await;
    settles(&following, &cluster, &options, "back").await;
    cluster.sql("INSERT INTO p VALUES (3, 'c')").await;
    following.until_rows("p", &[row(&["3", "c"])]).await;
    assert!(following.replica.catalog().table("p1").is_none());
    following.stop().await;
}

#[tokio::test]
async fn partitions_are_followed_when_their_root_moves_in_a_transaction_too_large_for_memory() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
             CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA apart",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        transaction_bytes: 64 << 10,
        storage: ReplicaOptions {
            part_bytes: 16 << 10,
            ..options.storage.clone()
        },
        ..options
    };
    let mut following = Following::start(&options).await;
    cluster.sql("INSERT INTO p VALUES (1)").await;
    following.until_rows("p", &[row(&["1"])]).await;
    let large = "ALTER TABLE p SET SCHEMA apart; INSERT INTO t SELECT generate_series(1, 2000)";
    cluster.sql(large).await;
    // No further transaction is needed for the stream to be begun anew.
    following.until_rows("p1", &[row(&["1"])]).await;
    assert_eq!(following.rows("t").len(), 2000);
    cluster.sql("INSERT INTO p1 VALUES (2)").await;
    following
        .until_rows("p1", &[row(&["1"]), row(&["2"])])
        .await;
    following.stop().await;
}

#[tokio::test]
async fn partitions_are_followed_when_their_root_moves_while_a_transaction_has_written_to_one() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
             CREATE SCHEMA apart",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let (away, back) = (
        ("ALTER TABLE p SET SCHEMA apart", "p", "p1"),
        ("ALTER TABLE apart.p SET SCHEMA public", "p1", "p"),
    );
    let moves = [(away, false), (back, false), (away, true), (back, true)];
    let mut expected = Vec::new();
    for (at, ((change, gone, new), restarts)) in moves.into_iter().enumerate() {
        let open = cluster.client().await;
        // The first time, PostgreSQL reads what the root says of the partition, and locks it.
        let known = "INSERT INTO p1 VALUES (99); DELETE FROM p1 WHERE id = 99";
        open.batch_execute(known).await.unwrap();
        let write = |nth| format!("INSERT INTO p1 VALUES ({at}{nth})");
        open.batch_execute("BEGIN").await.unwrap();
        open.batch_execute(&write(1)).await.unwrap();
        cluster.sql(change).await;
        let is_gone = || following.replica.catalog().table(gone).is_none();
        wait(is_gone).await;
        assert!(is_gone(), "{change}");
        if restarts {
            following.stop().await;
            following = Following::start(&options).await;
        }
        open.batch_execute("COMMIT").await.unwrap();
        expected.push(row(&[&(at * 10 + 1).to_string()]));
        following.until_rows(new, &expected).await;
        cluster.sql(&write(2)).await;
        expected.push(row(&[&(at * 10 + 2).to_string()]));
        following.until_rows(new, &expected).await;
    }
    following.stop().await;
}

#[tokio::test]
async fn a_table_is_followed_that_is_published_while_a_transaction_has_written_to_it() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY);
             CREATE PUBLICATION mine FOR TABLE t",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = mine(options);
    let mut following = Following::start(&options).await;
    let filtered = "ALTER PUBLICATION mine SET TABLE t, u WHERE (id < 50)";
    let changes = [
        ("ALTER PUBLICATION mine ADD TABLE u", [1, 61], [2, 62]),
        (filtered, [3, 63], [4, 64]),
    ];
    let mut rows = Vec::new();
    for (change, while_open, afterwards) in changes {
        let insert = |[a, b]: [i32; 2]| format!("INSERT INTO u VALUES ({a}), ({b})");
        let open = cluster.client().await;
        open.batch_execute("BEGIN").await.unwrap();
        open.batch_execute(&insert(while_open)).await.unwrap();
        cluster.sql(change).await;
        until_copying(&following, "u").await;
        open.batch_execute("COMMIT").await.unwrap();
        rows.extend(while_open);
        let mut expect = async |rows: &mut Vec<i32>| {
            rows.retain(|id| change != filtered || *id < 50);
            rows.sort_unstable();
            let expected: Vec<_> = rows.iter().map(|id| row(&[&id.to_string()])).collect();
            following.until_rows("u", &expected).await;
        };
        expect(&mut rows).await;
        cluster.sql(&insert(afterwards)).await;
        rows.extend(afterwards);
        expect(&mut rows).await;
    }
    following.stop().await;
}

#[tokio::test]
async fn rows_that_came_or_went_while_something_was_not_published_are_noticed() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE p (id int PRIMARY KEY, title text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             INSERT INTO p VALUES (1, 'a'), (11, 'b');
             CREATE PUBLICATION mine FOR TABLE p, t WITH (publish_via_partition_root)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = mine(options);
    let again = "ALTER TABLE p DETACH PARTITION p2; INSERT INTO p2 VALUES (12, 'c');
                 ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)";
    let emptied = "TRUNCATE p1";
    let new = "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30) | \
               INSERT INTO p VALUES (21, 'd') | TRUNCATE p3";
    let republished = "ALTER PUBLICATION mine DROP TABLE t | INSERT INTO t VALUES (2) | \
                       ALTER PUBLICATION mine ADD TABLE t";
    let following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    for change in [again, emptied, new, republished] {
        for transaction in change.split('|') {
            cluster.sql(transaction).await;
        }
        settles(&following, &cluster, &options, change).await;
    }
    following.stop().await;
    // So are those while nobody followed.
    let more = "DELETE FROM t; INSERT INTO p VALUES (2, 'e')";
    for change in [more, again, emptied, republished] {
        for transaction in change.split('|') {
            cluster.sql(&transaction.replace("12", "13")).await;
        }
        let held = found_at_the_start(&cluster, &options, change).await;
        assert_eq!(held, replica_version, "{change}");
    }
}

#[tokio::test]
async fn values_that_read_otherwise_without_having_been_written_are_noticed() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok');
             CREATE TABLE t (id int PRIMARY KEY, m mood, n mood[], x numeric(9,3), y varchar(5));
             INSERT INTO t VALUES (1, 'sad', '{ok}', 1.234, 'y'), (2, 'ok', '{sad}', 5.678, 'z')",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    let id = |following: &Following| following.replica.catalog().table("t").unwrap().id;
    let first = id(&following);
    for change in [
        "ALTER TABLE t ALTER y TYPE varchar(9)",
        "ALTER TYPE mood ADD VALUE 'glad'",
    ] {
        cluster.sql(change).await;
        tokio::time::sleep(options.schema_interval * 3).await;
        assert_eq!(id(&following), first, "{change}");
    }
    for change in [
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TABLE t ALTER x TYPE numeric(9,1)",
    ] {
        cluster.sql(change).await;
        settles(&following, &cluster, &options, change).await;
    }
    following.stop().await;
    for change in [
        "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
        "ALTER TABLE t ALTER x TYPE numeric(9,0); INSERT INTO t VALUES (3, 'blue')",
    ] {
        cluster.sql(change).await;
        let held = found_at_the_start(&cluster, &options, change).await;
        assert_eq!(held, replica_version, "{change}");
    }
}
