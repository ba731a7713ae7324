//! What it costs to keep views, beside computing them anew. See the README.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

mod catch_up;
#[path = "../measure.rs"]
mod measure;
mod router;
#[path = "../standing.rs"]
mod standing;
mod window;
#[path = "../world.rs"]
mod world;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::{Budget, Plan, evaluate};
use kelvin_protocol::{Ast, Value};
use kelvin_storage::TableId;
use measure::{Measure, size};
use standing::{COMMENTS, OWNER, World, hydrate};
use world::{COMMENT, ISSUE, MEMBER};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

impl World {
    /// Measures one step of a plan under such writes.
    fn advance(
        &mut self,
        measure: &mut Measure,
        (group, name): (&str, &str),
        query: &str,
        rows: &mut impl FnMut(&mut Self) -> (TableId, Vec<Vec<Value>>),
    ) -> Arc<Plan> {
        let plan = self.plan(query);
        let mut state = hydrate(&plan, &self.replica.latest().unwrap());
        self.steps = 0;
        measure.run_timed(group, name, 1, |iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let (table, rows) = rows(self);
                self.steps += 1;
                let (before, changes, after) = self.write(table, rows);
                let start = Instant::now();
                state.advance(&changes, &before, &after).unwrap();
                elapsed += start.elapsed();
            }
            elapsed
        });
        plan
    }

    /// Measures one step of a plan under such writes, beside computing the plan anew after the
    /// last of an even number of them.
    fn step(
        &mut self,
        measure: &mut Measure,
        group: &str,
        query: &str,
        mut rows: impl FnMut(&mut Self) -> (TableId, Vec<Vec<Value>>),
    ) {
        let plan = self.advance(measure, (group, "advance"), query, &mut rows);
        if self.steps % 2 == 1 {
            let (table, rows) = rows(self);
            self.write(table, rows);
        }
        let view = self.replica.latest().unwrap();
        measure.run(group, "hydrate", 1, || hydrate(&plan, &view));
    }
}

/// 50 issues, their comments and the comments' authors.
const NESTED: &str = r#"{"table":"issue","orderBy":[["modified","desc"]],"limit":50,"related":[
            {"correlation":{"parentField":["id"],"childField":["issue_id"]},"subquery":
                {"table":"comment","alias":"comments","related":[
                    {"correlation":{"parentField":["author"],"childField":["name"]},
                     "subquery":{"table":"member","alias":"author"}}]}}]}"#;

/// 50 issues, their comments and the comments' authors, beside the same rows read by key.
fn nested(measure: &mut Measure, world: &World) {
    let group = "compile a query of two related levels";
    measure.run(group, "compile", 1, || world.plan(NESTED));
    measure.run(group, "read its JSON only", 1, || {
        serde_json::from_str::<Ast>(NESTED).unwrap()
    });
    let plan = world.plan(NESTED);
    let view = world.replica.latest().unwrap();
    let mut keys = Vec::new();
    evaluate(&plan, &view, &Budget::unlimited(), &mut |table, row| {
        keys.push((table, row.value(0).to_value()));
        ControlFlow::Continue(())
    })
    .unwrap();
    let group = "hydrate 50 rows with two related levels";
    measure.run(group, "hydrate", keys.len(), || hydrate(&plan, &view));
    measure.run(group, "reads by key", keys.len(), || {
        for (table, key) in &keys {
            assert!(
                view.get(*table, std::slice::from_ref(key))
                    .unwrap()
                    .is_some()
            );
        }
    });
}

fn window(measure: &mut Measure, world: &mut World) {
    let (query, owned) = (window::QUERY, world.owned);
    let group = "orderBy and limit 50, an issue moves to the front";
    world.step(measure, group, query, |world| {
        world.clock += 1;
        let id = fastrand::usize(owned..world.issues);
        (ISSUE, vec![world::issue(id, world.clock, "ann")])
    });
    let group = "orderBy and limit 50, an issue beyond it changes";
    world.step(measure, group, query, |world| {
        let id = fastrand::usize(owned..world.issues);
        (ISSUE, vec![world::issue(id, id / 2, "ann")])
    });
}

/// A comment of a window of issues changes its author, two levels below.
fn joins(measure: &mut Measure, world: &mut World) {
    let group = "two related levels, a comment gets another author";
    world.step(measure, group, NESTED, |world| {
        let comment = (world.issues - 1 - fastrand::usize(..50)) * COMMENTS;
        let author = format!("member {}", fastrand::usize(..1000));
        (
            COMMENT,
            vec![world::comment(comment, comment / COMMENTS, &author)],
        )
    });
}

fn exists(measure: &mut Measure, world: &mut World, parents: usize) {
    let query = r#"{"table":"issue","where":{"type":"correlatedSubquery","op":"EXISTS","related":
        {"correlation":{"parentField":["owner"],"childField":["name"]},"subquery":
            {"table":"member","alias":"owner","where":{"type":"and","conditions":[
                {"type":"simple","op":"=","left":{"type":"column","name":"active"},"right":{"type":"literal","value":true}},
                {"type":"simple","op":"=","left":{"type":"column","name":"name"},"right":{"type":"literal","value":"the owner"}}]}}}}}"#;
    let group = format!("EXISTS of {parents} parents turns");
    let mut active = true;
    world.step(measure, &group, query, |_| {
        active = !active;
        (MEMBER, vec![world::member(OWNER, active)])
    });
}

fn main() {
    let mut measure = Measure::new();
    let parents = size("PARENTS", 1000);
    let mut world = World::new(size("ROWS", 100_000), parents);
    nested(&mut measure, &world);
    joins(&mut measure, &mut world);
    exists(&mut measure, &mut world, parents);
    window(&mut measure, &mut world);
    catch_up::catch_up(&mut measure, &world, parents);
    router::routing(&mut measure, &world);
    drop(world);
    window::updates(&mut measure, size("ROWS", 100_000));
    measure.finish();
}
