//! Which plans hear of a change.

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::{Value, ValueType};
use serde_json::{Value as Json, json};

use super::world::{World, table};
use crate::{Budget, ChangeSet, ClientKeys, Plan, PlanId, PlanState, Router};

use kelvin_storage::{Datum, RowOp, TableId};

const ISSUE: TableId = TableId(1);

fn world() -> World {
    use ValueType::Number;
    World::new(vec![
        table(
            1,
            "issue",
            &[("id", Number), ("owner", Number), ("prio", Number)],
            &[0],
        ),
        table(2, "user", &[("id", Number), ("team", Number)], &[0]),
    ])
}

fn owned_by(op: &str, owner: &Json) -> Json {
    json!({ "table": "issue", "where": {
        "type": "simple", "op": op, "left": { "type": "column", "name": "owner" },
        "right": { "type": "literal", "value": owner },
    } })
}

fn add(router: &mut Router, world: &World, query: &Json) -> PlanId {
    let ast = serde_json::from_value(query.clone()).unwrap();
    let plan = Plan::compile(&ast, &world.catalog(), &ClientKeys::new()).unwrap();
    router.insert(plan.id(), &Arc::new(plan.clone()));
    plan.id()
}

fn issue(id: f64, owner: f64) -> Vec<Value> {
    vec![Value::from(id), Value::from(owner), Value::from(0.0)]
}

#[test]
fn a_change_reaches_plans_of_its_old_and_its_new_value_only() {
    let (mut world, mut router) = (world(), Router::new());
    let ids: Vec<PlanId> = (0..4)
        .map(|owner| add(&mut router, &world, &owned_by("=", &json!(owner))))
        .collect();
    let some = add(&mut router, &world, &owned_by("IN", &json!([2, 9])));
    let nobody = add(&mut router, &world, &owned_by("IS", &Json::Null));
    let routed = |router: &Router, applied| router.route(&ChangeSet::new(applied));

    let row = issue(1.0, 1.0);
    let inserted = world.apply(vec![RowOp::Insert { table: ISSUE, row }]);
    assert_eq!(routed(&router, inserted), [ids[1]]);

    let row = issue(1.0, 2.0).into_iter().map(Datum::Value).collect();
    let moved = world.apply(vec![RowOp::Update {
        table: ISSUE,
        old_key: None,
        row,
    }]);
    let mut expected = vec![ids[1], ids[2], some];
    expected.sort();
    assert_eq!(routed(&router, moved), expected);

    let row = vec![Value::from(2.0), Value::Null, Value::Null];
    let without = world.apply(vec![RowOp::Insert { table: ISSUE, row }]);
    assert_eq!(routed(&router, without), [nobody]);
}

#[test]
fn a_plan_hears_of_every_table_below_it_until_it_is_removed() {
    let (mut world, mut router) = (world(), Router::new());
    let mut query = owned_by("=", &json!(7));
    query["related"] = json!([{
        "correlation": { "parentField": ["owner"], "childField": ["id"] },
        "subquery": { "table": "user", "alias": "owner" },
    }]);
    let id = add(&mut router, &world, &query);
    assert_eq!(add(&mut router, &world, &query), id);
    assert_eq!(router.len(), 1);
    let mut user = |id: f64| {
        let row = vec![Value::from(id), Value::from(1.0)];
        let table = TableId(2);
        ChangeSet::new(world.apply(vec![RowOp::Insert { table, row }]))
    };
    let changes = user(7.0);
    assert_eq!(router.route(&changes), [id]);
    // Every issue of the query is owned by user 7, so no other user matters.
    assert!(router.route(&user(1.0)).is_empty());
    router.remove(&id);
    assert!(router.is_empty());
    assert!(router.route(&changes).is_empty());
}

#[test]
fn a_query_for_nothing_hears_of_nothing() {
    let (mut world, mut router) = (world(), Router::new());
    let nothing = json!({ "table": "issue", "where": { "type": "or", "conditions": [] } });
    add(&mut router, &world, &nothing);
    add(
        &mut router,
        &world,
        &json!({ "table": "issue", "limit": 0 }),
    );
    let row = issue(1.0, 1.0);
    let changes = ChangeSet::new(world.apply(vec![RowOp::Insert { table: ISSUE, row }]));
    assert!(router.route(&changes).is_empty());
}

#[test]
fn a_full_window_hears_of_nothing_behind_its_end() {
    let (mut world, mut router) = (world(), Router::new());
    let query = json!({ "table": "issue", "orderBy": [["owner", "asc"]], "limit": 2 });
    let id = add(&mut router, &world, &query);
    let mut put = |key: f64, owner: f64| {
        let row = issue(key, owner);
        ChangeSet::new(world.apply(vec![RowOp::Insert { table: ISSUE, row }]))
    };
    put(1.0, 1.0);
    let changes = put(2.0, 5.0);
    assert!(!changes.is_empty());
    assert!(ChangeSet::new(world.apply(Vec::new())).is_empty());
    let ast = serde_json::from_value(query).unwrap();
    let plan = Plan::compile(&ast, &world.catalog(), &ClientKeys::new()).unwrap();
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    let state = PlanState::hydrate(
        Arc::new(plan),
        &world.view(),
        &Budget::unlimited(),
        &mut ignore,
    );
    router.narrow(&state.unwrap());
    let mut put = |key: f64, owner: f64| {
        let row = issue(key, owner);
        ChangeSet::new(world.apply(vec![RowOp::Insert { table: ISSUE, row }]))
    };
    assert_eq!(router.route(&put(3.0, 9.0)), []);
    assert_eq!(router.route(&put(4.0, 3.0)), [id]);
}
