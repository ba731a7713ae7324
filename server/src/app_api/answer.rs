//! Answers of the endpoints, in today's form and in older ones.

use kelvin_protocol::{ErrorBody, ErrorKind, ErrorOrigin, FailureReason, MutationId};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What the query endpoint says of one query.
#[derive(Debug, Deserialize)]
pub(super) struct QueryAnswer {
    pub(super) id: String,
    pub(super) ast: Option<Box<RawValue>>,
    pub(super) error: Option<String>,
    pub(super) message: Option<String>,
    pub(super) details: Option<Box<RawValue>>,
}

/// What the query endpoint says.
#[derive(Debug)]
pub(super) enum TransformAnswer {
    /// The queries; the user, if it says whom it sees.
    Queries(Option<Option<String>>, Vec<QueryAnswer>),
    /// All failed.
    Failed(Box<ErrorBody>),
}

/// What the mutate endpoint says.
#[derive(Debug)]
pub(super) enum PushAnswer {
    /// It took the mutations; the user, if it says whom it sees.
    Accepted(Option<Option<String>>, Vec<MutationAnswer>),
    /// It did not.
    Failed(Box<ErrorBody>),
}

/// What it says of one mutation.
#[derive(Debug, Deserialize)]
pub(super) struct MutationAnswer {
    pub(super) id: MutationId,
    pub(super) result: MutationResult,
}

/// Only its failure matters here: results reach clients by replication.
#[derive(Debug, Deserialize)]
pub(super) struct MutationResult {
    pub(super) error: Option<String>,
}

/// Tells an absent key from a null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    kind: Option<std::borrow::Cow<'a, str>>,
}

impl TransformAnswer {
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Current {
            #[serde(default, rename = "userID", deserialize_with = "present")]
            user_id: Option<Option<String>>,
            queries: Vec<QueryAnswer>,
        }
        if body.trim_ascii_start().starts_with(b"[") {
            let (kind, body): (String, Box<RawValue>) = serde_json::from_slice(body)?;
            return match kind.as_str() {
                "transformed" => Ok(Self::Queries(None, serde_json::from_str(body.get())?)),
                "transformFailed" => Ok(Self::Failed(serde_json::from_str(body.get())?)),
                _ => Err(serde::de::Error::custom(
                    "neither transformed nor transformFailed",
                )),
            };
        }
        let Kind { kind } = serde_json::from_slice(body)?;
        match kind.as_deref() {
            Some("QueryResponse") => {
                let current: Current = serde_json::from_slice(body)?;
                Ok(Self::Queries(current.user_id, current.queries))
            }
            Some("TransformFailed") => Ok(Self::Failed(serde_json::from_slice(body)?)),
            _ => Err(serde::de::Error::custom("the kind is not QueryResponse")),
        }
    }
}

impl PushAnswer {
    /// `ids` are the mutations that were pushed: older forms do not name them.
    pub(super) fn parse(body: &[u8], ids: &[MutationId]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Accepted {
            #[serde(default, rename = "userID", deserialize_with = "present")]
            user_id: Option<Option<String>>,
            mutations: Vec<MutationAnswer>,
        }
        #[derive(Deserialize)]
        struct Legacy {
            #[serde(default)]
            error: Option<String>,
        }
        let Kind { kind } = serde_json::from_slice(body)?;
        if kind.as_deref() == Some("PushFailed") {
            return Ok(Self::Failed(serde_json::from_slice(body)?));
        }
        let legacy: Legacy = serde_json::from_slice(body)?;
        if legacy.error.is_some() {
            return Ok(Self::Failed(Box::new(legacy_failure(body, ids)?)));
        }
        let accepted: Accepted = serde_json::from_slice(body)?;
        Ok(Self::Accepted(accepted.user_id, accepted.mutations))
    }
}

/// An error object as older application libraries send it.
fn legacy_failure(body: &[u8], ids: &[MutationId]) -> Result<ErrorBody, serde_json::Error> {
    #[derive(Deserialize)]
    struct Legacy {
        error: String,
        status: Option<u16>,
        details: Option<Box<RawValue>>,
        #[serde(rename = "mutationIDs")]
        mutation_ids: Option<Vec<MutationId>>,
    }
    let legacy: Legacy = serde_json::from_slice(body)?;
    let details: Option<String> = legacy
        .details
        .as_deref()
        .map(|details| serde_json::from_str(details.get()).unwrap_or(details.get().to_owned()));
    let (origin, reason, message) = match legacy.error.as_str() {
        "http" => {
            let status = legacy.status.unwrap_or(500);
            let message = format!("Fetch from API server returned non-OK status {status}");
            (ErrorOrigin::ZeroCache, FailureReason::Http, message)
        }
        "unsupportedPushVersion" => {
            let message = "The API server does not support this push version".to_owned();
            (
                ErrorOrigin::Server,
                FailureReason::UnsupportedPushVersion,
                message,
            )
        }
        "unsupportedSchemaVersion" => {
            let message = "The API server does not support this schema version".to_owned();
            (ErrorOrigin::Server, FailureReason::Internal, message)
        }
        other => {
            let message = details
                .clone()
                .unwrap_or_else(|| format!("The push failed: {other}"));
            (ErrorOrigin::Server, FailureReason::Internal, message)
        }
    };
    let is_http = reason == FailureReason::Http;
    Ok(ErrorBody {
        origin: Some(origin),
        reason: Some(reason),
        status: is_http.then_some(legacy.status.unwrap_or(500)),
        body_preview: details.filter(|_| is_http),
        mutation_ids: Some(legacy.mutation_ids.unwrap_or_else(|| ids.to_vec())),
        ..ErrorBody::new(ErrorKind::PushFailed, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_user_is_not_a_null_user() {
        let user = |json: &str| match TransformAnswer::parse(json.as_bytes()).unwrap() {
            TransformAnswer::Queries(user, _) => user,
            TransformAnswer::Failed(_) => panic!("{json}"),
        };
        assert_eq!(user(r#"{"kind":"QueryResponse","queries":[]}"#), None);
        assert_eq!(
            user(r#"{"kind":"QueryResponse","userID":null,"queries":[]}"#),
            Some(None)
        );
        let known = user(r#"{"kind":"QueryResponse","userID":"u","queries":[],"more":1}"#);
        assert_eq!(known, Some(Some("u".into())));
    }

    #[test]
    fn older_forms_of_a_transform_are_understood() {
        let json = br#" ["transformed",[{"id":"h","name":"n","ast":{"table":"t"}}]]"#;
        let answer = TransformAnswer::parse(json).unwrap();
        assert!(matches!(answer, TransformAnswer::Queries(None, queries) if queries.len() == 1));
        let failed = r#"{"kind":"TransformFailed","origin":"server","reason":"internal","message":"m","queryIDs":[]}"#;
        let wrapped = format!(r#"["transformFailed",{failed}]"#);
        for json in [failed, &wrapped] {
            let answer = TransformAnswer::parse(json.as_bytes()).unwrap();
            assert!(matches!(answer, TransformAnswer::Failed(_)));
        }
        for json in [
            "",
            "[]",
            "{}",
            r#"["x",[]]"#,
            r#"{"kind":"QueryResponse"}"#,
            "5",
        ] {
            assert!(TransformAnswer::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn older_forms_of_a_push_are_understood() {
        let ids = [MutationId {
            id: 1,
            client_id: "c".into(),
        }];
        let parse = |json: &str| PushAnswer::parse(json.as_bytes(), &ids);
        let accepted = r#"{"mutations":[{"id":{"id":1,"clientID":"c"},"result":{"error":"app"}}]}"#;
        assert!(
            matches!(parse(accepted), Ok(PushAnswer::Accepted(None, mutations))
            if mutations[0].result.error.as_deref() == Some("app"))
        );
        for (json, reason, status) in [
            (
                r#"{"error":"http","status":403,"details":"no"}"#,
                FailureReason::Http,
                Some(403),
            ),
            (
                r#"{"error":"unsupportedPushVersion"}"#,
                FailureReason::UnsupportedPushVersion,
                None,
            ),
            (
                r#"{"error":"zeroPusher","details":"x"}"#,
                FailureReason::Internal,
                None,
            ),
        ] {
            let Ok(PushAnswer::Failed(body)) = parse(json) else {
                panic!("{json}");
            };
            assert_eq!((body.reason, body.status), (Some(reason), status));
            assert_eq!(body.mutation_ids.as_deref(), Some(&ids[..]));
        }
        for json in ["", "[]", "{}", r#"{"kind":"MutateResponse"}"#] {
            assert!(parse(json).is_err(), "{json}");
        }
    }
}
