//! What the server tells operators about queries: `/queryz` and `/analyzez`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use kelvin_ivm::{ClientKeys, NodeExplanation, Plan, Role, outline};
use kelvin_protocol::Ast;
use serde_json::{Value, json};

use crate::analysis::{analyze, node_text, not_a_query};
use crate::engine::{PastCounts, PlanCosts, PlanReport, budget};
use crate::http::{AskedQuery, QueryDesk, Refusal};
use crate::report::{Figure, lsn};
use crate::serve::Current;
use crate::sync::registry::Services;

/// Characters of a query that a list shows; `/analyzez` shows all of it.
const SHOWN_CHARS: usize = 1_000;

/// Answers for whatever generation serves now.
pub struct Queries(Arc<Current>);

impl Queries {
    /// Answers for `current`.
    #[must_use]
    pub fn new(current: Arc<Current>) -> Self {
        Self(current)
    }

    fn services(&self) -> Result<Arc<Services>, Refusal> {
        let registry = self.0.get();
        let registry = registry.ok_or_else(|| Refusal::unable("the database is being prepared"))?;
        Ok(Arc::clone(registry.services()))
    }
}

impl QueryDesk for Queries {
    fn list(&self, most: usize) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let services = self.services()?;
            let reports = services.engine.plan_reports(most).await;
            let reports = reports.map_err(|error| Refusal::unable(error.to_string()))?;
            let listed = |plans: &[PlanReport]| plans.iter().map(plan_json).collect::<Vec<_>>();
            Ok(json!({
                "plans": reports.plans,
                "slowest": listed(&reports.slowest),
                "widest": listed(&reports.widest),
            }))
        })
    }

    fn analyze(&self, query: AskedQuery) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let services = self.services()?;
            let known = match &query {
                AskedQuery::Plan(id) => {
                    let plan = services.engine.plan(id).await;
                    let plan = plan.map_err(|error| Refusal::unable(error.to_string()))?;
                    let none = || Refusal::wrong(format!("not exactly one live plan {id}…"));
                    Some(plan.ok_or_else(none)?)
                }
                AskedQuery::Ast(_) => None,
            };
            let permit = Arc::clone(&services.reading).acquire_owned().await;
            let permit = permit.map_err(|error| Refusal::unable(error.to_string()))?;
            let work = move || {
                let _permit = permit;
                analyzed(&services, known, &query)
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|error| Refusal::unable(error.to_string()))?
        })
    }
}

fn analyzed(
    services: &Services,
    known: Option<Arc<Plan>>,
    query: &AskedQuery,
) -> Result<Value, Refusal> {
    let view = services.replica.latest();
    let view = view.map_err(|error| Refusal::unable(error.to_string()))?;
    let plan = match (known, query) {
        (Some(plan), _) => plan,
        (None, AskedQuery::Plan(id) | AskedQuery::Ast(id)) => {
            let ast: Ast =
                serde_json::from_str(id).map_err(|error| Refusal::wrong(not_a_query(&error)))?;
            let plan = Plan::compile(&ast, view.catalog(), &ClientKeys::new());
            Arc::new(plan.map_err(|error| Refusal::wrong(error.to_string()))?)
        }
    };
    if !plan.is_current(view.catalog()) {
        return Err(Refusal::unable("the schema of its tables has just changed"));
    }
    let budget = budget(&services.engine_options, Instant::now());
    let analysis = analyze(&services.replica, &view, &plan, &budget, &mut |_, _| {});
    let analysis = analysis.map_err(Refusal::wrong)?;
    serde_json::to_value(analysis).map_err(|error| Refusal::unable(error.to_string()))
}

fn plan_json(report: &PlanReport) -> Value {
    let costs = report.costs;
    json!({
        "plan": report.plan.id().to_string(),
        "query": query_text(&outline(&report.plan)),
        "subscribers": report.subscribers,
        "rows": report.rows,
        "lastChanged": lsn(report.last_changed),
        "logSince": lsn(report.log_since),
        "logBytes": report.log_bytes,
        "hydrationMs": ms(costs.hydration),
        "hydrationExamined": costs.hydration_examined,
        "advances": costs.advances,
        "advanceMs": ms(costs.advancing),
        "advanceExamined": costs.advance_examined,
        "deltas": costs.deltas,
        "deltaRows": costs.delta_rows,
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A query in one line: each part of it below its parent in brackets.
fn query_text(nodes: &[NodeExplanation]) -> String {
    let mut text = String::new();
    append(&mut text, nodes, 0);
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn append(text: &mut String, nodes: &[NodeExplanation], at: usize) {
    let Some(node) = nodes.get(at) else {
        return;
    };
    text.push_str(&node_text(node));
    let children = (at + 1..nodes.len()).filter(|child| {
        let child = nodes.get(*child);
        child.is_some_and(|child| child.parent == Some(at) && child.role != Role::Query)
    });
    for child in children {
        text.push_str(" [");
        append(text, nodes, child);
        text.push(']');
    }
}

/// How clients that came back were brought up, for `/metrics`.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
pub(crate) fn past_figures(log_bytes: usize, counts: &PastCounts) -> [Figure; 4] {
    [
        (
            "kelvin_delta_log_bytes",
            "gauge",
            "Memory for what commits did to plans",
            log_bytes as f64,
        ),
        (
            "kelvin_catch_up_plans_logged",
            "counter",
            "Plans of returning clients that were followed by their delta log",
            counts.logged as f64,
        ),
        (
            "kelvin_catch_up_plans_recalled",
            "counter",
            "Plans of returning clients whose log was read from the changelog",
            counts.recalled as f64,
        ),
        (
            "kelvin_catch_up_plans_evaluated",
            "counter",
            "Plans of returning clients that were evaluated then and now",
            counts.evaluated as f64,
        ),
    ]
}

/// What plans cost in all, for `/metrics`.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
pub(crate) fn plan_figures(rows: u64, costs: &PlanCosts) -> [Figure; 8] {
    let counter = |name, help, value: u64| (name, "counter", help, value as f64);
    let seconds = |name, help, time: Duration| (name, "counter", help, time.as_secs_f64());
    [
        (
            "kelvin_plan_rows",
            "gauge",
            "Rows in the views of all plans",
            rows as f64,
        ),
        seconds(
            "kelvin_plan_hydration_seconds",
            "Time spent on hydrating plans",
            costs.hydration,
        ),
        counter(
            "kelvin_plan_hydration_examined_rows",
            "Rows examined by hydrations",
            costs.hydration_examined,
        ),
        counter(
            "kelvin_plan_advances",
            "Times a plan was brought from one version to the next",
            costs.advances,
        ),
        seconds(
            "kelvin_plan_advance_seconds",
            "Time spent on that",
            costs.advancing,
        ),
        counter(
            "kelvin_plan_advance_examined_rows",
            "Rows examined by that",
            costs.advance_examined,
        ),
        counter(
            "kelvin_plan_deltas",
            "Times that changed a view",
            costs.deltas,
        ),
        counter(
            "kelvin_plan_delta_rows",
            "Rows that entered, left or changed in views",
            costs.delta_rows,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_one_line_with_its_parts_in_brackets() {
        let node = |parent: Option<usize>, role: &str, table: &str| -> NodeExplanation {
            serde_json::from_value(json!({
                "parent": parent, "role": role, "table": table, "tableRows": 0, "synced": true,
                "rows": 0, "reads": [],
            }))
            .unwrap()
        };
        let mut nodes = vec![
            node(None, "query", "issue"),
            node(Some(0), "related", "comment"),
            node(Some(1), "related", "user"),
            node(Some(0), "exists", "label"),
        ];
        let text = query_text(&nodes);
        assert_eq!(
            text,
            "issue [related comment [related user]] [exists label]"
        );
        nodes[0].condition = Some("x".repeat(2 * SHOWN_CHARS));
        assert_eq!(query_text(&nodes).chars().count(), SHOWN_CHARS + 1);
    }
}
