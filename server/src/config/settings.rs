//! The configuration as the rest of the server sees it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything an operator can say.
#[derive(Clone)]
pub struct Config {
    /// The database to sync.
    pub upstream: Upstream,
    /// Names of what is made there.
    pub app: AppId,
    /// The local copy.
    pub replica: Replica,
    /// Threads and budgets of queries.
    pub engine: Engine,
    /// Life and size of client groups.
    pub groups: Groups,
    /// Sockets.
    pub listen: Listen,
    /// Tokens.
    pub auth: Auth,
    /// The application's endpoints.
    pub app_api: AppApi,
    /// Whether CRUD mutations are executed.
    pub enable_crud_mutations: bool,
    /// Limit of CRUD mutations of a client group.
    pub mutation_limit: Option<MutationLimit>,
    /// Custom mutations a group may have waiting for the endpoint.
    pub push_queue_length: usize,
    /// Logging.
    pub log: Log,
    /// Password of `/statz` and the inspector. None only in development, or where that is meant.
    pub admin_password: Option<String>,
    /// `NODE_ENV=development`.
    pub development: bool,
    /// Names this process.
    pub task_id: String,
    /// Version to report.
    pub server_version: String,
    /// Copy the database anew when replication cannot go on.
    pub auto_reset: bool,
    /// Let the system give memory in large pages.
    pub huge_pages: bool,
    /// What the operator should hear: deprecated and ineffective options.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Config {
    // The password stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("upstream", &self.upstream)
            .field("app", &self.app)
            .field("replica", &self.replica)
            .field("engine", &self.engine)
            .field("groups", &self.groups)
            .field("listen", &self.listen)
            .field("auth", &self.auth)
            .field("app_api", &self.app_api)
            .field("task_id", &self.task_id)
            .finish_non_exhaustive()
    }
}

/// The database to sync.
#[derive(Clone)]
pub struct Upstream {
    /// PostgreSQL URL; may hold a password.
    pub url: String,
    /// Most connections for CRUD mutations.
    pub max_connections: usize,
    /// Create slots that survive a failover.
    pub failover_slot: bool,
    /// Silence after which the stream is reconnected; None follows `wal_sender_timeout`.
    pub inbound_timeout: Option<Duration>,
    /// Connections that copy tables.
    pub copy_workers: usize,
    /// Copy in text form.
    pub text_copy: bool,
    /// How often the replication lag is measured; None never does.
    pub lag_report_interval: Option<Duration>,
    /// Stream in text form.
    pub text_stream: bool,
    /// Have event triggers tell of changes of the schema.
    pub event_triggers: bool,
}

impl std::fmt::Debug for Upstream {
    // The URL holds a password, and configurations get logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("max_connections", &self.max_connections)
            .field("failover_slot", &self.failover_slot)
            .field("inbound_timeout", &self.inbound_timeout)
            .field("copy_workers", &self.copy_workers)
            .field("text_copy", &self.text_copy)
            .field("lag_report_interval", &self.lag_report_interval)
            .field("text_stream", &self.text_stream)
            .field("event_triggers", &self.event_triggers)
            .finish_non_exhaustive()
    }
}

/// Names of what is made upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppId {
    /// `[a-z0-9_]+`.
    pub id: String,
    /// Suffix of the shard.
    pub shard_num: u32,
    /// Publications to sync; empty for all of schema `public`.
    pub publications: Vec<String>,
}

impl AppId {
    /// Upstream schema of the shard: `zero_0`.
    #[must_use]
    pub fn shard_schema(&self) -> String {
        format!("{}_{}", self.id, self.shard_num)
    }
}

/// The local copy.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The directory it lives in: `ZERO_REPLICA_FILE` with `.kelvin` appended.
    pub dir: PathBuf,
    /// Memory for blocks.
    pub cache_bytes: u64,
    /// Memory per table for fresh writes.
    pub memtable_bytes: u64,
    /// Memory of all tables together for fresh writes.
    pub write_buffer_bytes: u64,
    /// Bytes of journals beyond which tables that hold them back are written to files.
    pub journal_bytes: u64,
    /// Bytes of one transaction held in memory; a larger one is applied in parts.
    pub transaction_bytes: usize,
    /// Bytes of transactions in progress that are kept in files; 0 keeps none.
    pub spool_bytes: u64,
    /// Bytes of changes of tables that are copied beside the stream, beyond which it waits.
    pub backfill_bytes: usize,
    /// Age of the oldest state a client is brought up from.
    pub history_age: Duration,
    /// Bytes of history kept.
    pub history_bytes: u64,
}

/// Threads and budgets of queries.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Threads that bring queries up to a commit that concerns many; at least 1.
    pub advance_threads: usize,
    /// Longest a query may take to be brought up to a commit.
    pub advance_timeout: Duration,
    /// Most rows a query may read for that.
    pub advance_max_rows: u64,
    /// Threads that hydrate queries; at least 1.
    pub hydration_threads: usize,
    /// Longest a query may hydrate.
    pub hydration_timeout: Duration,
    /// Most rows a query may bring.
    pub hydration_max_rows: u64,
    /// Hydrations longer than this are logged.
    pub slow_hydration: Duration,
    /// Bytes of the queries' delta logs.
    pub delta_log_bytes: usize,
}

/// Life and size of client groups.
#[derive(Clone, Debug)]
pub struct Groups {
    /// A group nobody connected to for so long is forgotten.
    pub inactivity_threshold: Duration,
    /// How often groups are looked through.
    pub purge_interval: Duration,
    /// Groups forgotten per round; 0 never forgets any.
    pub purge_batch: usize,
    /// Most queries of a group.
    pub max_queries: usize,
    /// Most clients of a group.
    pub max_clients: usize,
}

/// Sockets.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The address to listen on; None takes all.
    pub address: Option<IpAddr>,
    /// Port for clients and HTTP; 0 takes any free one.
    pub port: u16,
    /// Port for view syncers.
    pub change_streamer_port: u16,
    /// Drain when `/keepalive` stays away for so long.
    pub keepalive_timeout: Option<Duration>,
    /// Most open connections.
    pub max_connections: usize,
    /// Longest message of a client, bytes.
    pub max_message_bytes: usize,
    /// Bytes queued for a connection.
    pub queue_bytes: usize,
    /// Messages queued for a connection.
    pub queue_messages: usize,
    /// Longest a client may take for its request headers.
    pub header_timeout: Duration,
    /// Longest a client may take for one message.
    pub message_timeout: Duration,
    /// Longest a client may take to accept one message.
    pub send_timeout: Duration,
}

/// Tokens. At most one of the three keys is set.
#[derive(Clone, Default)]
pub struct Auth {
    /// JSON web key.
    pub jwk: Option<String>,
    /// URL of a key set.
    pub jwks_url: Option<String>,
    /// Secret, as UTF-8 bytes.
    pub secret: Option<String>,
    /// Issuer a token must have.
    pub issuer: Option<String>,
    /// Audience a token must have.
    pub audience: Option<String>,
    /// How often credentials are checked again.
    pub revalidate_interval: Duration,
    /// How often custom queries are transformed again.
    pub retransform_interval: Duration,
}

impl std::fmt::Debug for Auth {
    // Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("jwk", &self.jwk.is_some())
            .field("jwks_url", &self.jwks_url)
            .field("secret", &self.secret.is_some())
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// The application's endpoints.
#[derive(Clone, Debug)]
pub struct AppApi {
    /// Answers custom queries.
    pub query: AppEndpoint,
    /// Runs custom mutators.
    pub mutate: AppEndpoint,
    /// Longest one attempt may take.
    pub timeout: Duration,
    /// Longest answer, bytes.
    pub max_response_bytes: usize,
}

/// One endpoint of the application.
#[derive(Clone, Default)]
pub struct AppEndpoint {
    /// URL patterns; the first is the default target, taken literally. Empty: not configured.
    pub urls: Vec<String>,
    /// Sent as `X-Api-Key`.
    pub api_key: Option<String>,
    /// Send the cookies of the WebSocket request.
    pub forward_cookies: bool,
    /// Headers clients may set, in lower case.
    pub allowed_client_headers: Vec<String>,
    /// Headers of the WebSocket request to hand on, in lower case.
    pub allowed_request_headers: Vec<String>,
}

impl std::fmt::Debug for AppEndpoint {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppEndpoint")
            .field("urls", &self.urls)
            .field("forward_cookies", &self.forward_cookies)
            .finish_non_exhaustive()
    }
}

/// Limit of CRUD mutations of a client group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MutationLimit {
    /// Most mutations per window.
    pub max: f64,
    /// Length of the window.
    pub window: Duration,
}

/// Logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it all")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
