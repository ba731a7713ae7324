//! Incremental view maintenance: what the rows of a query are, and how they change with a commit.
//!
//! A [`Plan`] is a ZQL query resolved against the catalog. Its *view* at a version is the set of
//! rows a client needs to compute the query's result on its own: the query's rows, those of its
//! related subqueries, and a few witnesses of each EXISTS. [`evaluate`] reads the view at any
//! version; [`PlanState`] holds which rows are in it and advances from commit to commit, yielding
//! net [`PlanDelta`]s; [`Router`] says which plans a commit may concern at all. A [`DeltaLog`]
//! keeps which rows the last deltas touched.
//!
//! It is **not** a query planner by cost, it holds no rows, knows no clients, does no I/O but reads
//! of a storage [`View`](kelvin_storage::View), and has neither clock nor randomness: a time limit
//! is a closure of the caller's in the [`Budget`].
//!
//! # Invariants
//! * The view is a pure function of plan and database: `advance` from any version to another ends
//!   in the same members that `evaluate` yields there, whatever lay between and whichever indexes
//!   there were.
//! * Two queries with the same [`PlanId`] have the same view in every database.
//! * A plan that [`Router::route`] leaves out has the same view before and after.
//! * An error concerns one plan: no state is shared between plans.
//!
//! # Example
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use kelvin_ivm::{Budget, ChangeSet, ClientKeys, Plan, PlanState, Router};
//! use kelvin_protocol::{Ast, Value, ValueType};
//! use kelvin_storage::{
//!     Catalog, Column, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Table, TableId, Transaction,
//! };
//!
//! let column = |name: &str, attnum| Column {
//!     name: name.into(),
//!     attnum,
//!     upstream_type: "float8".into(),
//!     type_oid: 701,
//!     value_type: ValueType::Number,
//!     not_null: true,
//! };
//! let issue = Table {
//!     id: TableId(1),
//!     name: "issue".into(),
//!     schema: "public".into(),
//!     upstream_name: "issue".into(),
//!     oid: 16384,
//!     columns: vec![column("id", 1), column("votes", 2)],
//!     unsynced_columns: vec![],
//!     key: vec![0],
//!     unique_keys: vec![vec![0]],
//!     indexes: vec![],
//! };
//! let dir = tempfile::tempdir()?;
//! let catalog = Catalog::new(vec![issue], vec![]);
//! let loader = Replica::create(dir.path(), &ReplicaOptions::default(), catalog)?;
//! let replica = loader.finish(ReplicaIdentity::default(), 100)?;
//! let insert = |id: f64, votes: f64| RowOp::Insert {
//!     table: TableId(1),
//!     row: vec![Value::from(id), Value::from(votes)],
//! };
//! let ops = vec![insert(1.0, 5.0), insert(2.0, 7.0)];
//! replica.apply(&[Transaction { version: 110, ops }])?;
//!
//! // The issue with the most votes.
//! let query = r#"{"table":"issue","orderBy":[["votes","desc"]],"limit":1}"#;
//! let query: Ast = serde_json::from_str(query)?;
//! let plan = Arc::new(Plan::compile(&query, &replica.catalog(), &ClientKeys::new())?);
//! let mut router = Router::new();
//! router.insert(plan.id(), &plan);
//! let mut first = Vec::new();
//! let mut sink = |_, row: &kelvin_storage::Row| {
//!     first.push(row.value(0).to_value());
//!     ControlFlow::Continue(())
//! };
//! let view = replica.latest()?;
//! let mut state = PlanState::hydrate(plan.clone(), &view, &Budget::rows(1000), &mut sink)?;
//! assert_eq!(first, [Value::from(2.0)]);
//!
//! // Another one overtakes it.
//! let ops = vec![insert(3.0, 9.0)];
//! let changes = ChangeSet::new(replica.apply(&[Transaction { version: 120, ops }])?);
//! assert_eq!(router.route(&changes), [plan.id()]);
//! let delta = state.advance(&changes, &view, &replica.latest()?)?;
//! let id = |row: &Option<kelvin_storage::Row>| row.as_ref().map(|row| row.value(0).to_value());
//! let moves: Vec<_> = delta.rows.iter().map(|row| (id(&row.old), id(&row.new))).collect();
//! assert_eq!(moves, [(Some(Value::from(2.0)), None), (None, Some(Value::from(3.0)))]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod advance;
mod budget;
mod change_set;
mod check;
mod delta_log;
mod error;
mod explain;
#[doc(hidden)]
pub mod fuzzing;
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
pub use delta_log::{DeltaLog, LoggedDelta, LoggedRow, NetTouches, RowKey, RowKeys, Touch};
pub use error::{Error, ErrorKind};
pub use explain::{
    Driver, Explanation, MissingIndex, NodeExplanation, Purpose, ReadExplanation, Role, explain,
    outline,
};
pub use hydrate::evaluate;
pub use plan::{ClientKeys, IndexWish, Plan, PlanId};
pub use router::Router;
pub use state::PlanState;
