//! The first few of many rows that come in no order.

use kelvin_protocol::Value;
use kelvin_storage::Row;

use crate::order::RowOrder;

/// Rows kept beyond the limit before they are sorted and cut.
const SLACK: usize = 64;

/// Keeps the first `limit` rows by `order` in O(limit) memory.
pub(super) struct Top<'a> {
    order: &'a RowOrder,
    limit: usize,
    rows: Vec<(Box<[Value]>, Row)>,
    /// Whether the first `limit` rows are sorted and nothing after the last of them matters.
    cut: bool,
}

impl<'a> Top<'a> {
    pub(super) fn new(order: &'a RowOrder, limit: usize) -> Self {
        Self {
            order,
            limit,
            rows: Vec::new(),
            cut: false,
        }
    }

    /// Whether a row at this place can be among the first.
    pub(super) fn wants(&self, place: &[Value]) -> bool {
        if !self.cut {
            return true;
        }
        let last = self.limit.checked_sub(1).and_then(|at| self.rows.get(at));
        last.is_some_and(|(last, _)| self.order.compare(place, last).is_lt())
    }

    pub(super) fn push(&mut self, place: Box<[Value]>, row: Row) {
        self.rows.push((place, row));
        if self.rows.len() >= self.limit.saturating_mul(2).saturating_add(SLACK) {
            self.sort();
        }
    }

    /// Rows taken so far: at least as many as there were, or as the limit allows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn sort(&mut self) {
        self.rows.sort_by(|(a, _), (b, _)| self.order.compare(a, b));
        self.rows.truncate(self.limit);
        self.cut = self.rows.len() == self.limit;
    }

    /// The rows, in order.
    pub(super) fn finish(mut self) -> impl Iterator<Item = Row> {
        self.sort();
        self.rows.into_iter().map(|(_, row)| row)
    }
}
