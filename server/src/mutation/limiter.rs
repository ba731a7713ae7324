//! How many CRUD mutations a client group may make.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::MutationLimit;

/// A sliding window, estimated from two fixed ones: what the last one held counts as far as it
/// still reaches into the window. Refused calls do not count.
#[derive(Debug)]
pub(super) struct MutationLimiter {
    limit: MutationLimit,
    window_start: Instant,
    current: f64,
    previous: f64,
}

impl MutationLimiter {
    /// A limiter for one group.
    pub(super) fn new(limit: MutationLimit) -> Self {
        Self {
            limit,
            window_start: Instant::now(),
            current: 0.0,
            previous: 0.0,
        }
    }

    /// Whether one more mutation is allowed now; if so it counts.
    pub(super) fn allow(&mut self) -> bool {
        let now = Instant::now();
        let window: Duration = self.limit.window;
        let elapsed = now - self.window_start;
        if elapsed >= window * 2 {
            (self.previous, self.current) = (0.0, 0.0);
            self.window_start = now;
        } else if elapsed >= window {
            (self.previous, self.current) = (self.current, 0.0);
            self.window_start += window;
        }
        let into = (now - self.window_start).as_secs_f64() / window.as_secs_f64();
        let estimate = self.previous * (1.0 - into) + self.current;
        let allowed = estimate < self.limit.max;
        if allowed {
            self.current += 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_window_slides_and_refused_calls_do_not_count() {
        let window = Duration::from_secs(60);
        let mut limiter = MutationLimiter::new(MutationLimit { max: 10.0, window });
        let allowed = |limiter: &mut MutationLimiter| (0..100).filter(|_| limiter.allow()).count();
        assert_eq!(allowed(&mut limiter), 10);
        tokio::time::advance(window * 3 / 2).await;
        assert_eq!(
            allowed(&mut limiter),
            5,
            "half of the last window still counts"
        );
        tokio::time::advance(window * 2).await;
        assert_eq!(allowed(&mut limiter), 10);
    }
}
