//! Tables that are copied beside the stream: how they come to stand still, and how they go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use kelvin_storage::{Catalog, RowOp, SchemaChange, Table};

use super::{Assembler, Renewal, StreamSchema, outside};
use crate::backfill::{Change, Kept, Outstanding, Ready};
use crate::stream::evolution::{Survey, Verdict};
use crate::stream::pgoutput::Relation;
use crate::stream::relation::Target;
use crate::{Error, Result};

/// The tables that a process which ended has left standing still: those that are held and are said
/// not to be synced.
pub(super) fn left_by(catalog: &Catalog) -> BTreeMap<u32, Outstanding> {
    let mut left = BTreeMap::new();
    for unsynced in catalog.unsynced() {
        if let Some(table) = catalog.table(&unsynced.name) {
            let known = Outstanding {
                name: table.name.clone(),
                why: "its last copy did not come to its end".into(),
                replaces: None,
            };
            left.insert(table.oid, known);
        }
    }
    left
}

impl Assembler {
    /// A table that is held stands still until it is copied anew.
    pub(super) fn stand_still(&mut self, table: &Table, why: String) -> Result<()> {
        let known = Outstanding {
            name: table.name.clone(),
            why,
            replaces: None,
        };
        self.add(table.oid, known);
        let unsynced = self.backfills.unsynced(self.schema.catalog.unsynced());
        self.change(vec![SchemaChange::SetUnsynced(unsynced)])
    }

    fn add(&mut self, oid: u32, known: Outstanding) {
        tracing::info!(
            table = known.name,
            reason = known.why,
            "a table has to be copied"
        );
        self.backfills.add(oid, known.clone());
        self.schema.outstanding.insert(oid, known);
        if self.schema.lingers {
            self.renews = Some(Renewal::Stale);
            self.schema.awaited = Some(0);
        }
    }

    /// Does what was made of a survey.
    pub(super) fn judged(&mut self, verdict: Verdict, survey: &Survey) -> Result<()> {
        for oid in verdict.spared {
            self.schema.outstanding.remove(&oid);
            self.backfills.remove(oid);
        }
        for (oid, known) in verdict.copies {
            self.add(oid, known);
        }
        if verdict.renews {
            self.renews = Some(Renewal::Stale);
        }
        let mut changes = verdict.changes;
        let now = self.backfills.unsynced(survey.discovery.catalog.unsynced());
        let held = self.schema.catalog.unsynced();
        if !self.backfills.same_unsynced(held, &now) {
            changes.push(SchemaChange::SetUnsynced(now));
        }
        self.change(changes)
    }

    /// Looks whether the transactions that are awaited have ended, or which these are.
    pub(super) fn await_end(&mut self, survey: &Survey) {
        let (running, awaited) = (survey.running, self.schema.awaited);
        let some_run = running.oldest < running.next;
        let stale = matches!(self.renews, Some(Renewal::Stale));
        if stale || (awaited == Some(0) && some_run) {
            self.schema.awaited = some_run.then_some(running.next);
        } else if awaited.is_some_and(|next| running.oldest >= next) {
            self.schema.awaited = None;
            self.renews = Some(Renewal::Stale);
        }
        self.backfills.awaits(self.schema.awaited);
    }

    /// Adds tables that are copied to the open transaction, which is about to end, and does to them
    /// what was kept.
    pub(super) fn settle(&mut self) -> Result<()> {
        let StreamSchema {
            catalog,
            outstanding,
            awaited,
            ..
        } = &self.schema;
        if outstanding.is_empty() || awaited.is_some() || self.renews.is_some() {
            return Ok(());
        }
        let version = self.open.as_ref().ok_or_else(outside)?.version;
        let fits = |oid: u32, table: &Table| {
            let known = outstanding.get(&oid);
            // A table of its name that goes on will be renamed or dropped by the next survey.
            let gives_way = |other: &Arc<Table>| {
                other.oid == oid || known.is_some_and(|known| known.replaces == Some(other.id))
            };
            known.is_some() && catalog.table(&table.name).is_none_or(gives_way)
        };
        for ready in self.backfills.take_ready(version, fits) {
            let oid = ready.oid;
            if let Err(error) = self.settle_one(ready) {
                let table = self.schema.outstanding.get(&oid).map(|known| &known.name);
                tracing::info!(?table, %error, "what was copied does not fit any more");
                self.backfills.retry(oid, &error);
                if let Error::NotInBinary(why) = error {
                    self.renews = Some(Renewal::Text(why));
                }
            }
        }
        Ok(())
    }

    fn settle_one(&mut self, ready: Ready) -> Result<()> {
        let table = ready.loaded.table().clone();
        let weight = ready.kept.bytes();
        let described = self.targets.get(&ready.oid).map(|(relation, _)| relation);
        let (ops, target) = replay(&table, described, ready.kept)?;
        let known = self.schema.outstanding.remove(&ready.oid);
        let replaces = known.as_ref().and_then(|known| known.replaces);
        let catalog = &self.schema.catalog;
        let tables = catalog.tables().iter();
        let replaced = tables.filter(|it| it.oid == ready.oid || replaces == Some(it.id));
        let mut changes: Vec<_> = replaced.map(|it| SchemaChange::DropTable(it.id)).collect();
        changes.push(SchemaChange::LoadTable(ready.loaded));
        let mut unsynced = catalog.unsynced().to_vec();
        unsynced.retain(|it| known.as_ref().is_none_or(|known| known.name != it.name));
        changes.push(SchemaChange::SetUnsynced(unsynced));
        self.change(changes)?;
        let open = self.open.as_mut().ok_or_else(outside)?;
        open.ops.extend(ops);
        open.weight += weight;
        let highest = table.columns.iter().map(|column| column.attnum).max();
        let told = &mut self.schema.told;
        told.seen.insert(ready.oid, highest.unwrap_or(0));
        told.described.remove(&ready.oid);
        match (target, self.targets.get_mut(&ready.oid)) {
            (Some(target), Some(described)) => described.1 = target,
            // It was described before it was given the form it has now, and will be again.
            _ => drop(self.targets.remove(&ready.oid)),
        }
        Ok(())
    }
}

/// What was kept, as operations on the table, and what is done with its changes from now on, where
/// `described` says how they look.
///
/// # Errors
/// Where rows were written in another form than that which was copied.
fn replay(
    table: &Arc<Table>,
    described: Option<&Relation>,
    kept: Kept,
) -> Result<(Vec<RowOp>, Option<Target>)> {
    let alone = Catalog::new(vec![(**table).clone()], Vec::new());
    // A description that no rows follow may be older than the copy.
    let mut target = None;
    let mut ops = Vec::new();
    for change in kept.into_changes() {
        match change {
            Change::Described(relation) => target = Some(Target::resolve(&relation, &alone)),
            Change::Rows(message) => match target.take() {
                Some(Ok(Target::Held(held))) => {
                    ops.extend(held.change(&message)?);
                    target = Some(Ok(Target::Held(held)));
                }
                Some(Err(error)) => return Err(error),
                _ => return Err(Error::Protocol("rows that were not described".into())),
            },
        }
    }
    let last = described.and_then(|relation| Target::resolve(relation, &alone).ok());
    Ok((ops, last))
}
