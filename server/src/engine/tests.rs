//! Plans that several threads move: the barrier, the same results, and what stays with one plan.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kelvin_ivm::{ClientKeys, Plan, PlanId};
use kelvin_protocol::{Ast, Value, ValueType, Version};
use kelvin_replication::CommitListener as _;
use kelvin_storage::{
    Catalog, Column, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Table, TableId, Transaction,
};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::hooks::{Hooks, PlanHook};
use super::{Engine, EngineOptions, GroupEvent, GroupId};

const ISSUE: TableId = TableId(1);
/// Ends a test that would hang.
const TOO_LONG: Duration = Duration::from_secs(120);

fn catalog() -> Catalog {
    let column = |(at, name): (usize, &&str)| Column {
        name: (*name).to_owned(),
        attnum: i16::try_from(at).unwrap() + 1,
        upstream_type: "float8".to_owned(),
        type_oid: 701,
        value_type: ValueType::Number,
        not_null: true,
    };
    let columns = ["id", "project", "votes"];
    let issue = Table {
        id: ISSUE,
        name: "issue".to_owned(),
        schema: "public".to_owned(),
        upstream_name: "issue".to_owned(),
        oid: 1000,
        columns: columns.iter().enumerate().map(column).collect(),
        unsynced_columns: Vec::new(),
        key: vec![0],
        unique_keys: vec![vec![0]],
        indexes: Vec::new(),
    };
    Catalog::new(vec![issue], Vec::new())
}

pub(super) fn replica() -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &ReplicaOptions::default(), catalog()).unwrap();
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    (dir, replica)
}

pub(super) fn plan(replica: &Replica, query: serde_json::Value) -> Arc<Plan> {
    let ast: Ast = serde_json::from_value(query).unwrap();
    Arc::new(Plan::compile(&ast, &replica.catalog(), &ClientKeys::new()).unwrap())
}

/// The most voted issues: one, two, three and so on. An issue with most votes concerns all plans.
fn tops(replica: &Replica, plans: usize) -> Vec<Arc<Plan>> {
    let by_votes = json!([["votes", "desc"], ["id", "asc"]]);
    let top = |limit| json!({"table": "issue", "orderBy": by_votes, "limit": limit});
    (1..=plans).map(|limit| plan(replica, top(limit))).collect()
}

pub(super) fn apply(replica: &Replica, ops: Vec<RowOp>) -> kelvin_storage::Applied {
    let version = replica.watermark() + 10;
    replica.apply(&[Transaction { version, ops }]).unwrap()
}

pub(super) fn insert(id: u32, project: u32, votes: u32) -> RowOp {
    let row = [id, project, votes].map(|n| Value::from(f64::from(n)));
    RowOp::Insert {
        table: ISSUE,
        row: row.to_vec(),
    }
}

/// An engine with several threads that are used for everything.
fn options(threads: usize) -> EngineOptions {
    EngineOptions {
        advance_threads: threads,
        advance_alone: Duration::ZERO,
        ..EngineOptions::default()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// Attaches a group and asks for plans.
fn ask(
    runtime: &Runtime,
    engine: &Engine,
    group: u64,
    plans: &[Arc<Plan>],
) -> mpsc::Receiver<GroupEvent> {
    let (sender, events) = mpsc::channel(1000);
    runtime.block_on(async {
        engine.attach(GroupId(group), sender).await.unwrap();
        let asked = engine.reconcile(GroupId(group), plans.to_vec());
        asked.await.unwrap();
    });
    events
}

/// The number of plans a group has got, none of which failed.
fn added(event: GroupEvent) -> usize {
    match event {
        GroupEvent::Reconciled(reconciled) => {
            assert_eq!(reconciled.failed, []);
            reconciled.added.len()
        }
        other => panic!("{other:?}"),
    }
}

/// Subscribes a group to plans.
fn join(
    runtime: &Runtime,
    engine: &Engine,
    group: u64,
    plans: &[Arc<Plan>],
) -> mpsc::Receiver<GroupEvent> {
    let mut events = ask(runtime, engine, group, plans);
    assert_eq!(added(next(runtime, &mut events)), plans.len());
    events
}

fn next(runtime: &Runtime, events: &mut mpsc::Receiver<GroupEvent>) -> GroupEvent {
    let event = runtime.block_on(async { tokio::time::timeout(TOO_LONG, events.recv()).await });
    event.unwrap().unwrap()
}

/// What one commit told a group: the version, of each plan its puts and dels, and the group's dels.
type Told = (Version, BTreeMap<PlanId, (Vec<String>, usize)>, Vec<String>);

fn told(event: GroupEvent) -> Told {
    let GroupEvent::Commit {
        version,
        patches,
        dels,
    } = event
    else {
        panic!("{event:?}");
    };
    let sorted = |texts: &[Arc<str>]| {
        let mut texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    };
    let patches = patches.iter().map(|patch| {
        let told = (sorted(&patch.puts), patch.left.len());
        (patch.plan.unwrap(), told)
    });
    (version, patches.collect(), sorted(&dels))
}

/// Holds up calls until they are let go.
#[derive(Default)]
struct Gate {
    /// Calls so far, whether they are let go, and whether a helping thread is held up.
    calls: Mutex<(usize, bool, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Holds up the first call on a thread that helps the engine thread, which does not go on
    /// beyond its own first plan before there is one.
    fn hold_a_helper(&self) {
        let helps = std::thread::current().name() != Some("engine");
        let mut calls = self.calls.lock().unwrap();
        calls.0 += 1;
        let holds = helps && !calls.2;
        calls.2 |= holds;
        self.changed.notify_all();
        if holds {
            drop(self.changed.wait_while(calls, |calls| !calls.1).unwrap());
        } else if calls.0 > 1 {
            drop(self.changed.wait_while(calls, |calls| !calls.2).unwrap());
        }
    }

    /// Holds up every call until it is let go.
    fn hold(&self) {
        let mut calls = self.calls.lock().unwrap();
        calls.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(calls, |calls| !calls.1).unwrap());
    }

    fn wait_for(&self, number: usize) {
        let calls = self.calls.lock().unwrap();
        let few = |calls: &mut (usize, bool, bool)| calls.0 < number;
        let waited = self.changed.wait_timeout_while(calls, TOO_LONG, few);
        let (calls, _) = waited.unwrap();
        assert!(calls.0 >= number, "only {} plans were begun", calls.0);
    }

    fn open(&self) {
        self.calls.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[test]
fn no_group_hears_of_a_version_before_every_plan_is_there() {
    let (_dir, replica) = replica();
    let gate = Arc::new(Gate::default());
    let hook = Arc::clone(&gate);
    let advance = Some(PlanHook::new(move |_| hook.hold_a_helper()));
    let options = EngineOptions {
        hooks: Hooks {
            advance,
            ..Hooks::default()
        },
        ..options(4)
    };
    let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
    let (runtime, plans) = (runtime(), tops(&replica, 40));
    let mut groups = [
        join(&runtime, &engine, 1, &plans[..20]),
        join(&runtime, &engine, 2, &plans[20..]),
    ];
    engine.committed(apply(&replica, vec![insert(1, 1, 1)]));
    // All but the one that may be behind it on the same thread.
    gate.wait_for(39);
    for events in &mut groups {
        assert!(events.try_recv().is_err(), "a group heard of it too early");
    }
    gate.open();
    for events in &mut groups {
        let (version, patches, _) = told(next(&runtime, events));
        assert_eq!((version, patches.len()), (110, 20));
    }
}

#[test]
fn a_plan_that_panics_fails_alone_on_one_thread_and_on_several() {
    for threads in [1, 4] {
        let (_dir, replica) = replica();
        let plans = tops(&replica, 12);
        let broken = plans[5].id();
        let advance = Some(PlanHook::new(move |plan| {
            assert_ne!(plan.id(), broken, "as the test wants it");
        }));
        let options = EngineOptions {
            hooks: Hooks {
                advance,
                ..Hooks::default()
            },
            ..options(threads)
        };
        let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
        let runtime = runtime();
        let mut all = join(&runtime, &engine, 1, &plans);
        let mut others = join(&runtime, &engine, 2, &plans[6..]);
        engine.committed(apply(&replica, vec![insert(1, 1, 1)]));
        match next(&runtime, &mut all) {
            GroupEvent::PlanFailed { plan, message } => {
                assert_eq!(plan, broken);
                assert!(message.contains("defect"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        let (version, patches, _) = told(next(&runtime, &mut all));
        assert_eq!((version, patches.len()), (110, 11));
        assert_eq!(told(next(&runtime, &mut others)).1.len(), 6);
        // And so it goes on without it.
        engine.committed(apply(&replica, vec![insert(2, 1, 2)]));
        for (events, plans) in [(&mut all, 11), (&mut others, 6)] {
            let (version, patches, _) = told(next(&runtime, events));
            assert_eq!((version, patches.len()), (120, plans));
        }
    }
}

fn random_ops(random: &mut fastrand::Rng, rows: &mut BTreeMap<u32, (u32, u32)>) -> Vec<RowOp> {
    let mut ops = Vec::new();
    for _ in 0..1 + random.usize(..4) {
        let id = random.u32(..30);
        if rows.remove(&id).is_some() {
            ops.push(RowOp::Delete {
                table: ISSUE,
                key: vec![Value::from(f64::from(id))],
            });
        }
        if random.u8(..4) > 0 {
            let row = (random.u32(..5), random.u32(..50));
            rows.insert(id, row);
            ops.push(insert(id, row.0, row.1));
        }
    }
    ops
}

#[test]
fn any_number_of_threads_tells_and_counts_the_same() {
    let (_dir, replica) = replica();
    let runtime = runtime();
    let mut plans = tops(&replica, 20);
    for project in 0..5 {
        let project = json!({"type": "simple", "op": "=",
            "left": {"type": "column", "name": "project"},
            "right": {"type": "literal", "value": project}});
        plans.push(plan(&replica, json!({"table": "issue", "where": project})));
    }
    let engines = [1, 4].map(|threads| {
        let engine = Engine::start(replica.clone(), "app", 0, options(threads)).unwrap();
        let events = join(&runtime, &engine, 1, &plans);
        (engine, events)
    });
    let [(one, mut by_one), (four, mut by_four)] = engines;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut rows, mut changed) = (BTreeMap::new(), 0);
    for step in 0..120 {
        let applied = apply(&replica, random_ops(&mut random, &mut rows));
        let version = applied.version;
        for engine in [&one, &four] {
            engine.committed(applied.clone());
            // Answered after the commit.
            runtime.block_on(engine.plan("none")).unwrap();
            assert_eq!(engine.metrics().version, version);
        }
        match (by_one.try_recv(), by_four.try_recv()) {
            (Ok(expected), Ok(event)) => {
                changed += 1;
                assert_eq!(told(event), told(expected), "step {step}");
            }
            (Err(_), Err(_)) => {}
            other => panic!("step {step}: {other:?}"),
        }
    }
    assert!(changed > 100, "only {changed} commits changed anything");
    let counts = [&one, &four].map(|engine| {
        let metrics = engine.metrics();
        let reports = runtime.block_on(engine.plan_reports(100)).unwrap().slowest;
        let of_plans = |count: fn(&super::PlanCosts) -> u64| -> u64 {
            reports.iter().map(|report| count(&report.costs)).sum()
        };
        let costs = metrics.costs;
        assert_eq!(of_plans(|costs| costs.advances), costs.advances);
        assert_eq!(of_plans(|costs| costs.delta_rows), costs.delta_rows);
        let time: Duration = reports.iter().map(|report| report.costs.advancing).sum();
        assert_eq!(time, costs.advancing);
        (
            (metrics.plan_rows, metrics.deliveries, costs.advances),
            (costs.advance_examined, costs.deltas, costs.delta_rows),
        )
    });
    assert_eq!(counts[0], counts[1]);
}

/// Rows enough for a hydration to be asked several times whether to go on.
fn fill(replica: &Replica) {
    let rows = (0..2_000).map(|id| insert(id + 100, id % 1_000, id));
    apply(replica, rows.collect());
}

#[test]
fn slow_hydrations_leave_a_thread_to_quick_ones_and_end_themselves() {
    let (_dir, replica) = replica();
    fill(&replica);
    // Each row is looked at, and there are more of them than threads.
    let slow: Vec<Arc<Plan>> = (0..8).map(|votes| {
        let right = json!({"type": "literal", "value": votes});
        let above = json!({"type": "simple", "op": ">", "left": {"type": "column", "name": "votes"}, "right": right});
        plan(&replica, json!({"table": "issue", "where": above}))
    }).collect();
    let by_key = |id: u32| {
        let id = json!({"type": "simple", "op": "=", "left": {"type": "column", "name": "id"},
            "right": {"type": "literal", "value": id}});
        plan(&replica, json!({"table": "issue", "where": id}))
    };
    let quick: Vec<Arc<Plan>> = (100..120).map(by_key).collect();
    for threads in [1, 3] {
        // Every hydration that goes on beyond its first look at the clock is held up.
        let gate = Arc::new(Gate::default());
        let hook = Arc::clone(&gate);
        let options = EngineOptions {
            hydration_threads: threads,
            hydration_slice: Duration::ZERO,
            hooks: Hooks {
                hydrate: Some(PlanHook::new(move |_| hook.hold())),
                ..Hooks::default()
            },
            ..EngineOptions::default()
        };
        let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
        let runtime = runtime();
        let mut waiting = ask(&runtime, &engine, 1, &slow);
        gate.wait_for(1);
        for (number, plan) in quick.iter().enumerate() {
            let group = number as u64 + 2;
            let mut events = ask(&runtime, &engine, group, std::slice::from_ref(plan));
            assert_eq!(added(next(&runtime, &mut events)), 1);
        }
        assert!(
            waiting.try_recv().is_err(),
            "the slow ones were not held up"
        );
        gate.open();
        assert_eq!(added(next(&runtime, &mut waiting)), slow.len());
        // Answered after the counts of what came before are published.
        runtime.block_on(engine.plan("none")).unwrap();
        assert_eq!(
            engine.metrics().hydrations,
            (slow.len() + quick.len()) as u64
        );
    }
}

/// Hydrations wait at their first look at the clock until the gate opens.
fn held(gate: &Arc<Gate>, threads: usize) -> EngineOptions {
    let gate = Arc::clone(gate);
    EngineOptions {
        hooks: Hooks {
            hydrate: Some(PlanHook::new(move |_| gate.hold())),
            ..Hooks::default()
        },
        hydration_slice: Duration::ZERO,
        ..options(threads)
    }
}

#[test]
fn commits_go_on_while_a_hydration_is_under_way_and_are_in_its_result() {
    let (_dir, replica) = replica();
    fill(&replica);
    let gate = Arc::new(Gate::default());
    let options = held(&gate, 2);
    let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
    let runtime = runtime();
    let key = json!({"type": "simple", "op": "=", "left": {"type": "column", "name": "id"},
        "right": {"type": "literal", "value": 1}});
    let quick = plan(&replica, json!({"table": "issue", "where": key}));
    let mut events = join(&runtime, &engine, 1, &[quick]);
    let mut waiting = ask(
        &runtime,
        &engine,
        2,
        &[plan(&replica, json!({"table": "issue"}))],
    );
    gate.wait_for(1);
    for votes in 0..20 {
        let applied = apply(&replica, vec![insert(1, 1, votes)]);
        let version = applied.version;
        engine.committed(applied);
        assert_eq!(told(next(&runtime, &mut events)).0, version);
    }
    assert!(waiting.try_recv().is_err(), "the hydration was not held up");
    gate.open();
    match next(&runtime, &mut waiting) {
        GroupEvent::Reconciled(reconciled) => {
            let version = replica.watermark();
            assert_eq!(reconciled.version, version);
            assert_eq!(reconciled.added[0].1, version, "the new row came meanwhile");
        }
        other => panic!("{other:?}"),
    }
    // Answered after the counts of what came before are published.
    runtime.block_on(engine.plan("none")).unwrap();
    assert_eq!(engine.metrics().plan_rows, 2_002);
}

#[test]
fn a_group_that_waits_hears_of_a_plan_that_fails_meanwhile() {
    let (_dir, replica) = replica();
    fill(&replica);
    let key = json!({"type": "simple", "op": "=", "left": {"type": "column", "name": "id"},
        "right": {"type": "literal", "value": 1}});
    let broken = plan(&replica, json!({"table": "issue", "where": key}));
    let slow = plan(&replica, json!({"table": "issue"}));
    let gate = Arc::new(Gate::default());
    let (hook, id) = (Arc::clone(&gate), broken.id());
    let options = EngineOptions {
        hooks: Hooks {
            advance: Some(PlanHook::new(move |plan| {
                assert_ne!(plan.id(), id, "as the test wants it");
            })),
            hydrate: Some(PlanHook::new(move |_| hook.hold())),
        },
        hydration_slice: Duration::ZERO,
        ..options(1)
    };
    let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
    let runtime = runtime();
    let mut first = join(&runtime, &engine, 1, &[Arc::clone(&broken)]);
    let mut waiting = ask(&runtime, &engine, 2, &[broken, Arc::clone(&slow)]);
    gate.wait_for(1);
    engine.committed(apply(&replica, vec![insert(1, 1, 1)]));
    let failed = next(&runtime, &mut first);
    assert!(matches!(failed, GroupEvent::PlanFailed { plan, .. } if plan == id));
    gate.open();
    match next(&runtime, &mut waiting) {
        GroupEvent::Reconciled(reconciled) => {
            let failed: Vec<_> = reconciled.failed.iter().map(|(plan, _)| *plan).collect();
            let added: Vec<_> = reconciled.added.iter().map(|(plan, _)| *plan).collect();
            assert_eq!((failed, added), (vec![id], vec![slow.id()]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hydration_that_its_groups_have_left_ends_and_can_be_asked_for_again() {
    let (_dir, replica) = replica();
    fill(&replica);
    let gate = Arc::new(Gate::default());
    let options = EngineOptions {
        hydration_deserted: Duration::ZERO,
        ..held(&gate, 1)
    };
    let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
    let runtime = runtime();
    let slow = || plan(&replica, json!({"table": "issue"}));
    let mut left = ask(&runtime, &engine, 1, &[slow()]);
    gate.wait_for(1);
    runtime.block_on(engine.detach(GroupId(1))).unwrap();
    let mut waiting = ask(&runtime, &engine, 2, &[slow()]);
    gate.open();
    assert_eq!(added(next(&runtime, &mut waiting)), 1);
    assert!(left.try_recv().is_err());
    // Answered after the counts of what came before are published.
    runtime.block_on(engine.plan("none")).unwrap();
    assert_eq!(engine.metrics().hydrations, 1);
}

#[test]
fn a_hydration_that_was_left_goes_on_for_whoever_came_meanwhile() {
    let (_dir, replica) = replica();
    fill(&replica);
    let gate = Arc::new(Gate::default());
    let options = EngineOptions {
        hydration_deserted: Duration::from_millis(1),
        ..held(&gate, 1)
    };
    let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
    let runtime = runtime();
    let slow = [plan(&replica, json!({"table": "issue"}))];
    let _left = ask(&runtime, &engine, 1, &slow);
    gate.wait_for(1);
    runtime.block_on(engine.detach(GroupId(1))).unwrap();
    let mut waiting = ask(&runtime, &engine, 2, &slow);
    std::thread::sleep(Duration::from_millis(2));
    // What was left so long ago is ended now.
    let _other = ask(&runtime, &engine, 3, &[]);
    gate.open();
    assert_eq!(added(next(&runtime, &mut waiting)), 1);
}

#[test]
fn subscriptions_are_counted_as_groups_come_change_and_go() {
    let (_dir, replica) = replica();
    let engine = Engine::start(replica.clone(), "app", 0, options(1)).unwrap();
    let runtime = runtime();
    let plans = tops(&replica, 5);
    let count = || {
        // Answered after the counts of what came before are published.
        runtime.block_on(engine.plan("none")).unwrap();
        engine.metrics().subscriptions
    };
    let mut first = join(&runtime, &engine, 1, &plans);
    let _second = join(&runtime, &engine, 2, &plans[..2]);
    assert_eq!(count(), 7);
    runtime
        .block_on(engine.reconcile(GroupId(1), plans[3..].to_vec()))
        .unwrap();
    assert_eq!(added(next(&runtime, &mut first)), 0);
    assert_eq!(count(), 4);
    for group in [2, 2, 1] {
        runtime.block_on(engine.detach(GroupId(group))).unwrap();
    }
    assert_eq!(count(), 0);
}

#[test]
fn a_commit_that_takes_a_query_more_than_it_may_fails_that_query_alone() {
    // Issues of projects in which there is one with such votes: the first makes all of them enter.
    let exists = json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
        "correlation": {"parentField": ["project"], "childField": ["project"]},
        "subquery": {"table": "issue", "alias": "winner", "where": {"type": "simple", "op": "=",
            "left": {"type": "column", "name": "votes"},
            "right": {"type": "literal", "value": 1_000_000}}}}});
    let late = EngineOptions {
        advance_timeout: Duration::ZERO,
        ..options(1)
    };
    let wide = EngineOptions {
        advance_max_rows: 1_000,
        ..options(4)
    };
    for (options, why) in [(late, "longer than 0 ms"), (wide, "more than 1000 rows")] {
        let (_dir, replica) = replica();
        apply(
            &replica,
            (0..2_000).map(|id| insert(id + 100, 5, id)).collect(),
        );
        let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
        let runtime = runtime();
        let wide = plan(&replica, json!({"table": "issue", "where": exists}));
        let others = tops(&replica, 10);
        let mut both = join(
            &runtime,
            &engine,
            1,
            &[vec![wide.clone()], others.clone()].concat(),
        );
        let mut other = join(&runtime, &engine, 2, &others);
        engine.committed(apply(&replica, vec![insert(1, 5, 1_000_000)]));
        match next(&runtime, &mut both) {
            GroupEvent::PlanFailed { plan, message } => {
                assert_eq!(plan, wide.id());
                assert!(message.contains(why), "{message}");
            }
            other => panic!("{other:?}"),
        }
        for events in [&mut both, &mut other] {
            assert_eq!(told(next(&runtime, events)).1.len(), others.len());
        }
        // Answered after the counts of what came before are published.
        runtime.block_on(engine.plan("none")).unwrap();
        let metrics = engine.metrics();
        let counts = (metrics.over_budget, metrics.plans, metrics.subscriptions);
        assert_eq!(counts, (1, 10, 20));
        // It is hydrated anew for whoever asks again.
        join(&runtime, &engine, 3, &[wide]);
    }
}

#[test]
fn a_query_over_its_budget_fails_alone() {
    let (_dir, replica) = replica();
    fill(&replica);
    let whole = || plan(&replica, json!({"table": "issue"}));
    let late = EngineOptions {
        hydration_timeout: Duration::ZERO,
        ..EngineOptions::default()
    };
    let wide = EngineOptions {
        hydration_max_rows: 1_000,
        ..EngineOptions::default()
    };
    let cases = [
        (late, "longer than 0 ms", "ZERO_KELVIN_HYDRATION_TIMEOUT_MS"),
        (
            wide,
            "more than 1000 rows",
            "ZERO_KELVIN_HYDRATION_MAX_ROWS",
        ),
    ];
    for (options, why, setting) in cases {
        let engine = Engine::start(replica.clone(), "app", 0, options).unwrap();
        let runtime = runtime();
        let key = json!({"type": "simple", "op": "=", "left": {"type": "column", "name": "id"},
            "right": {"type": "literal", "value": 100}});
        let quick = plan(&replica, json!({"table": "issue", "where": key}));
        let mut events = ask(&runtime, &engine, 1, &[whole(), quick.clone()]);
        match next(&runtime, &mut events) {
            GroupEvent::Reconciled(reconciled) => {
                assert_eq!(reconciled.added.len(), 1);
                assert_eq!(reconciled.added[0].0, quick.id());
                let [(failed, message)] = &reconciled.failed[..] else {
                    panic!("{reconciled:?}");
                };
                assert_eq!(*failed, whole().id());
                assert!(message.contains(why), "{message}");
                assert!(message.contains(setting), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
