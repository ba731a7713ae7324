//! The report as a table for people.

use std::fmt::Write as _;

use kelvin_replication::doctor::{Finding, State};

use super::report::Report;
use super::terminal::Terminal;

/// Width of the column of states, with the gap after it.
const STATE_WIDTH: usize = 9;
/// Longest subject that what was found stands beside, where there is room; after a longer one it
/// begins a new line.
const MOST_SUBJECT: usize = 32;
/// Gap after the column of subjects.
const GAP: usize = 2;
/// What a fix begins with.
const FIX: &str = "fix: ";

/// The table, a line for what it comes to, and a line end.
pub(super) fn render(report: &Report, terminal: Terminal) -> String {
    let most = MOST_SUBJECT.min(terminal.width / 4 + GAP + 1);
    let subjects = report.findings.iter();
    let subjects = subjects.map(|finding| length(&finding.subject));
    let longest = subjects.filter(|length| *length <= most).max();
    let layout = Layout {
        found_at: STATE_WIDTH + longest.unwrap_or(0).max(length("LOOKED AT")) + GAP,
        terminal,
    };
    let mut text = String::new();
    layout.line(&mut text, "STATE", "", "LOOKED AT", "FOUND");
    for finding in &report.findings {
        layout.finding(&mut text, finding);
    }
    text.push('\n');
    wrap(&mut text, &summary(report), 0, terminal.width, 0);
    text
}

struct Layout {
    /// Column of what was found.
    found_at: usize,
    terminal: Terminal,
}

impl Layout {
    fn finding(&self, text: &mut String, finding: &Finding) {
        let (word, colour) = word(finding.state);
        let colour = if self.terminal.colours { colour } else { "" };
        self.line(
            text,
            word,
            colour,
            &clean(&finding.subject),
            &clean(&finding.found),
        );
        if let Some(fix) = &finding.fix {
            // Statements are to be copied, so they get the width of the table.
            let fix = format!("{FIX}{}", clean(fix));
            text.extend(std::iter::repeat_n(' ', STATE_WIDTH));
            wrap(text, &fix, STATE_WIDTH, self.terminal.width, FIX.len());
        }
    }

    fn line(&self, text: &mut String, state: &str, colour: &str, subject: &str, found: &str) {
        let end = if colour.is_empty() { "" } else { "\x1b[0m" };
        let pad = STATE_WIDTH - state.len().min(STATE_WIDTH);
        // Writing to a String cannot fail.
        let _ = write!(text, "{colour}{state}{end}{:pad$}{subject}", "");
        let column = STATE_WIDTH + length(subject);
        if column + GAP > self.found_at {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', self.found_at));
        } else {
            text.extend(std::iter::repeat_n(' ', self.found_at - column));
        }
        wrap(text, found, self.found_at, self.terminal.width, 0);
    }
}

/// A state's word, and its colour on a terminal.
fn word(state: State) -> (&'static str, &'static str) {
    match state {
        State::Ok => ("ok", "\x1b[32m"),
        State::Note => ("note", "\x1b[36m"),
        State::Warning => ("warning", "\x1b[33m"),
        State::Error => ("error", "\x1b[1;31m"),
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Names come from the database, and a terminal obeys control characters.
fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

/// Writes words from column `indent` on; lines after the first are indented by `hanging` more. A
/// word longer than the line stands alone on it.
fn wrap(text: &mut String, sentence: &str, indent: usize, width: usize, hanging: usize) {
    let mut column = indent;
    let mut first = true;
    for word in sentence.split_whitespace() {
        if !first && column + 1 + length(word) > width {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent + hanging));
            column = indent + hanging;
        } else if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length(word);
        first = false;
    }
    text.push('\n');
}

fn summary(report: &Report) -> String {
    let count = |state, one: &str, many: &str| {
        let number = report.count(state);
        format!("{number} {}", if number == 1 { one } else { many })
    };
    let verdict = match report.verdict() {
        State::Ok | State::Note => "kelvin can sync this database.",
        State::Warning => "kelvin can sync this database; see what the warnings cost.",
        State::Error => "kelvin cannot sync this database until the errors are mended.",
    };
    format!(
        "{}, {}, {}: {verdict}",
        count(State::Error, "error", "errors"),
        count(State::Warning, "warning", "warnings"),
        count(State::Note, "note", "notes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let long = "there is much to say about this, more than fits into one line of a terminal";
        Report::new(vec![
            Finding::wrong_options(
                long,
                "ALTER TABLE \"a\" ADD PRIMARY KEY (…), and so on and on",
            ),
            Finding::wrong_options("evil \x1b[2J name", "rename it"),
        ])
    }

    #[test]
    fn lines_fit_and_are_aligned() {
        for width in [60, 80, 100] {
            let terminal = Terminal {
                width,
                colours: false,
            };
            let text = render(&report(), terminal);
            assert!(text.lines().all(|line| length(line) <= width), "{text}");
            let at = |line: usize, text_in_it: &str| {
                text.lines()
                    .nth(line)
                    .and_then(|line| line.find(text_in_it))
            };
            assert_eq!(at(1, "there is"), at(0, "FOUND"), "{text}");
            assert_eq!(at(0, "FOUND"), Some(STATE_WIDTH + "LOOKED AT".len() + GAP));
            let fixes: Vec<_> = text.lines().filter_map(|line| line.find(FIX)).collect();
            assert_eq!(fixes, [STATE_WIDTH, STATE_WIDTH], "{text}");
            assert!(
                text.contains("\n\n2 errors, 0 warnings, 0 notes: "),
                "{text}"
            );
        }
    }

    #[test]
    fn colours_are_only_for_terminals_and_control_characters_for_nobody() {
        let terminal = |colours| Terminal { width: 80, colours };
        assert!(!render(&report(), terminal(false)).contains('\x1b'));
        let text = render(&report(), terminal(true));
        assert!(text.contains("\x1b[1;31merror\x1b[0m") && !text.contains("\x1b[2J"));
    }
}
