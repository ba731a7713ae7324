//! The way in: what a connection hands its mutations to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kelvin_protocol::{AckMutationResponses, ErrorBody, ErrorKind, Mutation, PushBody};
use kelvin_storage::Catalog;
use tokio::time::Instant;

use super::crud::{CrudExecutor, CrudRequest};
use super::limiter::MutationLimiter;
use super::pool::{ConnectSql, SqlPool};
use super::pusher::{PushContext, PushEntry, Pusher};
use crate::app_api::{AppApi, Caller, CleanupArg};
use crate::auth::Auth;
use crate::config::{Config, MutationLimit};

/// A group that made no mutation for so long is forgotten here.
const IDLE: Duration = Duration::from_secs(120);
/// Groups known before the idle ones among them are looked for.
const SWEEP_FROM: usize = 64;

/// Gives the tables and columns there are now.
pub type CatalogSource = Arc<dyn Fn() -> Arc<Catalog> + Send + Sync>;

/// Mutations could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("mutations cannot be set up: {0}")]
pub struct MutationSetupError(String);

/// What became of a CRUD mutation.
#[derive(Debug)]
pub enum CrudOutcome {
    /// It is done, was done before, or was denied: the client learns it by its mutation id.
    Done,
    /// The client is told; the connection goes on.
    Reported(Box<ErrorBody>),
    /// The client is told, and the connection ends.
    Fatal(Box<ErrorBody>),
}

/// Executes and forwards mutations.
pub struct Mutations {
    /// None where CRUD mutations are disabled.
    crud: Option<CrudExecutor>,
    catalog: CatalogSource,
    app_api: Arc<AppApi>,
    push_queue: usize,
    limit: Option<MutationLimit>,
    groups: Mutex<Groups>,
}

/// The groups that make mutations.
struct Groups {
    by_id: HashMap<String, Group>,
    /// Beyond so many, idle ones are looked for.
    sweep_at: usize,
}

/// What is kept of one group.
struct Group {
    pusher: Option<Pusher>,
    limiter: Option<MutationLimiter>,
    used: Instant,
}

impl Mutations {
    /// Connects lazily.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(
        config: &Config,
        catalog: CatalogSource,
        app_api: Arc<AppApi>,
    ) -> Result<Self, MutationSetupError> {
        let crud = if config.enable_crud_mutations {
            let url: Arc<str> = config.upstream.url.as_str().into();
            let connect: ConnectSql = Arc::new(move || {
                let url = Arc::clone(&url);
                Box::pin(async move {
                    let connected = kelvin_replication::connect_sql(&url).await;
                    connected.map_err(|error| error.to_string())
                })
            });
            let pool = SqlPool::new(connect, config.upstream.max_connections);
            let pool = pool.map_err(MutationSetupError)?;
            Some(CrudExecutor::new(pool, &config.app, app_api.has_mutate()))
        } else {
            None
        };
        Ok(Self {
            crud,
            catalog,
            app_api,
            push_queue: config.push_queue_length,
            limit: config.mutation_limit,
            groups: Mutex::new(Groups {
                by_id: HashMap::new(),
                sweep_at: SWEEP_FROM,
            }),
        })
    }

    /// Executes a CRUD mutation of a connection of group `group`. The caller awaits one before it
    /// brings the next of the same connection.
    pub async fn crud(&self, group: &str, mutation: &Mutation, auth: Option<&Auth>) -> CrudOutcome {
        let fatal =
            |kind, message: &str| CrudOutcome::Fatal(Box::new(ErrorBody::new(kind, message)));
        let Some(crud) = &self.crud else {
            let message = "CRUD mutations are disabled (ZERO_ENABLE_CRUD_MUTATIONS).";
            return fatal(ErrorKind::InvalidPush, message);
        };
        if matches!(auth, Some(Auth::Opaque { .. })) {
            let message = "CRUD mutations need a JWT: an opaque token has no claims to judge by.";
            return fatal(ErrorKind::Internal, message);
        }
        if !self.allow(group) {
            let message = "Rate limit exceeded";
            let body = ErrorBody::new(ErrorKind::MutationRateLimited, message);
            return CrudOutcome::Reported(Box::new(body));
        }
        let catalog = (self.catalog)();
        let request = CrudRequest {
            client_group_id: group,
            mutation,
            claims: auth.and_then(Auth::claims),
            catalog: &catalog,
        };
        match Box::pin(crud.execute(&request)).await {
            Ok(executed) => {
                tracing::debug!(
                    group,
                    id = mutation.id,
                    ?executed,
                    "a CRUD mutation is done"
                );
                CrudOutcome::Done
            }
            Err(failure) if failure.close => CrudOutcome::Fatal(Box::new(failure.body)),
            Err(failure) => CrudOutcome::Reported(Box::new(failure.body)),
        }
    }

    /// Queues a push for the application's endpoint.
    ///
    /// # Errors
    /// What to tell the client before its connection is closed.
    pub fn push_custom(&self, context: PushContext, body: PushBody) -> Result<(), Box<ErrorBody>> {
        if !self.app_api.has_mutate() {
            let message = "Custom mutations need ZERO_MUTATE_URL to be configured.";
            return Err(Box::new(ErrorBody::new(ErrorKind::InvalidPush, message)));
        }
        let group = context.group_id.clone();
        self.with_pusher(&group, |pusher| pusher.push(PushEntry { context, body }))
            .map_err(Box::new)
    }

    /// Has the endpoint drop mutation results a client has seen.
    pub fn ack(&self, group: &str, ack: &AckMutationResponses, caller: &Arc<Caller>) {
        let arg = CleanupArg::Single {
            client_group_id: group.to_owned(),
            client_id: ack.client_id.clone(),
            up_to_mutation_id: ack.id,
        };
        self.clean_up(group, caller, arg);
    }

    /// Has the endpoint drop the mutation results of clients that are gone.
    pub fn clean_up_clients(&self, group: &str, clients: &[String], caller: &Arc<Caller>) {
        if clients.is_empty() {
            return;
        }
        let arg = CleanupArg::Bulk {
            client_group_id: group.to_owned(),
            client_ids: clients.to_vec(),
        };
        self.clean_up(group, caller, arg);
    }

    fn clean_up(&self, group: &str, caller: &Arc<Caller>, arg: CleanupArg) {
        if self.app_api.has_mutate() {
            let caller = Arc::clone(caller);
            self.with_pusher(group, |pusher| pusher.clean_up(caller, arg, now_ms()));
        }
    }

    fn allow(&self, group: &str) -> bool {
        let Some(limit) = self.limit else {
            return true;
        };
        self.with_group(group, |group| {
            let limiter = group
                .limiter
                .get_or_insert_with(|| MutationLimiter::new(limit));
            limiter.allow()
        })
    }

    fn with_pusher<T>(&self, group: &str, act: impl FnOnce(&Pusher) -> T) -> T {
        self.with_group(group, |group| {
            let start = || Pusher::start(Arc::clone(&self.app_api), self.push_queue);
            act(group.pusher.get_or_insert_with(start))
        })
    }

    fn with_group<T>(&self, id: &str, act: impl FnOnce(&mut Group) -> T) -> T {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.sweep(self.limit.map_or(IDLE, |limit| IDLE.max(limit.window * 2)));
        let now = Instant::now();
        let group = groups.by_id.entry(id.to_owned()).or_insert_with(|| Group {
            pusher: None,
            limiter: None,
            used: now,
        });
        group.used = now;
        act(group)
    }
}

impl Groups {
    /// Forgets groups that are idle. Looks only when the number of groups has doubled, so that it
    /// costs nothing per mutation.
    fn sweep(&mut self, idle: Duration) {
        if self.by_id.len() < self.sweep_at {
            return;
        }
        self.by_id.retain(|_, group| {
            let at_work = group
                .pusher
                .as_ref()
                .is_some_and(|pusher| !pusher.is_idle());
            at_work || group.used.elapsed() < idle
        });
        self.sweep_at = (self.by_id.len() * 2).max(SWEEP_FROM);
    }
}

fn now_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    (now.unwrap_or_default().as_secs_f64() * 1000.0).floor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app_api::HttpClient;
    use crate::config::Environment;

    fn mutations(environment: &[(&str, &str)]) -> Mutations {
        let mut all = Environment::from([
            (
                "ZERO_UPSTREAM_DB".to_owned(),
                "postgres://127.0.0.1:1/x".to_owned(),
            ),
            ("NODE_ENV".to_owned(), "development".to_owned()),
        ]);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        all.extend(environment.iter().map(owned));
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load([], &all, dir.path()).unwrap();
        let api = AppApi::new(&config.app_api, &config.app, &HttpClient::new().unwrap());
        let catalog: CatalogSource = Arc::new(|| Arc::new(Catalog::default()));
        Mutations::new(&config, catalog, Arc::new(api.unwrap())).unwrap()
    }

    fn mutation() -> Mutation {
        let json = r#"{"type":"crud","id":1,"clientID":"c","name":"_zero_crud","args":[],
            "timestamp":1}"#;
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_configured_ends_the_connection() {
        let disabled = mutations(&[("ZERO_ENABLE_CRUD_MUTATIONS", "false")]);
        let outcome = disabled.crud("g", &mutation(), None).await;
        assert!(matches!(outcome, CrudOutcome::Fatal(body) if body.kind == ErrorKind::InvalidPush));
        let opaque = Auth::Opaque { raw: "t".into() };
        let outcome = mutations(&[]).crud("g", &mutation(), Some(&opaque)).await;
        assert!(matches!(outcome, CrudOutcome::Fatal(body) if body.kind == ErrorKind::Internal));
    }

    #[tokio::test]
    async fn an_upstream_that_cannot_be_reached_makes_the_client_come_back() {
        let outcome = mutations(&[]).crud("g", &mutation(), None).await;
        assert!(matches!(outcome, CrudOutcome::Fatal(body) if body.kind == ErrorKind::Rehome));
    }

    #[tokio::test]
    async fn the_limit_is_per_group_and_keeps_the_connection() {
        let limited = mutations(&[("ZERO_PER_USER_MUTATION_LIMIT_MAX", "1")]);
        assert!(limited.allow("a") && !limited.allow("a") && limited.allow("b"));
        let outcome = limited.crud("a", &mutation(), None).await;
        assert!(matches!(outcome, CrudOutcome::Reported(body)
            if body.kind == ErrorKind::MutationRateLimited));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_groups_are_forgotten() {
        let limited = mutations(&[("ZERO_PER_USER_MUTATION_LIMIT_MAX", "1")]);
        for at in 0..SWEEP_FROM {
            limited.allow(&at.to_string());
        }
        tokio::time::advance(IDLE * 2).await;
        limited.allow("new");
        assert_eq!(limited.groups.lock().unwrap().by_id.len(), 1);
    }
}
