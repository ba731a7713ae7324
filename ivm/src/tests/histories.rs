//! Random queries over random histories: what is maintained equals what is evaluated afresh, which
//! equals what the naive evaluator says, at every version and whatever the indexes.

use kelvin_storage::View;

use super::queries::random_query;
use super::random::Random;
use super::watched::Watched;
use super::world::{World, random_ops, random_tables};
use crate::{ChangeSet, ClientKeys};

/// Histories of one run, unless `KELVIN_IVM_HISTORIES` says otherwise.
const HISTORIES: u64 = 60;
const QUERIES: usize = 12;
const TRANSACTIONS: usize = 12;
/// Transactions that fill the tables.
const FILLING: usize = 20;

#[test]
fn maintained_views_equal_fresh_ones_and_the_naive_evaluator() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let (first, count) = match number("KELVIN_IVM_SEED") {
        Some(seed) => (seed, number("KELVIN_IVM_HISTORIES").unwrap_or(1)),
        None => (0, number("KELVIN_IVM_HISTORIES").unwrap_or(HISTORIES)),
    };
    for seed in first..first + count {
        println!("seed {seed}");
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(random_tables(&mut random));
    for _ in 0..FILLING {
        let ops = random_ops(&mut random, &world);
        world.apply(ops);
    }
    let keys = random_keys(&mut random, &world);
    let mut watched: Vec<Watched> = (0..QUERIES)
        .map(|_| Watched::new(&random_query(&mut random), &world, &keys))
        .collect();
    for step in 0..TRANSACTIONS {
        if random.chance(15) {
            world.add_random_index(&mut random);
        }
        let context = format!("seed {seed}, step {step}");
        let (changes, before) = random_step(&mut random, &mut world);
        let after = world.view();
        for query in &mut watched {
            query.step(&world, &changes, (&before, &after), &context);
        }
    }
    for query in &mut watched {
        let stride = 1 + usize::try_from(seed % 3).unwrap();
        query.check_rewind(&world, stride, &format!("seed {seed}"));
        query.check_log(&world, &format!("seed {seed}"));
        query.check_past(&world, &format!("seed {seed}"));
    }
}

/// One transaction, or several that are followed as one from the changelog.
fn random_step(random: &mut Random, world: &mut World) -> (ChangeSet, View) {
    let before = world.view();
    let ops = random_ops(random, world);
    let applied = world.apply(ops);
    if random.chance(75) {
        return (ChangeSet::new(applied), before);
    }
    for _ in 0..1 + random.below(3) {
        let ops = random_ops(random, world);
        world.apply(ops);
    }
    let (from, version) = (before.version(), world.replica.watermark());
    let applied = world.replica.changes(from, version).unwrap();
    let before = world.replica.at(from).unwrap();
    (ChangeSet::new(applied), before)
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
