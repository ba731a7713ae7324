//! Ranks of the members of a node, side by side.

use super::interval::Interval;
use super::rank::{rank_of_high, rank_of_low};

/// Members a node has room for. Their ranks lie side by side, so looking through one wide node is
/// quicker than going down the levels of a narrow tree.
pub(super) const WIDTH: usize = 64;

/// Members that are compared at once.
const STRETCH: usize = 8;

/// From which rank to which each member reaches. What lies behind the last member holds no rank.
#[derive(Debug)]
pub(super) struct Spans {
    low: [u64; WIDTH],
    high: [u64; WIDTH],
    /// How far the members up to this one reach: the greatest of their high edges.
    reach: [u64; WIDTH],
}

impl Default for Spans {
    fn default() -> Self {
        Self {
            low: [u64::MAX; WIDTH],
            high: [0; WIDTH],
            reach: [0; WIDTH],
        }
    }
}

impl Spans {
    /// Positions of the members that this rank lies in or at an edge of, last first. Of those that
    /// begin before it, only the few are looked at behind which one reaches it.
    pub(super) fn around(&self, rank: u64) -> impl Iterator<Item = usize> + '_ {
        let begun = self.begun(rank);
        let reaching = (0..begun).rev();
        let reaching = reaching.take_while(move |at| self.reach[*at] >= rank);
        reaching.filter(move |at| self.high[*at] >= rank)
    }

    /// How many members begin at or before this rank. It is counted which stretch the first later
    /// one is in, and then where in it: these comparisons do not wait for each other, as each of a
    /// binary search does for the one before.
    fn begun(&self, rank: u64) -> usize {
        let (stretches, _) = self.low.as_chunks::<STRETCH>();
        let begun = |low: &u64| usize::from(*low <= rank);
        // Where all others end before the rank, it is in the last.
        let passed = stretches[..WIDTH / STRETCH - 1].iter();
        let passed: usize = passed.map(|[.., last]| begun(last)).sum();
        passed * STRETCH + stretches[passed].iter().map(begun).sum::<usize>()
    }

    /// Whether the rank is that of the low edge, and that of the high one.
    pub(super) fn touch(&self, at: usize, rank: u64) -> (bool, bool) {
        (self.low[at] == rank, self.high[at] == rank)
    }

    /// The rank of the first low edge and that of the last high one.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.low[0], self.reach[WIDTH - 1])
    }

    /// Positions among the first `len` whose high edge has the greatest rank.
    pub(super) fn furthest(&self, len: usize) -> impl Iterator<Item = usize> + '_ {
        let (_, greatest) = self.extent();
        (0..len).filter(move |at| self.high[*at] == greatest)
    }

    pub(super) fn set(&mut self, at: usize, (low, high): (u64, u64)) {
        self.low[at] = low;
        self.high[at] = high;
        self.measure(at);
    }

    /// Finds out how far the members from a position on reach.
    fn measure(&mut self, from: usize) {
        let before = from.checked_sub(1);
        let mut reach = before.map_or(0, |before| self.reach[before]);
        for at in from..WIDTH {
            reach = reach.max(self.high[at]);
            self.reach[at] = reach;
        }
    }

    /// Makes room before the position, where there is some left, for this one.
    pub(super) fn insert(&mut self, at: usize, interval: &Interval) {
        self.low.copy_within(at..WIDTH - 1, at + 1);
        self.high.copy_within(at..WIDTH - 1, at + 1);
        let low = rank_of_low(interval.low.as_ref());
        self.set(at, (low, rank_of_high(interval.high.as_ref())));
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.low.copy_within(at + 1.., at);
        self.high.copy_within(at + 1.., at);
        self.low[WIDTH - 1] = u64::MAX;
        self.high[WIDTH - 1] = 0;
        self.measure(at);
    }

    /// Takes away those from a position on.
    pub(super) fn split_off(&mut self, from: usize) -> Self {
        let mut off = Self::default();
        off.copy(0, self, from);
        self.low[from..].fill(u64::MAX);
        self.high[from..].fill(0);
        self.measure(from);
        off
    }

    /// Adds what `more` has, of which as much as there is room for, behind the first `len`.
    pub(super) fn append(&mut self, len: usize, more: &Self) {
        self.copy(len, more, 0);
    }

    /// Takes over what `other` has from a position on, as much as there is room for behind `at`.
    fn copy(&mut self, at: usize, other: &Self, from: usize) {
        let length = WIDTH - at.max(from);
        self.low[at..at + length].copy_from_slice(&other.low[from..from + length]);
        self.high[at..at + length].copy_from_slice(&other.high[from..from + length]);
        self.measure(at);
    }
}
