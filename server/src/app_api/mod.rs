//! The application's endpoints: one that answers custom queries, one that runs custom mutators.
//!
//! [`AppApi`] calls them as zero-cache does: same URLs, headers, retries, bodies and errors. What
//! it adds are bounds: a timeout for each attempt, a longest answer, no redirects to other hosts.

mod answer;
mod cache;
mod client;
mod endpoint;
mod failure;
mod push;
mod query;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use client::{HttpClient, HttpSetupError};
pub use endpoint::EndpointError;
pub use push::{CleanupArg, PushAccepted};
pub use query::{QueryCall, TransformOutcome, TransformedQuery};

use crate::config;
use crate::http::RequestHeaders;
use cache::TransformCache;
use endpoint::Endpoint;

/// On whose behalf an endpoint is called: the credentials of one connection at one time.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user the connection claims to be.
    pub user_id: Option<String>,
    /// Its token.
    pub token: Option<String>,
    /// Its WebSocket request.
    pub request: Arc<RequestHeaders>,
    /// URL and headers its client asked for at the query endpoint.
    pub query: ClientTarget,
    /// URL and headers its client asked for at the mutate endpoint.
    pub mutate: ClientTarget,
}

/// What a client may choose about an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTarget {
    /// Instead of the default URL; must match a configured pattern.
    pub url: Option<String>,
    /// Headers to send, as far as they are allowed.
    pub headers: BTreeMap<String, String>,
}

/// The application's endpoints.
pub struct AppApi {
    query: Option<Endpoint>,
    mutate: Option<Endpoint>,
    cache: TransformCache,
}

impl AppApi {
    /// Endpoints by configuration.
    ///
    /// # Errors
    /// A URL pattern cannot be read.
    pub fn new(
        config: &config::AppApi,
        app: &config::AppId,
        client: &HttpClient,
    ) -> Result<Self, EndpointError> {
        let endpoint = |endpoint: &config::AppEndpoint, env| -> Result<_, EndpointError> {
            if endpoint.urls.is_empty() {
                return Ok(None);
            }
            Endpoint::new(endpoint, env, config, app, client.clone()).map(Some)
        };
        Ok(Self {
            query: endpoint(&config.query, "ZERO_QUERY_URL")?,
            mutate: endpoint(&config.mutate, "ZERO_MUTATE_URL")?,
            cache: TransformCache::default(),
        })
    }

    /// Whether custom queries can be answered.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.query.is_some()
    }

    /// Whether custom mutators can be run.
    #[must_use]
    pub fn has_mutate(&self) -> bool {
        self.mutate.is_some()
    }
}
