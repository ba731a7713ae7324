//! What a query does and costs: for the inspector, the admin interface and `kelvin analyze`.
//!
//! A query is evaluated once at the newest version, beside the plans that are kept up to date,
//! within the budget of a hydration.

mod command;
mod inspector;
mod options;
mod tree;

use std::ops::ControlFlow;
use std::time::Instant;

use kelvin_ivm::{Budget, Explanation, Plan, explain};
use kelvin_storage::{Replica, Row, TableId, View};
use serde::{Deserialize, Serialize};

pub(crate) use command::not_a_query;
pub use command::run;
pub use inspector::{SyncedRows, inspector_result};
pub use options::HELP;
pub use tree::head as node_text;

/// Rows examined, at the least, before a query is said to read much for what it yields.
const MANY_ROWS: u64 = 10_000;
/// Rows examined for each row of the result from which on that is said.
const WASTEFUL: u64 = 100;

/// What was found out about a query.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Milliseconds it took.
    pub elapsed_ms: f64,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// The plan and what it read.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// Evaluates the plan at the view's version; `sink` gets each distinct row. Blocks: for worker
/// threads.
///
/// # Errors
/// For the application's developer: the budget is used up, or a read failed.
pub fn analyze(
    replica: &Replica,
    view: &View,
    plan: &Plan,
    budget: &Budget,
    sink: &mut dyn FnMut(TableId, &Row),
) -> Result<Analysis, String> {
    let started = Instant::now();
    let rows = |table| replica.row_count(table);
    let explanation = explain(plan, view, budget, &rows, &mut |table, row| {
        sink(table, row);
        ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    Ok(Analysis {
        elapsed_ms,
        warnings: warnings(&explanation),
        explanation,
    })
}

fn warnings(explanation: &Explanation) -> Vec<String> {
    let missing = explanation.missing_indexes.iter().map(|index| {
        let columns = index.columns.join(", ");
        format!("an index on {} ({columns}) would spare scans", index.table)
    });
    let mut warnings: Vec<String> = missing.collect();
    let (rows, examined) = (explanation.rows, explanation.examined);
    if examined >= MANY_ROWS && examined / rows.max(1) >= WASTEFUL {
        warnings.push(format!(
            "{examined} rows were examined for a result of {rows}"
        ));
    }
    warnings
}
