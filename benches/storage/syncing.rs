//! Commits while the journal is brought to the disk, as it is all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kelvin_storage::Replica;

use super::measure::Measure;
use super::rows;
use super::world::{self, ISSUE};

/// Rounds of each kind, which take turns, and commits of one.
const ROUNDS: usize = 3;
const COMMITS: usize = 2000;
/// Time between two commits, and from one sync to the next, as the server keeps to it.
const APART: Duration = Duration::from_micros(300);
const SYNC_INTERVAL: Duration = Duration::from_millis(5);

/// The commit that takes longer than 99 of 100, of one row each, with syncs and without.
pub fn syncing(measure: &mut Measure) {
    let dir = tempfile::tempdir().unwrap();
    let issues = rows(COMMITS);
    let replica = world::load(dir.path(), world::catalog(false), &[(ISSUE, issues)]);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.extend(commits(&replica));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| sync(&replica, &done));
            with.extend(commits(&replica));
            done.store(true, Ordering::Relaxed);
        });
    }
    let [with, without] = [with, without].map(slow);
    let group = "the slowest of 100 commits of one row";
    println!("{group}: {with:.1?} while the journal is synced, {without:.1?} while it is not");
    let [with, without] = [with, without].map(|time| time.as_secs_f64());
    measure.note(group, "while the journal is synced", with, "not", without);
}

fn sync(replica: &Replica, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        replica.sync().unwrap();
        std::thread::sleep(SYNC_INTERVAL);
    }
}

/// How long each took.
fn commits(replica: &Replica) -> Vec<Duration> {
    let commit = |id| {
        let row = world::issue(id, id, "ann");
        let transaction = [world::write(replica, ISSUE, vec![row])];
        let start = Instant::now();
        let applied = replica.apply(&transaction);
        let took = start.elapsed();
        applied.unwrap();
        std::thread::sleep(APART);
        took
    };
    (0..COMMITS).map(commit).collect()
}

fn slow(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 100 * 99]
}
