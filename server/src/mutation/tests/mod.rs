//! CRUD mutations on a real PostgreSQL.

mod cluster;
mod fixture;
mod rules;
mod writes;
