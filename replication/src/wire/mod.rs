//! A connection of our own: the parts of the PostgreSQL protocol that `tokio-postgres` lacks, or
//! does not do in place.

mod channel;
mod command;
mod copy_both;
mod copy_out;
mod handshake;
mod message;
mod socket;

pub(crate) use channel::Channel;
pub(crate) use command::{
    CreatedSlot, ReplicationConnection, SlotKind, StreamOptions, SystemIdentity,
};
pub(crate) use copy_both::{CopyBoth, Inbound};
pub(crate) use handshake::{Greeting, Purpose, authenticate};
pub(crate) use message::Fields;
pub(crate) use socket::dial;
