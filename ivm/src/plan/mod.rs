//! Plans: queries resolved, canonical and ready to run.

pub(crate) mod canonical;
pub(crate) mod draft;
mod index_wish;
mod literal;
mod lower;
pub(crate) mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kelvin_protocol::Ast;
use kelvin_storage::{Catalog, Table, TableId};

use crate::Error;
use crate::plan::draft::Drafter;
use crate::plan::node::{Node, NodeId};

pub use index_wish::IndexWish;

/// Primary keys as the client schema declares them: table name to column names, in the client's
/// order. They complete orderings and choose witnesses; a table not in it has the replica's key.
pub type ClientKeys = BTreeMap<String, Vec<String>>;

/// Identity of a plan: hash of the canonical query and of the client keys it depends on. Queries
/// with the same id have the same rows, always.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub [u8; 16]);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanId({self})")
    }
}

/// A query resolved against a catalog.
///
/// Its view at a version is a pure function of the database at that version: the rows of the query,
/// of its related subqueries at any depth, and the first three witnesses (by primary key) of every
/// EXISTS that a kept row asks about and that is not a permission rule's.
#[derive(Clone, Debug)]
pub struct Plan {
    id: PlanId,
    nodes: Box<[Node]>,
    /// Those that are not the replica's.
    client_keys: BTreeMap<TableId, Vec<usize>>,
}

impl Plan {
    /// Resolves a bound query: names, keys, orders, constants.
    ///
    /// # Errors
    /// [`Query`](crate::ErrorKind::Query) where it names an unknown table or column, holds an
    /// unbound parameter, or a limit, pattern or correlation that makes no sense.
    pub fn compile(ast: &Ast, catalog: &Arc<Catalog>, keys: &ClientKeys) -> Result<Self, Error> {
        let drafter = Drafter { catalog, keys };
        let draft = drafter.root(ast)?;
        let id = PlanId(canonical::hash(&draft));
        let nodes = lower::lower(draft);
        let mut client_keys = BTreeMap::new();
        for node in &nodes {
            let key = drafter.key(&node.table)?;
            if key != node.table.key {
                client_keys.insert(node.table.id, key);
            }
        }
        Ok(Self {
            id,
            nodes: nodes.into(),
            client_keys,
        })
    }

    /// Positions in the table's columns of the key that the plan's clients know its rows by: the
    /// one they declared, else the replica's.
    #[must_use]
    pub fn client_key<'a>(&'a self, table: &'a Table) -> &'a [usize] {
        self.client_keys.get(&table.id).unwrap_or(&table.key)
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> PlanId {
        self.id
    }

    /// Every table it reads, whether the table's rows are in the view or only decide.
    #[must_use]
    pub fn tables(&self) -> BTreeSet<TableId> {
        self.nodes.iter().map(|node| node.table.id).collect()
    }

    /// Whether the plan still fits the tables of `catalog`. Where it does not, its query has to be
    /// compiled anew; which indexes there are does not matter.
    #[must_use]
    pub fn is_current(&self, catalog: &Catalog) -> bool {
        self.nodes.iter().all(|node| {
            let (then, now) = (&node.table, catalog.table_by_id(node.table.id));
            now.is_some_and(|now| {
                now.name == then.name
                    && now.columns == then.columns
                    && now.key == then.key
                    && now.unique_keys == then.unique_keys
            })
        })
    }

    /// Secondary indexes that would spare it scans of whole tables, against the indexes `catalog`
    /// has. Results never depend on them.
    #[must_use]
    pub fn missing_indexes(&self, catalog: &Catalog) -> Vec<IndexWish> {
        index_wish::missing(self, catalog)
    }

    /// All nodes; a child comes after its parent.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Ids of all nodes, parents first.
    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }
}
