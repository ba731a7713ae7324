//! Random queries over random histories: what is maintained equals what is evaluated afresh, which
//! equals what the naive evaluator says, at every version and whatever the indexes.

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::{Ast, Version};
use kelvin_storage::View;

use super::naive::{Naive, Rows};
use super::queries::random_query;
use super::random::Random;
use super::world::{Model, World, keyed, random_ops, random_tables};
use crate::{Budget, ChangeSet, ClientKeys, Plan, PlanDelta, PlanState, Router, evaluate};

/// Histories of one run.
const HISTORIES: u64 = 150;
const QUERIES: usize = 6;
const TRANSACTIONS: usize = 10;

struct Watched {
    text: String,
    ast: Ast,
    plan: Arc<Plan>,
    state: PlanState,
    rows: Rows,
    /// The view at every version so far.
    past: Vec<(Version, Rows)>,
}

#[test]
fn maintained_views_equal_fresh_ones_and_the_naive_evaluator() {
    let (first, count) = match std::env::var("KELVIN_IVM_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, HISTORIES),
    };
    for seed in first..first + count {
        println!("seed {seed}");
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(random_tables(&mut random));
    for _ in 0..8 {
        let ops = random_ops(&mut random, &world);
        world.apply(ops);
    }
    let keys = random_keys(&mut random, &world);
    let mut router = Router::new();
    let mut watched: Vec<Watched> = (0..QUERIES)
        .map(|_| watch(&random_query(&mut random), &world, &keys, &mut router))
        .collect();
    for step in 0..TRANSACTIONS {
        if random.chance(15) {
            world.add_random_index(&mut random);
        }
        let before = (world.view(), world.model.clone());
        let ops = random_ops(&mut random, &world);
        let changes = ChangeSet::new(world.apply(ops));
        let after = world.view();
        let routed = router.route(&changes);
        for query in &mut watched {
            let context = format!("seed {seed}, step {step}, query {}", query.text);
            let is_routed = routed.contains(&query.plan.id());
            query.step(
                &world,
                &keys,
                &changes,
                (&before.0, &after),
                is_routed,
                &context,
            );
            sufficient(&world, &keys, query, &context);
        }
    }
    for query in &watched {
        let horizon = world.replica.horizon();
        for (version, rows) in query.past.iter().filter(|(version, _)| *version >= horizon) {
            let view = world.replica.at(*version).unwrap();
            let context = format!("seed {seed}, version {version}, query {}", query.text);
            assert_eq!(&fresh(&query.plan, &view, &context), rows, "{context}");
        }
    }
}

fn random_keys(random: &mut Random, world: &World) -> ClientKeys {
    let mut keys = ClientKeys::new();
    for table in world.catalog().tables() {
        if random.chance(60) {
            let mut key = random.pick(&table.unique_keys).clone();
            random.shuffle(&mut key);
            let names = key.iter().map(|at| table.columns[*at].name.clone());
            keys.insert(table.name.clone(), names.collect());
        }
    }
    keys
}

fn watch(
    query: &serde_json::Value,
    world: &World,
    keys: &ClientKeys,
    router: &mut Router,
) -> Watched {
    let ast: Ast = serde_json::from_value(query.clone()).unwrap();
    let plan = Arc::new(Plan::compile(&ast, &world.catalog(), keys).unwrap());
    router.insert(plan.id(), &plan);
    let view = world.view();
    let rows = fresh(&plan, &view, &query.to_string());
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    let state = PlanState::hydrate(plan.clone(), &view, &Budget::unlimited(), &mut ignore).unwrap();
    Watched {
        text: query.to_string(),
        ast,
        plan,
        state,
        past: vec![(view.version(), rows.clone())],
        rows,
    }
}

fn fresh(plan: &Plan, view: &View, context: &str) -> Rows {
    let mut rows = Rows::new();
    evaluate(plan, view, &Budget::unlimited(), &mut |table, row| {
        let table = view.catalog().table_by_id(table).unwrap();
        let known = rows.insert(keyed(table, row), row.values.to_vec());
        assert!(known.is_none(), "a row came twice: {context}");
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

impl Watched {
    fn step(
        &mut self,
        world: &World,
        keys: &ClientKeys,
        changes: &ChangeSet,
        (before, after): (&View, &View),
        is_routed: bool,
        context: &str,
    ) {
        if is_routed {
            let delta = self.state.advance(changes, before, after).unwrap();
            fold(&mut self.rows, &delta, world, context);
        }
        let naive = Naive {
            catalog: &world.catalog(),
            keys,
            model: &world.model,
        };
        assert_eq!(
            fresh(&self.plan, after, context),
            naive.view(&self.ast),
            "fresh: {context}"
        );
        assert_eq!(self.rows, naive.view(&self.ast), "maintained: {context}");
        let mut ignore = |_, _: &_| ControlFlow::Continue(());
        let budget = Budget::unlimited();
        let again = PlanState::hydrate(self.plan.clone(), after, &budget, &mut ignore).unwrap();
        assert_same_state(&self.state, &again, context);
        self.past.push((after.version(), self.rows.clone()));
    }
}

fn fold(rows: &mut Rows, delta: &PlanDelta, world: &World, context: &str) {
    for change in &delta.rows {
        let catalog = world.catalog();
        let table = catalog.table_by_id(change.table).unwrap();
        let row = change.old.as_ref().or(change.new.as_ref()).unwrap();
        let held = match &change.new {
            Some(new) => {
                assert_eq!(keyed(table, new), keyed(table, row), "{context}");
                rows.insert(keyed(table, new), new.values.to_vec())
            }
            None => rows.remove(&keyed(table, row)),
        };
        let old = change.old.as_ref().map(|row| row.values.to_vec());
        assert_eq!(held, old, "old side of a delta: {context}");
    }
}

fn assert_same_state(maintained: &PlanState, fresh: &PlanState, context: &str) {
    assert_eq!(maintained.members, fresh.members, "members: {context}");
    assert_eq!(maintained.row_count(), fresh.row_count());
    for (at, (kept, new)) in maintained.nodes.iter().zip(&fresh.nodes).enumerate() {
        let summary = |node: &crate::state::NodeState| {
            let mut partitions: Vec<_> = node
                .partitions
                .iter()
                .map(|(key, partition)| {
                    let window: Vec<_> = partition
                        .window
                        .iter()
                        .map(|spot| (spot.place.clone(), spot.id))
                        .collect();
                    (key.clone(), partition.parents, window)
                })
                .collect();
            partitions.sort();
            partitions
        };
        assert_eq!(summary(kept), summary(new), "node {at}: {context}");
    }
}

/// What a client computes from the rows of the view alone is the result. (Permission rules and NOT
/// EXISTS are not in queries that clients run.)
fn sufficient(world: &World, keys: &ClientKeys, query: &Watched, context: &str) {
    if query.text.contains("NOT EXISTS") || query.text.contains("permissions") {
        return;
    }
    let catalog = world.catalog();
    let mut model: Model = catalog
        .tables()
        .iter()
        .map(|t| (t.id, Default::default()))
        .collect();
    for ((table, key), row) in &query.rows {
        model
            .get_mut(table)
            .unwrap()
            .insert(key.clone(), row.clone());
    }
    let tree = |model: &Model| {
        Naive {
            catalog: &catalog,
            keys,
            model,
        }
        .tree(&query.ast)
    };
    assert_eq!(tree(&model), tree(&world.model), "sufficiency: {context}");
}
