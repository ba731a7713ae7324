//! Changes of a table that wait until it is copied.

use std::collections::VecDeque;

use kelvin_protocol::Version;

use crate::stream::{Message, Relation};

/// Estimated bytes a kept message takes beside its content.
const OVERHEAD: usize = 128;

/// What the stream says of a table that is being copied.
#[derive(Debug)]
pub(crate) enum Change {
    /// How the rows behind it look.
    Described(Relation),
    /// A row changed, or all of them are gone.
    Rows(Message),
}

/// Changes in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The description before all of the changes.
    before: Option<Relation>,
    changes: VecDeque<(Version, Change, usize)>,
    bytes: usize,
}

impl Kept {
    /// Estimated bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether rows that come next are described.
    pub(crate) fn is_described(&self) -> bool {
        self.before.is_some()
            || (self.changes.iter()).any(|(_, change, _)| matches!(change, Change::Described(_)))
    }

    /// Adds a change of the transaction at `version`, whose message had so many bytes.
    pub(crate) fn push(&mut self, version: Version, change: Change, length: usize) {
        let bytes = OVERHEAD + length;
        self.bytes += bytes;
        self.changes.push_back((version, change, bytes));
    }

    /// Lets go of what committed before `from`, but for the last description.
    pub(crate) fn forget_before(&mut self, from: Version) {
        while let Some((_, change, bytes)) =
            (self.changes).pop_front_if(|(version, _, _)| *version < from)
        {
            self.bytes -= bytes;
            if let Change::Described(relation) = change {
                self.before = Some(relation);
            }
        }
    }

    /// Everything, in order.
    pub(crate) fn into_changes(self) -> impl Iterator<Item = Change> {
        let before = self.before.map(Change::Described);
        let changes = self.changes.into_iter().map(|(_, change, _)| change);
        before.into_iter().chain(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str) -> Change {
        Change::Described(Relation {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            identity: b'd',
            columns: Vec::new(),
        })
    }

    fn rows() -> Change {
        Change::Rows(Message::Truncate { oids: vec![1] })
    }

    fn shown(kept: Kept) -> Vec<String> {
        let shown = kept.into_changes().map(|change| match change {
            Change::Described(relation) => relation.name,
            Change::Rows(_) => "rows".into(),
        });
        shown.collect()
    }

    #[test]
    fn what_is_in_the_copy_is_forgotten_but_not_how_later_rows_look() {
        let mut kept = Kept::default();
        assert!(!kept.is_described());
        kept.push(10, described("a"), 50);
        kept.push(10, rows(), 50);
        kept.push(20, described("b"), 50);
        kept.push(30, rows(), 50);
        assert!(kept.is_described());
        kept.forget_before(30);
        assert!(kept.is_described());
        assert_eq!(kept.bytes(), 50 + OVERHEAD);
        assert_eq!(shown(kept), ["b", "rows"]);
    }
}
