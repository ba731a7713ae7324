//! Permissions as applications deploy them: conditions per table that decide which rows a client
//! sees and which it may change.
//!
//! They concern queries that clients write themselves. Custom queries come from the application,
//! which has decided already.

mod bind;
mod read;
mod rules;
mod simplify;

pub use bind::{AuthData, bind_condition, bind_static};
pub use read::apply_read;
pub use rules::{PermissionAsset, Permissions, PermissionsError, Policy, UpdateRules};
pub use simplify::simplify;
