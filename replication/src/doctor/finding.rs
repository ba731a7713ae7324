//! What a check found.

use serde::Serialize;

use crate::advice::Advice;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Good to know; replication works.
    Note,
    /// Replication works, but not for everything, or not for long.
    Warning,
    /// Replication cannot start, or what it copies would be wrong.
    Error,
}

/// One line of the doctor's report.
///
/// INVARIANT: a finding that is not [`State::Ok`] says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Names the check, for scripts; stays the same between versions.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was looked at.
    pub subject: String,
    /// What was found; one sentence without a full stop.
    pub found: String,
    /// How to mend it: a statement, a setting or an option.
    pub fix: Option<String>,
}

impl Finding {
    /// Says that nothing could be looked at, for the options are wrong.
    #[must_use]
    pub fn wrong_options(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::error("options", "options", found, fix)
    }

    pub(super) fn ok(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state: State::Ok,
            subject: subject.into(),
            found: found.into(),
            fix: None,
        }
    }

    /// A finding to be mended, or to be known of, as `state` says.
    pub(super) fn of(
        state: State,
        check: &'static str,
        subject: impl Into<String>,
        advice: Advice,
    ) -> Self {
        Self {
            check,
            state,
            subject: subject.into(),
            found: advice.found,
            fix: Some(advice.fix),
        }
    }

    pub(super) fn note(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(State::Note, check, subject, Advice::new(found, fix))
    }

    pub(super) fn warning(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(State::Warning, check, subject, Advice::new(found, fix))
    }

    pub(super) fn error(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(State::Error, check, subject, Advice::new(found, fix))
    }
}

/// A number of bytes for people: `1.5 GB`, in powers of 1024 as PostgreSQL counts.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut size = count as f64 / 1024.0;
    let mut units = UNITS.iter().peekable();
    while size >= 1024.0 {
        units.next();
        if units.peek().is_none() {
            break;
        }
        size /= 1024.0;
    }
    let unit = units.peek().map_or("PB", |unit| **unit);
    if size < 10.0 {
        format!("{size:.1} {unit}")
    } else {
        format!("{size:.0} {unit}")
    }
}

/// A number of seconds for people: `90 s`, `45 min`, `7 h`, `3 days`.
pub(super) fn seconds(count: u64) -> String {
    match count {
        0..120 => format!("{count} s"),
        120..7_200 => format!("{} min", count / 60),
        7_200..172_800 => format!("{} h", count / 3_600),
        _ => format!("{} days", count / 86_400),
    }
}

/// `1 table`, `3 tables`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(1_000), "1000 bytes");
        assert_eq!(bytes(1_536), "1.5 kB");
        assert_eq!(bytes(17 << 20), "17 MB");
        assert_eq!(bytes(5 << 30), "5.0 GB");
        assert_eq!(bytes(u64::MAX), "16384 PB");
        assert_eq!(seconds(45), "45 s");
        assert_eq!(seconds(3_700), "61 min");
        assert_eq!(seconds(200_000), "2 days");
    }

    #[test]
    fn states_are_ordered_by_how_bad_they_are() {
        assert!(State::Ok < State::Note && State::Warning < State::Error);
    }
}
