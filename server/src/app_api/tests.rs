//! Calls of a real HTTP server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kelvin_protocol::{ErrorKind, FailureReason, PushBody};
use serde_json::value::RawValue;

use super::*;

/// What the server saw.
#[derive(Clone, Debug)]
struct Seen {
    uri: String,
    headers: hyper::HeaderMap,
    body: String,
}

/// Answers with what it was told to, then with the last of it.
struct App {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl App {
    async fn start(answers: &[(u16, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api?x=1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let queue: VecDeque<(u16, String)> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        let queue = Arc::new(Mutex::new(queue));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (queue, log) = (Arc::clone(&queue), Arc::clone(&log));
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&queue), Arc::clone(&log))
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn api(&self, change: impl FnOnce(&mut config::AppEndpoint)) -> AppApi {
        let mut endpoint = config::AppEndpoint {
            urls: vec![self.url.clone()],
            api_key: Some("key".into()),
            ..config::AppEndpoint::default()
        };
        change(&mut endpoint);
        let config = config::AppApi {
            query: endpoint.clone(),
            mutate: endpoint,
            timeout: Duration::from_secs(5),
            max_response_bytes: 2000,
        };
        let app = config::AppId {
            id: "zero".into(),
            shard_num: 0,
            publications: vec![],
        };
        AppApi::new(&config, &app, &HttpClient::new().unwrap()).unwrap()
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    queue: Arc<Mutex<VecDeque<(u16, String)>>>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    log.lock().unwrap().push(Seen {
        uri: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let mut queue = queue.lock().unwrap();
    let (status, body) = if queue.len() > 1 {
        queue.pop_front().unwrap()
    } else {
        queue.front().cloned().unwrap()
    };
    let mut response = Response::builder().status(status);
    if let Some(location) = body.strip_prefix("to:") {
        response = response.header("location", location);
    }
    Ok(response.body(Full::new(body.into())).unwrap())
}

fn caller() -> Caller {
    let all = [
        ("cookie", "c=1"),
        ("origin", "https://app"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-secret", "s"),
        ("host", "inner"),
    ];
    let request = RequestHeaders {
        cookie: Some("c=1".into()),
        origin: Some("https://app".into()),
        all: all
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        remote: SocketAddr::from(([127, 0, 0, 1], 1)),
    };
    Caller {
        user_id: Some("u".into()),
        token: Some("tok".into()),
        request: Arc::new(request),
        query: ClientTarget::default(),
        mutate: ClientTarget::default(),
    }
}

fn query(id: &str) -> QueryCall {
    QueryCall {
        id: id.to_owned(),
        name: format!("name-{id}"),
        args: vec![RawValue::from_string(r#"{"open":true}"#.into()).unwrap()],
    }
}

fn push() -> PushBody {
    let json = r#"{"clientGroupID":"g","mutations":[{"type":"custom","id":1,"clientID":"c",
        "name":"m","args":[null],"timestamp":5}],"pushVersion":1,"timestamp":6,"requestID":"r"}"#;
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn a_transform_is_asked_and_answered_as_the_application_expects() {
    let answer = r#"{"kind":"QueryResponse","userID":"u","queries":[
        {"id":"b","error":"app","name":"name-b","message":"no","details":{"x":1}},
        {"id":"a","name":"name-a","ast":{"table":"issue"}},
        {"id":"c","name":"name-c","ast":{"table":5}}]}"#;
    let app = App::start(&[(200, answer)]).await;
    let api = app.api(|_| {});
    let queries = [query("a"), query("b"), query("c"), query("d")];
    let outcome = api
        .transform(&caller(), &queries, Some("00-x"))
        .await
        .unwrap();
    assert!(outcome.validated);
    let results: Vec<_> = outcome.queries.iter().map(|query| &query.outcome).collect();
    assert_eq!(results[0].as_ref().unwrap().table, "issue");
    let errors: Vec<_> = results[1..]
        .iter()
        .map(|r| r.as_ref().unwrap_err().error)
        .collect();
    assert_eq!(errors, ["app", "parse", "parse"]);
    let seen = &app.seen()[0];
    assert_eq!(seen.uri, "/api?x=1&schema=zero_0&appID=zero");
    assert!(
        seen.body
            .starts_with(r#"["transform",[{"id":"a","name":"name-a","args":[{"open":true}]}"#)
    );
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.headers["authorization"], "Bearer tok");
    assert_eq!(seen.headers["x-api-key"], "key");
    assert_eq!(seen.headers["origin"], "https://app");
    assert_eq!(seen.headers["traceparent"], "00-x");
    assert!(
        !seen.headers.contains_key("cookie"),
        "cookies are not sent unless configured"
    );
    assert!(!seen.headers.contains_key("x-forwarded-for"));
}

#[tokio::test]
async fn only_allowed_headers_are_handed_on_and_none_of_the_connection() {
    let app = App::start(&[(200, r#"["transformed",[]]"#)]).await;
    let api = app.api(|endpoint| {
        endpoint.forward_cookies = true;
        endpoint.allowed_request_headers = vec!["x-forwarded-for".into(), "host".into()];
        endpoint.allowed_client_headers = vec!["x-mine".into(), "authorization".into()];
    });
    let mut caller = caller();
    for (name, value) in [
        ("X-Mine", "1"),
        ("x-other", "2"),
        ("Authorization", "forged"),
    ] {
        caller.query.headers.insert(name.into(), value.into());
    }
    api.validate(&caller).await.unwrap();
    let headers = &app.seen()[0].headers;
    assert_eq!(headers["cookie"], "c=1");
    assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
    assert_eq!(headers["x-mine"], "1");
    assert_eq!(headers["authorization"], "Bearer tok");
    assert_ne!(headers["host"], "inner");
    assert!(!headers.contains_key("x-other") && !headers.contains_key("x-secret"));
}

#[tokio::test]
async fn server_errors_are_retried_and_refusals_are_not() {
    let app = App::start(&[(503, ""), (500, ""), (200, r#"["transformed",[]]"#)]).await;
    app.api(|_| {}).validate(&caller()).await.unwrap();
    assert_eq!(app.seen().len(), 3);
    let app = App::start(&[(500, "down")]).await;
    let error = app.api(|_| {}).validate(&caller()).await.unwrap_err();
    assert_eq!((app.seen().len(), error.status), (4, Some(500)));
    let long = "ä".repeat(600);
    let app = App::start(&[(401, &long)]).await;
    let error = app.api(|_| {}).validate(&caller()).await.unwrap_err();
    assert_eq!((app.seen().len(), error.status), (1, Some(401)));
    assert_eq!(error.kind, ErrorKind::TransformFailed);
    assert_eq!(error.reason, Some(FailureReason::Http));
    assert_eq!(error.body_preview, Some("ä".repeat(512) + "..."));
    assert!(error.is_auth());
}

#[tokio::test]
async fn an_answer_is_used_again_for_the_same_caller_only() {
    let answer = r#"["transformed",[{"id":"a","name":"name-a","ast":{"table":"issue"}}]]"#;
    let app = App::start(&[(200, answer)]).await;
    let api = app.api(|_| {});
    let queries = [query("a")];
    assert!(
        api.transform(&caller(), &queries, None)
            .await
            .unwrap()
            .validated
    );
    let again = api.transform(&caller(), &queries, None).await.unwrap();
    assert!(!again.validated && again.queries[0].outcome.is_ok());
    assert_eq!(app.seen().len(), 1);
    let mut other = caller();
    other.token = Some("other".into());
    assert!(
        api.transform(&other, &queries, None)
            .await
            .unwrap()
            .validated
    );
    let forged = QueryCall {
        name: "another".into(),
        ..query("a")
    };
    assert!(
        api.transform(&caller(), &[forged], None)
            .await
            .unwrap()
            .validated
    );
    api.validate(&caller()).await.unwrap();
    assert_eq!(app.seen().len(), 4);
}

#[tokio::test]
async fn another_user_than_claimed_is_refused() {
    let app = App::start(&[(
        200,
        r#"{"kind":"QueryResponse","userID":null,"queries":[]}"#,
    )])
    .await;
    let error = app.api(|_| {}).validate(&caller()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    let mutate = r#"{"kind":"MutateResponse","userID":"other","mutations":[]}"#;
    let app = App::start(&[(200, mutate)]).await;
    let error = app.api(|_| {}).push(&caller(), &push()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.status),
        (ErrorKind::PushFailed, Some(401))
    );
}

#[tokio::test]
async fn answers_that_make_no_sense_are_parse_failures() {
    let long = "x".repeat(3000);
    for body in ["", "<html>", r#"{"kind":"Other"}"#, &long] {
        let app = App::start(&[(200, body)]).await;
        let api = app.api(|_| {});
        let error = api.validate(&caller()).await.unwrap_err();
        assert_eq!(error.reason, Some(FailureReason::Parse), "{body:.20}");
        let error = api.push(&caller(), &push()).await.unwrap_err();
        assert_eq!(error.reason, Some(FailureReason::Parse), "{body:.20}");
        assert_eq!(error.mutation_ids.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn redirects_to_other_hosts_are_not_followed() {
    let other = App::start(&[(200, r#"["transformed",[]]"#)]).await;
    let app = App::start(&[(307, &format!("to:{}", other.url))]).await;
    let error = app.api(|_| {}).validate(&caller()).await.unwrap_err();
    assert_eq!(error.status, Some(307));
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_internal_failure() {
    let app = App::start(&[(200, "")]).await;
    let api = app.api(|endpoint| endpoint.urls = vec!["http://127.0.0.1:1/api".into()]);
    let error = api.push(&caller(), &push()).await.unwrap_err();
    assert_eq!(error.reason, Some(FailureReason::Internal));
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn a_push_goes_out_as_it_came_and_old_order_errors_are_found() {
    let answer = r#"{"kind":"MutateResponse","userID":"u","mutations":[
        {"id":{"id":1,"clientID":"c"},"result":{"error":"oooMutation"}}]}"#;
    let app = App::start(&[(200, answer)]).await;
    let accepted = app.api(|_| {}).push(&caller(), &push()).await.unwrap();
    assert_eq!(accepted.out_of_order.len(), 1);
    let sent: serde_json::Value = serde_json::from_str(&app.seen()[0].body).unwrap();
    assert_eq!(sent["mutations"][0]["args"], serde_json::json!([null]));
    assert_eq!(sent["mutations"][0]["type"], "custom");
    assert!(sent.get("schemaVersion").is_none());
}

#[tokio::test]
async fn results_are_removed_by_a_mutation_of_their_own() {
    let app = App::start(&[(200, "whatever")]).await;
    let arg = CleanupArg::Single {
        client_group_id: "g".into(),
        client_id: "c".into(),
        up_to_mutation_id: 3,
    };
    app.api(|_| {}).clean_up(&caller(), &arg, 5.0).await;
    let sent: serde_json::Value = serde_json::from_str(&app.seen()[0].body).unwrap();
    assert_eq!(sent["mutations"][0]["name"], "_zero_cleanupResults");
    assert_eq!(sent["mutations"][0]["id"], 0);
    let expected = serde_json::json!({
        "type": "single", "clientGroupID": "g", "clientID": "c", "upToMutationID": 3
    });
    assert_eq!(sent["mutations"][0]["args"][0], expected);
}
