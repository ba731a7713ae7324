//! Whether the upstream's schema is still the one the replica was copied with.

use std::collections::BTreeSet;

use kelvin_protocol::Direction;
use kelvin_storage::{Catalog, Column, Table, TableId};

use super::Discovery;

/// How the upstream's schema differs from the replica's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SchemaDifference {
    /// Only indexes are missing here; they can be added.
    Indexes(Vec<MissingIndex>),
    /// Tables, columns or keys differ; says which.
    Structure(String),
}

/// An index the upstream has and the replica has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingIndex {
    pub(crate) table: TableId,
    pub(crate) name: String,
    pub(crate) columns: Vec<(usize, Direction)>,
}

/// Detail of a replica's identity that holds [`Discovery::row_filters`].
pub(crate) const ROW_FILTERS: &str = "row filters";

/// Detail of a replica's identity that holds [`Discovery::origins`].
pub(crate) const ORIGINS: &str = "origins";

/// Detail of a replica's identity that holds [`Discovery::readings`].
pub(crate) const READINGS: &str = "readings";

/// Compares; `None` where nothing the replica cares about differs. Indexes that are gone upstream
/// are kept here. Tables that are `outstanding`, by `pg_class.oid`, differ in no way that matters.
pub(crate) fn difference(
    ours: &Catalog,
    now: &Discovery,
    outstanding: &[u32],
) -> Option<SchemaDifference> {
    let theirs = &now.catalog;
    if let Some(reason) = structure(ours, theirs, outstanding) {
        return Some(SchemaDifference::Structure(reason));
    }
    let mut missing = Vec::new();
    for theirs in theirs.tables() {
        let Some(ours) = ours.table(&theirs.name) else {
            continue;
        };
        if outstanding.contains(&ours.oid) || outstanding.contains(&theirs.oid) {
            continue;
        }
        for index in &theirs.indexes {
            if !ours
                .indexes
                .iter()
                .any(|known| known.columns == index.columns)
            {
                missing.push(MissingIndex {
                    table: ours.id,
                    name: index.name.clone(),
                    columns: index.columns.clone(),
                });
            }
        }
    }
    (!missing.is_empty()).then_some(SchemaDifference::Indexes(missing))
}

fn structure(ours: &Catalog, theirs: &Catalog, outstanding: &[u32]) -> Option<String> {
    for table in ours.tables() {
        let now = theirs.table(&table.name);
        if outstanding.contains(&table.oid) || now.is_some_and(|now| outstanding.contains(&now.oid))
        {
            continue;
        }
        let Some(now) = now else {
            return Some(format!(
                "table {:?} is no longer published or syncable",
                table.name
            ));
        };
        if let Some(what) = table_difference(table, now) {
            return Some(format!("{what} of table {:?} changed", table.name));
        }
    }
    let new = theirs
        .tables()
        .iter()
        .filter(|table| !outstanding.contains(&table.oid))
        .find(|table| ours.table(&table.name).is_none())?;
    Some(format!("table {:?} is new", new.name))
}

pub(crate) fn table_difference(ours: &Table, theirs: &Table) -> Option<&'static str> {
    if ours.oid != theirs.oid {
        return Some("the identity");
    }
    if ours.columns != theirs.columns {
        return Some("the columns");
    }
    if !unsynced_names(ours).eq(unsynced_names(theirs)) {
        return Some("the columns that are not synced");
    }
    if ours.key != theirs.key || ours.unique_keys != theirs.unique_keys {
        return Some("the keys");
    }
    None
}

/// A held table as what it is upstream now, under its own number, where it was made anew there with
/// the same form: dropped and created again, or brought into another database by a logical copy.
/// `None` where it was not, or has another form now. Its indexes are left out.
pub(crate) fn made_anew(ours: &Table, theirs: &Table) -> Option<Table> {
    let is_alike = |now: &Column| {
        let held = ours.columns.iter().find(|held| held.name == now.name);
        held.is_some_and(|held| {
            let numbered = Column {
                attnum: now.attnum,
                type_oid: now.type_oid,
                ..held.clone()
            };
            numbered == *now
        })
    };
    let alike = ours.oid != theirs.oid
        && ours.name == theirs.name
        && ours.columns.len() == theirs.columns.len()
        && theirs.columns.iter().all(is_alike)
        && named(ours, &ours.key) == named(theirs, &theirs.key)
        && unique_keys(ours) == unique_keys(theirs)
        && unsynced_names(ours).collect::<BTreeSet<_>>() == unsynced_names(theirs).collect();
    alike.then(|| Table {
        id: ours.id,
        indexes: Vec::new(),
        ..theirs.clone()
    })
}

fn named<'t>(table: &'t Table, columns: &[usize]) -> Vec<Option<&'t str>> {
    let columns = columns.iter().map(|at| table.columns.get(*at));
    columns.map(|it| it.map(|it| it.name.as_str())).collect()
}

fn unique_keys(table: &Table) -> BTreeSet<Vec<Option<&str>>> {
    let keys = table.unique_keys.iter();
    keys.map(|key| named(table, key)).collect()
}

/// Reasons are texts of ours and may be put otherwise in another version.
fn unsynced_names(table: &Table) -> impl Iterator<Item = &str> {
    let names = table.unsynced_columns.iter();
    names.map(|(name, _)| name.as_str())
}
