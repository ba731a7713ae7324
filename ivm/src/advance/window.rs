//! How the window of a limited partition changes.

use std::collections::HashSet;

use kelvin_protocol::Value;
use kelvin_storage::{Row, RowId};

use super::Step;
use super::candidates::Candidate;
use crate::Error;
use crate::plan::node::Node;
use crate::reader::Ahead;
use crate::state::{Spot, Window};

/// What happened to the view of a partition. A row that stays but was written both leaves and
/// enters.
#[derive(Default)]
pub(super) struct WindowChange {
    /// As they were before the step.
    pub(super) left: Vec<Row>,
    /// As they are after it.
    pub(super) entered: Vec<Row>,
}

/// Brings a window up to date.
///
/// Every row that passed before and did not sort behind the last known one was known, so all that
/// can be known now are its rows that are no candidates, candidates that do not sort behind the
/// end, and, if these are too few, rows from behind the end. Only rows that cross the end of the
/// view without being candidates have to be read.
pub(super) fn advance(
    step: &Step<'_>,
    node: &Node,
    limit: usize,
    partition: &[Value],
    window: &mut Window,
    candidates: &[Candidate<'_>],
) -> Result<WindowChange, Error> {
    if let Some(change) = in_place(step, node, limit, window, candidates)? {
        return Ok(change);
    }
    let order = &node.order;
    let end = window.end(limit);
    let mut change = WindowChange::default();
    // Of the rows that are known, so many come first that were in the view, beside rows that were
    // put among them.
    let mut seen = window.len().min(limit);

    for row in candidates.iter().filter_map(|candidate| candidate.old) {
        if window.take(order, row).is_some_and(|at| at < seen) {
            seen -= 1;
            change.left.push(row.clone());
        }
    }
    let mut incoming = Vec::new();
    for row in candidates.iter().filter_map(|candidate| candidate.new) {
        let behind = |end: &Spot| order.compare_row(row, &end.place).is_gt();
        if !end.as_ref().is_some_and(behind) && step.after.passes(node, row)? {
            let at = window.put(order, row);
            seen += usize::from(at < seen);
            incoming.push(row);
        }
    }
    let written: HashSet<RowId> = incoming.iter().map(|row| row.id).collect();
    let mut read = Vec::new();
    let known = window.len();
    if let Some(end) = &end
        && known < limit
    {
        let ahead = Ahead {
            needed: limit - known,
            more: window.read_ahead(limit),
        };
        read = step.after.rows_after(node, partition, &end.place, ahead)?;
        window.extend(order, &read);
    }

    // Rows that are no candidates keep their order, so those that crossed the end of the view stand
    // together, but for candidates among them.
    let in_view = window.len().min(limit);
    let known = known.min(in_view);
    let others = |spot: &Spot| !written.contains(&spot.id);
    for spot in window.spots_at(limit..seen).filter(others) {
        change.left.push(step.before.row_at(node, &spot)?);
    }
    for spot in window.spots_at(seen..known).filter(others) {
        change.entered.push(step.after.row_at(node, &spot)?);
    }
    read.truncate(in_view - known);
    change.entered.append(&mut read);
    let enters = |row: &&Row| window.position(order, row).is_some_and(|at| at < in_view);
    let written = incoming.into_iter().filter(enters);
    change.entered.extend(written.cloned());
    window.shorten(limit);
    Ok(change)
}

/// A single row that was written and stays where it is, by which nothing else moves.
fn in_place(
    step: &Step<'_>,
    node: &Node,
    limit: usize,
    window: &Window,
    candidates: &[Candidate<'_>],
) -> Result<Option<WindowChange>, Error> {
    let [
        Candidate {
            old: Some(old),
            new: Some(new),
        },
    ] = candidates
    else {
        return Ok(None);
    };
    if !node.order.is_same_place(old, new) {
        return Ok(None);
    }
    let Some(at) = window.position(&node.order, old) else {
        return Ok(None);
    };
    if !step.after.passes(node, new)? {
        return Ok(None);
    }
    let in_view = |row: &Row| (at < limit).then(|| row.clone()).into_iter().collect();
    Ok(Some(WindowChange {
        left: in_view(old),
        entered: in_view(new),
    }))
}
