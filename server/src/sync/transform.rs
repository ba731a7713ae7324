//! From what a client asked for to what is run: permissions, credentials, the application's
//! endpoint.

use std::sync::Arc;

use kelvin_protocol::{Ast, ErrorBody, ErrorKind, ErroredQuery, Value, ValueRef};
use serde_json::value::RawValue;

use super::record::Definition;
use super::registry::Services;
use super::session::SessionId;
use crate::app_api::{Caller, QueryCall, TransformedQuery};
use crate::auth::Auth;
use crate::permissions::{Permissions, apply_read, bind_static};

/// Which queries of a group to transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those without a plan.
    Missing,
    /// The custom ones.
    Custom,
    /// The client-defined ones.
    Client,
}

/// Queries to transform with the credentials of a session.
pub struct Job {
    /// The session.
    pub session: SessionId,
    /// State of its credentials.
    pub revision: u64,
    /// By hash.
    pub queries: Vec<(String, Definition)>,
    /// What the endpoint is told about the session.
    pub caller: Arc<Caller>,
    /// Its credentials.
    pub auth: Option<Auth>,
}

/// Answer to a [`Job`].
pub struct Transformed {
    /// Whose credentials it used.
    pub session: SessionId,
    /// State of these credentials then.
    pub revision: u64,
    /// The queries, or why nothing was transformed.
    pub result: Result<Vec<Answer>, ErrorBody>,
}

/// One transformed query.
pub struct Answer {
    /// Its hash.
    pub hash: String,
    /// The AST to run, or the query's own error.
    pub ast: Result<Arc<str>, ErroredQuery>,
}

/// Transforms queries.
pub async fn transform(services: &Services, job: Job) -> Transformed {
    let mut answers = Vec::new();
    let mut requests = Vec::new();
    let permissions = match load_permissions(services) {
        Ok(permissions) => permissions,
        Err(body) => {
            return Transformed {
                session: job.session,
                revision: job.revision,
                result: Err(body),
            };
        }
    };
    for (hash, definition) in job.queries {
        match definition {
            Definition::Internal(ast) => answers.push(Answer { hash, ast: Ok(ast) }),
            Definition::Client(ast) => {
                let ast = client_query(&hash, &ast, &permissions, job.auth.as_ref());
                answers.push(Answer { hash, ast });
            }
            Definition::Custom { name, args } => {
                requests.push(QueryCall {
                    id: hash,
                    name,
                    args,
                });
            }
        }
    }
    let result = custom_queries(services, &job.caller, requests).await;
    let result = result.map(|custom| {
        answers.extend(custom);
        answers
    });
    Transformed {
        session: job.session,
        revision: job.revision,
        result,
    }
}

async fn custom_queries(
    services: &Services,
    caller: &Caller,
    requests: Vec<QueryCall>,
) -> Result<Vec<Answer>, ErrorBody> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    if !services.app_api.has_query() {
        tracing::warn!(
            "a client asked for custom queries, but ZERO_QUERY_URL is not set; they get no answer"
        );
        return Ok(Vec::new());
    }
    let outcome = services.app_api.transform(caller, &requests, None).await?;
    Ok(outcome.queries.into_iter().map(custom_answer).collect())
}

fn custom_answer(query: TransformedQuery) -> Answer {
    let (id, name) = (query.id.clone(), String::from("query"));
    let ast = query.outcome.and_then(|ast| {
        serde_json::to_string(&*ast)
            .map(Arc::from)
            .map_err(|error| ErroredQuery {
                error: "parse",
                id,
                name,
                message: Some(error.to_string()),
                details: None,
            })
    });
    Answer {
        hash: query.id,
        ast,
    }
}

/// A client-defined query under the application's read permissions, its parameters bound.
fn client_query(
    hash: &str,
    ast: &RawValue,
    permissions: &Permissions,
    auth: Option<&Auth>,
) -> Result<Arc<str>, ErroredQuery> {
    let error = |message: String| ErroredQuery {
        error: "app",
        id: hash.to_owned(),
        name: "query".to_owned(),
        message: Some(message),
        details: None,
    };
    let parsed: Ast = serde_json::from_str(ast.get()).map_err(|e| error(e.to_string()))?;
    let bound = bind_static(apply_read(parsed, permissions), auth.and_then(Auth::claims));
    serde_json::to_string(&bound)
        .map(Into::into)
        .map_err(|e| error(e.to_string()))
}

/// The application's permissions as they stand in the replica; where there are none, nobody may see
/// anything.
fn load_permissions(services: &Services) -> Result<Permissions, ErrorBody> {
    Ok(deployed_permissions(services)?.unwrap_or_default())
}

/// The application's permissions, if any were deployed.
pub(super) fn deployed_permissions(services: &Services) -> Result<Option<Permissions>, ErrorBody> {
    let internal = |message: String| ErrorBody::new(ErrorKind::Internal, message);
    let unreadable = |error: kelvin_storage::Error| internal(error.to_string());
    let view = services.replica.latest().map_err(unreadable)?;
    let table = view
        .catalog()
        .table(&format!("{}.permissions", services.app_id))
        .cloned();
    let row = match &table {
        Some(table) => view
            .get(table.id, &[Value::from(true)])
            .map_err(unreadable)?,
        None => None,
    };
    let column = table.and_then(|table| table.column("permissions"));
    let text = match (&row, column) {
        (Some(row), Some(at)) => match row.value(at) {
            ValueRef::Json(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    if text.is_none() {
        return Ok(None);
    }
    Permissions::parse(text)
        .map(Some)
        .map_err(|error| internal(format!("the deployed permissions are not valid: {error}")))
}
