//! What commits that concern many queries, and many groups at once, cost the engine.
//! See the README.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

#[path = "../measure.rs"]
mod measure;
#[path = "../world.rs"]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{ClientKeys, Plan};
use kelvin_protocol::Ast;
use kelvin_replication::CommitListener as _;
use kelvin_server::engine::{Engine, EngineOptions, GroupEvent, GroupId};
use kelvin_storage::{Applied, Replica};
use measure::{Measure, size};
use tokio::sync::mpsc::{Receiver, channel};
use world::ISSUE;

/// The one of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads that move plans over a commit: those of the default, and one more.
const THREADS: [usize; 2] = [1, 2];
/// Plans that a commit concerns.
const CONCERNED: [usize; 4] = [10, 100, 1_000, 10_000];
/// Groups that come within a moment.
const STORMS: [usize; 2] = [15_000, 1_500];
/// Issues of a window.
const WINDOW: usize = 50;

/// An engine, and a group that has all plans.
struct Subscribed {
    engine: Engine,
    events: Receiver<GroupEvent>,
}

impl Subscribed {
    fn new(runtime: &tokio::runtime::Runtime, world: &World, threads: usize) -> Self {
        let options = EngineOptions {
            advance_threads: threads,
            ..EngineOptions::default()
        };
        let engine = Engine::start(world.replica.clone(), "zero", 0, options).unwrap();
        let (sender, mut events) = channel(16);
        let plans = world.plans.clone();
        let reconciled = runtime.block_on(async {
            engine.attach(GroupId(1), sender).await.unwrap();
            engine.reconcile(GroupId(1), plans).await.unwrap();
            events.recv().await.unwrap()
        });
        let GroupEvent::Reconciled(reconciled) = reconciled else {
            panic!("{reconciled:?}");
        };
        assert_eq!(reconciled.added.len(), world.plans.len());
        Self { engine, events }
    }

    /// From the commit until the group has heard of it in all of its plans.
    fn follow(&mut self, applied: &Applied, concerned: usize) {
        self.engine.committed(applied.clone());
        match self.events.blocking_recv() {
            Some(GroupEvent::Commit { patches, .. }) => assert_eq!(patches.len(), concerned),
            other => panic!("{other:?}"),
        }
    }
}

struct World {
    _dir: tempfile::TempDir,
    replica: Replica,
    plans: Vec<Arc<Plan>>,
    clock: usize,
}

impl World {
    fn new(issues: usize, plans: usize) -> Self {
        assert!(issues > plans + WINDOW, "too few issues for {plans} plans");
        let dir = tempfile::tempdir().unwrap();
        let rows = (0..issues).map(|id| world::issue(id, id, "ann")).collect();
        let replica = world::load(dir.path(), world::catalog(false), &[(ISSUE, rows)]);
        let (catalog, keys) = (replica.catalog(), ClientKeys::new());
        let plan = |number| Arc::new(Plan::compile(&window(number), &catalog, &keys).unwrap());
        let plans = (0..plans).map(plan).collect();
        Self {
            _dir: dir,
            replica,
            plans,
            clock: issues,
        }
    }

    /// An issue comes to the front.
    fn touch(&mut self) -> Applied {
        self.clock += 1;
        let id = self.clock % WINDOW;
        let row = world::issue(id, self.clock, "ann");
        let transaction = world::write(&self.replica, ISSUE, vec![row]);
        self.replica.apply(&[transaction]).unwrap()
    }
}

/// So many groups come within a moment, each with a query of its own, as where a server restarts,
/// and go when all were answered. What it takes for each.
fn storm(measure: &mut Measure, group: &str, world: &World, groups: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    measure.run_timed(group, &format!("{groups} groups"), groups, |iterations| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let options = EngineOptions::default();
            let engine = Engine::start(world.replica.clone(), "zero", 0, options).unwrap();
            let start = Instant::now();
            runtime.block_on(come_and_go(&engine, &world.plans[..groups]));
            elapsed += start.elapsed() / u32::try_from(groups).unwrap();
        }
        elapsed
    });
}

async fn come_and_go(engine: &Engine, plans: &[Arc<Plan>]) {
    let ids = (1..).map(GroupId);
    let mut waiting = Vec::new();
    for (id, plan) in ids.clone().zip(plans) {
        let (sender, events) = channel(16);
        engine.attach(id, sender).await.unwrap();
        engine.reconcile(id, vec![Arc::clone(plan)]).await.unwrap();
        waiting.push(events);
    }
    for events in &mut waiting {
        assert!(matches!(
            events.recv().await,
            Some(GroupEvent::Reconciled(_))
        ));
    }
    for (id, _) in ids.zip(plans) {
        engine.detach(id).await.unwrap();
    }
    engine.stop().await;
    engine.ended().await;
}

/// Engines with one thread and with more follow the same commits, by turns.
fn compare(measure: &mut Measure, group: &str, world: &mut World) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut engines = THREADS.map(|threads| Subscribed::new(&runtime, world, threads));
    let concerned = world.plans.len();
    let mut others = Vec::new();
    measure.run_timed(group, "one thread", concerned, |iterations| {
        let mut elapsed = [Duration::ZERO; THREADS.len()];
        for _ in 0..iterations {
            let applied = world.touch();
            for (engine, elapsed) in engines.iter_mut().zip(&mut elapsed) {
                let start = Instant::now();
                engine.follow(&applied, concerned);
                *elapsed += start.elapsed();
            }
        }
        others.push(elapsed[1].as_secs_f64() * 1e9 / iterations as f64);
        elapsed[0]
    });
    measure.beside(group, "two", others);
    runtime.block_on(async {
        for engine in engines {
            engine.engine.stop().await;
        }
    });
}

/// The issues that were modified last, of those since `number`: each number makes another plan, and
/// all have the same window.
fn window(number: usize) -> Ast {
    let ast = serde_json::json!({
        "table": "issue",
        "where": {
            "type": "simple",
            "op": ">",
            "left": {"type": "column", "name": "modified"},
            "right": {"type": "literal", "value": number},
        },
        "orderBy": [["modified", "desc"]],
        "limit": WINDOW,
    });
    serde_json::from_value(ast).unwrap()
}

fn main() {
    let mut measure = Measure::new();
    let issues = size("ROWS", 20_000);
    for plans in CONCERNED {
        let mut world = World::new(issues, plans);
        let group = format!("a commit concerns {plans} windows of {WINDOW}");
        compare(&mut measure, &group, &mut world);
    }
    let world = World::new(issues, STORMS[0]);
    for groups in STORMS {
        storm(&mut measure, "groups come and go, each", &world, groups);
    }
    measure.finish();
}
