//! Fuzz targets: functions of bytes that panic where an invariant of kelvin does not hold.
//!
//! Each target takes whatever bytes there are, makes of them what the code under test expects (or
//! just not that), and asserts what the code promises: no panic, typed errors only, and the
//! properties named at each. [`TARGETS`] lists them; `corpus/<target>` holds inputs worth keeping.
//!
//! It is **not** a fuzzer. `cargo fuzz run <target> --features libfuzzer` drives the targets by
//! coverage, for as long as it is let, on a nightly compiler; the tests of this package replay the
//! corpus and a few thousand seeded mutations of it on a stable one.
//!
//! # Invariants
//! * A target depends on its input only: a find is replayed from its file.
//! * Bytes that are no valid input pass; they are not a failure of the code under test.
//!
//! # Example
//! ```
//! let (_, cookie) = kelvin_fuzz::TARGETS
//!     .iter()
//!     .find(|(name, _)| *name == "cookie")
//!     .ok_or("no such target")?;
//! cookie(b"k00.110:00");
//! # Ok::<(), &str>(())
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target fails by panicking"
)]

mod conversation;
mod copy;
mod decode;
mod input;
mod key_order;
mod like;
mod pgoutput;
mod plan;
mod protocol;
pub mod query;
mod recovery;
mod reorder;
mod row_record;
mod tables;

pub use conversation::conversation;
pub use copy::copy;
pub use decode::decode;
pub use key_order::key_order;
pub use like::like;
pub use pgoutput::pgoutput;
pub use plan::plan;
pub use protocol::{cookie, init_payload, up};
pub use query::query;
pub use recovery::recovery;
pub use row_record::row_record;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("conversation", conversation),
    ("cookie", cookie),
    ("copy", copy),
    ("decode", decode),
    ("init_payload", init_payload),
    ("key_order", key_order),
    ("like", like),
    ("pgoutput", pgoutput),
    ("plan", plan),
    ("query", query),
    ("recovery", recovery),
    ("row_record", row_record),
    ("up", up),
];
