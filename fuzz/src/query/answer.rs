//! What a query answers: a tree of rows, with the witnesses that kelvin sends along.

use std::collections::{BTreeMap, BTreeSet};

use kelvin_protocol::{
    Ast, Condition, CorrelatedSubquery, ExistsOp, Operand, SimpleOp, System, Value,
};
use kelvin_storage::TableId;

use super::case::{Case, table_id};
use super::naive;

/// Witnesses of each EXISTS that are sent: the first in the order of the key.
pub const WITNESSES: usize = 3;

/// A row with what hangs on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The row.
    pub row: Vec<Value>,
    /// Children by relationship, in the order of [`relationships`].
    pub related: Vec<Vec<Answer>>,
    /// Witnesses by EXISTS, in the order of [`gates`].
    pub witnesses: Vec<Vec<Answer>>,
}

/// Rows of a view by table and primary key.
pub type View = BTreeMap<(TableId, Vec<Value>), Vec<Value>>;

impl Answer {
    /// The answer without witnesses: what an application is shown.
    #[must_use]
    pub fn shown(&self) -> Self {
        Self {
            row: self.row.clone(),
            related: self
                .related
                .iter()
                .map(|children| shown(children))
                .collect(),
            witnesses: Vec::new(),
        }
    }
}

/// Answers without witnesses.
#[must_use]
pub fn shown(answers: &[Answer]) -> Vec<Answer> {
    answers.iter().map(Answer::shown).collect()
}

/// Every row of the answers to a query, by key.
#[must_use]
pub fn rows(case: &Case, ast: &Ast, answers: &[Answer]) -> View {
    let mut view = View::new();
    collect(case, ast, answers, &mut view);
    view
}

fn collect(case: &Case, ast: &Ast, answers: &[Answer], view: &mut View) {
    let (at, table) = case.table(&ast.table);
    for answer in answers {
        view.insert(
            (table_id(at), table.key_of(&answer.row)),
            answer.row.clone(),
        );
        for (link, children) in relationships(ast).into_iter().zip(&answer.related) {
            collect(case, &link.subquery, children, view);
        }
        for (link, witnesses) in gates(ast).into_iter().zip(&answer.witnesses) {
            collect(case, &link.subquery, witnesses, view);
        }
    }
}

/// The relationships of a query: of several with one alias the last, and none of a permission rule.
#[must_use]
pub fn relationships(ast: &Ast) -> Vec<&CorrelatedSubquery> {
    let mut seen = BTreeSet::new();
    let last = ast.related.iter().rev();
    let mut links: Vec<_> = last
        .filter(|link| seen.insert(&link.subquery.alias))
        .collect();
    links.reverse();
    links.retain(|link| link.system != Some(System::Permissions));
    links
}

/// Every EXISTS of a query whose witnesses are sent: neither decided by constants nor a permission
/// rule's.
#[must_use]
pub fn gates(ast: &Ast) -> Vec<&CorrelatedSubquery> {
    let mut found = Vec::new();
    if let Some(filter) = &ast.filter {
        open_gates(filter, &mut found);
    }
    found
}

fn open_gates<'c>(condition: &'c Condition, found: &mut Vec<&'c CorrelatedSubquery>) {
    if constant(condition).is_some() {
        return;
    }
    match condition {
        Condition::Simple { .. } => {}
        Condition::And { conditions } | Condition::Or { conditions } => {
            for member in conditions {
                open_gates(member, found);
            }
        }
        Condition::CorrelatedSubquery { related, op, .. } => {
            if *op == ExistsOp::Exists && related.system != Some(System::Permissions) {
                found.push(related);
            }
        }
    }
}

/// The truth of a condition which is the same for every row.
fn constant(condition: &Condition) -> Option<bool> {
    match condition {
        Condition::And { conditions } => junction(conditions, true),
        Condition::Or { conditions } => junction(conditions, false),
        Condition::CorrelatedSubquery { related, op, .. } => {
            let filter = related.subquery.filter.as_ref();
            let never =
                related.subquery.limit == Some(0.0) || filter.and_then(constant) == Some(false);
            never.then_some(*op == ExistsOp::NotExists)
        }
        Condition::Simple { op, left, right } => {
            let Operand::Literal { value: right } = right else {
                return None;
            };
            if let Operand::Literal { value } = left {
                return Some(naive::test(*op, &Value::from(value), right));
            }
            let unknown = right.is_null() && !matches!(op, SimpleOp::Is | SimpleOp::IsNot);
            let nothing = *op == SimpleOp::In && right.as_array().is_some_and(Vec::is_empty);
            (unknown || nothing).then_some(false)
        }
    }
}

fn junction(conditions: &[Condition], all: bool) -> Option<bool> {
    let truths: Vec<_> = conditions.iter().map(constant).collect();
    if truths.contains(&Some(!all)) {
        return Some(!all);
    }
    truths
        .iter()
        .all(|truth| *truth == Some(all))
        .then_some(all)
}
