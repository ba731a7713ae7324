//! Which rows are in a view, and by how many paths.

use std::collections::HashMap;

use kelvin_storage::{RowId, TableId};
use roaring::RoaringBitmap;

/// A bag of row numbers: a bitmap for all, a count only where it is more than one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// By the numbers of the tables. A view has rows of few tables, and for one of them a tree
    /// would take more than many a view has to tell.
    tables: Vec<(TableId, TableMembers)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TableMembers {
    ids: RoaringBitmap,
    /// Paths beyond the first; in most views no row has any.
    #[expect(
        clippy::box_collection,
        reason = "what is not there takes a sixth of the memory"
    )]
    more: Option<Box<HashMap<RowId, u32>>>,
}

impl TableMembers {
    /// Paths beyond the first that lead to a row.
    fn more(&self, id: RowId) -> u32 {
        let more = self.more.as_ref();
        more.and_then(|more| more.get(&id).copied())
            .unwrap_or_default()
    }

    fn set_more(&mut self, id: RowId, count: u32) {
        if count > 0 {
            self.more.get_or_insert_default().insert(id, count);
        } else if let Some(more) = &mut self.more {
            more.remove(&id);
            if more.is_empty() {
                self.more = None;
            }
        }
    }
}

impl Members {
    fn of(&self, table: TableId) -> Option<&TableMembers> {
        let at = self
            .tables
            .binary_search_by_key(&table, |(table, _)| *table);
        Some(&self.tables.get(at.ok()?)?.1)
    }

    fn of_mut(&mut self, table: TableId) -> &mut TableMembers {
        let at = self
            .tables
            .binary_search_by_key(&table, |(table, _)| *table);
        let at = at.unwrap_or_else(|at| {
            self.tables.reserve_exact(1);
            self.tables.insert(at, (table, TableMembers::default()));
            at
        });
        &mut self.tables[at].1
    }

    /// Paths that lead to the row.
    pub(crate) fn count(&self, table: TableId, id: RowId) -> u32 {
        match self.of(table) {
            Some(members) if members.ids.contains(id) => 1 + members.more(id),
            _ => 0,
        }
    }

    /// Adds a path; `true` if it is the first one.
    pub(crate) fn add(&mut self, table: TableId, id: RowId) -> bool {
        let members = self.of_mut(table);
        let first = members.ids.insert(id);
        if !first {
            members.set_more(id, members.more(id) + 1);
        }
        first
    }

    /// Sets the number of paths.
    pub(crate) fn set(&mut self, table: TableId, id: RowId, count: u32) {
        let members = self.of_mut(table);
        if count == 0 {
            members.ids.remove(id);
        } else {
            members.ids.insert(id);
        }
        members.set_more(id, count.saturating_sub(1));
        if members.ids.is_empty() {
            self.tables.retain(|(other, _)| *other != table);
        }
    }

    /// Gives back the room that the bitmaps were given to grow into.
    pub(crate) fn shrink_to_fit(&mut self) {
        for (_, members) in &mut self.tables {
            // A copy has no more than it needs.
            members.ids = members.ids.clone();
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.tables().map(|(_, ids)| ids.len()).sum()
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
