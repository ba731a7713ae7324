//! The command line of `kelvin analyze`.

use std::path::PathBuf;

/// What `kelvin analyze --help` prints.
pub const HELP: &str = "\
kelvin analyze: what a query reads, through which indexes, and what that costs

Usage: kelvin analyze [options] [FILE]

FILE holds the query as an AST in JSON, in names of the server, the way clients
send it; `-` or nothing reads standard input. It is evaluated once, with no
permissions applied to it.

  --plan ID            in place of FILE: a query that is kept up to date now, as
                       /queryz lists them, or the beginning of its id
  --server URL         the server to ask; default http://localhost:4848
  --admin-password PW  its admin password; default ZERO_ADMIN_PASSWORD
  --replica-file FILE  ask a replica and no server: the ZERO_REPLICA_FILE of a
                       server that does not run
  --json               print one JSON document instead of a tree
  -h, --help           print this

For each part of the query the tree shows the rows that it keeps, the rows of its
table, who is read first where it is an EXISTS, and each way its table was read:
SEARCH is narrowed by an index, SCAN is not.

Exit codes:
  0  done
  1  the query is refused, or there is no answer from the server or the replica
  2  the options are wrong
  3  done, with warnings
";

/// Where the server is if nobody says.
const DEFAULT_SERVER: &str = "http://localhost:4848";

/// Which query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    StandardInput,
    File(PathBuf),
    /// One that is kept up to date.
    Plan(String),
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server {
        url: String,
        password: Option<String>,
    },
    /// The directory of a replica.
    Replica(PathBuf),
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) query: Query,
    pub(super) target: Target,
    pub(super) json: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Help,
    Options(Options),
}

impl Options {
    /// Reads the arguments; `password` is that of the environment.
    pub(super) fn parse(
        arguments: impl IntoIterator<Item = String>,
        password: Option<String>,
    ) -> Result<Parsed, String> {
        let (mut json, mut query, mut server, mut replica) = (false, None, None, None);
        let mut password = password;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                let value = inline.clone().or_else(|| arguments.next());
                value.ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "-h" | "--help" => return Ok(Parsed::Help),
                "--json" => json = true,
                "--server" => server = Some(value()?),
                "--admin-password" => password = Some(value()?),
                "--replica-file" => replica = Some(format!("{}.kelvin", value()?)),
                "--plan" => choose(&mut query, Query::Plan(value()?))?,
                "-" => choose(&mut query, Query::StandardInput)?,
                other if other.starts_with('-') => {
                    return Err(format!("there is no option {other}"));
                }
                _ => choose(&mut query, Query::File(PathBuf::from(&argument)))?,
            }
        }
        let query = query.unwrap_or(Query::StandardInput);
        let target = match (server, replica) {
            (Some(_), Some(_)) => {
                return Err("--server and --replica-file exclude each other".into());
            }
            (None, Some(_)) if matches!(query, Query::Plan(_)) => {
                return Err("--plan needs a server that runs".into());
            }
            (None, Some(directory)) => Target::Replica(PathBuf::from(directory)),
            (server, None) => Target::Server {
                url: server.unwrap_or_else(|| DEFAULT_SERVER.into()),
                password,
            },
        };
        Ok(Parsed::Options(Self {
            query,
            target,
            json,
        }))
    }
}

fn choose(query: &mut Option<Query>, chosen: Query) -> Result<(), String> {
    match query.replace(chosen) {
        None => Ok(()),
        Some(_) => Err("one query at a time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Parsed, String> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        Options::parse(arguments, Some("from the environment".into()))
    }

    #[test]
    fn a_server_on_this_machine_is_asked_unless_told_otherwise() {
        let expected = Options {
            query: Query::StandardInput,
            target: Target::Server {
                url: DEFAULT_SERVER.into(),
                password: Some("from the environment".into()),
            },
            json: false,
        };
        assert_eq!(parse(&[]), Ok(Parsed::Options(expected)));
        let Ok(Parsed::Options(options)) =
            parse(&["q.json", "--replica-file=/data/zero.db", "--json"])
        else {
            panic!("refused");
        };
        assert_eq!(options.query, Query::File("q.json".into()));
        assert_eq!(
            options.target,
            Target::Replica("/data/zero.db.kelvin".into())
        );
        assert!(options.json);
        assert_eq!(parse(&["--plan", "ab", "-h"]), Ok(Parsed::Help));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            &["--verbose"][..],
            &["--server"],
            &["a.json", "b.json"],
            &["--plan", "ab", "-"],
            &["--plan", "ab", "--replica-file", "x"],
            &["--server", "http://x", "--replica-file", "x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_help_fits_a_terminal() {
        assert!(HELP.lines().all(|line| line.chars().count() <= 84));
    }
}
