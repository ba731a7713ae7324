//! Time for measuring, handed in from outside.

use std::sync::Arc;
use std::time::Duration;

/// Tells the time since any fixed point, for metrics only: nothing the replica does depends on it.
/// The crate reads no clock of its own; without one, durations are reported as zero.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> Duration + Send + Sync>>);

impl Clock {
    /// A clock that asks `now`, which must never go back.
    #[must_use]
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time; always zero where there is no clock.
    pub(crate) fn now(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |now| now())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clock = if self.0.is_some() {
            "Clock"
        } else {
            "no Clock"
        };
        f.write_str(clock)
    }
}
