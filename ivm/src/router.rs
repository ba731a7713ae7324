//! Which plans a change may concern.

use std::collections::{BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::Arc;

use kelvin_protocol::Value;
use kelvin_storage::TableId;

use crate::ChangeSet;
use crate::plan::node::{Node, Predicate};
use crate::plan::{Plan, PlanId};

/// Finds, for a change set, the plans whose view it may change.
///
/// Every node of a plan listens to its table: where its condition fixes a column to one value or a
/// few, only to rows that have such a value before or after the change; else to all of them. So a
/// change that concerns nobody costs one hash look-up for each column anybody listens on, however
/// many plans there are.
#[derive(Debug, Default)]
pub struct Router {
    plans: HashMap<PlanId, Arc<Plan>>,
    tables: HashMap<TableId, Listeners>,
}

/// Who listens to one table.
#[derive(Debug, Default)]
struct Listeners {
    /// By column and value.
    by_value: HashMap<usize, PlansByValue>,
    /// To every row.
    all: BTreeSet<PlanId>,
}

type PlansByValue = hashbrown::HashMap<Value, BTreeSet<PlanId>, RandomState>;

/// What a node listens to.
enum Interest<'a> {
    Values(usize, &'a [Value]),
    Value(usize, &'a Value),
    All,
    Nothing,
}

impl Router {
    /// A router that knows no plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a plan. Registering it again changes nothing.
    pub fn insert(&mut self, id: PlanId, plan: &Arc<Plan>) {
        if self.plans.insert(id, plan.clone()).is_none() {
            for node in plan.nodes() {
                self.tables.entry(node.table.id).or_default().add(id, node);
            }
        }
    }

    /// Forgets a plan.
    pub fn remove(&mut self, id: &PlanId) {
        let Some(plan) = self.plans.remove(id) else {
            return;
        };
        for node in plan.nodes() {
            if let Some(listeners) = self.tables.get_mut(&node.table.id) {
                listeners.remove(*id, node);
                if listeners.all.is_empty() && listeners.by_value.is_empty() {
                    self.tables.remove(&node.table.id);
                }
            }
        }
    }

    /// Plans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there is no plan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// The plans that the changes may concern, in the order of their ids. A plan that is not among
    /// them has the same view before and after.
    #[must_use]
    pub fn route(&self, changes: &ChangeSet) -> Vec<PlanId> {
        let mut found = BTreeSet::new();
        for table in changes.tables() {
            let Some(listeners) = self.tables.get(&table) else {
                continue;
            };
            found.extend(&listeners.all);
            for (column, by_value) in &listeners.by_value {
                for change in changes.rows(table) {
                    for row in change.old.iter().chain(&change.new) {
                        found.extend(by_value.get(&row.value(*column)).into_iter().flatten());
                    }
                }
            }
        }
        found.into_iter().collect()
    }
}

impl Listeners {
    fn add(&mut self, id: PlanId, node: &Node) {
        match interest(node) {
            Interest::Nothing => {}
            Interest::All => {
                self.all.insert(id);
            }
            Interest::Value(column, value) => self.add_value(id, column, value),
            Interest::Values(column, values) => {
                for value in values {
                    self.add_value(id, column, value);
                }
            }
        }
    }

    fn add_value(&mut self, id: PlanId, column: usize, value: &Value) {
        let by_value = self.by_value.entry(column).or_default();
        by_value.entry(value.clone()).or_default().insert(id);
    }

    fn remove(&mut self, id: PlanId, node: &Node) {
        match interest(node) {
            Interest::Nothing => {}
            Interest::All => {
                self.all.remove(&id);
            }
            Interest::Value(column, value) => self.remove_value(id, column, value),
            Interest::Values(column, values) => {
                for value in values {
                    self.remove_value(id, column, value);
                }
            }
        }
    }

    fn remove_value(&mut self, id: PlanId, column: usize, value: &Value) {
        let Some(by_value) = self.by_value.get_mut(&column) else {
            return;
        };
        if let Some(plans) = by_value.get_mut(value) {
            plans.remove(&id);
            if plans.is_empty() {
                by_value.remove(value);
            }
        }
        if by_value.is_empty() {
            self.by_value.remove(&column);
        }
    }
}

/// The narrowest thing a node can listen to; values that many rows share come last.
fn interest(node: &Node) -> Interest<'_> {
    if matches!(node.predicate, Predicate::Const(false)) {
        return Interest::Nothing;
    }
    let shared = |value: &Value| matches!(value, Value::Null | Value::Bool(_));
    let best = node.fixed.iter().min_by_key(|(_, value)| shared(value));
    match (best, &node.among) {
        (Some((column, value)), _) if !shared(value) => Interest::Value(*column, value),
        (_, Some((column, values))) => Interest::Values(*column, values),
        (Some((column, value)), None) => Interest::Value(*column, value),
        (None, None) => Interest::All,
    }
}
