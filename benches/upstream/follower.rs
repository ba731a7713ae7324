//! kelvin in a process of its own, so that its memory is its own: it copies what it has no replica
//! of, and follows up to some position.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_replication::{CommitListener, Lsn, Options, prepare};
use kelvin_storage::{Applied, Replica};
use tokio_util::sync::CancellationToken;

/// First argument of a process that is a follower.
const ROLE: &str = "--follower";
/// Time between two looks at the watermark.
const LOOK: Duration = Duration::from_millis(1);

/// What a follower is told.
pub struct Errand {
    pub options: Options,
    /// How far it follows.
    pub until: Lsn,
}

/// How it went.
pub struct Report {
    /// To copy all, or to open the replica there is.
    pub preparing: Duration,
    /// From there until it had come as far as it should.
    pub following: Duration,
    /// Most memory it had while following, MiB.
    pub peak: f64,
}

/// Nobody listens.
pub struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self, _applied: Applied) {}
}

/// Options for a replica in this directory.
pub fn options(upstream: String, directory: &Path) -> Options {
    Options {
        upstream,
        replica_dir: directory.to_owned(),
        task_id: "bench".into(),
        ..Options::default()
    }
}

/// The errand of this process, if it is a follower.
pub fn errand() -> Option<Errand> {
    let mut args = std::env::args().skip(1);
    args.next().filter(|role| role == ROLE)?;
    let mut options = options(args.next()?, Path::new(&args.next()?));
    options.transaction_bytes = args.next()?.parse().ok()?;
    options.spool_bytes = args.next()?.parse().ok()?;
    let until = args.next()?.parse().ok()?;
    Some(Errand { options, until })
}

/// Sends a follower.
pub fn send(errand: &Errand) -> Report {
    let options = &errand.options;
    let output = Command::new(std::env::current_exe().unwrap())
        .args([ROLE, &options.upstream])
        .arg(&options.replica_dir)
        .arg(options.transaction_bytes.to_string())
        .arg(options.spool_bytes.to_string())
        .arg(errand.until.to_string())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    Report {
        preparing: Duration::from_secs_f64(figures[0]),
        following: Duration::from_secs_f64(figures[1]),
        peak: figures[2],
    }
}

/// Does the errand and prints the report.
pub async fn run(errand: &Errand) {
    let start = Instant::now();
    let prepared = prepare(&errand.options, Arc::new(())).await.unwrap();
    let preparing = start.elapsed();
    let replica = prepared.replica.clone();
    // The peak begins anew. Where that cannot be, copying counts too.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (start, shutdown) = (Instant::now(), CancellationToken::new());
    let run = tokio::spawn(prepared.run(Arc::new(Nobody), shutdown.clone()));
    until(&replica, errand.until).await;
    let following = start.elapsed();
    let peak = peak();
    shutdown.cancel();
    run.await.unwrap().unwrap();
    let [preparing, following] = [preparing, following].map(|time| time.as_secs_f64());
    print!("{preparing} {following} {peak}");
}

/// Waits until the replica has come this far.
pub async fn until(replica: &Replica, position: Lsn) {
    while replica.watermark() < position.0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Most memory of this process, MiB; not a number where it cannot be told.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>();
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
