//! What an operator can tune.

use std::path::PathBuf;
use std::time::Duration;

use kelvin_storage::ReplicaOptions;

use crate::quote::qualified;
use crate::{Error, Result};

/// Longest name PostgreSQL keeps.
const MAX_NAME: usize = 63;

/// Letters that the suffix of a slot may come to.
const SUFFIX: usize = 3;

/// Table of kelvin's replicas in the schema of the shard.
pub(crate) const REPLICAS: &str = "kelvinReplicas";

/// Where to replicate from, what, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://` address of the upstream database, without a pooler in between.
    pub upstream: String,
    /// Name of the application; of `a`–`z`, `0`–`9` and `_`.
    pub app_id: String,
    /// Number of the shard.
    pub shard_num: u32,
    /// Publications to follow; all of schema `public` where empty.
    pub publications: Vec<String>,
    /// Connections that copy at the same time; at least one is used.
    pub copy_workers: usize,
    /// Copy in text instead of binary form.
    pub text_copy: bool,
    /// Stream in text instead of binary form. Where a column's type has no binary form here, the
    /// stream is in text anyway.
    pub text_stream: bool,
    /// Keep the slot on standbys too (PostgreSQL 17 and newer).
    pub failover_slot: bool,
    /// Silence of the server after which the stream is reconnected; twice its `wal_sender_timeout`
    /// where `None`.
    pub inbound_timeout: Option<Duration>,
    /// Name of this process, for the record in the upstream.
    pub task_id: String,
    /// Directory of the replica.
    pub replica_dir: PathBuf,
    /// Tuning of the replica. Its `history_age` and `history_bytes` are kept to while running.
    pub storage: ReplicaOptions,
    /// Where the replica does not continue the upstream, copy what differs, or everything anew;
    /// else [`prepare`](crate::prepare) and [`run`](crate::Prepared::run) fail with
    /// [`ErrorKind::Resync`](crate::ErrorKind::Resync).
    pub auto_reset: bool,
    /// Time between two fsyncs of the replica. Only what is fsynced is confirmed to PostgreSQL.
    pub sync_interval: Duration,
    /// Time between two looks at the upstream's schema.
    pub schema_interval: Duration,
    /// Time between two messages that are written upstream to measure the lag; `None` measures
    /// none.
    pub lag_report_interval: Option<Duration>,
    /// Have PostgreSQL tell of changes of the schema in the stream, by event triggers, where the
    /// role may create them. Where this is off, those that are there are dropped.
    pub event_triggers: bool,
    /// Largest message accepted from PostgreSQL, in bytes. A row is one message.
    pub max_message_bytes: usize,
    /// Transactions that may wait between the stream and the replica.
    pub queue_transactions: usize,
    /// Estimated bytes of transactions that may wait between the stream and the replica. One
    /// transaction alone may be larger.
    pub queue_bytes: usize,
    /// Estimated bytes of one transaction that are held in memory. A larger one is applied in
    /// parts, as it comes.
    pub transaction_bytes: usize,
    /// Bytes of transactions in progress that are kept in files next to the replica, so that they
    /// are there when they commit. What is more, or does not fit on the disk, PostgreSQL keeps
    /// until then, as it does with everything where this is 0.
    pub spool_bytes: u64,
    /// Estimated bytes of changes of tables that are being copied beside the stream; when there are
    /// more, the stream waits for the copy. Where one transaction alone changes twice as much, the
    /// copy is begun anew, to be made with what that transaction left.
    pub backfill_bytes: usize,
    /// Longest wait for running transactions when a slot is created.
    pub slot_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            upstream: String::new(),
            app_id: "zero".into(),
            shard_num: 0,
            publications: Vec::new(),
            copy_workers: 5,
            text_copy: false,
            text_stream: false,
            failover_slot: false,
            inbound_timeout: None,
            task_id: String::new(),
            replica_dir: PathBuf::new(),
            storage: ReplicaOptions::default(),
            auto_reset: true,
            sync_interval: Duration::from_millis(5),
            schema_interval: Duration::from_secs(10),
            lag_report_interval: Some(Duration::from_secs(30)),
            event_triggers: true,
            max_message_bytes: 1 << 30,
            queue_transactions: 1024,
            queue_bytes: 64 << 20,
            transaction_bytes: 64 << 20,
            spool_bytes: 0,
            backfill_bytes: 64 << 20,
            slot_timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// Names of the objects in the upstream.
    pub(crate) fn shard(&self) -> Shard {
        Shard {
            app: self.app_id.clone(),
            number: self.shard_num,
        }
    }

    /// Schemas whose tables kelvin itself needs.
    pub(crate) fn internal_schemas(&self) -> [String; 2] {
        [self.app_id.clone(), self.shard().schema()]
    }

    /// Checks the names.
    pub(crate) fn validate(&self) -> Result<()> {
        let lower = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if self.app_id.is_empty() || !self.app_id.bytes().all(lower) {
            return Err(Error::Config(format!(
                "the app id {:?} is not valid: use the letters a to z, digits and _",
                self.app_id
            )));
        }
        let shard = self.shard();
        let longest = shard.metadata_publication().len();
        if longest.max(shard.slot_prefix().len() + SUFFIX) > MAX_NAME {
            return Err(Error::Config(format!(
                "the app id {:?} is too long for the names derived from it",
                self.app_id
            )));
        }
        for name in &self.publications {
            let first = |byte: u8| byte.is_ascii_alphabetic();
            let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let valid = name.bytes().next().is_some_and(first) && name.bytes().all(rest);
            if !valid || name.len() > MAX_NAME {
                return Err(Error::Config(format!(
                    "the publication name {name:?} is not valid: use at most {MAX_NAME} letters, \
                     digits and _, and begin with a letter"
                )));
            }
        }
        Ok(())
    }
}

/// Names of the objects of one shard of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) app: String,
    pub(crate) number: u32,
}

impl Shard {
    /// Schema of the shard's tables, and prefix of the slots zero-cache makes for it.
    pub(crate) fn schema(&self) -> String {
        format!("{}_{}", self.app, self.number)
    }

    /// Prefix of the slots kelvin makes. zero-cache drops inactive slots of the shard's prefix that
    /// it does not know, so ours has another.
    pub(crate) fn slot_prefix(&self) -> String {
        format!("kelvin_{}_", self.schema())
    }

    /// A regular expression for the names of the slots kelvin makes for the shard, and of none of
    /// another: the name of another app may begin with this one's.
    pub(crate) fn own_slot_names(&self) -> String {
        format!("^{}[a-z]+$", self.slot_prefix())
    }

    /// The same for those that zero-cache makes. Long ago, it named its slot after the shard alone.
    pub(crate) fn peer_slot_names(&self) -> String {
        format!("^{}(_[a-z]+)?$", self.schema())
    }

    /// The same for the slots of both.
    pub(crate) fn slot_names(&self) -> String {
        format!("{}|{}", self.own_slot_names(), self.peer_slot_names())
    }

    /// The table that says which of kelvin's slots belongs to which replica, quoted. zero-cache has
    /// one of its own, `replicas`, and takes what is not its own there for outdated.
    pub(crate) fn replicas_table(&self) -> String {
        qualified(&self.schema(), REPLICAS)
    }

    /// Prefix of the messages that kelvin's functions in the database put into the stream.
    pub(crate) fn ddl_prefix(&self) -> String {
        format!("kelvin/{}/ddl", self.schema())
    }

    pub(crate) fn metadata_publication(&self) -> String {
        format!("_{}_metadata_{}", self.app, self.number)
    }

    pub(crate) fn default_publication(&self) -> String {
        format!("_{}_public_{}", self.app, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgresql_would_refuse_are_refused_here() {
        let app = |app_id: &str| Options {
            app_id: app_id.into(),
            ..Options::default()
        };
        assert!(app("my_app1").validate().is_ok());
        for bad in ["", "App", "a-b", "ä", &"a".repeat(60)] {
            assert!(app(bad).validate().is_err(), "{bad}");
        }
        let publication = |name: &str| Options {
            publications: vec![name.into()],
            ..Options::default()
        };
        assert!(publication("Pub_1").validate().is_ok());
        for bad in ["_reserved", "1st", "a b", ""] {
            assert!(publication(bad).validate().is_err(), "{bad}");
        }
    }
}
