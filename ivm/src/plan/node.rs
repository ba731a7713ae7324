//! The nodes of a plan.

use std::sync::Arc;

use kelvin_protocol::{Value, ValueRef};
use kelvin_storage::{Row, Table};

use crate::check::Check;
use crate::order::{RowOrder, Start};

/// Position of a node in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

impl NodeId {
    /// The query itself.
    pub(crate) const ROOT: Self = Self(0);
}

/// Values of a node's correlation columns: the name of one of its partitions. Never holds a null.
pub(crate) type PartitionKey = Box<[Value]>;

/// One query or subquery. Its rows fall into partitions by their correlation columns; the root has
/// one partition.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) table: Arc<Table>,
    /// Order in which `limit` counts.
    pub(crate) order: RowOrder,
    pub(crate) start: Option<Box<Start>>,
    pub(crate) predicate: Predicate,
    /// Columns that every row which passes has one known value in.
    pub(crate) fixed: Box<[(usize, Value)]>,
    /// At most so many rows of a partition are in the view.
    pub(crate) limit: Option<usize>,
    /// The node above and its columns, paired with `correlation`.
    pub(crate) parent: Option<(NodeId, Box<[usize]>)>,
    pub(crate) correlation: Box<[usize]>,
    /// Whether its rows are in the view, for parents that are.
    pub(crate) kept: bool,
    /// Whether it decides about its parent's rows.
    pub(crate) gate: bool,
    /// Children whose rows come along with a kept row of this node.
    pub(crate) branches: Box<[NodeId]>,
}

impl Node {
    /// The partition a row falls into; `None` where a null ties it to no parent.
    pub(crate) fn partition(&self, row: &Row) -> Option<PartitionKey> {
        project(row, &self.correlation)
    }

    /// The same, its text borrowed.
    pub(crate) fn partition_refs<'r>(&self, row: &'r Row) -> Option<Vec<ValueRef<'r>>> {
        let columns = self.correlation.iter();
        columns
            .map(|column| Some(row.value(*column)).filter(|value| !value.is_null()))
            .collect()
    }

    /// The partition of this node that belongs to a row of the parent node.
    pub(crate) fn partition_of_parent(&self, parent_row: &Row) -> Option<PartitionKey> {
        let (_, columns) = self.parent.as_ref()?;
        project(parent_row, columns)
    }

    /// Whether the row is in the partition.
    pub(crate) fn is_in(&self, row: &Row, partition: &[Value]) -> bool {
        self.correlation
            .iter()
            .zip(partition)
            .all(|(column, value)| row.value(*column) == *value)
    }
}

/// The values of these columns, unless one of them is null.
pub(crate) fn project(row: &Row, columns: &[usize]) -> Option<PartitionKey> {
    columns
        .iter()
        .map(|column| {
            let value = row.value(*column);
            (!value.is_null()).then(|| value.to_value())
        })
        .collect()
}

/// A condition on a row. What is cheap to ask comes first.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Const(bool),
    Test { column: usize, check: Arc<Check> },
    All(Box<[Predicate]>),
    Any(Box<[Predicate]>),
    Exists { gate: NodeId, negated: bool },
}
