//! Tokens of clients: what one stands for, and when it replaces another.
//!
//! A token is a JWT where a key to verify it is configured, and opaque otherwise: then it is handed
//! to the application's endpoints, which alone can judge it.

mod authenticator;
mod key;
mod token;

pub use authenticator::{AuthSetupError, Authenticator};
pub use token::Auth;
