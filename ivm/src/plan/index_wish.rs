//! Which indexes a plan would like to have.

use kelvin_protocol::Direction;
use kelvin_storage::{Catalog, TableId};

use crate::access::choose;
use crate::plan::Plan;
use crate::plan::node::Node;

/// A secondary index that would spare a plan scans of a whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexWish {
    /// The table.
    pub table: TableId,
    /// Positions in the table's columns, in index order.
    pub columns: Vec<(usize, Direction)>,
}

pub(crate) fn missing(plan: &Plan, catalog: &Catalog) -> Vec<IndexWish> {
    let mut wishes = Vec::new();
    for node in plan.nodes() {
        let downwards = contents_wish(node, catalog);
        let upwards = node
            .parent
            .as_ref()
            .filter(|_| node.gate)
            .and_then(|(parent, columns)| lookup_wish(plan.node(*parent), columns, catalog));
        for wish in downwards.into_iter().chain(upwards) {
            if !wishes.contains(&wish) {
                wishes.push(wish);
            }
        }
    }
    wishes
}

/// For reading a partition of the node, in order where only its first rows count.
fn contents_wish(node: &Node, catalog: &Catalog) -> Option<IndexWish> {
    let table = catalog.table_by_id(node.table.id)?;
    let fixed = node.fixed.iter().map(|(column, _)| *column);
    let mut equal = node.correlation.to_vec();
    if node.correlation.is_empty() || node.limit.is_some() {
        equal.extend(fixed.filter(|column| !node.correlation.contains(column)));
    }
    // Witnesses are few and any order of them is sorted in no time.
    let wanted = node
        .limit
        .filter(|_| !node.gate)
        .map(|_| node.order.decisive());
    let path = choose(table, &equal, wanted);
    let sorted = wanted.is_none() || path.ordered || path.served > 0;
    let served =
        sorted && (equal.is_empty() || (!path.prefix.is_empty() && covers(&path.prefix, node)));
    if served {
        return None;
    }
    let mut columns: Vec<_> = equal.iter().map(|at| (*at, Direction::Asc)).collect();
    columns.extend(
        wanted
            .unwrap_or_default()
            .iter()
            .filter(|(column, _)| !equal.contains(column)),
    );
    (!columns.is_empty()).then_some(IndexWish {
        table: table.id,
        columns,
    })
}

fn covers(prefix: &[usize], node: &Node) -> bool {
    node.correlation.is_empty() || node.correlation.iter().any(|at| prefix.contains(at))
}

/// For finding the parents of a partition of a gate.
fn lookup_wish(parent: &Node, columns: &[usize], catalog: &Catalog) -> Option<IndexWish> {
    let table = catalog.table_by_id(parent.table.id)?;
    let served = !choose(table, columns, None).prefix.is_empty();
    (!served).then(|| IndexWish {
        table: table.id,
        columns: columns.iter().map(|at| (*at, Direction::Asc)).collect(),
    })
}
