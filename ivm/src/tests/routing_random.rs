//! Random queries and changes: the router against asking every plan.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::{Value, ValueType};
use kelvin_storage::{RowOp, TableId, View};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::world::{World, table};
use crate::{Budget, ChangeSet, ClientKeys, Plan, PlanId, PlanState, Router, evaluate};

const ITEM: TableId = TableId(1);
const ITEM_COLUMNS: [(&str, ValueType); 4] = [
    ("id", ValueType::Number),
    ("a", ValueType::Number),
    ("s", ValueType::String),
    ("t", ValueType::Boolean),
];

fn world() -> World {
    let part = [("id", ValueType::Number), ("item", ValueType::Number)];
    World::new(vec![
        table(1, "item", &ITEM_COLUMNS, &[0]),
        table(2, "part", &part, &[0]),
    ])
}

fn simple(column: &str, op: &str, right: &Json) -> Json {
    json!({
        "type": "simple", "op": op, "left": { "type": "column", "name": column },
        "right": { "type": "literal", "value": right },
    })
}

/// Ranges, values, lists and patterns, such as users write.
fn leaf() -> impl Strategy<Value = Json> {
    let number = || 0..9_i64;
    let op = |ops: &'static [&'static str]| proptest::sample::select(ops);
    let pattern =
        proptest::sample::select(&["a%", "ab%", "%b", "a", "_b", "", r"a\%", "\u{10FFFF}%"]);
    prop_oneof![
        4 => (op(&["<", "<=", ">", ">="]), number()).prop_map(|(op, n)| simple("a", op, &json!(n))),
        2 => (op(&["=", "!=", "IS", "IS NOT"]), number()).prop_map(|(op, n)| simple("a", op, &json!(n))),
        1 => op(&["IS", "IS NOT"]).prop_map(|op| simple("a", op, &Json::Null)),
        1 => (op(&["IN", "NOT IN"]), proptest::collection::vec(number(), 0..4))
            .prop_map(|(op, list)| simple("a", op, &json!(list))),
        2 => (op(&["LIKE", "NOT LIKE", "ILIKE"]), pattern)
            .prop_map(|(op, text)| simple("s", op, &json!(text))),
        1 => (op(&["<", ">="]), "[ab]{1,2}").prop_map(|(op, text)| simple("s", op, &json!(text))),
        1 => any::<bool>().prop_map(|truth| simple("t", "=", &json!(truth))),
    ]
}

fn condition() -> impl Strategy<Value = Json> {
    leaf().prop_recursive(3, 10, 4, |inner| {
        (any::<bool>(), proptest::collection::vec(inner, 0..4)).prop_map(|(all, members)| {
            json!({ "type": if all { "and" } else { "or" }, "conditions": members })
        })
    })
}

/// A query of items alone; with a window in some cases.
fn query() -> impl Strategy<Value = Json> {
    let order = proptest::sample::select(&[("a", "asc"), ("a", "desc"), ("s", "asc")]);
    let window = proptest::option::of((order, 1..4_u8));
    (proptest::option::of(condition()), window).prop_map(|(condition, window)| {
        let mut query = json!({ "table": "item" });
        if let Some(condition) = condition {
            query["where"] = condition;
        }
        if let Some(((column, direction), limit)) = window {
            query["orderBy"] = json!([[column, direction]]);
            query["limit"] = json!(limit);
        }
        query
    })
}

fn item() -> impl Strategy<Value = Vec<Value>> {
    let number =
        prop_oneof![1 => Just(Value::Null), 9 => (0..9_u8).prop_map(|n| Value::from(f64::from(n)))];
    let text = prop_oneof![1 => Just(Value::Null), 9 => "[abA%]{0,3}".prop_map(Value::from)];
    ((0..8_u8), number, text, any::<bool>())
        .prop_map(|(id, a, s, t)| vec![Value::from(f64::from(id)), a, s, Value::from(t)])
}

/// Puts a row in the place of the one with its key, or removes that one.
fn step() -> impl Strategy<Value = (Vec<Value>, bool)> {
    (item(), proptest::bool::weighted(0.2))
}

fn plan(world: &World, query: &Json) -> Arc<Plan> {
    let ast = serde_json::from_value(query.clone()).unwrap();
    Arc::new(Plan::compile(&ast, &world.catalog(), &ClientKeys::new()).unwrap())
}

fn rows(plan: &Plan, view: &View) -> BTreeSet<(u32, Vec<Value>)> {
    let mut rows = BTreeSet::new();
    evaluate(plan, view, &Budget::unlimited(), &mut |table, row| {
        rows.insert((table.0, row.to_values()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn state(plan: &Arc<Plan>, view: &View) -> PlanState {
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    PlanState::hydrate(plan.clone(), view, &Budget::unlimited(), &mut ignore).unwrap()
}

/// A transaction for each batch of steps; batches that change nothing are left out.
fn write(world: &mut World, steps: &[(Vec<Value>, bool)]) -> ChangeSet {
    let mut ops = Vec::new();
    for (row, remove) in steps {
        let known = world.model[&ITEM].contains_key(&row[..1]);
        let told = |op: &RowOp| {
            matches!(op, RowOp::Delete { key, .. } if key[..] == row[..1])
                || matches!(op, RowOp::Insert { row: new, .. } if new[0] == row[0])
        };
        if ops.iter().any(told) {
            continue;
        }
        if *remove && known {
            ops.push(RowOp::Delete {
                table: ITEM,
                key: row[..1].to_vec(),
            });
        } else if !*remove {
            ops.push(RowOp::Insert {
                table: ITEM,
                row: row.clone(),
            });
        }
    }
    ChangeSet::new(world.apply(ops))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_plans_that_hear_of_a_change_are_those_whose_rows_it_touches(
        queries in proptest::collection::vec(query(), 1..24),
        filling in proptest::collection::vec(step(), 0..12),
        history in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..8),
        removed in any::<u8>(),
    ) {
        let mut world = world();
        write(&mut world, &filling);
        let (mut router, mut states) = (Router::new(), Vec::new());
        for query in &queries {
            let plan = plan(&world, query);
            let state = state(&plan, &world.view());
            router.insert(plan.id(), &plan);
            router.narrow(&state);
            states.push(state);
        }
        for steps in history {
            let before = world.view();
            let changes = write(&mut world, &steps);
            let after = world.view();
            let routed: BTreeSet<PlanId> = router.route(&changes).into_iter().collect();
            for (state, query) in states.iter_mut().zip(&queries) {
                let plan = state.plan().clone();
                let (old, new) = (rows(&plan, &before), rows(&plan, &after));
                let hears = routed.contains(&plan.id());
                prop_assert!(hears || old == new, "not heard of: {query}");
                if query.get("limit").is_none() && hears {
                    // A row that is written as it was is a change all the same.
                    let passes = |row: &kelvin_storage::Row| {
                        let row = (ITEM.0, row.to_values());
                        old.contains(&row) || new.contains(&row)
                    };
                    let mut sides = changes.rows(ITEM).iter().flat_map(|c| c.old.iter().chain(&c.new));
                    prop_assert!(sides.any(passes), "heard of in vain: {query}");
                }
                if hears {
                    state.advance(&changes, &before, &after).unwrap();
                    router.narrow(state);
                }
            }
        }
        // What is removed hears of nothing, and takes nothing with it that others share.
        let gone = states[removed as usize % states.len()].plan().id();
        let all = router.len();
        router.remove(&gone);
        prop_assert_eq!(router.len(), all - 1);
        let changes = write(&mut world, &[(vec![Value::from(0.0), Value::Null, Value::Null, Value::Null], false)]);
        let fresh = |keep: &dyn Fn(&PlanId) -> bool| {
            let mut router = Router::new();
            for state in states.iter().filter(|state| keep(&state.plan().id())) {
                router.insert(state.plan().id(), state.plan());
                router.narrow(state);
            }
            router
        };
        prop_assert_eq!(router.route(&changes), fresh(&|id| *id != gone).route(&changes));
        for state in &states {
            router.remove(&state.plan().id());
        }
        prop_assert!(router.is_empty() && router.knows_nothing());
    }
}

#[test]
fn what_a_parent_is_fixed_to_carries_over_to_its_children_and_back() {
    let mut world = world();
    let part = |id: f64, item: f64| {
        let row = vec![Value::from(id), Value::from(item)];
        RowOp::Insert {
            table: TableId(2),
            row,
        }
    };
    let tie = |parent: &str, child: &str, subquery: Json| {
        json!({
            "correlation": { "parentField": [parent], "childField": [child] },
            "subquery": subquery,
        })
    };
    let parts = json!({ "table": "part", "alias": "parts" });
    let mut related = json!({ "table": "item", "where": simple("id", "=", &json!(3)) });
    related["related"] = json!([tie("id", "item", parts)]);
    let fixed = json!({ "table": "part", "alias": "p", "where": simple("item", ">", &json!(5)) });
    let exists = json!({ "table": "item", "where": {
        "type": "correlatedSubquery", "op": "EXISTS", "related": tie("id", "item", fixed),
    } });
    let (related, exists) = (plan(&world, &related), plan(&world, &exists));
    let mut router = Router::new();
    for plan in [&related, &exists] {
        router.insert(plan.id(), plan);
    }
    let mut routed = |ops| router.route(&ChangeSet::new(world.apply(ops)));
    assert_eq!(routed(vec![part(1.0, 3.0)]), [related.id()]);
    assert_eq!(routed(vec![part(2.0, 6.0)]), [exists.id()]);
    assert_eq!(routed(vec![part(3.0, 4.0)]), []);
    let item = |id: f64| RowOp::Insert {
        table: ITEM,
        row: vec![Value::from(id), Value::Null, Value::Null, Value::Null],
    };
    assert_eq!(routed(vec![item(3.0)]), [related.id()]);
    assert_eq!(routed(vec![item(6.0)]), [exists.id()]);
    assert_eq!(routed(vec![item(4.0)]), []);
}
