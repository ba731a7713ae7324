//! Which rows are in a view, and by how many paths.

use std::collections::{BTreeMap, HashMap};

use kelvin_storage::{RowId, TableId};
use roaring::RoaringBitmap;

/// A bag of row numbers: a bitmap for all, a count only where it is more than one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    tables: BTreeMap<TableId, TableMembers>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TableMembers {
    ids: RoaringBitmap,
    /// Paths beyond the first.
    more: HashMap<RowId, u32>,
}

impl Members {
    /// Paths that lead to the row.
    pub(crate) fn count(&self, table: TableId, id: RowId) -> u32 {
        match self.tables.get(&table) {
            Some(members) if members.ids.contains(id) => {
                1 + members.more.get(&id).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Adds a path; `true` if it is the first one.
    pub(crate) fn add(&mut self, table: TableId, id: RowId) -> bool {
        let members = self.tables.entry(table).or_default();
        let first = members.ids.insert(id);
        if !first {
            *members.more.entry(id).or_default() += 1;
        }
        first
    }

    /// Sets the number of paths.
    pub(crate) fn set(&mut self, table: TableId, id: RowId, count: u32) {
        let members = self.tables.entry(table).or_default();
        if count == 0 {
            members.ids.remove(id);
        } else {
            members.ids.insert(id);
        }
        if count > 1 {
            members.more.insert(id, count - 1);
        } else {
            members.more.remove(&id);
        }
        if members.ids.is_empty() {
            self.tables.remove(&table);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.tables.values().map(|members| members.ids.len()).sum()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, &RoaringBitmap)> + '_ {
        self.tables
            .iter()
            .map(|(table, members)| (*table, &members.ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_member_until_its_last_path_is_gone() {
        let (mut members, table) = (Members::default(), TableId(1));
        assert!(members.add(table, 7));
        assert!(!members.add(table, 7));
        assert_eq!((members.count(table, 7), members.len()), (2, 1));
        members.set(table, 7, 1);
        assert_eq!(members.count(table, 7), 1);
        members.set(table, 7, 0);
        assert_eq!((members.count(table, 7), members.len()), (0, 0));
        assert_eq!(members.count(TableId(2), 7), 0);
    }
}
