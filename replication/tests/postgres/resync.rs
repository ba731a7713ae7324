//! Replicas that are brought up to an upstream whose stream they cannot follow any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kelvin_protocol::{Value, Version};
use kelvin_replication::{CopyProgress, ErrorKind, Options, Prepared, Progress, Resynced, prepare};
use kelvin_storage::{ErrorKind as StorageErrorKind, IndexId, Replica, Scan};

use crate::cluster::{Cluster, Setup};
use crate::following::{Following, PATIENCE, give_up, options, row, rows, wait};
use crate::large::{Follower, low, until_streaming};

/// Drops the slot of a stream that comes back within milliseconds, in the gap before that.
pub(crate) const DROP_SLOT: &str = "DO $$
    BEGIN
        FOR attempt IN 1..2000 LOOP
            PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots;
            PERFORM pg_sleep(0.002);
            BEGIN
                PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots;
                RETURN;
            EXCEPTION WHEN object_in_use THEN
            END;
        END LOOP;
        RAISE 'the slot was in use all the time';
    END $$";
const SLOTS: &str = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots";

/// A table of whose rows some are older than a column.
const TABLE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, name text, n float8, big text);
    INSERT INTO t SELECT i, 'row ' || i, i, NULL FROM generate_series(1, 50) i;
    INSERT INTO t VALUES (51, 'minus', '-0', repeat('b', 5000)), (52, 'not', 'NaN', '');
    CREATE TABLE two (a int, b text, at timestamptz, PRIMARY KEY (b, a));
    INSERT INTO two SELECT i % 7, 'b' || i, '2024-01-01' FROM generate_series(1, 30) i;
    ALTER TABLE two REPLICA IDENTITY FULL";

/// Hears what bringing up came to.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<Resynced>>);

impl Progress for Heard {
    fn copying(&self, _progress: CopyProgress) {}

    fn resynced(&self, difference: Resynced) {
        self.0.lock().unwrap().push(difference);
    }
}

impl Heard {
    fn all(&self) -> Vec<Resynced> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) -> Vec<Resynced> {
        wait(|| self.0.lock().unwrap().len() >= count).await;
        let all = self.all();
        assert_eq!(all.len(), count);
        all
    }
}

async fn prepared(options: &Options, heard: &Arc<Heard>) -> Prepared {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match prepare(options, Arc::clone(heard) as Arc<dyn Progress>).await {
            Err(kelvin_replication::Error::Storage(error))
                if error.kind() == StorageErrorKind::Locked
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            prepared => return prepared.unwrap(),
        }
    }
}

/// Rows of a table by key, with version and number.
fn versions(replica: &Replica, table: &str) -> BTreeMap<Vec<Value>, (Version, u32)> {
    let view = replica.latest().unwrap();
    let table = view.catalog().table(table).unwrap();
    let rows = view.scan(table.id, &Scan::of(IndexId::PRIMARY)).unwrap();
    let rows = rows.map(|row| row.unwrap());
    rows.map(|row| (row.project(&table.key), (row.version, row.id)))
        .collect()
}

/// The row of kelvin's own tables that is always there, that of the permissions.
const OWN: u64 = 1;

/// How rows of the two tables are changed while nobody follows, and what that comes to.
const CHANGES: &str = "
    UPDATE t SET name = 'changed' WHERE id IN (3, 5);
    UPDATE t SET n = 1 WHERE id = 51;
    DELETE FROM t WHERE id IN (10, 11, 12);
    INSERT INTO t SELECT i, 'new', i, NULL FROM generate_series(100, 103) i;
    -- Gone and back: as it was, and otherwise.
    DELETE FROM t WHERE id IN (20, 21);
    INSERT INTO t VALUES (20, 'row 20', 20, NULL), (21, 'other', 21, NULL);
    -- There and back again.
    UPDATE t SET name = 'for a moment' WHERE id = 30;
    UPDATE t SET name = 'row 30' WHERE id = 30;
    -- Another key.
    UPDATE t SET id = 200 WHERE id = 40;
    UPDATE two SET at = at + interval '1 s' WHERE a = 3 AND b = 'b3'";
const CAME_TO: Resynced = Resynced {
    kept: 44 + 29 + OWN,
    changed: 4 + 1,
    added: 5,
    removed: 4,
};

/// Asserts that a replica equals PostgreSQL, by the values a new copy has.
async fn equals_a_new_copy(cluster: &Cluster, like: &Options, replica: &Replica) {
    let look = |replica: &Replica| format!("{:?} {:?}", rows(replica, "t"), rows(replica, "two"));
    let fresh = crate::following::of_a_new_copy(cluster, like, look).await;
    assert_eq!(look(replica), fresh);
}

#[tokio::test]
async fn a_slot_that_is_gone_costs_what_differs_while_the_replica_is_served() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let mut following = Following::go_on(prepared(&options, &heard).await);
    cluster
        .sql("ALTER TABLE t ADD COLUMN later int DEFAULT 7; UPDATE t SET later = 8 WHERE id = 1")
        .await;
    wait(|| following.rows("t")[0].len() == 5).await;
    let before = following.replica.identity();
    let (t, two) = (
        versions(&following.replica, "t"),
        versions(&following.replica, "two"),
    );
    // Rows are seen before the listener hears of them.
    let watermark = following.replica.watermark();
    let heard_of = |(_, version, _): &(u64, u64, usize)| *version >= watermark;
    wait(|| following.commits.0.lock().unwrap().iter().any(heard_of)).await;
    following.commits.0.lock().unwrap().clear();
    // What happens to the rows and to the slot cannot be told apart by the stream: it is away.
    cluster.sql(&format!("{DROP_SLOT}; {CHANGES}")).await;
    assert_eq!(heard.until(1).await, [CAME_TO]);
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    // One commit with the difference, and none of it about rows that are the same.
    let commits = following.commits.0.lock().unwrap().clone();
    let changes = CAME_TO.changed + CAME_TO.added + CAME_TO.removed;
    let told: Vec<_> = commits.iter().map(|(_, _, changes)| *changes).collect();
    assert_eq!(told.iter().sum::<usize>() as u64, changes, "{commits:?}");
    assert_eq!(told.iter().filter(|changes| **changes > 0).count(), 1);
    let identity = following.replica.identity();
    assert_eq!(identity.epoch, before.epoch);
    let now = versions(&following.replica, "t");
    for (key, was) in &t {
        let id = &key[0];
        let differs = [3.0, 5.0, 21.0, 51.0].map(Value::from).contains(id);
        match now.get(key) {
            Some(is) if differs => {
                assert_eq!((is.0, is.1), (identity.replica_version, was.1), "{id:?}");
            }
            Some(is) => assert_eq!(is, was, "{id:?}"),
            None => assert!(
                [10.0, 11.0, 12.0, 40.0].map(Value::from).contains(id),
                "{id:?}"
            ),
        }
    }
    let two_now = versions(&following.replica, "two");
    let differing = two
        .iter()
        .filter(|(key, was)| two_now.get(*key) != Some(was));
    assert_eq!(differing.count(), 1);
    // The new slot is followed, and the old one left nothing behind.
    cluster.sql("DELETE FROM t WHERE id > 1").await;
    let expected = [row(&["1", "row 1", "1", "null", "8"])];
    following.until_rows("t", &expected).await;
    assert_eq!(cluster.value(SLOTS).await, Some(identity.slot));
    let claims = r#"SELECT string_agg(slot, ',') FROM zero_0."kelvinReplicas""#;
    assert_eq!(cluster.value(claims).await, cluster.value(SLOTS).await);
    following.stop().await;
    // And so it is after a restart.
    let again = Following::go_on(prepared(&options, &heard).await);
    assert_eq!(again.rows("t"), expected);
    assert_eq!(heard.all().len(), 1);
    again.stop().await;
}

#[tokio::test]
async fn a_slot_that_was_lost_while_nobody_followed_costs_what_differs() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    let before = following.replica.identity();
    following.stop().await;
    cluster
        .sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        .await;
    cluster.sql(CHANGES).await;
    // Where nothing is to be reset by itself, the operator is asked.
    let strict = Options {
        auto_reset: false,
        ..options.clone()
    };
    let error = prepare(&strict, Arc::new(())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Resync, "{error}");
    let ready = prepared(&options, &heard).await;
    assert_eq!(
        rows(&ready.replica, "t").len(),
        52,
        "it is served as it was"
    );
    let following = Following::go_on(ready);
    assert_eq!(heard.until(1).await, [CAME_TO]);
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    assert_eq!(following.replica.identity().epoch, before.epoch);
    following.stop().await;
}

#[tokio::test]
async fn an_invalidated_slot_costs_what_differs() {
    let cluster = Cluster::with(Setup {
        settings: "max_slot_wal_keep_size = 1MB\nmin_wal_size = 32MB\nmax_wal_size = 32MB",
        ..Setup::default()
    });
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    // The slot is lost between the look at it and the stream.
    let ready = prepared(&options, &heard).await;
    cluster.sql(CHANGES).await;
    for _ in 0..4 {
        cluster
            .sql("CREATE TABLE filler AS SELECT 1; DROP TABLE filler")
            .await;
        cluster.sql("SELECT pg_switch_wal()").await;
        cluster.sql("CHECKPOINT").await;
    }
    let following = Following::go_on(ready);
    assert_eq!(heard.until(1).await, [CAME_TO]);
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    let slots = cluster.value(SLOTS).await;
    assert_eq!(slots, Some(following.replica.identity().slot));
    following.stop().await;
    give_up(&options).await;
    assert_eq!(cluster.value(SLOTS).await, None);
}

#[tokio::test]
async fn another_list_of_publications_costs_what_differs() {
    let cluster = Cluster::start();
    cluster
        .sql(&format!(
            "{TABLE}; CREATE TABLE three (id int PRIMARY KEY); INSERT INTO three VALUES (1);
             CREATE PUBLICATION all_of_it FOR TABLE t, two, three;
             CREATE PUBLICATION part_of_it FOR TABLE t WHERE (id <= 10), two"
        ))
        .await;
    let (options, _directory) = options(&cluster);
    let with = |publication: &str| Options {
        publications: vec![publication.into()],
        ..options.clone()
    };
    let heard = Arc::new(Heard::default());
    Following::go_on(prepared(&with("all_of_it"), &heard).await)
        .stop()
        .await;
    let mut following = Following::go_on(prepared(&with("part_of_it"), &heard).await);
    let difference = Resynced {
        kept: 10 + 30 + OWN,
        removed: 42,
        ..Resynced::default()
    };
    assert_eq!(heard.until(1).await, [difference]);
    following.until_rows("three", &[]).await;
    cluster
        .sql("UPDATE t SET id = id + 100 WHERE id <= 9; DELETE FROM two")
        .await;
    let left = [row(&["10", "row 10", "10", "null"])];
    following.until_rows("t", &left).await;
    following.until_rows("two", &[]).await;
    following.stop().await;
    let mut back = Following::go_on(prepared(&with("all_of_it"), &heard).await);
    back.until_rows("three", &[row(&["1"])]).await;
    equals_a_new_copy(&cluster, &with("all_of_it"), &back.replica).await;
    back.stop().await;
}

#[tokio::test]
async fn tables_that_changed_their_form_meanwhile_are_copied_by_themselves() {
    let cluster = Cluster::start();
    cluster
        .sql(&format!(
            "{TABLE}; CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1);
             CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1);
             CREATE TABLE wide (id int PRIMARY KEY, a int); INSERT INTO wide VALUES (1, 1), (2, 2);
             CREATE TABLE named (id int PRIMARY KEY); INSERT INTO named VALUES (1)"
        ))
        .await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let mut following = Following::go_on(prepared(&options, &heard).await);
    let kept = versions(&following.replica, "two");
    cluster
        .sql(&format!(
            "{DROP_SLOT}; {CHANGES}; UPDATE two SET at = at - interval '1 s' WHERE b = 'b3';
             DROP TABLE gone; DROP TABLE again; CREATE TABLE again (id int PRIMARY KEY, b text);
             INSERT INTO again VALUES (2, 'two'); CREATE TABLE new (id int PRIMARY KEY);
             INSERT INTO new VALUES (3); UPDATE wide SET a = 5 WHERE id = 1;
             ALTER TABLE wide ADD b int DEFAULT 9; DELETE FROM wide WHERE id = 2;
             INSERT INTO named VALUES (2); ALTER TABLE named RENAME TO renamed"
        ))
        .await;
    heard.until(1).await;
    for (table, expected) in [
        ("gone", vec![]),
        ("again", vec![row(&["2", "two"])]),
        ("new", vec![row(&["3"])]),
        ("wide", vec![row(&["1", "5", "9"])]),
        ("named", vec![]),
        ("renamed", vec![row(&["1"]), row(&["2"])]),
    ] {
        following.until_rows(table, &expected).await;
    }
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    assert_eq!(versions(&following.replica, "two"), kept);
    wait(|| following.backfills.list().is_empty()).await;
    assert_eq!(following.replica.catalog().unsynced(), []);
    cluster.sql("INSERT INTO wide VALUES (7, 7, 7)").await;
    let wide = [row(&["1", "5", "9"]), row(&["7", "7", "7"])];
    following.until_rows("wide", &wide).await;
    following.stop().await;
}

const MANY: &str = "
    CREATE TABLE t (id int PRIMARY KEY, name text);
    CREATE TABLE two (id int PRIMARY KEY, name text);
    INSERT INTO t SELECT i, repeat('x', 100) || i FROM generate_series(1, 4000) i;
    INSERT INTO two SELECT i, 'same' FROM generate_series(1, 2000) i";
const MUCH: &str = "
    UPDATE t SET name = repeat('y', 100) || id WHERE id % 2 = 0;
    DELETE FROM t WHERE id % 5 = 0;
    INSERT INTO t SELECT i, 'new' FROM generate_series(5001, 6000) i";

#[tokio::test]
async fn a_difference_larger_than_memory_is_seen_as_a_whole() {
    let cluster = Cluster::start();
    cluster.sql(MANY).await;
    let (options, _directory) = options(&cluster);
    let options = low(options);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    let before = (
        rows(&following.replica, "t"),
        versions(&following.replica, "two"),
    );
    cluster.sql(&format!("{DROP_SLOT}; {MUCH}")).await;
    // Nothing is seen of it before all of it is there.
    wait(|| {
        let now = rows(&following.replica, "t");
        assert!(now == before.0 || now.len() == 4200, "{} rows", now.len());
        now != before.0
    })
    .await;
    let difference = Resynced {
        kept: 1600 + 2000 + OWN,
        changed: 1600,
        added: 1000,
        removed: 800,
    };
    assert_eq!(heard.until(1).await, [difference]);
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    assert_eq!(versions(&following.replica, "two"), before.1);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bringing_up_that_is_broken_off_is_begun_again() {
    let cluster = Cluster::start();
    cluster.sql(MANY).await;
    let (options, _directory) = options(&cluster);
    let options = low(options);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    let before = rows(&following.replica, "t");
    following.stop().await;
    cluster
        .sql(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; {MUCH}"
        ))
        .await;
    // At whatever moment it ends.
    for pause in [1, 20, 40, 60, 80, 110, 140, 180, 230, 300] {
        let following = Following::go_on(prepared(&options, &heard).await);
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        following.abort().await;
        let ready = prepared(&options, &heard).await;
        let now = rows(&ready.replica, "t");
        assert!(now == before || now.len() == 4200, "{} rows", now.len());
        // What commits now is in no snapshot that was taken before.
        cluster
            .sql("UPDATE two SET name = name || '.' WHERE id < 5")
            .await;
    }
    let following = Following::go_on(prepared(&options, &heard).await);
    let last = [Value::from(1.0), Value::from("same..........")];
    wait(|| {
        rows(&following.replica, "two")
            .first()
            .is_some_and(|row| *row == last)
    })
    .await;
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    let slot = following.replica.identity().slot;
    wait(|| !heard.all().is_empty()).await;
    assert_eq!(
        cluster.value(SLOTS).await,
        Some(slot),
        "no slot is left behind"
    );
    following.stop().await;
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_brings_up_goes_on_where_it_can() {
    let cluster = Cluster::start();
    cluster.sql(MANY).await;
    let (options, _directory) = options(&cluster);
    let options = low(options);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    let before = rows(&following.replica, "t");
    following.stop().await;
    cluster
        .sql(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; {MUCH}"
        ))
        .await;
    let (mut none, mut marked) = (0, 0);
    for pause in [0, 15, 30, 50, 75, 100, 150, 200, 300, 400] {
        let follower = Follower::start(&cluster, &options.replica_dir, false);
        // It has a slot as soon as it has begun.
        wait_for(async || cluster.value(SLOTS).await.is_some()).await;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        drop(follower);
        let replica = Replica::open(&options.replica_dir, &options.storage).unwrap();
        let found = rows(&replica, "t");
        assert!(
            found == before || found.len() == 4200,
            "{} rows",
            found.len()
        );
        none += usize::from(found == before);
        let identity = replica.identity();
        let is_marked = identity.details.contains_key("resync");
        marked += usize::from(is_marked);
        // Only a replica with the whole difference follows a slot.
        assert!(is_marked || found.len() == 4200);
        drop(replica);
        cluster
            .sql("UPDATE two SET name = name || '.' WHERE id < 5")
            .await;
        if pause < 400 {
            // So that the next slot is that of the next process.
            cluster.sql(DROP_SLOT).await;
        }
    }
    println!("killed {none} times before its end, {marked} times with a mark");
    let following = Following::go_on(prepared(&options, &heard).await);
    let last = [Value::from(1.0), Value::from("same..........")];
    let arrived = |rows: Vec<Vec<Value>>| rows.first().is_some_and(|row| *row == last);
    wait(|| arrived(rows(&following.replica, "two"))).await;
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    let slot = following.replica.identity().slot;
    wait_for(async || cluster.value(SLOTS).await.as_ref() == Some(&slot)).await;
    assert_eq!(
        cluster.value(SLOTS).await,
        Some(slot),
        "no slot is left behind"
    );
    following.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_a_difference() {
    use crate::large::{MIB, bounded};

    const ROWS: u64 = 300_000;
    /// The parts of a large transaction that wait, and what four connections read ahead. Held in
    /// memory as a whole, the difference takes 200 MiB and its batch as much again.
    const BESIDE: u64 = 128 * MIB;
    let cluster = Cluster::start();
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (0, 'first')")
        .await;
    let (options, _directory) = options(&cluster);
    let follower = Follower::start(&cluster, &options.replica_dir, true);
    until_streaming(&cluster).await;
    let before = follower.peak();
    let mut claimed = cluster.value(CLAIM).await;
    let mut grown = Vec::new();
    for change in [
        format!("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, {ROWS}) i"),
        "DELETE FROM t WHERE id % 7 > 0".into(),
    ] {
        cluster.sql(&format!("{DROP_SLOT}; {change}")).await;
        let mut now = None;
        wait_for(async || {
            now = cluster.value(CLAIM).await;
            now.is_some() && now != claimed
        })
        .await;
        assert_ne!(now, claimed, "it is not brought up");
        claimed = now;
        until_streaming(&cluster).await;
        grown.push((follower.peak() - before) / MIB);
    }
    println!("it grew by {grown:?} MiB");
    assert!(grown.iter().all(|grown| grown * MIB <= BESIDE), "{grown:?}");
    drop(follower);
    let replica = Replica::open(&options.replica_dir, &bounded(options.clone()).storage).unwrap();
    assert_eq!(rows(&replica, "t").len() as u64, ROWS / 7 + 1);
}

/// The replica that is complete.
#[cfg(target_os = "linux")]
const CLAIM: &str = r#"SELECT id FROM zero_0."kelvinReplicas" WHERE copied"#;

/// Writes that leave the WAL far ahead of a backup, and the tables otherwise than it.
const LATER: &str = "
    CREATE TABLE filler AS SELECT i, repeat('x', 500) FROM generate_series(1, 4000) i;
    UPDATE t SET name = 'lost' WHERE id = 7;
    DELETE FROM t WHERE id IN (8, 9);
    INSERT INTO t VALUES (300, 'lost', 300, NULL);
    DROP TABLE filler";
const LATER_TAKEN_BACK: Resynced = Resynced {
    kept: 49 + 30 + OWN,
    changed: 1,
    added: 2,
    removed: 1,
};

/// How far the slot is confirmed in relation to where the server writes, in bytes.
const BEHIND: &str = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restored_costs_what_differs_and_versions_go_on_rising() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let mut following = Following::go_on(prepared(&options, &heard).await);
    let epoch = following.replica.identity().epoch;
    cluster.back_up();
    for round in 0..2 {
        cluster.sql(LATER).await;
        wait(|| following.rows("t").len() == 51).await;
        let before = versions(&following.replica, "t");
        let watermark = following.replica.watermark();
        if round == 0 {
            // While it is followed.
            cluster.stop("immediate");
            cluster.restore();
            cluster.launch();
        } else {
            // While nobody follows.
            following.stop().await;
            cluster.stop("immediate");
            cluster.restore();
            cluster.launch();
            following = Following::go_on(prepared(&options, &heard).await);
        }
        assert_eq!(heard.until(round + 1).await[round], LATER_TAKEN_BACK);
        equals_a_new_copy(&cluster, &options, &following.replica).await;
        let identity = following.replica.identity();
        assert_eq!(identity.epoch, epoch);
        assert!(identity.replica_version > watermark);
        let now = versions(&following.replica, "t");
        let same = before
            .iter()
            .filter(|(key, was)| now.get(*key) == Some(was));
        assert_eq!(same.count(), 49);
        // The stream is followed, and confirmed in the server's own positions.
        let written = following.replica.watermark();
        cluster
            .sql("UPDATE t SET name = 'followed' WHERE id = 1")
            .await;
        wait(|| following.rows("t")[0][1] == Value::from("followed")).await;
        assert!(following.replica.watermark() > written);
        cluster
            .sql("CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)")
            .await;
        following.until_rows("made", &[row(&["1"])]).await;
        let mut behind = None;
        wait_for(async || {
            behind = cluster.value(BEHIND).await;
            behind.as_deref() == Some("0")
        })
        .await;
        assert_eq!(behind.as_deref(), Some("0"));
        // What happens while nobody follows is not taken for known.
        following.stop().await;
        cluster
            .sql("UPDATE t SET name = 'row 1' WHERE id = 1; DROP TABLE made")
            .await;
        following = Following::go_on(prepared(&options, &heard).await);
        wait(|| following.rows("t")[0][1] == Value::from("row 1")).await;
        following.until_rows("made", &[]).await;
        assert_eq!(heard.all().len(), round + 1);
    }
    following.stop().await;
}

/// Tables whose columns or form are others in a logical copy, and one that is not in it.
const OTHERS: &str = "
    CREATE TABLE numbered (gone text, name text, id int PRIMARY KEY, off boolean);
    ALTER TABLE numbered DROP gone;
    CREATE TABLE otherwise (id int PRIMARY KEY, n int);
    INSERT INTO otherwise SELECT i, i FROM generate_series(1, 20) i;
    CREATE TABLE left_behind (id int PRIMARY KEY); INSERT INTO left_behind VALUES (1)";

/// These as they are in the copy. What comes first has the numbers of others in the old database.
const OTHERS_COPIED: &str = "
    CREATE TABLE unheard (id int PRIMARY KEY);
    CREATE TABLE otherwise (id int PRIMARY KEY, n text);
    INSERT INTO otherwise SELECT i, i FROM generate_series(1, 20) i;
    CREATE TABLE numbered (name text, id int PRIMARY KEY, off boolean)";

const NUMBERED: &str =
    "INSERT INTO numbered SELECT 'name ' || i, i, i % 2 = 0 FROM generate_series(1, 20) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_logical_copy_of_the_database_costs_what_differs_whatever_its_tables_are_numbered() {
    let (cluster, copied) = (Cluster::start(), Cluster::start());
    for sql in [OTHERS, NUMBERED, TABLE] {
        cluster.sql(sql).await;
    }
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    let tables = ["t", "two", "numbered"];
    let before = tables.map(|table| versions(&following.replica, table));
    following.stop().await;
    for sql in [OTHERS_COPIED, NUMBERED, TABLE, CHANGES] {
        copied.sql(sql).await;
    }
    copied
        .sql("UPDATE numbered SET off = NULL WHERE id = 7")
        .await;
    let options = Options {
        upstream: copied.url(),
        ..options
    };
    let mut following = Following::go_on(prepared(&options, &heard).await);
    let came_to = Resynced {
        kept: CAME_TO.kept + 19,
        changed: CAME_TO.changed + 1,
        ..CAME_TO
    };
    assert_eq!(heard.until(1).await, [came_to]);
    let now = tables.map(|table| versions(&following.replica, table));
    let same = before.iter().zip(&now).map(|(before, now)| {
        let same = before
            .iter()
            .filter(|(key, was)| now.get(*key) == Some(was));
        same.count()
    });
    assert_eq!(same.sum::<usize>(), 44 + 29 + 19);
    equals_a_new_copy(&copied, &options, &following.replica).await;
    following.until_rows("unheard", &[]).await;
    following.until_rows("left_behind", &[]).await;
    let text = |id: u32, n: &str| vec![Value::from(f64::from(id)), Value::from(n)];
    let mut otherwise: Vec<_> = (1..=20).map(|id| text(id, &id.to_string())).collect();
    following.until_rows("otherwise", &otherwise).await;
    // All of it is followed.
    copied
        .sql(
            "UPDATE numbered SET name = 'followed' WHERE id = 7;
             INSERT INTO otherwise VALUES (21, 'x'); INSERT INTO unheard VALUES (1);
             UPDATE t SET name = 'followed' WHERE id = 1",
        )
        .await;
    following.until_rows("unheard", &[row(&["1"])]).await;
    let numbered = following.rows("numbered");
    let seventh = numbered.iter().find(|row| row[1] == Value::from(7.0));
    let expected = [Value::from("followed"), Value::from(7.0), Value::Null];
    assert_eq!(seventh.map(Vec::as_slice), Some(&expected[..]));
    otherwise.push(text(21, "x"));
    following.until_rows("otherwise", &otherwise).await;
    equals_a_new_copy(&copied, &options, &following.replica).await;
    assert_eq!(following.rows("t")[0][1], Value::from("followed"));
    assert_eq!(heard.all().len(), 1);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_tables_that_were_made_anew_cost_what_differs() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let mut following = Following::go_on(prepared(&options, &heard).await);
    let before = versions(&following.replica, "t");
    let (one, all) = (
        "DROP TABLE zero_0.mutations",
        "DROP SCHEMA zero, zero_0 CASCADE",
    );
    for (round, dropped) in (1..).zip([one, all]) {
        cluster.sql(dropped).await;
        heard.until(round).await;
        assert_eq!(versions(&following.replica, "t"), before);
    }
    // While nobody follows, too.
    following.stop().await;
    cluster.sql(all).await;
    following = Following::go_on(prepared(&options, &heard).await);
    heard.until(3).await;
    assert_eq!(versions(&following.replica, "t"), before);
    // They are followed like all others.
    cluster
        .sql(
            "INSERT INTO zero_0.clients VALUES ('g', 'c', 7);
             UPDATE t SET name = 'followed' WHERE id = 1",
        )
        .await;
    following
        .until_rows("zero_0.clients", &[row(&["g", "c", "7", "null"])])
        .await;
    assert_eq!(following.rows("t")[0][1], Value::from("followed"));
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_over_with_all_transactions_is_followed() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let mut following = Following::go_on(prepared(&options, &heard).await);
    let identity = following.replica.identity();
    for round in 0..2 {
        cluster
            .sql("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 5)")
            .await;
        wait(|| following.rows("t").len() == 47 - 10 * round).await;
        cluster.stop("fast");
        cluster.take_over().await;
        cluster
            .sql("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 5)")
            .await;
        wait(|| following.rows("t").len() == 42 - 10 * round).await;
        equals_a_new_copy(&cluster, &options, &following.replica).await;
        following.stop().await;
        following = Following::go_on(prepared(&options, &heard).await);
    }
    let now = following.replica.identity();
    assert_eq!(
        (now.slot, now.replica_version),
        (identity.slot, identity.replica_version)
    );
    assert_eq!(heard.all(), []);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_took_over_without_the_last_transactions_costs_what_differs() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let heard = Arc::new(Heard::default());
    let following = Following::go_on(prepared(&options, &heard).await);
    cluster.back_up();
    cluster.sql(LATER).await;
    wait(|| following.rows("t").len() == 51).await;
    let reached = following.replica.watermark();
    following.stop().await;
    cluster.stop("immediate");
    cluster.restore();
    cluster.take_over().await;
    // It has the slot, and its WAL is beyond where the other one's was.
    let passed = format!("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn > {reached}");
    while cluster.value(&passed).await.as_deref() != Some("t") {
        cluster
            .sql(
                "CREATE TABLE filler AS SELECT i, repeat('x', 500) FROM generate_series(1, 4000) i;
                  DROP TABLE filler",
            )
            .await;
    }
    let following = Following::go_on(prepared(&options, &heard).await);
    assert_eq!(heard.until(1).await, [LATER_TAKEN_BACK]);
    equals_a_new_copy(&cluster, &options, &following.replica).await;
    following.stop().await;
    // Which is done once.
    let again = Following::go_on(prepared(&options, &heard).await);
    cluster.sql("DELETE FROM t").await;
    wait(|| again.rows("t").is_empty()).await;
    assert_eq!(heard.all().len(), 1);
    again.stop().await;
}

async fn wait_for(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
