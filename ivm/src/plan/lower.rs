//! From the tree of a draft to the nodes of a plan.

use kelvin_protocol::Value;

use crate::check::Check;
use crate::plan::draft::{Draft, Filter, Link};
use crate::plan::node::{Node, NodeId, Predicate};

/// Longest IN list that counts as "a few values".
const MAX_AMONG: usize = 64;

pub(crate) fn lower(draft: Draft) -> Vec<Node> {
    let mut nodes = Vec::new();
    let root = Root {
        parent: None,
        correlation: Vec::new(),
        kept: true,
        gate: false,
    };
    add(&mut nodes, draft, root);
    nodes
}

/// How a node hangs in the plan.
struct Root {
    parent: Option<(NodeId, Vec<usize>)>,
    correlation: Vec<usize>,
    kept: bool,
    gate: bool,
}

fn add(nodes: &mut Vec<Node>, draft: Draft, root: Root) -> NodeId {
    let id = NodeId(nodes.len());
    let (fixed, among) = known_values(&draft.filter);
    nodes.push(Node {
        table: draft.table,
        order: draft.order,
        start: draft.start,
        predicate: Predicate::Const(true),
        fixed,
        among,
        limit: draft.limit,
        parent: root.parent,
        correlation: root.correlation,
        kept: root.kept,
        gate: root.gate,
        branches: Vec::new(),
    });
    let mut branches = Vec::new();
    let predicate = add_filter(nodes, id, draft.filter, &mut branches);
    for link in draft.related {
        branches.push(add_link(nodes, id, link, true, false));
    }
    if let Some(node) = nodes.get_mut(id.0) {
        node.predicate = predicate;
        node.branches = branches;
    }
    id
}

fn add_link(nodes: &mut Vec<Node>, parent: NodeId, link: Link, kept: bool, gate: bool) -> NodeId {
    let root = Root {
        parent: Some((parent, link.parent)),
        correlation: link.child,
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
    let mut each = |members: Vec<Filter>| -> Vec<Predicate> {
        members
            .into_iter()
            .map(|member| add_filter(nodes, owner, member, branches))
            .collect()
    };
    match filter {
        Filter::Const(truth) => Predicate::Const(truth),
        Filter::Test { column, check } => Predicate::Test { column, check },
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

type Fixed = Vec<(usize, Value)>;
type Among = Option<(usize, Vec<Value>)>;

/// What the AND part of a filter says about single columns.
fn known_values(filter: &Filter) -> (Fixed, Among) {
    let members = match filter {
        Filter::All(members) => members.as_slice(),
        other => std::slice::from_ref(other),
    };
    let (mut fixed, mut among) = (Fixed::new(), None);
    for member in members {
        let Filter::Test { column, check } = member else {
            continue;
        };
        match check {
            Check::Equal(value) => fixed.push((*column, value.clone())),
            Check::IsNull => fixed.push((*column, Value::Null)),
            Check::Among {
                values,
                negated: false,
            } if among.is_none() && values.len() <= MAX_AMONG => {
                let mut values: Vec<_> = values.iter().cloned().collect();
                values.sort();
                among = Some((*column, values));
            }
            _ => {}
        }
    }
    fixed.sort();
    fixed.dedup_by_key(|(column, _)| *column);
    (fixed, among)
}
