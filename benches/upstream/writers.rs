//! Writers that commit single rows as fast as they can.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_replication::prepare;
use tokio_util::sync::CancellationToken;

use crate::behind::Behind;
use crate::cluster::tool;
use crate::follower::{Nobody, options, until};
use crate::measure::{Measure, size};
use crate::server::Server;
use crate::shares::Shares;

/// Any change that is published.
const MARK: &str = "UPDATE issue SET title = 'the last one' WHERE id = 1";

/// Milliseconds that Linux counts processor time in.
const TICK: u64 = 10;

/// kelvin's turn lies between two of half its length in which the stream is thrown away.
pub async fn measure(measure: &mut Measure, group: &str, server: &Server, seconds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let options = options(server.cluster.url(), &directory.path().join("replica"));
    let prepared = prepare(&options, Arc::new(())).await.unwrap();
    let replica = prepared.replica.clone();
    let half = seconds.div_ceil(2);
    let shares = Shares::divide(server.process().await);
    let shares = shares.as_ref();
    let group = match shares {
        Some(_) => &format!("{group} with a share of their own"),
        None => group,
    };
    let (before, behind_before) = beside_the_stream(server, shares, half).await;
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(prepared.run(Arc::new(Nobody), shutdown.clone()));
    until(&replica, server.commit(MARK).await).await;

    let (start, busy) = (Instant::now(), processor_time());
    let watched = Behind::watch(server, &replica).await;
    let rate = write(server, shares, seconds).await;
    let writing = start.elapsed();
    watched.stop();
    let last = server.commit(MARK).await;
    let behind = last.0.saturating_sub(replica.watermark());
    let start = Instant::now();
    until(&replica, last).await;
    let catching_up = start.elapsed();
    let busy = (processor_time() - busy).as_secs_f64() / (rate * writing.as_secs_f64());
    let lags = watched.parts().await;
    shutdown.cancel();
    run.await.unwrap().unwrap();

    let (after, behind_after) = beside_the_stream(server, shares, half).await;
    let beside = f64::midpoint(before, after);
    println!(
        "{group}: {rate:.0}/s followed by kelvin, {before:.0}/s and {after:.0}/s received by \
         pg_recvlogical; at the end kelvin was {behind} bytes of WAL and {catching_up:.1?} behind, \
         pg_recvlogical {behind_before:.1?} and {behind_after:.1?} after half the time; kelvin took \
         {:.0} µs of processor time a commit, and was {lags:.1?} behind in each quarter of the time",
        busy * 1e6
    );
    let group = format!("rate of {group}");
    measure.note(
        &group,
        "followed by kelvin",
        rate,
        "by pg_recvlogical",
        beside,
    );
    let (catching_up, writing) = (catching_up.as_secs_f64(), writing.as_secs_f64());
    let group = "after them";
    measure.note(group, "time to catch up", catching_up, "to write", writing);
    let decoding = (behind_before + behind_after).as_secs_f64();
    let subject = "time kelvin takes to catch up";
    measure.note(group, subject, catching_up, "pg_recvlogical", decoding);
}

/// The rate, and how long afterwards PostgreSQL had decoded everything.
async fn beside_the_stream(
    server: &Server,
    shares: Option<&Shares>,
    seconds: usize,
) -> (f64, Duration) {
    server.create_slot().await;
    // It is in the place of kelvin, and in its group.
    let reader = server.throw_away(None);
    server.until_streaming().await;
    let rate = write(server, shares, seconds).await;
    let start = Instant::now();
    server.until_sent().await;
    let behind = start.elapsed();
    server.drop_slot(Some(reader)).await;
    (rate, behind)
}

/// Processor time of this process, which is kelvin while pgbench writes.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name, which is in brackets: the time in its own code, and in that of the kernel.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * TICK)
}

/// Commits of a second.
async fn write(server: &Server, shares: Option<&Shares>, seconds: usize) -> f64 {
    let script = format!(
        "\\set id random(2, {})\nUPDATE issue SET title = 'Issue ' || :id || ' at ' || now(), \
         modified = now() WHERE id = :id;\n",
        server.rows
    );
    let mut pgbench = tool("pgbench");
    pgbench
        .args(["-n", "-c", "8", "-j", "2", "-f", "-", "-M", "prepared"])
        .args(["-T", &seconds.to_string()])
        .args(["-h", "127.0.0.1", "-p", &server.cluster.port.to_string()])
        .args(["-U", "postgres", "postgres"]);
    let rate = size("UPSTREAM_RATE", 0);
    if rate > 0 {
        pgbench.args(["--rate", &rate.to_string()]);
    }
    if let Some(shares) = shares {
        pgbench = shares.of_writers(&pgbench);
    }
    let mut child = pgbench
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "pgbench: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|line| line.split(' ').next()).unwrap();
    rate.parse().unwrap()
}
