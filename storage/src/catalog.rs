//! Which tables the replica holds, and how their columns, keys and indexes look.

use std::collections::HashMap;
use std::sync::Arc;

use kelvin_protocol::{Direction, ValueType};
use serde::{Deserialize, Serialize};

/// Number of a table, unique in the life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u32);

/// Number of an index, unique within its table. Zero is the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexId(pub u16);

impl IndexId {
    /// The rows themselves, in primary key order.
    pub const PRIMARY: Self = Self(0);
}

/// All tables of a replica at one time.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tables: Vec<Arc<Table>>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<TableId, usize>,
    unsynced: Vec<UnsyncedTable>,
}

impl Catalog {
    /// A catalog of these tables, and of those that were left out with the reason why.
    #[must_use]
    pub fn new(tables: Vec<Table>, unsynced: Vec<UnsyncedTable>) -> Self {
        Self::of(tables.into_iter().map(Arc::new).collect(), unsynced)
    }

    pub(crate) fn of(tables: Vec<Arc<Table>>, unsynced: Vec<UnsyncedTable>) -> Self {
        let by_name = tables
            .iter()
            .enumerate()
            .map(|(at, t)| (t.name.clone(), at))
            .collect();
        let by_id = tables
            .iter()
            .enumerate()
            .map(|(at, t)| (t.id, at))
            .collect();
        Self {
            tables,
            by_name,
            by_id,
            unsynced,
        }
    }

    /// The table that clients call `name`: `issue` in schema `public`, else `schema.issue`.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.by_name.get(name).map(|at| &self.tables[*at])
    }

    /// The table with this number.
    #[must_use]
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.by_id.get(&id).map(|at| &self.tables[*at])
    }

    /// Every table, in the order of its number.
    #[must_use]
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// Tables of the publication that cannot be synced.
    #[must_use]
    pub fn unsynced(&self) -> &[UnsyncedTable] {
        &self.unsynced
    }
}

/// A table that is published upstream but not held here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsyncedTable {
    /// Name as a client would say it.
    pub name: String,
    /// Why, and what to do about it; one sentence.
    pub reason: String,
}

/// One table of the replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its number.
    pub id: TableId,
    /// Name as clients say it: without `public.`, with any other schema.
    pub name: String,
    /// Upstream schema.
    pub schema: String,
    /// Upstream name within the schema.
    pub upstream_name: String,
    /// Upstream `pg_class.oid`.
    pub oid: u32,
    /// The columns that are held, in upstream order. Rows carry their values in this order.
    pub columns: Vec<Column>,
    /// Upstream columns that are not held, each with the reason.
    pub unsynced_columns: Vec<(String, String)>,
    /// Positions in `columns` of the key that identifies rows here: the shortest of `unique_keys`.
    pub key: Vec<usize>,
    /// Every unique key over non-null columns, as positions in `columns`. A client schema may name
    /// any of them, in any order, as its primary key.
    pub unique_keys: Vec<Vec<usize>>,
    /// Ordered secondary indexes; the primary key is not among them.
    pub indexes: Vec<Index>,
}

impl Table {
    /// Position of the column called `name`.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Upstream name.
    pub name: String,
    /// Upstream `pg_attribute.attnum`: the identity of the column across renames.
    pub attnum: i16,
    /// Upstream type, as `pg_type.typname` with `[]` appended for each array dimension.
    pub upstream_type: String,
    /// Upstream `pg_type.oid`.
    pub type_oid: u32,
    /// Type for ZQL and for clients.
    pub value_type: ValueType,
    /// Whether upstream rules out NULL.
    pub not_null: bool,
}

/// One ordered secondary index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its number within the table; never zero.
    pub id: IndexId,
    /// Upstream name, or a name of ours for one that a plan asked for.
    pub name: String,
    /// Positions in `columns` with the upstream direction. Entries are ordered by these and then by
    /// the primary key, ascending.
    pub columns: Vec<(usize, Direction)>,
    /// Whether upstream guarantees uniqueness (of rows without a NULL in it).
    pub unique: bool,
}
