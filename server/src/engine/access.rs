//! Indexes that plans need and the upstream does not have.

use std::time::Instant;

use kelvin_ivm::Plan;
use kelvin_storage::{Replica, Scan, Table, TableId};

/// Tables with fewer rows are scanned: an index would cost more than it saves.
const WORTH_INDEXING: usize = 1_000;
/// Indexes of ours that a table may have beside those of the upstream. Each costs every write.
const MAX_OWN_INDEXES: usize = 8;
/// How names of our indexes begin, in the form the storage gives them.
const OWN_PREFIX: &str = "kelvin";

/// Builds the secondary indexes that spare `plan` scans of large tables. While one is being built,
/// commits wait; a million rows take about two seconds. A query is right without them, so that a
/// failure costs time only.
pub(super) fn ensure_indexes(replica: &Replica, plan: &Plan) {
    for wish in plan.missing_indexes(&replica.catalog()) {
        let catalog = replica.catalog();
        let Some(table) = catalog.table_by_id(wish.table) else {
            continue;
        };
        if own_indexes(table) >= MAX_OWN_INDEXES || !is_large(replica, wish.table) {
            continue;
        }
        let names: Vec<&str> = wish
            .columns
            .iter()
            .filter_map(|(at, _)| table.columns.get(*at))
            .map(|column| column.name.as_str())
            .collect();
        let started = Instant::now();
        match replica.add_index(wish.table, &wish.columns) {
            Ok(_) => tracing::info!(
                table = table.name,
                columns = names.join(", "),
                ms = started.elapsed().as_millis(),
                "built an index that a query needs and PostgreSQL does not have"
            ),
            Err(error) => tracing::warn!(
                table = table.name, columns = names.join(", "), %error, "an index cannot be built"
            ),
        }
    }
}

fn own_indexes(table: &Table) -> usize {
    table
        .indexes
        .iter()
        .filter(|index| index.name.starts_with(OWN_PREFIX))
        .count()
}

fn is_large(replica: &Replica, table: TableId) -> bool {
    let rows = replica
        .latest()
        .and_then(|view| view.scan(table, &Scan::all()));
    rows.is_ok_and(|mut rows| rows.nth(WORTH_INDEXING).is_some())
}
