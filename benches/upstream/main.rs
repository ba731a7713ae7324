//! What it costs to copy and to follow a PostgreSQL server, beside receiving the same and throwing
//! it away. See the README.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

mod ahead;
mod behind;
#[path = "../../replication/tests/postgres/cluster.rs"]
mod cluster;
mod copying;
mod follower;
#[path = "../measure.rs"]
mod measure;
mod server;
mod shares;
mod transaction;
mod writers;

use measure::{Measure, size};
use server::Server;
use tokio::runtime::Runtime;

/// The one of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of which the median counts.
const ROUNDS: usize = 3;

fn main() {
    let runtime = Runtime::new().unwrap();
    if let Some(errand) = follower::errand() {
        use_small_pages();
        return runtime.block_on(follower::run(&errand));
    }
    runtime.block_on(bench());
}

async fn bench() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = |group: &str| filter.as_deref().is_none_or(|part| group.contains(part));
    let rows = size("UPSTREAM_ROWS", 200_000);
    let mut measure = Measure::new();
    let mut server = Server::start(rows).await;
    use_small_pages();
    let group = format!("copy of {rows} rows");
    if wanted(&group) {
        copying::measure(&mut measure, &group, &server).await;
    }
    let group = format!("transaction of {rows} rows");
    if wanted(&group) {
        transaction::measure(&mut measure, &group, &mut server, rows).await;
    }
    let group = format!("awaited transaction of {rows} rows");
    if wanted(&group) {
        ahead::measure(&mut measure, &group, &mut server, rows).await;
    }
    let group = "single-row commits of 8 writers";
    if wanted(group) {
        let seconds = size("UPSTREAM_SECONDS", 10);
        writers::measure(&mut measure, group, &server, seconds).await;
    }
    measure.finish();
}

/// As the server does by default. To be called once PostgreSQL runs, for what is started later has
/// them, too.
fn use_small_pages() {
    // Where this cannot be, more memory is taken.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The middle one.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() / 2]
}
