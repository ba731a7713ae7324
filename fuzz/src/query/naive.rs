//! An evaluator straight from the semantics of ZQL over plain rows: slow, and ignorant of plans.

use std::cell::Cell;
use std::cmp::Ordering;

use kelvin_protocol::{
    Ast, Condition, CorrelatedSubquery, Direction, ExistsOp, Operand, SimpleOp, Value,
};
use serde_json::Value as Json;

use super::answer::{Answer, WITNESSES, gates, relationships};
use super::case::{Case, TableSpec};
use super::model::Model;
use super::values::Kind;

/// The row a subquery hangs on.
type Parent<'p> = Option<(&'p CorrelatedSubquery, &'p TableSpec, &'p [Value])>;

/// Rows that one query may look at. Relations of many rows within each other, a few levels deep,
/// would else be looked at for hours.
const MAX_WORK: u64 = 20_000_000;

/// Evaluates queries over one state of the tables.
#[derive(Debug)]
pub struct Naive<'a> {
    case: &'a Case,
    model: &'a Model,
    /// Rows it may still look at.
    left: Cell<u64>,
}

impl<'a> Naive<'a> {
    /// An evaluator of queries of a case on what is in its tables.
    #[must_use]
    pub fn new(case: &'a Case, model: &'a Model) -> Self {
        Self {
            case,
            model,
            left: Cell::new(MAX_WORK),
        }
    }

    /// The answers to a query; `None` where there is too much to look at.
    #[must_use]
    pub fn answers(&self, ast: &Ast) -> Option<Vec<Answer>> {
        self.left.set(MAX_WORK);
        let answers = self.children(ast, None);
        (self.left.get() > 0).then_some(answers)
    }

    fn children(&self, ast: &Ast, parent: Parent<'_>) -> Vec<Answer> {
        let (_, table) = self.case.table(&ast.table);
        let rows = self.window(ast, parent, ast.limit, true);
        rows.into_iter()
            .map(|row| self.answer(ast, table, row, true))
            .collect()
    }

    fn answer(&self, ast: &Ast, table: &TableSpec, row: &[Value], related: bool) -> Answer {
        let links = relationships(ast);
        let links = links.into_iter().filter(|_| related);
        Answer {
            related: links
                .map(|link| self.children(&link.subquery, Some((link, table, row))))
                .collect(),
            witnesses: gates(ast)
                .into_iter()
                .map(|link| self.witnesses(link, table, row))
                .collect(),
            row: row.to_vec(),
        }
    }

    fn witnesses(
        &self,
        link: &CorrelatedSubquery,
        table: &TableSpec,
        row: &[Value],
    ) -> Vec<Answer> {
        let ast = &link.subquery;
        let (_, below) = self.case.table(&ast.table);
        let rows = self.window(ast, Some((link, table, row)), Some(WITNESSES as f64), false);
        rows.into_iter()
            .map(|row| self.answer(ast, below, row, false))
            .collect()
    }

    /// Rows that pass, in order, up to the limit.
    fn window(
        &self,
        ast: &Ast,
        parent: Parent<'_>,
        limit: Option<f64>,
        as_asked: bool,
    ) -> Vec<&[Value]> {
        let (at, table) = self.case.table(&ast.table);
        let all = &self.model.0[at];
        let left = self.left.get().saturating_sub(all.len() as u64);
        self.left.set(left);
        // What comes of it is not used then.
        if left == 0 {
            return Vec::new();
        }
        let mut rows: Vec<_> = all
            .values()
            .map(Vec::as_slice)
            .filter(|row| parent.is_none_or(|parent| correlated(parent, table, row)))
            .filter(|row| self.passes(ast, table, row))
            .collect();
        let order = self.case.order(ast, as_asked);
        rows.sort_by(|a, b| compare(&order, a, b));
        if let Some(limit) = limit {
            rows.truncate(limit as usize);
        }
        rows
    }

    fn passes(&self, ast: &Ast, table: &TableSpec, row: &[Value]) -> bool {
        if let Some(start) = &ast.start {
            let mut bound = vec![Value::Null; table.columns.len()];
            for (name, value) in &start.row {
                let at = table.column(name);
                bound[at] = bind(table.columns[at].1, value);
            }
            let ordering = compare(&self.case.order(ast, true), &bound, row);
            if ordering.is_gt() || (ordering.is_eq() && start.exclusive) {
                return false;
            }
        }
        ast.filter
            .as_ref()
            .is_none_or(|filter| self.holds(filter, table, row))
    }

    fn holds(&self, condition: &Condition, table: &TableSpec, row: &[Value]) -> bool {
        match condition {
            Condition::And { conditions } => conditions
                .iter()
                .all(|member| self.holds(member, table, row)),
            Condition::Or { conditions } => conditions
                .iter()
                .any(|member| self.holds(member, table, row)),
            Condition::CorrelatedSubquery { related, op, .. } => {
                let nothing = related.subquery.limit == Some(0.0);
                let link = Some((&**related, table, row));
                let none = nothing || self.window(&related.subquery, link, None, false).is_empty();
                none == (*op == ExistsOp::NotExists)
            }
            Condition::Simple { op, left, right } => {
                let Operand::Literal { value: right } = right else {
                    unreachable!("the right side is a literal");
                };
                match left {
                    Operand::Column { name } => {
                        let at = table.column(name);
                        test_column(*op, table.columns[at].1, &row[at], right)
                    }
                    Operand::Literal { value } => test(*op, &Value::from(value), right),
                    Operand::Static { .. } => unreachable!("parameters are bound"),
                }
            }
        }
    }
}

fn correlated(
    (link, parent_table, parent_row): (&CorrelatedSubquery, &TableSpec, &[Value]),
    table: &TableSpec,
    row: &[Value],
) -> bool {
    let (above, below) = (
        &link.correlation.parent_field,
        &link.correlation.child_field,
    );
    above.iter().zip(below).all(|(of_parent, of_child)| {
        let above = &parent_row[parent_table.column(of_parent)];
        !above.is_null() && *above == row[table.column(of_child)]
    })
}

fn compare(order: &[(usize, Direction)], a: &[Value], b: &[Value]) -> Ordering {
    let by_column = order.iter().map(|(column, direction)| {
        let ordering = a[*column].zql_cmp(&b[*column]);
        match direction {
            Direction::Asc => ordering,
            Direction::Desc => ordering.reverse(),
        }
    });
    by_column.fold(Ordering::Equal, Ordering::then)
}

/// A literal as the number it is for the column: only an `int8` is more than a double.
fn bind(kind: Kind, literal: &Json) -> Value {
    match literal.as_f64() {
        Some(number) if kind != Kind::Int8 => Value::from(number),
        _ => Value::from(literal),
    }
}

fn test_column(op: SimpleOp, kind: Kind, left: &Value, right: &Json) -> bool {
    match right {
        Json::Array(items) => {
            let mut items = items.iter().map(|item| bind(kind, item));
            !left.is_null() && items.any(|item| item == *left) == (op == SimpleOp::In)
        }
        right => compare_values(op, left, &bind(kind, right)),
    }
}

/// Whether an operator holds between two constants.
pub(crate) fn test(op: SimpleOp, left: &Value, right: &Json) -> bool {
    match right {
        Json::Array(items) => {
            let among = items.iter().any(|item| Value::from(item) == *left);
            !left.is_null() && among == (op == SimpleOp::In)
        }
        right => compare_values(op, left, &Value::from(right)),
    }
}

fn compare_values(op: SimpleOp, left: &Value, right: &Value) -> bool {
    let same = left == right;
    match op {
        SimpleOp::Is => return same,
        SimpleOp::IsNot => return !same,
        _ if left.is_null() || right.is_null() => return false,
        _ => {}
    }
    let number = |value: &Value| matches!(value, Value::Number(_) | Value::BigInt(_));
    let alike = std::mem::discriminant(left) == std::mem::discriminant(right)
        || (number(left) && number(right));
    let ordering = alike.then(|| left.zql_cmp(right));
    let like = |ignore_case| match (left, right) {
        (Value::String(text), Value::String(pattern)) => Some(like(text, pattern, ignore_case)),
        _ => None,
    };
    match op {
        SimpleOp::Eq => same,
        SimpleOp::Ne => !same,
        SimpleOp::Lt => ordering.is_some_and(Ordering::is_lt),
        SimpleOp::Le => ordering.is_some_and(Ordering::is_le),
        SimpleOp::Gt => ordering.is_some_and(Ordering::is_gt),
        SimpleOp::Ge => ordering.is_some_and(Ordering::is_ge),
        SimpleOp::Like => like(false) == Some(true),
        SimpleOp::NotLike => like(false) == Some(false),
        SimpleOp::ILike => like(true) == Some(true),
        SimpleOp::NotILike => like(true) == Some(false),
        // Their right side is an array or null.
        SimpleOp::In | SimpleOp::NotIn | SimpleOp::Is | SimpleOp::IsNot => false,
    }
}

fn like(text: &str, pattern: &str, ignore_case: bool) -> bool {
    if ignore_case && !pattern.contains(['%', '_', '\\']) {
        return text.to_lowercase() == pattern.to_lowercase();
    }
    // One code point stays one, so that `_` counts as people do.
    let fold = |c: char| -> String {
        if ignore_case {
            c.to_lowercase().collect::<String>().replace('ς', "σ")
        } else {
            c.into()
        }
    };
    let chars =
        |text: &str| -> Vec<(char, String)> { text.chars().map(|c| (c, fold(c))).collect() };
    matches(&chars(text), &chars(pattern))
}

fn matches(text: &[(char, String)], pattern: &[(char, String)]) -> bool {
    let Some(((first, _), rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    if *first == '%' {
        return (0..=text.len()).any(|at| matches(&text[at..], rest));
    }
    let Some(((_, folded), after)) = text.split_first() else {
        return false;
    };
    match first {
        '_' => matches(after, rest),
        '\\' => rest.first().is_some_and(|(_, c)| c == folded) && matches(after, &rest[1..]),
        _ => pattern[0].1 == *folded && matches(after, rest),
    }
}
