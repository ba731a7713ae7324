//! The command line of `kelvin doctor`.

/// What `kelvin doctor --help` prints.
pub const HELP: &str = "\
kelvin doctor: is a PostgreSQL ready to be synced, and if not, how to mend it

Usage: kelvin doctor [--json] [options]

It takes the options of `kelvin serve`, as flags, environment variables and lines
of a .env file, and needs only ZERO_UPSTREAM_DB. These matter to it:

  --upstream-db URL               ZERO_UPSTREAM_DB
  --app-id ID                     ZERO_APP_ID
  --app-publications NAME...      ZERO_APP_PUBLICATIONS
  --replica-file FILE             ZERO_REPLICA_FILE
  --auto-reset                    ZERO_AUTO_RESET
  --initial-sync-table-copy-workers N
                                  ZERO_INITIAL_SYNC_TABLE_COPY_WORKERS
  --upstream-pg-replication-slot-failover
                                  ZERO_UPSTREAM_PG_REPLICATION_SLOT_FAILOVER
  --upstream-pg-stream-inbound-timeout-ms N
                                  ZERO_UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS

  --json      print one JSON document instead of a table: state, exitCode, counts,
              and findings with check, state, subject, found and fix (null where ok)
  -h, --help  print this

Nothing is changed in PostgreSQL: no slot, table or publication is made. It ends
within about a minute, however slow the server is.

Each line has a state:
  ok       as it should be
  note     good to know; also what the server does not let the role look at
  warning  works, but not for everything, or not for long
  error    replication cannot start, or would copy something wrong

Exit codes:
  0  nothing is worse than a note
  1  there is an error; a server that cannot be reached is one
  2  the options are wrong
  3  there is a warning, and no error
";

/// What the command line says about the command itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Only [`HELP`] was asked for.
    pub(super) help: bool,
    /// Print JSON.
    pub(super) json: bool,
    /// What is left are options of the server.
    pub(super) rest: Vec<String>,
}

impl Options {
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--json" => options.json = true,
                "-h" | "--help" => options.help = true,
                _ => options.rest.push(argument),
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn flags_of_the_command_may_stand_anywhere() {
        let arguments = ["--app-publications", "a", "--json", "--app-id=x"].map(str::to_owned);
        let parsed = Options::parse(arguments);
        assert!(parsed.json && !parsed.help);
        assert_eq!(parsed.rest, ["--app-publications", "a", "--app-id=x"]);
    }

    #[test]
    fn the_help_names_only_options_there_are() {
        let words = HELP.split_whitespace();
        let flags = words.filter_map(|word| word.strip_prefix("--"));
        for flag in flags {
            let flag = flag.trim_end_matches(']');
            let own = matches!(flag, "json" | "help");
            assert!(own || options::find(flag).is_some(), "{flag}");
        }
        assert!(HELP.lines().all(|line| line.chars().count() <= 84));
    }
}
