//! View sync: client groups, their queries, and the pokes that keep their clients up to date.
//!
//! What a client holds at a cookie is a pure function of the cookie: the answers of the queries its
//! group had at the cookie's config number, in the database at the cookie's version. So a group
//! remembers its queries and which plan each stood for since when ([`record`]), and never which
//! rows were sent. A client that comes back is served the difference of two evaluations,
//! or what happened to its plans in between ([`catch_up`]).
//!
//! One task owns a group ([`group`]); sockets talk to it over a bounded mailbox ([`connection`])
//! and the engine over a bounded event channel.

pub mod caller;
pub mod catch_up;
#[cfg(test)]
mod catch_up_tests;
pub mod connection;
pub mod desire;
mod followed;
pub mod group;
pub mod inspect;
pub mod poke;
pub mod record;
pub mod registry;
pub mod row_json;
pub mod schema_check;
pub mod session;
pub mod store;
pub mod transform;
