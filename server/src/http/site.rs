//! What is served: the routes, and what stands behind them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming as RequestBody;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::admin::{
    AdminGate, AskedQuery, QueryDesk, Refusal, Statz, StatzQuery, listed_plans, parameter,
};
use super::close::{Close, CloseCode};
use super::connect::Connect;
use super::handshake;
use super::readiness::{Heartbeat, Readiness};
use super::socket::{Socket, SocketBounds};

pub(super) type Body = Full<Bytes>;

/// Bytes of a query that is to be analyzed.
const MAX_QUERY_BYTES: usize = 1 << 20;
/// How long its sender may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes over the connections of clients.
pub trait ConnectionHandler: Send + Sync + 'static {
    /// A client has connected. Runs on a task of its own, until the connection is over.
    fn connected(&self, connect: Connect, socket: Socket) -> impl Future<Output = ()> + Send;
}

/// Gives the text of `/metrics`, in the Prometheus format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What is served.
pub struct Site<H> {
    /// Takes over the connections of clients.
    pub handler: Arc<H>,
    /// Whether clients are served, and `/` and `/keepalive` are answered.
    pub readiness: Readiness,
    /// Fed by `/keepalive`.
    pub heartbeat: Heartbeat,
    /// Protects `/statz` and `/metrics`.
    pub admin: AdminGate,
    /// The numbers of `/statz`.
    pub statz: Arc<dyn Statz>,
    /// The text of `/metrics`.
    pub metrics: Metrics,
    /// Answers `/queryz` and `/analyzez`.
    pub queries: Arc<dyn QueryDesk>,
}

/// One TCP connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) bounds: SocketBounds,
    /// Held by whatever is left of the connection.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

impl<H: ConnectionHandler> Site<H> {
    pub(super) async fn answer(
        &self,
        mut request: Request<RequestBody>,
        peer: Peer,
    ) -> Response<Body> {
        if handshake::is_upgrade(request.method(), request.headers()) {
            // A client that is turned away would come back later than one that waits.
            self.readiness.ready().await;
            return self.upgrade(&mut request, peer);
        }
        let readable = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/" if readable => {
                self.readiness.ready().await;
                ok("text/plain", "OK")
            }
            "/keepalive" if readable => {
                self.heartbeat.beat();
                self.readiness.ready().await;
                ok("text/plain", "OK")
            }
            "/statz" if readable => match self.refuse(&request, "Statz Protected Area") {
                Some(refusal) => {
                    // Tools take a refusal for a server that is ready.
                    self.readiness.ready().await;
                    refusal
                }
                None => self.statz(request.uri().query()).await,
            },
            "/metrics" if readable => match self.refuse(&request, "Metrics Protected Area") {
                Some(refusal) => refusal,
                None => ok("text/plain; version=0.0.4; charset=utf-8", (self.metrics)()),
            },
            "/queryz" if readable => match self.refuse(&request, "Queryz Protected Area") {
                Some(refusal) => refusal,
                None => {
                    let most = listed_plans(request.uri().query().unwrap_or_default());
                    answered(self.queries.list(most).await)
                }
            },
            "/analyzez" if readable || *request.method() == Method::POST => {
                match self.refuse(&request, "Analyzez Protected Area") {
                    Some(refusal) => refusal,
                    None => answered(self.analyze(request).await),
                }
            }
            "/heapz" if readable => match self.refuse(&request, "Heapz Protected Area") {
                Some(refusal) => refusal,
                None => status(StatusCode::NOT_IMPLEMENTED, "There is no heap profile"),
            },
            _ => status(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    /// The numbers; before the server is ready, with a status that says so.
    async fn statz(&self, query: Option<&str>) -> Response<Body> {
        let asked = StatzQuery::parse(query.unwrap_or_default());
        let ready = self.readiness.is_ready();
        let mut response = ok(
            asked.content_type(),
            asked.answer(self.statz.as_ref()).await,
        );
        if !ready {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    async fn analyze(&self, request: Request<RequestBody>) -> Result<serde_json::Value, Refusal> {
        if *request.method() != Method::POST {
            let plan = parameter(request.uri().query().unwrap_or_default(), "plan");
            let plan = plan.ok_or_else(|| Refusal::wrong("post an AST, or name a plan"))?;
            return self.queries.analyze(AskedQuery::Plan(plan)).await;
        }
        let body = Limited::new(request.into_body(), MAX_QUERY_BYTES).collect();
        let body = tokio::time::timeout(QUERY_TIMEOUT, body).await;
        let body = body.map_err(|_| Refusal::wrong("the query did not come in time"))?;
        let body = body.map_err(|error| Refusal::wrong(error.to_string()))?;
        let text = String::from_utf8(body.to_bytes().into());
        let text = text.map_err(|_| Refusal::wrong("the query is not UTF-8"))?;
        self.queries.analyze(AskedQuery::Ast(text)).await
    }

    fn refuse(&self, request: &Request<RequestBody>, realm: &str) -> Option<Response<Body>> {
        let header = request.headers().get(AUTHORIZATION);
        if self
            .admin
            .allows_header(header.and_then(|header| header.to_str().ok()))
        {
            return None;
        }
        let mut refusal = status(StatusCode::UNAUTHORIZED, "Unauthorized");
        if let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\"")) {
            refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Some(refusal)
    }

    /// Completes the handshake whatever was asked: a browser hides a failed one from its page. What
    /// is wrong is said in a close frame.
    fn upgrade(&self, request: &mut Request<RequestBody>, peer: Peer) -> Response<Body> {
        let response = handshake::response(request.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let connect = Connect::parse(request.uri(), request.headers(), peer.remote);
        let upgrade = hyper::upgrade::on(request);
        let handler = Arc::clone(&self.handler);
        tokio::spawn(async move {
            let socket = match upgrade.await {
                Ok(upgraded) => take_over(upgraded, peer),
                Err(error) => {
                    tracing::debug!(%error, "a client left during the handshake");
                    return;
                }
            };
            match connect {
                Ok(connect) => handler.connected(connect, socket).await,
                Err(reason) => {
                    tracing::info!(reason, "refused a connection");
                    socket.writer.close(Close::new(CloseCode::PROTOCOL, reason));
                }
            }
        });
        response
    }
}

fn take_over(upgraded: Upgraded, peer: Peer) -> Socket {
    let permit = Some(peer.permit);
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let (read, write) = parts.io.into_inner().into_split();
            let (read, write) = (Box::new(read), Box::new(write));
            Socket::start(read, write, &parts.read_buf, peer.bounds, permit)
        }
        // Only if the listener serves something other than TCP.
        Err(upgraded) => {
            let (read, write) = tokio::io::split(TokioIo::new(upgraded));
            Socket::start(Box::new(read), Box::new(write), &[], peer.bounds, permit)
        }
    }
}

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn answered(answer: Result<serde_json::Value, Refusal>) -> Response<Body> {
    match answer {
        Ok(value) => ok("application/json", format!("{value:#}\n")),
        Err(refusal) => {
            let mut response = ok("text/plain; charset=utf-8", refusal.message + "\n");
            *response.status_mut() = if refusal.wrong_question {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            response
        }
    }
}

fn status(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = ok("text/plain", text);
    *response.status_mut() = status;
    response
}
