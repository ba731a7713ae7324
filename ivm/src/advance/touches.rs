//! The net effect on the view.

use std::collections::HashMap;

use kelvin_storage::{Row, RowChange, RowId, TableId};

use super::RowDelta;
use crate::ChangeSet;
use crate::plan::Plan;
use crate::state::Members;

/// How the paths to rows changed in number.
#[derive(Default)]
pub(super) struct Touches {
    rows: HashMap<(TableId, RowId), Touch>,
}

struct Touch {
    paths: i64,
    row: Row,
}

impl Touches {
    /// One more path (`paths` = 1), or one less (−1), leads to the row.
    pub(super) fn add(&mut self, table: TableId, row: &Row, paths: i64) {
        self.rows
            .entry((table, row.id))
            .and_modify(|touch| touch.paths += paths)
            .or_insert_with(|| Touch {
                paths,
                row: row.clone(),
            });
    }

    /// Brings the members up to date and says which rows entered, left or changed.
    pub(super) fn settle(
        mut self,
        plan: &Plan,
        changes: &ChangeSet,
        members: &mut Members,
    ) -> Vec<RowDelta> {
        let mut rows = Vec::new();
        for table in plan.tables() {
            for change in changes.rows(table) {
                rows.extend(self.settle_change(table, change, members));
            }
        }
        // What is left was not written, so it is the same row in both views.
        for ((table, id), touch) in self.rows {
            let (was, is) = settle_count(members, table, id, touch.paths);
            if was != is {
                rows.push(RowDelta {
                    table,
                    old: was.then(|| touch.row.clone()),
                    new: is.then_some(touch.row),
                });
            }
        }
        rows.sort_by_key(|delta| {
            let row = delta.new.as_ref().or(delta.old.as_ref());
            (delta.table, row.map(|row| row.id))
        });
        rows
    }

    /// A written row. Deleted and inserted again under one key it has two numbers, and is one row
    /// for the client all the same.
    fn settle_change(
        &mut self,
        table: TableId,
        change: &RowChange,
        members: &mut Members,
    ) -> Option<RowDelta> {
        let old_id = change.old.as_ref().map(|row| row.id);
        let new_id = change.new.as_ref().map(|row| row.id);
        let mut settle = |id: RowId| {
            let touch = self.rows.remove(&(table, id));
            settle_count(members, table, id, touch.map_or(0, |touch| touch.paths))
        };
        let (was, is) = match (old_id, new_id) {
            (Some(old), Some(new)) if old == new => settle(old),
            (old, new) => {
                let was = old.is_some_and(|id| settle(id).0);
                (was, new.is_some_and(|id| settle(id).1))
            }
        };
        (was || is).then(|| RowDelta {
            table,
            old: change.old.clone().filter(|_| was),
            new: change.new.clone().filter(|_| is),
        })
    }
}

/// Applies a change in the number of paths; says whether the row was and whether it is a member.
fn settle_count(members: &mut Members, table: TableId, id: RowId, paths: i64) -> (bool, bool) {
    let before = members.count(table, id);
    if paths == 0 {
        return (before > 0, before > 0);
    }
    let after = i64::from(before) + paths;
    debug_assert!(after >= 0, "more paths left a row than led to it");
    let after = u32::try_from(after).unwrap_or(0);
    members.set(table, id, after);
    (before > 0, after > 0)
}
