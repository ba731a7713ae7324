//! The flags of `kelvin demo`.

use std::path::PathBuf;

use super::Error;

/// Most issues the demo creates; beyond it the load would take minutes.
pub const MAX_ISSUES: u32 = 5_000_000;

/// Most simulated edits a second; each is a transaction of its own.
pub const MAX_ACTIVITY: f64 = 500.0;

/// What `kelvin demo --help` prints.
pub const HELP: &str = "\
kelvin demo: an issue tracker on a throwaway PostgreSQL, live in your browser

Usage: kelvin demo [flags]

  --port PORT          port of the sync server (default 4848)
  --web-port PORT      port of the page (default 8080; 0 takes a free one)
  --issues N           issues to create (default 100000)
  --activity RATE      simulated edits a second (default 2; 0 switches them off)
  --assets DIR         the built page (default: demo/ beside the program, then server/demo/dist)
  --postgres-bin DIR   the programs of the PostgreSQL to use (default: the newest one installed)
  --help               this text

Ctrl-C ends the demo and removes everything it made.
";

/// What to run and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// TCP port of the sync server. Never 0.
    pub port: u16,
    /// TCP port of the page; 0 takes a free one.
    pub web_port: u16,
    /// Issues to create, at most five million.
    pub issues: u32,
    /// Directory of the built page, if the user named one.
    pub assets: Option<PathBuf>,
    /// Directory of PostgreSQL's programs, if the user named one.
    pub postgres_bin: Option<PathBuf>,
    /// Simulated edits a second; 0 for none.
    pub activity: f64,
    /// Only [`HELP`] was asked for.
    pub help: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 4848,
            web_port: 8080,
            issues: 100_000,
            assets: None,
            postgres_bin: None,
            activity: 2.0,
            help: false,
        }
    }
}

impl Options {
    /// Reads the arguments that follow `kelvin demo`: `--flag value` or `--flag=value`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown flag, a missing value, or one out of range.
    ///
    /// ```
    /// use kelvin_server::demo::Options;
    /// let options = Options::parse(["--web-port=0", "--issues", "500"].map(String::from)).unwrap();
    /// assert_eq!((options.web_port, options.issues), (0, 500));
    /// ```
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if matches!(argument.as_str(), "--help" | "-h") {
                options.help = true;
                continue;
            }
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), value.to_owned()),
                None => {
                    let value = arguments.next();
                    (argument, value.unwrap_or_default())
                }
            };
            options.set(&flag, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: String) -> Result<(), Error> {
        match flag {
            "--port" => self.port = number(flag, &value, 1, u16::MAX)?,
            "--web-port" => self.web_port = number(flag, &value, 0, u16::MAX)?,
            "--issues" => self.issues = number(flag, &value, 1, MAX_ISSUES)?,
            "--activity" => self.activity = number(flag, &value, 0.0, MAX_ACTIVITY)?,
            "--assets" => self.assets = Some(directory(flag, value)?),
            "--postgres-bin" => self.postgres_bin = Some(directory(flag, value)?),
            _ => return Err(Error::Usage(format!("there is no flag {flag}"))),
        }
        Ok(())
    }
}

fn number<T>(flag: &str, value: &str, least: T, most: T) -> Result<T, Error>
where
    T: std::str::FromStr + PartialOrd + Copy + std::fmt::Display,
{
    match value.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(Error::Usage(format!(
            "{flag} takes a number from {least} to {most}, not {value:?}"
        ))),
    }
}

fn directory(flag: &str, value: String) -> Result<PathBuf, Error> {
    if value.is_empty() {
        return Err(Error::Usage(format!("{flag} takes a directory")));
    }
    Ok(PathBuf::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, Error> {
        Options::parse(arguments.iter().map(ToString::to_string))
    }

    #[test]
    fn no_arguments_give_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), Options::default());
    }

    #[test]
    fn both_spellings_of_a_value_are_understood() {
        let options = parse(&["--port=5000", "--activity", "0", "--assets", "web"]).unwrap();
        assert_eq!(options.port, 5000);
        assert_eq!(options.activity, 0.0);
        assert_eq!(options.assets, Some(PathBuf::from("web")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_flag_named() {
        for bad in [
            &["--port", "0"][..],
            &["--port", "70000"],
            &["--issues", "0"],
            &["--issues"],
            &["--activity", "NaN"],
            &["--assets="],
            &["--nonsense", "1"],
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), crate::demo::ErrorKind::Config);
            assert!(
                error.to_string().contains(bad[0].trim_end_matches('=')),
                "{error}"
            );
        }
    }
}
