//! HTTP requests with bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects followed, all to the same host.
const MAX_REDIRECTS: usize = 5;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up HTTP requests: {0}")]
pub struct HttpSetupError(String);

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum RequestError {
    /// It took too long.
    Timeout,
    /// The network failed; may be tried again.
    Network(String),
    /// The answer is too long.
    TooLong,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Makes HTTP requests. Cloning shares connections.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
}

impl HttpClient {
    /// A client that trusts the roots of the machine, or Mozilla's where it has none.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, HttpSetupError> {
        let failed = |error: &dyn std::fmt::Display| HttpSetupError(error.to_string());
        let client = Client::builder()
            .tls_backend_preconfigured(tls().map_err(|error| failed(&error))?)
            .redirect(Policy::custom(|attempt| {
                // The headers hold credentials that are meant for one host.
                let first = attempt.previous().first().map(Url::origin);
                let stays = first == Some(attempt.url().origin());
                if stays && attempt.previous().len() <= MAX_REDIRECTS {
                    attempt.follow()
                } else {
                    attempt.stop()
                }
            }))
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Self { client })
    }

    /// For requests to a server of ours, which have bounds of their own.
    pub(crate) fn requests(&self) -> &Client {
        &self.client
    }

    /// The body of a successful GET.
    pub(crate) async fn get(
        &self,
        url: &str,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<Bytes, String> {
        let request = async {
            let response = self.client.get(url).send().await;
            let response = response.map_err(|error| describe(&error))?;
            if !response.status().is_success() {
                return Err(format!("the answer is {}", response.status()));
            }
            match read(response, max_bytes).await {
                Ok(body) => Ok(body),
                Err(RequestError::Network(problem)) => Err(problem),
                Err(RequestError::Timeout) => Err("it took too long".to_owned()),
                Err(RequestError::TooLong) => Err("the answer is too long".to_owned()),
            }
        };
        match tokio::time::timeout(timeout, request).await {
            Ok(outcome) => outcome,
            Err(_) => Err("it took too long".to_owned()),
        }
    }

    /// One POST.
    pub(super) async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<Answer, RequestError> {
        let request = async {
            let request = self.client.post(url).headers(headers).body(body);
            let response = request.send().await.map_err(|error| classify(&error))?;
            let status = response.status();
            let body = read(response, max_bytes).await?;
            Ok(Answer { status, body })
        };
        match tokio::time::timeout(timeout, request).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RequestError::Timeout),
        }
    }
}

async fn read(mut response: Response, max_bytes: usize) -> Result<Bytes, RequestError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > max_bytes => {
                return Err(RequestError::TooLong);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.into()),
            Err(error) => return Err(classify(&error)),
        }
    }
}

fn classify(error: &reqwest::Error) -> RequestError {
    if error.is_timeout() {
        RequestError::Timeout
    } else {
        RequestError::Network(describe(error))
    }
}

/// An error with its causes; the outermost one alone says little.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
