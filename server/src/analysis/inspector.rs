//! An analysis in the form the client's inspector validates, strictly.

use std::collections::BTreeMap;

use kelvin_storage::{Catalog, Row, TableId};
use serde_json::{Map, Value as Json, json};

use super::Analysis;
use super::tree::{head, read_line, way};
use crate::engine::encode_row;

/// Rows that are listed; a browser's console shows no more of use.
const LISTED_ROWS: usize = 10_000;
/// Bytes of them.
const LISTED_BYTES: usize = 8 << 20;

/// The rows that clients would be sent, as far as they are listed.
#[derive(Debug, Default)]
pub struct SyncedRows {
    tables: BTreeMap<String, Vec<Json>>,
    rows: usize,
    bytes: usize,
    cut: bool,
    unsendable: Option<String>,
}

impl SyncedRows {
    /// Adds a row, unless there are too many.
    pub fn push(&mut self, catalog: &Catalog, table: TableId, row: &Row) {
        let Some(table) = catalog.table_by_id(table) else {
            return;
        };
        if self.rows >= LISTED_ROWS || self.bytes >= LISTED_BYTES {
            self.cut = true;
            return;
        }
        match encode_row(table, row) {
            Ok(text) => {
                self.rows += 1;
                self.bytes += text.len();
                let row = serde_json::from_str(&text).unwrap_or(Json::Null);
                self.tables.entry(table.name.clone()).or_default().push(row);
            }
            Err(error) => self.unsendable = Some(error.to_string()),
        }
    }

    fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let cut = self
            .cut
            .then(|| format!("only the first {} rows are listed", self.rows));
        let unsendable = self.unsendable.as_ref();
        cut.into_iter()
            .chain(unsendable.map(|error| format!("a row cannot be sent to clients: {error}")))
    }
}

/// The result of `analyze-query`. `query` is the query under permissions, where they were applied.
#[must_use]
pub fn inspector_result(
    analysis: &Analysis,
    rows: Option<SyncedRows>,
    query: Option<&str>,
    warnings: Vec<String>,
) -> Json {
    let mut counts: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
    let mut plans: Map<String, Json> = Map::new();
    for (at, node) in analysis.explanation.nodes.iter().enumerate() {
        let of_node = format!("{at}: {}", head(node));
        let lines: Vec<String> = (node.reads.iter())
            .map(|read| read_line(&node.table, read))
            .collect();
        plans.insert(of_node, json!(lines));
        for read in &node.reads {
            let of_read = format!("{at}: {}", way(&node.table, read));
            let counts = counts.entry(&node.table).or_default();
            let before = counts.get(&of_read).and_then(Json::as_u64).unwrap_or(0);
            counts.insert(of_read, json!(before + read.examined));
        }
    }
    let mut warnings = warnings;
    warnings.extend(analysis.warnings.iter().cloned());
    warnings.extend(rows.iter().flat_map(SyncedRows::warnings));
    let mut result = json!({
        "warnings": warnings,
        "syncedRowCount": analysis.explanation.rows,
        "start": 0,
        "end": analysis.elapsed_ms,
        "elapsed": analysis.elapsed_ms,
        "readRowCount": analysis.explanation.examined,
        "readRowCountsByQuery": counts,
        "dbScansByQuery": counts,
        "sqlitePlans": plans,
    });
    if let Some(rows) = rows {
        result["syncedRows"] = json!(rows.tables);
    }
    if let Some(query) = query {
        result["afterPermissions"] = json!(query);
    }
    result
}
