//! Options of zero-cache that are read and checked, and have no effect here.

use super::{Setting, choice, flag, list, number, text};

const INT: &str = "internal to zero-cache";
const CVR: &str = "client groups are kept beside the replica";
const SQL: &str = "the replica is not SQLite";
const STAT: &str = "diagnostics of another engine";
const THREADS: &str = "queries run on threads of their own";
const CHANGE: &str = "the change log is kept beside the replica";
const ONE: &str = "one node does everything";
const HEAP: &str = "there is no V8 heap; queues are bounded in bytes";
const LS: &str = "there is no litestream; the replica is copied anew where it is lost";
const SPILL: &str = "query state is not spilled";
const V8: &str = "there is no V8 profiler";
const CANARY: &str = "the initial copy has no canary";
const UNUSED: &str = "zero-cache does not use it either";
const PHONE: &str = "this server never phones home";

/// Options of zero-cache that are read and checked, and have no effect here.
pub const ACCEPTED: &[Setting] = &[
    number("upstream-max-conns-per-worker", "")
        .no_effect(INT)
        .hidden(),
    text("cvr-db", "").no_effect(CVR).hidden(),
    number("cvr-max-conns", "30").no_effect(CVR).hidden(),
    number("cvr-max-conns-per-worker", "")
        .no_effect(INT)
        .hidden(),
    flag("sqlite-corruption-checks", "false")
        .no_effect(SQL)
        .hidden(),
    flag("enable-query-covering", "true")
        .no_effect(STAT)
        .hidden(),
    number("yield-threshold-ms", "10")
        .no_effect(THREADS)
        .hidden(),
    text("change-db", "").no_effect(CHANGE).hidden(),
    number("change-max-conns", "5").no_effect(CHANGE).hidden(),
    number("change-statement-timeout-ms", "20000")
        .no_effect(CHANGE)
        .hidden(),
    number("change-log-batch-size", "2000")
        .no_effect(CHANGE)
        .hidden(),
    number("replica-vacuum-interval-hours", "")
        .no_effect(SQL)
        .hidden(),
    number("log-ivm-sampling", "5000").no_effect(STAT).hidden(),
    text("change-streamer-address", "").no_effect(ONE).hidden(),
    choice("change-streamer-protocol", &["ws", "wss"], "ws")
        .no_effect(ONE)
        .hidden(),
    list("change-streamer-discovery-interface-preferences")
        .no_effect(ONE)
        .hidden(),
    choice(
        "change-streamer-sqlite-change-log-mode",
        &["off", "write", "compare", "serve"],
        "off",
    )
    .no_effect(SQL)
    .hidden(),
    number("change-streamer-sqlite-change-log-read-percent", "0")
        .no_effect(SQL)
        .hidden(),
    number("change-streamer-sqlite-change-log-cold-read-percent", "0")
        .no_effect(SQL)
        .hidden(),
    number("change-streamer-sqlite-change-log-compare-percent", "1")
        .no_effect(SQL)
        .hidden(),
    number("change-streamer-sqlite-change-log-retention-ms", "60000")
        .no_effect(SQL)
        .hidden(),
    number("change-streamer-sqlite-change-log-read-batch-rows", "1000")
        .no_effect(SQL)
        .hidden(),
    number("change-streamer-sqlite-change-log-purge-batch-rows", "1000")
        .no_effect(SQL)
        .hidden(),
    number(
        "change-streamer-sqlite-change-log-barrier-timeout-ms",
        "300000",
    )
    .no_effect(SQL)
    .hidden(),
    number(
        "change-streamer-back-pressure-limit-heap-proportion",
        "0.04",
    )
    .no_effect(HEAP)
    .hidden(),
    number(
        "change-streamer-flow-control-consensus-timeout-proportion",
        "2.0",
    )
    .no_effect(ONE)
    .hidden(),
    number(
        "change-streamer-flow-control-consensus-padding-seconds",
        "1",
    )
    .no_effect(ONE)
    .hidden(),
    number(
        "change-streamer-flow-control-slow-subscriber-grace-period-seconds",
        "30",
    )
    .no_effect(ONE)
    .hidden(),
    text("litestream-executable", "").no_effect(LS).hidden(),
    text("litestream-executable-v5", "").no_effect(LS).hidden(),
    text("litestream-vfs-query-executable", "")
        .no_effect(LS)
        .hidden(),
    text("litestream-vfs-extension-path", "")
        .no_effect(LS)
        .hidden(),
    number("litestream-vfs-probe-interval-ms", "")
        .no_effect(LS)
        .hidden(),
    number("litestream-vfs-probe-timeout-ms", "")
        .no_effect(LS)
        .hidden(),
    flag("litestream-restore-using-v5", "true")
        .no_effect(LS)
        .hidden(),
    flag("litestream-backup-using-v5", "false")
        .no_effect(LS)
        .hidden(),
    text("litestream-config-path", "").no_effect(LS).hidden(),
    text("litestream-config-path-v5", "").no_effect(LS).hidden(),
    number("litestream-vfs-poll-interval-ms", "15000")
        .no_effect(LS)
        .hidden(),
    number("litestream-vfs-timeout-ms", "10000")
        .no_effect(LS)
        .hidden(),
    text("litestream-vfs-log-file", "").no_effect(LS).hidden(),
    choice(
        "litestream-log-level",
        &["debug", "info", "warn", "error"],
        "warn",
    )
    .no_effect(LS)
    .hidden(),
    text("litestream-endpoint", "").no_effect(LS).hidden(),
    text("litestream-region", "").no_effect(LS).hidden(),
    number("litestream-port", "").no_effect(LS).hidden(),
    number("litestream-checkpoint-threshold-mb", "40")
        .no_effect(LS)
        .hidden(),
    number("litestream-min-checkpoint-page-count", "")
        .no_effect(LS)
        .hidden(),
    number("litestream-max-checkpoint-page-count", "")
        .no_effect(LS)
        .hidden(),
    number("litestream-incremental-backup-interval-minutes", "5")
        .no_effect(LS)
        .hidden(),
    number("litestream-incremental-backup-interval-seconds", "15")
        .no_effect(LS)
        .hidden(),
    number("litestream-snapshot-backup-interval-hours", "4")
        .no_effect(LS)
        .hidden(),
    number("litestream-restore-parallelism", "48")
        .no_effect(LS)
        .hidden(),
    number("litestream-multipart-concurrency", "48")
        .no_effect(LS)
        .hidden(),
    number("litestream-multipart-size", "16777216")
        .no_effect(LS)
        .hidden(),
    text("storage-db-tmp-dir", "").no_effect(SPILL).hidden(),
    flag("initial-sync-profile-copy", "").no_effect(V8).hidden(),
    flag("shadow-sync-enabled", "false")
        .no_effect(CANARY)
        .hidden(),
    number("shadow-sync-interval-hours", "12")
        .no_effect(CANARY)
        .hidden(),
    number("shadow-sync-sample-rate", "0.1")
        .no_effect(CANARY)
        .hidden(),
    number("shadow-sync-max-rows-per-table", "10000")
        .no_effect(CANARY)
        .hidden(),
    number("target-client-row-count", "20000")
        .no_effect(UNUSED)
        .hidden(),
    flag("enable-telemetry", "true").no_effect(PHONE).hidden(),
];
