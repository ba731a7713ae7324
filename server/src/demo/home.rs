//! The directory a demo lives in, and the removal of those that were killed.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Error, cluster};

/// How the directories of demos are called in the system's directory for temporary files.
const PREFIX: &str = "kelvin-demo-";

/// The file whose lock says that the demo is alive.
const LOCK: &str = "alive";

/// The directory of this demo. Removed when dropped.
#[derive(Debug)]
pub struct Home {
    directory: tempfile::TempDir,
    /// INVARIANT: locked as long as the process lives; the system lets go of the lock when the
    /// process ends, however it ends. Closed on exec, so that PostgreSQL does not inherit it.
    _alive: File,
}

impl Home {
    /// Makes a new directory, after removing those whose demos are gone.
    ///
    /// # Errors
    /// When the system's directory for temporary files cannot be written.
    pub fn create() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let making = || format!("making a directory in {}", parent.display());
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .map_err(Error::io(making()))?;
        // Locked before it has its name, so that no other demo finds it unlocked.
        let unnamed = directory.path().join("starting");
        let alive = File::create(&unnamed).map_err(Error::io(making()))?;
        alive
            .lock()
            .map_err(Error::io("locking the demo's directory"))?;
        fs::rename(unnamed, directory.path().join(LOCK)).map_err(Error::io(making()))?;
        // Others may pass through it (PostgreSQL runs as another user when root starts the demo)
        // but neither list nor change it.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), open).map_err(Error::io(making()))?;
        let home = Self {
            directory,
            _alive: alive,
        };
        home.sweep(&parent);
        Ok(home)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where PostgreSQL keeps its data, socket and log.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.path().join("postgres")
    }

    /// Where the replica goes.
    #[must_use]
    pub fn replica(&self) -> PathBuf {
        self.path().join("replica")
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        let removing = format!("removing {}", self.path().display());
        self.directory.close().map_err(Error::io(removing))
    }

    /// Removes what killed demos left. Best effort: what cannot be removed stays.
    fn sweep(&self, parent: &Path) {
        let Ok(own) = fs::metadata(self.path()) else {
            return;
        };
        let Ok(entries) = fs::read_dir(parent) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(PREFIX)
                && path != self.path()
                && is_abandoned(&path, own.uid())
            {
                cluster::kill_abandoned(&path.join("postgres"));
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// A directory of this user whose demo has ended. Links and other users' directories are left
/// alone: anybody may make a directory of that name.
fn is_abandoned(path: &Path, uid: u32) -> bool {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return false;
    };
    if !facts.is_dir() || facts.uid() != uid {
        return false;
    }
    let Ok(lock) = File::open(path.join(LOCK)) else {
        return false;
    };
    !matches!(
        lock.try_lock(),
        Err(TryLockError::WouldBlock | TryLockError::Error(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_demo_is_not_abandoned_and_a_dead_one_is() {
        let home = Home::create().unwrap();
        let uid = fs::metadata(home.path()).unwrap().uid();
        assert!(!is_abandoned(home.path(), uid));

        let dead = tempfile::tempdir().unwrap();
        File::create(dead.path().join(LOCK)).unwrap();
        assert!(is_abandoned(dead.path(), uid));
        assert!(!is_abandoned(dead.path(), uid + 1), "another user's");
        fs::remove_file(dead.path().join(LOCK)).unwrap();
        assert!(!is_abandoned(dead.path(), uid), "not a demo's");
    }
}
