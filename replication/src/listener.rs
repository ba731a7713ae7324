//! Who hears of commits.

use kelvin_storage::Applied;

/// Told of each change of the replica.
pub trait CommitListener: Send + Sync {
    /// The replica moved on. Called on the thread that applies, in order. It may block: the stream
    /// then waits, and so in the end does PostgreSQL's WAL.
    fn committed(&self, applied: Applied);
}
