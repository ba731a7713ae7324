//! What a row must meet for its change to concern a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use kelvin_storage::Row;

use crate::check::Check;
use crate::order::Start;
use crate::plan::Plan;
use crate::plan::canonical::Form;
use crate::plan::node::{Node, Predicate};

/// A condition on one row alone. Only a row that meets it can be one of the node's, whatever the
/// rest of the database holds.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Const(bool),
    Test { column: usize, check: Arc<Check> },
    From(Box<Start>),
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
}

/// A test that every row which passes meets.
type Tests = Vec<(usize, Arc<Check>)>;

impl Condition {
    /// The conditions of a plan's nodes, by position.
    ///
    /// Ties carry them along: what every parent meets in a column of the correlation, a child of it
    /// meets in the column that is tied to that one; and where a parent has to have a child, the
    /// other way round.
    pub(super) fn of_nodes(plan: &Plan) -> Vec<Self> {
        let nodes = plan.nodes();
        let mut own: Vec<Self> = vec![Self::Const(true); nodes.len()];
        // Children come after their parents.
        for (at, node) in nodes.iter().enumerate().rev() {
            let mut members = vec![Self::of_predicate(&node.predicate, nodes, &own)];
            members.extend(node.start.clone().map(Self::From));
            if let Some(place) = own.get_mut(at) {
                *place = junction(members, true);
            }
        }
        for (at, node) in nodes.iter().enumerate() {
            let Some((parent, columns)) = &node.parent else {
                continue;
            };
            let of_parent = own.get(parent.0).map(Self::tests).unwrap_or_default();
            let mut members = carried(&of_parent, columns, &node.correlation);
            if let Some(place) = own.get_mut(at) {
                members.push(std::mem::replace(place, Self::Const(true)));
                *place = junction(members, true);
            }
        }
        own
    }

    fn of_predicate(predicate: &Predicate, nodes: &[Node], below: &[Self]) -> Self {
        let each = |members: &[Predicate]| {
            let members = members.iter();
            members
                .map(|member| Self::of_predicate(member, nodes, below))
                .collect()
        };
        match predicate {
            Predicate::Const(truth) => Self::Const(*truth),
            Predicate::Test { column, check } => Self::Test {
                column: *column,
                check: check.clone(),
            },
            Predicate::All(members) => junction(each(members), true),
            Predicate::Any(members) => junction(each(members), false),
            Predicate::Exists { negated: true, .. } => Self::Const(true),
            Predicate::Exists {
                gate,
                negated: false,
            } => {
                let node = nodes.get(gate.0);
                let child = below.get(gate.0).map(Self::tests).unwrap_or_default();
                let members = node.and_then(|node| {
                    let (_, columns) = node.parent.as_ref()?;
                    Some(carried(&child, &node.correlation, columns))
                });
                junction(members.unwrap_or_default(), true)
            }
        }
    }

    /// The tests among what all of it asks.
    fn tests(&self) -> Tests {
        match self {
            Self::Test { column, check } => vec![(*column, check.clone())],
            Self::All(members) => members.iter().flat_map(Self::tests).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the row meets it.
    pub(super) fn holds(&self, row: &Row) -> bool {
        match self {
            Self::Const(truth) => *truth,
            Self::Test { column, check } => check.holds(row.value(*column)),
            Self::From(start) => start.admits(row),
            Self::All(members) => members.iter().all(|member| member.holds(row)),
            Self::Any(members) => members.iter().any(|member| member.holds(row)),
        }
    }

    /// Bytes that are the same for conditions that are the same.
    pub(super) fn form(&self) -> Vec<u8> {
        let mut form = Form::default();
        match self {
            Self::Const(truth) => form.tag(u8::from(*truth)),
            Self::Test { column, check } => {
                form.tag(2);
                form.number(*column);
                form.check(check);
            }
            Self::From(start) => {
                form.tag(if start.exclusive { 3 } else { 4 });
                form.order(None, &start.order);
                form.values(&start.values);
            }
            Self::All(members) | Self::Any(members) => {
                form.tag(if matches!(self, Self::All(_)) { 5 } else { 6 });
                form.number(members.len());
                for member in members {
                    form.bytes(&member.form());
                }
            }
        }
        form.finish()
    }
}

/// The tests on the columns `from`, as they stand in the columns paired with these.
fn carried(tests: &Tests, from: &[usize], to: &[usize]) -> Vec<Condition> {
    let pairs = || from.iter().zip(to);
    tests
        .iter()
        .flat_map(|(column, check)| {
            let tied = pairs().filter(move |(from, _)| *from == column);
            tied.map(|(_, to)| Condition::Test {
                column: *to,
                check: check.clone(),
            })
        })
        .collect()
}

/// An AND (`all`) or OR, each member once, in the order of their forms: tests come first.
fn junction(members: Vec<Condition>, all: bool) -> Condition {
    let mut flat: BTreeMap<Vec<u8>, Condition> = BTreeMap::new();
    for member in members {
        match member {
            Condition::Const(truth) if truth == all => {}
            Condition::Const(truth) => return Condition::Const(truth),
            Condition::All(inner) if all => {
                flat.extend(inner.into_iter().map(|inner| (inner.form(), inner)));
            }
            Condition::Any(inner) if !all => {
                flat.extend(inner.into_iter().map(|inner| (inner.form(), inner)));
            }
            other => {
                flat.insert(other.form(), other);
            }
        }
    }
    let mut flat: Vec<Condition> = flat.into_values().collect();
    match (flat.len(), all) {
        (0, _) => Condition::Const(all),
        (1, _) => flat.swap_remove(0),
        (_, true) => Condition::All(flat.into()),
        (_, false) => Condition::Any(flat.into()),
    }
}
