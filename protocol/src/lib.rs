//! Wire messages, query AST, values and cookies of the kelvin sync server.
//!
//! This crate is the vocabulary the other crates share. It knows what a ZQL value is and how two
//! values compare, what a query looks like on the wire, and which messages a Zero client and a sync
//! server exchange.
//!
//! It is **not** a parser of sockets, it performs no I/O, reads no clock and holds no state.
//!
//! # Invariants
//! * Everything here is deterministic: equal inputs give equal outputs on every node.
//! * [`Value`] has one total order ([`Value::zql_cmp`]), the order of ZQL's `orderBy` and `start`.
//! * [`Cookie`] strings compare bytewise exactly as the cookies compare.
//!
//! # Example
//! ```
//! use kelvin_protocol::{Ast, Cookie, Value};
//!
//! let ast: Ast = serde_json::from_str(r#"{"table":"issue","orderBy":[["id","asc"]]}"#)?;
//! assert_eq!(ast.table, "issue");
//! assert!(Value::Null < Value::from(1.0));
//!
//! let older = Cookie { epoch: 0, version: 35, config: 9 };
//! let newer = Cookie { epoch: 0, version: 36, config: 1 };
//! assert!(older.to_string() < newer.to_string());
//! # Ok::<(), serde_json::Error>(())
//! ```

mod ast;
mod client_schema;
mod cookie;
mod down;
mod error;
mod lexi;
mod mutation;
mod up;
mod value;
mod value_ref;

pub use ast::{
    Ast, Bound, Condition, CorrelatedSubquery, Correlation, Direction, ExistsOp, Operand, Ordering,
    SimpleOp, System,
};
pub use client_schema::{ClientColumn, ClientSchema, ClientTable};
pub use cookie::{Cookie, CookieError};
pub use down::{
    Connected, DeletedClients, Down, ErroredQuery, MutationPatch, MutationRef, PokeEnd, PokeStart,
    QueryPatch,
};
pub use error::{ErrorBody, ErrorKind, ErrorOrigin, FailureReason, MutationId};
pub use lexi::{from_lexi, to_lexi};
pub use mutation::{CrudArg, CrudOp, CrudOpKind, Mutation, MutationKind, PushBody};
pub use up::{
    AckMutationResponses, ChangeDesiredQueries, DeleteClients, InitConnection, InitPayload,
    Inspect, Up, UpQueryOp, UpdateAuth,
};
pub use value::{Value, ValueType};
pub use value_ref::ValueRef;

/// Commit LSN of an upstream PostgreSQL transaction: the version of everything it wrote.
pub type Version = u64;

/// Newest protocol version this server speaks.
pub const PROTOCOL_VERSION: u32 = 52;
/// Oldest protocol version this server accepts.
pub const MIN_PROTOCOL_VERSION: u32 = 30;
/// First protocol version whose poke parts are binary chunks instead of JSON `pokePart`s.
pub const BINARY_POKE_VERSION: u32 = 52;
