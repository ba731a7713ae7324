//! Waiting longer after each failure.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(25);
const LAST: Duration = Duration::from_secs(10);
/// Waits below this are for the record only.
const WARN: Duration = Duration::from_secs(1);
/// Waits above this mean a lasting trouble.
const ALARM: Duration = Duration::from_millis(6500);

/// Doubles from 25 ms to 10 s, with jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

/// How loudly a failure is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Info,
    Warn,
    Error,
}

impl Backoff {
    /// The next wait, and how loudly to speak of it.
    pub(crate) fn next(&mut self) -> (Duration, Severity) {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        let severity = match wait {
            wait if wait < WARN => Severity::Info,
            wait if wait < ALARM => Severity::Warn,
            _ => Severity::Error,
        };
        // Half of it is by chance, so that many servers do not come back in step.
        let chance = RandomState::new().build_hasher().finish() % 1000;
        let share = 500 + u32::try_from(chance / 2).unwrap_or(0);
        (wait * share / 1000, severity)
    }

    /// The work went on: begin small again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over() {
        let mut backoff = Backoff::default();
        let (first, severity) = backoff.next();
        assert!(first <= FIRST && severity == Severity::Info);
        for _ in 0..40 {
            let (wait, _) = backoff.next();
            assert!(wait <= LAST);
        }
        let (long, severity) = backoff.next();
        assert!(long >= LAST / 2 && severity == Severity::Error);
        backoff.reset();
        assert!(backoff.next().0 <= FIRST);
    }
}
