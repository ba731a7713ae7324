//! Where client group records are kept.

use kelvin_storage::Groups;

use super::record::{GroupRecord, RECORD_FORMAT};

/// Keeps [`GroupRecord`]s. A write must survive a crash of the process before it returns.
pub trait GroupStore: Send + Sync {
    /// The record of a group, if there is one of a form this server reads.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn load(&self, group: &str) -> Result<Option<GroupRecord>, StoreError>;

    /// Writes the record of a group.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn save(&self, group: &str, record: &GroupRecord) -> Result<(), StoreError>;

    /// Forgets a group.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn delete(&self, group: &str) -> Result<(), StoreError>;

    /// Forgets groups that have been inactive since before `before_ms`, milliseconds since 1970.
    /// Returns how many.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    fn purge(&self, before_ms: u64) -> Result<usize, StoreError>;
}

/// A group record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage engine failed.
    #[error(transparent)]
    Storage(#[from] kelvin_storage::Error),
    /// The record could not be turned into JSON.
    #[error("a client group record cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// The store inside the replica's own database.
pub struct LocalGroups(pub Groups);

impl GroupStore for LocalGroups {
    fn load(&self, group: &str) -> Result<Option<GroupRecord>, StoreError> {
        let Some(bytes) = self.0.get(group)? else {
            return Ok(None);
        };
        match serde_json::from_slice::<GroupRecord>(&bytes) {
            Ok(record) if record.format == RECORD_FORMAT => Ok(Some(record)),
            Ok(_) => Ok(None),
            Err(error) => {
                // A record that cannot be read costs its group a fresh start, nothing else.
                tracing::warn!(group, %error, "unreadable client group record");
                Ok(None)
            }
        }
    }

    fn save(&self, group: &str, record: &GroupRecord) -> Result<(), StoreError> {
        Ok(self.0.put(group, &serde_json::to_vec(record)?)?)
    }

    fn delete(&self, group: &str) -> Result<(), StoreError> {
        Ok(self.0.delete(group)?)
    }

    fn purge(&self, before_ms: u64) -> Result<usize, StoreError> {
        let mut purged = 0;
        for group in self.0.keys() {
            let group = group?;
            let stale = self
                .load(&group)?
                .is_none_or(|r| r.last_active_ms < before_ms);
            if stale {
                self.delete(&group)?;
                purged += 1;
            }
        }
        Ok(purged)
    }
}
