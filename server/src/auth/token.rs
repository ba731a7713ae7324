//! A token that was accepted.

use serde_json::{Map, Value};

/// A token that was accepted. Cloning is for the few places that keep one; it is not large.
#[derive(Clone, PartialEq)]
pub enum Auth {
    /// A verified JWT.
    Jwt {
        /// As the client sent it.
        raw: String,
        /// What it says: `authData` of permission rules.
        claims: Map<String, Value>,
    },
    /// Anything else: only the application can judge it.
    Opaque {
        /// As the client sent it.
        raw: String,
    },
}

impl Auth {
    /// The token as the client sent it.
    #[must_use]
    pub fn raw(&self) -> &str {
        match self {
            Self::Jwt { raw, .. } | Self::Opaque { raw } => raw,
        }
    }

    /// What a JWT says; nothing of an opaque token.
    #[must_use]
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Jwt { claims, .. } => Some(claims),
            Self::Opaque { .. } => None,
        }
    }

    pub(super) fn issued_at(&self) -> Option<f64> {
        self.claims()?.get("iat")?.as_f64()
    }
}

impl std::fmt::Debug for Auth {
    // Tokens stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jwt { .. } => "Jwt",
            Self::Opaque { .. } => "Opaque",
        })
    }
}
