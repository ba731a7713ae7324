//! Who listens to one table.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::sync::Arc;

use kelvin_protocol::{Value, ValueRef};
use kelvin_storage::{Row, RowChange};

use super::cover::Term;
use super::interval_tree::IntervalTree;
use crate::check::Check;
use crate::plan::canonical::Form;

/// Number of a group of nodes that share a condition.
pub(super) type GroupId = u32;

/// Groups by the terms that find their rows.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_value: BTreeMap<usize, GroupsByValue>,
    by_range: BTreeMap<usize, IntervalTree>,
    /// By the form of the test.
    by_test: BTreeMap<Vec<u8>, Tested>,
    /// To every row.
    always: BTreeSet<GroupId>,
}

/// In order. Most values have one group, for which a tree would take more than all the rest.
type GroupsByValue = hashbrown::HashMap<Value, Vec<GroupId>, RandomState>;

/// One test and who is interested in rows that pass it.
#[derive(Debug)]
struct Tested {
    column: usize,
    check: Arc<Check>,
    groups: BTreeSet<GroupId>,
}

impl Listeners {
    pub(super) fn is_empty(&self) -> bool {
        self.by_value.is_empty()
            && self.by_range.is_empty()
            && self.by_test.is_empty()
            && self.always.is_empty()
    }

    pub(super) fn add(&mut self, group: GroupId, term: &Term) {
        match term {
            Term::Value(column, value) => {
                let by_value = self.by_value.entry(*column).or_default();
                let groups = by_value.entry(value.clone()).or_default();
                if let Err(at) = groups.binary_search(&group) {
                    if groups.is_empty() {
                        groups.reserve_exact(1);
                    }
                    groups.insert(at, group);
                }
            }
            Term::Range(column, interval) => {
                let tree = self.by_range.entry(*column).or_default();
                tree.insert((**interval).clone(), group);
            }
            Term::Test(column, check) => {
                let tested = self.by_test.entry(form(*column, check));
                let tested = tested.or_insert_with(|| Tested {
                    column: *column,
                    check: check.clone(),
                    groups: BTreeSet::new(),
                });
                tested.groups.insert(group);
            }
            Term::Always => {
                self.always.insert(group);
            }
        }
    }

    pub(super) fn remove(&mut self, group: GroupId, term: &Term) {
        match term {
            Term::Value(column, value) => self.remove_value(group, *column, value),
            Term::Range(column, interval) => {
                if let Some(tree) = self.by_range.get_mut(column) {
                    tree.remove(interval, group);
                    if tree.is_empty() {
                        self.by_range.remove(column);
                    }
                }
            }
            Term::Test(column, check) => {
                let form = form(*column, check);
                if let Some(tested) = self.by_test.get_mut(&form) {
                    tested.groups.remove(&group);
                    if tested.groups.is_empty() {
                        self.by_test.remove(&form);
                    }
                }
            }
            Term::Always => {
                self.always.remove(&group);
            }
        }
    }

    fn remove_value(&mut self, group: GroupId, column: usize, value: &Value) {
        let Some(by_value) = self.by_value.get_mut(&column) else {
            return;
        };
        if let Some(groups) = by_value.get_mut(value) {
            if let Ok(at) = groups.binary_search(&group) {
                groups.remove(at);
            }
            if groups.is_empty() {
                by_value.remove(value);
            }
        }
        if by_value.is_empty() {
            self.by_value.remove(&column);
        }
    }

    /// Groups that listen to every row.
    pub(super) fn always(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.always.iter().copied()
    }

    /// Calls `each` with the groups that a term of theirs leads either side of the change to, some
    /// perhaps more than once; those that listen to every row are left out.
    pub(super) fn find(&self, change: &RowChange, each: &mut impl FnMut(GroupId)) {
        for (column, by_value) in &self.by_value {
            for value in values(change, *column) {
                let groups = by_value.get(&value);
                groups.into_iter().flatten().for_each(|group| each(*group));
            }
        }
        for (column, tree) in &self.by_range {
            values(change, *column).for_each(|value| tree.find(value, each));
        }
        for tested in self.by_test.values() {
            let mut values = values(change, tested.column);
            if values.any(|value| tested.check.holds(value)) {
                tested.groups.iter().for_each(|group| each(*group));
            }
        }
    }
}

/// What a change has in a column, before and after it; once where that is the same, as it mostly
/// is.
fn values(change: &RowChange, column: usize) -> impl Iterator<Item = ValueRef<'_>> {
    let old = change.old.as_ref().map(|row: &Row| row.value(column));
    let new = change.new.as_ref().map(|row: &Row| row.value(column));
    let new = new.filter(|new| old != Some(*new));
    old.into_iter().chain(new)
}

fn form(column: usize, check: &Check) -> Vec<u8> {
    let mut form = Form::default();
    form.number(column);
    form.check(check);
    form.finish()
}
