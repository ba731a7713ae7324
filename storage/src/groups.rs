//! A small durable key-value space for the records of client groups.

use std::sync::Arc;

use fjall::Keyspace;

use crate::error::{Error, Result};
use crate::replica::Inner;

/// Records of client groups, kept beside the replica and wiped with it.
///
/// A write survives a crash of the process at once, and a power loss after the next
/// [`Replica::sync`](crate::Replica::sync).
#[derive(Clone)]
pub struct Groups {
    replica: Arc<Inner>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// Longest name of a record in bytes.
const MAX_NAME: usize = 32 * 1024;

impl Groups {
    pub(crate) fn new(replica: Arc<Inner>) -> Self {
        Self { replica }
    }

    fn keyspace(&self) -> &Keyspace {
        &self.replica.groups
    }

    /// The record called `name`.
    ///
    /// # Errors
    /// What reading brings up.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        check(name)?;
        Ok(self.keyspace().get(name)?.map(|bytes| bytes.to_vec()))
    }

    /// Writes records, or removes those without bytes: all of them or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty or overlong name, else what writing brings up.
    pub fn write(
        &self,
        records: impl IntoIterator<Item = (String, Option<Vec<u8>>)>,
    ) -> Result<()> {
        let mut batch = self.replica.db.batch();
        for (name, bytes) in records {
            check(&name)?;
            match bytes {
                Some(bytes) => batch.insert(self.keyspace(), name, bytes),
                None => batch.remove(self.keyspace(), name),
            }
        }
        self.replica.gate.admit(self.keyspace())?;
        let written = batch.commit();
        written.map_err(|error| self.replica.gate.explain(error))
    }

    /// All records whose names start with `prefix`, in the order of their names.
    pub fn prefix(&self, prefix: &str) -> impl Iterator<Item = Result<(String, Vec<u8>)>> + use<> {
        self.keyspace().prefix(prefix).map(|record| {
            let (name, bytes) = record.into_inner()?;
            Ok((parse(&name)?, bytes.to_vec()))
        })
    }
}

fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::Invalid(format!(
            "a group record's name must have 1 to {MAX_NAME} bytes"
        )));
    }
    Ok(())
}

fn parse(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec())
        .map_err(|_| Error::Corrupt("a group record's name is not UTF-8".into()))
}
