//! A replica that follows a server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kelvin_protocol::Value;
use kelvin_replication::{Backfills, CommitListener, Error, Options, Prepared, discard, prepare};
use kelvin_storage::{Applied, ErrorKind, IndexId, Replica, Scan};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// Longest wait for something that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Counts commits.
#[derive(Default)]
pub(crate) struct Commits(pub(crate) Mutex<Vec<(u64, u64, usize)>>);

impl CommitListener for Commits {
    fn committed(&self, applied: Applied) {
        let commit = (applied.from, applied.version, applied.changes.len());
        self.0.lock().unwrap().push(commit);
    }
}

/// A running replica.
pub(crate) struct Following {
    pub(crate) replica: Replica,
    pub(crate) commits: Arc<Commits>,
    pub(crate) backfills: Backfills,
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

/// Options for a fresh directory.
pub(crate) fn options(cluster: &Cluster) -> (Options, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        upstream: cluster.url(),
        replica_dir: directory.path().join("replica"),
        copy_workers: 2,
        schema_interval: Duration::from_millis(300),
        task_id: "test".into(),
        ..Options::default()
    };
    (options, directory)
}

/// Prepares. A replica that was just let go of may be locked for a moment: by work on its files
/// that is under way, and by programs that other tests start, see [`give_up`].
pub(crate) async fn prepared(options: &Options) -> Prepared {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match prepare(options, Arc::new(())).await {
            Err(Error::Storage(error))
                if error.kind() == ErrorKind::Locked && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            prepared => return prepared.unwrap(),
        }
    }
}

impl Following {
    /// Prepares and follows.
    pub(crate) async fn start(options: &Options) -> Self {
        Self::go_on(prepared(options).await)
    }

    pub(crate) fn go_on(prepared: Prepared) -> Self {
        let commits = Arc::new(Commits::default());
        let shutdown = CancellationToken::new();
        let (replica, backfills) = (prepared.replica.clone(), prepared.backfills());
        let run = tokio::spawn(prepared.run(
            Arc::clone(&commits) as Arc<dyn CommitListener>,
            shutdown.clone(),
        ));
        Self {
            replica,
            commits,
            backfills,
            shutdown,
            run,
        }
    }

    /// Whether it follows no more.
    pub(crate) fn ended(&self) -> bool {
        self.run.is_finished()
    }

    /// The rows of a table in key order, or nothing where it is not held.
    pub(crate) fn rows(&self, table: &str) -> Vec<Vec<Value>> {
        rows(&self.replica, table)
    }

    /// Waits until the table has these rows, and shows the difference if it never does.
    pub(crate) async fn until_rows(&mut self, table: &str, expected: &[Vec<Value>]) {
        wait(|| self.run.is_finished() || self.rows(table) == expected).await;
        if self.run.is_finished() {
            panic!("it ended: {:?}", (&mut self.run).await);
        }
        assert_eq!(self.rows(table), expected);
    }

    /// Stops as at shutdown.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.run.await.unwrap().unwrap();
    }

    /// Ends as a process that is killed: nothing under way comes to its end.
    pub(crate) async fn abort(self) {
        self.run.abort();
        let _ = self.run.await;
    }

    /// Waits for the error it ends with; every handle on the replica is given up then.
    pub(crate) async fn failure(self) -> Error {
        drop(self.replica);
        let ended = tokio::time::timeout(PATIENCE, self.run).await;
        ended.expect("it goes on").unwrap().unwrap_err()
    }
}

/// What a new copy of the same publications looks like.
pub(crate) async fn of_a_new_copy(
    cluster: &Cluster,
    like: &Options,
    look: impl Fn(&Replica) -> String,
) -> String {
    let (options, _directory) = options(cluster);
    let fresh = Options {
        app_id: "fresh".into(),
        upstream: like.upstream.clone(),
        publications: like.publications.clone(),
        event_triggers: false,
        ..options
    };
    let found = look(&prepared(&fresh).await.replica);
    give_up(&fresh).await;
    found
}

/// Discards a replica that nobody follows any more. Programs that other tests start at the same
/// moment inherit its lock for as long as they take to start, so it is tried more than once.
pub(crate) async fn give_up(options: &Options) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = discard(options).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn rows(replica: &Replica, table: &str) -> Vec<Vec<Value>> {
    let view = replica.latest().unwrap();
    let Some(table) = view.catalog().table(table) else {
        return Vec::new();
    };
    view.scan(table.id, &Scan::of(IndexId::PRIMARY))
        .unwrap()
        .map(|row| row.unwrap().to_values())
        .collect()
}

/// Waits for a condition, at most as long as [`PATIENCE`]; the caller then asserts it.
pub(crate) async fn wait(mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A row of texts and numbers: what parses as a number is one.
pub(crate) fn row(values: &[&str]) -> Vec<Value> {
    let value = |text: &&str| match text.parse::<f64>() {
        Ok(number) => Value::from(number),
        Err(_) if *text == "null" => Value::Null,
        Err(_) => Value::from(*text),
    };
    values.iter().map(value).collect()
}
