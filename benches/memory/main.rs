//! What one more plan of a known shape takes: its nodes, its state and what the router keeps of it.
//! By itself, for the allocator that counts is slower than the server's.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

#[path = "../measure.rs"]
mod measure;
#[path = "../standing.rs"]
mod standing;
#[path = "../world.rs"]
mod world;

use kelvin_ivm::{PlanState, Router};
use measure::{Measure, size};
use peak_alloc::PeakAlloc;
use standing::{World, hydrate};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Queries that differ in one constant.
struct Shape {
    name: &'static str,
    query: fn(usize) -> String,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "where owner = …",
        query: |n| format!(r#"{{"table":"issue","where":{}}}"#, owner(n)),
    },
    Shape {
        name: "where owner = …, orderBy, limit 50",
        query: |n| {
            let owner = owner(n);
            format!(
                r#"{{"table":"issue","where":{owner},"orderBy":[["modified","desc"]],"limit":50}}"#
            )
        },
    },
    Shape {
        name: "the same of rows whose keys are UUIDs",
        query: |n| {
            let owner = owner(n);
            format!(
                r#"{{"table":"note","where":{owner},"orderBy":[["modified","desc"]],"limit":50}}"#
            )
        },
    },
    Shape {
        name: "where owner = …, related comments",
        query: |n| {
            let owner = owner(n);
            format!(
                r#"{{"table":"issue","where":{owner},"related":[
                {{"correlation":{{"parentField":["id"],"childField":["issue_id"]}},
                "subquery":{{"table":"comment","alias":"comments"}}}}]}}"#
            )
        },
    },
];

fn owner(n: usize) -> String {
    format!(
        r#"{{"type":"simple","op":"=","left":{{"type":"column","name":"owner"}},"right":{{"type":"literal","value":"member {n}"}}}}"#
    )
}

/// Members who own issues, each as many as the others; further ones own none.
const MEMBERS: usize = 1000;

/// Bytes for each further plan beyond its row bitmaps: its nodes, its state with windows, and its
/// entries in the router.
fn memory(measure: &mut Measure, world: &World) {
    // The first one founds what the shape shares.
    let plans = size("MEMORY_PLANS", MEMBERS).clamp(2, MEMBERS);
    for shape in &SHAPES {
        for first in [MEMBERS, 0] {
            let (bytes, bitmaps, in_view) = further(world, shape, first, plans);
            let group = format!("memory of a further plan, {}, {in_view} rows", shape.name);
            println!("{group}: {bytes} bytes, and {bitmaps} of bitmaps");
            measure.note(&group, "bytes", bytes as f64, "2 KiB", 2048.0);
        }
    }
}

/// Of each of so many plans, after one that founded what the shape shares: bytes beyond its row
/// bitmaps, bytes of these, and rows of its view.
fn further(world: &World, shape: &Shape, first: usize, plans: usize) -> (usize, usize, u64) {
    let view = world.replica.latest().unwrap();
    let mut router = Router::new();
    let mut states: Vec<PlanState> = Vec::with_capacity(plans);
    let register = |n: usize, router: &mut Router| {
        let plan = world.plan(&(shape.query)(n));
        let state = hydrate(&plan, &view);
        router.insert(plan.id(), &plan);
        router.narrow(&state);
        state
    };
    // What the replica caches is read once before.
    for n in first..first + plans {
        hydrate(&world.plan(&(shape.query)(n)), &view);
    }
    states.push(register(first, &mut router));
    let before = MEMORY.current_usage();
    for n in first + 1..first + plans {
        states.push(register(n, &mut router));
    }
    let bytes = MEMORY.current_usage().saturating_sub(before) / (plans - 1);
    let rows: u64 = states.iter().map(PlanState::row_count).sum();
    let before = MEMORY.current_usage();
    let copy = |state: &PlanState| -> Vec<_> { state.rows().map(|(_, ids)| ids.clone()).collect() };
    let mut copies = Vec::with_capacity(plans);
    copies.extend(states.iter().map(copy));
    let bitmaps = MEMORY.current_usage().saturating_sub(before) / plans;
    (bytes.saturating_sub(bitmaps), bitmaps, rows / plans as u64)
}

fn main() {
    let mut measure = Measure::new();
    memory(&mut measure, &World::new(size("ROWS", 100_000), 0));
    measure.finish();
}
