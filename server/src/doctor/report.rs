//! All findings, what they come to, and the form for programs.

use kelvin_replication::doctor::{Finding, State};
use serde_json::json;

/// Exit code of a report with errors.
const ERRORS: u8 = 1;
/// Exit code of a report with warnings and no errors.
const WARNINGS: u8 = 3;

/// What the doctor found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// The worst state of all findings.
    pub(super) fn verdict(&self) -> State {
        let states = self.findings.iter().map(|finding| finding.state);
        states.max().unwrap_or(State::Ok)
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self.verdict() {
            State::Ok | State::Note => 0,
            State::Warning => WARNINGS,
            State::Error => ERRORS,
        }
    }

    /// How many findings have this state.
    pub(super) fn count(&self, state: State) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.state == state).count()
    }

    /// One JSON document, with a line end.
    pub(super) fn json(&self, exit_code: u8) -> String {
        let document = json!({
            "kelvin": env!("CARGO_PKG_VERSION"),
            "state": self.verdict(),
            "exitCode": exit_code,
            "counts": {
                "ok": self.count(State::Ok),
                "note": self.count(State::Note),
                "warning": self.count(State::Warning),
                "error": self.count(State::Error),
            },
            "findings": self.findings,
        });
        format!("{document:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_worst_finding() {
        let report = Report::new(Vec::new());
        assert_eq!((report.verdict(), report.exit_code()), (State::Ok, 0));
        let wrong = Report::new(vec![Finding::wrong_options("no \"x\"", "give one")]);
        assert_eq!((wrong.verdict(), wrong.exit_code()), (State::Error, 1));
        let document: serde_json::Value = serde_json::from_str(&wrong.json(2)).unwrap();
        assert_eq!(document["exitCode"], 2);
        assert_eq!(document["counts"]["error"], 1);
        assert_eq!(document["findings"][0]["found"], "no \"x\"");
        assert_eq!(document["findings"][0]["fix"], "give one");
    }
}
