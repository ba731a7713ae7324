//! Makes a failing case small.

use kelvin_protocol::{Ast, Condition};

use super::case::{Case, Op, Step};

/// Smaller cases that are tried.
const MAX_TRIES: usize = 4000;

/// The smallest case found that still fails. Greedy: whatever can go, goes.
pub fn shrink(case: &Case, fails: &mut dyn FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut tries = 0;
    loop {
        let mut smaller = false;
        for pass in PASSES {
            let mut at = 0;
            loop {
                let mut candidate = best.clone();
                if !pass(&mut candidate, at) {
                    break;
                }
                candidate.settle();
                tries += 1;
                if tries > MAX_TRIES {
                    return best;
                }
                if fails(&candidate) {
                    best = candidate;
                    smaller = true;
                } else {
                    at += 1;
                }
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// Takes one thing away: the one at a position, counted over the whole case. False behind the last.
type Pass = fn(&mut Case, usize) -> bool;

const PASSES: [Pass; 10] = [
    short,
    query,
    step,
    transaction,
    op,
    simpler_query,
    rule,
    key,
    index,
    value,
];

fn remove<T>(items: &mut Vec<T>, at: usize) -> bool {
    let there = at < items.len();
    if there {
        items.remove(at);
    }
    there
}

fn query(case: &mut Case, at: usize) -> bool {
    case.queries.len() > 1 && remove(&mut case.queries, at)
}

fn step(case: &mut Case, at: usize) -> bool {
    remove(&mut case.steps, at)
}

fn batches(case: &mut Case) -> impl Iterator<Item = &mut Vec<Vec<Op>>> {
    case.steps.iter_mut().filter_map(|step| match step {
        Step::Commit(batch) => Some(batch),
        Step::Index(..) | Step::Reopen => None,
    })
}

fn transaction(case: &mut Case, mut at: usize) -> bool {
    for batch in batches(case) {
        if remove(batch, at) {
            return true;
        }
        at -= batch.len();
    }
    false
}

fn op(case: &mut Case, mut at: usize) -> bool {
    for transaction in batches(case).flatten() {
        if remove(transaction, at) {
            return true;
        }
        at -= transaction.len();
    }
    false
}

fn rule(case: &mut Case, at: usize) -> bool {
    let name = case.rules.keys().nth(at).cloned();
    name.is_some_and(|name| case.rules.remove(&name).is_some())
}

fn key(case: &mut Case, at: usize) -> bool {
    let name = case.keys.keys().nth(at).cloned();
    name.is_some_and(|name| case.keys.remove(&name).is_some())
}

fn index(case: &mut Case, mut at: usize) -> bool {
    for table in &mut case.tables {
        if remove(&mut table.indexes, at) {
            return true;
        }
        at -= table.indexes.len();
    }
    false
}

/// Long texts become short, all at once.
fn short(case: &mut Case, at: usize) -> bool {
    let rows = batches(case).flatten().flatten().flat_map(|op| match op {
        Op::Insert(_, row) | Op::Delete(_, row) => vec![row],
        Op::Update(_, key, row) => vec![key, row],
        Op::Truncate(_) => Vec::new(),
    });
    let mut any = false;
    for text in rows.flatten().flatten() {
        if text.starts_with("xx") {
            *text = text.trim_start_matches('x').to_owned();
            any = true;
        }
    }
    any && at == 0
}

/// A value that is written becomes null.
fn value(case: &mut Case, mut at: usize) -> bool {
    let tables = case.tables.clone();
    for op in batches(case).flatten().flatten() {
        let (Op::Insert(table, row) | Op::Update(table, _, row)) = op else {
            continue;
        };
        let columns = &tables[*table].columns;
        for (value, (_, _, nullable)) in row.iter_mut().zip(columns) {
            if *nullable && value.is_some() {
                if at == 0 {
                    *value = None;
                    return true;
                }
                at -= 1;
            }
        }
    }
    false
}

fn simpler_query(case: &mut Case, mut at: usize) -> bool {
    case.queries.iter_mut().any(|ast| simpler(ast, &mut at))
        || case
            .rules
            .values_mut()
            .any(|rule| simpler_condition(rule, &mut at))
}

/// Whether it is this one's turn.
fn turn(applies: bool, at: &mut usize) -> bool {
    let now = applies && *at == 0;
    if applies && !now {
        *at -= 1;
    }
    now
}

fn simpler(ast: &mut Ast, at: &mut usize) -> bool {
    if turn(ast.filter.is_some(), at) {
        ast.filter = None;
        return true;
    }
    if turn(ast.start.is_some(), at) {
        ast.start = None;
        return true;
    }
    if turn(ast.limit.is_some(), at) {
        ast.limit = None;
        return true;
    }
    for by in 0..ast.order_by.as_ref().map_or(0, Vec::len) {
        if turn(true, at) {
            return ast.order_by.as_mut().is_some_and(|order| remove(order, by));
        }
    }
    for child in 0..ast.related.len() {
        if turn(true, at) {
            return remove(&mut ast.related, child);
        }
        if simpler(&mut ast.related[child].subquery, at) {
            return true;
        }
    }
    ast.filter
        .as_mut()
        .is_some_and(|filter| simpler_condition(filter, at))
}

fn simpler_condition(condition: &mut Condition, at: &mut usize) -> bool {
    match condition {
        Condition::Simple { .. } => false,
        Condition::CorrelatedSubquery {
            related,
            flip,
            scalar,
            ..
        } => {
            if turn(flip.is_some() || scalar.is_some(), at) {
                (*flip, *scalar) = (None, None);
                return true;
            }
            let fields = &mut related.correlation;
            if turn(fields.parent_field.len() > 1, at) {
                return fields.parent_field.pop().is_some() && fields.child_field.pop().is_some();
            }
            simpler(&mut related.subquery, at)
        }
        Condition::And { conditions } | Condition::Or { conditions } => {
            for member in 0..conditions.len() {
                if turn(true, at) {
                    return remove(conditions, member);
                }
                if simpler_condition(&mut conditions[member], at) {
                    return true;
                }
            }
            if turn(conditions.len() == 1, at) {
                *condition = conditions.remove(0);
                return true;
            }
            false
        }
    }
}
