//! A thread that builds indexes, one after the other, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kelvin_protocol::Direction;

use crate::error::{Error, ErrorKind, Result};
use crate::{IndexId, Replica, TableId};

/// Requests that may wait. Indexes are a matter of speed only, so that more are refused.
const QUEUE: usize = 64;
/// Attempts for one index when history goes faster than its build.
const ATTEMPTS: u32 = 3;

/// Builds indexes beside the stream. Dropping it gives up the build that is under way.
#[derive(Debug)]
pub struct IndexBuilder {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    building: Option<Request>,
    closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    table: TableId,
    columns: Vec<(usize, Direction)>,
}

impl IndexBuilder {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn start(replica: Replica) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        std::thread::Builder::new()
            .name("index-build".into())
            .spawn(move || worker.work(&replica))
            .map_err(|error| Error::io("the thread that builds indexes", error))?;
        Ok(Self { shared })
    }

    /// Asks for an index. Does nothing where it is there or asked for already; `false` if too many
    /// wait, in which case it is worth asking again later.
    #[must_use]
    pub fn request(&self, table: TableId, columns: &[(usize, Direction)]) -> bool {
        let request = Request {
            table,
            columns: columns.to_vec(),
        };
        let mut state = self.shared.state();
        if state.building.as_ref() == Some(&request) || state.waiting.contains(&request) {
            return true;
        }
        if state.waiting.len() >= QUEUE {
            return false;
        }
        state.waiting.push_back(request);
        self.shared.wake.notify_one();
        true
    }
}

impl IndexBuilder {
    /// How many indexes of a table wait or are being built.
    #[must_use]
    pub fn pending(&self, table: TableId) -> usize {
        let state = self.shared.state();
        let requests = state.waiting.iter().chain(&state.building);
        requests.filter(|request| request.table == table).count()
    }
}

impl Drop for IndexBuilder {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, replica: &Replica) {
        while let Some(request) = self.next() {
            self.build(replica, &request);
            self.state().building = None;
        }
    }

    fn next(&self) -> Option<Request> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(request) = state.waiting.pop_front() {
                state.building = Some(request.clone());
                return Some(request);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn build(&self, replica: &Replica, request: &Request) {
        let catalog = replica.catalog();
        let Some(table) = catalog.table_by_id(request.table) else {
            return;
        };
        let columns = request.columns.iter();
        let names = columns.filter_map(|(at, _)| table.columns.get(*at));
        let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
        let (table, columns) = (&table.name, names.join(", "));
        tracing::info!(table, columns, "building an index");
        match self.attempt(replica, request) {
            Ok(_) => tracing::info!(table, columns, "built an index"),
            Err(Error::Cancelled) => tracing::debug!(table, columns, "gave up building an index"),
            Err(error) => tracing::warn!(table, columns, %error, "an index cannot be built"),
        }
    }

    fn attempt(&self, replica: &Replica, request: &Request) -> Result<IndexId> {
        let go_on = || !self.state().closed;
        let mut attempt = 1;
        loop {
            match replica.add_index(request.table, &request.columns, &go_on) {
                Err(error) if error.kind() == ErrorKind::BelowHorizon && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}
