//! The changes of one step from a version to the next, arranged for the plans.

use std::collections::{BTreeMap, HashMap};

use kelvin_protocol::Version;
use kelvin_storage::{Applied, RowChange, RowId, TableId};

/// Net changes between two versions, by table. Made once a commit and shared by all plans.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    from: Version,
    version: Version,
    tables: BTreeMap<TableId, TableChanges>,
}

/// Net changes of one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableChanges {
    pub(crate) rows: Vec<RowChange>,
    /// Positions in `rows` by the row's number after the change.
    by_new: HashMap<RowId, usize>,
}

impl TableChanges {
    /// Whether the row with this number, as it stands after the change, was written by it.
    pub(crate) fn wrote(&self, id: RowId) -> bool {
        self.by_new.contains_key(&id)
    }
}

impl ChangeSet {
    /// Arranges what an apply changed. Plans over tables that were swept or altered cannot be moved
    /// by it.
    #[must_use]
    pub fn new(applied: Applied) -> Self {
        Self::of((applied.from, applied.version), applied.changes)
    }

    fn of((from, version): (Version, Version), rows: impl IntoIterator<Item = RowChange>) -> Self {
        let mut tables: BTreeMap<TableId, TableChanges> = BTreeMap::new();
        for change in rows {
            let changes = tables.entry(change.table).or_default();
            if let Some(new) = &change.new {
                changes.by_new.insert(new.id, changes.rows.len());
            }
            changes.rows.push(change);
        }
        Self {
            from,
            version,
            tables,
        }
    }

    /// The same changes the other way round: what leads from the newer version back to the older
    /// one. For [`PlanState::rewind`](crate::PlanState::rewind).
    #[must_use]
    pub fn reversed(&self) -> Self {
        let rows = self.tables.values().flat_map(|changes| &changes.rows);
        let undo = |change: &RowChange| RowChange {
            table: change.table,
            old: change.new.clone(),
            new: change.old.clone(),
        };
        Self::of((self.version, self.from), rows.map(undo))
    }

    /// Version before the changes.
    #[must_use]
    pub fn from(&self) -> Version {
        self.from
    }

    /// Version after them.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables that changed, in the order of their numbers.
    pub fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.tables.keys().copied()
    }

    /// The changed rows of one table.
    #[must_use]
    pub fn rows(&self, table: TableId) -> &[RowChange] {
        self.tables.get(&table).map_or(&[], |changes| &changes.rows)
    }

    pub(crate) fn table(&self, table: TableId) -> Option<&TableChanges> {
        self.tables.get(&table)
    }
}
