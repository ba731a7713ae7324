//! Decides about tokens.

use std::collections::HashSet;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Validation, decode, decode_header};
use kelvin_protocol::{ErrorBody, ErrorKind};
use serde_json::{Map, Value};

use super::key::{Key, KeySource, RemoteKeys};
use super::token::Auth;
use crate::app_api::HttpClient;
use crate::config;

/// How long a client should wait when keys cannot be fetched, milliseconds.
const KEYS_BACKOFF_MS: u64 = 10_000;

/// Why there is no authenticator. For the operator.
#[derive(Debug, thiserror::Error)]
#[error("ZERO_AUTH_JWK is no usable JSON web key: {0}")]
pub struct AuthSetupError(String);

/// Decides about tokens, by what is configured.
pub struct Authenticator {
    keys: Option<KeySource>,
    issuer: Option<String>,
    audience: Option<String>,
    /// Both endpoints of the application are configured, so that they can judge opaque tokens.
    has_app_api: bool,
}

impl Authenticator {
    /// Takes the keys from the configuration. `client` fetches them if they are elsewhere.
    ///
    /// # Errors
    /// The key is none.
    pub fn new(
        config: &config::Auth,
        has_app_api: bool,
        client: HttpClient,
    ) -> Result<Self, AuthSetupError> {
        let keys = match (&config.jwk, &config.jwks_url, &config.secret) {
            (Some(text), ..) => {
                let jwk: Jwk = serde_json::from_str(text)
                    .map_err(|error| AuthSetupError(error.to_string()))?;
                let key = Key::from_jwk(&jwk).map_err(|error| AuthSetupError(error.to_string()))?;
                Some(KeySource::Fixed(Box::new(key)))
            }
            (_, Some(url), _) => Some(KeySource::Remote(RemoteKeys::new(url.clone(), client))),
            (_, _, Some(secret)) => Some(KeySource::Fixed(Box::new(Key::from_secret(secret)))),
            (None, None, None) => None,
        };
        Ok(Self {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            has_app_api,
        })
    }

    /// What a connection's token is after `token` came: at connect, with no `previous`, or later.
    /// `user_id` is the identity the connection claims.
    ///
    /// # Errors
    /// The error that ends the connection.
    pub async fn resolve(
        &self,
        previous: Option<&Auth>,
        user_id: Option<&str>,
        token: Option<&str>,
    ) -> Result<Option<Auth>, ErrorBody> {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return match previous {
                None => Ok(None),
                Some(_) => Err(unauthorized("A token cannot be replaced by none.")),
            };
        };
        let Some(user_id) = user_id else {
            return Err(unauthorized("Authenticated connections require a userID."));
        };
        let Some(keys) = &self.keys else {
            return self.resolve_opaque(previous, token).map(Some);
        };
        let claims = self.verify(keys, user_id, token).await?;
        let next = Auth::Jwt {
            raw: token.to_owned(),
            claims,
        };
        pick_jwt(previous, next).map(Some)
    }

    fn resolve_opaque(&self, previous: Option<&Auth>, token: &str) -> Result<Auth, ErrorBody> {
        if !self.has_app_api {
            let message = "A token was given, but the server is not configured for it: set \
                           ZERO_QUERY_URL and ZERO_MUTATE_URL, or one of ZERO_AUTH_JWK, \
                           ZERO_AUTH_JWKS_URL and ZERO_AUTH_SECRET.";
            return Err(ErrorBody::new(ErrorKind::Internal, message));
        }
        match previous {
            Some(Auth::Jwt { .. }) => Err(unauthorized(
                "A JWT cannot be replaced by a token of another kind.",
            )),
            _ => Ok(Auth::Opaque {
                raw: token.to_owned(),
            }),
        }
    }

    async fn verify(
        &self,
        keys: &KeySource,
        user_id: &str,
        token: &str,
    ) -> Result<Map<String, Value>, ErrorBody> {
        let header = decode_header(token).map_err(|error| invalid(&error.to_string()))?;
        let candidates = keys.candidates(&header).await;
        let candidates =
            candidates.map_err(|message| ErrorBody::rehome(message, KEYS_BACKOFF_MS))?;
        let mut problem = "no key fits the token".to_owned();
        for key in candidates {
            match decode(token, &key.decoding, &self.validation(&key, user_id)) {
                Ok(data) => return Ok(data.claims),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(invalid(&problem))
    }

    fn validation(&self, key: &Key, user_id: &str) -> Validation {
        let mut validation = Validation::default();
        validation.algorithms.clone_from(&key.algorithms);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.sub = Some(user_id.to_owned());
        let mut required = HashSet::from(["sub".to_owned()]);
        validation.validate_aud = self.audience.is_some();
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.insert("aud".to_owned());
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.insert("iss".to_owned());
        }
        // A token without an expiry never expires.
        validation.required_spec_claims = required;
        validation
    }
}

/// Which of two JWTs a connection goes on with: the one issued later.
fn pick_jwt(previous: Option<&Auth>, next: Auth) -> Result<Auth, ErrorBody> {
    let previous = match previous {
        None => return Ok(next),
        Some(Auth::Opaque { .. }) => {
            return Err(unauthorized("A token cannot be replaced by a JWT."));
        }
        Some(previous @ Auth::Jwt { claims, .. }) => {
            if claims.get("sub") != next.claims().and_then(|claims| claims.get("sub")) {
                return Err(unauthorized("The JWT is of another user."));
            }
            previous
        }
    };
    match (previous.issued_at(), next.issued_at()) {
        (None, _) => Ok(next),
        (Some(_), None) => Err(unauthorized("The JWT does not say when it was issued.")),
        (Some(old), Some(new)) if new > old => Ok(next),
        _ => Ok(previous.clone()),
    }
}

fn unauthorized(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorKind::Unauthorized, message)
}

fn invalid(problem: &str) -> ErrorBody {
    let message = format!("Failed to decode auth token: {problem}");
    ErrorBody::new(ErrorKind::AuthInvalidated, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const FUTURE: u64 = 4_000_000_000;

    fn authenticator(config: &config::Auth) -> Authenticator {
        Authenticator::new(config, true, HttpClient::new().unwrap()).unwrap()
    }

    fn with_secret() -> Authenticator {
        authenticator(&config::Auth {
            secret: Some("secret".into()),
            ..config::Auth::default()
        })
    }

    fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn token(claims: &Value) -> String {
        sign(Algorithm::HS256, "secret", claims)
    }

    async fn kind(authenticator: &Authenticator, user: Option<&str>, token: &str) -> ErrorKind {
        let outcome = authenticator.resolve(None, user, Some(token)).await;
        outcome.unwrap_err().kind
    }

    #[tokio::test]
    async fn a_valid_jwt_gives_its_claims() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let claims = json!({ "sub": "u", "exp": FUTURE, "role": "admin" });
            let token = sign(algorithm, "secret", &claims);
            let auth = with_secret().resolve(None, Some("u"), Some(&token)).await;
            let auth = auth.unwrap().unwrap();
            assert_eq!(auth.claims().unwrap()["role"], "admin");
            assert_eq!(auth.raw(), token);
        }
        let eternal = token(&json!({ "sub": "u" }));
        let auth = with_secret().resolve(None, Some("u"), Some(&eternal)).await;
        assert!(auth.is_ok());
    }

    #[tokio::test]
    async fn whatever_is_no_valid_jwt_is_invalidated_and_nothing_else() {
        let secret = with_secret();
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.";
        let bad = [
            none.to_owned(),
            "a.b.c".to_owned(),
            "x".repeat(10_000),
            "..".to_owned(),
            String::from_utf8_lossy(&[0xff, 0xfe]).into_owned(),
            sign(Algorithm::HS256, "other", &json!({ "sub": "u" })),
            token(&json!({ "sub": "other" })),
            token(&json!({})),
            token(&json!({ "sub": 5 })),
            token(&json!({ "sub": "u", "exp": 1 })),
            token(&json!({ "sub": "u", "exp": "soon" })),
            token(&json!({ "sub": "u", "nbf": FUTURE })),
            token(&json!([1])),
        ];
        for token in bad {
            let kind = kind(&secret, Some("u"), &token).await;
            assert_eq!(kind, ErrorKind::AuthInvalidated, "{token:.40}");
        }
    }

    #[tokio::test]
    async fn issuer_and_audience_are_demanded_where_they_are_configured() {
        let strict = authenticator(&config::Auth {
            secret: Some("secret".into()),
            issuer: Some("i".into()),
            audience: Some("a".into()),
            ..config::Auth::default()
        });
        let good = token(&json!({ "sub": "u", "iss": "i", "aud": ["a", "b"] }));
        assert!(strict.resolve(None, Some("u"), Some(&good)).await.is_ok());
        for claims in [
            json!({ "sub": "u", "iss": "x", "aud": "a" }),
            json!({ "sub": "u", "iss": "i", "aud": "x" }),
            json!({ "sub": "u", "iss": "i" }),
            json!({ "sub": "u", "aud": "a" }),
        ] {
            let kind = kind(&strict, Some("u"), &token(&claims)).await;
            assert_eq!(kind, ErrorKind::AuthInvalidated, "{claims}");
        }
        let lax = token(&json!({ "sub": "u", "aud": "anyone" }));
        let lax = with_secret().resolve(None, Some("u"), Some(&lax)).await;
        assert!(lax.is_ok(), "an audience nobody asked for does not matter");
    }

    #[tokio::test]
    async fn a_public_key_does_not_serve_as_a_secret() {
        let jwk = json!({
            "kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
        });
        let ec = authenticator(&config::Auth {
            jwk: Some(jwk.to_string()),
            ..config::Auth::default()
        });
        let forged = sign(Algorithm::HS256, &jwk.to_string(), &json!({ "sub": "u" }));
        assert_eq!(
            kind(&ec, Some("u"), &forged).await,
            ErrorKind::AuthInvalidated
        );
        let es256 = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.AAAA";
        assert_eq!(
            kind(&ec, Some("u"), es256).await,
            ErrorKind::AuthInvalidated
        );
    }

    #[tokio::test]
    async fn the_later_jwt_wins() {
        let secret = with_secret();
        let at = |iat: Option<u64>| match iat {
            Some(iat) => token(&json!({ "sub": "u", "iat": iat })),
            None => token(&json!({ "sub": "u" })),
        };
        let cases = [
            (Some(1), Some(2), Some(1)),
            (Some(2), Some(2), Some(0)),
            (Some(2), Some(1), Some(0)),
            (None, Some(1), Some(1)),
            (None, None, Some(1)),
            (Some(1), None, None),
        ];
        for (old, new, winner) in cases {
            let tokens = [at(old), at(new)];
            let first = secret
                .resolve(None, Some("u"), Some(&tokens[0]))
                .await
                .unwrap();
            let second = secret
                .resolve(first.as_ref(), Some("u"), Some(&tokens[1]))
                .await;
            match winner {
                Some(winner) => assert_eq!(second.unwrap().unwrap().raw(), tokens[winner]),
                None => assert_eq!(second.unwrap_err().kind, ErrorKind::Unauthorized),
            }
        }
    }

    #[tokio::test]
    async fn opaque_tokens_need_a_user_and_someone_to_judge_them() {
        let opaque = authenticator(&config::Auth::default());
        let first = opaque.resolve(None, Some("u"), Some("t")).await.unwrap();
        assert_eq!(first.as_ref().unwrap().raw(), "t");
        let second = opaque
            .resolve(first.as_ref(), Some("u"), Some("t2"))
            .await
            .unwrap();
        assert_eq!(second.unwrap().raw(), "t2");
        assert_eq!(kind(&opaque, None, "t").await, ErrorKind::Unauthorized);
        let none = opaque.resolve(first.as_ref(), Some("u"), Some("")).await;
        assert_eq!(none.unwrap_err().kind, ErrorKind::Unauthorized);
        assert!(opaque.resolve(None, None, None).await.unwrap().is_none());
        let client = HttpClient::new().unwrap();
        let alone = Authenticator::new(&config::Auth::default(), false, client).unwrap();
        assert_eq!(kind(&alone, Some("u"), "t").await, ErrorKind::Internal);
    }

    /// Serves a key set with the secret under the id `known`; counts how often.
    async fn key_server() -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&count);
        tokio::spawn(async move {
            let keys = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"known","alg":"HS256"},
                {"kty":"of a kind nobody knows","kid":"known"}]}"#;
            let length = keys.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{keys}"
            );
            while let Ok((mut stream, _)) = listener.accept().await {
                served.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, count)
    }

    fn with_keys_at(url: &str) -> Authenticator {
        authenticator(&config::Auth {
            jwks_url: Some(url.to_owned()),
            ..config::Auth::default()
        })
    }

    fn token_of_key(id: &str) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.to_owned());
        let key = EncodingKey::from_secret(b"secret");
        encode(&header, &json!({ "sub": "u" }), &key).unwrap()
    }

    #[tokio::test]
    async fn remote_keys_are_fetched_once_whatever_clients_send() {
        let (url, fetched) = key_server().await;
        let remote = with_keys_at(&url);
        for _ in 0..3 {
            let known = remote
                .resolve(None, Some("u"), Some(&token_of_key("known")))
                .await;
            assert!(known.unwrap().is_some());
            let unknown = kind(&remote, Some("u"), &token_of_key("unknown")).await;
            assert_eq!(unknown, ErrorKind::AuthInvalidated);
        }
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_token_is_not_blamed_for_keys_that_cannot_be_fetched() {
        let remote = with_keys_at("http://127.0.0.1:1/keys");
        let outcome = kind(&remote, Some("u"), &token_of_key("known")).await;
        assert_eq!(outcome, ErrorKind::Rehome);
    }
}
