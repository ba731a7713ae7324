//! Errors as a client sees them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Kind of an error message. A client that meets an unknown kind gives up for good, so no kind is
/// added lightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are the protocol's; the reactions are the client's"
)]
pub enum ErrorKind {
    AuthInvalidated,
    ClientNotFound,
    InvalidConnectionRequest,
    InvalidConnectionRequestBaseCookie,
    InvalidConnectionRequestLastMutationID,
    InvalidConnectionRequestClientDeleted,
    InvalidMessage,
    InvalidPush,
    PushFailed,
    MutationFailed,
    MutationRateLimited,
    Rebalance,
    Rehome,
    TransformFailed,
    Unauthorized,
    VersionNotSupported,
    SchemaVersionNotSupported,
    ServerOverloaded,
    Internal,
}

/// Who made the error. A client cannot classify an error without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorOrigin {
    /// The application's own endpoint.
    Server,
    /// The sync server.
    ZeroCache,
}

/// Why a push or a query transformation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum FailureReason {
    Database,
    Parse,
    OooMutation,
    UnsupportedPushVersion,
    Internal,
    Http,
    Timeout,
}

/// Names one mutation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MutationId {
    /// Consecutive from 1 for each client.
    pub id: u64,
    /// The client that made it.
    #[serde(rename = "clientID")]
    pub client_id: String,
}

/// Body of an `error` message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What kind.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// Who made it; always there in what this server sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ErrorOrigin>,
    /// Reconnect no sooner, milliseconds. Only with the back-off kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_backoff_ms: Option<u64>,
    /// Reconnect no later, milliseconds. Only with the back-off kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff_ms: Option<u64>,
    /// Why. Only with `PushFailed` and `TransformFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// HTTP status, with reason `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Beginning of the HTTP body, with reason `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_preview: Option<String>,
    /// Whatever the application adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<RawValue>>,
    /// The mutations concerned. Only with `PushFailed`.
    #[serde(
        default,
        rename = "mutationIDs",
        skip_serializing_if = "Option::is_none"
    )]
    pub mutation_ids: Option<Vec<MutationId>>,
    /// The queries concerned. Only with `TransformFailed`.
    #[serde(default, rename = "queryIDs", skip_serializing_if = "Option::is_none")]
    pub query_ids: Option<Vec<String>>,
}

impl ErrorBody {
    /// An error of this server without further fields.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            origin: Some(ErrorOrigin::ZeroCache),
            min_backoff_ms: None,
            max_backoff_ms: None,
            reason: None,
            status: None,
            body_preview: None,
            details: None,
            mutation_ids: None,
            query_ids: None,
        }
    }

    /// Asks the client to reconnect, no later than after `max_backoff_ms` milliseconds.
    #[must_use]
    pub fn rehome(message: impl Into<String>, max_backoff_ms: u64) -> Self {
        let body = Self::new(ErrorKind::Rehome, message);
        Self {
            max_backoff_ms: Some(max_backoff_ms),
            ..body
        }
    }

    /// Whether the client has to come back with other credentials.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        match self.kind {
            ErrorKind::AuthInvalidated | ErrorKind::Unauthorized => true,
            ErrorKind::PushFailed | ErrorKind::TransformFailed => {
                matches!(self.status, Some(401 | 403))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_are_absent_never_null() {
        let text = serde_json::to_string(&ErrorBody::rehome("Reconnect required", 0)).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"Rehome","message":"Reconnect required","origin":"zeroCache","maxBackoffMs":0}"#
        );
    }
}
