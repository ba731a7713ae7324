//! A client comes back: what its plan did meanwhile, by the delta log, by the changelog, and by two
//! evaluations.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{
    Budget, ChangeSet, DeltaLog, LoggedDelta, NetTouches, Plan, PlanState, Router, RowKeys,
    evaluate,
};
use kelvin_protocol::{Value, Version};
use kelvin_storage::{TableId, View};

use crate::measure::Measure;
use crate::world::COMMENT;
use crate::{World, hydrate, world};

/// Commits while the client is away, and one of how many concerns the plan.
const COMMITS: usize = 200;
const CONCERNS: usize = 10;

/// A member's issues with their comments.
const QUERY: &str = r#"{"table":"issue","where":{"type":"simple","op":"=",
    "left":{"type":"column","name":"owner"},"right":{"type":"literal","value":"the owner"}},
    "related":[{"correlation":{"parentField":["id"],"childField":["issue_id"]},
        "subquery":{"table":"comment","alias":"comments"}}]}"#;

pub fn catch_up(measure: &mut Measure, world: &World, owned: usize) {
    let plan = world.plan(QUERY);
    let then = world.replica.latest().unwrap();
    let mut state = hydrate(&plan, &then);
    let mut log = DeltaLog::new(then.version());
    for number in 0..COMMITS {
        let id = if number.is_multiple_of(CONCERNS) {
            number % owned
        } else {
            owned + fastrand::usize(..world.issues - owned)
        };
        let author = format!("member {number}");
        let (before, changes, after) =
            world.write(COMMENT, vec![world::comment(id * 3, id, &author)]);
        let delta = state.advance(&changes, &before, &after).unwrap();
        if !delta.is_empty() {
            let (step, keys) = ((changes.from(), changes.version()), &mut RowKeys::default());
            log.push(Arc::new(LoggedDelta::new(
                step,
                &delta,
                after.catalog(),
                keys,
            )));
        }
    }
    let now = world.replica.latest().unwrap();
    let expected = by_evaluations(&plan, &then, &now);
    assert_eq!(expected, COMMITS / CONCERNS);
    assert_eq!(by_log(&log, &then, &now), expected);
    let group = format!("a client is back, {COMMITS} commits later");
    measure.run(&group, "the log followed", 1, || by_log(&log, &then, &now));
    measure.run(&group, "two evaluations", 1, || {
        by_evaluations(&plan, &then, &now)
    });
    let steps = steps(world, then.version(), now.version());
    let group = format!("a log is begun {COMMITS} commits earlier");
    assert_eq!(recalled(world, &state, &steps), expected);
    measure.run(&group, "changes read and gone back over", 1, || {
        let steps = self::steps(world, then.version(), now.version());
        recalled(world, &state, &steps)
    });
    measure.run(&group, "gone back over, read for another plan", 1, || {
        recalled(world, &state, &steps)
    });
    measure.run(&group, "two evaluations", 1, || {
        by_evaluations(&plan, &then, &now)
    });
}

/// Rows that left, entered or changed, read where the log says so.
fn by_log(log: &DeltaLog, then: &View, now: &View) -> usize {
    let deltas = log.after(then.version()).unwrap();
    let net = NetTouches::new(&deltas, now.version());
    let differs = net.rows().filter(|(table, key, touch)| {
        let version = |view: &View| view.get(*table, key).unwrap().map(|row| row.version);
        let was = touch.was.then(|| version(then));
        let is = touch.is.then(|| version(now));
        was != is
    });
    differs.count()
}

/// The same by what the view was and is.
fn by_evaluations(plan: &Plan, then: &View, now: &View) -> usize {
    let mut before: HashMap<(TableId, Vec<Value>), Version> = HashMap::new();
    evaluate(plan, then, &Budget::unlimited(), &mut |table, row| {
        before.insert((table, row.project(&[0])), row.version);
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut differ = 0;
    evaluate(plan, now, &Budget::unlimited(), &mut |table, row| {
        let held = before.remove(&(table, row.project(&[0])));
        differ += usize::from(held != Some(row.version));
        ControlFlow::Continue(())
    })
    .unwrap();
    differ + before.len()
}

/// What each commit changed, the other way round, newest first.
fn steps(world: &World, from: Version, to: Version) -> Vec<ChangeSet> {
    let commits = (from + 1..=to).rev();
    let changes = commits.map(|version| world.replica.changes(version - 1, version).unwrap());
    changes
        .map(|applied| ChangeSet::new(applied).reversed())
        .collect()
}

/// Rows in the log that going back yields.
fn recalled(world: &World, state: &PlanState, steps: &[ChangeSet]) -> usize {
    let mut state = state.clone();
    let mut router = Router::new();
    router.insert(state.plan().id(), &Arc::clone(state.plan()));
    let mut rows = 0;
    for changes in steps {
        if router.route(changes).is_empty() {
            continue;
        }
        let [newer, older] =
            [changes.from(), changes.version()].map(|version| world.replica.at(version).unwrap());
        rows += state.rewind(changes, &newer, &older).unwrap().rows.len();
    }
    rows
}
