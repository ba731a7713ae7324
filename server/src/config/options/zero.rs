//! Options of zero-cache that have their meaning here too.

use super::{Setting, choice, flag, list, number, text};

const USE_MUTATE: &str = "use the ZERO_MUTATE_* option of the same ending";
const USE_QUERY: &str = "use the ZERO_QUERY_* option of the same ending";
const USE_API: &str = "let your API server authenticate requests (ZERO_QUERY_URL, ZERO_MUTATE_URL)";

/// Options of zero-cache that have their meaning here too.
pub const ZERO: &[Setting] = &[
    text("upstream-db", "").help(
        "PostgreSQL URL of the database to sync. Required. A direct connection, not a pooler: \
         replication runs over it",
    ),
    choice("upstream-type", &["pg", "custom"], "pg")
        .help("Kind of the upstream; only pg is supported")
        .hidden(),
    number("upstream-max-conns", "20").help("Most connections that commit CRUD mutations upstream"),
    flag("upstream-pg-replication-slot-failover", "").help(
        "Create replication slots that survive a failover to a standby (PostgreSQL 17 and newer)",
    ),
    number("upstream-pg-stream-inbound-timeout-ms", "").help(
        "Reconnect the replication stream when nothing arrives for so long. Default: twice the \
         server's wal_sender_timeout",
    ),
    list("mutate-url").help(
        "URL patterns of the API endpoint that runs custom mutators; the first is the default",
    ),
    text("mutate-api-key", "").help("Sent to the mutate endpoint as X-Api-Key"),
    flag("mutate-forward-cookies", "false").help("Send clients' cookies to the mutate endpoint"),
    list("mutate-allowed-client-headers")
        .help("Headers clients may set on requests to the mutate endpoint"),
    list("mutate-allowed-request-headers")
        .help("Headers of the WebSocket request that are sent to the mutate endpoint"),
    list("query-url").help(
        "URL patterns of the API endpoint that answers custom queries; the first is the default",
    ),
    text("query-api-key", "").help("Sent to the query endpoint as X-Api-Key"),
    flag("query-forward-cookies", "false").help("Send clients' cookies to the query endpoint"),
    list("query-allowed-client-headers")
        .help("Headers clients may set on requests to the query endpoint"),
    list("query-allowed-request-headers")
        .help("Headers of the WebSocket request that are sent to the query endpoint"),
    list("push-url")
        .alias_of("mutate-url")
        .deprecated(USE_MUTATE),
    text("push-api-key", "")
        .alias_of("mutate-api-key")
        .deprecated(USE_MUTATE),
    flag("push-forward-cookies", "")
        .alias_of("mutate-forward-cookies")
        .deprecated(USE_MUTATE),
    list("push-allowed-client-headers")
        .alias_of("mutate-allowed-client-headers")
        .deprecated(USE_MUTATE),
    list("push-allowed-request-headers")
        .alias_of("mutate-allowed-request-headers")
        .deprecated(USE_MUTATE),
    list("get-queries-url")
        .alias_of("query-url")
        .deprecated(USE_QUERY),
    text("get-queries-api-key", "")
        .alias_of("query-api-key")
        .deprecated(USE_QUERY),
    flag("get-queries-forward-cookies", "")
        .alias_of("query-forward-cookies")
        .deprecated(USE_QUERY),
    list("get-queries-allowed-client-headers")
        .alias_of("query-allowed-client-headers")
        .deprecated(USE_QUERY),
    list("get-queries-allowed-request-headers")
        .alias_of("query-allowed-request-headers")
        .deprecated(USE_QUERY),
    flag("enable-crud-mutations", "true")
        .help("Execute CRUD mutations of clients; false rejects them"),
    number("cvr-garbage-collection-inactivity-threshold-hours", "48")
        .help("Forget a client group that nobody connected to for so long"),
    number("cvr-garbage-collection-initial-interval-seconds", "60")
        .help("How often client groups are looked through for forgotten ones"),
    number("cvr-garbage-collection-initial-batch-size", "25")
        .help("Client groups forgotten per round; 0 never forgets any"),
    flag("query-hydration-stats", "")
        .help("Count the rows that slow hydrations scan, and log them")
        .no_effect("the rows scanned are not counted yet"),
    flag("enable-query-planner", "true")
        .help("Choose the cheaper join order; never changes results")
        .no_effect("queries are read along the indexes they fit; results are the same"),
    text("replica-file", "zero.db")
        .help("Where the replica lives: the directory of this name with .kelvin appended"),
    choice("log-level", &["debug", "info", "warn", "error"], "info").help("What is logged"),
    choice("log-format", &["text", "json"], "text").help("How it is logged"),
    number("log-slow-row-threshold", "2")
        .help("Milliseconds from which a row fetch is called slow")
        .no_effect("single row fetches are not timed"),
    number("log-slow-hydrate-threshold", "100")
        .help("Milliseconds from which a hydration is logged as slow"),
    text("app-id", "zero")
        .help("Name of the upstream schema, beginning of slot and publication names"),
    list("app-publications").help(
        "Publications to sync. Default: one of all tables in schema public, created at start",
    ),
    number("shard-num", "0")
        .help("Suffix of the upstream schema")
        .hidden(),
    text("shard-id", "")
        .help("Removed; use ZERO_APP_ID")
        .hidden(),
    text("auth-jwk", "")
        .help("JSON web key that verifies tokens")
        .deprecated(USE_API),
    text("auth-jwks-url", "")
        .help("URL of the keys that verify tokens")
        .deprecated(USE_API),
    text("auth-secret", "")
        .help("Secret that verifies tokens")
        .deprecated(USE_API),
    text("auth-issuer", "")
        .help("Issuer that tokens must have")
        .deprecated(USE_API),
    text("auth-audience", "")
        .help("Audience that tokens must have")
        .deprecated(USE_API),
    number("auth-revalidate-interval-seconds", "300")
        .help("How often a connection's credentials are checked again with the query endpoint"),
    number("auth-retransform-interval-seconds", "300")
        .help("How often a group's custom queries are transformed again"),
    number("port", "4848").help("Port for clients and HTTP"),
    number("keepalive-timeout-ms", "")
        .help("Drain when /keepalive was not called for so long (after its first call)"),
    text("change-streamer-uri", "")
        .help("Replication manager of this view syncer; not supported yet"),
    choice(
        "change-streamer-mode",
        &["dedicated", "discover"],
        "dedicated",
    )
    .help("How a view syncer finds its replication manager; not supported yet"),
    number("change-streamer-port", "").help("Port for view syncers. Default: ZERO_PORT + 1"),
    number("change-streamer-startup-delay-ms", "15000")
        .help("Wait so long after becoming healthy before taking over the replication slot")
        .no_effect("one node does everything"),
    text("task-id", "").help("Names this process in logs. Default: random"),
    number("per-user-mutation-limit-max", "")
        .help("Most CRUD mutations of a client group per window"),
    number("per-user-mutation-limit-window-ms", "60000").help("Length of that window"),
    number("num-sync-workers", "")
        .help("Hint for the number of threads that hydrate queries. Default: one less than there are cores"),
    flag("auto-reset", "true").help("Copy what differs, or the whole database anew, when replication cannot go on"),
    number("replication-lag-report-interval-ms", "30000")
        .help("How often a message is written upstream to measure the replication lag; 0 never"),
    text("admin-password", "")
        .help("Password of /statz and the inspector. Required unless NODE_ENV=development"),
    flag("websocket-compression", "false")
        .help("Allow compressed WebSocket messages; this server never negotiates them"),
    text("websocket-compression-options", "").help("JSON options of the compression"),
    number("websocket-max-payload-bytes", "10485760")
        .help("Longest message a client may send; a longer one closes the connection (1009)"),
    text("litestream-backup-url", "").help("Where snapshots go; not supported yet"),
    number("initial-sync-table-copy-workers", "5")
        .help("Connections that copy tables at the same time"),
    flag("initial-sync-text-copy", "false").help("Copy tables in text instead of binary form"),
    flag("lazy-startup", "false")
        .help("Start everything when the first client connects")
        .no_effect("everything starts at once"),
    text("server-version", "").help("Version to report in logs and telemetry"),
    text("cloud-event-sink-env", "")
        .help("Names the variable that holds a CloudEvents sink")
        .hidden(),
    text("cloud-event-extension-overrides-env", "")
        .help("Names the variable that holds CloudEvents extensions")
        .hidden(),
];
