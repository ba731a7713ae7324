//! One large transaction, beside the same stream thrown away.
//!
//! Nobody is connected while it is written: PostgreSQL decodes all of it for each of the two, from
//! slots that stand before it.

use std::time::Instant;

use kelvin_replication::Lsn;

use crate::follower::{self, Errand, options};
use crate::measure::Measure;
use crate::server::Server;
use crate::{ROUNDS, median};

/// Enough for whatever is in progress here.
pub const KEPT: u64 = 8 << 30;
/// More than any transaction has here.
const UNBOUNDED: usize = 1 << 40;

pub async fn measure(measure: &mut Measure, group: &str, server: &mut Server, rows: usize) {
    let directory = tempfile::tempdir().unwrap();
    let options = options(server.cluster.url(), &directory.path().join("replica"));
    let bounded = options.transaction_bytes;
    let mut errand = Errand {
        options,
        until: Lsn(0),
    };
    follower::send(&errand);
    server.create_slot().await;
    let mut peaks = Vec::new();
    for (how, bound, spool) in [
        ("within the default bounds", bounded, 0),
        ("sent in progress", bounded, KEPT),
        ("whole", UNBOUNDED, 0),
    ] {
        errand.options.transaction_bytes = bound;
        errand.options.spool_bytes = spool;
        let (mut kelvin, mut plain) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            errand.until = server.add(rows).await;
            let end = server.position("pg_current_wal_lsn()").await;
            let thrown_away = || {
                let start = Instant::now();
                let status = server.throw_away(Some(end)).wait().unwrap();
                assert!(status.success(), "pg_recvlogical: {status}");
                start.elapsed().as_secs_f64()
            };
            // Who comes first finds less of it in memory.
            let (followed, thrown_away) = if round % 2 == 0 {
                (follower::send(&errand), thrown_away())
            } else {
                let thrown_away = thrown_away();
                (follower::send(&errand), thrown_away)
            };
            let followed_in = followed.following.as_secs_f64();
            println!(
                "{group} {how}, round {round}: kelvin {followed_in:.2} s with at most {:.0} MiB, \
                 pg_recvlogical {thrown_away:.2} s",
                followed.peak
            );
            kelvin.push(rows as f64 / followed_in);
            plain.push(rows as f64 / thrown_away);
            peaks.push((how, followed.peak));
        }
        let group = format!("rows/s of a {group} {how}");
        let beside = "pg_recvlogical";
        measure.note(&group, "kelvin", median(kelvin), beside, median(plain));
    }
    server.drop_slot(None).await;
    let of = |wanted: &str| {
        let peaks = peaks.iter().filter(|(how, _)| *how == wanted);
        median(peaks.map(|(_, peak)| *peak).collect())
    };
    let (bounded, whole) = (of("within the default bounds"), of("whole"));
    let group = format!("memory for a {group}");
    println!("{group}: {bounded:.0} MiB within the default bounds, {whole:.0} MiB whole");
    measure.note(&group, "within the default bounds", bounded, "whole", whole);
}
