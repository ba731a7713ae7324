//! Conditions in words that developers know.

use std::fmt::Write as _;

use kelvin_protocol::{Direction, Value};
use kelvin_storage::Table;

use crate::check::Check;
use crate::plan::Plan;
use crate::plan::node::{Node, Predicate};

/// Values of an IN list that are shown.
const SHOWN_VALUES: usize = 5;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 40;

/// The node's condition, without its start; `None` where every row passes.
pub(super) fn condition(plan: &Plan, node: &Node) -> Option<String> {
    match &node.predicate {
        Predicate::Const(true) => None,
        predicate => Some(of_predicate(plan, &node.table, predicate, false)),
    }
}

/// Where the node's rows start, if not at the first.
pub(super) fn start(node: &Node) -> Option<String> {
    let start = node.start.as_ref()?;
    let values = start.order.iter().zip(start.values.iter());
    let values =
        values.map(|((at, _), value)| format!("{} {}", name(&node.table, *at), shown(value)));
    let word = if start.exclusive { "after" } else { "at" };
    Some(format!("{word} {}", values.collect::<Vec<_>>().join(", ")))
}

/// Columns of an order, with `desc` where it is that.
pub(super) fn order(table: &Table, columns: &[(usize, Direction)]) -> String {
    let columns = columns.iter().map(|(at, direction)| match direction {
        Direction::Asc => name(table, *at).to_owned(),
        Direction::Desc => format!("{} desc", name(table, *at)),
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The name of a column.
pub(super) fn name(table: &Table, at: usize) -> &str {
    table.columns.get(at).map_or("?", |column| &column.name)
}

fn of_predicate(plan: &Plan, table: &Table, predicate: &Predicate, inside: bool) -> String {
    let joined = |members: &[Predicate], word: &str| {
        let members = members.iter();
        let texts = members.map(|member| of_predicate(plan, table, member, true));
        let text = texts.collect::<Vec<_>>().join(word);
        if inside { format!("({text})") } else { text }
    };
    match predicate {
        Predicate::Const(truth) => truth.to_string(),
        Predicate::Test { column, check } => of_check(name(table, *column), check),
        Predicate::All(members) => joined(members, " and "),
        Predicate::Any(members) => joined(members, " or "),
        Predicate::Exists { gate, negated } => {
            let not = if *negated { "not " } else { "" };
            format!("{not}exists({})", plan.node(*gate).table.name)
        }
    }
}

fn of_check(column: &str, check: &Check) -> String {
    match check {
        Check::Equal(value) => format!("{column} = {}", shown(value)),
        Check::NotEqual(value) => format!("{column} != {}", shown(value)),
        Check::IsNull => format!("{column} is null"),
        Check::NotNull => format!("{column} is not null"),
        Check::Differs(value) => format!("{column} is not {}", shown(value)),
        Check::Less(value) => format!("{column} < {}", shown(value)),
        Check::AtMost(value) => format!("{column} <= {}", shown(value)),
        Check::Greater(value) => format!("{column} > {}", shown(value)),
        Check::AtLeast(value) => format!("{column} >= {}", shown(value)),
        Check::Among { values, negated } => {
            let mut sorted: Vec<&Value> = values.iter().collect();
            sorted.sort_unstable();
            let mut list: Vec<String> =
                sorted.iter().take(SHOWN_VALUES).map(|v| shown(v)).collect();
            if sorted.len() > SHOWN_VALUES {
                list.push(format!("… {} in all", sorted.len()));
            }
            let not = if *negated { "not " } else { "" };
            format!("{column} {not}in ({})", list.join(", "))
        }
        Check::Like(like) => {
            let not = if like.negated { "not " } else { "" };
            let word = if like.ignore_case { "ilike" } else { "like" };
            let source = Value::from(like.source.as_str());
            format!("{column} {not}{word} {}", shown(&source))
        }
    }
}

fn shown(value: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => write!(text, "null"),
        Value::Bool(truth) => write!(text, "{truth}"),
        Value::Number(number) => write!(text, "{number}"),
        Value::BigInt(int) => write!(text, "{int}"),
        Value::String(string) | Value::Json(string) => {
            let mut short: String = string.chars().take(SHOWN_CHARS).collect();
            if short.len() < string.len() {
                short.push('…');
            }
            write!(text, "{short:?}")
        }
    };
    text
}
