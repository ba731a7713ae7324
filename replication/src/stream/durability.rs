//! What of the replica survives a power loss.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use kelvin_protocol::Version;
use kelvin_storage::Replica;
use tokio::sync::watch;

use crate::{Error, Result};

/// A thread that fsyncs the replica whenever something was applied, at most once in an interval.
///
/// INVARIANT: only versions that `durable` shows are confirmed to PostgreSQL, for what is confirmed
/// is never sent again.
pub(crate) struct Durability {
    shared: Arc<Shared>,
    durable: watch::Receiver<Version>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    failure: Mutex<Option<kelvin_storage::Error>>,
}

#[derive(Clone, Copy)]
struct State {
    applied: Version,
    stopped: bool,
}

/// Tells the thread what was applied.
#[derive(Clone)]
pub(crate) struct AppliedMark(Arc<Shared>);

impl AppliedMark {
    /// Everything up to `version` is applied.
    pub(crate) fn applied(&self, version: Version) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.applied = state.applied.max(version);
        self.0.changed.notify_all();
    }
}

impl Durability {
    /// Syncs what there is and starts the thread. Blocks for the length of an fsync.
    pub(crate) fn start(replica: Replica, interval: Duration) -> Result<Self> {
        let version = replica.sync()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                applied: version,
                stopped: false,
            }),
            changed: Condvar::new(),
            failure: Mutex::new(None),
        });
        let (sender, durable) = watch::channel(version);
        let state = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("replica-sync".into())
            .spawn(move || {
                sync_when_applied(&replica, interval, &state, &sender);
                drop(replica);
                drop(sender);
            })?;
        Ok(Self { shared, durable })
    }

    /// The version that is durable now. It closes when syncing failed.
    pub(crate) fn durable(&self) -> watch::Receiver<Version> {
        self.durable.clone()
    }

    pub(crate) fn mark(&self) -> AppliedMark {
        AppliedMark(Arc::clone(&self.shared))
    }

    /// Waits until the replica cannot be synced. Cancel-safe.
    pub(crate) async fn failed(&self) -> Error {
        let mut durable = self.durable.clone();
        while durable.changed().await.is_ok() {}
        let failure = self.shared.failure.lock();
        let failure = failure.unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or_else(
            || Error::Protocol("the thread that syncs ended".into()),
            Error::Storage,
        )
    }

    /// Syncs a last time and ends the thread, which gives up its handle on the replica.
    pub(crate) async fn stop(self) {
        let mut durable = self.durable.clone();
        drop(self);
        // The thread closes the channel when it has dropped the replica.
        while durable.changed().await.is_ok() {}
    }
}

impl Drop for Durability {
    fn drop(&mut self) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.stopped = true;
        self.shared.changed.notify_all();
    }
}

fn sync_when_applied(
    replica: &Replica,
    interval: Duration,
    shared: &Shared,
    durable: &watch::Sender<Version>,
) {
    loop {
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut State| !state.stopped && state.applied <= *durable.borrow();
        let state = *shared
            .changed
            .wait_while(state, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        match replica.sync() {
            Ok(version) => drop(durable.send_replace(version)),
            Err(error) => {
                tracing::error!(%error, "the replica cannot be synced to disk");
                let failure = shared.failure.lock();
                *failure.unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
        if state.stopped {
            return;
        }
        // Everything applied meanwhile shares the next fsync.
        std::thread::sleep(interval);
    }
}
