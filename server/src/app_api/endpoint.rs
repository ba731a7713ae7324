//! One endpoint: which URLs and headers it is called with, and how often it is tried.

use std::time::Duration;

use bytes::Bytes;
use kelvin_protocol::FailureReason;
use rand::RngExt as _;
use reqwest::Url;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use urlpattern::{UrlPattern, UrlPatternInit, UrlPatternMatchInput, UrlPatternOptions};

use super::client::{HttpClient, RequestError};
use super::failure::CallFailure;
use super::{Caller, ClientTarget};
use crate::config;

/// Attempts of one call.
const MAX_ATTEMPTS: u32 = 4;
/// Query parameters that are ours.
const RESERVED: [&str; 2] = ["schema", "appID"];
/// Headers that belong to one hop or to the body, and are handed on by nobody.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An endpoint cannot be set up. For the operator.
#[derive(Debug, thiserror::Error)]
#[error("{option} holds {pattern:?}, which is no URL pattern: {problem}")]
pub struct EndpointError {
    option: &'static str,
    pattern: String,
    problem: String,
}

/// One endpoint.
pub(super) struct Endpoint {
    /// Taken literally.
    default_url: String,
    patterns: Vec<UrlPattern>,
    settings: config::AppEndpoint,
    timeout: Duration,
    max_response_bytes: usize,
    /// `schema` and `appID`.
    parameters: [(&'static str, String); 2],
    client: HttpClient,
}

impl Endpoint {
    pub(super) fn new(
        settings: &config::AppEndpoint,
        option: &'static str,
        api: &config::AppApi,
        app: &config::AppId,
        client: HttpClient,
    ) -> Result<Self, EndpointError> {
        let compile = |pattern: &String| {
            compile(pattern).map_err(|problem| EndpointError {
                option,
                pattern: pattern.clone(),
                problem,
            })
        };
        Ok(Self {
            default_url: settings.urls.first().cloned().unwrap_or_default(),
            patterns: settings
                .urls
                .iter()
                .map(compile)
                .collect::<Result<_, _>>()?,
            settings: settings.clone(),
            timeout: api.timeout,
            max_response_bytes: api.max_response_bytes,
            parameters: [("schema", app.shard_schema()), ("appID", app.id.clone())],
            client,
        })
    }

    /// Where a client's calls go, with our parameters.
    fn url(&self, asked: Option<&str>) -> Result<Url, CallFailure> {
        let refuse = |message: String| CallFailure::new(FailureReason::Internal, message);
        let text = asked.unwrap_or(&self.default_url);
        let mut url =
            Url::parse(text).map_err(|error| refuse(format!("{text:?} is no URL: {error}")))?;
        if asked.is_some_and(|asked| asked != self.default_url) && !self.is_allowed(&url) {
            let message = format!("URL {text:?} is not allowed by the server's configuration");
            return Err(refuse(message));
        }
        if let Some((name, _)) = url
            .query_pairs()
            .find(|(name, _)| RESERVED.contains(&&**name))
        {
            let message = format!("URL {text:?} must not have the reserved parameter {name:?}");
            return Err(refuse(message));
        }
        url.query_pairs_mut().extend_pairs(&self.parameters);
        Ok(url)
    }

    fn is_allowed(&self, url: &Url) -> bool {
        let mut bare = url.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        self.patterns.iter().any(|pattern| {
            let input = UrlPatternMatchInput::Url(bare.clone());
            pattern.test(input).unwrap_or(false)
        })
    }

    fn headers(&self, caller: &Caller, target: &ClientTarget) -> Result<HeaderMap, CallFailure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.settings.api_key {
            headers.insert(
                HeaderName::from_static("x-api-key"),
                value("X-Api-Key", key)?,
            );
        }
        let allowed = |list: &[String], name: &str| {
            let name = name.to_lowercase();
            list.contains(&name) && !HOP_BY_HOP.contains(&name.as_str())
        };
        for (name, text) in &target.headers {
            if allowed(&self.settings.allowed_client_headers, name) {
                insert(&mut headers, name, text)?;
            }
        }
        for (name, text) in &caller.request.all {
            if allowed(&self.settings.allowed_request_headers, name) {
                insert(&mut headers, name, text)?;
            }
        }
        if let Some(token) = &caller.token {
            let mut bearer = value("Authorization", &format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        if let Some(cookie) = &caller.request.cookie
            && self.settings.forward_cookies
        {
            headers.insert(COOKIE, value("Cookie", cookie)?);
        }
        if let Some(origin) = &caller.request.origin {
            headers.insert(ORIGIN, value("Origin", origin)?);
        }
        Ok(headers)
    }

    /// Calls the endpoint until it answers or there is no point any more. Returns the body of a
    /// 2xx answer.
    pub(super) async fn call(
        &self,
        caller: &Caller,
        target: &ClientTarget,
        body: Bytes,
        traceparent: Option<&str>,
    ) -> Result<Bytes, CallFailure> {
        let url = self.url(target.url.as_deref())?;
        let mut headers = self.headers(caller, target)?;
        if let Some(traceparent) = traceparent {
            insert(&mut headers, "traceparent", traceparent)?;
        }
        let mut attempt = 1;
        loop {
            let (url, headers, body) = (url.clone(), headers.clone(), body.clone());
            let limit = self.max_response_bytes;
            let outcome = self
                .client
                .post(url, headers, body, self.timeout, limit)
                .await;
            let failure = match outcome {
                Ok(answer) if answer.status.is_success() => return Ok(answer.body),
                Ok(answer) => {
                    let failure = CallFailure::http(answer.status.as_u16(), &answer.body);
                    if !answer.status.is_server_error() {
                        return Err(failure);
                    }
                    failure
                }
                Err(RequestError::Network(problem)) => {
                    let message = format!("Fetch from API server failed: {problem}");
                    CallFailure::new(FailureReason::Internal, message)
                }
                Err(RequestError::Timeout) => {
                    let message = format!("The API server did not answer in {:?}", self.timeout);
                    return Err(CallFailure::new(FailureReason::Timeout, message));
                }
                Err(RequestError::TooLong) => {
                    let message = format!("The API server's answer is longer than {limit} bytes");
                    return Err(CallFailure::new(FailureReason::Parse, message));
                }
            };
            if attempt == MAX_ATTEMPTS {
                return Err(failure);
            }
            tracing::debug!(attempt, ?failure, "a call of the API server failed");
            tokio::time::sleep(pause(attempt)).await;
            attempt += 1;
        }
    }
}

/// Pause after attempt number `attempt`.
fn pause(attempt: u32) -> Duration {
    let jitter = rand::rng().random_range(0..100);
    Duration::from_millis((100 * 2_u64.pow(attempt - 1) + jitter).min(1000))
}

fn compile(pattern: &str) -> Result<UrlPattern, String> {
    let init = UrlPatternInit::parse_constructor_string::<regex::Regex>(pattern, None);
    let mut init = init.map_err(|error| error.to_string())?;
    // Query and fragment do not matter.
    init.search = Some("*".to_owned());
    init.hash = Some("*".to_owned());
    UrlPattern::parse(init, UrlPatternOptions::default()).map_err(|error| error.to_string())
}

fn insert(headers: &mut HeaderMap, name: &str, text: &str) -> Result<(), CallFailure> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        let shown: String = name.chars().take(64).collect();
        CallFailure::new(
            FailureReason::Internal,
            format!("{shown:?} is no header name"),
        )
    })?;
    let text = value(name.as_str(), text)?;
    headers.insert(name, text);
    Ok(())
}

fn value(name: &str, text: &str) -> Result<HeaderValue, CallFailure> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        let message = format!("the value of header {name} has characters it may not have");
        CallFailure::new(FailureReason::Internal, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(urls: &[&str]) -> Endpoint {
        let settings = config::AppEndpoint {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..config::AppEndpoint::default()
        };
        let api = config::AppApi {
            query: settings.clone(),
            mutate: settings.clone(),
            timeout: Duration::from_secs(1),
            max_response_bytes: 1000,
        };
        let app = config::AppId {
            id: "zero".into(),
            shard_num: 0,
            publications: vec![],
        };
        let client = HttpClient::new().unwrap();
        Endpoint::new(&settings, "ZERO_QUERY_URL", &api, &app, client).unwrap()
    }

    #[test]
    fn our_parameters_follow_those_of_the_url() {
        let endpoint = endpoint(&["https://a.example/api?x=1"]);
        let url = endpoint.url(None).unwrap();
        assert_eq!(
            url.as_str(),
            "https://a.example/api?x=1&schema=zero_0&appID=zero"
        );
        assert!(
            endpoint
                .url(Some("https://a.example/api?schema=x"))
                .is_err()
        );
        assert!(endpoint.url(Some("https://a.example/api?appID=x")).is_err());
    }

    #[test]
    fn a_client_may_choose_among_the_patterns_only() {
        let endpoint = endpoint(&["https://a.example/api", "https://*.preview.example/api/*"]);
        for good in [
            "https://a.example/api?branch=1#x",
            "https://pr-7.preview.example/api/query",
        ] {
            assert!(endpoint.url(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "https://evil.example/api",
            "http://a.example/api",
            "https://a.example/api/more",
            "https://a.example:444/api",
            "https://user@evil.example/https://a.example/api",
            "https://preview.example.evil/api/x",
            "file:///etc/passwd",
            "not a url",
        ] {
            assert!(endpoint.url(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        for (attempt, range) in [(1, 100..200), (2, 200..300), (3, 400..500), (5, 1000..1001)] {
            assert!(range.contains(&pause(attempt).as_millis()), "{attempt}");
        }
    }
}
