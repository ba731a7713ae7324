//! The first copy, beside one COPY that is thrown away.

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
    let (mut kelvin, mut plain) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let errand = Errand {
            options: options(server.cluster.url(), &directory.path().join("replica")),
            until: Lsn(0),
        };
        let copied = follower::send(&errand).preparing.as_secs_f64();
        let (thrown_away, _) = throw_away(server).await;
        println!(
            "{group}, round {round}: kelvin {copied:.2} s, COPY {thrown_away:.2} s, {} bytes a row",
            bytes / server.rows
        );
        kelvin.push(copied);
        plain.push(thrown_away);
    }
    let beside = "COPY thrown away";
    measure.note(group, "kelvin", median(kelvin), beside, median(plain));
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
