//! The replica against a model that keeps the whole database at every version.
//!
//! | variable | |
//! |---|---|
//! | `KELVIN_SEED` | run this sequence only |
//! | `KELVIN_SEQUENCES` | how many sequences instead of 100; continuous integration runs 1,000 |
//! | `KELVIN_OPERATIONS` | how long each is instead of 500 operations |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod expected;
mod loads;
mod operations;
mod random;
mod world;

use world::World;

/// Sequences in all, and tests they are spread over so that they run side by side.
const SEQUENCES: u64 = 100;
const OPERATIONS: u64 = 500;
const TESTS: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap())
}

/// Says which seed it was when a sequence fails.
struct Seed(u64, bool);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with KELVIN_SEED={} narrow={}", self.0, self.1);
        }
    }
}

fn run(seed: u64, narrow: bool) {
    let said = Seed(seed, narrow);
    // No power is lost here, so that memory will do for a disk where there is some.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.unwrap();
    let mut world = World::new(dir.path(), seed, narrow);
    for _ in 0..variable("KELVIN_OPERATIONS").unwrap_or(OPERATIONS) {
        world.step();
    }
    world.check_all();
    drop(said);
}

/// Runs one of the shares of all sequences.
fn share(number: u64, narrow: bool) {
    if let Some(seed) = variable("KELVIN_SEED") {
        if seed % TESTS == number {
            run(seed, narrow);
        }
        return;
    }
    let sequences = variable("KELVIN_SEQUENCES").unwrap_or(SEQUENCES);
    let seeds = (0..sequences).filter(|seed| seed % TESTS == number);
    println!("share {number} of {sequences} sequences");
    for seed in seeds {
        run(seed, narrow);
    }
}

#[test]
fn every_view_of_every_version_equals_the_model_first_share() {
    share(0, false);
}

#[test]
fn every_view_of_every_version_equals_the_model_second_share() {
    share(1, false);
}

#[test]
fn every_view_of_every_version_equals_the_model_third_share() {
    share(2, false);
}

#[test]
fn views_far_back_in_the_history_of_busy_rows_equal_the_model() {
    share(3, true);
}
