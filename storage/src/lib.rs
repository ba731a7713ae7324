//! The versioned LSM replica of an upstream PostgreSQL database.
//!
//! It holds the rows of the published tables, their ordered indexes, and as much of their past as
//! the horizon allows. It **is** read at versions (commit LSNs): [`Replica::at`] gives the database
//! exactly as it was, schema included, with point reads and ordered scans, and [`Replica::apply`]
//! moves it on by whole transactions, changes of the schema ([`SchemaChange`]) among them. Indexes
//! are built beside the stream ([`Replica::add_index`], [`IndexBuilder`]), and so are tables
//! ([`Replica::load_table`]).
//!
//! It is **not** a query engine, it knows nothing of PostgreSQL's protocol, and it is not the
//! source of truth: whatever happens to its files, wiping it and copying the upstream again loses
//! time only. It reads no clock; where time matters, the caller says what time it is, and a
//! [`Clock`] is for metrics only.
//!
//! # Invariants
//! * One writer. A batch of transactions becomes visible, and survives a crash of the process, as a
//!   whole or not at all: rows, index entries, history, changelog and watermark.
//! * So does a transaction that is too large for one batch ([`Replica::apply_in_parts`]): what a
//!   crash leaves of it is taken back when the replica is opened.
//! * A view at a version shows that version for as long as it lives, whatever is applied or
//!   trimmed.
//! * Keys sort bytewise exactly as ZQL sorts the values.
//! * What is written survives a power loss once [`Replica::sync`] has returned its version; only
//!   that version may be confirmed to the upstream.
//! * Bytes on disk are checked before they are believed; damage is an [`Error`], never a panic.
//!
//! # Example
//! ```
//! use kelvin_protocol::{Direction, Value, ValueType};
//! use kelvin_storage::{
//!     Catalog, Column, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Scan, Table,
//!     TableId, Transaction,
//! };
//!
//! let column = |name: &str, attnum, value_type| Column {
//!     name: name.into(),
//!     attnum,
//!     upstream_type: "text".into(),
//!     type_oid: 25,
//!     value_type,
//!     not_null: true,
//! };
//! let issue = Table {
//!     id: TableId(1),
//!     name: "issue".into(),
//!     schema: "public".into(),
//!     upstream_name: "issue".into(),
//!     oid: 16384,
//!     columns: vec![column("id", 1, ValueType::String), column("votes", 2, ValueType::Number)],
//!     unsynced_columns: vec![],
//!     key: vec![0],
//!     unique_keys: vec![vec![0]],
//!     indexes: vec![Index {
//!         id: IndexId(1),
//!         name: "issue_votes".into(),
//!         columns: vec![(1, Direction::Desc)],
//!         unique: false,
//!     }],
//! };
//! let dir = tempfile::tempdir()?;
//! let catalog = Catalog::new(vec![issue], vec![]);
//! let row = |id: &str, votes: f64| vec![Value::from(id), Value::from(votes)];
//!
//! // The initial copy, as of version 100.
//! let loader = Replica::create(dir.path(), &ReplicaOptions::default(), catalog)?;
//! let mut issues = loader.table(TableId(1))?;
//! issues.insert(&row("b", 7.0))?;
//! issues.insert(&row("a", 3.0))?;
//! issues.finish()?;
//! let replica = loader.finish(ReplicaIdentity::default(), 100)?;
//!
//! // A transaction that was committed at version 105.
//! let insert = RowOp::Insert { table: TableId(1), row: row("c", 5.0) };
//! let applied = replica.apply(&[Transaction { version: 105, ops: vec![insert] }])?;
//! assert_eq!((applied.from, applied.version, applied.changes.len()), (100, 105, 1));
//!
//! // The three issues by votes now, and the two there were before.
//! let by_votes = Scan::of(IndexId(1));
//! let ids = |version| -> Result<Vec<Value>, kelvin_storage::Error> {
//!     let rows = replica.at(version)?.scan(TableId(1), &by_votes)?;
//!     rows.map(|row| Ok(row?.value(0).to_value())).collect()
//! };
//! assert_eq!(ids(105)?, [Value::from("b"), Value::from("c"), Value::from("a")]);
//! assert_eq!(ids(100)?, [Value::from("b"), Value::from("a")]);
//! assert_eq!(replica.sync()?, 105);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod archive;
mod catalog;
mod change;
mod changelog;
mod clock;
mod counters;
mod directory;
mod engine;
mod era;
mod error;
mod evolution;
mod fault;
mod fences;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod groups;
mod history;
mod index_build;
mod index_builder;
mod journal;
mod key;
mod layout;
mod load;
mod meta;
mod metrics;
mod neighbours;
mod options;
mod overlay;
mod parts;
mod past;
mod pressure;
mod records;
mod replica;
mod retire;
mod row;
mod row_counts;
mod scan;
mod schema;
mod sealer;
mod shape;
mod sorted_ingest;
mod table_space;
mod undo;
mod unsettled;
mod view;
mod young_runs;

pub use catalog::{Catalog, Column, Index, IndexId, Table, TableId, UnsyncedTable};
pub use change::{Applied, Datum, RowChange, RowOp, Transaction, Written};
pub use clock::Clock;
pub use error::{Error, ErrorKind, Remedy, Result};
pub use groups::Groups;
pub use index_build::IndexBuild;
pub use index_builder::IndexBuilder;
pub use load::{Foundation, LoadedTable, Loader, TableLoad, TableLoader};
pub use meta::ReplicaIdentity;
pub use metrics::{StorageMetrics, TableMetrics};
pub use options::ReplicaOptions;
pub use replica::Replica;
pub use row::{Row, RowId};
pub use scan::{RowScan, Scan, ScanStart};
pub use schema::{Alteration, SchemaChange};
pub use view::View;
