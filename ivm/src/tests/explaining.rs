//! What an explanation says of a query.

use std::ops::ControlFlow;

use kelvin_protocol::Direction::Asc;
use serde_json::{Value as Json, json};

use super::case::{any, equal, exists, filtered, issue, link, not_exists, of, put, world};
use super::world::World;
use crate::{Budget, ClientKeys, Driver, Explanation, Plan, Purpose, Role, explain};

/// A hundred issues of two hundred owners each with a comment; one label.
fn filled() -> World {
    let mut world = world();
    let mut ops = vec![
        put(&world, "label", json!([1, "bug"])),
        put(&world, "issue_label", json!([7, 1])),
        put(&world, "user", json!([1, null])),
    ];
    for id in 0..100 {
        ops.push(put(&world, "issue", issue(id, json!(id % 3), json!(id))));
        ops.push(put(&world, "comment", json!([id, id, 1])));
    }
    world.apply(ops);
    world
}

fn explained(world: &World, query: &Json) -> Explanation {
    let ast = serde_json::from_value(query.clone()).unwrap();
    let plan = Plan::compile(&ast, &world.catalog(), &ClientKeys::new()).unwrap();
    let view = world.view();
    let count = |table| world.replica.row_count(table);
    let mut rows = 0;
    let explained = explain(&plan, &view, &Budget::unlimited(), &count, &mut |_, _| {
        rows += 1;
        ControlFlow::Continue(())
    });
    let explained = explained.unwrap();
    assert_eq!(explained.rows, rows);
    let read = explained.nodes.iter().flat_map(|node| &node.reads);
    assert_eq!(
        explained.examined,
        read.map(|read| read.examined).sum::<u64>()
    );
    explained
}

fn index(world: &World, table: &str, column: &str) {
    let table = world.catalog().table(table).unwrap().clone();
    let columns = [(table.column(column).unwrap(), Asc)];
    world
        .replica
        .add_index(table.id, &columns, &|| true)
        .unwrap();
}

#[test]
fn a_scan_for_want_of_an_index_is_told_until_there_is_one() {
    let world = filled();
    let query = filtered("issue", equal("owner", json!(1)));
    let before = explained(&world, &query);
    let node = &before.nodes[0];
    assert_eq!(
        (node.role, node.table_rows, node.rows),
        (Role::Query, 100, 33)
    );
    assert_eq!(node.condition.as_deref(), Some("owner = 1"));
    let [read] = &node.reads[..] else {
        panic!("{node:?}")
    };
    assert_eq!(
        (read.scans, read.examined, read.estimated),
        (1, 100, Some(100))
    );
    assert_eq!((&read.index, read.narrowed_by.len()), (&None, 0));
    let missing = &before.missing_indexes[0];
    assert_eq!(
        (missing.table.as_str(), &missing.columns[..]),
        ("issue", &["owner".to_owned()][..])
    );
    index(&world, "issue", "owner");
    let after = explained(&world, &query);
    let read = &after.nodes[0].reads[0];
    assert_eq!(
        (read.examined, &read.narrowed_by[..]),
        (33, &["owner".to_owned()][..])
    );
    assert!(read.index.is_some() && after.missing_indexes.is_empty());
}

#[test]
fn the_side_of_an_exists_that_is_read_first_is_told() {
    let world = filled();
    for (table, column) in [
        ("issue_label", "label"),
        ("issue_label", "issue"),
        ("comment", "issue"),
    ] {
        index(&world, table, column);
    }
    let bug = filtered("label", equal("id", json!(1)));
    let labelled = filtered("issue_label", exists("label", "id", bug));
    let selective = filtered("issue", exists("id", "issue", labelled.clone()));
    let plan = explained(&world, &selective);
    assert_eq!(plan.nodes[1].driver, Some(Driver::Child));
    assert_eq!(plan.nodes[0].reads[0].purpose, Purpose::Drive);
    assert!(plan.examined < 20, "{}", plan.examined);
    // Every issue has a comment, so that side is given up.
    let broad = explained(
        &world,
        &filtered("issue", exists("id", "issue", of("comment"))),
    );
    assert_eq!(broad.nodes[1].role, Role::Exists);
    assert_eq!(broad.nodes[1].driver, Some(Driver::ParentAfterTrial));
    assert!(
        broad.nodes[1]
            .reads
            .iter()
            .any(|read| read.purpose == Purpose::Probe)
    );
    // Nothing drives a NOT EXISTS.
    let negated = explained(
        &world,
        &filtered("issue", not_exists("id", "issue", labelled)),
    );
    assert_eq!(negated.nodes[1].role, Role::NotExists);
    assert_eq!(negated.nodes[1].driver, Some(Driver::Parent));
}

#[test]
fn the_tree_names_conditions_orders_limits_and_ties() {
    let world = filled();
    let mut query = filtered(
        "issue",
        any(&[equal("owner", json!(1)), equal("title", json!("x"))]),
    );
    query["orderBy"] = json!([["prio", "desc"]]);
    query["limit"] = json!(2);
    query["start"] = json!({ "row": { "prio": 50, "id": 50 }, "exclusive": true });
    query["related"] = json!([link("id", "issue", of("comment"))]);
    let plan = explained(&world, &query);
    let [root, comments] = &plan.nodes[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        root.condition.as_deref(),
        Some("owner = 1 or title = \"x\"")
    );
    assert_eq!(root.order.as_deref(), Some("prio desc, id"));
    assert_eq!(root.start.as_deref(), Some("after prio 50, id 50"));
    assert_eq!((root.limit, root.rows), (Some(2), 2));
    assert_eq!(
        (comments.role, comments.parent, comments.rows),
        (Role::Related, Some(0), 2)
    );
    assert_eq!(comments.ties, [("id".to_owned(), "issue".to_owned())]);
    assert_eq!(plan.rows, 4);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["nodes"][1]["role"], "related");
}
