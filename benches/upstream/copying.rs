//! The first copy, beside one COPY that is thrown away, and comparing all of it once more where the
//! slot was lost, beside that copy.

use std::time::Instant;

use futures_util::TryStreamExt;
use kelvin_replication::{Lsn, connect_sql};

use crate::follower::{self, Errand, options};
use crate::measure::Measure;
use crate::server::Server;
use crate::{ROUNDS, median};

const COPY: &str = "COPY issue TO STDOUT (FORMAT binary)";

pub async fn measure(measure: &mut Measure, group: &str, server: &Server) {
    // What comes first would pay for what is not in memory yet.
    let (_, bytes) = throw_away(server).await;
    let (mut kelvin, mut plain, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let mut errand = Errand {
            options: options(server.cluster.url(), &directory.path().join("replica")),
            until: Lsn(0),
        };
        let copied = follower::send(&errand).preparing.as_secs_f64();
        let (thrown_away, _) = throw_away(server).await;
        server.drop_slots().await;
        // The slot that takes its place begins behind this.
        errand.until = server.position("pg_current_wal_lsn()").await;
        let resynced = follower::send(&errand).following.as_secs_f64();
        println!(
            "{group}, round {round}: kelvin {copied:.2} s, COPY {thrown_away:.2} s, {} bytes a row; \
             compared in {resynced:.2} s",
            bytes / server.rows
        );
        kelvin.push(copied);
        plain.push(thrown_away);
        compared.push(resynced);
    }
    let copied = median(kelvin);
    measure.note(group, "kelvin", copied, "COPY thrown away", median(plain));
    let compared = median(compared);
    measure.note(group, "compared once more", compared, "copied", copied);
}

/// Seconds that a COPY of the table takes to arrive, and its bytes.
async fn throw_away(server: &Server) -> (f64, usize) {
    let start = Instant::now();
    let client = connect_sql(&server.cluster.url()).await.unwrap();
    let mut rows = std::pin::pin!(client.copy_out(COPY).await.unwrap());
    let mut bytes = 0;
    while let Some(piece) = rows.try_next().await.unwrap() {
        bytes += piece.len();
    }
    (start.elapsed().as_secs_f64(), bytes)
}
