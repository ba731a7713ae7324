//! Queries: compiling, hydrating, routing a commit among many plans, advancing one.
#![allow(
    missing_docs,
    reason = "criterion's macros make items without documentation"
)]
#![allow(clippy::unwrap_used, reason = "a bench that fails should stop")]

use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kelvin_benches::{Sample, owned, page};
use kelvin_ivm::{Budget, ChangeSet, ClientKeys, Plan, PlanState, Router};
use kelvin_protocol::Ast;

/// Issues in the replica.
const ISSUES: u64 = 20_000;
/// Plans among which a commit is routed.
const PLANS: u64 = 10_000;

fn plan(sample: &Sample, query: &Ast) -> Arc<Plan> {
    Arc::new(Plan::compile(query, &sample.replica.catalog(), &ClientKeys::new()).unwrap())
}

fn hydrate(plan: &Arc<Plan>, sample: &Sample) -> PlanState {
    let view = sample.replica.latest().unwrap();
    let mut sink = |_, _: &kelvin_storage::Row| ControlFlow::Continue(());
    PlanState::hydrate(plan.clone(), &view, &Budget::unlimited(), &mut sink).unwrap()
}

fn compile(c: &mut Criterion) {
    let sample = Sample::new(10).unwrap();
    let query = page().unwrap();
    c.bench_function("ivm/compile", |b| b.iter(|| plan(&sample, &query)));
}

fn hydrations(c: &mut Criterion) {
    let sample = Sample::new(ISSUES).unwrap();
    for (name, query) in [
        ("a page", page().unwrap()),
        ("those of an owner", owned(7).unwrap()),
    ] {
        let plan = plan(&sample, &query);
        c.bench_function(&format!("ivm/hydrate/{name}"), |b| {
            b.iter(|| hydrate(&plan, &sample));
        });
    }
}

fn route(c: &mut Criterion) {
    let mut sample = Sample::new(ISSUES).unwrap();
    let mut router = Router::new();
    for owner in 0..PLANS {
        let plan = plan(&sample, &owned(owner).unwrap());
        router.insert(plan.id(), &plan);
    }
    let transaction = sample.next(1);
    let changes = ChangeSet::new(sample.apply(transaction).unwrap());
    c.bench_function("ivm/route a row among 10,000 plans", |b| {
        b.iter(|| router.route(&changes));
    });
}

fn advance(c: &mut Criterion) {
    let mut sample = Sample::new(ISSUES).unwrap();
    let plan = plan(&sample, &page().unwrap());
    let mut state = hydrate(&plan, &sample);
    c.bench_function("ivm/advance a page by a row", |b| {
        b.iter_batched(
            || {
                let before = sample.replica.latest().unwrap();
                let transaction = sample.next(1);
                let changes = ChangeSet::new(sample.apply(transaction).unwrap());
                (changes, before, sample.replica.latest().unwrap())
            },
            |(changes, before, after)| state.advance(&changes, &before, &after).unwrap(),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, compile, hydrations, route, advance);
criterion_main!(benches);
