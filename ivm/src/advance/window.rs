//! How the window of a limited partition changes.

use std::collections::HashSet;

use kelvin_protocol::Value;
use kelvin_storage::{Row, RowId};

use super::Step;
use super::candidates::Candidate;
use crate::Error;
use crate::order::RowOrder;
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
    let order = &node.order;
    let place = |spot: &Spot| spot.place.clone();
    let end = window.end(limit).map(place);
    let last = window.in_view(limit).last().filter(|_| end.is_some());
    let last = last.map(place);
    let was_in_view = |spot: &&Spot| {
        let last = last.as_ref();
        last.is_none_or(|last| order.compare(&spot.place, last).is_le())
    };
    let mut change = WindowChange::default();

    for row in take_out(order, &mut window.spots, candidates) {
        let last = last.as_ref();
        if last.is_none_or(|last| order.compare_row(row, last).is_le()) {
            change.left.push(row.clone());
        }
    }
    let mut incoming = Vec::new();
    for row in candidates.iter().filter_map(|candidate| candidate.new) {
        let behind = |end: &[Value]| order.compare_row(row, end).is_gt();
        if !end.as_deref().is_some_and(behind) && step.after.passes(node, row)? {
            incoming.push(row);
        }
    }
    let written = put_in(order, &mut window.spots, &incoming);
    let mut read = Vec::new();
    let known = window.spots.len();
    if let Some(end) = &end
        && known < limit
    {
        let ahead = Ahead {
            needed: limit - known,
            more: window.read_ahead(limit),
        };
        read = step.after.rows_after(node, partition, end, ahead)?;
        let spots = read.iter().map(|row| Spot::of(order, row));
        window.spots.extend(spots);
    }

    let (in_view, behind) = window.spots.split_at(window.spots.len().min(limit));
    // Rows that are no candidates keep their order, so those that crossed the end of the view stand
    // together, but for candidates among them.
    let crossed = behind.iter().take_while(was_in_view);
    for spot in crossed.filter(|spot| !written.contains(&spot.id)) {
        change.left.push(step.before.row_at(node, spot)?);
    }
    let (in_view, refilled) = in_view.split_at(known.min(in_view.len()));
    let crossed = in_view.iter().rev();
    let crossed = crossed.take_while(|spot| !was_in_view(spot));
    for spot in crossed.filter(|spot| !written.contains(&spot.id)) {
        change.entered.push(step.after.row_at(node, spot)?);
    }
    read.truncate(refilled.len());
    change.entered.append(&mut read);
    let enters = |row: &&&Row| {
        let last = in_view.last();
        last.is_some_and(|last| order.compare_row(row, &last.place).is_le())
    };
    let written = incoming.iter().filter(enters).copied();
    change.entered.extend(written.cloned());
    window.shorten(limit);
    Ok(change)
}

/// Removes what candidates were before; gives those of them that were there.
fn take_out<'c>(
    order: &RowOrder,
    spots: &mut Vec<Spot>,
    candidates: &[Candidate<'c>],
) -> Vec<&'c Row> {
    let (mut taken, mut places) = (Vec::new(), Vec::new());
    for row in candidates.iter().filter_map(|candidate| candidate.old) {
        let found = spots.binary_search_by(|spot| order.compare_row(row, &spot.place).reverse());
        if let Ok(at) = found
            && spots.get(at).is_some_and(|spot| spot.id == row.id)
        {
            taken.push(row);
            places.push(at);
        }
    }
    if let [only] = places[..] {
        spots.remove(only);
    } else if !places.is_empty() {
        places.sort_unstable();
        let (mut next, mut at) = (places.into_iter().peekable(), 0);
        spots.retain(|_| {
            let goes = next.next_if_eq(&at).is_some();
            at += 1;
            !goes
        });
    }
    taken
}

/// Puts rows where they belong; gives their numbers.
fn put_in(order: &RowOrder, spots: &mut Vec<Spot>, rows: &[&Row]) -> HashSet<RowId> {
    if let [only] = rows {
        let at = spots.partition_point(|spot| order.compare_row(only, &spot.place).is_gt());
        spots.insert(at, Spot::of(order, only));
    } else if !rows.is_empty() {
        spots.extend(rows.iter().map(|row| Spot::of(order, row)));
        spots.sort_by(|a, b| order.compare(&a.place, &b.place));
    }
    rows.iter().map(|row| row.id).collect()
}
