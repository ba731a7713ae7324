//! What is done about changes of the schema that event triggers tell of.
//!
//! A survey finds what is different from before. What was changed and is as it was, and values that
//! were computed anew in the form they had, only a trigger can tell.

use super::{Assembler, outside};
use crate::Result;
use crate::stream::ddl::{Announced, Partitioned};
use crate::stream::relation::Target;
use crate::stream::survey::Marks;

/// Tables made as partitions by one transaction that are remembered; others are taken for such
/// that may have come with rows.
const MADE: usize = 1 << 16;

impl Assembler {
    /// Whether there is something to look at: not where tables were altered of which nothing is
    /// held and nothing is published.
    pub(super) fn concerns(&self, said: &Announced) -> bool {
        let held = |oid: &u32| {
            let mut tables = self.schema.catalog.tables().iter();
            self.schema.outstanding.contains_key(oid) || tables.any(|table| table.oid == *oid)
        };
        said.unpublished.is_empty() || said.unpublished.iter().any(held)
    }

    /// Lets the tables stand still whose rows may differ from here on from what the stream tells,
    /// until they are copied. Whatever else changed is for a survey to find.
    pub(super) fn heed(&mut self, said: Announced) -> Result<()> {
        if let Some(made) = said.made {
            let open = self.open.as_mut().ok_or_else(outside)?;
            if open.made.len() < MADE {
                open.made.insert(made.table, made.parent);
            }
        }
        for oid in said.rewritten {
            self.leave(oid, "the values")?;
        }
        for oid in said.unpublished {
            self.leave(oid, "the publication")?;
        }
        if let Some(published) = said.published {
            let tables = self.schema.catalog.tables().iter().map(|table| table.oid);
            let left: Vec<u32> = tables.filter(|oid| !published.contains(oid)).collect();
            for oid in left {
                self.leave(oid, "the publication")?;
            }
        }
        if let Some(altered) = said.partitioned {
            self.partitions(&altered)?;
        }
        Ok(())
    }

    /// A table that became a partition, and was not made as one, may have come with rows.
    fn partitions(&mut self, altered: &Partitioned) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(outside)?;
        // One that went away comes back with whatever happened to it meanwhile.
        open.made
            .retain(|made, parent| *parent != altered.table || altered.fresh.contains(made));
        let attached = |oid: &u32| !open.made.contains_key(oid);
        if altered.fresh.iter().any(attached) {
            for oid in &altered.roots {
                self.leave(*oid, "a partition")?;
            }
        }
        Ok(())
    }

    /// Stops following a table that is held; it is copied with what this transaction leaves.
    fn leave(&mut self, oid: u32, what: &str) -> Result<()> {
        let version = self.open.as_ref().ok_or_else(outside)?.version;
        if self.schema.outstanding.contains_key(&oid) {
            // INVARIANT: a copy that began before this transaction must not be settled behind it.
            self.backfills.outdated(oid, version);
            return Ok(());
        }
        let mut tables = self.schema.catalog.tables().iter();
        let Some(table) = tables.find(|table| table.oid == oid).cloned() else {
            return Ok(());
        };
        let announcements = self.marks.as_ref().map(Marks::announcements);
        if announcements.is_none_or(|all| all.is_internal(&table.schema)) {
            return Ok(());
        }
        self.stand_still(&table, format!("{what} of table {:?} changed", table.name))?;
        if let Some((_, target)) = self.targets.get_mut(&oid) {
            *target = Target::Outstanding;
        }
        Ok(())
    }
}
