//! Calls of the mutate endpoint.

use bytes::Bytes;
use kelvin_protocol::{
    ErrorBody, ErrorKind, ErrorOrigin, FailureReason, Mutation, MutationId, MutationKind, PushBody,
};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::answer::PushAnswer;
use super::failure::CallFailure;
use super::{AppApi, Caller};

/// Name of the mutator that removes results.
const CLEANUP: &str = "_zero_cleanupResults";

/// The endpoint took a push.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PushAccepted {
    /// Mutations it found out of order, said in the older way: their clients have to be failed.
    pub out_of_order: Vec<MutationId>,
}

/// Which mutation results to remove.
#[derive(Clone, Debug, Serialize)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum CleanupArg {
    /// Those of one client, which has seen them.
    Single {
        /// Its group.
        #[serde(rename = "clientGroupID")]
        client_group_id: String,
        /// The client.
        #[serde(rename = "clientID")]
        client_id: String,
        /// The last one it has seen.
        #[serde(rename = "upToMutationID")]
        up_to_mutation_id: u64,
    },
    /// Those of clients that are gone.
    Bulk {
        /// Their group.
        #[serde(rename = "clientGroupID")]
        client_group_id: String,
        /// The clients; at least one.
        #[serde(rename = "clientIDs")]
        client_ids: Vec<String>,
    },
}

impl AppApi {
    /// Hands mutations to the application on behalf of `caller`. Success says nothing to clients:
    /// results reach them by replication.
    ///
    /// # Errors
    /// `PushFailed`, naming the mutations concerned.
    pub async fn push(&self, caller: &Caller, body: &PushBody) -> Result<PushAccepted, ErrorBody> {
        let ids: Vec<MutationId> = body.mutations.iter().map(Mutation::mutation_id).collect();
        let failed = |failure: CallFailure| failure.push_failed(ids.clone());
        let Some(endpoint) = &self.mutate else {
            let message = "Custom mutations need ZERO_MUTATE_URL to be configured";
            return Err(failed(CallFailure::new(FailureReason::Internal, message)));
        };
        let json = serde_json::to_vec(body).map_err(|error| {
            failed(CallFailure::new(FailureReason::Internal, error.to_string()))
        })?;
        let traceparent = body.traceparent.as_deref();
        let call = endpoint.call(caller, &caller.mutate, Bytes::from(json), traceparent);
        let answer = call.await.map_err(failed)?;
        let parsed = PushAnswer::parse(&answer, &ids).map_err(|error| {
            let message = format!("The API server's answer cannot be read: {error}");
            failed(CallFailure::new(FailureReason::Parse, message))
        })?;
        match parsed {
            PushAnswer::Failed(body) => Err(complete(*body, ids)),
            PushAnswer::Accepted(user, _)
                if user.as_ref().is_some_and(|u| *u != caller.user_id) =>
            {
                let message = "The API server sees another user than the connection claims.";
                Err(failed(CallFailure::http(401, message.as_bytes())))
            }
            PushAnswer::Accepted(_, answers) => {
                let mut out_of_order = Vec::new();
                for answer in answers {
                    match answer.result.error.as_deref() {
                        Some("oooMutation") => out_of_order.push(answer.id),
                        Some(error) => {
                            tracing::debug!(error, id = ?answer.id, "a mutation failed");
                        }
                        None => {}
                    }
                }
                Ok(PushAccepted { out_of_order })
            }
        }
    }

    /// Asks the application to remove mutation results that nobody needs any more. Fire and forget:
    /// a failure is logged, and what is left over is removed with the next call.
    pub async fn clean_up(&self, caller: &Caller, arg: &CleanupArg, now_ms: f64) {
        let Some(endpoint) = &self.mutate else {
            return;
        };
        let Some(body) = cleanup_body(arg, now_ms) else {
            return;
        };
        let call = endpoint.call(caller, &caller.mutate, Bytes::from(body), None);
        if let Err(failure) = call.await {
            tracing::info!(?failure, "mutation results could not be removed");
        }
    }
}

fn cleanup_body(arg: &CleanupArg, now_ms: f64) -> Option<Vec<u8>> {
    let (client_group_id, client_id) = match arg {
        CleanupArg::Single {
            client_group_id,
            client_id,
            ..
        } => (client_group_id, client_id),
        CleanupArg::Bulk {
            client_group_id,
            client_ids,
        } => (client_group_id, client_ids.first()?),
    };
    let mutation = Mutation {
        kind: MutationKind::Custom,
        id: 0,
        client_id: client_id.clone(),
        name: CLEANUP.to_owned(),
        args: vec![to_raw_value(arg).ok()?],
        timestamp: now_ms,
    };
    let body = PushBody {
        client_group_id: client_group_id.clone(),
        mutations: vec![mutation],
        push_version: 1.0,
        schema_version: None,
        timestamp: now_ms,
        request_id: format!("cleanup-{client_group_id}-{client_id}-{now_ms}"),
        traceparent: None,
    };
    serde_json::to_vec(&body).ok()
}

/// Fills in what clients demand of the body.
fn complete(body: ErrorBody, mutation_ids: Vec<MutationId>) -> ErrorBody {
    ErrorBody {
        kind: ErrorKind::PushFailed,
        origin: body.origin.or(Some(ErrorOrigin::Server)),
        reason: body.reason.or(Some(FailureReason::Internal)),
        mutation_ids: body.mutation_ids.or(Some(mutation_ids)),
        ..body
    }
}
