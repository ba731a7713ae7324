//! Where client group records are kept.
//!
//! Each query of a group is a record of its own, so that a wish costs what it changes, however many
//! queries the group has.

use std::collections::BTreeMap;

use kelvin_storage::Groups;

use super::record::{GroupRecord, Queries, QueryRecord, RECORD_FORMAT, Unsaved};

/// Keeps [`GroupRecord`]s. A write must survive a crash of the process before it returns.
pub trait GroupStore: Send + Sync {
    /// The record of a group, if there is one of a form this server reads.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn load(&self, group: &str) -> Result<Option<GroupRecord>, StoreError>;

    /// Writes what has changed of a group since it was loaded or saved.
    ///
    /// # Errors
    /// If the store cannot be written; it has as much of the group as before then.
    fn save(&self, group: &str, record: &mut GroupRecord) -> Result<(), StoreError>;

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

/// A record to be written, or removed where there are no bytes.
type Write = (String, Option<Vec<u8>>);

/// What the names of groups, without their queries, start with.
const GROUP: &str = "g";

fn name_of_group(group: &str) -> String {
    format!("{GROUP}{group}")
}

/// What the names of a group's queries start with. Its length is in it because any name may be the
/// beginning of another.
fn prefix_of_queries(group: &str) -> String {
    format!("q{}:{group}:", group.len())
}

impl LocalGroups {
    /// The queries of a group.
    fn queries(&self, group: &str) -> Result<BTreeMap<String, QueryRecord>, ReadError> {
        let prefix = prefix_of_queries(group);
        let query = |record: kelvin_storage::Result<(String, Vec<u8>)>| {
            let (name, bytes) = record?;
            let hash = name.get(prefix.len()..).unwrap_or_default();
            Ok((hash.to_owned(), serde_json::from_slice(&bytes)?))
        };
        self.0.prefix(&prefix).map(query).collect()
    }

    /// Removals of the queries that are stored of a group, except for those that are kept.
    fn removals(
        &self,
        group: &str,
        is_kept: impl Fn(&str) -> bool,
    ) -> Result<Vec<Write>, StoreError> {
        let prefix = prefix_of_queries(group);
        let mut removals = Vec::new();
        for record in self.0.prefix(&prefix) {
            let (name, _) = record?;
            if !name.strip_prefix(&prefix).is_some_and(&is_kept) {
                removals.push((name, None));
            }
        }
        Ok(removals)
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Storage(#[from] kelvin_storage::Error),
    #[error(transparent)]
    Form(#[from] serde_json::Error),
}

impl GroupStore for LocalGroups {
    fn load(&self, group: &str) -> Result<Option<GroupRecord>, StoreError> {
        let Some(bytes) = self.0.get(&name_of_group(group))? else {
            return Ok(None);
        };
        let read = || -> Result<GroupRecord, ReadError> {
            let record: GroupRecord = serde_json::from_slice(&bytes)?;
            let queries = Queries::stored(self.queries(group)?);
            Ok(GroupRecord { queries, ..record })
        };
        match read() {
            Ok(record) if record.format == RECORD_FORMAT => Ok(Some(record)),
            Ok(_) => Ok(None),
            Err(ReadError::Storage(error)) => Err(error.into()),
            Err(ReadError::Form(error)) => {
                // A record that cannot be read costs its group a fresh start, nothing else.
                tracing::warn!(group, %error, "unreadable client group record");
                Ok(None)
            }
        }
    }

    fn save(&self, group: &str, record: &mut GroupRecord) -> Result<(), StoreError> {
        let prefix = prefix_of_queries(group);
        let mut writes = Vec::new();
        let changed: Vec<&String> = match record.queries.unsaved() {
            Unsaved::All => {
                writes = self.removals(group, |hash| record.queries.get(hash).is_some())?;
                record.queries.iter().map(|(hash, _)| hash).collect()
            }
            Unsaved::Some(hashes) => hashes.iter().collect(),
        };
        for hash in changed {
            let query = record.queries.get(hash);
            let bytes = query.map(serde_json::to_vec).transpose()?;
            writes.push((format!("{prefix}{hash}"), bytes));
        }
        writes.push((name_of_group(group), Some(serde_json::to_vec(record)?)));
        self.0.write(writes)?;
        record.queries.saved();
        Ok(())
    }

    fn delete(&self, group: &str) -> Result<(), StoreError> {
        let mut writes = self.removals(group, |_| false)?;
        writes.push((name_of_group(group), None));
        Ok(self.0.write(writes)?)
    }

    fn purge(&self, before_ms: u64) -> Result<usize, StoreError> {
        let mut purged = 0;
        for record in self.0.prefix(GROUP) {
            let (name, bytes) = record?;
            let group = name.strip_prefix(GROUP).unwrap_or_default();
            let record = serde_json::from_slice::<GroupRecord>(&bytes).ok();
            let is_live = |record: &GroupRecord| {
                record.format == RECORD_FORMAT && record.last_active_ms >= before_ms
            };
            if !record.as_ref().is_some_and(is_live) {
                self.delete(group)?;
                purged += 1;
            }
        }
        Ok(purged)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
