//! What a client says when it connects.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hyper::Uri;
use hyper::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use kelvin_protocol::{InitConnection, InitPayload};

/// A client that wants to sync.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The protocol version in the path; not checked yet.
    pub protocol_version: u32,
    /// What the query string says.
    pub params: ConnectParams,
    /// The first message, if it came with the handshake; or what is wrong with it.
    pub init: Option<Result<InitConnection, String>>,
    /// The token, if there is one.
    pub auth_token: Option<String>,
    /// The rest of the request.
    pub request: RequestHeaders,
}

/// The parts of the WebSocket request that may be handed on to the application.
#[derive(Clone, Debug)]
pub struct RequestHeaders {
    /// The `Cookie` header.
    pub cookie: Option<String>,
    /// The `Origin` header.
    pub origin: Option<String>,
    /// Every header by its name in lower case, several of one name joined by `, `.
    pub all: BTreeMap<String, String>,
    /// Where the request came from.
    pub remote: SocketAddr,
}

/// The query string of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectParams {
    /// Names one Zero instance, a tab.
    pub client_id: String,
    /// Names the tabs that share one local database.
    pub client_group_id: String,
    /// The user the client claims to be; none when logged out.
    pub user_id: Option<String>,
    /// Cookie of the client's current snapshot.
    pub base_cookie: Option<String>,
    /// The client's clock, milliseconds; unused.
    pub timestamp: f64,
    /// The last mutation the client saw confirmed; unused.
    pub lmid: f64,
    /// Names the connection.
    pub wsid: String,
    /// Names the browser profile.
    pub profile_id: String,
    /// The client logs at debug level.
    pub debug_perf: bool,
}

impl Connect {
    /// Reads a WebSocket request.
    ///
    /// # Errors
    /// What is wrong with it; the reason the socket is closed with.
    pub(super) fn parse(
        uri: &Uri,
        headers: &HeaderMap,
        remote: SocketAddr,
    ) -> Result<Self, String> {
        let protocol_version = parse_path(uri.path())?;
        let params = ConnectParams::parse(uri.query().unwrap_or_default())?;
        let protocol = headers
            .get(SEC_WEBSOCKET_PROTOCOL)
            .ok_or("the Sec-WebSocket-Protocol header is missing")?;
        let protocol = protocol
            .to_str()
            .map_err(|_| "the subprotocol is not ASCII")?;
        let payload = InitPayload::decode(protocol)?;
        Ok(Self {
            protocol_version,
            params,
            init: payload.init,
            auth_token: payload.auth_token,
            request: RequestHeaders::new(headers, remote),
        })
    }
}

impl RequestHeaders {
    fn new(headers: &HeaderMap, remote: SocketAddr) -> Self {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            all.entry(name.as_str().to_owned())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        Self {
            cookie: all.get("cookie").cloned(),
            origin: all.get("origin").cloned(),
            all,
            remote,
        }
    }
}

/// The protocol version in `[/{base}]/sync/v{N}/{action}`.
fn parse_path(path: &str) -> Result<u32, String> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (["sync", version, _] | [_, "sync", version, _]) = parts.as_slice() else {
        return Err(format!(
            "invalid path: {path}; expected /sync/v{{N}}/connect"
        ));
    };
    let digits = version.strip_prefix('v').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("invalid protocol version in the path: {version}"));
    }
    // A number beyond every version there will be is still a number.
    Ok(digits.parse().unwrap_or(u32::MAX))
}

impl ConnectParams {
    fn parse(query: &str) -> Result<Self, String> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // The first of a name counts; an empty one counts as absent.
            values
                .entry(name.into_owned())
                .or_insert(value.into_owned());
        }
        values.retain(|_, value| !value.is_empty());
        let mut take = |name: &str| values.remove(name);
        let required = |name: &str, value: Option<String>| {
            value.ok_or_else(|| format!("invalid querystring - missing {name}"))
        };
        let integer = |name: &str, value: Option<String>| {
            let value = required(name, value)?;
            parse_int(&value).ok_or_else(|| {
                let shown: String = value.chars().take(32).collect();
                format!("invalid querystring parameter {name}, got: {shown}")
            })
        };
        let client_group_id = required("clientGroupID", take("clientGroupID"))?;
        Ok(Self {
            client_id: required("clientID", take("clientID"))?,
            user_id: take("userID"),
            base_cookie: take("baseCookie"),
            timestamp: integer("ts", take("ts"))?,
            lmid: integer("lmid", take("lmid"))?,
            wsid: take("wsid").unwrap_or_default(),
            profile_id: take("profileID").unwrap_or_else(|| format!("cg{client_group_id}")),
            debug_perf: take("debugPerf").as_deref() == Some("true"),
            client_group_id,
        })
    }
}

/// JavaScript's `parseInt`: leading digits count, whatever follows does not.
fn parse_int(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let number: f64 = digits.get(..end)?.parse().ok()?;
    Some(sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_javascript_reads_them() {
        let cases = [
            ("5123.4000001", Some(5123.0)),
            ("12px", Some(12.0)),
            (" -7", Some(-7.0)),
            ("x", None),
            ("", None),
            ("-", None),
        ];
        for (text, number) in cases {
            assert_eq!(parse_int(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_base_segment_is_allowed_and_the_version_is_numeric() {
        assert_eq!(parse_path("/sync/v51/connect"), Ok(51));
        assert_eq!(parse_path("/zero/sync/v52/connect"), Ok(52));
        assert_eq!(parse_path("/sync/v99999999999999/connect"), Ok(u32::MAX));
        for path in [
            "/",
            "/sync/connect",
            "/a/b/sync/v1/connect",
            "/sync/vx/connect",
            "/sync/v/c",
        ] {
            assert!(parse_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn parameters_have_their_defaults() {
        let query = "clientID=c%201&clientGroupID=g&baseCookie=&ts=1.5&lmid=3&userID=u&x=y";
        let params = ConnectParams::parse(query).unwrap();
        assert_eq!(params.client_id, "c 1");
        assert_eq!(params.profile_id, "cgg");
        assert_eq!(params.base_cookie, None);
        assert_eq!(params.user_id.as_deref(), Some("u"));
        assert_eq!(params.wsid, "");
        for query in [
            "clientID=c&ts=1&lmid=0",
            "clientID=c&clientGroupID=g&ts=x&lmid=0",
            "",
        ] {
            assert!(ConnectParams::parse(query).is_err(), "{query}");
        }
    }
}
