//! What is said in the stream of changes of the schema, where event triggers or hooks say so.

use std::collections::HashSet;

use serde::Deserialize;

use crate::Options;

/// Tells such messages from others.
#[derive(Clone, Debug)]
pub(crate) struct Announcements {
    /// Prefix of those of kelvin's own functions.
    own: String,
    /// Prefixes of zero-cache's, now and long ago.
    peer: [String; 2],
    /// Schemas whose tables kelvin itself needs.
    internal: [String; 2],
}

/// What happened. In whatever it does not name, the tables are to be looked at, too.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Announced {
    /// By `pg_class.oid`, tables whose values were computed anew, and what these are part of.
    pub(crate) rewritten: Vec<u32>,
    /// Tables that are not published, or not every change of theirs.
    pub(crate) unpublished: Vec<u32>,
    /// Every table that is published; none that is missing is.
    pub(crate) published: Option<HashSet<u32>>,
    /// A table that was made as a partition, and what it is part of.
    pub(crate) made: Option<Made>,
    /// A partitioned table that was altered.
    pub(crate) partitioned: Option<Partitioned>,
}

/// A table that came without rows.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) table: u32,
    pub(crate) parent: u32,
}

/// The partitions of a table that became such in the same transaction.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Partitioned {
    pub(crate) table: u32,
    /// The table and what it is part of itself.
    pub(crate) roots: Vec<u32>,
    pub(crate) fresh: Vec<u32>,
}

impl Announcements {
    /// Those of a shard.
    pub(crate) fn new(options: &Options) -> Self {
        let shard = options.shard();
        Self {
            own: shard.ddl_prefix(),
            peer: [
                format!("{}/{}/ddl", shard.app, shard.number),
                format!("{}/{}", shard.app, shard.number),
            ],
            internal: options.internal_schemas(),
        }
    }

    /// What a message says, if it is about the schema. What cannot be read still is a reason to
    /// look.
    pub(crate) fn read(&self, prefix: &str, content: &[u8]) -> Option<Announced> {
        if prefix == self.own {
            return Some(serde_json::from_slice(content).unwrap_or_default());
        }
        let peer = self.peer.iter().any(|known| known == prefix);
        peer.then(Announced::default)
    }

    /// Whether kelvin itself needs the tables of a schema.
    pub(crate) fn is_internal(&self, schema: &str) -> bool {
        self.internal.iter().any(|internal| internal == schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_triggers_are_read_and_those_of_others_are_not() {
        let messages = Announcements::new(&Options::default());
        let read = messages.read("kelvin/zero_0/ddl", b"{\"rewritten\": [5], \"new\": 1}");
        assert_eq!(read.map(|it| it.rewritten), Some(vec![5]));
        for prefix in ["zero/0/ddl", "zero/0", "kelvin/zero_0/ddl"] {
            let read = messages.read(prefix, b"no json");
            assert_eq!(read, Some(Announced::default()), "{prefix}");
        }
        for prefix in ["zero/0/lag-report/v1", "zero/1/ddl", "kelvin/zero_1/ddl"] {
            assert_eq!(messages.read(prefix, b"{}"), None, "{prefix}");
        }
    }
}
