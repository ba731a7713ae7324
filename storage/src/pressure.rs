//! Keeping what the engine buffers within bounds: memory, journals, and waits.
//!
//! The engine lets writers wait in loops that never look whether its own threads have died, and its
//! queues hold so many entries and then block. So writers wait here instead, before they go in, and
//! no more flushes are asked for at once than the queues can take.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjall::{AbstractTree, Keyspace};

use crate::counters::get;
use crate::error::{Error, Result};
use crate::gate::WriteGate;
use crate::layout::is_bucket_keyspace;

/// Time between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(2);
/// Looks in a row that may find no progress at all: two minutes.
const PATIENCE: u32 = 60_000;
/// Bytes of a memtable that are worth a file, however small the table is.
const MEMTABLE: u64 = 8 * 1024 * 1024;
/// Part of a table that is buffered in memory, if that is more.
const TABLE_FRACTION: u64 = 8;
/// Sealed memtables a keyspace may have before a commit. A commit adds two at most: one that was
/// asked for before and its own. With four the engine would let the writer sleep.
const SEALED: usize = 1;
/// Runs of level 0 a keyspace may have before a commit; with 30 the engine would let the writer
/// sleep, and the memtables on their way add fewer than the difference.
const RUNS: usize = 24;
/// Flushes that may wait for the engine's threads. Its queues hold 1,000 entries, and each flush
/// brings compactions with it.
const FLUSHES: usize = 64;
/// A smaller budget would be spent on nothing but flushes.
const MIN_BUDGET: u64 = 256 * 1024;
/// Bytes written between two looks at the journals.
const JOURNAL_STEP: u64 = 4 * 1024 * 1024;

/// What moves while the engine works.
type Progress = (u64, usize, usize, usize);

impl WriteGate {
    /// Makes room before a batch. Memory is bounded by the budget and the batch that follows.
    /// `keyspaces` gives all there are; it is asked only if something has to be flushed.
    ///
    /// # Errors
    /// [`Error::Stalled`] if the engine makes no progress, else what it brings up.
    pub(crate) fn make_room(&self, keyspaces: impl Fn() -> Vec<Keyspace>) -> Result<()> {
        if self.buffered() >= self.relieve_at.load(Ordering::Relaxed) {
            self.bound_memory(&keyspaces())?;
        }
        let written = get(&self.counters.bytes);
        let looked = self.journals_looked_at.load(Ordering::Relaxed);
        if written.saturating_sub(looked) >= JOURNAL_STEP {
            self.journals_looked_at.store(written, Ordering::Relaxed);
            self.bound_journals(&keyspaces())?;
        }
        Ok(())
    }

    /// Has a keyspace put a memtable that is full on the disk, and waits until it can take another
    /// batch without letting the writer sleep. One that is nearly full is left to a thread for that,
    /// so that the writer seldom has to.
    ///
    /// # Errors
    /// As [`WriteGate::make_room`].
    pub(crate) fn admit(&self, keyspace: &Keyspace) -> Result<()> {
        let tree = &keyspace.tree;
        let size = tree.active_memtable().size();
        // What it may have costs more to find out than that it has less than anyone.
        if size > self.options.memtable_bytes.min(MEMTABLE) / 4 * 3 {
            let limit = self.memtable_limit(keyspace);
            if size > limit {
                self.start_flush(keyspace)?;
            } else if size > limit / 4 * 3 && self.can_flush(keyspace) {
                self.sealer.request(keyspace);
            }
        }
        self.wait_while(|| tree.sealed_memtable_count() > SEALED || tree.l0_run_count() >= RUNS)
    }

    /// Bytes a memtable of a keyspace may have before a batch.
    ///
    /// The engine merges files when there are a few of them, with all that they overlap: the larger
    /// they are, the less is written again and again. Until then what they replace takes up space,
    /// so they shall be small beside the rest of the table. The history replaces nothing.
    fn memtable_limit(&self, keyspace: &Keyspace) -> u64 {
        let most = self.options.memtable_bytes;
        if most <= MEMTABLE || is_bucket_keyspace(keyspace.name()) {
            return most;
        }
        (keyspace.disk_space() / TABLE_FRACTION).clamp(MEMTABLE, most)
    }

    /// Bytes all memtables together may take.
    fn budget(&self) -> u64 {
        self.options.write_buffer_bytes.max(MIN_BUDGET)
    }

    /// Flushes the largest memtables, and the oldest among equals, until half of the budget is free
    /// or on its way to be; waits only while all of it is taken.
    fn bound_memory(&self, keyspaces: &[Keyspace]) -> Result<()> {
        let budget = self.budget();
        let mut active: Vec<_> = keyspaces
            .iter()
            .map(|keyspace| (keyspace, keyspace.tree.active_memtable()))
            .filter(|(_, memtable)| memtable.size() > 0)
            .collect();
        active.sort_by_cached_key(|(_, memtable)| {
            (Reverse(memtable.size()), memtable.get_highest_seqno())
        });
        let total: u64 = active.iter().map(|(_, memtable)| memtable.size()).sum();
        if !self.is_flushing(keyspaces) {
            self.correct(total);
        }
        let mut excess = total.saturating_sub(budget / 2);
        for (keyspace, memtable) in active {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(memtable.size());
            drop(memtable);
            self.start_flush(keyspace)?;
        }
        self.wait_while(|| self.buffered() >= budget && self.is_flushing(keyspaces))?;
        // The next look is due when half of what is left is used up.
        let next = self.buffered().midpoint(budget).max(budget / 4 * 3);
        self.relieve_at.store(next, Ordering::Relaxed);
        Ok(())
    }

    /// Starts flushes of the keyspaces that were written to the longest time ago, if the journals
    /// are over their limit, and waits if they are over twice the limit. A journal is removed when
    /// all it holds is flushed, and a table nobody writes to any more would never be flushed for
    /// its size. Returns how many flushes were started.
    ///
    /// # Errors
    /// As [`WriteGate::make_room`].
    pub(crate) fn bound_journals(&self, keyspaces: &[Keyspace]) -> Result<usize> {
        let limit = self.options.journal_bytes;
        // The journal that is written to is allocated ahead and cannot be removed.
        let exceeds = |limit| -> Result<bool> {
            let bytes = self.db.journal_disk_space();
            let bytes = bytes.map_err(|error| self.explain(error))?;
            Ok(self.db.journal_count() > 1 && bytes > limit)
        };
        if !exceeds(limit)? {
            return Ok(0);
        }
        let mut laggards: Vec<_> = keyspaces
            .iter()
            .filter_map(|keyspace| {
                let written = keyspace.tree.active_memtable().get_highest_seqno()?;
                Some((written, keyspace))
            })
            .collect();
        laggards.sort_by_key(|(written, _)| *written);
        let mut started = 0;
        for (_, keyspace) in laggards {
            let urgent = exceeds(limit.saturating_mul(2))?;
            if !urgent && (started >= FLUSHES || self.db.outstanding_flushes() >= FLUSHES) {
                break;
            }
            self.start_flush(keyspace)?;
            started += 1;
        }
        let flushing = |keyspaces| self.is_flushing(keyspaces);
        let urgent = || exceeds(limit.saturating_mul(2)).unwrap_or(false);
        self.wait_while(|| urgent() && flushing(keyspaces))?;
        Ok(started)
    }

    /// Seals the memtable of a keyspace and queues its flush, once there is room in the queue.
    pub(crate) fn start_flush(&self, keyspace: &Keyspace) -> Result<()> {
        self.wait_while(|| !self.can_flush(keyspace))?;
        let sealed = keyspace.rotate_memtable();
        sealed.map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// Whether there is room in the queue for a flush of a keyspace.
    fn can_flush(&self, keyspace: &Keyspace) -> bool {
        self.db.outstanding_flushes() < FLUSHES && keyspace.tree.sealed_memtable_count() <= SEALED
    }

    /// Whether anything is on its way from memory to sorted files.
    fn is_flushing(&self, keyspaces: &[Keyspace]) -> bool {
        let mut keyspaces = keyspaces.iter();
        self.db.outstanding_flushes() > 0
            || keyspaces.any(|keyspace| keyspace.tree.sealed_memtable_count() > 0)
    }

    /// Waits while `busy`, for as long as the engine makes progress.
    fn wait_while(&self, busy: impl Fn() -> bool) -> Result<()> {
        if !busy() {
            return Ok(());
        }
        let started = self.clock.now();
        let (mut last, mut idle) = (self.progress(), 0);
        while busy() {
            self.check()?;
            std::thread::sleep(POLL);
            let now = self.progress();
            idle = if now == last { idle + 1 } else { 0 };
            last = now;
            if idle >= PATIENCE {
                return Err(Error::Stalled);
            }
        }
        let took = self.clock.now().saturating_sub(started);
        self.counters.stalled(took);
        Ok(())
    }

    fn progress(&self) -> Progress {
        let db = &self.db;
        (
            db.write_buffer_size(),
            db.outstanding_flushes(),
            db.compactions_completed(),
            db.journal_count(),
        )
    }
}
