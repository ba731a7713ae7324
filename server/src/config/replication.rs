//! The part of the configuration that replication needs.

use std::path::Path;

use kelvin_replication::Options;
use kelvin_storage::ReplicaOptions;

use super::error::ConfigError;
use super::settings::{AppId, Config, Replica, Upstream};
use super::source::{Environment, Given, load_dotenv};

/// Parts that so much of a transaction as is held in memory is written in.
const PARTS: usize = 4;

/// What replication needs to be told. `kelvin doctor` reads nothing else.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// The database to sync.
    pub upstream: Upstream,
    /// Names of what is made there.
    pub app: AppId,
    /// The local copy.
    pub replica: Replica,
    /// Names this process.
    pub task_id: String,
    /// Copy the database anew when replication cannot go on.
    pub auto_reset: bool,
}

impl ReplicationConfig {
    /// Reads it from where [`Config::load`] reads, by the same rules. Options that only serving
    /// needs may be missing; those that are there are not looked at beyond their kind.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(
        arguments: impl IntoIterator<Item = String>,
        environment: &Environment,
        dotenv_dir: &Path,
    ) -> Result<Self, ConfigError> {
        let environment = load_dotenv(dotenv_dir, environment)?;
        let given = Given::collect(arguments, &environment)?;
        super::build::replication(&given)
    }

    /// The same for the crate that replicates.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            upstream: self.upstream.url.clone(),
            app_id: self.app.id.clone(),
            shard_num: self.app.shard_num,
            publications: self.app.publications.clone(),
            copy_workers: self.upstream.copy_workers,
            text_copy: self.upstream.text_copy,
            text_stream: self.upstream.text_stream,
            event_triggers: self.upstream.event_triggers,
            failover_slot: self.upstream.failover_slot,
            inbound_timeout: self.upstream.inbound_timeout,
            task_id: self.task_id.clone(),
            replica_dir: self.replica.dir.clone(),
            auto_reset: self.auto_reset,
            transaction_bytes: self.replica.transaction_bytes,
            lag_report_interval: self.upstream.lag_report_interval,
            spool_bytes: self.replica.spool_bytes,
            backfill_bytes: self.replica.backfill_bytes,
            storage: ReplicaOptions {
                cache_bytes: self.replica.cache_bytes,
                memtable_bytes: self.replica.memtable_bytes,
                write_buffer_bytes: self.replica.write_buffer_bytes,
                journal_bytes: self.replica.journal_bytes,
                part_bytes: self.replica.transaction_bytes / PARTS,
                history_age: self.replica.history_age,
                history_bytes: self.replica.history_bytes,
                ..ReplicaOptions::default()
            },
            ..Options::default()
        }
    }
}

impl Config {
    /// What replication needs of it.
    #[must_use]
    pub fn replication(&self) -> ReplicationConfig {
        ReplicationConfig {
            upstream: self.upstream.clone(),
            app: self.app.clone(),
            replica: self.replica.clone(),
            task_id: self.task_id.clone(),
            auto_reset: self.auto_reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<ReplicationConfig, ConfigError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Environment = pairs.iter().map(owned).collect();
        let dir = tempfile::tempdir().unwrap();
        ReplicationConfig::load([], &environment, dir.path())
    }

    #[test]
    fn only_the_upstream_is_needed() {
        let config = load(&[("ZERO_UPSTREAM_DB", "postgres://x")]).unwrap();
        let options = config.options();
        assert_eq!(options.upstream, "postgres://x");
        assert_eq!(options.app_id, "zero");
        assert!(options.auto_reset);
        assert!(matches!(load(&[]), Err(ConfigError::Missing(_))));
    }

    #[test]
    fn how_the_stream_comes_and_how_its_lag_is_measured_is_passed_on() {
        let upstream = ("ZERO_UPSTREAM_DB", "postgres://x");
        let options = load(&[upstream]).unwrap().options();
        assert_eq!((options.text_stream, options.spool_bytes), (false, 0));
        assert_eq!(options.lag_report_interval, Some(Duration::from_secs(30)));
        let stream = [
            upstream,
            ("ZERO_KELVIN_TEXT_STREAM", "true"),
            ("ZERO_KELVIN_SPOOL_BYTES", "1000"),
        ];
        let options = load(&stream).unwrap().options();
        assert_eq!((options.text_stream, options.spool_bytes), (true, 1000));
        let interval = "ZERO_REPLICATION_LAG_REPORT_INTERVAL_MS";
        for (millis, expected) in [("0", None), ("-1", None), ("500", Some(500))] {
            let options = load(&[upstream, (interval, millis)]).unwrap().options();
            let expected = expected.map(Duration::from_millis);
            assert_eq!(options.lag_report_interval, expected, "{millis}");
        }
    }

    #[test]
    fn options_of_serving_are_not_looked_at_and_those_of_replication_are() {
        let upstream = ("ZERO_UPSTREAM_DB", "postgres://x");
        assert!(load(&[upstream, ("ZERO_PORT", "70000")]).is_ok());
        for (name, value) in [
            ("ZERO_APP_ID", "My-App"),
            ("ZERO_UPSTREAM_TYPE", "custom"),
            ("ZERO_AUTO_RESET", "maybe"),
            ("ZERO_SHARD_ID", "x"),
        ] {
            let error = load(&[upstream, (name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
