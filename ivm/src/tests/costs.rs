//! What reads and steps cost, in rows examined.

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::Direction::{Asc, Desc};
use kelvin_storage::RowOp;
use serde_json::{Value as Json, json};

use super::case::{Case, delete, equal, exists, filtered, issue, link, put};
use super::watched::Watched;
use crate::{Budget, ChangeSet, ClientKeys, Plan, PlanState, evaluate};

const ISSUES: i64 = 500;

/// Issues 0 to 499 with owner `id % 50` and priority `id / 10`, two comments and two labels
/// each; a label is on two issues.
fn case(query: &Json) -> Case {
    let issues: Vec<Json> = (0..ISSUES)
        .map(|id| issue(id, json!(id % 50), json!(id / 10)))
        .collect();
    let comments: Vec<Json> = (0..2 * ISSUES)
        .map(|id| json!([id, id / 2, id % 100]))
        .collect();
    let labels: Vec<Json> = (0..100)
        .map(|id| json!([id, format!("label {id}")]))
        .collect();
    let links: Vec<Json> = (0..2 * ISSUES)
        .map(|at| json!([at / 2, at % 500]))
        .collect();
    let rows = [
        ("issue", json!(issues)),
        ("comment", json!(comments)),
        ("label", json!(labels)),
        ("issue_label", json!(links)),
    ];
    let mut case = Case::new(&rows, &json!({ "table": "issue", "limit": 0 }));
    for (table, column) in [
        ("issue", 1),
        ("issue", 2),
        ("comment", 1),
        ("comment", 2),
        ("issue_label", 1),
        ("label", 1),
    ] {
        let table = case.world.catalog().table(table).unwrap().id;
        case.world
            .replica
            .add_index(table, &[(column, Asc)], &|| true)
            .unwrap();
    }
    case.watched = Watched::new(query, &case.world, &ClientKeys::new());
    case
}

/// Whether the query can be evaluated with so many rows examined.
fn fits(case: &Case, query: &Json, rows: u64) -> bool {
    let ast = serde_json::from_value(query.clone()).unwrap();
    let plan = Plan::compile(&ast, &case.world.catalog(), &ClientKeys::new()).unwrap();
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    evaluate(&plan, &case.world.view(), &Budget::rows(rows), &mut ignore).is_ok()
}

#[test]
fn the_first_rows_are_read_along_an_index_in_either_direction() {
    let query = json!({ "table": "issue", "limit": 15, "orderBy": [["prio", "desc"]] });
    // The key breaks ties in the other direction than the index does: two groups of ten are read.
    assert!(fits(&case(&query), &query, 25));
    let query = json!({ "table": "issue", "limit": 15, "orderBy": [["id", "desc"]] });
    assert!(fits(&case(&query), &query, 15));
    let query = json!({ "table": "issue", "limit": 5, "orderBy": [["prio", "asc"]],
        "start": { "row": { "prio": 30, "id": 305 }, "exclusive": true } });
    assert!(fits(&case(&query), &query, 20));
}

#[test]
fn related_rows_are_read_by_their_correlation() {
    let mut query = filtered("issue", equal("owner", json!(7)));
    query["related"] = json!([link(
        "id",
        "issue",
        json!({ "table": "comment", "alias": "c" })
    )]);
    assert!(fits(&case(&query), &query, 10 + 20));
}

#[test]
fn the_values_of_a_list_are_read_one_by_one() {
    let mut among = equal("name", json!(["label 7", "label 9"]));
    among["op"] = json!("IN");
    let query = filtered("label", among);
    assert!(fits(&case(&query), &query, 10));
}

#[test]
fn a_query_is_read_from_its_selective_side() {
    let by_label = exists(
        "label",
        "id",
        filtered("label", equal("name", json!("label 4"))),
    );
    let labelled = exists("id", "issue", filtered("issue_label", by_label));
    let query = filtered("issue", labelled.clone());
    let budget = 100;
    assert!(fits(&case(&query), &query, budget));
    let mut first = query;
    first["limit"] = json!(3);
    assert!(fits(&case(&first), &first, budget));
    let either = json!({ "type": "or", "conditions": [labelled, equal("id", json!(1))] });
    let query = filtered("issue", either);
    assert!(fits(&case(&query), &query, budget));
}

#[test]
fn the_selective_side_of_an_and_is_found_beside_a_hopeless_one() {
    let by_label = |n: i64| {
        let label = filtered("label", equal("name", json!(format!("label {n}"))));
        let label = exists("label", "id", label);
        exists("id", "issue", filtered("issue_label", label))
    };
    // Every issue has a comment of somebody, and only some a label; either may be asked first.
    let commented = exists(
        "id",
        "issue",
        filtered("comment", at_least("author", json!(0))),
    );
    for conditions in [[commented.clone(), by_label(4)], [by_label(4), commented]] {
        let query = filtered("issue", json!({ "type": "and", "conditions": conditions }));
        assert!(fits(&case(&query), &query, 150));
    }
}

fn at_least(column: &str, value: Json) -> Json {
    let mut condition = equal(column, value);
    condition["op"] = json!(">=");
    condition
}

/// Two hundred issues of one owner, by ascending priority, and an index on each of these columns.
fn of_one_owner(query: &Json, owner: impl Fn(i64) -> i64) -> Case {
    let issues = (0..200).map(|id| issue(id, json!(owner(id)), json!(id)));
    let issues: Vec<Json> = issues.collect();
    let mut case = Case::new(
        &[("issue", json!(issues))],
        &json!({ "table": "issue", "limit": 0 }),
    );
    let table = case.world.catalog().table("issue").unwrap().id;
    for column in [1, 2] {
        let columns = [(column, Asc)];
        case.world
            .replica
            .add_index(table, &columns, &|| true)
            .unwrap();
    }
    case.watched = Watched::new(query, &case.world, &ClientKeys::new());
    case
}

#[test]
fn of_two_indexes_the_one_that_leaves_fewer_rows_is_read() {
    let both = json!({ "type": "and", "conditions": [
        equal("owner", json!(1)), equal("prio", json!(70)),
    ] });
    let query = filtered("issue", both);
    assert!(fits(&of_one_owner(&query, |_| 1), &query, 10));
}

#[test]
fn indexes_that_narrow_by_the_same_columns_are_not_looked_into() {
    let mut query = filtered("issue", equal("owner", json!(1)));
    query["orderBy"] = json!([["prio", "asc"]]);
    query["limit"] = json!(3);
    let case = case(&query);
    let table = case.world.catalog().table("issue").unwrap().id;
    for second in [2, 3] {
        let columns = [(1, Asc), (second, Asc)];
        let added = case.world.replica.add_index(table, &columns, &|| true);
        added.unwrap();
    }
    assert!(fits(&case, &query, 3));
    assert!(!fits(&case, &query, 2));
}

#[test]
fn an_order_is_followed_where_a_condition_narrows_little() {
    let mut query = filtered("issue", equal("owner", json!(1)));
    query["orderBy"] = json!([["prio", "asc"]]);
    query["limit"] = json!(3);
    let mut case = of_one_owner(&query, |_| 1);
    assert!(fits(&case, &query, 15));
    case.step(|world| vec![delete(world, "issue", json!([0]))]);
    assert_eq!(case.ids("issue"), [1, 2, 3]);
    assert!(case.watched.examined() <= 15, "{}", case.watched.examined());
    // Where the rows come late in the order, the condition narrows after all.
    let mut case = of_one_owner(&query, |id| i64::from(id >= 170));
    assert_eq!(case.ids("issue"), [170, 171, 172]);
    assert!(fits(&case, &query, 60));
    case.step(|world| vec![delete(world, "issue", json!([171]))]);
    assert_eq!(case.ids("issue"), [170, 172, 173]);
}

#[test]
fn a_query_for_nothing_reads_nothing() {
    for query in [
        json!({ "table": "issue", "limit": 0 }),
        json!({ "table": "issue", "limit": 9, "where": { "type": "or", "conditions": [] } }),
    ] {
        assert!(fits(&case(&query), &query, 0));
    }
}

#[test]
fn a_window_is_refilled_from_its_end() {
    let query = json!({ "table": "issue", "limit": 300, "orderBy": [["id", "asc"]] });
    let mut case = case(&query);
    let delta = case.step(|world| vec![delete(world, "issue", json!([7]))]);
    assert_eq!(delta.rows.len(), 2);
    assert!(
        case.watched.examined() <= 3,
        "{} rows",
        case.watched.examined()
    );
}

#[test]
fn a_further_row_of_an_exists_that_holds_concerns_no_parent() {
    let query = filtered(
        "issue",
        exists("id", "issue", json!({ "table": "comment" })),
    );
    let mut case = case(&query);
    let delta = case.step(|world| vec![put(world, "comment", json!([9000, 7, 1]))]);
    assert!(delta.rows.len() <= 1);
    assert!(
        case.watched.examined() <= 1,
        "{} rows",
        case.watched.examined()
    );
}

#[test]
fn a_window_that_keeps_losing_rows_is_read_ahead_of() {
    let query = json!({ "table": "issue", "limit": 50, "orderBy": [["prio", "asc"]] });
    let mut world = case(&query).world;
    let ast = serde_json::from_value(query).unwrap();
    let plan = Plan::compile(&ast, &world.catalog(), &ClientKeys::new()).unwrap();
    let mut ignore = |_, _: &_| ControlFlow::Continue(());
    let (plan, budget) = (Arc::new(plan), Budget::unlimited());
    let mut state = PlanState::hydrate(plan, &world.view(), &budget, &mut ignore).unwrap();
    let mut scans = 0;
    for id in 0..200 {
        let before = world.view();
        let ops = vec![delete(&world, "issue", json!([id]))];
        let changes = ChangeSet::new(world.apply(ops));
        let after = world.view();
        let reads = world.replica.metrics().scans;
        let delta = state.advance(&changes, &before, &after).unwrap();
        scans += world.replica.metrics().scans - reads;
        assert_eq!((delta.rows.len(), state.row_count()), (2, 50));
        // One group of equal priority at most is looked through in vain.
        assert!(state.examined() <= 1 + 32 + 10 + 1, "{}", state.examined());
    }
    assert!(scans <= 200 / 10, "{scans} scans for 200 rows");
}

#[test]
fn a_change_that_concerns_no_window_and_no_parent_reads_nothing() {
    let mut query = json!({ "table": "issue", "limit": 20, "orderBy": [["id", "asc"]] });
    query["related"] = json!([link(
        "id",
        "issue",
        json!({ "table": "comment", "alias": "c" })
    )]);
    let mut case = case(&query);
    let delta = case.step(|world| {
        vec![
            put(world, "comment", json!([999, 400, 1])),
            put(world, "issue", issue(450, json!(1), json!(1))),
        ]
    });
    assert!(delta.is_empty());
    assert_eq!(case.watched.examined(), 0);
}

#[test]
fn a_step_costs_what_changed_not_what_there_is() {
    let query = filtered(
        "issue",
        exists(
            "id",
            "issue",
            filtered("comment", equal("author", json!(5))),
        ),
    );
    let mut case = case(&query);
    let comments: Vec<RowOp> = (0..50)
        .map(|at| put(&case.world, "comment", json!([2000 + at, at, 5])))
        .collect();
    case.step(|_| comments);
    assert!(
        case.watched.examined() <= 50 * 10,
        "{} rows",
        case.watched.examined()
    );
}

#[test]
fn results_do_not_depend_on_the_indexes() {
    let query = json!({ "table": "issue", "limit": 7, "orderBy": [["owner", "desc"], ["prio", "asc"]],
        "start": { "row": { "owner": 30, "prio": 12 }, "exclusive": true } });
    let mut case = case(&query);
    let issue_table = case.world.catalog().table("issue").unwrap().id;
    for columns in [
        vec![(1, Desc), (2, Asc)],
        vec![(1, Asc), (2, Desc)],
        vec![(1, Asc), (2, Desc), (0, Desc)],
        vec![(2, Asc), (1, Desc)],
    ] {
        case.world
            .replica
            .add_index(issue_table, &columns, &|| true)
            .unwrap();
        let again = Watched::new(&query, &case.world, &ClientKeys::new());
        assert_eq!(again.rows, case.watched.rows, "{columns:?}");
        case.step(|world| {
            vec![
                delete(world, "issue", json!([130])),
                delete(world, "issue", json!([130])),
            ]
        });
        let id = 180 + columns.len() as i64;
        case.step(|world| vec![put(world, "issue", issue(id, json!(30), json!(13)))]);
    }
}

#[test]
fn a_start_on_a_column_the_condition_fixes_neither_hides_nor_shows_rows() {
    let from = |owner: i64| {
        let mut query = filtered("issue", equal("owner", json!(5)));
        query["orderBy"] = json!([["owner", "asc"]]);
        query["limit"] = json!(100);
        query["start"] = json!({ "row": { "owner": owner, "id": 200 }, "exclusive": true });
        case(&query).ids("issue").len()
    };
    // Ten issues have this owner, six of them after number 200.
    assert_eq!((from(4), from(5), from(6)), (10, 6, 0));
}

#[test]
fn an_exists_without_an_index_reads_the_table_once() {
    let query = filtered(
        "issue",
        exists("prio", "author", json!({ "table": "comment" })),
    );
    let mut case = case(&query);
    let by_boss = exists("owner", "boss", json!({ "table": "user" }));
    let users: Vec<RowOp> = (0..100)
        .map(|id| put(&case.world, "user", json!([id, id % 10])))
        .collect();
    case.step(|_| users);
    // The users once to decide and once for the witnesses, and an attempt at reading them first.
    assert!(fits(&case, &filtered("issue", by_boss), 500 + 2 * 100 + 50));
}
