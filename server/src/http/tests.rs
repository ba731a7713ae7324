//! The front end over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, WebSocket};
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Listen;

const HEADER: &str = "e30%3D";
const PATH: &str = "/sync/v51/connect?clientID=c&clientGroupID=g&ts=1.5&lmid=0&wsid=w";

/// Says who connected and sends everything back.
struct Echo;

impl ConnectionHandler for Echo {
    async fn connected(&self, connect: Connect, mut socket: Socket) {
        let greeting = format!("{}@{}", connect.params.client_id, connect.protocol_version);
        let _ = socket.writer.send(OutFrame::Text(greeting.into()));
        while let Ok(Some(message)) = socket.reader.next().await {
            let frame = match message {
                Incoming::Text(text) => OutFrame::Text(text.into()),
                Incoming::Binary(bytes) => OutFrame::Binary(bytes),
            };
            let _ = socket.writer.send(frame);
        }
    }
}

struct NoStatz;

impl Statz for NoStatz {
    fn groups(&self) -> &[&'static str] {
        &[]
    }

    fn collect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<serde_json::Value, String>> {
        Box::pin(async { Ok(serde_json::Value::Null) })
    }
}

struct NoQueries;

impl QueryDesk for NoQueries {
    fn list(&self, most: usize) -> BoxFuture<'_, Result<serde_json::Value, Refusal>> {
        Box::pin(async move { Ok(serde_json::json!({ "most": most })) })
    }

    fn analyze(&self, query: AskedQuery) -> BoxFuture<'_, Result<serde_json::Value, Refusal>> {
        Box::pin(async move {
            match query {
                AskedQuery::Plan(id) => Ok(serde_json::json!({ "plan": id })),
                AskedQuery::Ast(text) => Err(Refusal::wrong(text)),
            }
        })
    }
}

fn listen(port: u16) -> Listen {
    Listen {
        address: None,
        port,
        change_streamer_port: 0,
        keepalive_timeout: None,
        max_connections: 100,
        max_message_bytes: 3 << 20,
        queue_bytes: 8 << 20,
        queue_messages: 100,
        header_timeout: Duration::from_secs(10),
        message_timeout: Duration::from_secs(10),
        send_timeout: Duration::from_secs(10),
    }
}

struct Server {
    port: u16,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(listen: Listen) -> Server {
    let listener = Listener::bind(&listen).await.unwrap();
    let port = listener.port().unwrap();
    let readiness = Readiness::new(true);
    let shutdown = CancellationToken::new();
    let site = Site {
        handler: Arc::new(Echo),
        readiness: readiness.clone(),
        heartbeat: Heartbeat::default(),
        admin: AdminGate::new(Some("pw".into()), false),
        statz: Arc::new(NoStatz),
        metrics: Arc::new(|| "up 1\n".to_owned()),
        queries: Arc::new(NoQueries),
    };
    let task = tokio::spawn(listener.serve(site, shutdown.clone()));
    Server {
        port,
        readiness,
        shutdown,
        task,
    }
}

async fn connect(port: u16, path: &str, protocol: &str) -> WebSocket<TokioIo<Upgraded>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = hyper::Request::get(format!("http://localhost{path}"))
        .header("Host", "localhost")
        .header("Upgrade", "websocket")
        .header("Connection", "keep-alive, Upgrade")
        .header(
            "Sec-WebSocket-Key",
            fastwebsockets::handshake::generate_key(),
        )
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", protocol)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let executor = TokioExecutor::new();
    let (socket, response) = fastwebsockets::handshake::client(&executor, request, stream)
        .await
        .unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

async fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn a_client_of_another_make_talks_to_us() {
    let server = start(listen(0)).await;
    let mut socket = connect(server.port, PATH, HEADER).await;
    let greeting = socket.read_frame().await.unwrap();
    assert_eq!(&greeting.payload[..], b"c@51");
    for length in [0, 5, 125, 126, 65_536, 2 << 20] {
        let payload = vec![b'x'; length];
        let frame = Frame::text(payload.clone().into());
        socket.write_frame(frame).await.unwrap();
        let echo = socket.read_frame().await.unwrap();
        assert_eq!(echo.opcode, OpCode::Text);
        assert_eq!(echo.payload.len(), length);
    }
}

#[tokio::test]
async fn a_bad_request_is_upgraded_and_closed_with_a_reason() {
    let server = start(listen(0)).await;
    let long = format!("/{}", "ä".repeat(200));
    let long = form_urlencoded::byte_serialize(long.as_bytes()).collect::<String>();
    for (path, protocol) in [
        ("/nowhere", HEADER),
        ("/sync/v51/connect?clientID=c", HEADER),
        ("/sync/vX/connect", HEADER),
        ("/replication/v6/changes", HEADER),
        (PATH, "!!!"),
        (&format!("/{long}"), HEADER),
    ] {
        let mut socket = connect(server.port, path, protocol).await;
        let frame = socket.read_frame().await.unwrap();
        assert_eq!(frame.opcode, OpCode::Close, "{path}");
        assert_eq!(&frame.payload[..2], 1002_u16.to_be_bytes());
        assert!((10..=125).contains(&frame.payload.len()), "{path}");
    }
}

#[tokio::test]
async fn a_broken_frame_in_the_packet_of_the_handshake_harms_nobody() {
    let server = start(listen(0)).await;
    let mut bystander = connect(server.port, PATH, HEADER).await;
    bystander.read_frame().await.unwrap();
    let handshake = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {HEADER}\r\n\r\n"
    );
    let broken: [&[u8]; 5] = [
        &[
            0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ],
        &[0xf1, 0x80, 0, 0, 0, 0],
        &[0x87, 0x80, 0, 0, 0, 0],
        &[0x81, 0x01, b'x'],
        &[0x88, 0x82, 0, 0, 0, 0, 0, 1],
    ];
    for frame in broken {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let packet = [handshake.as_bytes(), frame].concat();
        stream.write_all(&packet).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{frame:?}");
    }
    bystander
        .write_frame(Frame::text(b"still here".to_vec().into()))
        .await
        .unwrap();
    let echo = bystander.read_frame().await.unwrap();
    assert_eq!(&echo.payload[..], b"still here");
}

#[tokio::test]
async fn the_plain_routes_answer_as_operators_expect() {
    let server = start(listen(0)).await;
    for path in ["/", "/keepalive"] {
        let answer = http(server.port, &get(path, "")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nOK"),
            "{answer}"
        );
    }
    assert!(
        http(server.port, &get("/x", ""))
            .await
            .starts_with("HTTP/1.1 404")
    );
    let refused = http(server.port, &get("/statz", "")).await.to_lowercase();
    assert!(refused.starts_with("http/1.1 401"));
    assert!(refused.contains(r#"www-authenticate: basic realm="statz protected area""#));
    let login = "Authorization: Basic eDpwdw==\r\n";
    assert!(
        http(server.port, &get("/statz", login))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        http(server.port, &get("/metrics", login))
            .await
            .ends_with("up 1\n")
    );
}

#[tokio::test]
async fn questions_about_queries_ask_for_the_password_and_are_bounded() {
    let server = start(listen(0)).await;
    let login = "Authorization: Basic eDpwdw==\r\n";
    for path in ["/queryz", "/analyzez?plan=ab"] {
        let refused = http(server.port, &get(path, "")).await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    }
    let list = http(server.port, &get("/queryz?n=7", login)).await;
    assert!(list.contains(r#""most": 7"#), "{list}");
    let plan = http(server.port, &get("/analyzez?plan=ab", login)).await;
    assert!(plan.contains(r#""plan": "ab""#), "{plan}");
    let nothing = http(server.port, &get("/analyzez", login)).await;
    assert!(nothing.starts_with("HTTP/1.1 400"), "{nothing}");
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST /analyzez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let answer = http(server.port, &post("no query")).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.ends_with("no query\n"),
        "{answer}"
    );
    let long = http(server.port, &post(&"x".repeat((1 << 20) + 1))).await;
    assert!(
        long.starts_with("HTTP/1.1 400") && long.contains("limit"),
        "{long}"
    );
}

#[tokio::test]
async fn long_headers_get_through() {
    let server = start(listen(0)).await;
    let header = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let answer = http(server.port, &get("/", &header)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn the_root_is_not_answered_before_the_server_is_ready() {
    let server = start(listen(0)).await;
    server.readiness.set(false);
    let request = get("/", "");
    let answer = http(server.port, &request);
    tokio::pin!(answer);
    let early = tokio::time::timeout(Duration::from_millis(50), answer.as_mut()).await;
    assert!(early.is_err());
    server.readiness.set(true);
    assert!(answer.await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_operator_is_answered_before_the_server_is_ready_and_clients_wait() {
    let server = start(listen(0)).await;
    server.readiness.set(false);
    let login = "Authorization: Basic eDpwdw==\r\n";
    let numbers = http(server.port, &get("/statz", login)).await;
    assert!(numbers.starts_with("HTTP/1.1 503"), "{numbers}");
    let metrics = http(server.port, &get("/metrics", login)).await;
    assert!(metrics.ends_with("up 1\n"), "{metrics}");
    // What tools would take for a server that is ready.
    let refused = tokio::spawn(async move { http(server.port, &get("/statz", "")).await });
    let client = tokio::spawn(async move {
        let mut socket = connect(server.port, PATH, HEADER).await;
        socket.read_frame().await.unwrap().payload.to_vec()
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!refused.is_finished() && !client.is_finished());
    server.readiness.set(true);
    assert_eq!(client.await.unwrap(), b"c@51");
    assert!(refused.await.unwrap().starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_taken_port_says_what_to_do() {
    let server = start(listen(0)).await;
    let error = Listener::bind(&listen(server.port)).await.err().unwrap();
    assert!(matches!(error, ListenError::Taken(port) if port == server.port));
    assert!(error.to_string().contains("ZERO_PORT"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_is_over() {
    let server = start(Listen {
        max_connections: 1,
        ..listen(0)
    })
    .await;
    let first = connect(server.port, PATH, HEADER).await;
    let second = connect(server.port, PATH, HEADER);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), second.as_mut()).await;
    assert!(early.is_err());
    drop(first);
    let mut second = second.await;
    assert_eq!(&second.read_frame().await.unwrap().payload[..], b"c@51");
}

#[tokio::test]
async fn shutdown_closes_the_port_and_leaves_open_sockets_to_their_handlers() {
    let server = start(listen(0)).await;
    let mut socket = connect(server.port, PATH, HEADER).await;
    socket.read_frame().await.unwrap();
    server.shutdown.cancel();
    server.task.await.unwrap();
    assert!(
        TcpStream::connect(("127.0.0.1", server.port))
            .await
            .is_err()
    );
    socket
        .write_frame(Frame::text(b"on".to_vec().into()))
        .await
        .unwrap();
    assert_eq!(&socket.read_frame().await.unwrap().payload[..], b"on");
}
