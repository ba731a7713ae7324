//! The stream of changes: from pgoutput messages to transactions of the replica.

mod applier;
mod assembler;
mod backoff;
mod ddl;
mod durability;
mod evolution;
mod feedback;
mod lag;
mod modes;
mod pgoutput;
mod queue;
mod relation;
mod session;
mod spool;
mod survey;
mod watch;

pub(crate) use applier::Applier;
pub(crate) use assembler::{Assembled, Assembler, StreamSchema};
pub(crate) use backoff::{Backoff, Severity};
pub(crate) use durability::Durability;
pub(crate) use evolution::{Known, KnownTables, known};
pub(crate) use feedback::Feedback;
pub(crate) use lag::LagProbe;
pub use lag::{Lag, LagReport};
pub(crate) use modes::Modes;
pub(crate) use pgoutput::{Message, Relation};
pub(crate) use queue::{Closed, Part, QueueSender, closed};
pub(crate) use session::Session;
pub(crate) use spool::{Spool, Step};
pub(crate) use survey::{Marks, Surveyor};
pub(crate) use watch::SchemaWatch;
