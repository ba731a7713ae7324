//! The window of a limited partition: its first rows, kept by place.

use std::cmp::Ordering;
use std::collections::HashSet;

use kelvin_protocol::Value;
use kelvin_storage::Row;

use super::Step;
use super::candidates::Candidate;
use crate::Error;
use crate::order::RowOrder;
use crate::plan::node::Node;
use crate::state::Spot;

/// What happened to a window. A row that stays but was written both leaves and enters.
#[derive(Default)]
pub(super) struct WindowChange {
    /// As they were before the step.
    pub(super) left: Vec<Spot>,
    /// As they are after it.
    pub(super) entered: Vec<Row>,
}

/// Brings a window up to date.
///
/// Every row that passed before and did not sort behind the window's end was in the window, so all
/// that can be in it now are its rows that are no candidates, candidates that do not sort behind
/// the end, and, if these are too few, rows from behind the end.
pub(super) fn advance(
    step: &Step<'_>,
    node: &Node,
    limit: usize,
    partition: &[Value],
    window: &mut Vec<Spot>,
    candidates: &[Candidate<'_>],
) -> Result<WindowChange, Error> {
    let order = &node.order;
    let end = window
        .last()
        .filter(|_| window.len() >= limit)
        .map(|spot| spot.place.clone());
    let gone: HashSet<_> = candidates
        .iter()
        .filter_map(|c| c.old)
        .map(|row| row.id)
        .collect();
    let (mut left, stayed): (Vec<Spot>, Vec<Spot>) = std::mem::take(window)
        .into_iter()
        .partition(|spot| gone.contains(&spot.id));

    let mut incoming = Vec::new();
    for row in candidates.iter().filter_map(|candidate| candidate.new) {
        let spot = Spot::of(order, row);
        let behind = end
            .as_ref()
            .is_some_and(|end| order.compare(&spot.place, end).is_gt());
        if !behind && step.after.passes(node, row)? {
            incoming.push((spot, row));
        }
    }
    incoming.sort_by(|(a, _), (b, _)| order.compare(&a.place, &b.place));

    let (merged, mut entered) = merge(order, limit, stayed, incoming, &mut left);
    *window = merged;
    if let Some(end) = end
        && window.len() < limit
    {
        let missing = limit - window.len();
        for row in step.after.rows_after(node, partition, &end, missing)? {
            window.push(Spot::of(order, &row));
            entered.push(row);
        }
    }
    Ok(WindowChange { left, entered })
}

/// The first `limit` of both lists. Rows of `stayed` that are not among them go to `left`.
fn merge(
    order: &RowOrder,
    limit: usize,
    stayed: Vec<Spot>,
    incoming: Vec<(Spot, &Row)>,
    left: &mut Vec<Spot>,
) -> (Vec<Spot>, Vec<Row>) {
    let (mut window, mut entered) = (Vec::with_capacity(stayed.len()), Vec::new());
    let mut stayed = stayed.into_iter().peekable();
    let mut incoming = incoming.into_iter().peekable();
    while window.len() < limit {
        let ordering = match (stayed.peek(), incoming.peek()) {
            (Some(a), Some((b, _))) => order.compare(&a.place, &b.place),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        if ordering.is_le() {
            window.extend(stayed.next());
        } else if let Some((spot, row)) = incoming.next() {
            window.push(spot);
            entered.push(row.clone());
        }
    }
    left.extend(stayed);
    (window, entered)
}
