//! The versioned LSM replica.

mod catalog;
mod change;
mod row;

pub use catalog::{Catalog, Column, Index, IndexId, Table, TableId, UnsyncedTable};
pub use change::{Applied, Datum, RowChange, RowOp, Transaction};
pub use row::{Row, RowId};
