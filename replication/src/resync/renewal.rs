//! Tables that were made anew upstream.

use kelvin_storage::{Alteration, Catalog, SchemaChange, Table};

use crate::discovery::made_anew;

/// What brings the tables that are held under the identity they have in a snapshot, if they have
/// another one than before. Their rows stay, and are compared like those of all others.
///
/// `pg_class.oid` and `attnum` say nothing across databases, and one of the old may be that of
/// another table in the new. So names decide, and everything is compared anyhow.
pub(super) struct Renewal {
    /// What there is to change, before anything is compared.
    pub(super) changes: Vec<SchemaChange>,
    /// The tables that are held then. Indexes are left out of those that were made anew.
    pub(super) catalog: Catalog,
}

impl Renewal {
    pub(super) fn of(held: &Catalog, now: &Catalog) -> Self {
        let new = |table: &Table| made_anew(table, now.table(&table.name)?);
        let new: Vec<Option<Table>> = held.tables().iter().map(|table| new(table)).collect();
        let (mut dropped, mut altered, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for (table, renewed) in held.tables().iter().zip(&new) {
            if let Some(renewed) = renewed {
                altered.push(SchemaChange::AlterTable(Alteration {
                    table: renewed.clone(),
                    fills: Vec::new(),
                    made_anew: true,
                }));
                tables.push(renewed.clone());
            } else if new.iter().flatten().any(|other| other.oid == table.oid) {
                // What is upstream under its oid is another one that is held. The schema watch
                // finds what has its name now, if anything has.
                dropped.push(SchemaChange::DropTable(table.id));
            } else {
                tables.push((**table).clone());
            }
        }
        dropped.append(&mut altered);
        Self {
            changes: dropped,
            catalog: Catalog::new(tables, held.unsynced().to_vec()),
        }
    }
}
