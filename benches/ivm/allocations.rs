//! Memory that is in use, counted.
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without; it hands everything on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Bytes that glibc puts in front of each block, the multiple it rounds blocks to, and the least.
const HEADER: usize = 8;
const ALIGN: usize = 16;
const LEAST: usize = 32;

/// Bytes in use, with what the allocator of glibc adds to each block.
pub fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn taken(layout: Layout) -> usize {
    (layout.size() + HEADER).next_multiple_of(ALIGN).max(LEAST)
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: each call is that of the system's allocator, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}
