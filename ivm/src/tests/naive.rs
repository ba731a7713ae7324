//! An evaluator straight from the query over plain rows, slow and simple: the oracle of the tests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kelvin_protocol::{
    Ast, Condition, CorrelatedSubquery, Direction, ExistsOp, Operand, SimpleOp, System, Value,
};
use kelvin_storage::{Catalog, Table, TableId};

use super::world::Model;
use crate::ClientKeys;

type Values = Vec<Value>;

/// The rows of a view by table and replica key.
pub(crate) type Rows = BTreeMap<(TableId, Values), Values>;

pub(crate) struct Naive<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) keys: &'a ClientKeys,
    pub(crate) model: &'a Model,
}

/// A result as the client sees it: rows with their related lists.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tree {
    row: Values,
    related: Vec<Vec<Tree>>,
}

impl Naive<'_> {
    /// The rows of the view.
    pub(crate) fn view(&self, ast: &Ast) -> Rows {
        let mut rows = Rows::new();
        self.collect(ast, None, &mut rows);
        rows
    }

    /// The result.
    pub(crate) fn tree(&self, ast: &Ast) -> Vec<Tree> {
        self.trees(ast, None)
    }

    fn trees(
        &self,
        ast: &Ast,
        parent: Option<(&CorrelatedSubquery, &Table, &[Value])>,
    ) -> Vec<Tree> {
        let table = self.table(ast);
        self.window(ast, parent, ast.limit, true)
            .into_iter()
            .map(|row| Tree {
                related: last_of_alias(ast)
                    .map(|child| self.trees(&child.subquery, Some((child, &table, &row))))
                    .collect(),
                row,
            })
            .collect()
    }

    fn collect(
        &self,
        ast: &Ast,
        parent: Option<(&CorrelatedSubquery, &Table, &[Value])>,
        into: &mut Rows,
    ) {
        let table = self.table(ast);
        for row in self.window(ast, parent, ast.limit, true) {
            self.keep(&table, &row, into);
            for child in last_of_alias(ast) {
                if child.system != Some(System::Permissions) {
                    self.collect(&child.subquery, Some((child, &table, &row)), into);
                }
            }
            self.collect_witnesses(ast, &table, &row, into);
        }
    }

    fn keep(&self, table: &Table, row: &[Value], into: &mut Rows) {
        let key = table.key.iter().map(|at| row[*at].clone()).collect();
        into.insert((table.id, key), row.to_vec());
    }

    fn collect_witnesses(&self, ast: &Ast, table: &Table, row: &[Value], into: &mut Rows) {
        let mut gates = Vec::new();
        if let Some(filter) = &ast.filter {
            self.open_gates(filter, &mut gates);
        }
        for gate in gates {
            let below = self.table(&gate.subquery);
            for witness in self.window(&gate.subquery, Some((gate, table, row)), Some(3.0), false) {
                self.keep(&below, &witness, into);
                self.collect_witnesses(&gate.subquery, &below, &witness, into);
            }
        }
    }

    /// Every EXISTS whose witnesses are synced: not decided by constants, not a permission rule's.
    fn open_gates<'c>(&self, condition: &'c Condition, found: &mut Vec<&'c CorrelatedSubquery>) {
        if constant(condition).is_some() {
            return;
        }
        match condition {
            Condition::Simple { .. } => {}
            Condition::And { conditions } | Condition::Or { conditions } => {
                for member in conditions {
                    self.open_gates(member, found);
                }
            }
            Condition::CorrelatedSubquery { related, op, .. } => {
                if *op == ExistsOp::Exists && related.system != Some(System::Permissions) {
                    found.push(related);
                }
            }
        }
    }

    /// Rows that pass, in order, up to the limit.
    fn window(
        &self,
        ast: &Ast,
        parent: Option<(&CorrelatedSubquery, &Table, &[Value])>,
        limit: Option<f64>,
        by_query_order: bool,
    ) -> Vec<Values> {
        let table = self.table(ast);
        let mut rows: Vec<Values> = self.model[&table.id]
            .values()
            .filter(|row| match parent {
                None => true,
                Some((link, parent_table, parent_row)) => {
                    correlated(link, parent_table, parent_row, &table, row)
                }
            })
            .filter(|row| self.passes(ast, &table, row))
            .cloned()
            .collect();
        let order = self.order(ast, &table, by_query_order);
        rows.sort_by(|a, b| compare(&order, a, b));
        if let Some(limit) = limit {
            rows.truncate(limit as usize);
        }
        rows
    }

    fn order(&self, ast: &Ast, table: &Table, by_query: bool) -> Vec<(usize, Direction)> {
        let mut order: Vec<(usize, Direction)> = Vec::new();
        for ordering in ast.order_by.iter().flatten().filter(|_| by_query) {
            order.push((table.column(&ordering.0).unwrap(), ordering.1));
        }
        match self.keys.get(&table.name) {
            Some(key) => {
                order.extend(
                    key.iter()
                        .map(|name| (table.column(name).unwrap(), Direction::Asc)),
                );
            }
            None => order.extend(table.key.iter().map(|at| (*at, Direction::Asc))),
        }
        order
    }

    fn passes(&self, ast: &Ast, table: &Table, row: &[Value]) -> bool {
        if let Some(start) = &ast.start {
            let mut bound = vec![Value::Null; table.columns.len()];
            for (name, value) in &start.row {
                bound[table.column(name).unwrap()] = Value::from(value);
            }
            let ordering = compare(&self.order(ast, table, true), &bound, row);
            if ordering.is_gt() || (ordering.is_eq() && start.exclusive) {
                return false;
            }
        }
        ast.filter
            .as_ref()
            .is_none_or(|filter| self.holds(filter, table, row))
    }

    fn holds(&self, condition: &Condition, table: &Table, row: &[Value]) -> bool {
        match condition {
            Condition::And { conditions } => conditions
                .iter()
                .all(|member| self.holds(member, table, row)),
            Condition::Or { conditions } => conditions
                .iter()
                .any(|member| self.holds(member, table, row)),
            Condition::CorrelatedSubquery { related, op, .. } => {
                let limit = related.subquery.limit.filter(|limit| *limit == 0.0);
                let found = self
                    .window(&related.subquery, Some((related, table, row)), limit, true)
                    .is_empty();
                found == (*op == ExistsOp::NotExists)
            }
            Condition::Simple { op, left, right } => {
                let Operand::Literal { value: right } = right else {
                    unreachable!("the tests bind all parameters");
                };
                match left {
                    Operand::Column { name } => test(*op, &row[table.column(name).unwrap()], right),
                    Operand::Literal { value } => test(*op, &Value::from(value), right),
                    Operand::Static { .. } => unreachable!("the tests bind all parameters"),
                }
            }
        }
    }

    fn table(&self, ast: &Ast) -> Arc<Table> {
        self.catalog.table(&ast.table).unwrap().clone()
    }
}

/// Related children; of several with one alias the last.
fn last_of_alias(ast: &Ast) -> impl Iterator<Item = &CorrelatedSubquery> {
    let mut seen = BTreeSet::new();
    let mut children: Vec<_> = ast
        .related
        .iter()
        .rev()
        .filter(|child| seen.insert(child.subquery.alias.clone()))
        .collect();
    children.reverse();
    children.into_iter()
}

fn compare(order: &[(usize, Direction)], a: &[Value], b: &[Value]) -> Ordering {
    for (column, direction) in order {
        let ordering = a[*column].zql_cmp(&b[*column]);
        if ordering.is_ne() {
            return if *direction == Direction::Asc {
                ordering
            } else {
                ordering.reverse()
            };
        }
    }
    Ordering::Equal
}

fn correlated(
    link: &CorrelatedSubquery,
    parent_table: &Table,
    parent_row: &[Value],
    table: &Table,
    row: &[Value],
) -> bool {
    let pairs = link
        .correlation
        .parent_field
        .iter()
        .zip(&link.correlation.child_field);
    pairs.into_iter().all(|(of_parent, of_child)| {
        let above = &parent_row[parent_table.column(of_parent).unwrap()];
        let below = &row[table.column(of_child).unwrap()];
        !above.is_null() && above == below
    })
}

/// The truth of a condition that does not depend on the row.
fn constant(condition: &Condition) -> Option<bool> {
    match condition {
        Condition::And { conditions } => junction(conditions, true),
        Condition::Or { conditions } => junction(conditions, false),
        Condition::CorrelatedSubquery { related, op, .. } => {
            let never = related.subquery.limit == Some(0.0)
                || related.subquery.filter.as_ref().and_then(constant) == Some(false);
            never.then_some(*op == ExistsOp::NotExists)
        }
        Condition::Simple { op, left, right } => {
            let Operand::Literal { value: right } = right else {
                return None;
            };
            if let Operand::Literal { value } = left {
                return Some(test(*op, &Value::from(value), right));
            }
            let of_null = right.is_null() && !matches!(op, SimpleOp::Is | SimpleOp::IsNot);
            let of_nothing = *op == SimpleOp::In && right.as_array().is_some_and(Vec::is_empty);
            (of_null || of_nothing).then_some(false)
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

fn test(op: SimpleOp, left: &Value, right: &serde_json::Value) -> bool {
    let value = Value::from(right);
    let same = *left == value;
    match op {
        SimpleOp::Is => return same,
        SimpleOp::IsNot => return !same,
        _ if left.is_null() || value.is_null() => return false,
        _ => {}
    }
    let ordering = (std::mem::discriminant(left) == std::mem::discriminant(&value))
        .then(|| left.zql_cmp(&value));
    let among = || {
        let items = right.as_array().unwrap();
        items.iter().any(|item| Value::from(item) == *left)
    };
    let like = |ignore_case: bool| match (left.as_str(), value.as_str()) {
        (Some(text), Some(pattern)) => {
            let chars = |text: &str| -> Vec<char> {
                if ignore_case {
                    text.to_lowercase()
                } else {
                    text.to_owned()
                }
                .chars()
                .collect()
            };
            Some(matches(&chars(text), &chars(pattern)))
        }
        _ => None,
    };
    match op {
        SimpleOp::Eq => same,
        SimpleOp::Ne => !same,
        SimpleOp::Lt => ordering.is_some_and(Ordering::is_lt),
        SimpleOp::Le => ordering.is_some_and(Ordering::is_le),
        SimpleOp::Gt => ordering.is_some_and(Ordering::is_gt),
        SimpleOp::Ge => ordering.is_some_and(Ordering::is_ge),
        SimpleOp::In => among(),
        SimpleOp::NotIn => !among(),
        SimpleOp::Like => like(false) == Some(true),
        SimpleOp::NotLike => like(false) == Some(false),
        SimpleOp::ILike => like(true) == Some(true),
        SimpleOp::NotILike => like(true) == Some(false),
        SimpleOp::Is | SimpleOp::IsNot => unreachable!("answered above"),
    }
}

fn matches(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['%', rest @ ..], text) => (0..=text.len()).any(|at| matches(&text[at..], rest)),
        (['\\', next, rest @ ..], [first, text @ ..]) => first == next && matches(text, rest),
        (['_', rest @ ..], [_, text @ ..]) => matches(text, rest),
        ([next, rest @ ..], [first, text @ ..]) => first == next && matches(text, rest),
        (_, []) => false,
    }
}
