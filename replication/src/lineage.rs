//! What has to outlive a replica: which upstream its versions came from, and its slot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kelvin_protocol::Version;
use serde::{Deserialize, Serialize};

use crate::wire::SystemIdentity;
use crate::{Error, Result};

const FILE: &str = "lineage.json";

/// A record beside the replica's files, which wiping the replica leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage {
    /// Counts the upstreams whose LSNs do not continue each other.
    pub(crate) epoch: u32,
    pub(crate) system_identifier: String,
    pub(crate) timeline: u32,
    /// The last version known to have been reached.
    pub(crate) watermark: Version,
    /// Slot of this replica, complete or not.
    pub(crate) slot: Option<String>,
}

impl Lineage {
    /// Reads the record of a directory; `None` where there is none or it is damaged.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let bytes = fs::read(directory.join(FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::Protocol(format!("the lineage cannot be encoded: {error}")))?;
        let written = || -> io::Result<()> {
            fs::create_dir_all(directory)?;
            let (path, draft) = (directory.join(FILE), directory.join("lineage.json.new"));
            fs::write(&draft, &bytes)?;
            fs::File::open(&draft)?.sync_all()?;
            fs::rename(&draft, path)
        };
        written().map_err(|error| unwritable(directory, &error))
    }

    /// The record for a copy from this system: a new epoch where old versions mean nothing there.
    pub(crate) fn continued(&self, system: &SystemIdentity) -> Self {
        let same = self.system_identifier == system.system_identifier
            && self.timeline == system.timeline
            && self.watermark <= system.flushed;
        Self {
            epoch: if same { self.epoch } else { self.epoch + 1 },
            system_identifier: system.system_identifier.clone(),
            timeline: system.timeline,
            ..self.clone()
        }
    }

    /// The first record of a directory.
    pub(crate) fn first(system: &SystemIdentity) -> Self {
        Self {
            system_identifier: system.system_identifier.clone(),
            timeline: system.timeline,
            ..Self::default()
        }
    }
}

fn unwritable(directory: &Path, error: &io::Error) -> Error {
    let directory: PathBuf = directory.into();
    Error::Config(format!(
        "the replica's directory {} cannot be written ({error}): choose another one or correct its \
         permissions",
        directory.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(identifier: &str, timeline: u32, flushed: Version) -> SystemIdentity {
        SystemIdentity {
            system_identifier: identifier.into(),
            timeline,
            flushed,
        }
    }

    #[test]
    fn an_upstream_that_does_not_continue_the_old_one_starts_an_epoch() {
        let lineage = Lineage {
            epoch: 3,
            watermark: 100,
            ..Lineage::first(&system("a", 1, 100))
        };
        assert_eq!(lineage.continued(&system("a", 1, 100)).epoch, 3);
        assert_eq!(lineage.continued(&system("a", 1, 99)).epoch, 4);
        assert_eq!(lineage.continued(&system("b", 1, 200)).epoch, 4);
        assert_eq!(lineage.continued(&system("a", 2, 200)).epoch, 4);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("deep/inside");
        assert_eq!(Lineage::read(&inner), None);
        let lineage = Lineage::first(&system("a", 1, 5));
        lineage.write(&inner).unwrap();
        assert_eq!(Lineage::read(&inner), Some(lineage));
    }
}
