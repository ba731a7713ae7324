//! What a client is told when an endpoint cannot be used.

use kelvin_protocol::{ErrorBody, ErrorKind, FailureReason, MutationId};

/// Characters of a refusing answer that are shown.
const PREVIEW_CHARS: usize = 512;

/// A call that failed on this side: without a usable answer of the endpoint.
#[derive(Debug)]
pub(super) struct CallFailure {
    reason: FailureReason,
    message: String,
    status: Option<u16>,
    body_preview: Option<String>,
}

impl CallFailure {
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            status: None,
            body_preview: None,
        }
    }

    /// An answer that is not 2xx.
    pub(super) fn http(status: u16, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let mut preview: String = body.chars().take(PREVIEW_CHARS).collect();
        if preview.len() < body.len() {
            preview.push_str("...");
        }
        let message = format!("Fetch from API server returned non-OK status {status}");
        Self {
            status: Some(status),
            body_preview: Some(preview),
            ..Self::new(FailureReason::Http, message)
        }
    }

    fn body(self, kind: ErrorKind) -> ErrorBody {
        ErrorBody {
            reason: Some(self.reason),
            status: self.status,
            body_preview: self.body_preview,
            ..ErrorBody::new(kind, self.message)
        }
    }

    pub(super) fn transform_failed(self, query_ids: Vec<String>) -> ErrorBody {
        ErrorBody {
            query_ids: Some(query_ids),
            ..self.body(ErrorKind::TransformFailed)
        }
    }

    pub(super) fn push_failed(self, mutation_ids: Vec<MutationId>) -> ErrorBody {
        ErrorBody {
            mutation_ids: Some(mutation_ids),
            ..self.body(ErrorKind::PushFailed)
        }
    }
}
