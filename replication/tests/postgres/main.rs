//! Replication from real PostgreSQL servers, which the tests start and throw away.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is how tests fail"
)]

mod backfill;
mod cluster;
mod following;
mod triggers;

mod copying;
mod doctor;
mod in_progress;
mod large;
mod login;
mod modes;
mod objects;
mod random_schema;
mod resync;
mod schema;
mod silence;
mod streaming;
mod trouble;
mod values;
