//! The keys that verify tokens.

use std::str::FromStr as _;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app_api::HttpClient;

/// Keys of a set are fetched again at least so often.
const MAX_AGE: Duration = Duration::from_secs(600);
/// And no sooner than this after the last attempt, whatever clients send.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Longest wait for a key set.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest key set, bytes.
const MAX_SET_BYTES: usize = 1 << 20;
/// Keys of a set that are tried for a token that names none.
const MAX_CANDIDATES: usize = 16;

/// One key and the algorithms it may be used with.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
    id: Option<String>,
}

impl Key {
    pub(super) fn from_secret(secret: &str) -> Self {
        Self {
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
            id: None,
        }
    }

    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, jsonwebtoken::errors::Error> {
        let decoding = DecodingKey::from_jwk(jwk)?;
        // INVARIANT: the key decides about the algorithm, never the token.
        let algorithms = match jwk.common.key_algorithm {
            Some(algorithm) => vec![Algorithm::from_str(&algorithm.to_string())?],
            None => decoding.family().algorithms().to_vec(),
        };
        Ok(Self {
            decoding,
            algorithms,
            id: jwk.common.key_id.clone(),
        })
    }

    fn fits(&self, header: &Header) -> bool {
        let named = match (&header.kid, &self.id) {
            (Some(asked), Some(id)) => asked == id,
            (Some(_), None) => false,
            (None, _) => true,
        };
        named && self.algorithms.contains(&header.alg)
    }
}

/// Where keys come from.
pub(super) enum KeySource {
    Fixed(Box<Key>),
    Remote(RemoteKeys),
}

impl KeySource {
    /// The keys that may have signed a token with this header.
    ///
    /// # Errors
    /// Keys cannot be had for now; one sentence.
    pub(super) async fn candidates(&self, header: &Header) -> Result<Vec<Key>, String> {
        match self {
            Self::Fixed(key) => Ok(vec![key.as_ref().clone()]),
            Self::Remote(remote) => remote.candidates(header).await,
        }
    }
}

/// A key set behind a URL, cached.
pub(super) struct RemoteKeys {
    url: String,
    client: HttpClient,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    keys: Vec<Key>,
    fetched: Option<Instant>,
    attempted: Option<Instant>,
}

impl Cache {
    fn matching(&self, header: &Header) -> Vec<Key> {
        let fitting = self.keys.iter().filter(|key| key.fits(header));
        fitting.take(MAX_CANDIDATES).cloned().collect()
    }
}

impl RemoteKeys {
    pub(super) fn new(url: String, client: HttpClient) -> Self {
        Self {
            url,
            client,
            cache: Mutex::default(),
        }
    }

    async fn candidates(&self, header: &Header) -> Result<Vec<Key>, String> {
        // Held while fetching: one fetch serves all who wait.
        let mut cache = self.cache.lock().await;
        let now = Instant::now();
        let within = |since: Option<Instant>, span| since.is_some_and(|at| now - at < span);
        let found = cache.matching(header);
        let fresh = within(cache.fetched, MAX_AGE);
        if (fresh && !found.is_empty()) || within(cache.attempted, COOLDOWN) {
            return match cache.fetched {
                Some(_) => Ok(found),
                None => Err("the keys that verify tokens could not be fetched".to_owned()),
            };
        }
        cache.attempted = Some(now);
        match self.fetch().await {
            Ok(keys) => {
                cache.keys = keys;
                cache.fetched = Some(now);
            }
            Err(error) => {
                tracing::warn!(error, "cannot fetch the keys that verify tokens");
                if cache.fetched.is_none() {
                    return Err("the keys that verify tokens could not be fetched".to_owned());
                }
            }
        }
        Ok(cache.matching(header))
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let body = self
            .client
            .get(&self.url, FETCH_TIMEOUT, MAX_SET_BYTES)
            .await?;
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        // Keys of kinds nobody here can use may be in a set.
        Ok(set
            .keys
            .iter()
            .filter_map(|jwk| Key::from_jwk(jwk).ok())
            .collect())
    }
}
