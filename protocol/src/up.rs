//! Messages from a client.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client_schema::ClientSchema;
use crate::mutation::PushBody;

/// A message from a client: a JSON array of its type and its body.
///
/// Unknown keys are ignored, so that older clients of every accepted version get through.
#[derive(Clone, Debug)]
pub enum Up {
    /// First message of a connection.
    InitConnection(Box<InitConnection>),
    /// Is the server there?
    Ping,
    /// Forget other clients of the group.
    DeleteClients(DeleteClients),
    /// Queries to add and to drop.
    ChangeDesiredQueries(ChangeDesiredQueries),
    /// Mutation recovery; not used by Zero clients.
    Pull,
    /// New credentials.
    UpdateAuth(UpdateAuth),
    /// Mutations.
    Push(PushBody),
    /// Deprecated.
    CloseConnection,
    /// A question of the inspector.
    Inspect(Inspect),
    /// Mutation results that were consumed.
    AckMutationResponses(AckMutationResponses),
}

impl Up {
    /// Reads one text frame.
    ///
    /// # Errors
    /// What is wrong with it, for the client's developer.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let (kind, body): (String, Box<RawValue>) = parse_pair(text)?;
        let body = body.get();
        Ok(match kind.as_str() {
            "initConnection" => Self::InitConnection(serde_json::from_str(body)?),
            "ping" => Self::Ping,
            "deleteClients" => Self::DeleteClients(serde_json::from_str(body)?),
            "changeDesiredQueries" => Self::ChangeDesiredQueries(serde_json::from_str(body)?),
            "pull" => Self::Pull,
            "updateAuth" => Self::UpdateAuth(serde_json::from_str(body)?),
            "push" => Self::Push(serde_json::from_str(body)?),
            "closeConnection" => Self::CloseConnection,
            "inspect" => Self::Inspect(serde_json::from_str(body)?),
            "ackMutationResponses" => Self::AckMutationResponses(serde_json::from_str(body)?),
            other => {
                let shown: String = other.chars().take(64).collect();
                let message = format!("unknown message type {shown:?}");
                return Err(serde::de::Error::custom(message));
            }
        })
    }
}

fn parse_pair(text: &str) -> Result<(String, Box<RawValue>), serde_json::Error> {
    let parts: Vec<Box<RawValue>> = serde_json::from_str(text)?;
    let [kind, body]: [Box<RawValue>; 2] = parts
        .try_into()
        .map_err(|_| serde::de::Error::custom("a message is an array of a type and a body"))?;
    Ok((serde_json::from_str(kind.get())?, body))
}

/// Body of `initConnection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitConnection {
    /// Queries to add and to drop.
    pub desired_queries_patch: Vec<UpQueryOp>,
    /// Sent by a client that has no cookie.
    pub client_schema: Option<ClientSchema>,
    /// Clients the sender wants to be forgotten.
    pub deleted: Option<DeleteClients>,
    /// Overrides the push endpoint.
    #[serde(rename = "userPushURL")]
    pub user_push_url: Option<String>,
    /// Headers for the push endpoint.
    pub user_push_headers: Option<BTreeMap<String, String>>,
    /// Overrides the query endpoint.
    #[serde(rename = "userQueryURL")]
    pub user_query_url: Option<String>,
    /// Headers for the query endpoint.
    pub user_query_headers: Option<BTreeMap<String, String>>,
    /// The group's live clients; all others are forgotten.
    pub active_clients: Option<Vec<String>>,
}

/// One change of a client's desired queries.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "FlatQueryOp")]
pub enum UpQueryOp {
    /// Wants a query.
    Put {
        /// Names the query within the group.
        hash: String,
        /// How long to keep it after nobody wants it, milliseconds.
        ttl: Option<f64>,
        /// A client-defined query. Kept as text, so that it is stored as it came.
        ast: Option<Box<RawValue>>,
        /// Name of a query the application's endpoint knows.
        name: Option<String>,
        /// Its arguments.
        args: Option<Vec<Box<RawValue>>>,
    },
    /// Wants a query no more.
    Del {
        /// Which.
        hash: String,
    },
    /// Wants nothing.
    Clear,
}

/// All fields of all operations: an enum tagged inside cannot carry raw JSON.
#[derive(Deserialize)]
struct FlatQueryOp {
    op: String,
    hash: Option<String>,
    ttl: Option<f64>,
    ast: Option<Box<RawValue>>,
    name: Option<String>,
    args: Option<Vec<Box<RawValue>>>,
}

impl TryFrom<FlatQueryOp> for UpQueryOp {
    type Error = &'static str;

    fn try_from(flat: FlatQueryOp) -> Result<Self, Self::Error> {
        let hash = flat.hash.ok_or("a query operation needs a hash");
        match flat.op.as_str() {
            "put" => Ok(Self::Put {
                hash: hash?,
                ttl: flat.ttl,
                ast: flat.ast,
                name: flat.name,
                args: flat.args,
            }),
            "del" => Ok(Self::Del { hash: hash? }),
            "clear" => Ok(Self::Clear),
            _ => Err("a query operation is put, del or clear"),
        }
    }
}

/// Body of `changeDesiredQueries`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeDesiredQueries {
    /// Queries to add and to drop.
    pub desired_queries_patch: Vec<UpQueryOp>,
}

/// Body of `deleteClients`. Group ids in it are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DeleteClients {
    /// Clients of the sender's group.
    #[serde(default, rename = "clientIDs")]
    pub client_ids: Option<Vec<String>>,
}

/// Body of `updateAuth`.
#[derive(Clone, Debug, Deserialize)]
pub struct UpdateAuth {
    /// The new token.
    pub auth: String,
}

/// Body of `inspect`.
#[derive(Clone, Debug, Deserialize)]
pub struct Inspect {
    /// Correlates the answer.
    pub id: String,
    /// What is asked.
    pub op: String,
    /// Password of `authenticate`; deprecated AST of `analyze-query`.
    pub value: Option<Box<RawValue>>,
    /// Only this client's queries.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// AST of `analyze-query`.
    pub ast: Option<Box<RawValue>>,
    /// Name of the query of `analyze-query`.
    pub name: Option<String>,
    /// Its arguments.
    pub args: Option<Vec<Box<RawValue>>>,
    /// Options of `analyze-query`.
    pub options: Option<serde_json::Value>,
}

/// Body of `ackMutationResponses`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AckMutationResponses {
    /// The client whose mutations they were.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The last of them.
    pub id: u64,
}

/// What a client puts into the `Sec-WebSocket-Protocol` header.
#[derive(Clone, Debug, Default)]
pub struct InitPayload {
    /// Its first message, if it was short enough; or what is wrong with it, to be answered as if it
    /// had come in a frame.
    pub init: Option<Result<InitConnection, String>>,
    /// Its token, if it has one.
    pub auth_token: Option<String>,
}

impl InitPayload {
    /// Decodes the header: percent-encoded base64 of a JSON object.
    ///
    /// # Errors
    /// One sentence that says which step failed.
    pub fn decode(header: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            init_connection_message: Option<Box<RawValue>>,
            auth_token: Option<String>,
        }
        let base64 = percent_decode(header)?;
        let json = STANDARD
            .decode(base64)
            .map_err(|error| format!("the subprotocol is not base64: {error}"))?;
        let raw: Raw = serde_json::from_slice(&json)
            .map_err(|error| format!("the subprotocol holds no JSON object: {error}"))?;
        let init = raw
            .init_connection_message
            .map(|text| match Up::parse(text.get()) {
                Ok(Up::InitConnection(init)) => Ok(*init),
                Ok(_) => Err("the subprotocol holds no initConnection".to_owned()),
                Err(error) => Err(format!("invalid initConnection: {error}")),
            });
        Ok(Self {
            init,
            auth_token: raw.auth_token.filter(|token| !token.is_empty()),
        })
    }
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            decoded.push(bytes[at]);
            at += 1;
            continue;
        }
        let hex = text
            .get(at + 1..at + 3)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(byte.ok_or("the subprotocol has a bad percent escape")?);
        at += 3;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_client_is_understood() {
        let header = "eyJpbml0Q29ubmVjdGlvbk1lc3NhZ2UiOlsiaW5pdENvbm5lY3Rpb24iLHsiZGVzaXJlZFF1ZXJpZXNQYXRjaCI6W119XSwiYXV0aFRva2VuIjoidG9rIn0%3D";
        let payload = InitPayload::decode(header).unwrap();
        assert_eq!(payload.auth_token.as_deref(), Some("tok"));
        let init = payload.init.unwrap().unwrap();
        assert!(init.desired_queries_patch.is_empty());
        assert!(InitPayload::decode("e30%3D").unwrap().init.is_none());
    }

    #[test]
    fn malformed_headers_and_messages_are_errors() {
        for header in ["%", "%zz", "!!!", "e30", "W10=", "bnVsbA=="] {
            assert!(InitPayload::decode(header).is_err(), "{header}");
        }
        for text in [
            "",
            "[]",
            "{}",
            "[1]",
            r#"["nope",{}]"#,
            r#"["push"]"#,
            r#"["ping"]"#,
            r#"["ping",{},1]"#,
        ] {
            assert!(Up::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_keys_of_older_clients_are_ignored() {
        let text = r#"["changeDesiredQueries",{"desiredQueriesPatch":[{"op":"put","hash":"h","ttl":1,"name":"q","args":[1],"x":1}],"y":2}]"#;
        assert!(matches!(Up::parse(text), Ok(Up::ChangeDesiredQueries(_))));
    }
}
