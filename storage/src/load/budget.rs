//! Memory that all parts of a load share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run::FAN_IN;

/// Reservations grow by this much, so that parts do not meet at one counter for every row.
const STEP: u64 = 64 * 1024;
/// A buffer smaller than this is not spilled, however many parts share the memory.
const MIN_SPILL: u64 = 256 * 1024;
/// Runs on disk are read in pieces between these sizes.
const MIN_READ: usize = 16 * 1024;
const MAX_READ: usize = 1024 * 1024;

/// What is reserved of a limit.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
    /// What of it waits sorted until the end.
    kept: AtomicU64,
    /// Parts that still collect rows.
    parts: AtomicU64,
}

/// Bytes reserved of a budget until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            parts: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self) {
        self.parts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.parts.fetch_sub(1, Ordering::Release);
    }

    /// How many parts still collect rows.
    pub(super) fn parts(&self) -> u64 {
        self.parts.load(Ordering::Acquire)
    }

    /// Whether a part that collected so much has to spill. Each part has a share for what it
    /// collects and as much again for what is on its way to the disk; what waits for the end comes
    /// off first. An eighth is left free, since a buffer grows by an eighth of itself.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        let free = self.limit - self.kept.load(Ordering::Relaxed).min(self.limit);
        let share = free / 2 / self.parts.load(Ordering::Relaxed).max(1);
        bytes >= MIN_SPILL && (bytes >= share - share / 8 || self.is_exceeded())
    }

    /// Whether more is reserved than there is: shares were larger before another part came.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }

    /// Whether so much may wait in memory until the end. It counts as waiting if so.
    pub(super) fn keep(&self, bytes: u64) -> bool {
        let keep = |kept: u64| (kept + bytes <= self.limit / 2).then_some(kept + bytes);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.kept.fetch_update(set, fetch, keep).is_ok()
    }

    /// So much does not wait any more.
    pub(super) fn give_back(&self, bytes: u64) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes a merge may hold of each run on disk, where `merges` go on at once: together a half of
    /// the limit, since the other half may be waiting to be merged.
    pub(super) fn read_bytes(limit: u64, merges: usize) -> usize {
        let half = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        (half / merges.max(1) / FAN_IN).clamp(MIN_READ, MAX_READ)
    }
}

impl Reservation {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Reserves at least so much.
    pub(super) fn cover(&mut self, bytes: u64) {
        if bytes > self.bytes {
            let more = (bytes - self.bytes).next_multiple_of(STEP);
            self.budget.used.fetch_add(more, Ordering::Relaxed);
            self.bytes += more;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn shares_shrink_with_parts_and_with_what_waits() {
        let budget = Arc::new(Budget::new(64 * MIB));
        budget.enter();
        assert!(!budget.is_full(27 * MIB));
        assert!(budget.is_full(28 * MIB));
        budget.enter();
        assert!(budget.is_full(14 * MIB));
        assert!(budget.keep(32 * MIB));
        assert!(!budget.keep(1));
        assert!(budget.is_full(7 * MIB));
        budget.leave();
        assert!(!budget.is_full(13 * MIB));
        assert_eq!(budget.parts(), 1);
    }

    #[test]
    fn a_part_that_came_late_makes_others_spill_before_the_limit_is_left_behind() {
        let budget = Arc::new(Budget::new(64 * MIB));
        let mut reservation = Reservation::new(budget.clone());
        reservation.cover(65 * MIB);
        assert!(budget.is_exceeded());
        assert!(budget.is_full(MIB));
        assert!(!budget.is_full(MIN_SPILL - 1));
        drop(reservation);
        assert!(!budget.is_exceeded());
        assert!(!budget.is_full(MIB));
    }
}
