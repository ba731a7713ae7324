//! Replication from real PostgreSQL servers, which the tests start and throw away.

mod cluster;
mod following;

mod copying;
mod login;
mod objects;
mod schema;
mod streaming;
mod trouble;
mod values;
