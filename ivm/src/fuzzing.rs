//! What fuzz targets need to see of the inside. No part of the interface.

use std::cell::Cell;

use crate::like::Pattern;

thread_local! {
    static IMPATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread reads as if its small tables were large ones.
pub(crate) fn is_impatient() -> bool {
    cfg!(test) || IMPATIENT.get()
}

/// What `work` does on this thread gives up after a few rows where it would after a thousand, so
/// that small tables show both what happens then and what happens otherwise.
pub fn impatient<T>(work: impl FnOnce() -> T) -> T {
    struct Until(bool);
    impl Drop for Until {
        fn drop(&mut self) {
            IMPATIENT.set(self.0);
        }
    }
    let _until = Until(IMPATIENT.replace(true));
    work()
}

/// Whether the text matches; `None` for a pattern that makes no sense.
#[must_use]
pub fn like(pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
    let pattern = Pattern::compile(pattern, ignore_case).ok()?;
    Some(pattern.matches(text))
}
