//! Whether the server is ready, and whether its load balancer still asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Whether the server is ready. `/` is not answered before, so that a health check times out.
#[derive(Clone, Debug)]
pub struct Readiness {
    ready: Arc<watch::Sender<bool>>,
}

impl Readiness {
    /// Not ready, or ready.
    #[must_use]
    pub fn new(ready: bool) -> Self {
        let ready = Arc::new(watch::Sender::new(ready));
        Self { ready }
    }

    /// Says so.
    pub fn set(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// Whether the server is ready.
    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until the server is ready.
    pub async fn ready(&self) {
        // Fails when the sender is gone; it is right here.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

/// Watches for calls of `/keepalive` that stay away: some load balancers announce the end of a
/// task by no longer calling it. Nothing happens before the first call.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    last: Arc<Mutex<Option<Instant>>>,
}

impl Heartbeat {
    /// `/keepalive` was called.
    pub(super) fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits until calls have begun and then stayed away for `timeout`.
    pub async fn missed(&self, timeout: Duration) {
        let mut ticks = tokio::time::interval(timeout / 4);
        loop {
            ticks.tick().await;
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() >= timeout) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_missed_only_after_it_began() {
        let heartbeat = Heartbeat::default();
        let timeout = Duration::from_secs(20);
        let silent = tokio::time::timeout(timeout * 10, heartbeat.missed(timeout)).await;
        assert!(silent.is_err());
        heartbeat.beat();
        heartbeat.missed(timeout).await;
    }

    #[tokio::test]
    async fn waiting_ends_when_the_server_is_ready() {
        let readiness = Readiness::new(false);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        readiness.set(true);
        waiting.await.unwrap();
    }
}
