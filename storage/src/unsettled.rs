//! Keeping a replica of very many tables in a state the engine can open.
//!
//! When it opens its files, the engine queues a task for each keyspace that has something to flush
//! or to compact. The queue holds 1,000 tasks and nobody empties it yet, so that one more blocks
//! the opening for good. As long as fewer keyspaces than half of that wait to be flushed, and fewer
//! than half to be compacted, it cannot come to that.

use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{AbstractTree, Keyspace};

use crate::error::{Error, Result};
use crate::gate::WriteGate;

/// Keyspaces that may have something in memory, and keyspaces that may have something in level 0.
const UNSETTLED: usize = 400;
/// Keyspaces that are flushed, and keyspaces that are compacted, in one round of upkeep.
const ROUND: usize = 64;

impl WriteGate {
    /// Flushes tables that were not written to for long, and compacts small ones, where too many
    /// wait for it. The work of one round is bounded.
    ///
    /// # Errors
    /// As [`WriteGate::make_room`].
    pub(crate) fn settle(&self, keyspaces: &[Keyspace]) -> Result<()> {
        if keyspaces.len() <= 2 * UNSETTLED {
            return Ok(());
        }
        let mut buffered: Vec<_> = keyspaces
            .iter()
            .filter_map(|keyspace| {
                let written = keyspace.tree.active_memtable().get_highest_seqno()?;
                Some((written, keyspace))
            })
            .collect();
        buffered.sort_by_key(|(written, _)| *written);
        let excess = buffered.len().saturating_sub(UNSETTLED);
        for (_, keyspace) in buffered.into_iter().take(excess.min(ROUND)) {
            self.start_flush(keyspace)?;
        }
        let mut stacked: Vec<_> = stacked(keyspaces).collect();
        stacked.sort_by_cached_key(|keyspace| keyspace.disk_space());
        let excess = stacked.len().saturating_sub(UNSETTLED);
        for keyspace in stacked.into_iter().take(excess.min(ROUND)) {
            self.empty_level_0(keyspace)?;
        }
        Ok(())
    }

    /// Merges level 0 of a keyspace into the next level. The engine by itself waits for a few more
    /// flushes, which an idle table never has.
    fn empty_level_0(&self, keyspace: &Keyspace) -> Result<()> {
        let strategy = Arc::new(Leveled::default().with_l0_threshold(1));
        // Zero keeps every version that somebody may still read.
        let compacted = keyspace.tree.compact(strategy, 0);
        compacted.map_err(|error| self.faults.explain(Error::from(fjall::Error::from(error))))
    }
}

/// Keyspaces that have something in level 0.
pub(crate) fn stacked(keyspaces: &[Keyspace]) -> impl Iterator<Item = &Keyspace> {
    keyspaces
        .iter()
        .filter(|keyspace| keyspace.tree.l0_run_count() > 0)
}
