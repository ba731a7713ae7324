//! What kelvin keeps in the upstream database: the same objects as zero-cache.

mod identity;
mod objects;
mod publications;
mod replicas;
mod slots;
mod triggers;

pub(crate) use identity::{IdentityCandidate, ensure_replica_identities, identity_candidates};
pub(crate) use objects::{ensure, tables};
pub(crate) use replicas::{RegisteredReplica, finish, forget, register, retire_older};
pub(crate) use slots::{
    create, create_temporary, drop_slot, slot_state, tell_of_idle_peers, terminate_user,
};
pub(crate) use triggers::{drop_unheard, trigger_names};
