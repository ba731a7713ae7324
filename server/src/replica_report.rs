//! What `/metrics` and `/statz` say about the replica.

use std::fmt::Write as _;
use std::time::Duration;

use kelvin_protocol::Direction;
use kelvin_replication::Backfill;
use kelvin_storage::{Catalog, IndexBuild, StorageMetrics, TableMetrics};
use serde_json::{Value, json};

/// Tables with lines of their own in `/metrics`: the largest so many. A scraper keeps every series
/// it has ever seen; `/statz` shows all tables.
const LARGEST_TABLES: usize = 20;

/// Name, type, help and value of a figure.
pub(crate) type Figure = (&'static str, &'static str, &'static str, f64);

/// The figures of the replica as a whole.
pub(crate) fn replica_figures(replica: &StorageMetrics) -> Vec<Figure> {
    let mut figures = content_figures(replica);
    figures.extend(resource_figures(replica));
    figures.extend(work_figures(replica));
    figures
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
    (name, "gauge", help, value as f64)
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn counter(name: &'static str, help: &'static str, value: u64) -> Figure {
    (name, "counter", help, value as f64)
}

fn seconds(name: &'static str, kind: &'static str, help: &'static str, value: Duration) -> Figure {
    (name, kind, help, value.as_secs_f64())
}

/// What the replica holds.
fn content_figures(r: &StorageMetrics) -> Vec<Figure> {
    let span = r.watermark.saturating_sub(r.horizon);
    vec![
        gauge("kelvin_replica_watermark", "Newest version", r.watermark),
        gauge(
            "kelvin_replica_horizon",
            "Oldest readable version",
            r.horizon,
        ),
        gauge(
            "kelvin_replica_history_versions",
            "WAL bytes the history spans",
            span,
        ),
        seconds(
            "kelvin_replica_history_seconds",
            "gauge",
            "Time the history spans, since the start at most",
            r.history_age,
        ),
        gauge("kelvin_replica_tables", "Tables", r.tables as u64),
        gauge("kelvin_replica_rows", "Rows in all tables", r.rows),
        gauge("zero_replica_db_size", "Bytes on disk", r.disk_bytes),
        gauge(
            "zero_replica_wal_size",
            "Bytes of journals",
            r.journal_bytes,
        ),
    ]
}

/// What it takes.
fn resource_figures(r: &StorageMetrics) -> Vec<Figure> {
    vec![
        gauge(
            "kelvin_replica_journals",
            "Journal files",
            r.journals as u64,
        ),
        gauge(
            "kelvin_replica_table_size",
            "Bytes of rows and indexes",
            r.table_bytes,
        ),
        gauge(
            "kelvin_replica_history_size",
            "History bytes",
            r.history_bytes,
        ),
        gauge(
            "kelvin_replica_history_buckets",
            "Parts of the history",
            r.buckets as u64,
        ),
        gauge(
            "kelvin_replica_memtable_size",
            "Bytes of fresh writes in memory",
            r.memtable_bytes,
        ),
        gauge(
            "kelvin_replica_cache_capacity",
            "Bytes the block cache may hold",
            r.cache_capacity,
        ),
        gauge(
            "kelvin_replica_cache_size",
            "Bytes the block cache holds",
            r.cache_bytes,
        ),
        counter(
            "kelvin_replica_cache_hits",
            "Blocks found in the cache",
            r.cache_hits,
        ),
        counter(
            "kelvin_replica_cache_misses",
            "Blocks read from files",
            r.cache_misses,
        ),
        gauge(
            "kelvin_replica_flushes_waiting",
            "Flushes that wait",
            r.outstanding_flushes as u64,
        ),
        gauge(
            "kelvin_replica_uncompacted",
            "Tables and parts of the history that wait to be compacted",
            r.uncompacted as u64,
        ),
    ]
}

/// What it has done.
fn work_figures(r: &StorageMetrics) -> Vec<Figure> {
    vec![
        gauge(
            "kelvin_replica_compactions_running",
            "Compactions that run",
            r.active_compactions as u64,
        ),
        counter(
            "kelvin_replica_compactions",
            "Compactions done",
            r.completed_compactions,
        ),
        seconds(
            "kelvin_replica_compaction_seconds",
            "counter",
            "Time spent in compactions",
            r.compaction_time,
        ),
        counter(
            "kelvin_replica_point_reads",
            "Rows looked up by key",
            r.point_reads,
        ),
        counter("kelvin_replica_scans", "Scans", r.scans),
        counter(
            "kelvin_replica_rows_scanned",
            "Records read by scans",
            r.rows_scanned,
        ),
        counter("kelvin_replica_batches", "Batches written", r.batches),
        counter(
            "kelvin_replica_transactions",
            "Transactions written",
            r.transactions,
        ),
        counter(
            "kelvin_replica_rows_written",
            "Rows written",
            r.rows_written,
        ),
        counter(
            "kelvin_replica_bytes_written",
            "Bytes written",
            r.bytes_written,
        ),
        counter(
            "kelvin_replica_stalls",
            "Writes held up by flushes or compactions",
            r.stalls,
        ),
        seconds(
            "kelvin_replica_stall_seconds",
            "counter",
            "Time writes were held up",
            r.stall_time,
        ),
    ]
}

/// Writes lines about the largest tables.
pub(crate) fn table_lines(text: &mut String, tables: &[TableMetrics]) {
    type Get = fn(&TableMetrics) -> u64;
    let series: [(&str, &str, Get); 2] = [
        (
            "kelvin_replica_table_rows",
            "Rows of the largest tables",
            |t| t.rows,
        ),
        (
            "kelvin_replica_table_bytes",
            "Bytes of the largest tables",
            |t| t.disk_bytes,
        ),
    ];
    for (name, help, get) in series {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for table in tables.iter().take(LARGEST_TABLES) {
            let _ = writeln!(
                text,
                "{name}{{table=\"{}\"}} {}",
                label(&table.name),
                get(table)
            );
        }
    }
}

/// A label value as Prometheus wants it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The indexes that are being built, for the group `replica` of `/statz`.
pub(crate) fn builds_json(builds: &[IndexBuild], catalog: &Catalog) -> Value {
    let build = |build: &IndexBuild| {
        let table = catalog.table_by_id(build.table);
        let name = |(at, direction): &(usize, Direction)| {
            let column = table.and_then(|table| table.columns.get(*at));
            let name = column.map_or("?", |column| column.name.as_str());
            match direction {
                Direction::Asc => name.to_owned(),
                Direction::Desc => format!("{name} desc"),
            }
        };
        json!({
            "table": table.map(|table| table.name.as_str()),
            "columns": build.columns.iter().map(name).collect::<Vec<_>>(),
            "rowsDone": build.rows_done,
            "rowsTotal": build.rows_total,
        })
    };
    builds.iter().map(build).collect()
}

/// The tables that are copied beside the stream, for `/statz`.
pub(crate) fn backfills_json(backfills: &[Backfill]) -> Value {
    let backfill = |backfill: &Backfill| {
        json!({
            "table": backfill.table,
            "reason": backfill.reason,
            "running": backfill.running,
            "rows": backfill.rows,
            "estimatedRows": backfill.estimated_rows,
            "bytes": backfill.bytes,
            "secondsLeft": backfill.time_left.map(|left| left.as_secs()),
            "keptBytes": backfill.kept_bytes,
            "failures": backfill.failures,
            "failure": backfill.failure,
        })
    };
    backfills.iter().map(backfill).collect()
}

/// The tables that are published and not synced, or stand still, for `/statz`.
pub(crate) fn unsynced_json(catalog: &Catalog) -> Value {
    let tables = catalog.unsynced().iter();
    tables
        .map(|table| json!({ "table": table.name, "reason": table.reason }))
        .collect()
}

/// The group `replica` of `/statz`.
pub(crate) fn replica_json(replica: &StorageMetrics, tables: &[TableMetrics]) -> Value {
    let loads = replica.cache_hits + replica.cache_misses;
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let hit_rate = (loads > 0).then(|| replica.cache_hits as f64 / loads as f64);
    let table = |table: &TableMetrics| {
        json!({
            "name": table.name,
            "rows": table.rows,
            "bytes": table.disk_bytes,
            "memtableBytes": table.memtable_bytes,
        })
    };
    json!({
        "engine": "fjall",
        "watermark": replica.watermark,
        "horizon": replica.horizon,
        "historySeconds": replica.history_age.as_secs(),
        "bytes": replica.disk_bytes,
        "tableBytes": replica.table_bytes,
        "historyBytes": replica.history_bytes,
        "journalBytes": replica.journal_bytes,
        "journals": replica.journals,
        "memtableBytes": replica.memtable_bytes,
        "cache": {
            "capacity": replica.cache_capacity,
            "bytes": replica.cache_bytes,
            "hits": replica.cache_hits,
            "misses": replica.cache_misses,
            "hitRate": hit_rate,
        },
        "reads": {
            "points": replica.point_reads,
            "scans": replica.scans,
            "rowsScanned": replica.rows_scanned,
        },
        "writes": {
            "batches": replica.batches,
            "transactions": replica.transactions,
            "rows": replica.rows_written,
            "bytes": replica.bytes_written,
            "stalls": replica.stalls,
            "stallSeconds": replica.stall_time.as_secs_f64(),
        },
        "flushesWaiting": replica.outstanding_flushes,
        "compactions": {
            "running": replica.active_compactions,
            "done": replica.completed_compactions,
            "seconds": replica.compaction_time.as_secs_f64(),
        },
        "rows": replica.rows,
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kelvin_storage::TableId;

    fn tables(count: u32) -> Vec<TableMetrics> {
        (0..count)
            .map(|id| TableMetrics {
                id: TableId(id),
                name: format!("sche\"ma.t{id}"),
                rows: u64::from(id),
                disk_bytes: 0,
                memtable_bytes: 0,
            })
            .collect()
    }

    #[test]
    fn only_the_largest_tables_have_series_and_all_are_in_statz() {
        let tables = tables(100);
        let mut text = String::new();
        table_lines(&mut text, &tables);
        assert_eq!(text.matches("{table=").count(), 2 * LARGEST_TABLES);
        assert!(
            text.contains("kelvin_replica_table_rows{table=\"sche\\\"ma.t3\"} 3\n"),
            "{text}"
        );
        let json = replica_json(&StorageMetrics::default(), &tables);
        assert_eq!(json["tables"].as_array().unwrap().len(), 100);
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let figures = replica_figures(&StorageMetrics::default());
        let mut names: Vec<_> = figures.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), figures.len());
    }
}
