//! Makes a [`Config`] out of the values that were given, and checks it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;

use super::error::ConfigError;
use super::options;
use super::replication::ReplicationConfig;
use super::settings::{
    AppApi, AppEndpoint, AppId, Auth, Config, Engine, Groups, Listen, Log, LogFormat, LogLevel,
    MutationLimit, Replica, Upstream,
};
use super::source::{Environment, Given};
use super::value::OptionValue;

/// Longest duration an option can mean: a year. Keeps every sum of times within range.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;
/// Keep-alive timeout on Amazon ECS, whose health checks drain tasks by going silent.
const ECS_KEEPALIVE: Duration = Duration::from_secs(20);

/// Typed access to the values.
struct Reader<'a> {
    given: &'a Given,
}

impl Reader<'_> {
    fn value(&self, flag: &str) -> Option<OptionValue> {
        if let Some(value) = self.given.get(flag) {
            return Some(value.clone());
        }
        let setting = options::find(flag)?;
        if setting.default.is_empty() {
            return None;
        }
        OptionValue::parse(setting.kind, setting.default).ok()
    }

    fn text(&self, flag: &str) -> Option<String> {
        match self.value(flag) {
            Some(OptionValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn flag(&self, flag: &str) -> bool {
        matches!(self.value(flag), Some(OptionValue::Flag(true)))
    }

    fn list(&self, flag: &str) -> Vec<String> {
        match self.value(flag) {
            Some(OptionValue::List(items)) => items,
            _ => Vec::new(),
        }
    }

    fn number(&self, flag: &str) -> Option<f64> {
        match self.value(flag) {
            Some(OptionValue::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// An integer between `min` and `max`, 0 when unset.
    fn count(&self, flag: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
        let number = self.number(flag).unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "bounds need no precision")]
        let fits = number.fract() == 0.0 && number >= min as f64 && number <= max as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was just checked"
        )]
        if fits {
            return Ok(number as u64);
        }
        let problem = format!("must be an integer from {min} to {max}, not {number}");
        Err(invalid(flag, problem))
    }

    fn size(&self, flag: &str, min: u64) -> Result<usize, ConfigError> {
        let count = self.count(flag, min, u64::from(u32::MAX))?;
        usize::try_from(count).map_err(|_| invalid(flag, "is too large for this machine"))
    }

    fn bytes(&self, flag: &str, min: u64) -> Result<u64, ConfigError> {
        self.count(flag, min, 1 << 50)
    }

    /// A duration; `unit` is the length of 1 in seconds.
    fn duration(&self, flag: &str, unit: f64) -> Result<Option<Duration>, ConfigError> {
        let Some(number) = self.number(flag) else {
            return Ok(None);
        };
        if !(0.0..=MAX_SECONDS).contains(&(number * unit)) {
            return Err(invalid(flag, format!("is out of range: {number}")));
        }
        Ok(Some(Duration::from_secs_f64(number * unit)))
    }

    fn millis(&self, flag: &str) -> Result<Duration, ConfigError> {
        Ok(self.duration(flag, 0.001)?.unwrap_or_default())
    }

    fn seconds(&self, flag: &str) -> Result<Duration, ConfigError> {
        Ok(self.duration(flag, 1.0)?.unwrap_or_default())
    }
}

fn invalid(flag: &str, problem: impl Into<String>) -> ConfigError {
    let name = options::find(flag).map_or_else(|| flag.to_owned(), options::Setting::env);
    ConfigError::invalid(name, problem)
}

pub(super) fn build(given: &Given, environment: &Environment) -> Result<Config, ConfigError> {
    let reader = Reader { given };
    refuse_unsupported(&reader)?;
    let ReplicationConfig {
        upstream,
        app,
        replica,
        task_id,
        auto_reset,
    } = replication(given)?;
    let development = environment
        .get("NODE_ENV")
        .is_some_and(|env| env == "development");
    let admin_password = reader.text("admin-password");
    if admin_password.is_none() && !development {
        return Err(ConfigError::Missing(
            "ZERO_ADMIN_PASSWORD (it may be left out only with NODE_ENV=development)".into(),
        ));
    }
    let on_ecs = environment.contains_key("ECS_CONTAINER_METADATA_URI_V4");
    Ok(Config {
        upstream,
        app,
        replica,
        engine: engine(&reader)?,
        groups: groups(&reader)?,
        listen: listen(&reader, on_ecs)?,
        auth: auth(&reader)?,
        app_api: AppApi {
            query: endpoint(&reader, "query"),
            mutate: endpoint(&reader, "mutate"),
            timeout: reader.millis("kelvin-api-timeout-ms")?,
            max_response_bytes: reader.size("kelvin-api-max-response-bytes", 1024)?,
        },
        enable_crud_mutations: reader.flag("enable-crud-mutations"),
        mutation_limit: mutation_limit(&reader)?,
        push_queue_length: reader.size("kelvin-push-queue-length", 1)?,
        log: log(&reader),
        admin_password,
        development,
        task_id,
        server_version: reader
            .text("server-version")
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        auto_reset,
        huge_pages: reader.flag("kelvin-huge-pages"),
        warnings: warnings(given),
    })
}

/// The part that replication needs.
pub(super) fn replication(given: &Given) -> Result<ReplicationConfig, ConfigError> {
    let reader = Reader { given };
    if reader.text("shard-id").is_some() {
        return Err(invalid(
            "shard-id",
            "is no longer an option; use ZERO_APP_ID",
        ));
    }
    if reader.text("upstream-type").as_deref() == Some("custom") {
        return Err(invalid(
            "upstream-type",
            "must be pg: custom upstreams are not supported",
        ));
    }
    Ok(ReplicationConfig {
        upstream: upstream(&reader)?,
        app: app(&reader)?,
        replica: replica(&reader)?,
        task_id: reader.text("task-id").unwrap_or_else(random_id),
        auto_reset: reader.flag("auto-reset"),
    })
}

/// Refuses what would start the wrong thing if it were ignored.
fn refuse_unsupported(reader: &Reader<'_>) -> Result<(), ConfigError> {
    let elsewhere = "names another node, but this server runs as a single node; leave it out";
    if reader.text("change-streamer-uri").is_some() {
        return Err(invalid("change-streamer-uri", elsewhere));
    }
    if reader.text("change-streamer-mode").as_deref() == Some("discover") {
        return Err(invalid("change-streamer-mode", elsewhere));
    }
    if reader.number("num-sync-workers") == Some(0.0) {
        let problem = "is 0, which makes a replication manager of its own; this server runs as \
                       a single node: leave it out";
        return Err(invalid("num-sync-workers", problem));
    }
    if let Some(json) = reader.text("websocket-compression-options")
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&json)
    {
        return Err(invalid(
            "websocket-compression-options",
            format!("is no JSON: {error}"),
        ));
    }
    Ok(())
}

const LAG_REPORT_INTERVAL: &str = "replication-lag-report-interval-ms";

fn upstream(reader: &Reader<'_>) -> Result<Upstream, ConfigError> {
    let url = reader
        .text("upstream-db")
        .ok_or_else(|| ConfigError::Missing("ZERO_UPSTREAM_DB".into()))?;
    Ok(Upstream {
        url,
        max_connections: reader.size("upstream-max-conns", 1)?,
        failover_slot: reader.flag("upstream-pg-replication-slot-failover"),
        inbound_timeout: reader.duration("upstream-pg-stream-inbound-timeout-ms", 0.001)?,
        copy_workers: reader.size("initial-sync-table-copy-workers", 1)?,
        text_copy: reader.flag("initial-sync-text-copy"),
        text_stream: reader.flag("kelvin-text-stream"),
        lag_report_interval: match reader.number(LAG_REPORT_INTERVAL) {
            Some(none) if none <= 0.0 => None,
            _ => reader.duration(LAG_REPORT_INTERVAL, 0.001)?,
        },
        event_triggers: reader.flag("kelvin-event-triggers"),
    })
}

fn app(reader: &Reader<'_>) -> Result<AppId, ConfigError> {
    let id = reader.text("app-id").unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if id.is_empty() || !id.bytes().all(legal) {
        let problem = format!("may hold only a-z, 0-9 and _, unlike {id:?}");
        return Err(invalid("app-id", problem));
    }
    let publications = reader.list("app-publications");
    if let Some(name) = publications.iter().find(|name| name.starts_with('_')) {
        let problem = format!("holds {name:?}; names that begin with _ are reserved");
        return Err(invalid("app-publications", problem));
    }
    let shard_num = reader.count("shard-num", 0, u64::from(u32::MAX))?;
    Ok(AppId {
        id,
        shard_num: u32::try_from(shard_num).map_err(|_| invalid("shard-num", "is too large"))?,
        publications,
    })
}

fn replica(reader: &Reader<'_>) -> Result<Replica, ConfigError> {
    let file = reader.text("replica-file").unwrap_or_default();
    Ok(Replica {
        dir: PathBuf::from(format!("{file}.kelvin")),
        cache_bytes: reader.bytes("kelvin-cache-bytes", 1 << 20)?,
        memtable_bytes: reader.bytes("kelvin-memtable-bytes", 1 << 16)?,
        write_buffer_bytes: reader.bytes("kelvin-write-buffer-bytes", 1 << 20)?,
        journal_bytes: reader.bytes("kelvin-journal-bytes", 1 << 26)?,
        transaction_bytes: reader.size("kelvin-transaction-bytes", 1 << 20)?,
        spool_bytes: reader.bytes("kelvin-spool-bytes", 0)?,
        backfill_bytes: reader.size("kelvin-backfill-bytes", 1 << 20)?,
        history_age: reader.seconds("kelvin-history-age-seconds")?,
        history_bytes: reader.bytes("kelvin-history-bytes", 0)?,
    })
}

/// More threads than any machine has cores for would only take memory.
const MAX_ADVANCE_THREADS: usize = 256;

fn engine(reader: &Reader<'_>) -> Result<Engine, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = match reader.number("num-sync-workers") {
        Some(_) => reader.size("num-sync-workers", 1)?,
        None => cores.saturating_sub(1).max(1),
    };
    let hydration_threads = match reader.size("kelvin-hydration-threads", 0)? {
        0 => workers,
        hydration_threads => hydration_threads,
    };
    let advance_threads = match reader.size("kelvin-advance-threads", 0)? {
        0 => cores,
        advance_threads => advance_threads.min(MAX_ADVANCE_THREADS),
    };
    Ok(Engine {
        advance_threads,
        advance_timeout: reader.millis("kelvin-advance-timeout-ms")?,
        advance_max_rows: reader.bytes("kelvin-advance-max-rows", 1)?,
        hydration_threads,
        hydration_timeout: reader.millis("kelvin-hydration-timeout-ms")?,
        hydration_max_rows: reader.bytes("kelvin-hydration-max-rows", 1)?,
        slow_hydration: reader.millis("log-slow-hydrate-threshold")?,
        delta_log_bytes: reader.size("kelvin-delta-log-bytes", 0)?,
    })
}

fn groups(reader: &Reader<'_>) -> Result<Groups, ConfigError> {
    let hours = reader.duration("cvr-garbage-collection-inactivity-threshold-hours", 3600.0)?;
    Ok(Groups {
        inactivity_threshold: hours.unwrap_or_default(),
        purge_interval: reader.seconds("cvr-garbage-collection-initial-interval-seconds")?,
        purge_batch: reader.size("cvr-garbage-collection-initial-batch-size", 0)?,
        max_queries: reader.size("kelvin-max-queries-per-group", 1)?,
        max_clients: reader.size("kelvin-max-clients-per-group", 1)?,
    })
}

fn listen(reader: &Reader<'_>, on_ecs: bool) -> Result<Listen, ConfigError> {
    let port = reader.count("port", 0, u64::from(u16::MAX))?;
    let second = match reader.number("change-streamer-port") {
        Some(_) => reader.count("change-streamer-port", 0, u64::from(u16::MAX))?,
        None => (port + 1).min(u64::from(u16::MAX)),
    };
    let as_port = |flag, port| u16::try_from(port).map_err(|_| invalid(flag, "is no port"));
    let address = match reader.text("kelvin-listen-address") {
        None => None,
        Some(text) => {
            let address = text.parse::<IpAddr>();
            Some(address.map_err(|_| invalid("kelvin-listen-address", "is no IP address"))?)
        }
    };
    Ok(Listen {
        address,
        port: as_port("port", port)?,
        change_streamer_port: as_port("change-streamer-port", second)?,
        keepalive_timeout: reader
            .duration("keepalive-timeout-ms", 0.001)?
            .or(on_ecs.then_some(ECS_KEEPALIVE)),
        max_connections: reader.size("kelvin-max-connections", 1)?,
        max_message_bytes: reader.size("websocket-max-payload-bytes", 1)?,
        queue_bytes: reader.size("kelvin-connection-queue-bytes", 1)?,
        queue_messages: reader.size("kelvin-connection-queue-messages", 1)?,
        header_timeout: reader.millis("kelvin-header-timeout-ms")?,
        message_timeout: reader.millis("kelvin-message-timeout-ms")?,
        send_timeout: reader.millis("kelvin-send-timeout-ms")?,
    })
}

fn auth(reader: &Reader<'_>) -> Result<Auth, ConfigError> {
    let auth = Auth {
        jwk: reader.text("auth-jwk"),
        jwks_url: reader.text("auth-jwks-url"),
        secret: reader.text("auth-secret"),
        issuer: reader.text("auth-issuer"),
        audience: reader.text("auth-audience"),
        revalidate_interval: reader.seconds("auth-revalidate-interval-seconds")?,
        retransform_interval: reader.seconds("auth-retransform-interval-seconds")?,
    };
    let keys = [&auth.jwk, &auth.jwks_url, &auth.secret];
    if keys.iter().filter(|key| key.is_some()).count() > 1 {
        let problem = "may not be combined: set one of ZERO_AUTH_JWK, ZERO_AUTH_JWKS_URL and \
                       ZERO_AUTH_SECRET";
        return Err(ConfigError::invalid("ZERO_AUTH_*", problem));
    }
    Ok(auth)
}

fn endpoint(reader: &Reader<'_>, group: &str) -> AppEndpoint {
    let list = |field: &str| reader.list(&format!("{group}-{field}"));
    let lower = |field: &str| -> Vec<String> {
        let names = list(field).into_iter();
        names.map(|name| name.trim().to_lowercase()).collect()
    };
    AppEndpoint {
        urls: list("url"),
        api_key: reader.text(&format!("{group}-api-key")),
        forward_cookies: reader.flag(&format!("{group}-forward-cookies")),
        allowed_client_headers: lower("allowed-client-headers"),
        allowed_request_headers: lower("allowed-request-headers"),
    }
}

fn mutation_limit(reader: &Reader<'_>) -> Result<Option<MutationLimit>, ConfigError> {
    let Some(max) = reader.number("per-user-mutation-limit-max") else {
        return Ok(None);
    };
    let window = reader.millis("per-user-mutation-limit-window-ms")?;
    if window.is_zero() {
        return Err(invalid(
            "per-user-mutation-limit-window-ms",
            "must be more than 0",
        ));
    }
    Ok(Some(MutationLimit { max, window }))
}

fn log(reader: &Reader<'_>) -> Log {
    let level = match reader.text("log-level").as_deref() {
        Some("debug") => LogLevel::Debug,
        Some("warn") => LogLevel::Warn,
        Some("error") => LogLevel::Error,
        _ => LogLevel::Info,
    };
    let format = match reader.text("log-format").as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    Log { level, format }
}

fn warnings(given: &Given) -> Vec<String> {
    let idle = given.without_effect().into_iter();
    let idle = idle.map(|(name, why)| format!("{name} has no effect: {why}"));
    let mut warnings: Vec<String> = given.warnings.iter().cloned().chain(idle).collect();
    if given.get("litestream-backup-url").is_some() {
        warnings.push("ZERO_LITESTREAM_BACKUP_URL has no effect: there are no backups yet".into());
    }
    warnings
}

fn random_id() -> String {
    let id: u64 = rand::rng().random();
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut environment: Environment = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in [
            ("ZERO_UPSTREAM_DB", "postgres://x"),
            ("ZERO_ADMIN_PASSWORD", "p"),
        ] {
            environment
                .entry(name.into())
                .or_insert_with(|| value.into());
        }
        let dir = tempfile::tempdir().unwrap();
        Config::load([], &environment, dir.path())
    }

    #[test]
    fn defaults_are_those_of_zero_cache() {
        let config = load(&[]).unwrap();
        assert_eq!(config.listen.port, 4848);
        assert_eq!(config.listen.change_streamer_port, 4849);
        assert_eq!(config.listen.max_message_bytes, 10_485_760);
        assert_eq!(config.replica.dir, PathBuf::from("zero.db.kelvin"));
        assert_eq!(config.app.shard_schema(), "zero_0");
        assert_eq!(
            config.groups.inactivity_threshold,
            Duration::from_secs(48 * 3600)
        );
        assert!(config.enable_crud_mutations && config.mutation_limit.is_none());
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn large_pages_are_for_those_who_ask_for_them() {
        assert!(!load(&[]).unwrap().huge_pages);
        let asked = load(&[("ZERO_KELVIN_HUGE_PAGES", "true")]);
        assert!(asked.unwrap().huge_pages);
    }

    #[test]
    fn the_admin_password_may_be_left_out_only_in_development() {
        let environment = Environment::from([("ZERO_UPSTREAM_DB".into(), "postgres://x".into())]);
        let dir = tempfile::tempdir().unwrap();
        let error = Config::load([], &environment, dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Missing required option ZERO_ADMIN_PASSWORD")
        );
        let mut environment = environment;
        environment.insert("NODE_ENV".into(), "development".into());
        assert!(Config::load([], &environment, dir.path()).is_ok());
    }

    #[test]
    fn a_missing_upstream_is_named() {
        let environment = Environment::from([("ZERO_ADMIN_PASSWORD".into(), "p".into())]);
        let dir = tempfile::tempdir().unwrap();
        let error = Config::load([], &environment, dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Missing required option ZERO_UPSTREAM_DB"
        );
    }

    #[test]
    fn what_would_start_the_wrong_thing_is_refused() {
        for (name, value) in [
            ("ZERO_UPSTREAM_TYPE", "custom"),
            ("ZERO_CHANGE_STREAMER_URI", "ws://rm"),
            ("ZERO_NUM_SYNC_WORKERS", "0"),
            ("ZERO_SHARD_ID", "x"),
            ("ZERO_APP_ID", "My-App"),
            ("ZERO_APP_PUBLICATIONS", "a,_b"),
            ("ZERO_PORT", "70000"),
            ("ZERO_PORT", "48.5"),
            ("ZERO_WEBSOCKET_COMPRESSION_OPTIONS", "{"),
        ] {
            let error = load(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        let keys = [("ZERO_AUTH_JWK", "{}"), ("ZERO_AUTH_SECRET", "s")];
        assert!(load(&keys).is_err());
    }

    #[test]
    fn accepted_options_are_checked_and_said_to_be_without_effect() {
        let config = load(&[("ZERO_YIELD_THRESHOLD_MS", "10")]).unwrap();
        assert!(config.warnings[0].starts_with("ZERO_YIELD_THRESHOLD_MS has no effect"));
        assert!(load(&[("ZERO_YIELD_THRESHOLD_MS", "soon")]).is_err());
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let config = load(&[
            ("ZERO_UPSTREAM_DB", "postgres://u:hunter2@h/d"),
            ("ZERO_AUTH_SECRET", "hunter2"),
            ("ZERO_MUTATE_API_KEY", "hunter2"),
            ("ZERO_ADMIN_PASSWORD", "hunter2"),
        ]);
        let shown = format!("{:?}", config.unwrap());
        assert!(!shown.contains("hunter2"));
    }
}
