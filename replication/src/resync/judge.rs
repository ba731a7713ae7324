//! Which tables can be compared, and what becomes of the others.

use std::collections::HashMap;

use kelvin_storage::{Catalog, Table, UnsyncedTable};

use crate::discovery::{Discovery, table_difference};
use crate::stream::{KnownTables, known};

/// What a snapshot's schema means for the tables that are held.
pub(super) struct Judgement {
    /// The tables that are held in the form they have in the snapshot, as they are held, and how
    /// they are copied.
    pub(super) alike: Discovery,
    /// What is known of these.
    pub(super) known: KnownTables,
    /// The tables that cannot be synced, and those that are held in another form: they stand still
    /// until they are copied.
    ///
    /// Held tables that are gone are not among them, nor are those that are new: the schema watch
    /// finds both.
    pub(super) unsynced: Vec<UnsyncedTable>,
}

impl Judgement {
    pub(super) fn of(held: &Catalog, now: &Discovery) -> Self {
        let (mut tables, mut sources) = (Vec::new(), Vec::new());
        let mut unsynced = now.catalog.unsynced().to_vec();
        for table in held.tables() {
            let mut there = now.catalog.tables().iter().zip(&now.sources);
            let Some((form, source)) = there.find(|(form, _)| form.oid == table.oid) else {
                continue;
            };
            match difference(table, form) {
                None => {
                    tables.push((**table).clone());
                    sources.push(source.clone());
                }
                Some(what) => unsynced.push(UnsyncedTable {
                    name: table.name.clone(),
                    reason: format!("it is to be copied: {what} changed"),
                }),
            }
        }
        unsynced.sort_by(|a, b| a.name.cmp(&b.name));
        unsynced.dedup_by(|a, b| a.name == b.name);
        let mut known = known(now);
        known.retain(|oid, _| tables.iter().any(|table| table.oid == *oid));
        let alike = Discovery {
            catalog: Catalog::new(tables, Vec::new()),
            sources,
            left_out: Vec::new(),
            heaps: HashMap::new(),
            absent: Vec::new(),
        };
        Self {
            alike,
            known,
            unsynced,
        }
    }
}

/// What of a table is not as it is held.
fn difference(held: &Table, now: &Table) -> Option<&'static str> {
    let name = |table: &Table| (table.schema.clone(), table.upstream_name.clone());
    if name(held) != name(now) || held.name != now.name {
        return Some("the name");
    }
    table_difference(held, now)
}
