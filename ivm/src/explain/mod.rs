//! What a query does: its plan, and what evaluating it once read.

mod condition_text;
mod trace;

use std::ops::ControlFlow;

use kelvin_protocol::Direction;
use kelvin_storage::{IndexId, Row, Table, TableId, View};
use serde::{Deserialize, Serialize};

use self::condition_text::{condition, name, order, start};
pub(crate) use self::trace::{Cost, Trace, Way};
use crate::budget::{Budget, Meter};
use crate::hydrate::hydrate;
use crate::plan::Plan;
use crate::plan::node::{NodeId, Predicate};
use crate::reader::Reader;
use crate::{Error, IndexWish};

pub use trace::Purpose;

/// A plan as a tree, and what it cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Identity of the plan.
    pub plan: String,
    /// Distinct rows of the view.
    pub rows: u64,
    /// Rows examined.
    pub examined: u64,
    /// The query and its subqueries; a child comes after its parent.
    pub nodes: Vec<NodeExplanation>,
    /// Indexes that would spare it scans of whole tables.
    pub missing_indexes: Vec<MissingIndex>,
}

/// A query or subquery.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeExplanation {
    /// Position of the node it belongs to.
    pub parent: Option<usize>,
    /// What it is to that node.
    pub role: Role,
    /// Name of its table.
    pub table: String,
    /// Rows of that table, whether they pass or not.
    pub table_rows: u64,
    /// The condition, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Where its rows start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The order that its limit counts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Rows of it that each parent has at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Columns of the parent and the columns they are equal to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ties: Vec<(String, String)>,
    /// Whether its rows go to clients.
    pub synced: bool,
    /// Who is read first; only for EXISTS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Rows of it in the view, once for each path to them.
    pub rows: u64,
    /// What was read of its table.
    pub reads: Vec<ReadExplanation>,
}

/// What a node is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The query itself.
    Query,
    /// Its rows come along.
    Related,
    /// The parent's row has to have one.
    Exists,
    /// The parent's row may have none.
    NotExists,
}

/// Which side of an EXISTS is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// The parents; each is asked whether it has a child.
    Parent,
    /// The children; from them the way goes up to the parents.
    Child,
    /// The children were tried first and turned out to be too many, so the parents were.
    ParentAfterTrial,
    /// Neither: nothing depended on it.
    Neither,
}

/// One way in which a node's table was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadExplanation {
    /// What for.
    pub purpose: Purpose,
    /// Name of the index; the primary key where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Columns whose values the index narrowed it to.
    pub narrowed_by: Vec<String>,
    /// Columns the index sorted it by, as far as the order needed them.
    pub sorted_by: Vec<String>,
    /// Scans begun.
    pub scans: u64,
    /// Rows examined.
    pub examined: u64,
    /// Rows that one had to expect for these scans, where the shape alone says so: one for a scan
    /// by a whole unique key, all there are for one that nothing narrows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated: Option<u64>,
}

/// An index that is not there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MissingIndex {
    /// Name of the table.
    pub table: String,
    /// Its columns in order, with `desc` where it is that.
    pub columns: Vec<String>,
}

/// Evaluates the plan like [`evaluate`](crate::evaluate), and tells what it did. `row_count` says
/// how many rows a table has.
///
/// # Errors
/// As `evaluate`.
pub fn explain(
    plan: &Plan,
    view: &View,
    budget: &Budget,
    row_count: &dyn Fn(TableId) -> u64,
    sink: &mut dyn FnMut(TableId, &Row) -> ControlFlow<()>,
) -> Result<Explanation, Error> {
    let (meter, trace) = (Meter::new(budget), Trace::default());
    let reader = Reader::new(plan, view, &meter).traced(&trace);
    let (_, members) = hydrate(plan, &reader, false, sink)?;
    let catalog = view.catalog();
    let nodes = plan.ids().map(|id| {
        let known = catalog.table_by_id(plan.node(id).table.id);
        let table = known.unwrap_or(&plan.node(id).table);
        explain_node(plan, id, table, &trace, row_count(table.id))
    });
    let missing = plan.missing_indexes(catalog);
    Ok(Explanation {
        plan: plan.id().to_string(),
        rows: members.len(),
        examined: meter.examined(),
        nodes: nodes.collect(),
        missing_indexes: missing
            .iter()
            .filter_map(|wish| named(wish, catalog.table_by_id(wish.table)?))
            .collect(),
    })
}

/// The tree of a plan alone: nothing is read, and every number is 0.
#[must_use]
pub fn outline(plan: &Plan) -> Vec<NodeExplanation> {
    let trace = Trace::default();
    let outlined = |id| explain_node(plan, id, &plan.node(id).table, &trace, 0);
    plan.ids().map(outlined).collect()
}

fn explain_node(
    plan: &Plan,
    id: NodeId,
    table: &Table,
    trace: &Trace,
    table_rows: u64,
) -> NodeExplanation {
    let node = plan.node(id);
    let role = role(plan, id);
    let columns = node.parent.iter().flat_map(|(parent, columns)| {
        let parent = plan.node(*parent);
        let pairs = columns.iter().zip(&node.correlation);
        pairs.map(|(of_parent, own)| {
            let tie = (name(&parent.table, *of_parent), name(&node.table, *own));
            (tie.0.to_owned(), tie.1.to_owned())
        })
    });
    let ways = trace.ways_of(id).into_iter();
    let reads = ways.map(|(way, cost)| explain_read(table, table_rows, &way, cost));
    let reads: Vec<ReadExplanation> = reads.collect();
    NodeExplanation {
        parent: node.parent.as_ref().map(|(parent, _)| parent.0),
        role,
        table: node.table.name.clone(),
        table_rows,
        condition: condition(plan, node),
        start: start(node),
        order: (node.limit.is_some() && !node.gate)
            .then(|| order(&node.table, node.order.decisive())),
        limit: node.limit.filter(|_| !node.gate),
        ties: columns.collect(),
        synced: node.kept,
        driver: node.gate.then(|| driver(trace, id, &reads)),
        rows: trace.rows_of(id),
        reads,
    }
}

fn driver(trace: &Trace, gate: NodeId, reads: &[ReadExplanation]) -> Driver {
    let asked = reads
        .iter()
        .any(|read| matches!(read.purpose, Purpose::Probe | Purpose::Survey));
    if trace.drove(gate) {
        Driver::Child
    } else if trace.gave_up(gate) {
        Driver::ParentAfterTrial
    } else if asked {
        Driver::Parent
    } else {
        Driver::Neither
    }
}

fn role(plan: &Plan, id: NodeId) -> Role {
    let node = plan.node(id);
    match &node.parent {
        None => Role::Query,
        Some(_) if !node.gate => Role::Related,
        Some((parent, _)) if is_negated(&plan.node(*parent).predicate, id) => Role::NotExists,
        Some(_) => Role::Exists,
    }
}

fn is_negated(predicate: &Predicate, id: NodeId) -> bool {
    match predicate {
        Predicate::Const(_) | Predicate::Test { .. } => false,
        Predicate::All(members) | Predicate::Any(members) => {
            members.iter().any(|member| is_negated(member, id))
        }
        Predicate::Exists { gate, negated } => *negated && *gate == id,
    }
}

fn explain_read(table: &Table, table_rows: u64, way: &Way, cost: Cost) -> ReadExplanation {
    let names = |columns: &[usize]| -> Vec<String> {
        let columns = columns.iter();
        columns.map(|at| name(table, *at).to_owned()).collect()
    };
    let index = table.indexes.iter().find(|index| index.id == way.index);
    let unique = crate::order::is_unique_key(table, &way.prefix);
    let estimated = if unique {
        Some(cost.scans)
    } else {
        (way.prefix.is_empty() && way.sorted_by.is_empty())
            .then(|| table_rows.saturating_mul(cost.scans))
    };
    ReadExplanation {
        purpose: way.purpose,
        index: (way.index != IndexId::PRIMARY)
            .then(|| index.map_or_else(|| way.index.0.to_string(), |index| index.name.clone())),
        narrowed_by: names(&way.prefix),
        sorted_by: names(&way.sorted_by),
        scans: cost.scans,
        examined: cost.examined,
        estimated,
    }
}

fn named(wish: &IndexWish, table: &Table) -> Option<MissingIndex> {
    let columns = wish.columns.iter().map(|(at, direction)| {
        let column = table.columns.get(*at)?;
        Some(match direction {
            Direction::Asc => column.name.clone(),
            Direction::Desc => format!("{} desc", column.name),
        })
    });
    Some(MissingIndex {
        table: table.name.clone(),
        columns: columns.collect::<Option<_>>()?,
    })
}
