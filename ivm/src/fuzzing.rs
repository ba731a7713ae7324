//! What fuzz targets need to see of the inside. No part of the interface.

use crate::like::Pattern;

/// Whether the text matches; `None` for a pattern that makes no sense.
#[must_use]
pub fn like(pattern: &str, ignore_case: bool, text: &str) -> Option<bool> {
    let pattern = Pattern::compile(pattern, ignore_case).ok()?;
    Some(pattern.matches(text))
}
