//! The rows of a limited partition, by place.

use std::ops::Range;

use kelvin_protocol::{Value, ValueRef};
use kelvin_storage::{Row, RowId};

use super::places::{Place, Places};
use crate::order::RowOrder;

/// Rows that are known behind the end of a window, at most: as many as the window holds, or this.
const MOST_BEHIND: usize = 32;

/// The first rows of a partition: those in the view, and some that come right behind them.
///
/// A row that leaves the view is thereby followed by one that is known, and the index is read only
/// once in a while. What is known behind the end is gathered where it costs nothing, from rows that
/// are pushed out of the view, and read ahead only for a window that keeps losing rows.
///
/// INVARIANT: no row of the partition that is not here comes before the last one that is. If there
/// are fewer rows than the limit allows, these are all there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// In order, with the numbers of the rows; none where the node has no limit.
    places: Places,
    /// How many times it had to be refilled.
    refills: u8,
}

/// A row in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Its values in the columns of the order; the replica's key is among them.
    pub(crate) place: Box<[Value]>,
    pub(crate) id: RowId,
}

impl Window {
    /// An empty one.
    pub(crate) fn of(order: &RowOrder) -> Self {
        Self {
            places: Places::new(order.columns.len()),
            refills: 0,
        }
    }

    /// Rows that are known.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The row at a position.
    fn spot(&self, at: usize) -> Option<Spot> {
        self.places.get(at).map(spot)
    }

    /// The rows at these positions, as far as there are any.
    pub(crate) fn spots_at(&self, positions: Range<usize>) -> impl Iterator<Item = Spot> + '_ {
        positions.map_while(|at| self.spot(at))
    }

    /// The rows that are known, in order.
    pub(crate) fn spots(&self) -> impl Iterator<Item = Spot> + '_ {
        self.places.iter().map(spot)
    }

    /// The rows in the view.
    pub(crate) fn in_view(&self, limit: usize) -> impl Iterator<Item = Spot> + '_ {
        self.spots().take(limit)
    }

    /// The last row that is known, if there may be others behind it.
    pub(crate) fn end(&self, limit: usize) -> Option<Spot> {
        let len = self.len();
        self.spot(len.checked_sub(1)?).filter(|_| len >= limit)
    }

    /// Puts a row where it belongs; its position.
    pub(crate) fn put(&mut self, order: &RowOrder, row: &Row) -> usize {
        let compare = |a: &[ValueRef<'_>], b: &[ValueRef<'_>]| order.compare_refs(a, b);
        self.places.put(&order.refs(row), row.id.into(), compare)
    }

    /// Where a row is, if it is known.
    pub(crate) fn position(&self, order: &RowOrder, row: &Row) -> Option<usize> {
        let compare = |a: &[ValueRef<'_>], b: &[ValueRef<'_>]| order.compare_refs(a, b);
        let (at, id) = self.places.find(&order.refs(row), compare)?;
        (id == i64::from(row.id)).then_some(at)
    }

    /// Takes a row out; where it was, if it was known.
    pub(crate) fn take(&mut self, order: &RowOrder, row: &Row) -> Option<usize> {
        let compare = |a: &[ValueRef<'_>], b: &[ValueRef<'_>]| order.compare_refs(a, b);
        self.places.remove(&order.refs(row), row.id.into(), compare)
    }

    /// Adds rows that come behind all that are known, in order.
    pub(crate) fn extend(&mut self, order: &RowOrder, rows: &[Row]) {
        let entries = rows.iter().map(|row| (order.refs(row), row.id.into()));
        self.places.extend(entries);
    }

    /// How many rows to read beyond those that are missing: none at first, ever more for a window
    /// that keeps losing rows.
    pub(crate) fn read_ahead(&mut self, limit: usize) -> usize {
        let ahead = (1_usize << self.refills.min(8)) - 1;
        self.refills = self.refills.saturating_add(1);
        ahead.min(most_behind(limit))
    }

    /// Lets go of what is known too far behind the end. Not of every row at once, so that the end
    /// moves rarely.
    pub(crate) fn shorten(&mut self, limit: usize) {
        let behind = most_behind(limit);
        if self.len() > limit.saturating_add(behind) {
            self.places.truncate(limit.saturating_add(behind / 2));
        }
    }
}

fn most_behind(limit: usize) -> usize {
    limit.min(MOST_BEHIND)
}

fn spot((place, id): Place) -> Spot {
    let id = RowId::try_from(id).unwrap_or_default();
    Spot { place, id }
}

/// The windows of several partitions, filled with rows that come partition by partition.
pub(crate) struct Filling<'a> {
    order: &'a RowOrder,
    windows: Vec<Window>,
    /// Rows of the partition that is being filled.
    rows: Vec<Row>,
    at: usize,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(order: &'a RowOrder, windows: usize) -> Self {
        Self {
            order,
            windows: vec![Window::of(order); windows],
            rows: Vec::new(),
            at: 0,
        }
    }

    /// Adds the next row of the window at a position.
    pub(crate) fn push(&mut self, at: usize, row: &Row) {
        if at != self.at {
            self.pack();
            self.at = at;
        }
        self.rows.push(row.clone());
    }

    fn pack(&mut self) {
        if let Some(window) = self.windows.get_mut(self.at) {
            window.extend(self.order, &self.rows);
        }
        self.rows.clear();
    }

    pub(crate) fn finish(mut self) -> Vec<Window> {
        self.pack();
        self.windows
    }
}
