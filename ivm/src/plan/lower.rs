//! From the tree of a draft to the nodes of a plan.

use std::sync::Arc;

use kelvin_protocol::Value;

use crate::check::Check;
use crate::plan::draft::{Draft, Filter, Link};
use crate::plan::node::{Node, NodeId, Predicate};

pub(crate) fn lower(draft: Draft) -> Vec<Node> {
    let mut nodes = Vec::new();
    let root = Root {
        parent: None,
        correlation: Box::default(),
        kept: true,
        gate: false,
    };
    add(&mut nodes, draft, root);
    nodes
}

/// How a node hangs in the plan.
struct Root {
    parent: Option<(NodeId, Box<[usize]>)>,
    correlation: Box<[usize]>,
    kept: bool,
    gate: bool,
}

fn add(nodes: &mut Vec<Node>, draft: Draft, root: Root) -> NodeId {
    let id = NodeId(nodes.len());
    let fixed = known_values(&draft.filter);
    nodes.push(Node {
        id,
        table: draft.table,
        order: draft.order,
        start: draft.start.map(Box::new),
        predicate: Predicate::Const(true),
        fixed,
        limit: draft.limit,
        parent: root.parent,
        correlation: root.correlation,
        kept: root.kept,
        gate: root.gate,
        branches: Box::default(),
    });
    let mut branches = Vec::new();
    let predicate = add_filter(nodes, id, draft.filter, &mut branches);
    for link in draft.related {
        branches.push(add_link(nodes, id, link, true, false));
    }
    if let Some(node) = nodes.get_mut(id.0) {
        node.predicate = predicate;
        node.branches = branches.into();
    }
    id
}

fn add_link(nodes: &mut Vec<Node>, parent: NodeId, link: Link, kept: bool, gate: bool) -> NodeId {
    let root = Root {
        parent: Some((parent, link.parent.into())),
        correlation: link.child.into(),
        kept,
        gate,
    };
    add(nodes, link.draft, root)
}

fn add_filter(
    nodes: &mut Vec<Node>,
    owner: NodeId,
    filter: Filter,
    branches: &mut Vec<NodeId>,
) -> Predicate {
    let mut each = |members: Vec<Filter>| -> Box<[Predicate]> {
        members
            .into_iter()
            .map(|member| add_filter(nodes, owner, member, branches))
            .collect()
    };
    match filter {
        Filter::Const(truth) => Predicate::Const(truth),
        Filter::Test { column, check } => Predicate::Test {
            column,
            check: Arc::new(check),
        },
        Filter::All(members) => Predicate::All(each(members)),
        Filter::Any(members) => Predicate::Any(each(members)),
        Filter::Exists {
            negated,
            synced,
            link,
        } => {
            let gate = add_link(nodes, owner, *link, synced, true);
            if synced {
                branches.push(gate);
            }
            Predicate::Exists { gate, negated }
        }
    }
}

/// The columns that the AND part of a filter fixes to one value.
fn known_values(filter: &Filter) -> Box<[(usize, Value)]> {
    let members = match filter {
        Filter::All(members) => members.as_slice(),
        other => std::slice::from_ref(other),
    };
    let known = members.iter().filter_map(|member| match member {
        Filter::Test {
            column,
            check: Check::Equal(value),
        } => Some((*column, value.clone())),
        Filter::Test {
            column,
            check: Check::IsNull,
        } => Some((*column, Value::Null)),
        _ => None,
    });
    let mut fixed: Vec<_> = known.collect();
    fixed.sort();
    fixed.dedup_by_key(|(column, _)| *column);
    fixed.into()
}
