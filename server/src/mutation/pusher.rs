//! Hands custom mutations of one client group to the application, one call at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kelvin_protocol::{ErrorBody, ErrorKind, ErrorOrigin, FailureReason, PushBody};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::app_api::{AppApi, Caller, CleanupArg};

/// Calls that remove results, under way for one group; more are left out, which does no harm.
const MAX_CLEANUPS: usize = 4;
/// Reconnect delay asked of a client whose group has too much waiting, milliseconds.
const FULL_BACKOFF_MS: u64 = 5_000;
/// Mutations in one merged call.
const MAX_MERGED: usize = 200;

/// Told which client's connections to fail, and with what.
pub type OnFailure = Arc<dyn Fn(String, ErrorBody) + Send + Sync>;

/// Where a push came from.
#[derive(Clone)]
pub struct PushContext {
    /// The client group.
    pub group_id: String,
    /// The client whose connection it came over.
    pub client_id: String,
    /// The connection.
    pub ws_id: String,
    /// State of the connection's credentials.
    pub revision: u64,
    /// On whose behalf the endpoint is called.
    pub caller: Arc<Caller>,
    /// Called once for each client that has a mutation in a push that failed.
    pub on_failure: OnFailure,
}

impl PushContext {
    /// Whether it is one connection under one set of credentials.
    fn is_same(&self, other: &Self) -> bool {
        self.revision == other.revision
            && self.client_id == other.client_id
            && self.ws_id == other.ws_id
    }
}

/// A push and on whose behalf it is made.
pub(super) struct PushEntry {
    pub(super) context: PushContext,
    pub(super) body: PushBody,
}

/// The queue and the worker of one client group. When it is dropped, the call under way is
/// finished and what is queued is forgotten: clients send it again.
pub(super) struct Pusher {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    api: Arc<AppApi>,
    queue: Mutex<Queue>,
    /// Most mutations in the queue.
    bound: usize,
    work: Notify,
    cleanups: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<PushEntry>,
    mutations: usize,
}

impl PushEntry {
    /// Fails every client that has a mutation in it.
    fn fail(&self, body: &ErrorBody) {
        let ids = body.mutation_ids.iter().flatten();
        let clients: BTreeSet<&String> = ids.map(|id| &id.client_id).collect();
        for client in clients {
            (self.context.on_failure)(client.clone(), body.clone());
        }
    }
}

impl Pusher {
    /// Starts a worker. `bound` limits the mutations that wait.
    pub(super) fn start(api: Arc<AppApi>, bound: usize) -> Self {
        let shared = Arc::new(Shared {
            api,
            queue: Mutex::default(),
            bound,
            work: Notify::new(),
            cleanups: Arc::new(Semaphore::new(MAX_CLEANUPS)),
        });
        let stop = CancellationToken::new();
        tokio::spawn(run(Arc::clone(&shared), stop.clone()));
        Self { shared, stop }
    }

    /// Queues a push.
    ///
    /// # Errors
    /// Too much is waiting; the client has to come back later.
    pub(super) fn push(&self, entry: PushEntry) -> Result<(), ErrorBody> {
        let mut queue = self.shared.queue();
        let mutations = entry.body.mutations.len();
        if queue.mutations + mutations > self.shared.bound && queue.mutations > 0 {
            let message = "Too many mutations are waiting for the API server.";
            return Err(ErrorBody {
                min_backoff_ms: Some(FULL_BACKOFF_MS),
                max_backoff_ms: None,
                ..ErrorBody::rehome(message, 0)
            });
        }
        queue.mutations += mutations;
        queue.entries.push_back(entry);
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.queue().mutations == 0
    }

    /// Asks the application to remove results nobody needs any more. Never waits and never fails.
    pub(super) fn clean_up(&self, caller: Arc<Caller>, arg: CleanupArg, now_ms: f64) {
        let Ok(permit) = Arc::clone(&self.shared.cleanups).try_acquire_owned() else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            shared.api.clean_up(&caller, &arg, now_ms).await;
            drop(permit);
        });
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let taken: Vec<PushEntry> = shared.queue().entries.drain(..).collect();
        if taken.is_empty() {
            match stop.run_until_cancelled(shared.work.notified()).await {
                Some(()) => continue,
                None => return,
            }
        }
        for entry in merge(taken) {
            if stop.is_cancelled() {
                return;
            }
            let mutations = entry.body.mutations.len();
            call(&shared, &entry).await;
            let mut queue = shared.queue();
            queue.mutations = queue.mutations.saturating_sub(mutations);
        }
    }
}

async fn call(shared: &Shared, entry: &PushEntry) {
    match shared.api.push(&entry.context.caller, &entry.body).await {
        Ok(accepted) => {
            if accepted.out_of_order.is_empty() {
                return;
            }
            let body = ErrorBody {
                origin: Some(ErrorOrigin::Server),
                reason: Some(FailureReason::OooMutation),
                mutation_ids: Some(accepted.out_of_order),
                ..ErrorBody::new(ErrorKind::PushFailed, "A mutation came out of order.")
            };
            entry.fail(&body);
        }
        Err(body) => {
            let context = &entry.context;
            tracing::warn!(
                group = context.group_id,
                client = context.client_id,
                error = body.message,
                "a push failed"
            );
            entry.fail(&body);
        }
    }
}

/// Joins pushes of one connection under one set of credentials. A client's mutations stay in their
/// order; those of different connections may change places.
fn merge(entries: Vec<PushEntry>) -> Vec<PushEntry> {
    let mut merged: Vec<PushEntry> = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let same = merged
            .iter_mut()
            .rev()
            .find(|other| other.context.is_same(&entry.context));
        match same {
            Some(other) if other.body.mutations.len() < MAX_MERGED => {
                other.body.mutations.append(&mut entry.body.mutations);
            }
            _ => merged.push(entry),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::app_api::{ClientTarget, HttpClient};
    use crate::config;
    use crate::http::RequestHeaders;

    fn entry(client: &str, revision: u64, ids: &[u64]) -> PushEntry {
        let mutations: Vec<String> = ids
            .iter()
            .map(|id| {
                format!(
                    r#"{{"type":"custom","id":{id},"clientID":"{client}","name":"n","args":[],
                    "timestamp":1}}"#
                )
            })
            .collect();
        let body = format!(
            r#"{{"clientGroupID":"g","mutations":[{}],"pushVersion":1,"timestamp":1,
            "requestID":"r"}}"#,
            mutations.join(",")
        );
        PushEntry {
            context: PushContext {
                group_id: "g".into(),
                client_id: client.into(),
                ws_id: "w".into(),
                revision,
                caller: Arc::new(caller()),
                on_failure: Arc::new(|_, _| {}),
            },
            body: serde_json::from_str(&body).unwrap(),
        }
    }

    fn caller() -> Caller {
        let request = RequestHeaders {
            cookie: None,
            origin: None,
            all: BTreeMap::new(),
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        Caller {
            user_id: None,
            token: None,
            request: Arc::new(request),
            query: ClientTarget::default(),
            mutate: ClientTarget::default(),
        }
    }

    fn api() -> Arc<AppApi> {
        let endpoint = config::AppEndpoint {
            urls: vec!["http://127.0.0.1:1/".into()],
            ..config::AppEndpoint::default()
        };
        let config = config::AppApi {
            query: config::AppEndpoint::default(),
            mutate: endpoint,
            timeout: std::time::Duration::from_secs(5),
            max_response_bytes: 1000,
        };
        let app = config::AppId {
            id: "zero".into(),
            shard_num: 0,
            publications: vec![],
        };
        Arc::new(AppApi::new(&config, &app, &HttpClient::new().unwrap()).unwrap())
    }

    #[test]
    fn pushes_of_one_connection_are_joined_in_their_order() {
        let merged = merge(vec![
            entry("a", 0, &[1]),
            entry("b", 0, &[1]),
            entry("a", 0, &[2, 3]),
            entry("a", 1, &[4]),
            entry("a", 1, &[5]),
        ]);
        let ids: Vec<(String, Vec<u64>)> = merged
            .iter()
            .map(|entry| {
                let ids = entry
                    .body
                    .mutations
                    .iter()
                    .map(|mutation| mutation.id)
                    .collect();
                (
                    format!("{}{}", entry.context.client_id, entry.context.revision),
                    ids,
                )
            })
            .collect();
        let expected = [("a0", vec![1, 2, 3]), ("b0", vec![1]), ("a1", vec![4, 5])];
        assert_eq!(ids, expected.map(|(origin, ids)| (origin.to_owned(), ids)));
    }

    #[tokio::test]
    async fn a_failed_push_fails_its_clients_and_the_queue_is_bounded() {
        let (sender, mut failures) = tokio::sync::mpsc::unbounded_channel();
        let heard = |client: &str, ids: &[u64]| {
            let sender = sender.clone();
            let mut entry = entry(client, 0, ids);
            entry.context.on_failure = Arc::new(move |client, body: ErrorBody| {
                let _ = sender.send((client, body));
            });
            entry
        };
        let pusher = Pusher::start(api(), 3);
        pusher.push(heard("a", &[1, 2])).unwrap();
        pusher.push(heard("b", &[1])).unwrap();
        let full = pusher.push(heard("c", &[1])).unwrap_err();
        assert_eq!(full.kind, ErrorKind::Rehome);
        let (client, body) = failures.recv().await.unwrap();
        assert_eq!((client.as_str(), body.kind), ("a", ErrorKind::PushFailed));
        assert_eq!(body.mutation_ids.unwrap().len(), 2);
        assert_eq!(failures.recv().await.unwrap().0, "b");
        pusher.push(heard("c", &[1, 2, 3])).unwrap();
    }
}
