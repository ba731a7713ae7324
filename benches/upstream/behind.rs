//! How far a replica is behind PostgreSQL while others write.

use std::time::{Duration, Instant};

use kelvin_storage::Replica;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// In how many parts the time is told of.
const PARTS: usize = 4;

/// Looks at both, until it is asked to stop.
pub struct Behind {
    stop: CancellationToken,
    looks: JoinHandle<Vec<Look>>,
}

/// Where both were, and when.
struct Look {
    at: Duration,
    /// End of the WAL.
    written: u64,
    /// Position of the replica.
    applied: u64,
}

impl Behind {
    pub async fn watch(server: &Server, replica: &Replica) -> Self {
        let (client, replica) = (server.cluster.client().await, replica.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let looks = tokio::spawn(async move {
            let (start, mut looks) = (Instant::now(), Vec::new());
            while !stopped.is_cancelled() {
                // The replica comes first, or it would seem to be ahead.
                let (at, applied) = (start.elapsed(), replica.watermark());
                let written = "SELECT (pg_current_wal_lsn() - '0/0')::int8";
                let written = client.query_one(written, &[]).await.unwrap();
                looks.push(Look {
                    at,
                    written: written.get::<_, i64>(0).try_into().unwrap(),
                    applied,
                });
                tokio::time::sleep(INTERVAL).await;
            }
            looks
        });
        Self { stop, looks }
    }

    /// Looks no more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The median time the replica was behind in each part of the time, once it was stopped.
    pub async fn parts(self) -> [Duration; PARTS] {
        let looks = self.looks.await.unwrap();
        let lags: Vec<_> = looks.iter().map(|look| look.lag(&looks)).collect();
        std::array::from_fn(|part| {
            let bound = |part| lags.len() * part / PARTS;
            let mut lags = lags[bound(part)..bound(part + 1)].to_vec();
            lags.sort_unstable();
            lags[lags.len() / 2]
        })
    }
}

impl Look {
    /// Time since the WAL ended where the replica is now.
    fn lag(&self, looks: &[Self]) -> Duration {
        let behind = looks.partition_point(|look| look.written <= self.applied);
        let next = looks.get(behind).map_or(self.at, |look| look.at);
        self.at.saturating_sub(next)
    }
}
