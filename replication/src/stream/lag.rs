//! How long it takes from a commit in PostgreSQL until the replica has it: a message of ours is
//! written every so often and timed on its way.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::survey::Surveyor;

/// Shortest time between two messages, whatever the interval that is asked for.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// The lag behind PostgreSQL. A handle; all its copies are one.
#[derive(Clone, Debug, Default)]
pub struct Lag(Arc<Mutex<Messages>>);

/// What is known of the lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagReport {
    /// From writing the last message to its coming by the stream, behind all that committed before.
    pub received: Option<Duration>,
    /// From writing it until all that committed before it was applied.
    pub applied: Option<Duration>,
    /// How long the message that is under way has taken so far; the lag is no less.
    pub awaited: Option<Duration>,
    /// Messages that have been timed to the end.
    pub count: u64,
}

#[derive(Debug, Default)]
struct Messages {
    /// Number of the last one.
    number: u64,
    /// The one that is under way: there is one at most.
    sent: Option<Instant>,
    received: Option<Duration>,
    last: LagReport,
}

impl Lag {
    /// What is known now.
    #[must_use]
    pub fn report(&self) -> LagReport {
        let messages = self.messages();
        LagReport {
            received: messages.received.or(messages.last.received),
            awaited: messages.sent.map(|sent| sent.elapsed()),
            ..messages.last
        }
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a message that is about to be written. Where one is under way, it is that one
    /// again, for it may never have been written.
    pub(super) fn send(&self) -> u64 {
        let mut messages = self.messages();
        if messages.sent.is_none() {
            messages.number += 1;
            messages.sent = Some(Instant::now());
        }
        messages.number
    }

    /// A message came by the stream. Whether that is to be followed until it is
    /// [applied](Lag::applied), which it is once.
    pub(super) fn received(&self, number: u64) -> bool {
        let mut messages = self.messages();
        let awaited = messages.number == number && messages.received.is_none();
        let Some(sent) = messages.sent.filter(|_| awaited) else {
            return false;
        };
        messages.received = Some(sent.elapsed());
        true
    }

    /// What was committed before a message was applied.
    pub(super) fn applied(&self, number: u64) {
        let mut messages = self.messages();
        if messages.number == number
            && let Some(sent) = messages.sent.take()
        {
            messages.last = LagReport {
                received: messages.received.take(),
                applied: Some(sent.elapsed()),
                awaited: None,
                count: messages.last.count + 1,
            };
        }
    }

    /// A message will not be timed any more.
    pub(super) fn lost(&self, number: u64) {
        let mut messages = self.messages();
        if messages.number == number {
            (messages.sent, messages.received) = (None, None);
        }
    }
}

/// Writes a message every so often.
pub(crate) struct LagProbe {
    /// Time between two messages; never where `None`.
    pub(crate) interval: Option<Duration>,
    pub(crate) surveyor: Arc<tokio::sync::Mutex<Surveyor>>,
    pub(crate) lag: Lag,
}

impl LagProbe {
    /// Goes on for as long as the stream is followed.
    pub(crate) async fn run(self) -> Infallible {
        let Some(interval) = self.interval else {
            return std::future::pending().await;
        };
        loop {
            if let Err(error) = self.surveyor.lock().await.probe(&self.lag).await {
                tracing::debug!(%error, "cannot write a message to time");
            }
            sleep(interval.max(LEAST_INTERVAL)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_timed_once_and_counts_from_when_it_was_written_first() {
        let lag = Lag::default();
        assert_eq!(lag.report(), LagReport::default());
        let number = lag.send();
        assert_eq!(lag.send(), number);
        assert!(lag.report().awaited.is_some());
        assert!(!lag.received(number + 1));
        assert!(lag.received(number));
        assert!(!lag.received(number));
        lag.applied(number);
        let report = lag.report();
        assert!(report.received <= report.applied && report.received.is_some());
        assert_eq!((report.awaited, report.count), (None, 1));
        assert!(!lag.received(number));
        let next = lag.send();
        assert_ne!(next, number);
        lag.applied(number);
        assert!(lag.report().awaited.is_some());
        lag.lost(next);
        assert_eq!(lag.report(), report);
    }
}
