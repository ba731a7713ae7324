//! The rows of a limited partition, by place.

use kelvin_protocol::Value;
use kelvin_storage::{Row, RowId};

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
    /// In order; empty where the node has no limit.
    pub(crate) spots: Vec<Spot>,
    /// How many times it had to be refilled.
    refills: u8,
}

/// A row in a window.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// Its values in the columns of the order; the replica's key is among them.
    pub(crate) place: Box<[Value]>,
    pub(crate) id: RowId,
}

impl Spot {
    pub(crate) fn of(order: &RowOrder, row: &Row) -> Self {
        Self {
            place: order.place(row),
            id: row.id,
        }
    }
}

impl Window {
    /// The rows in the view.
    pub(crate) fn in_view(&self, limit: usize) -> &[Spot] {
        self.spots.get(..limit).unwrap_or(&self.spots)
    }

    /// The last row that is known, if there may be others behind it.
    pub(crate) fn end(&self, limit: usize) -> Option<&Spot> {
        self.spots.last().filter(|_| self.spots.len() >= limit)
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
        if self.spots.len() > limit.saturating_add(behind) {
            self.spots.truncate(limit.saturating_add(behind / 2));
            self.spots.shrink_to(limit.saturating_add(behind));
        }
    }
}

fn most_behind(limit: usize) -> usize {
    limit.min(MOST_BEHIND)
}
