//! The WebSocket handshake (RFC 6455 §4.2) on top of hyper.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Response, StatusCode};
use sha1::{Digest as _, Sha1};

use super::site::Body;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut tokens = values.flat_map(|value| value.split(','));
        tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    method == Method::GET && has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// The response that switches protocols; an HTTP error only for what is no WebSocket client.
pub(super) fn response(headers: &HeaderMap) -> Response<Body> {
    let refuse = |status: StatusCode| {
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        response
    };
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED);
        let version = HeaderValue::from_static("13");
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, version);
        return response;
    }
    let accept = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| accept_key(key.as_bytes()));
    let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(&accept).ok()) else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    let mut response = refuse(StatusCode::SWITCHING_PROTOCOLS);
    let out = response.headers_mut();
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // The whole value is one protocol, of the client's making; a browser that does not get it
    // back gives up. Extensions are never agreed to.
    if let Some(protocol) = headers.get(SEC_WEBSOCKET_PROTOCOL) {
        out.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    response
}

fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_is_answered_as_the_standard_says() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn the_subprotocol_is_echoed_and_extensions_are_not() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("x"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("e30%3D"));
        let extension = HeaderValue::from_static("permessage-deflate");
        headers.insert("sec-websocket-extensions", extension);
        let response = response(&headers);
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "e30%3D");
        assert!(!response.headers().contains_key("sec-websocket-extensions"));
    }
}
