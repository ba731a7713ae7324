//! Options of our own. Each bound of the server that an operator may want to move is here.

use super::{Setting, flag, number, text};

/// Options of our own.
pub const OWN: &[Setting] = &[
    number("kelvin-history-age-seconds", "86400")
        .help("How old a client's state may be to be brought up instead of starting afresh"),
    number("kelvin-history-bytes", "8589934592")
        .help("Most bytes of history kept on disk; the oldest goes first"),
    number("kelvin-cache-bytes", "268435456").help("Memory for blocks of the replica"),
    flag("kelvin-huge-pages", "false").help(
        "Take memory in pages of 2 MiB, if the system has them: more memory, slightly quicker reads",
    ),
    number("kelvin-memtable-bytes", "67108864")
        .help("Most memory a large table, or the history, may take for fresh writes"),
    number("kelvin-write-buffer-bytes", "268435456")
        .help("Most memory all tables together may take for fresh writes"),
    number("kelvin-journal-bytes", "268435456")
        .help("Bytes of journals beyond which tables that hold them back are written to files"),
    number("kelvin-transaction-bytes", "67108864")
        .help("Bytes of one upstream transaction held in memory; a larger one is applied in parts"),
    number("kelvin-spool-bytes", "0").help(
        "Disk for large upstream transactions received in progress; what is more is left upstream",
    ),
    number("kelvin-backfill-bytes", "67108864").help(
        "Memory for changes of tables that are copied beside the stream; beyond it, it waits",
    ),
    number("kelvin-advance-threads", "1").help(
        "Threads, up to 256, that bring many queries up to one commit; 0 is as many as cores",
    ),
    number("kelvin-advance-timeout-ms", "10000")
        .help("Longest a commit may take a query; beyond it the query fails, alone"),
    number("kelvin-advance-max-rows", "2000000")
        .help("Most rows a query may read for a commit; beyond it the query fails, alone"),
    flag("kelvin-event-triggers", "true").help(
        "Have event triggers in PostgreSQL tell of schema changes; false drops those of kelvin",
    ),
    flag("kelvin-text-stream", "false").help(
        "Stream changes in text instead of binary form, as happens anyway where a type has none here",
    ),
    number("kelvin-hydration-threads", "0")
        .help("Threads that hydrate queries, 2 at least; 0 follows ZERO_NUM_SYNC_WORKERS"),
    number("kelvin-hydration-timeout-ms", "60000")
        .help("Longest a query may take to hydrate; beyond it the query fails, alone"),
    number("kelvin-hydration-max-rows", "2000000")
        .help("Most rows a query may read to hydrate; beyond it the query fails, alone"),
    number("kelvin-delta-log-bytes", "67108864").help(
        "Memory for what commits did to queries, by which clients that return are brought up",
    ),
    number("kelvin-max-queries-per-group", "2000").help("Most queries a client group may desire"),
    number("kelvin-max-clients-per-group", "200").help("Most clients a client group may have"),
    text("kelvin-listen-address", "")
        .help("IP address to listen on, such as 127.0.0.1. Default: all"),
    number("kelvin-max-connections", "20000")
        .help("Most open connections; further ones wait to be accepted"),
    number("kelvin-connection-queue-bytes", "8388608")
        .help("Bytes queued for a connection before it counts as slow and is brought up later"),
    number("kelvin-connection-queue-messages", "8192")
        .help("Messages queued for a connection before it counts as slow"),
    number("kelvin-header-timeout-ms", "10000")
        .help("Longest a client may take to send its request headers"),
    number("kelvin-message-timeout-ms", "60000")
        .help("Longest a client may take to send one message"),
    number("kelvin-send-timeout-ms", "10000")
        .help("Longest a client may take to accept one message"),
    number("kelvin-api-timeout-ms", "120000")
        .help("Longest the API server may take to answer one attempt"),
    number("kelvin-api-max-response-bytes", "67108864")
        .help("Longest answer accepted from the API server"),
    number("kelvin-push-queue-length", "1000")
        .help("Custom mutations a client group may have waiting for the API server"),
];
