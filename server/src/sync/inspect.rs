//! Answers to the client inspector.

use std::sync::Arc;

use kelvin_ivm::{ClientKeys, Plan, PlanId};
use kelvin_protocol::{Ast, Down, Inspect};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::group::Group;
use super::record::{Definition, Desire, GroupRecord, QueryRecord};
use super::registry::Services;
use super::session::SessionId;
use super::transform::deployed_permissions;
use crate::analysis::{SyncedRows, analyze, inspector_result};
use crate::app_api::{Caller, QueryCall};
use crate::auth::Auth;
use crate::engine::{EngineMetrics, PlanReport};
use crate::http::{OutFrame, SocketWriter};
use crate::permissions::{apply_read, bind_static};

/// What the inspector's digests are compressed to; it reads ours whatever their number of entries.
const DIGEST_COMPRESSION: f64 = 1000.0;

/// The first protocol version in which a query's metrics have its hydration as a number.
const HYDRATION_AS_NUMBER: u32 = 51;

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
            "metrics" => ("metrics", metrics(&self.services.engine.metrics())),
            "queries" => return self.list_queries(id, question),
            "analyze-query" => return self.analyze(id, question),
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

    /// Lists the group's queries, with what the engine knows of their plans.
    fn list_queries(&self, id: SessionId, question: &Inspect) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let rows = self.inspected_queries(question.client_id.as_deref());
        let plans = rows.iter().filter_map(|(_, plan)| *plan).collect();
        let (id, writer) = (question.id.clone(), session.writer.clone());
        let (engine, protocol) = (self.services.engine.clone(), session.protocol);
        tokio::spawn(async move {
            let reports = engine.reports_of(plans).await.unwrap_or_default();
            let measured = rows.into_iter().map(|(mut row, plan)| {
                if let Some(report) = plan.and_then(|plan| reports.get(&plan)) {
                    row["rowCount"] = json!(report.rows);
                    row["metrics"] = query_metrics(report, protocol);
                }
                row
            });
            respond(&writer, &id, ("queries", measured.collect()));
        });
    }

    /// A row for each wish for a query, with the plan the query stands for.
    fn inspected_queries(&self, client: Option<&str>) -> Vec<(Json, Option<PlanId>)> {
        let queries = self.record.iter().flat_map(GroupRecord::live_queries);
        let mut rows = Vec::new();
        for (hash, query) in queries {
            let plan = query.current().and_then(|ast| self.compiled.get(ast));
            let plan = plan.map(|plan| plan.id());
            let wanted = |(id, _): &(&String, _)| client.is_none_or(|client| client == id.as_str());
            for (id, desire) in query.desires.iter().filter(wanted) {
                rows.push((inspected_query(id, hash, query, desire), plan));
            }
        }
        rows
    }

    /// Evaluates a query beside the group and says what it read.
    fn analyze(&self, id: SessionId, question: &Inspect) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let asked = Asked {
            ast: question.ast.clone().or_else(|| question.value.clone()),
            named: question.name.clone().zip(question.args.clone()),
            list_rows: wants_rows(question.options.as_ref()),
            keys: self.client_keys(),
            caller: Arc::clone(&session.caller),
            auth: session.auth.clone(),
        };
        let (id, writer) = (question.id.clone(), session.writer.clone());
        let services = Arc::clone(&self.services);
        tokio::spawn(async move {
            let answer = match analyzed(services, asked).await {
                Ok(answer) => ("analyze-query", answer),
                Err(message) => ("error", json!(message)),
            };
            respond(&writer, &id, answer);
        });
    }
}

/// A question about a query.
struct Asked {
    ast: Option<Box<RawValue>>,
    /// Name and arguments of a custom query.
    named: Option<(String, Vec<Box<RawValue>>)>,
    list_rows: bool,
    keys: ClientKeys,
    caller: Arc<Caller>,
    auth: Option<Auth>,
}

/// The query to evaluate.
struct Resolved {
    ast: Ast,
    /// The query in JSON, where permissions were applied.
    after_permissions: Option<String>,
    warnings: Vec<String>,
}

/// Whether rows of the result are to be listed; they are unless the client says no.
fn wants_rows(options: Option<&Json>) -> bool {
    let said = options.and_then(|options| options.get("syncedRows"));
    said.and_then(Json::as_bool).unwrap_or(true)
}

async fn analyzed(services: Arc<Services>, asked: Asked) -> Result<Json, String> {
    let resolved = resolve(&services, &asked).await?;
    let permit = Arc::clone(&services.reading).acquire_owned().await;
    let permit = permit.map_err(|error| error.to_string())?;
    let work = move || {
        let _permit = permit;
        evaluated(&services, resolved, &asked)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
}

/// A custom query comes from the application, which has decided already what its user may see; to
/// an AST the deployed permissions apply, if there are any.
async fn resolve(services: &Services, asked: &Asked) -> Result<Resolved, String> {
    if let Some((name, args)) = &asked.named {
        let call = [QueryCall {
            id: name.clone(),
            name: name.clone(),
            args: args.clone(),
        }];
        if !services.app_api.has_query() {
            return Err("named queries need ZERO_QUERY_URL".into());
        }
        let outcome = services.app_api.transform(&asked.caller, &call, None);
        let outcome = outcome.await.map_err(|body| body.message)?;
        let query = outcome.queries.into_iter().next();
        let query = query.ok_or("the application's endpoint left the query out")?;
        let ast = query.outcome.map_err(|error| {
            let message = error.message;
            message.unwrap_or_else(|| "the application refused the query".into())
        })?;
        return Ok(Resolved {
            ast: (*ast).clone(),
            after_permissions: None,
            warnings: Vec::new(),
        });
    }
    let raw = asked.ast.as_deref();
    let raw = raw.ok_or("analyze-query needs an ast, or a name and args")?;
    let ast: Ast = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let permissions = deployed_permissions(services).map_err(|body| body.message)?;
    let Some(permissions) = permissions else {
        let warning = "no permissions are deployed; none were applied";
        return Ok(Resolved {
            ast: bind_static(ast, None),
            after_permissions: None,
            warnings: vec![warning.into()],
        });
    };
    let claims = asked.auth.as_ref().and_then(Auth::claims);
    let ast = bind_static(apply_read(ast, &permissions), claims);
    let unknown = "no auth data: permission rules compare with null wherever they refer to it";
    Ok(Resolved {
        after_permissions: serde_json::to_string(&ast).ok(),
        ast,
        warnings: claims
            .is_none()
            .then(|| unknown.to_owned())
            .into_iter()
            .collect(),
    })
}

fn evaluated(services: &Services, resolved: Resolved, asked: &Asked) -> Result<Json, String> {
    let view = services.replica.latest();
    let view = view.map_err(|error| error.to_string())?;
    let plan = Plan::compile(&resolved.ast, view.catalog(), &asked.keys);
    let plan = plan.map_err(|error| error.to_string())?;
    let budget = (services.row_reader().budget)();
    let mut rows = asked.list_rows.then(SyncedRows::default);
    let analysis = analyze(
        &services.replica,
        &view,
        &plan,
        &budget,
        &mut |table, row| {
            if let Some(rows) = &mut rows {
                rows.push(view.catalog(), table, row);
            }
        },
    )?;
    let query = resolved.after_permissions.as_deref();
    Ok(inspector_result(&analysis, rows, query, resolved.warnings))
}

fn respond(writer: &SocketWriter, id: &str, (op, value): (&str, Json)) {
    let text = Down::inspect(json!({"id": id, "op": op, "value": value})).to_text();
    let _ = writer.send_all(vec![OutFrame::Text(text.into())]);
}

/// What all queries of the server cost.
fn metrics(engine: &EngineMetrics) -> Json {
    json!({
        "query-materialization-server": digest(engine.hydration_times.lengths()),
        "query-update-server": digest(engine.advance_times.lengths()),
    })
}

/// What one query costs, which others may share.
fn query_metrics(report: &PlanReport, protocol: u32) -> Json {
    let hydration_ms = report.costs.hydration.as_secs_f64() * 1000.0;
    let updates = digest(report.advance_times.lengths());
    if protocol >= HYDRATION_AS_NUMBER {
        json!({"query-hydration-server-ms": hydration_ms, "query-update-server": updates})
    } else {
        let hydration = digest([(hydration_ms, 1)].into_iter());
        json!({"query-materialization-server": hydration, "query-update-server": updates})
    }
}

/// A t-digest as the inspector reads it: its compression, then means and weights in turn.
fn digest(lengths: impl Iterator<Item = (f64, u32)>) -> Vec<f64> {
    let centroids = lengths.flat_map(|(mean, weight)| [mean, f64::from(weight)]);
    std::iter::once(DIGEST_COMPRESSION)
        .chain(centroids)
        .collect()
}

fn inspected_query(client: &str, hash: &str, query: &QueryRecord, desire: &Desire) -> Json {
    let (name, args) = match &query.definition {
        Definition::Custom { name, args } => (json!(name), json!(args)),
        _ => (Json::Null, Json::Null),
    };
    json!({
        "clientID": client,
        "queryID": hash,
        "ast": inspected_ast(query),
        "name": name,
        "args": args,
        "got": query.got.is_some(),
        "deleted": desire.cleared,
        "ttl": desire.ttl_ms,
        "inactivatedAt": desire.inactivated_at_ms,
        "rowCount": 0,
        "metrics": Json::Null,
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
