//! Calls of the query endpoint.

use std::sync::Arc;

use bytes::Bytes;
use kelvin_protocol::{Ast, ErrorBody, ErrorKind, ErrorOrigin, ErroredQuery, FailureReason};
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{QueryAnswer, TransformAnswer};
use super::cache::CacheKey;
use super::failure::CallFailure;
use super::{AppApi, Caller};

/// A custom query to be transformed.
#[derive(Clone, Debug, Serialize)]
pub struct QueryCall {
    /// The client's hash of the query; comes back in the answer.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<Box<RawValue>>,
}

/// What became of one query.
#[derive(Clone, Debug)]
pub struct TransformedQuery {
    /// The client's hash of the query.
    pub id: String,
    /// The query in server names, or why there is none.
    pub outcome: Result<Arc<Ast>, ErroredQuery>,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub struct TransformOutcome {
    /// One for each query that was asked, in that order.
    pub queries: Vec<TransformedQuery>,
    /// Whether the endpoint was asked, and so has accepted the caller's credentials.
    pub validated: bool,
}

impl AppApi {
    /// Transforms custom queries on behalf of `caller`. What was answered a moment ago is not asked
    /// again; an empty list always is.
    ///
    /// # Errors
    /// The whole call failed: `TransformFailed`, or `Unauthorized` if the endpoint sees another
    /// user than the caller claims.
    pub async fn transform(
        &self,
        caller: &Caller,
        queries: &[QueryCall],
        traceparent: Option<&str>,
    ) -> Result<TransformOutcome, ErrorBody> {
        let keys: Vec<CacheKey> = queries
            .iter()
            .map(|query| cache_key(caller, query))
            .collect();
        let mut found: Vec<Option<TransformedQuery>> = Vec::with_capacity(queries.len());
        let mut missing = Vec::new();
        for (query, key) in queries.iter().zip(&keys) {
            let cached = self.cache.get(key);
            if cached.is_none() {
                missing.push(query);
            }
            found.push(cached.map(|ast| TransformedQuery {
                id: query.id.clone(),
                outcome: Ok(ast),
            }));
        }
        let validated = !missing.is_empty() || queries.is_empty();
        if validated {
            let mut answers = self.ask(caller, &missing, traceparent).await?;
            for ((slot, query), key) in found.iter_mut().zip(queries).zip(keys) {
                if slot.is_some() {
                    continue;
                }
                let at = answers.iter().position(|answer| answer.id == query.id);
                let transformed = read_query(query, at.map(|at| answers.swap_remove(at)));
                if let Ok(ast) = &transformed.outcome {
                    self.cache.put(key, Arc::clone(ast));
                }
                *slot = Some(transformed);
            }
        }
        Ok(TransformOutcome {
            queries: found.into_iter().flatten().collect(),
            validated,
        })
    }

    /// Asks the endpoint whether it accepts the caller's credentials. Without an endpoint the
    /// caller's word is taken.
    ///
    /// # Errors
    /// As [`transform`](Self::transform).
    pub async fn validate(&self, caller: &Caller) -> Result<(), ErrorBody> {
        if self.query.is_none() {
            return Ok(());
        }
        self.transform(caller, &[], None).await.map(drop)
    }

    async fn ask(
        &self,
        caller: &Caller,
        queries: &[&QueryCall],
        traceparent: Option<&str>,
    ) -> Result<Vec<QueryAnswer>, ErrorBody> {
        let ids = || {
            queries
                .iter()
                .map(|query| query.id.clone())
                .collect::<Vec<_>>()
        };
        let failed = |failure: CallFailure| failure.transform_failed(ids());
        let Some(endpoint) = &self.query else {
            let message = "Custom queries need ZERO_QUERY_URL to be configured";
            return Err(failed(CallFailure::new(FailureReason::Internal, message)));
        };
        let body = serde_json::to_vec(&("transform", queries)).map_err(|error| {
            failed(CallFailure::new(FailureReason::Internal, error.to_string()))
        })?;
        let call = endpoint.call(caller, &caller.query, Bytes::from(body), traceparent);
        let answer = call.await.map_err(failed)?;
        let parsed = TransformAnswer::parse(&answer).map_err(|error| {
            let message = format!("The API server's answer cannot be read: {error}");
            failed(CallFailure::new(FailureReason::Parse, message))
        })?;
        match parsed {
            TransformAnswer::Queries(user, answers) => {
                check_user(caller, user)?;
                Ok(answers)
            }
            TransformAnswer::Failed(body) => Err(complete(*body, ids())),
        }
    }
}

/// The endpoint knows best who the user is.
fn check_user(caller: &Caller, user: Option<Option<String>>) -> Result<(), ErrorBody> {
    match user {
        Some(user) if user != caller.user_id => {
            let message = "The API server sees another user than the connection claims.";
            Err(ErrorBody::new(ErrorKind::Unauthorized, message))
        }
        _ => Ok(()),
    }
}

/// Fills in what clients demand of the body.
fn complete(body: ErrorBody, query_ids: Vec<String>) -> ErrorBody {
    ErrorBody {
        kind: ErrorKind::TransformFailed,
        origin: body.origin.or(Some(ErrorOrigin::Server)),
        reason: body.reason.or(Some(FailureReason::Internal)),
        query_ids: body.query_ids.or(Some(query_ids)),
        ..body
    }
}

fn read_query(query: &QueryCall, answer: Option<QueryAnswer>) -> TransformedQuery {
    let errored = |error, message: Option<String>, details| ErroredQuery {
        error,
        id: query.id.clone(),
        name: query.name.clone(),
        message,
        details,
    };
    let outcome = match answer {
        None => {
            let message = "The API server did not answer this query".to_owned();
            Err(errored("parse", Some(message), None))
        }
        Some(answer) => match (answer.error.as_deref(), answer.ast) {
            (None, Some(ast)) => serde_json::from_str(ast.get())
                .map(Arc::new)
                .map_err(|error| {
                    let message = format!("The API server's query cannot be read: {error}");
                    errored("parse", Some(message), None)
                }),
            (Some("parse"), _) => {
                let message = answer.message.unwrap_or_default();
                Err(errored("parse", Some(message), answer.details))
            }
            // A client that meets any other word gives up for good.
            (Some(_), _) => Err(errored("app", answer.message, answer.details)),
            (None, None) => {
                let message = "The API server answered neither a query nor an error".to_owned();
                Err(errored("parse", Some(message), None))
            }
        },
    };
    TransformedQuery {
        id: query.id.clone(),
        outcome,
    }
}

fn cache_key(caller: &Caller, query: &QueryCall) -> CacheKey {
    let args: Vec<&str> = query.args.iter().map(|arg| arg.get()).collect();
    // Debug output quotes strings, so that no two keys run together.
    let key = format!(
        "{:?}",
        (
            (&caller.user_id, &caller.token, &caller.query),
            (
                &caller.request.cookie,
                &caller.request.origin,
                &caller.request.all
            ),
            (&query.name, args),
        )
    );
    CacheKey(key.into())
}
