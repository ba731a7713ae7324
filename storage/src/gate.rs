//! The way of every batch into the engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fjall::{AbstractTree, Database, Keyspace, OwnedWriteBatch, PersistMode, Slice};

use crate::ReplicaOptions;
use crate::clock::Clock;
use crate::counters::{WriteCounters, add, get};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::journal::JournalSync;
use crate::sealer::Sealer;

/// A commit that took longer was held up by the engine, which lets writers wait while it cannot
/// keep up with flushes or compactions.
const HELD_UP: Duration = Duration::from_millis(50);

/// A copy of bytes that were read, to be written again.
///
/// INVARIANT: nothing that was read is written as it is. It is a part of the block it was read
/// from, all of which would stay in memory, uncounted, until the engine puts on the disk what was
/// written.
pub(crate) fn unpinned(read: &Slice) -> Slice {
    Slice::from(&read[..])
}

/// Commits batches, and counts.
pub(crate) struct WriteGate {
    /// INVARIANT: dropped first. A memtable that is sealed after the engine has ended its threads
    /// waits for them for ever, and keeps the directory locked.
    pub(crate) sealer: Sealer,
    pub(crate) db: Database,
    pub(crate) options: ReplicaOptions,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) counters: WriteCounters,
    journals: JournalSync,
    /// Bytes in memory at which the next look at all memtables is due.
    pub(crate) relieve_at: AtomicU64,
    /// Bytes that were written at the last look at the journals.
    pub(crate) journals_looked_at: AtomicU64,
    /// Bytes the engine counts as buffered that went with keyspaces that were dropped.
    dropped_bytes: AtomicU64,
    /// Block reads of keyspaces that were dropped.
    dropped_hits: AtomicU64,
    dropped_misses: AtomicU64,
}

impl WriteGate {
    pub(crate) fn new(db: &Database, directory: &Directory, options: &ReplicaOptions) -> Self {
        Self {
            db: db.clone(),
            options: options.clone(),
            clock: options.clock.clone(),
            faults: Faults::new(directory.path(), options),
            relieve_at: AtomicU64::new(options.write_buffer_bytes / 4 * 3),
            journals_looked_at: AtomicU64::new(0),
            counters: WriteCounters::default(),
            journals: JournalSync::new(directory.store()),
            sealer: Sealer::start(),
            dropped_bytes: AtomicU64::new(0),
            dropped_hits: AtomicU64::new(0),
            dropped_misses: AtomicU64::new(0),
        }
    }

    /// Commits a batch that writes to these keyspaces, once they can take it.
    ///
    /// # Errors
    /// [`Error::Stalled`](crate::Error::Stalled) if the engine makes no progress, else what writing
    /// brings up.
    pub(crate) fn commit(&self, batch: OwnedWriteBatch, keyspaces: &[Keyspace]) -> Result<()> {
        for keyspace in keyspaces {
            self.admit(keyspace)?;
        }
        let before: Vec<_> = keyspaces
            .iter()
            .map(|keyspace| {
                let memtable = keyspace.tree.active_memtable();
                (keyspace, memtable.size(), memtable)
            })
            .collect();
        let started = self.clock.now();
        batch.commit().map_err(|error| self.explain(error))?;
        let took = self.clock.now().saturating_sub(started);
        if took >= HELD_UP {
            self.counters.stalled(took);
        }
        for (keyspace, size, memtable) in before {
            let now = keyspace.tree.active_memtable();
            // A memtable that was taken away meanwhile may have got a part of the batch.
            let rest = if now.id() == memtable.id() {
                0
            } else {
                now.size()
            };
            let grown = memtable.size().saturating_sub(size);
            add(&self.counters.bytes, grown + rest);
        }
        Ok(())
    }

    /// Bytes in memory that are not in sorted files yet.
    pub(crate) fn buffered(&self) -> u64 {
        self.db
            .write_buffer_size()
            .saturating_sub(get(&self.dropped_bytes))
    }

    /// Makes everything that was committed safe from a power loss. Commits go on meanwhile.
    ///
    /// # Errors
    /// What writing brings up.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.journals.sync(&self.db);
        synced.map_err(|error| self.explain(error))
    }

    /// Finds out whether a thread of the engine has failed. Such a failure makes no sound of its
    /// own.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned) if one has, or what it has failed of.
    pub(crate) fn check(&self) -> Result<()> {
        let checked = self.db.persist(PersistMode::Buffer);
        checked.map_err(|error| self.explain(error))
    }

    /// What an error of the engine is about.
    pub(crate) fn explain(&self, error: fjall::Error) -> Error {
        self.faults.explain(error.into())
    }

    /// Takes note that the memtables hold `total` bytes, and none is on its way to a file.
    pub(crate) fn correct(&self, total: u64) {
        let dropped = self.db.write_buffer_size().saturating_sub(total);
        self.dropped_bytes.store(dropped, Ordering::Relaxed);
    }

    /// Drops a keyspace. Views that still read it keep its files alive.
    ///
    /// # Errors
    /// What writing brings up.
    pub(crate) fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        let (hits, misses) = block_reads(&keyspace);
        let buffered = keyspace.tree.active_memtable().size();
        let dropped = self.db.delete_keyspace(keyspace);
        dropped.map_err(|error| self.explain(error))?;
        // The engine never takes these bytes off its own count.
        add(&self.dropped_bytes, buffered);
        add(&self.dropped_hits, hits);
        add(&self.dropped_misses, misses);
        Ok(())
    }

    /// Blocks found in the cache and blocks read from files, of these keyspaces and of all that
    /// were dropped.
    pub(crate) fn block_reads(&self, keyspaces: &[Keyspace]) -> (u64, u64) {
        let dropped = (get(&self.dropped_hits), get(&self.dropped_misses));
        let living = keyspaces.iter().map(block_reads);
        living.fold(dropped, |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }
}

fn block_reads(keyspace: &Keyspace) -> (u64, u64) {
    let metrics = keyspace.metrics();
    let (hits, misses) = (
        metrics.block_load_cached_count(),
        metrics.block_load_io_count(),
    );
    (hits as u64, misses as u64)
}
