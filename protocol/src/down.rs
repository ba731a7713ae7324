//! Messages to a client.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::ErrorBody;

/// A message to a client: a JSON array of its type and its body. Poke parts, whose bulk is shared
/// between connections, are assembled by the server and are not here.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Down {
    /// The connection stands.
    Connected(Tagged<Connected>),
    /// Answer to a ping; also sent unasked on an idle connection.
    Pong(Tagged<Empty>),
    /// Something went wrong.
    Error(Tagged<Box<ErrorBody>>),
    /// A poke begins.
    PokeStart(Tagged<PokeStart>),
    /// A poke ends, and is applied at once.
    PokeEnd(Tagged<PokeEnd>),
    /// These clients were forgotten.
    DeleteClients(Tagged<DeletedClients>),
    /// These queries failed, each alone.
    TransformError(Tagged<Vec<ErroredQuery>>),
    /// An answer to the inspector.
    Inspect(Tagged<serde_json::Value>),
}

/// A type and a body.
#[derive(Clone, Debug, Serialize)]
pub struct Tagged<T>(&'static str, T);

/// An empty object.
#[derive(Clone, Debug, Serialize)]
pub struct Empty {}

impl Down {
    /// The connection `wsid` stands; `timestamp` in milliseconds.
    #[must_use]
    pub fn connected(wsid: String, timestamp: u64) -> Self {
        Self::Connected(Tagged("connected", Connected { wsid, timestamp }))
    }

    /// Answer to a ping.
    #[must_use]
    pub fn pong() -> Self {
        Self::Pong(Tagged("pong", Empty {}))
    }

    /// An error.
    #[must_use]
    pub fn error(body: ErrorBody) -> Self {
        Self::Error(Tagged("error", Box::new(body)))
    }

    /// A poke from `base_cookie` begins.
    #[must_use]
    pub fn poke_start(poke_id: String, base_cookie: Option<String>) -> Self {
        Self::PokeStart(Tagged(
            "pokeStart",
            PokeStart {
                poke_id,
                base_cookie,
            },
        ))
    }

    /// A poke to `cookie` ends.
    #[must_use]
    pub fn poke_end(poke_id: String, cookie: String) -> Self {
        Self::PokeEnd(Tagged(
            "pokeEnd",
            PokeEnd {
                poke_id,
                cookie,
                cancel: None,
            },
        ))
    }

    /// These clients were forgotten.
    #[must_use]
    pub fn delete_clients(client_ids: Vec<String>) -> Self {
        Self::DeleteClients(Tagged("deleteClients", DeletedClients { client_ids }))
    }

    /// These queries failed.
    #[must_use]
    pub fn transform_error(queries: Vec<ErroredQuery>) -> Self {
        Self::TransformError(Tagged("transformError", queries))
    }

    /// An answer to the inspector: `{id, op, value}`.
    #[must_use]
    pub fn inspect(answer: serde_json::Value) -> Self {
        Self::Inspect(Tagged("inspect", answer))
    }

    /// The text frame.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Every body is a plain tree of strings, numbers and JSON that was parsed before.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Body of `connected`.
#[derive(Clone, Debug, Serialize)]
pub struct Connected {
    /// The connection's id, as the client chose it.
    pub wsid: String,
    /// Server time, milliseconds since 1970.
    pub timestamp: u64,
}

/// Body of `pokeStart`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PokeStart {
    /// Ties the messages of a poke together.
    #[serde(rename = "pokeID")]
    pub poke_id: String,
    /// The state it starts from; null for none.
    pub base_cookie: Option<String>,
}

/// Body of `pokeEnd`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PokeEnd {
    /// Ties the messages of a poke together.
    #[serde(rename = "pokeID")]
    pub poke_id: String,
    /// The state it leads to.
    pub cookie: String,
    /// Whether to forget the poke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

/// Body of `deleteClients`.
#[derive(Clone, Debug, Serialize)]
pub struct DeletedClients {
    /// Which.
    #[serde(rename = "clientIDs")]
    pub client_ids: Vec<String>,
}

/// A query that failed alone.
#[derive(Clone, Debug, Serialize)]
pub struct ErroredQuery {
    /// `app` or `parse`; anything else is fatal at the client.
    pub error: &'static str,
    /// Hash of the query.
    pub id: String,
    /// Name of the query.
    pub name: String,
    /// For people; required with `parse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whatever the application adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<RawValue>>,
}

/// A change of the desired or got queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueryPatch {
    /// `put` or `del`; `clear` would erase all of a client's state and is never sent.
    pub op: &'static str,
    /// Hash of the query.
    pub hash: String,
}

/// Names a mutation in a [`MutationPatch`].
#[derive(Clone, Debug, Serialize)]
pub struct MutationRef {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The mutation.
    pub id: u64,
}

/// A change of the mutation results.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum MutationPatch {
    /// A result.
    Put {
        /// `put`.
        op: &'static str,
        /// Which, and what.
        mutation: MutationResult,
    },
    /// The result is gone.
    Del {
        /// `del`.
        op: &'static str,
        /// Which.
        id: MutationRef,
    },
}

/// A mutation and its result.
#[derive(Clone, Debug, Serialize)]
pub struct MutationResult {
    /// Which.
    pub id: MutationRef,
    /// As the application's endpoint wrote it.
    pub result: Box<RawValue>,
}

impl MutationPatch {
    /// A result.
    #[must_use]
    pub fn put(id: MutationRef, result: Box<RawValue>) -> Self {
        Self::Put {
            op: "put",
            mutation: MutationResult { id, result },
        }
    }

    /// The result is gone.
    #[must_use]
    pub fn del(id: MutationRef) -> Self {
        Self::Del { op: "del", id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_form_clients_expect() {
        assert_eq!(Down::pong().to_text(), r#"["pong",{}]"#);
        let start = Down::poke_start("p".into(), None).to_text();
        assert_eq!(start, r#"["pokeStart",{"pokeID":"p","baseCookie":null}]"#);
        let end = Down::poke_end("p".into(), "c".into()).to_text();
        assert_eq!(end, r#"["pokeEnd",{"pokeID":"p","cookie":"c"}]"#);
    }
}
