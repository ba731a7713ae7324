//! Answers to the client inspector.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use kelvin_ivm::{ClientKeys, Plan, evaluate};
use kelvin_protocol::{Ast, Down, Inspect};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::group::Group;
use super::record::{Definition, QueryRecord};
use super::registry::Services;
use super::session::SessionId;
use crate::http::{OutFrame, SocketWriter};

/// An empty digest, as the inspector reads it.
const EMPTY_DIGEST: [u32; 1] = [1000];

impl Group {
    /// Answers a question of the inspector.
    pub(super) fn inspect(&mut self, id: SessionId, question: &Inspect) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let open = self.inspector_open;
        let (op, value) = match question.op.as_str() {
            "authenticate" => {
                let password = question.value.as_deref().map(RawValue::get);
                let password = password.and_then(|raw| serde_json::from_str::<String>(raw).ok());
                let granted = open || self.password_matches(password.as_deref());
                let answer = ("authenticated", json!(granted));
                let writer = session.writer.clone();
                self.inspector_open |= granted;
                return respond(&writer, &question.id, answer);
            }
            _ if !open => ("authenticated", json!(false)),
            "version" => ("version", json!(self.services.server_version)),
            "metrics" => ("metrics", metrics()),
            "queries" => (
                "queries",
                self.inspected_queries(question.client_id.as_deref()),
            ),
            "analyze-query" => return self.analyze(session.writer.clone(), question),
            other => (
                "error",
                json!(format!("the server does not know the operation {other:?}")),
            ),
        };
        respond(&session.writer, &question.id, (op, value));
    }

    fn password_matches(&self, given: Option<&str>) -> bool {
        self.services.admin.allows(given)
    }

    fn inspected_queries(&self, client: Option<&str>) -> Json {
        let Some(record) = &self.record else {
            return json!([]);
        };
        let mut rows = Vec::new();
        for (hash, query) in record.live_queries() {
            let wanted = |(id, _): &(&String, _)| client.is_none_or(|client| client == id.as_str());
            for (id, desire) in query.desires.iter().filter(wanted) {
                rows.push(json!({
                    "clientID": id,
                    "queryID": hash,
                    "ast": inspected_ast(query),
                    "name": match &query.definition {
                        Definition::Custom { name, .. } => json!(name),
                        _ => Json::Null,
                    },
                    "args": match &query.definition {
                        Definition::Custom { args, .. } => json!(args),
                        _ => Json::Null,
                    },
                    "got": query.got.is_some(),
                    "deleted": desire.cleared,
                    "ttl": desire.ttl_ms,
                    "inactivatedAt": desire.inactivated_at_ms,
                    "rowCount": 0,
                    "metrics": Json::Null,
                }));
            }
        }
        Json::Array(rows)
    }

    /// Evaluates a query beside the group and says what it read.
    fn analyze(&self, writer: SocketWriter, question: &Inspect) {
        let id = question.id.clone();
        let raw = question.ast.clone().or_else(|| question.value.clone());
        let keys = self.client_keys();
        let services = Arc::clone(&self.services);
        tokio::task::spawn_blocking(move || {
            let answer = match analyze(&services, raw.as_deref(), &keys) {
                Ok(answer) => ("analyze-query", answer),
                Err(message) => ("error", json!(message)),
            };
            respond(&writer, &id, answer);
        });
    }
}

fn analyze(services: &Services, raw: Option<&RawValue>, keys: &ClientKeys) -> Result<Json, String> {
    let Some(raw) = raw else {
        return Err("analyze-query needs an ast; named queries are not supported yet".into());
    };
    let ast: Ast = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let view = services
        .replica
        .latest()
        .map_err(|error| error.to_string())?;
    let plan = Plan::compile(&ast, view.catalog(), keys).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut count = 0_u64;
    let budget = (services.row_reader().budget)();
    evaluate(&plan, &view, &budget, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    let elapsed = started.elapsed().as_secs_f64() * 1000.0;
    Ok(json!({
        "warnings": [], "syncedRowCount": count, "start": 0, "end": elapsed, "elapsed": elapsed,
    }))
}

fn respond(writer: &SocketWriter, id: &str, (op, value): (&str, Json)) {
    let text = Down::inspect(json!({"id": id, "op": op, "value": value})).to_text();
    let _ = writer.send_all(vec![OutFrame::Text(text.into())]);
}

fn metrics() -> Json {
    json!({
        "query-materialization-server": EMPTY_DIGEST,
        "query-update-server": EMPTY_DIGEST,
    })
}

fn inspected_ast(query: &QueryRecord) -> Json {
    match &query.definition {
        Definition::Client(raw) => serde_json::from_str(raw.get()).unwrap_or(Json::Null),
        _ => query
            .current()
            .and_then(|ast| serde_json::from_str(ast).ok())
            .unwrap_or(Json::Null),
    }
}
