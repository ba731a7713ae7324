//! A query that is maintained and checked after every step.

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::{Ast, Version};
use kelvin_storage::{Row, RowId, View};

use super::naive::{Naive, Rows};
use super::world::{Model, World, keyed};
use crate::budget::Meter;
use crate::plan::node::{Node, NodeId, PartitionKey};
use crate::reader::Reader;
use crate::state::{Partitions, Spot, Window};
use crate::{
    Budget, ChangeSet, ClientKeys, DeltaLog, LoggedDelta, NetTouches, Plan, PlanDelta, PlanState,
    Router, RowKeys, evaluate,
};

pub(crate) struct Watched {
    text: String,
    ast: Ast,
    keys: ClientKeys,
    plan: Arc<Plan>,
    state: PlanState,
    router: Router,
    /// The view, from the first hydration and all deltas since.
    pub(crate) rows: Rows,
    /// The view at every version so far.
    past: Vec<(Version, Rows)>,
    log: DeltaLog,
}

impl Watched {
    pub(crate) fn new(query: &serde_json::Value, world: &World, keys: &ClientKeys) -> Self {
        let ast: Ast = serde_json::from_value(query.clone()).unwrap();
        let plan = Arc::new(Plan::compile(&ast, &world.catalog(), keys).unwrap());
        let mut router = Router::new();
        router.insert(plan.id(), &plan);
        let view = world.view();
        let state = hydrated(&plan, &view);
        router.narrow(&state);
        let watched = Self {
            text: query.to_string(),
            ast,
            keys: keys.clone(),
            state,
            rows: fresh(&plan, &view),
            router,
            past: vec![(view.version(), fresh(&plan, &view))],
            log: DeltaLog::new(view.version()),
            plan,
        };
        watched.check(world, &view, "at first");
        watched
    }

    /// Follows one step of the world and checks everything there is to check.
    pub(crate) fn step(
        &mut self,
        world: &World,
        changes: &ChangeSet,
        (before, after): (&View, &View),
        context: &str,
    ) -> PlanDelta {
        let context = format!("{context}, query {}", self.text);
        let mut delta = PlanDelta::default();
        if self.router.route(changes).contains(&self.plan.id()) {
            delta = self.state.advance(changes, before, after).unwrap();
            fold(&mut self.rows, &delta, world, &context);
            self.router.narrow(&self.state);
            self.note(&delta, (before.version(), after));
        }
        self.check(world, after, &context);
        self.past.push((after.version(), self.rows.clone()));
        delta
    }

    fn note(&mut self, delta: &PlanDelta, (from, after): (Version, &View)) {
        if !delta.is_empty() {
            let step = (from, after.version());
            let keys = &mut RowKeys::default();
            let logged = LoggedDelta::new(step, delta, after.catalog(), keys);
            self.log.push(Arc::new(logged));
        }
    }

    /// Rows the last step examined.
    pub(crate) fn examined(&self) -> u64 {
        self.state.examined()
    }

    fn check(&self, world: &World, view: &View, context: &str) {
        let naive = self.naive(world, &world.model, |naive| naive.view(&self.ast));
        assert_eq!(fresh(&self.plan, view), naive, "fresh: {context}");
        assert_eq!(self.rows, naive, "maintained: {context}");
        assert_same_state(&self.state, view, context);
        self.check_sufficient(world, context);
    }

    /// What a client computes from the rows of the view alone is the result. (Permission rules and
    /// NOT EXISTS are not in queries that clients run.)
    fn check_sufficient(&self, world: &World, context: &str) {
        if self.text.contains("NOT EXISTS") || self.text.contains("permissions") {
            return;
        }
        let catalog = world.catalog();
        let mut model: Model = catalog
            .tables()
            .iter()
            .map(|table| (table.id, Default::default()))
            .collect();
        for ((table, key), row) in &self.rows {
            model
                .get_mut(table)
                .unwrap()
                .insert(key.clone(), row.clone());
        }
        let tree = |model: &Model| self.naive(world, model, |naive| naive.tree(&self.ast));
        assert_eq!(tree(&model), tree(&world.model), "sufficiency: {context}");
    }

    fn naive<T>(&self, world: &World, model: &Model, ask: impl FnOnce(&Naive<'_>) -> T) -> T {
        ask(&Naive {
            catalog: &world.catalog(),
            keys: &self.keys,
            model,
        })
    }

    /// Between any two versions that were seen, the log tells which rows were in the view, and
    /// which may have changed; and so does what is left of it when its oldest steps are gone.
    pub(crate) fn check_log(&mut self, world: &World, context: &str) {
        let context = format!("{context}, query {}", self.text);
        loop {
            for (from, then) in &self.past {
                let Some(deltas) = self.log.after(*from) else {
                    assert!(*from < self.log.since(), "{context}");
                    continue;
                };
                for (until, now) in self.past.iter().filter(|(until, _)| until >= from) {
                    let net = NetTouches::new(&deltas, *until);
                    let view = world.replica.at(*until).unwrap();
                    let context = format!("{context}, from {from} to {until}");
                    self.check_net(&net, then, (&view, now), &context);
                }
            }
            if self.log.pop_oldest().is_none() {
                break;
            }
        }
        assert_eq!((self.log.rows(), self.log.bytes()), (0, 0));
    }

    fn check_net(&self, net: &NetTouches, then: &Rows, (view, now): (&View, &Rows), context: &str) {
        let mut touched = Rows::new();
        for (table, key, touch) in net.rows() {
            let key = (table, key.to_vec());
            assert_eq!(touch.was, then.contains_key(&key), "{key:?} was: {context}");
            assert_eq!(touch.is, now.contains_key(&key), "{key:?} is: {context}");
            touched.insert(key, Vec::new());
        }
        for (key, row) in then.iter().chain(now) {
            if touched.contains_key(key) {
                continue;
            }
            assert_eq!(then.get(key), Some(row), "{key:?} untouched: {context}");
            assert_eq!(now.get(key), Some(row), "{key:?} untouched: {context}");
            let (table, key) = key;
            let number = view.get(*table, key).unwrap().unwrap().id;
            let at_end = || self.state.contains(*table, number);
            assert!(net.stayed(*table, key, at_end), "{key:?} stayed: {context}");
        }
    }

    /// Going back from the newest version, step by step or over several at once, ends in the view
    /// that was there, and tells what going forward told.
    pub(crate) fn check_rewind(&self, world: &World, stride: usize, context: &str) {
        let context = format!("{context}, stride {stride}, query {}", self.text);
        let mut state = self.state.clone();
        let mut rows = self.rows.clone();
        let versions: Vec<Version> = self.past.iter().map(|(version, _)| *version).collect();
        let mut newer = world.replica.watermark();
        for (version, then) in self.past.iter().rev().skip(1).step_by(stride) {
            let changes = world.replica.changes(*version, newer).unwrap();
            let changes = ChangeSet::new(changes).reversed();
            let views = [newer, *version].map(|version| world.replica.at(version).unwrap());
            let mut router = Router::new();
            router.insert(self.plan.id(), &self.plan);
            if router.route(&changes).contains(&self.plan.id()) {
                let delta = state.rewind(&changes, &views[0], &views[1]).unwrap();
                fold(&mut rows, &delta, world, &context);
                let keys = &mut RowKeys::default();
                let step = (newer, *version);
                let undone = LoggedDelta::new(step, &delta, views[1].catalog(), keys).reversed();
                if stride == 1 && !delta.is_empty() {
                    let logged = self.log.after(*version).unwrap();
                    assert_eq!(logged[0].version, undone.version, "{context}");
                    let of = |delta: &LoggedDelta| {
                        let rows = delta.rows.iter();
                        let mut rows: Vec<_> = rows.map(|row| format!("{row:?}")).collect();
                        rows.sort();
                        rows
                    };
                    assert_eq!(of(&logged[0]), of(&undone), "{context}");
                }
            }
            assert_eq!(&rows, then, "back at {version} of {versions:?}, {context}");
            assert_same_state(&state, &views[1], &context);
            newer = *version;
        }
    }

    /// Evaluates at every version that was seen and is still readable.
    pub(crate) fn check_past(&self, world: &World, context: &str) {
        let horizon = world.replica.horizon();
        for (version, rows) in self.past.iter().filter(|(version, _)| *version >= horizon) {
            let view = world.replica.at(*version).unwrap();
            let then = fresh(&self.plan, &view);
            assert_eq!(
                &then, rows,
                "version {version}, {context}, query {}",
                self.text
            );
        }
    }
}

fn hydrated(plan: &Arc<Plan>, view: &View) -> PlanState {
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    PlanState::hydrate(plan.clone(), view, &Budget::unlimited(), &mut ignore).unwrap()
}

fn fresh(plan: &Plan, view: &View) -> Rows {
    let mut rows = Rows::new();
    evaluate(plan, view, &Budget::unlimited(), &mut |table, row| {
        let table = view.catalog().table_by_id(table).unwrap();
        let known = rows.insert(keyed(table, row), row.to_values());
        assert!(known.is_none(), "a row came twice");
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn fold(rows: &mut Rows, delta: &PlanDelta, world: &World, context: &str) {
    for change in &delta.rows {
        let catalog = world.catalog();
        let table = catalog.table_by_id(change.table).unwrap();
        let row = change.old.as_ref().or(change.new.as_ref()).unwrap();
        let held = match &change.new {
            Some(new) => {
                assert_eq!(keyed(table, new), keyed(table, row), "{context}");
                rows.insert(keyed(table, new), new.to_values())
            }
            None => rows.remove(&keyed(table, row)),
        };
        let old = change.old.as_ref().map(kelvin_storage::Row::to_values);
        assert_eq!(held, old, "old side of a delta: {context}");
    }
}

/// A state is that of a hydration, but for what it knows of rows behind its windows; and these are
/// the next ones there are.
fn assert_same_state(maintained: &PlanState, view: &View, context: &str) {
    let plan = maintained.plan();
    let fresh = hydrated(plan, view);
    assert_eq!(maintained.members, fresh.members, "members: {context}");
    assert_eq!(maintained.row_count(), fresh.row_count());
    let summary = |node: &Partitions, limit: usize| -> Vec<_> {
        let in_view = |key: &PartitionKey| -> Vec<Spot> {
            let window = node.window(key).into_iter();
            window.flat_map(|window| window.in_view(limit)).collect()
        };
        let partition = |key: PartitionKey| (node.parents(&key), in_view(&key), key);
        node.keys().map(partition).collect()
    };
    for (at, (kept, new)) in maintained.nodes.iter().zip(&fresh.nodes).enumerate() {
        let node = plan.node(NodeId(at));
        let limit = node.limit.unwrap_or_default();
        assert_eq!(summary(kept, limit), summary(new, limit), "{at}: {context}");
        for key in kept.keys() {
            let spots = kept.window(&key).into_iter().flat_map(Window::spots);
            let known: Vec<RowId> = spots.map(|spot| spot.id).collect();
            if known.len() > limit {
                let first = first_rows(plan, node, &key, known.len(), view);
                assert_eq!(known, first, "behind a window of node {at}: {context}");
            }
        }
    }
}

/// The first rows of a partition, were the limit another one.
fn first_rows(
    plan: &Plan,
    node: &Node,
    key: &PartitionKey,
    limit: usize,
    view: &View,
) -> Vec<RowId> {
    let node = Node {
        limit: Some(limit),
        ..node.clone()
    };
    let meter = Meter::new(&Budget::unlimited());
    let (reader, mut rows) = (Reader::new(plan, view, &meter), Vec::new());
    let mut each = |_, row: Row| {
        rows.push(row.id);
        Ok(())
    };
    reader
        .contents(&node, std::slice::from_ref(key), &mut each)
        .unwrap();
    rows
}
