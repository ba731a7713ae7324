//! What the server tells operators over HTTP: `/statz` and `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use kelvin_replication::{
    Backfill, Backfills, CopyProgress, Lag, LagReport, Progress, Resynced, upstream_lsn,
};
use kelvin_storage::ErrorKind;
use serde_json::{Value, json};

use crate::http::Statz;
use crate::query_report::{past_figures, plan_figures};
pub(crate) use crate::replica_report::Figure;
use crate::replica_report::{
    backfills_json, builds_json, replica_figures, replica_json, table_lines, unsynced_json,
};
use crate::serve::Current;
use crate::sync::registry::Registry;

/// Groups of `/statz`, in the order they are shown.
const GROUPS: [&str; 4] = ["sync", "replica", "replication", "os"];

/// Reports on whatever generation serves now.
pub struct Reports {
    current: Arc<Current>,
    started: Instant,
    copy: Mutex<CopyProgress>,
    resyncs: Mutex<Resyncs>,
    backfills: Mutex<Option<Backfills>>,
    lag: Mutex<Lag>,
    faults: ReplicaFaults,
}

/// How often the replica was brought up to the upstream since the start.
#[derive(Clone, Default)]
struct Resyncs {
    /// Times that was done.
    count: u64,
    /// What the last one came to.
    last: Option<Resynced>,
    /// Why it is being done now, if it is.
    reason: Option<String>,
}

/// What went wrong with the replica since the start.
#[derive(Default)]
struct ReplicaFaults {
    /// Times it, or opening it, failed.
    failures: AtomicU64,
    /// Whether it waits for room on its disk.
    disk_full: AtomicBool,
    /// What is wrong now, for `/statz`.
    message: Mutex<Option<String>>,
}

impl Reports {
    /// Reports on `current`; uptime counts from now.
    #[must_use]
    pub fn new(current: Arc<Current>) -> Self {
        Self {
            current,
            started: Instant::now(),
            copy: Mutex::default(),
            resyncs: Mutex::default(),
            backfills: Mutex::default(),
            lag: Mutex::default(),
            faults: ReplicaFaults::default(),
        }
    }

    /// Notes that the replica, or opening it, failed.
    pub(crate) fn replica_failed(&self, error: &kelvin_replication::Error) {
        let is_full = matches!(
            error,
            kelvin_replication::Error::Storage(error) if error.kind() == ErrorKind::DiskFull
        );
        self.faults.failures.fetch_add(1, Ordering::Relaxed);
        self.faults.disk_full.store(is_full, Ordering::Relaxed);
        self.set_fault(Some(error.to_string()));
    }

    /// Notes that the replica is open, which tables are copied into it beside the stream, and how
    /// far it lags behind.
    pub(crate) fn replica_opened(&self, backfills: Backfills, lag: Lag) {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = lag;
        *(self.backfills.lock()).unwrap_or_else(PoisonError::into_inner) = Some(backfills);
        self.resyncs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reason = None;
        self.faults.disk_full.store(false, Ordering::Relaxed);
        self.set_fault(None);
    }

    fn lag(&self) -> LagReport {
        let lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        lag.report()
    }

    fn backfills(&self) -> Vec<Backfill> {
        let backfills = self.backfills.lock();
        let backfills = backfills.unwrap_or_else(PoisonError::into_inner).clone();
        backfills.map_or_else(Vec::new, |backfills| backfills.list())
    }

    fn resyncs(&self) -> Resyncs {
        let resyncs = self.resyncs.lock();
        resyncs.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_fault(&self, message: Option<String>) {
        let mut fault = (self.faults.message.lock()).unwrap_or_else(PoisonError::into_inner);
        *fault = message;
    }

    /// The text of `/metrics`, in the Prometheus format. Names follow those of zero-cache where the
    /// meaning is the same.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let uptime = self.started.elapsed().as_secs_f64();
        line(
            &mut text,
            "zero_server_uptime",
            "gauge",
            "Seconds since the start",
            uptime,
        );
        let copy = *self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, kind, help, value) in copy_figures(copy) {
            line(&mut text, name, kind, help, value);
        }
        for (name, kind, help, value) in resync_figures(&self.resyncs()) {
            line(&mut text, name, kind, help, value);
        }
        let current = self.current.get();
        for (name, kind, help, value) in backfill_figures(&self.backfills()) {
            line(&mut text, name, kind, help, value);
        }
        for (name, kind, help, value) in lag_figures(self.lag()) {
            line(&mut text, name, kind, help, value);
        }
        for (name, kind, help, value) in self.fault_figures(current.is_some()) {
            line(&mut text, name, kind, help, value);
        }
        let Some(registry) = current else {
            return text;
        };
        for (name, kind, help, value) in figures(&registry) {
            line(&mut text, name, kind, help, value);
        }
        table_lines(&mut text, &registry.services().replica.table_metrics());
        text
    }
}

impl Reports {
    /// Figures that are there while the replica is not.
    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
    fn fault_figures(&self, serving: bool) -> [Figure; 3] {
        let faults = &self.faults;
        [
            (
                "kelvin_replica_open",
                "gauge",
                "1 while the replica is open and served from",
                f64::from(u8::from(serving)),
            ),
            (
                "kelvin_replica_disk_full",
                "gauge",
                "1 while the replica waits for room on its disk",
                f64::from(u8::from(faults.disk_full.load(Ordering::Relaxed))),
            ),
            (
                "kelvin_replica_failures",
                "counter",
                "Times the replica, or opening it, failed",
                faults.failures.load(Ordering::Relaxed) as f64,
            ),
        ]
    }
}

fn line(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn copy_figures(copy: CopyProgress) -> [Figure; 4] {
    [
        (
            "zero_replication_initial_sync_rows",
            "counter",
            "Rows copied",
            copy.rows as f64,
        ),
        (
            "kelvin_copy_bytes",
            "counter",
            "Bytes copied",
            copy.bytes as f64,
        ),
        (
            "kelvin_copy_tables_done",
            "counter",
            "Tables copied",
            copy.tables_done as f64,
        ),
        (
            "kelvin_copy_seconds_left",
            "gauge",
            "Estimate of how long the copy takes yet; 0 where it cannot be told",
            copy.time_left.unwrap_or_default().as_secs_f64(),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn resync_figures(resyncs: &Resyncs) -> [Figure; 3] {
    let written = |last: Resynced| last.changed + last.added + last.removed;
    [
        (
            "kelvin_resyncing",
            "gauge",
            "1 while the replica is served as it was and compared with the database",
            f64::from(u8::from(resyncs.reason.is_some())),
        ),
        (
            "kelvin_resyncs",
            "counter",
            "Times the replica was brought up to the database by what differed",
            resyncs.count as f64,
        ),
        (
            "kelvin_resync_rows",
            "gauge",
            "Rows that differed the last time",
            resyncs.last.map_or(0, written) as f64,
        ),
    ]
}

/// The replication lag, as far as it was measured.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn lag_figures(lag: LagReport) -> Vec<Figure> {
    let seconds = |name, help, time: Option<Duration>| -> Option<Figure> {
        Some((name, "gauge", help, time?.as_secs_f64()))
    };
    let count = (
        "kelvin_replication_lag_reports",
        "counter",
        "Messages that were written upstream and timed until they were applied",
        lag.count as f64,
    );
    let times = [
        seconds(
            "kelvin_replication_lag_received_seconds",
            "Time the last such message took to come by the stream",
            lag.received,
        ),
        seconds(
            "kelvin_replication_lag_applied_seconds",
            "Time until all that committed before it was applied",
            lag.applied,
        ),
        seconds(
            "kelvin_replication_lag_awaited_seconds",
            "Time one is on its way by now, 0 where none is; the lag is no less",
            Some(lag.awaited.unwrap_or_default()),
        ),
    ];
    times.into_iter().flatten().chain([count]).collect()
}

/// The replication lag, for the group `replication` of `/statz`.
fn lag_json(lag: LagReport) -> Value {
    let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
    json!({
        "receivedMs": millis(lag.received),
        "appliedMs": millis(lag.applied),
        "awaitedMs": millis(lag.awaited),
        "reports": lag.count,
    })
}

/// The state of resyncs, for the group `replication` of `/statz`.
fn resyncs_json(resyncs: &Resyncs) -> Value {
    let last = resyncs.last.map(|last| {
        json!({
            "kept": last.kept,
            "changed": last.changed,
            "added": last.added,
            "removed": last.removed,
        })
    });
    json!({ "count": resyncs.count, "running": resyncs.reason, "last": last })
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn backfill_figures(backfills: &[Backfill]) -> [Figure; 3] {
    let sum = |of: fn(&Backfill) -> u64| backfills.iter().map(of).sum::<u64>() as f64;
    [
        (
            "kelvin_backfill_tables",
            "gauge",
            "Tables that are copied, or wait to be copied, beside the stream",
            backfills.len() as f64,
        ),
        (
            "kelvin_backfill_failing_tables",
            "gauge",
            "Those of them whose last copy failed",
            sum(|backfill| u64::from(backfill.failure.is_some())),
        ),
        (
            "kelvin_backfill_kept_bytes",
            "gauge",
            "Bytes of changes that wait for copies",
            sum(|backfill| backfill.kept_bytes),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn figures(registry: &Registry) -> Vec<Figure> {
    let services = registry.services();
    let engine = services.engine.metrics();
    let mut figures = vec![
        (
            "zero_sync_active_client_groups",
            "gauge",
            "Client groups awake",
            registry.len() as f64,
        ),
        (
            "zero_sync_pipelines_total",
            "gauge",
            "Subscriptions to plans",
            engine.subscriptions as f64,
        ),
        (
            "zero_sync_pipelines_unique",
            "gauge",
            "Plans kept up to date",
            engine.plans as f64,
        ),
        (
            "zero_sync_hydration",
            "counter",
            "Plans hydrated",
            engine.hydrations as f64,
        ),
        (
            "kelvin_plans_over_budget",
            "counter",
            "Plans that failed because a commit took more than it may",
            engine.over_budget as f64,
        ),
        (
            "zero_sync_poke_transactions",
            "counter",
            "Events given to groups",
            engine.deliveries as f64,
        ),
        (
            "zero_replication_transactions",
            "counter",
            "Commits advanced",
            engine.commits as f64,
        ),
        (
            "kelvin_sync_cut_off",
            "counter",
            "Groups that did not keep up",
            engine.cut_off as f64,
        ),
    ];
    figures.extend(past_figures(engine.delta_log_bytes, &engine.pasts));
    figures.extend(plan_figures(engine.plan_rows, &engine.costs));
    figures.extend(replica_figures(&services.replica.metrics()));
    figures
}

impl Progress for Reports {
    fn copying(&self, progress: CopyProgress) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn resyncing(&self, reason: &str) {
        let mut resyncs = self.resyncs.lock().unwrap_or_else(PoisonError::into_inner);
        resyncs.reason = Some(reason.to_owned());
    }

    fn resynced(&self, difference: Resynced) {
        let mut resyncs = self.resyncs.lock().unwrap_or_else(PoisonError::into_inner);
        resyncs.count += 1;
        resyncs.last = Some(difference);
        resyncs.reason = None;
    }
}

impl Statz for Reports {
    fn groups(&self) -> &[&'static str] {
        &GROUPS
    }

    fn collect<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(async move {
            let Some(registry) = self.current.get() else {
                let fault = self.faults.message.lock();
                let fault = fault.unwrap_or_else(PoisonError::into_inner).clone();
                return Err(fault.unwrap_or_else(|| {
                    let copy = *self.copy.lock().unwrap_or_else(PoisonError::into_inner);
                    format!("the database is being copied: {copy}")
                }));
            };
            let services = registry.services();
            let storage = services.replica.metrics();
            Ok(match group {
                "sync" => {
                    let engine = services.engine.metrics();
                    json!({
                        "clientGroups": registry.len(),
                        "plans": engine.plans,
                        "subscriptions": engine.subscriptions,
                        "planRows": engine.plan_rows,
                        "hydrations": engine.hydrations,
                        "hydrationMs": engine.costs.hydration.as_secs_f64() * 1000.0,
                        "advances": engine.costs.advances,
                        "advanceMs": engine.costs.advancing.as_secs_f64() * 1000.0,
                        "overBudget": engine.over_budget,
                        "deltas": engine.costs.deltas,
                        "deliveries": engine.deliveries,
                        "cutOff": engine.cut_off,
                        "deltaLogBytes": engine.delta_log_bytes,
                        "catchUpPlansLogged": engine.pasts.logged,
                        "catchUpPlansRecalled": engine.pasts.recalled,
                        "catchUpPlansEvaluated": engine.pasts.evaluated,
                    })
                }
                "replica" => {
                    let replica = &services.replica;
                    let mut json = replica_json(&storage, &replica.table_metrics());
                    json["indexBuilds"] = builds_json(&replica.index_builds(), &replica.catalog());
                    json
                }
                "replication" => json!({
                    "lsn": upstream_lsn(&services.replica.identity(), storage.watermark).to_string(),
                    "lag": lag_json(self.lag()),
                    "resyncs": resyncs_json(&self.resyncs()),
                    "backfills": backfills_json(&self.backfills()),
                    "unsynced": unsynced_json(&services.replica.catalog()),
                }),
                _ => json!({
                    "uptime": self.started.elapsed().as_secs_f64(),
                    "available parallelism":
                        std::thread::available_parallelism().map_or(1, usize::from),
                }),
            })
        })
    }
}

/// A version the way PostgreSQL prints it.
pub(crate) fn lsn(version: u64) -> String {
    format!("{:X}/{:X}", version >> 32, version & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kelvin_replication::LagReport;

    use super::{lag_figures, lsn};

    #[test]
    fn a_lag_that_was_not_measured_is_left_out_and_one_that_is_awaited_is_told() {
        let shown = |lag: LagReport| -> Vec<(&str, f64)> {
            let figures = lag_figures(lag).into_iter();
            figures
                .map(|(name, _, _, value)| {
                    (name.trim_start_matches("kelvin_replication_lag_"), value)
                })
                .collect()
        };
        let nothing = [("awaited_seconds", 0.0), ("reports", 0.0)];
        assert_eq!(shown(LagReport::default()), nothing);
        let lag = LagReport {
            received: Some(Duration::from_millis(250)),
            applied: Some(Duration::from_millis(500)),
            awaited: Some(Duration::from_secs(2)),
            count: 3,
        };
        let all = [
            ("received_seconds", 0.25),
            ("applied_seconds", 0.5),
            ("awaited_seconds", 2.0),
            ("reports", 3.0),
        ];
        assert_eq!(shown(lag), all);
    }

    #[test]
    fn versions_are_shown_as_postgresql_shows_them() {
        assert_eq!(lsn(0x0000_0001_6B37_4D48), "1/6B374D48");
    }
}
