//! Which plans a change may concern.

mod condition;
mod cover;
mod interval;
mod interval_tree;
mod listeners;
mod rank;
mod spans;
mod subscribers;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use kelvin_protocol::{Direction, Value};
use kelvin_storage::{RowChange, TableId};

use self::condition::Condition;
use self::cover::{Cover, Term, window_range};
use self::listeners::{GroupId, Listeners};
use self::subscribers::Subscribers;
use crate::plan::node::NodeId;
use crate::plan::{Plan, PlanId};
use crate::{ChangeSet, PlanState};

/// Finds, for a change set, the plans whose view it may change.
///
/// Every node of a plan listens to the rows of its table that meet its condition, as far as one row
/// alone can tell, before or after the change. It is found by the narrowest part of that condition:
/// by a value, through a hash table; by a range, through an interval tree; by another test, which
/// is evaluated once for all that share it. Then the whole condition is asked. Nodes with the same
/// condition are one group and asked together. So a change that concerns nobody costs about the
/// same however many plans there are, as long as not each has a test of its own.
///
/// A query with a limit hears of less once its state has been shown to [`narrow`](Self::narrow).
#[derive(Debug, Default)]
pub struct Router {
    hasher: RandomState,
    /// By the ids of the plans.
    plans: HashTable<Registered>,
    tables: HashMap<TableId, Listeners>,
    groups: Vec<Option<Group>>,
    free: Vec<GroupId>,
    /// Numbers of groups by the tables and forms of these.
    numbers: HashTable<GroupId>,
}

/// A plan and the groups its nodes are in.
#[derive(Debug)]
struct Registered {
    plan: Arc<Plan>,
    /// Groups of the nodes, by position.
    groups: Box<[GroupId]>,
    window: Option<Box<Window>>,
}

/// The root of a plan with a limit, which may listen to no more than its window.
#[derive(Debug)]
struct Window {
    condition: Arc<Condition>,
    /// Of the order.
    column: usize,
    direction: Direction,
    /// What is known of the last row of a full window.
    end: Option<Value>,
}

/// Nodes with the same condition, found by the same terms.
#[derive(Debug)]
struct Group {
    table: TableId,
    condition: Arc<Condition>,
    /// Whether a row that a term finds meets the condition anyway.
    exact: bool,
    terms: Box<[Term]>,
    form: Box<[u8]>,
    plans: Subscribers,
}

impl Group {
    fn is(&self, table: TableId, form: &[u8]) -> bool {
        self.table == table && *self.form == *form
    }
}

impl Router {
    /// A router that knows no plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a plan. Registering it again changes nothing.
    pub fn insert(&mut self, id: PlanId, plan: &Arc<Plan>) {
        if self.plan(&id).is_some() {
            return;
        }
        let (mut groups, mut window) = (Vec::with_capacity(plan.nodes().len()), None);
        let conditions = Condition::of_nodes(plan).into_iter();
        for (node, condition) in plan.nodes().iter().zip(conditions) {
            let condition = Arc::new(condition);
            let cover = Cover::of(&condition);
            if node.parent.is_none()
                && node.limit.is_some()
                && cover.is_wide()
                && let Some((column, direction)) = node.order.columns.first()
            {
                window = Some(Box::new(Window {
                    condition: condition.clone(),
                    column: *column,
                    direction: *direction,
                    end: None,
                }));
            }
            let group = self.join(id, node.table.id, &condition, cover.terms);
            groups.push(group);
        }
        let registered = Registered {
            plan: plan.clone(),
            groups: groups.into(),
            window,
        };
        let Self { hasher, plans, .. } = self;
        let hash = |plan: &Registered| hasher.hash_one(plan.plan.id());
        plans.insert_unique(hasher.hash_one(id), registered, hash);
    }

    /// Takes note of where the window of a plan's root ends, so that the plan does not hear of rows
    /// behind it any more. Does nothing for a plan without such a window, or one that is not
    /// registered.
    ///
    /// INVARIANT: from then on, [`route`](Self::route) answers for changes that begin at the
    /// state's version, or at a later one with nothing between that concerned the plan. So it has
    /// to be called after every advance of the plan, before the next change is routed.
    pub fn narrow(&mut self, state: &PlanState) {
        let id = state.plan().id();
        let Some(registered) = self.plan_mut(&id) else {
            return;
        };
        let Some(window) = &mut registered.window else {
            return;
        };
        let end = state.window_end();
        if end == window.end {
            return;
        }
        let terms = match &end {
            Some(end) => vec![Term::Range(
                window.column,
                Box::new(window_range(end, window.direction)),
            )],
            None => Cover::of(&window.condition).terms,
        };
        window.end = end;
        let condition = window.condition.clone();
        let (table, former) = (
            registered.plan.node(NodeId::ROOT).table.id,
            registered.groups.first().copied(),
        );
        let group = self.join(id, table, &condition, terms);
        if let Some(former) = former {
            self.leave(id, former);
        }
        if let Some(registered) = self.plan_mut(&id)
            && let Some(place) = registered.groups.first_mut()
        {
            *place = group;
        }
    }

    /// Forgets a plan.
    pub fn remove(&mut self, id: &PlanId) {
        let hash = self.hasher.hash_one(id);
        let found = self.plans.find_entry(hash, |plan| plan.plan.id() == *id);
        let Ok(found) = found else {
            return;
        };
        let (registered, _) = found.remove();
        for group in registered.groups {
            self.leave(*id, group);
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
        let mut heard: HashSet<GroupId> = HashSet::new();
        for table in changes.tables() {
            let Some(listeners) = self.tables.get(&table) else {
                continue;
            };
            let rows = changes.rows(table);
            if !rows.is_empty() {
                heard.extend(listeners.always());
            }
            for change in rows {
                listeners.find(change, &mut |group| {
                    if !heard.contains(&group) && self.concerns(group, change) {
                        heard.insert(group);
                    }
                });
            }
        }
        let groups = heard.into_iter().filter_map(|group| self.group(group));
        let mut plans: Vec<PlanId> = groups.flat_map(|group| group.plans.plans()).collect();
        plans.sort_unstable();
        plans.dedup();
        plans
    }

    /// Whether nothing is left of the plans there were.
    #[cfg(test)]
    pub(crate) fn knows_nothing(&self) -> bool {
        self.tables.is_empty() && self.numbers.is_empty() && self.groups.iter().all(Option::is_none)
    }

    fn plan(&self, id: &PlanId) -> Option<&Registered> {
        let hash = self.hasher.hash_one(id);
        self.plans.find(hash, |plan| plan.plan.id() == *id)
    }

    fn plan_mut(&mut self, id: &PlanId) -> Option<&mut Registered> {
        let hash = self.hasher.hash_one(id);
        self.plans.find_mut(hash, |plan| plan.plan.id() == *id)
    }

    fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(group as usize)?.as_ref()
    }

    fn concerns(&self, group: GroupId, change: &RowChange) -> bool {
        let mut sides = change.old.iter().chain(&change.new);
        self.group(group)
            .is_some_and(|group| group.exact || sides.any(|row| group.condition.holds(row)))
    }

    /// Makes a node of the plan a member of the group for this condition and these terms.
    fn join(
        &mut self,
        id: PlanId,
        table: TableId,
        condition: &Arc<Condition>,
        terms: Vec<Term>,
    ) -> GroupId {
        let form = form(condition, &terms);
        let known = self.numbers.find(self.hash(table, &form), |number| {
            self.group(*number)
                .is_some_and(|group| group.is(table, &form))
        });
        let number = match known {
            Some(number) => *number,
            None => self.found(table, condition, terms, form),
        };
        let group = self.groups.get_mut(number as usize);
        if let Some(group) = group.and_then(Option::as_mut) {
            group.plans.add(id);
        }
        number
    }

    fn hash(&self, table: TableId, form: &[u8]) -> u64 {
        self.hasher.hash_one((table, form))
    }

    fn found(
        &mut self,
        table: TableId,
        condition: &Arc<Condition>,
        terms: Vec<Term>,
        form: Box<[u8]>,
    ) -> GroupId {
        let number = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            (self.groups.len() - 1) as GroupId
        });
        if !terms.is_empty() {
            let listeners = self.tables.entry(table).or_default();
            terms.iter().for_each(|term| listeners.add(number, term));
        }
        let group = Group {
            table,
            condition: condition.clone(),
            exact: is_exact(condition, &terms),
            terms: terms.into(),
            form,
            plans: Subscribers::none(),
        };
        let hash = self.hash(table, &group.form);
        if let Some(place) = self.groups.get_mut(number as usize) {
            *place = Some(group);
        }
        let Self {
            hasher,
            groups,
            numbers,
            ..
        } = self;
        numbers.insert_unique(hash, number, |number| {
            let group = groups.get(*number as usize).and_then(Option::as_ref);
            group.map_or(0, |group| hasher.hash_one((group.table, &*group.form)))
        });
        number
    }

    /// Undoes one [`join`](Self::join).
    fn leave(&mut self, id: PlanId, number: GroupId) {
        let Some(place) = self.groups.get_mut(number as usize) else {
            return;
        };
        let Some(group) = place else {
            return;
        };
        group.plans.remove(&id);
        if !group.plans.is_empty() {
            return;
        }
        let Some(group) = place.take() else {
            return;
        };
        self.free.push(number);
        if let Some(listeners) = self.tables.get_mut(&group.table) {
            let terms = group.terms.iter();
            terms.for_each(|term| listeners.remove(number, term));
            if listeners.is_empty() {
                self.tables.remove(&group.table);
            }
        }
        let hash = self.hash(group.table, &group.form);
        if let Ok(known) = self.numbers.find_entry(hash, |known| *known == number) {
            known.remove();
        }
    }
}

/// Bytes that are the same for groups that are the same. The terms follow from the condition, but
/// for those of a window.
fn form(condition: &Condition, terms: &[Term]) -> Box<[u8]> {
    let mut form = crate::plan::canonical::Form::default();
    form.bytes(&condition.form());
    for term in terms {
        if let Term::Range(column, interval) = term {
            form.number(*column);
            for edge in [&interval.low, &interval.high] {
                form.tag(edge.as_ref().map_or(0, |edge| 1 + u8::from(edge.inclusive)));
                form.value(edge.as_ref().map_or(&Value::Null, |edge| &edge.value));
            }
        }
    }
    form.finish().into()
}

/// Whether the terms say all that the condition says.
fn is_exact(condition: &Condition, terms: &[Term]) -> bool {
    match (condition, terms) {
        (Condition::Const(_), [Term::Always]) => true,
        (Condition::Test { .. }, [Term::Value(..) | Term::Test(..)]) => true,
        (Condition::Test { .. }, terms) => terms.iter().all(|term| matches!(term, Term::Value(..))),
        _ => false,
    }
}
