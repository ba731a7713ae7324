//! Copying single tables beside the stream.
//!
//! ```text
//! stream     a table is new, or cannot be followed ─► outstanding ──────────────────────────┐
//!                   │                  its changes are kept: those since C                  │
//! copier            └─► slot and snapshot at C ─► COPY ─► sorted into a keyspace of its own ─┤
//!                                                                                           ▼
//! stream     at the first commit from C on: one transaction drops the old table, adds the new one
//!            with its rows, and does to it what was kept
//! ```
//! Until then nothing of the new table is seen, and a table that was held stays as it was when it
//! could no longer be followed. All other tables go on meanwhile. What is outstanding is among the
//! unsynced tables of the catalog, so that a restart knows of a table that stands still.
//!
//! INVARIANT: changes are kept from before the slot is created. So each change of the table is in
//! the snapshot (it committed before C) or is kept (it committed at C or later).

mod copier;
mod kept;
mod outstanding;

pub(crate) use copier::Copier;
pub(crate) use kept::{Change, Kept};
pub use outstanding::{Backfill, Backfills};
pub(crate) use outstanding::{Outstanding, Ready};
