//! One large transaction from its commit until kelvin has it, where kelvin follows meanwhile: sent
//! before it commits, beside sent when it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_replication::prepare;
use tokio_util::sync::CancellationToken;

use crate::follower::{Nobody, options, until};
use crate::measure::Measure;
use crate::server::Server;
use crate::transaction::KEPT;
use crate::{ROUNDS, median};

/// Time for PostgreSQL to write its WAL without being asked to.
const SETTLE: Duration = Duration::from_millis(500);

pub async fn measure(measure: &mut Measure, group: &str, server: &mut Server, rows: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(server.cluster.url(), &directory.path().join("replica"));
    let mut times = Vec::new();
    for (how, spool_bytes) in [("sent in progress", KEPT), ("sent when it commits", 0)] {
        options.spool_bytes = spool_bytes;
        let prepared = prepare(&options, Arc::new(())).await.unwrap();
        let replica = prepared.replica.clone();
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(prepared.run(Arc::new(Nobody), shutdown.clone()));
        let mut taken = Vec::new();
        for round in 1..=ROUNDS {
            let begun = server.begin_to_add(rows).await;
            tokio::time::sleep(SETTLE).await;
            server.until_sent().await;
            let start = Instant::now();
            server.client.batch_execute("COMMIT").await.unwrap();
            let committed = start.elapsed();
            until(&replica, begun).await;
            let time = start.elapsed().as_secs_f64();
            println!("{group} {how}, round {round}: {time:.2} s, the commit {committed:.2?}");
            taken.push(time);
        }
        shutdown.cancel();
        run.await.unwrap().unwrap();
        drop(replica);
        times.push((how, median(taken)));
    }
    let group = format!("seconds from its commit to the watermark of a {group}");
    let [(how, time), (other, beside)] = times[..] else {
        return;
    };
    measure.note(&group, how, time, other, beside);
}
