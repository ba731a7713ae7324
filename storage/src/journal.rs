//! Putting the journals on the disk while others write to them.
//!
//! The engine (3.1.13) syncs a journal under the lock that every commit needs, so that each would
//! wait for the disk. The same file, opened once more, is synced beside them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fjall::{Database, PersistMode};

const EXTENSION: &str = "jnl";

/// Syncs the journals of one engine.
#[derive(Debug)]
pub(crate) struct JournalSync {
    store: PathBuf,
    /// The one that is written to, once it was synced.
    active: Mutex<Option<Journal>>,
}

#[derive(Debug)]
struct Journal {
    number: u64,
    file: File,
}

impl JournalSync {
    /// For the journals in a directory.
    pub(crate) fn new(store: PathBuf) -> Self {
        Self {
            store,
            active: Mutex::new(None),
        }
    }

    /// Makes everything that was committed before the call safe from a power loss.
    ///
    /// # Errors
    /// What the engine brings up. Where it fails here, the engine is asked to sync, and meets the
    /// same: the operating system tells an error of the disk to each that has the file open. Then
    /// it takes no more writes.
    pub(crate) fn sync(&self, db: &Database) -> fjall::Result<()> {
        // Commits leave nothing in the engine's own buffer; this also tells whether it has failed.
        db.persist(PersistMode::Buffer)?;
        self.sync_active().or_else(|error| {
            tracing::warn!(%error, "cannot sync the journal, leaving it to the engine");
            db.persist(PersistMode::SyncData)
        })
    }

    fn sync_active(&self) -> io::Result<()> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that it is looked for anew after an error.
        let journal = self.move_on(active.take())?;
        journal.file.sync_data()?;
        *active = Some(journal);
        Ok(())
    }

    /// From the journal that was written to at the last sync to the one that is now.
    ///
    /// INVARIANT: journals are numbered one after the other and removed in this order, once all of
    /// it is in sorted files. What is left behind is synced to the end. The engine has gone on to
    /// the next one once there is something in it: that it is there is not enough, for it may be
    /// left from an attempt to make it.
    fn move_on(&self, known: Option<Journal>) -> io::Result<Journal> {
        let mut journal = match known {
            Some(journal) => journal,
            None => self.first()?,
        };
        loop {
            let number = journal.number + 1;
            journal = match open(&self.path(number)) {
                Ok(file) if has_entries(&file)? => {
                    journal.file.sync_data()?;
                    Journal { number, file }
                }
                Ok(_) => return Ok(journal),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Where this one is still there, there is no next one yet.
                Err(_) if self.path(journal.number).try_exists()? => return Ok(journal),
                Err(_) => self.first()?,
            };
        }
    }

    /// The oldest there is.
    fn first(&self) -> io::Result<Journal> {
        let number = numbers(&self.store)?.first().copied();
        let number = number.ok_or_else(|| io::Error::other("there is no journal"))?;
        let file = open(&self.path(number))?;
        Ok(Journal { number, file })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.store.join(format!("{number}.{EXTENSION}"))
    }
}

/// Numbers of the journals in the engine's directory, in order.
pub(crate) fn numbers(store: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        if path.extension().is_some_and(|known| known == EXTENSION) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Whether something was written to a journal, which is allocated ahead with zeros. No entry begins
/// with one.
fn has_entries(mut file: &File) -> io::Result<bool> {
    let mut first = [0];
    file.seek(SeekFrom::Start(0))?;
    Ok(file.read(&mut first)? == 1 && first != [0])
}

#[cfg(test)]
mod tests {
    use fjall::KeyspaceCreateOptions;

    use super::*;

    const START: &[u8] = &[1];

    struct Store(tempfile::TempDir);

    impl Store {
        fn journal(&self, number: u64, bytes: &[u8]) {
            std::fs::write(self.path(number), bytes).unwrap();
        }

        fn remove(&self, number: u64) {
            std::fs::remove_file(self.path(number)).unwrap();
        }

        fn path(&self, number: u64) -> PathBuf {
            self.0.path().join(format!("{number}.jnl"))
        }
    }

    fn synced(journals: &JournalSync) -> u64 {
        journals.sync_active().unwrap();
        let active = journals.active.lock().unwrap();
        active.as_ref().unwrap().number
    }

    #[test]
    fn the_journal_that_is_synced_is_the_last_one_that_was_written_to() {
        let store = Store(tempfile::tempdir().unwrap());
        let journals = JournalSync::new(store.0.path().into());
        assert!(journals.sync_active().is_err());
        store.journal(9, &[0; 16]);
        assert_eq!(synced(&journals), 9);
        store.journal(10, &[]);
        assert_eq!(synced(&journals), 9);
        store.journal(10, &[0; 16]);
        assert_eq!(synced(&journals), 9);
        store.journal(10, START);
        store.journal(11, START);
        store.journal(12, &[0; 16]);
        assert_eq!(synced(&journals), 11);
        let afresh = JournalSync::new(store.0.path().into());
        assert_eq!(synced(&afresh), 11);
    }

    #[test]
    fn journals_that_were_removed_meanwhile_are_passed_over() {
        let store = Store(tempfile::tempdir().unwrap());
        let journals = JournalSync::new(store.0.path().into());
        store.journal(1, START);
        assert_eq!(synced(&journals), 1);
        store.journal(4, START);
        store.journal(5, START);
        store.remove(1);
        assert_eq!(synced(&journals), 5);
        store.remove(4);
        assert_eq!(synced(&journals), 5);
    }

    #[test]
    fn the_engine_is_followed_from_one_journal_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("k", KeyspaceCreateOptions::default).unwrap();
        let journals = JournalSync::new(dir.path().into());
        keyspace.insert("a", "b").unwrap();
        journals.sync(&db).unwrap();
        let first = synced(&journals);
        assert_eq!(numbers(dir.path()).unwrap(), [first]);
        // More than the engine puts into one, though it compresses what it can.
        for n in 0..70_u64 {
            let scattered = |at: u64| ((n << 20) | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bytes: Vec<u8> = (0..1 << 17)
                .flat_map(|at| scattered(at).to_le_bytes())
                .collect();
            keyspace.insert(n.to_be_bytes(), bytes).unwrap();
        }
        keyspace.rotate_memtable_and_wait().unwrap();
        keyspace.insert("a", "c").unwrap();
        journals.sync(&db).unwrap();
        let newest = numbers(dir.path()).unwrap().last().copied();
        assert!(newest > Some(first));
        assert_eq!(Some(synced(&journals)), newest);
    }
}
