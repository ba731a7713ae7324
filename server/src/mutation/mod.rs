//! Mutations of clients: executed in PostgreSQL (CRUD) or handed to the application (custom).
//!
//! [`Mutations`] is the way in.
//!
//! # Invariants
//! * A client's mutation id is advanced in the transaction that applies the mutation. Whatever
//!   happens to the connection, a mutation is applied once or not at all.
//! * A denied mutation advances the id and changes nothing else.
//! * Permissions are judged by the upstream database itself, in that same transaction.

mod authorize;
mod condition;
mod crud;
mod failure;
mod limiter;
mod operation;
mod pool;
mod pusher;
mod service;
mod sql;
mod temporal;
mod transaction;

#[cfg(test)]
mod tests;

pub use pusher::{OnFailure, PushContext};
pub use service::{CatalogSource, CrudOutcome, MutationSetupError, Mutations};
