//! Incremental view maintenance: what the rows of a query are, and how they change with a commit.
//!
//! A [`Plan`] is a ZQL query resolved against the catalog. Its *view* at a version is the set of rows
//! a client needs to compute the query's result on its own: the query's rows, those of its related
//! subqueries, and a few witnesses of each EXISTS. [`evaluate`] reads the view at any version;
//! [`PlanState`] holds which rows are in it and advances from commit to commit, yielding net
//! [`PlanDelta`]s; [`Router`] says which plans a commit may concern at all.
//!
//! It is **not** a query planner by cost, it holds no rows, knows no clients, does no I/O but reads
//! of a storage [`View`](kelvin_storage::View), and has neither clock nor randomness: a time limit
//! is a closure of the caller's in the [`Budget`].
//!
//! # Invariants
//! * The view is a pure function of plan and database: `advance` from any version to another ends in
//!   the same members that `evaluate` yields there, whatever lay between and whichever indexes
//!   there were.
//! * Two queries with the same [`PlanId`] have the same view in every database.
//! * A plan that [`Router::route`] leaves out has the same view before and after.
//! * An error concerns one plan: no state is shared between plans.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use kelvin_ivm::{ClientKeys, ErrorKind, Plan};
//! use kelvin_protocol::Ast;
//! use kelvin_storage::Catalog;
//!
//! let catalog = Arc::new(Catalog::new(Vec::new(), Vec::new()));
//! let query: Ast = serde_json::from_str(r#"{"table":"issue"}"#)?;
//! let error = Plan::compile(&query, &catalog, &ClientKeys::new()).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Query);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod access;
mod advance;
mod budget;
mod change_set;
mod check;
mod error;
mod hydrate;
mod like;
mod order;
mod plan;
mod reader;
mod router;
mod state;
#[cfg(test)]
mod tests;

pub use advance::{PlanDelta, RowDelta};
pub use budget::Budget;
pub use change_set::ChangeSet;
pub use error::{Error, ErrorKind};
pub use hydrate::evaluate;
pub use plan::{ClientKeys, IndexWish, Plan, PlanId};
pub use router::Router;
pub use state::PlanState;
