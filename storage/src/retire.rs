//! Letting go of what only versions below the horizon had: forms of tables, keyspaces of tables
//! that are gone or kept elsewhere now, entries of indexes that are no more.

use std::collections::HashMap;

use fail::fail_point;
use fjall::{Database, Keyspace, Readable};
use kelvin_protocol::Version;

use crate::TableId;
use crate::error::Result;
use crate::gate::{WriteGate, unpinned};
use crate::layout::{space_key, space_of_keyspace};
use crate::meta::{Garbage, MetaWriter};
use crate::replica::{Inner, Writer};
use crate::shape::Shape;

/// Entries of indexes that are no more which one round of upkeep removes at most.
const SWEEP: usize = 20_000;

/// What a new horizon makes superfluous.
#[derive(Default)]
pub(crate) struct Retired {
    /// Forms of tables.
    forms: Vec<(TableId, Version)>,
    /// Keyspaces of tables.
    spaces: Vec<(u32, Keyspace)>,
    /// Indexes whose whole keyspace goes.
    garbage: Vec<Garbage>,
}

impl Retired {
    /// Takes out of `shape` what no version from `horizon` on has.
    pub(crate) fn take(shape: &mut Shape, writer: &Writer, horizon: Version) -> Self {
        let mut retired = Self::default();
        let first = shape.eras.iter().rposition(|era| era.since <= horizon);
        let Some(first) = first.filter(|first| *first > 0) else {
            return retired;
        };
        let before: HashMap<u32, Keyspace> = shape
            .spaces()
            .into_iter()
            .map(|(number, space)| (number, space.keyspace.clone()))
            .collect();
        shape.eras.drain(..first);
        let kept = shape.spaces();
        let gone = before
            .into_iter()
            .filter(|(number, _)| !kept.contains_key(number));
        retired.spaces = gone.collect();
        let is_gone = |number| retired.spaces.iter().any(|(gone, _)| *gone == number);
        let garbage = writer.garbage.iter();
        retired.garbage = garbage
            .filter(|garbage| is_gone(garbage.space))
            .copied()
            .collect();
        let mut newest: HashMap<TableId, Version> = HashMap::new();
        for (table, since) in writer.forms.iter().filter(|(_, since)| *since <= horizon) {
            let newest = newest.entry(*table).or_insert(*since);
            *newest = (*newest).max(*since);
        }
        // The newest form below the horizon is still what versions see, unless the table is gone.
        let exists = |table: &TableId| kept.values().any(|space| space.table.id == *table);
        retired.forms = writer
            .forms
            .iter()
            .filter(|(table, since)| {
                newest
                    .get(table)
                    .is_some_and(|newest| since < newest || (since == newest && !exists(table)))
            })
            .copied()
            .collect();
        retired
    }

    /// Takes what is superfluous out of the records.
    pub(crate) fn forget(&self, meta: &mut MetaWriter<'_>) {
        for (table, since) in &self.forms {
            meta.forget_table(*table, *since);
        }
        for garbage in &self.garbage {
            meta.forget_garbage(*garbage);
        }
    }

    /// Whether keyspaces are to be dropped.
    pub(crate) fn drops(&self) -> bool {
        !self.spaces.is_empty()
    }

    /// Drops the keyspaces, once nothing on disk speaks of them.
    pub(crate) fn drop_all(self, gate: &WriteGate, writer: &mut Writer) -> Result<()> {
        writer.forms.retain(|form| !self.forms.contains(form));
        writer
            .garbage
            .retain(|garbage| !self.garbage.contains(garbage));
        for (_, keyspace) in self.spaces {
            fail_point!("retire-before-drop");
            gate.drop_keyspace(keyspace)?;
        }
        Ok(())
    }
}

impl Inner {
    /// Removes some entries of indexes that no readable version has. They are many, so a round
    /// takes a bounded number of them.
    pub(crate) fn sweep_garbage(&self, writer: &mut Writer) -> Result<()> {
        let (horizon, shape) = {
            let current = self.current();
            (current.horizon, current.latest.inner().shape.clone())
        };
        let spaces = shape.spaces();
        let building = self.builds.numbers();
        let due = writer.garbage.iter().position(|garbage| {
            garbage.since <= horizon && !building.contains(&(garbage.space, garbage.index))
        });
        let Some((at, garbage)) = due.and_then(|at| Some((at, *writer.garbage.get(at)?))) else {
            return Ok(());
        };
        let mut batch = self.db.batch();
        let mut keyspaces = vec![self.meta.clone()];
        if let Some(space) = spaces.get(&garbage.space) {
            keyspaces.push(space.keyspace.clone());
            let snapshot = self.db.snapshot();
            let entries = snapshot.prefix(&space.keyspace, space_key(garbage.index));
            for entry in entries.take(SWEEP) {
                batch.remove(&space.keyspace, unpinned(&entry.key()?));
            }
        }
        let done = batch.len() < SWEEP;
        if done {
            self.meta_writer(&mut batch).forget_garbage(garbage);
        }
        self.gate.commit(batch, &keyspaces)?;
        fail_point!("sweep-after-commit");
        if done {
            writer.garbage.swap_remove(at);
        }
        Ok(())
    }
}

/// Drops keyspaces of tables that no form of a table is kept in.
pub(crate) fn remove_orphans(db: &Database, shape: &Shape) -> Result<()> {
    let known = shape.spaces();
    for name in db.list_keyspace_names() {
        let orphan = space_of_keyspace(&name).is_some_and(|number| !known.contains_key(&number));
        if orphan {
            let keyspace = db.keyspace(&name, fjall::KeyspaceCreateOptions::default)?;
            db.delete_keyspace(keyspace)?;
        }
    }
    Ok(())
}
