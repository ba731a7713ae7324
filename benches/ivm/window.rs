//! Updates around a window of the first 50 of ever more rows: what the engine does for one commit,
//! from the routing to the new end of the window, wherever the row is and goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Plan, Router};
use kelvin_protocol::Value;

use super::measure::Measure;
use super::world::{self, ISSUE};
use super::{World, hydrate};

/// The 50 issues that were modified last.
pub const QUERY: &str = r#"{"table":"issue","orderBy":[["modified","desc"]],"limit":50}"#;
const LIMIT: usize = 50;
/// Position of the column it is ordered by.
const MODIFIED: usize = 4;

/// The next row to be written.
type Next = fn(&mut World) -> Vec<Value>;

/// Where updated rows are and where they go. `modified` is the number of the issue at first, so
/// those with the greatest numbers are in the window.
const POSITIONS: [(&str, Next); 5] = [
    ("anywhere to anywhere", |world| {
        let (id, to) = (
            fastrand::usize(..world.issues),
            fastrand::usize(..world.issues),
        );
        row(id, to)
    }),
    ("anywhere to the front", |world| {
        world.clock += 1;
        row(fastrand::usize(..world.issues), world.clock)
    }),
    ("in the window, where it is", |world| {
        let id = world.issues - 1 - fastrand::usize(..LIMIT);
        row(id, id)
    }),
    // Half of them leave the window or enter it.
    ("among the first hundred", |world| {
        let first = world.issues - 2 * LIMIT;
        let within = || first + fastrand::usize(..2 * LIMIT);
        row(within(), within())
    }),
    // The first of all comes behind the last, round after round: each leaves the window, and another
    // one takes its place.
    ("from the window to the back", |world| {
        let moved = world.clock - world.issues;
        world.clock += 1;
        let mut row = row(world.issues - 1 - moved % world.issues, 0);
        row[MODIFIED] = Value::from(-(moved as f64) - 1.0);
        row
    }),
];

fn row(id: usize, modified: usize) -> Vec<Value> {
    world::issue(id, modified, &format!("user {}", fastrand::u32(..)))
}

/// Each position in ever more rows, the most of them against fewer: the time, and the rows read.
pub fn updates(measure: &mut Measure, most: usize) {
    let mut sizes = vec![most, 10_000, 1_000];
    sizes.retain(|issues| *issues <= most);
    sizes.dedup();
    for (position, next) in POSITIONS {
        let group = format!("orderBy and limit 50, an issue changes {position}");
        let reads = sizes.iter().map(|issues| {
            let mut world = World::new(*issues, 0);
            let plan = world.plan(QUERY);
            let name = format!("{issues} issues");
            run(measure, (&group, &name), &mut world, &plan, next)
        });
        let reads: Vec<f64> = reads.collect();
        println!("{group}: {reads:.3?} rows read for each of {sizes:?} issues");
    }
}

/// Returns how many rows an update reads.
fn run(
    measure: &mut Measure,
    (group, name): (&str, &str),
    world: &mut World,
    plan: &Arc<Plan>,
    next: Next,
) -> f64 {
    let mut router = Router::new();
    router.insert(plan.id(), plan);
    let mut state = hydrate(plan, &world.replica.latest().unwrap());
    router.narrow(&state);
    let (mut updates, mut read) = (0_u64, 0);
    measure.run_timed(group, name, 1, |iterations| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let row = next(world);
            let (before, changes, after) = world.write(ISSUE, vec![row]);
            let start = Instant::now();
            let routed = router.route(&changes);
            for _ in &routed {
                state.advance(&changes, &before, &after).unwrap();
                router.narrow(&state);
            }
            elapsed += start.elapsed();
            updates += 1;
            read += routed.first().map_or(0, |_| state.examined());
        }
        elapsed
    });
    read as f64 / updates as f64
}
