//! The replica against a model that keeps the whole database at every version.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod expected;
mod random;
mod world;

use world::World;

const STEPS: usize = 60;

fn run(seed: u64, narrow: bool) {
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), seed, narrow);
    for _ in 0..STEPS {
        world.step();
    }
    world.check_ids();
}

/// Seeds from `KELVIN_SEED` (one) or a fixed set.
fn seeds(default: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("KELVIN_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => default.collect(),
    }
}

#[test]
fn every_view_of_every_version_equals_the_model() {
    for seed in seeds(0..4) {
        run(seed, false);
    }
}

#[test]
fn views_far_back_in_the_history_of_busy_rows_equal_the_model() {
    for seed in seeds(100..103) {
        run(seed, true);
    }
}
