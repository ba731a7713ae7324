//! Transactions that are larger than what may be held in memory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kelvin_protocol::Value;
use kelvin_replication::{CommitListener, Options};
use kelvin_storage::{Applied, Replica, ReplicaOptions};
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::following::{Following, PATIENCE, options, prepared, row, rows, wait};

const URL: &str = "KELVIN_LARGE_URL";
const DIR: &str = "KELVIN_LARGE_DIR";
const MEMORY: &str = "KELVIN_LARGE_MEMORY";
pub(crate) const MIB: u64 = 1 << 20;

/// Options under which all that is configurable takes little memory.
pub(crate) fn bounded(options: Options) -> Options {
    let transaction_bytes = 16 << 20;
    Options {
        transaction_bytes,
        queue_bytes: transaction_bytes,
        storage: ReplicaOptions {
            part_bytes: transaction_bytes / 4,
            cache_bytes: 8 * MIB,
            memtable_bytes: 4 * MIB,
            write_buffer_bytes: 16 * MIB,
            ..options.storage
        },
        ..options
    }
}

/// Options under which a few hundred rows are a large transaction of many parts.
pub(crate) fn low(options: Options) -> Options {
    Options {
        transaction_bytes: 64 << 10,
        storage: ReplicaOptions {
            part_bytes: 16 << 10,
            ..options.storage
        },
        ..options
    }
}

/// Rows of the table as PostgreSQL has them.
pub(crate) async fn upstream(cluster: &Cluster, table: &str) -> Vec<Vec<Value>> {
    let query = format!("SELECT * FROM {table} ORDER BY 1");
    let messages = cluster.client().await.simple_query(&query).await.unwrap();
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(found) = message {
            let values = (0..found.len()).map(|at| found.get(at).unwrap_or("null"));
            rows.push(row(&values.collect::<Vec<_>>()));
        }
    }
    rows
}

/// A table whose large values are kept outside of its rows.
const SCHEMA: &str = "
    CREATE TABLE t (id int PRIMARY KEY, n int, big text);
    ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE other (id int PRIMARY KEY);
    CREATE INDEX t_n ON t (n DESC, id);
    INSERT INTO t SELECT i, i, repeat('b', 3000) FROM generate_series(1, 400) i;
    INSERT INTO other SELECT i FROM generate_series(1, 3000) i";

/// A transaction that does everything there is to do, with savepoints that are taken back.
const LARGE: &str = "
    BEGIN;
    UPDATE t SET n = n + 1000;
    INSERT INTO t SELECT i, i % 7, 'small ' || i FROM generate_series(1001, 3000) i;
    SAVEPOINT one;
    UPDATE t SET n = -1, big = 'lost';
    DELETE FROM t WHERE id % 2 = 0;
    TRUNCATE other;
    ROLLBACK TO one;
    UPDATE t SET id = id + 10000 WHERE id % 3 = 0;
    DELETE FROM t WHERE id % 5 = 0;
    SAVEPOINT two;
    INSERT INTO t SELECT i, 0, 'again' FROM generate_series(20000, 20500) i;
    RELEASE two;
    UPDATE t SET big = repeat('c', 2500) WHERE id BETWEEN 100 AND 200;
    DELETE FROM t WHERE id BETWEEN 20100 AND 20200;
    INSERT INTO t SELECT i, 1, NULL FROM generate_series(20150, 20170) i;
    TRUNCATE other;
    INSERT INTO other SELECT i FROM generate_series(1, 7) i;
    COMMIT";

/// What commits came to.
#[derive(Default)]
struct Heard(Mutex<Vec<Applied>>);

impl CommitListener for Heard {
    fn committed(&self, applied: Applied) {
        self.0.lock().unwrap().push(applied);
    }
}

#[tokio::test]
async fn a_transaction_larger_than_memory_arrives_whole_and_at_once() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let prepared = prepared(&low(options)).await;
    let replica = prepared.replica.clone();
    let heard = Arc::new(Heard::default());
    let shutdown = CancellationToken::new();
    let listener = Arc::clone(&heard) as Arc<dyn CommitListener>;
    let run = tokio::spawn(prepared.run(listener, shutdown.clone()));
    let before = (rows(&replica, "t"), rows(&replica, "other"));
    assert_eq!(before.0, upstream(&cluster, "t").await);
    cluster.sql(LARGE).await;
    let after = (
        upstream(&cluster, "t").await,
        upstream(&cluster, "other").await,
    );
    // Whatever is read meanwhile is one of the two.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "it does not arrive");
        let now = (rows(&replica, "t"), rows(&replica, "other"));
        if now == after {
            break;
        }
        // The two tables are read from two views.
        assert!(now.0 == before.0 && (now.1 == before.1 || now.1 == after.1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.sql("INSERT INTO t VALUES (0, 0, 'after')").await;
    wait(|| rows(&replica, "t").len() == after.0.len() + 1).await;
    assert_eq!(rows(&replica, "t"), upstream(&cluster, "t").await);
    shutdown.cancel();
    run.await.unwrap().unwrap();
    let heard = heard.0.lock().unwrap();
    let tables = replica.catalog();
    let mut ids = ["other", "t"].map(|name| tables.table(name).unwrap().id);
    ids.sort_unstable();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0].swept, ids);
    assert!(heard[0].changes.is_empty());
    assert_eq!((heard[1].swept.len(), heard[1].changes.len()), (0, 1));
    let view = replica.at(heard[0].from).unwrap();
    let table = tables.table("t").unwrap();
    let then = view.scan(table.id, &kelvin_storage::Scan::all()).unwrap();
    let then: Vec<_> = then.map(|row| row.unwrap().to_values()).collect();
    assert_eq!(then, before.0);
}

/// Holds up the thread that applies, with the first commit it hears of.
struct HoldUp(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl CommitListener for HoldUp {
    fn committed(&self, _: Applied) {
        if let Some((held, go_on)) = self.0.lock().unwrap().take() {
            held.send(()).unwrap();
            go_on.recv().unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_within_a_large_transaction_leaves_nothing_of_it() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let prepared = prepared(&low(options)).await;
    let replica = prepared.replica.clone();
    let (held, is_held) = channel();
    let (go_on, may_go_on) = channel();
    let listener = HoldUp(Mutex::new(Some((held, may_go_on))));
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(prepared.run(Arc::new(listener), shutdown.clone()));
    cluster.sql("INSERT INTO t VALUES (0, 0, 'before')").await;
    tokio::task::spawn_blocking(move || is_held.recv().unwrap())
        .await
        .unwrap();
    let before = rows(&replica, "t");
    // With nobody to take them, the first part waits in the queue and the second before it.
    cluster.sql(LARGE).await;
    let sent = "SELECT sent_lsn >= pg_current_wal_lsn() - 100000 FROM pg_stat_replication";
    let mut waits = false;
    for _ in 0..300 {
        waits = cluster.value(sent).await.as_deref() == Some("t");
        if waits {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(waits, "nothing was sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        .await;
    let gone = "SELECT count(*) FROM pg_stat_replication";
    while cluster.value(gone).await.as_deref() != Some("0") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rows(&replica, "t"), before);
    go_on.send(()).unwrap();
    let after = upstream(&cluster, "t").await;
    wait(|| rows(&replica, "t") == after).await;
    assert_eq!(rows(&replica, "t"), after);
    assert_eq!(rows(&replica, "other"), upstream(&cluster, "other").await);
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_large_update_right_after_its_table_was_altered_needs_no_new_copy() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let options = low(options);
    let mut following = Following::start(&options).await;
    let replica_version = following.replica.identity().replica_version;
    for (change, update) in [
        (
            "ALTER TABLE t ADD extra int;",
            "UPDATE t SET extra = id, big = big || '!'",
        ),
        (
            "BEGIN; ALTER TABLE t ADD more int;",
            "UPDATE t SET more = n; COMMIT",
        ),
        ("ALTER TABLE t DROP extra;", "UPDATE t SET big = 'x' || big"),
    ] {
        cluster.sql(&format!("{change} {update}")).await;
        let expected = upstream(&cluster, "t").await;
        following.until_rows("t", &expected).await;
    }
    let identity = following.replica.identity();
    assert_eq!(identity.replica_version, replica_version);
    following.stop().await;
}

#[tokio::test]
async fn a_large_transaction_that_changes_the_schema_between_rows_costs_what_differs() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, _directory) = options(&cluster);
    let options = low(options);
    let mut following = Following::start(&options).await;
    let version = following.replica.watermark();
    cluster
        .sql(
            "BEGIN; UPDATE t SET n = 0 WHERE id = 1; ALTER TABLE t ADD extra int;
             UPDATE t SET extra = id, big = big || '!'; DELETE FROM other WHERE id = 1; COMMIT",
        )
        .await;
    for table in ["t", "other"] {
        let expected = upstream(&cluster, table).await;
        following.until_rows(table, &expected).await;
    }
    assert!(following.replica.identity().replica_version > version);
    following.stop().await;
}

/// Run by the tests below in a process of its own; does nothing otherwise.
#[tokio::test]
async fn follows_until_it_is_killed() {
    let (Ok(url), Ok(dir)) = (std::env::var(URL), std::env::var(DIR)) else {
        return;
    };
    let options = Options {
        upstream: url,
        replica_dir: dir.into(),
        task_id: "test".into(),
        ..Options::default()
    };
    let options = match std::env::var(MEMORY) {
        Ok(_) => bounded(options),
        Err(_) => low(options),
    };
    let prepared = prepared(&options).await;
    let shutdown = CancellationToken::new();
    prepared
        .run(Arc::new(Heard::default()), shutdown)
        .await
        .unwrap();
}

/// A process that follows; killed when dropped.
pub(crate) struct Follower(Child);

impl Follower {
    pub(crate) fn start(cluster: &Cluster, dir: &Path, memory: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "large::follows_until_it_is_killed";
        command.args(["--exact", test, "--nocapture"]);
        command.env(URL, cluster.url()).env(DIR, dir);
        if memory {
            command.env(MEMORY, "1");
        }
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Most memory that was resident at one time.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak(&self) -> u64 {
        let status = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a process streams.
pub(crate) async fn until_streaming(cluster: &Cluster) {
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    for _ in 0..3000 {
        if cluster.value(streams).await.as_deref() == Some("1") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody streams");
}

#[tokio::test]
async fn a_process_that_is_killed_within_a_large_transaction_shows_all_of_it_or_nothing() {
    let cluster = Cluster::start();
    cluster.sql(SCHEMA).await;
    let (options, directory) = options(&cluster);
    let dir: PathBuf = options.replica_dir.clone();
    let follower = Follower::start(&cluster, &dir, false);
    until_streaming(&cluster).await;
    let before = upstream(&cluster, "t").await;
    cluster.sql(LARGE).await;
    let after = upstream(&cluster, "t").await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    drop(follower);
    let (mut none, mut all) = (0, 0);
    for pause in [0, 30, 60, 100, 150, 220, 300, 400] {
        {
            let replica = Replica::open(&dir, &low(options.clone()).storage).unwrap();
            let found = rows(&replica, "t");
            if found == before {
                none += 1;
            } else {
                assert!(found == after, "a part of it is seen");
                all += 1;
            }
        }
        if all > 0 {
            break;
        }
        let follower = Follower::start(&cluster, &dir, false);
        until_streaming(&cluster).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(follower);
    }
    println!("killed before its end {none} times");
    let mut following = Following::start(&low(options)).await;
    following.until_rows("t", &after).await;
    let other = upstream(&cluster, "other").await;
    following.until_rows("other", &other).await;
    following.stop().await;
    drop(directory);
}

/// Waits until everything that PostgreSQL has written is confirmed.
async fn until_confirmed(cluster: &Cluster) {
    let lsn = cluster.value("SELECT pg_current_wal_insert_lsn()").await;
    let query = format!(
        "SELECT bool_and(confirmed_flush_lsn >= '{}') FROM pg_replication_slots",
        lsn.unwrap()
    );
    for _ in 0..6000 {
        if cluster.value(&query).await.as_deref() == Some("t") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not confirmed");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_a_transaction() {
    const ROWS: u64 = 1_000_000;
    /// What may come on top of what it takes to follow small transactions: the operations of a
    /// first part of 16 MiB, those that wait behind it, the part that is written, 16 MiB of fresh
    /// writes with those on their way to a file, and the engine's own work on its files. Held in
    /// memory as a whole the first transaction alone takes half a GiB.
    const BESIDE: u64 = 160 * MIB;
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (0, 'first')")
        .await;
    let (options, _directory) = options(&cluster);
    let dir = options.replica_dir.clone();
    let follower = Follower::start(&cluster, &dir, true);
    until_streaming(&cluster).await;
    cluster.sql("INSERT INTO t VALUES (-1, 'small')").await;
    until_confirmed(&cluster).await;
    let before = follower.peak();
    cluster
        .sql(&format!(
            "INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, {ROWS}) i"
        ))
        .await;
    let started = std::time::Instant::now();
    until_confirmed(&cluster).await;
    let inserted = follower.peak();
    println!(
        "{} MiB, then {} MiB, {:?}",
        before / MIB,
        inserted / MIB,
        started.elapsed()
    );
    cluster
        .sql("UPDATE t SET note = md5(id::text) WHERE id % 10 = 0")
        .await;
    cluster.sql("TRUNCATE t").await;
    cluster.sql("INSERT INTO t VALUES (7, 'last')").await;
    until_confirmed(&cluster).await;
    let emptied = follower.peak();
    println!("then {} MiB, {:?}", emptied / MIB, started.elapsed());
    for peak in [inserted, emptied] {
        let grown = (peak - before) / MIB;
        assert!(peak - before <= BESIDE, "it grew by {grown} MiB");
    }
    drop(follower);
    let replica = Replica::open(&dir, &bounded(options).storage).unwrap();
    assert_eq!(rows(&replica, "t"), [row(&["7", "last"])]);
}
