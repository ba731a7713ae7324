//! How much one evaluation may cost.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use crate::Error;

/// Rows between two questions to the stop condition.
const STOP_CHECK_INTERVAL: u64 = 256;

/// Limits of one evaluation, hydration or advance. The crate has no clock: a deadline is a stop
/// condition that the caller supplies.
#[derive(Clone)]
pub struct Budget {
    /// Rows that may be examined, whether they are in the result or not.
    pub max_rows: u64,
    /// Asked every few hundred rows; `true` ends the evaluation with [`Error::Stopped`].
    pub stop: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Budget {
    /// No limit at all.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            max_rows: u64::MAX,
            stop: None,
        }
    }

    /// At most so many examined rows.
    #[must_use]
    pub fn rows(max_rows: u64) -> Self {
        Self {
            max_rows,
            stop: None,
        }
    }

    /// The same limits with this stop condition.
    #[must_use]
    pub fn with_stop(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
        self
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("max_rows", &self.max_rows)
            .field("stop", &self.stop.is_some())
            .finish()
    }
}

/// Counts the rows one evaluation examined.
pub(crate) struct Meter {
    budget: Budget,
    examined: Cell<u64>,
}

impl Meter {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            examined: Cell::new(0),
        }
    }

    /// Counts one more examined row.
    pub(crate) fn count(&self) -> Result<(), Error> {
        let examined = self.examined.get() + 1;
        self.examined.set(examined);
        if examined > self.budget.max_rows {
            return Err(Error::Budget {
                max_rows: self.budget.max_rows,
            });
        }
        let due = examined.is_multiple_of(STOP_CHECK_INTERVAL);
        match &self.budget.stop {
            Some(stop) if due && stop() => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Rows counted so far.
    pub(crate) fn examined(&self) -> u64 {
        self.examined.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn an_evaluation_goes_on_until_it_is_told_to_stop() {
        let told = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&told);
        let budget = Budget::rows(u64::MAX).with_stop(move || asked.load(Ordering::Relaxed));
        let meter = Meter::new(&budget);
        for _ in 0..STOP_CHECK_INTERVAL {
            meter.count().unwrap();
        }
        told.store(true, Ordering::Relaxed);
        let further = (0..STOP_CHECK_INTERVAL).map(|_| meter.count());
        let stopped = further.filter(|counted| matches!(counted, Err(Error::Stopped)));
        assert_eq!(stopped.count(), 1);
    }
}
