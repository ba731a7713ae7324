//! Serves the page over HTTP.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::assets::Assets;

/// Connections served at the same time; more wait.
const MAX_CONNECTIONS: usize = 256;

/// A client has this long to send the head of a request, and a connection may idle as long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// After a failed accept (out of file descriptors), the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the page is served with.
#[derive(Debug)]
pub struct Page {
    /// Its files.
    pub assets: Assets,
    /// Port of the sync server, on the host the page was asked from.
    pub sync_port: u16,
    /// Names the database, so that a browser keeps the data of two demos apart.
    pub database: String,
}

/// Takes the port, on the loopback interface: the demo has no sign-in.
///
/// # Errors
/// [`Error::Port`] when another program has it.
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| Error::Port {
            port,
            flag: "--web-port",
            source,
        })
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, page: Page, shutdown: CancellationToken) {
    let page = Arc::new(page);
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (page, shutdown) = (Arc::clone(&page), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, page) => {}
                () = shutdown.cancelled() => {}
            }
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, page: Arc<Page>) {
    let service = service_fn(move |request| {
        let answer = page.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    // A client that hangs up in the middle is no event.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED);
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let path = request.uri().path();
        if path == "/config.json" {
            return self.config(request.headers().get(HOST));
        }
        let Some(asset) = self.assets.get(path) else {
            return plain(StatusCode::NOT_FOUND);
        };
        // The names of built assets change with their content.
        let keep = if path.starts_with("/assets/") {
            "max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        answer(
            StatusCode::OK,
            asset.content_type,
            keep,
            asset.content.clone(),
        )
    }

    /// Where the page finds the sync server: on the host it came from.
    fn config(&self, host: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let host = host
            .and_then(|value| value.to_str().ok())
            .map_or("localhost", host_name);
        let config = serde_json::json!({
            "server": format!("http://{host}:{}", self.sync_port),
            "database": self.database,
        });
        let content = Bytes::from(config.to_string());
        answer(StatusCode::OK, "application/json", "no-store", content)
    }
}

/// The host without the port; `localhost` for anything that is not a plain host.
fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
    if !name.is_empty() && name.bytes().all(plain) {
        name
    } else {
        "localhost"
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let words = status.canonical_reason().unwrap_or_default();
    answer(
        status,
        "text/plain; charset=utf-8",
        "no-store",
        Bytes::from_static(words.as_bytes()),
    )
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    keep: &'static str,
    content: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn the_sync_server_is_looked_for_on_the_pages_host() {
        for (header, name) in [
            ("localhost:8080", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("box.local:80", "box.local"),
            ("a/b", "localhost"),
            ("", "localhost"),
            ("evil\"host", "localhost"),
        ] {
            assert_eq!(host_name(header), name, "{header}");
        }
    }
}
