//! From positions in the upstream's WAL to versions, and back.

use std::collections::HashMap;

use kelvin_protocol::Version;
use kelvin_storage::ReplicaIdentity;

use crate::Lsn;

/// Detail of a replica's identity that holds its [`Shift`]; none where it is zero.
const SHIFT: &str = "shift";
/// By how much a version has to be greater than that of the replica, so that there is room for what
/// brings the replica up.
const ROOM: Version = 16;

/// By how much versions are ahead of the upstream's LSNs.
///
/// It is zero until the LSNs go back, as they do when a server is restored or replaced. Versions
/// only ever grow: from then on they are LSNs and the same number more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shift(u64);

impl Shift {
    /// That of a replica.
    pub(crate) fn of(identity: &ReplicaIdentity) -> Self {
        let detail = identity.details.get(SHIFT);
        Self(detail.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Notes it among the details of an identity.
    pub(crate) fn note(self, details: &mut HashMap<String, String>) {
        if self.0 == 0 {
            details.remove(SHIFT);
        } else {
            details.insert(SHIFT.to_owned(), self.0.to_string());
        }
    }

    /// With which versions go on behind `watermark` at this LSN: the same one if it will do.
    pub(crate) fn to_pass(self, watermark: Version, lsn: u64) -> Self {
        let least = watermark.saturating_add(ROOM).saturating_sub(lsn);
        Self(self.0.max(least))
    }

    /// The version of a transaction whose commit record is at this LSN.
    pub(crate) fn version(self, lsn: u64) -> Version {
        lsn.saturating_add(self.0)
    }

    /// The LSN at which a version, or whatever comes next to it, is found.
    pub(crate) fn lsn(self, version: Version) -> u64 {
        version.saturating_sub(self.0)
    }
}

/// Where a replica of this identity stands in its upstream's WAL when it is at `version`.
#[must_use]
pub fn upstream_lsn(identity: &ReplicaIdentity, version: Version) -> Lsn {
    Lsn(Shift::of(identity).lsn(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_on_whatever_lsns_do() {
        let none = Shift::default();
        assert_eq!(none.to_pass(100, 200), none);
        let back = none.to_pass(1000, 50);
        assert!(back.version(50) >= 1000 + ROOM);
        assert_eq!(back.lsn(back.version(77)), 77);
        // It is kept as long as it will do.
        assert_eq!(back.to_pass(2000, 5000), back);
        let again = back.to_pass(6000, 40);
        assert!(again.version(40) >= 6000 + ROOM);
    }

    #[test]
    fn it_is_found_again_in_the_identity() {
        let mut identity = ReplicaIdentity::default();
        assert_eq!(Shift::of(&identity), Shift::default());
        let shift = Shift::default().to_pass(1000, 50);
        shift.note(&mut identity.details);
        assert_eq!(Shift::of(&identity), shift);
        assert_eq!(upstream_lsn(&identity, shift.version(70)), Lsn(70));
        Shift::default().note(&mut identity.details);
        assert_eq!(identity, ReplicaIdentity::default());
    }
}
