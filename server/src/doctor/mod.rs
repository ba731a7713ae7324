//! `kelvin doctor`: whether a PostgreSQL is ready to be synced, as a table or as JSON.
//!
//! What is looked at is the business of [`kelvin_replication::doctor`]; here it is asked for and
//! shown.

mod options;
mod report;
mod table;
mod terminal;

use std::io::Write as _;
use std::path::Path;

use kelvin_replication::doctor::{Finding, Limits, examine};

use crate::config::{ConfigError, Environment, ReplicationConfig};
pub use options::HELP;
use options::Options;
use report::Report;
use terminal::Terminal;

/// Exit code where the options are wrong.
const WRONG_OPTIONS: u8 = 2;

/// Runs the command and gives its exit code: 0 where nothing is worse than a note, 3 where there
/// are warnings, 1 where there are errors, 2 where the options are wrong. Prints to standard
/// output.
pub async fn run(arguments: Vec<String>, environment: &Environment, directory: &Path) -> u8 {
    let options = Options::parse(arguments);
    if options.help {
        print(HELP);
        return 0;
    }
    let config = match ReplicationConfig::load(options.rest, environment, directory) {
        Ok(config) => config,
        Err(error) => return refuse(&error, options.json),
    };
    let findings = Box::pin(examine(&config.options(), &Limits::default())).await;
    let report = Report::new(findings);
    show(&report, options.json);
    report.exit_code()
}

/// Options that are wrong are for people on standard error, and for programs a report like others.
fn refuse(error: &ConfigError, json: bool) -> u8 {
    let text = match error {
        ConfigError::UnknownArgument { argument, .. } => format!("there is no option {argument}"),
        error => error.to_string(),
    };
    if json {
        let fix = "see kelvin doctor --help";
        let finding = Finding::wrong_options(text, fix);
        print(&Report::new(vec![finding]).json(WRONG_OPTIONS));
    } else {
        eprintln!("kelvin doctor: {text}\nRun `kelvin doctor --help` for what it takes.");
    }
    WRONG_OPTIONS
}

fn show(report: &Report, json: bool) {
    if json {
        print(&report.json(report.exit_code()));
    } else {
        let terminal = Terminal::of_stdout();
        print(&table::render(report, terminal));
    }
}

/// A reader that has gone away is no error: `kelvin doctor | head`.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
