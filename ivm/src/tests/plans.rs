//! What is accepted as a query, and which queries are one plan.

use std::sync::Arc;

use kelvin_protocol::{Ast, Direction, ValueType};
use kelvin_storage::{Catalog, Table, UnsyncedTable};
use serde_json::{Value as Json, json};

use super::world::table;
use crate::{ClientKeys, Error, ErrorKind, Plan, PlanId};

fn catalog() -> Arc<Catalog> {
    use ValueType::{Boolean, Number, String};
    let issue = [
        ("id", Number),
        ("owner", Number),
        ("title", String),
        ("open", Boolean),
    ];
    let mut issue = table(1, "issue", &issue, &[0]);
    issue
        .unsynced_columns
        .push(("blob".into(), "type bytea is not supported".into()));
    issue.unique_keys.push(vec![0, 1]);
    let comment = table(2, "comment", &[("id", Number), ("issue", Number)], &[0]);
    let unsynced = UnsyncedTable {
        name: "log".into(),
        reason: "it has no primary key".into(),
    };
    Arc::new(Catalog::new(vec![issue, comment], vec![unsynced]))
}

fn compile(query: &Json) -> Result<Plan, Error> {
    let ast: Ast = serde_json::from_value(query.clone()).unwrap();
    Plan::compile(&ast, &catalog(), &ClientKeys::new())
}

fn id(query: &Json) -> PlanId {
    compile(query).unwrap().id()
}

fn filtered(condition: &Json) -> Json {
    json!({ "table": "issue", "where": condition })
}

fn simple(op: &str, column: &str, right: &Json) -> Json {
    json!({
        "type": "simple", "op": op, "left": { "type": "column", "name": column },
        "right": { "type": "literal", "value": right },
    })
}

fn exists(subquery: &Json) -> Json {
    json!({
        "type": "correlatedSubquery", "op": "EXISTS", "related": {
            "correlation": { "parentField": ["id"], "childField": ["issue"] },
            "subquery": subquery,
        },
    })
}

fn related(subquery: &Json) -> Json {
    json!({ "table": "issue", "related": [{
        "correlation": { "parentField": ["id"], "childField": ["issue"] },
        "subquery": subquery,
    }] })
}

#[track_caller]
fn refused(query: &Json, message: &str) {
    let error = compile(query).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Query);
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_faulty_query_is_refused_with_a_reason() {
    refused(
        &json!({ "table": "nowhere" }),
        "\"nowhere\" does not exist or is not published",
    );
    refused(&json!({ "table": "log" }), "it has no primary key");
    refused(
        &filtered(&simple("=", "nothing", &json!(1))),
        "no column \"nothing\"",
    );
    refused(
        &filtered(&simple("=", "blob", &json!(1))),
        "type bytea is not supported",
    );
    refused(
        &filtered(&simple("LIKE", "title", &json!("a\\"))),
        "escape character",
    );
    refused(
        &filtered(&simple("LIKE", "owner", &json!("a"))),
        "needs a text column",
    );
    refused(
        &filtered(&simple("IN", "owner", &json!(1))),
        "need an array",
    );
    refused(&json!({ "table": "issue", "limit": -1 }), "limit -1");
    refused(&json!({ "table": "issue", "limit": 1.5 }), "limit 1.5");
    refused(
        &json!({ "table": "issue", "orderBy": [["nothing", "asc"]] }),
        "\"nothing\"",
    );
    let parameter = json!({
        "type": "simple", "op": "=", "left": { "type": "column", "name": "owner" },
        "right": { "type": "static", "anchor": "authData", "field": ["user", "id"] },
    });
    refused(&filtered(&parameter), "authData.user.id");
    let unpaired = json!({ "table": "issue", "related": [{
        "correlation": { "parentField": ["id", "owner"], "childField": ["issue"] },
        "subquery": { "table": "comment" },
    }] });
    refused(&unpaired, "correlation");
}

#[test]
fn a_query_nested_without_end_is_refused() {
    let mut condition = simple("=", "owner", &json!(1));
    for at in 0..120 {
        let kind = if at % 2 == 0 { "and" } else { "or" };
        let other = simple("=", "owner", &json!(at));
        condition = json!({ "type": kind, "conditions": [condition, other] });
    }
    let ast: Ast = serde_json::from_value(filtered(&condition)).unwrap();
    let error = Plan::compile(&ast, &catalog(), &ClientKeys::new()).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[test]
fn related_queries_are_nested_a_hundred_levels_deep_at_most() {
    let nested = |levels: usize| {
        let mut query = json!({ "table": "issue" });
        for _ in 0..levels {
            query = json!({ "table": "issue", "related": [{
                "correlation": { "parentField": ["id"], "childField": ["owner"] },
                "subquery": query,
            }] });
        }
        query
    };
    compile(&nested(100)).unwrap();
    refused(&nested(101), "nested deeper than 100 levels");
}

#[test]
fn true_and_false_are_two_plans() {
    let all = id(&filtered(&json!({ "type": "and", "conditions": [] })));
    let nothing = id(&filtered(&json!({ "type": "or", "conditions": [] })));
    assert_ne!(all, nothing);
    assert_eq!(all, id(&json!({ "table": "issue" })));
}

#[test]
fn how_a_condition_is_written_does_not_matter() {
    let (a, b) = (
        simple("=", "owner", &json!(1)),
        simple("=", "open", &json!(true)),
    );
    let c = exists(&json!({ "table": "comment", "alias": "x" }));
    let and = |members: &[&Json]| filtered(&json!({ "type": "and", "conditions": members }));
    let plan = id(&and(&[&a, &b, &c]));
    assert_eq!(plan, id(&and(&[&c, &b, &a, &a])));
    let nested = json!({ "type": "and", "conditions": [c, a] });
    assert_eq!(plan, id(&and(&[&nested, &b])));
    assert_ne!(plan, id(&and(&[&a, &b])));
    let or = filtered(&json!({ "type": "or", "conditions": [a, b, c] }));
    assert_ne!(plan, id(&or));
}

#[test]
fn aliases_and_hints_do_not_matter() {
    let plain = id(&filtered(&exists(
        &json!({ "table": "comment", "alias": "a" }),
    )));
    let mut hinted = exists(&json!({ "table": "comment", "alias": "b", "limit": 7,
        "orderBy": [["issue", "desc"]] }));
    hinted["flip"] = json!(true);
    hinted["scalar"] = json!(true);
    assert_eq!(plain, id(&filtered(&hinted)));
    let (a, b) = (
        json!({ "table": "comment", "alias": "a" }),
        json!({ "table": "comment" }),
    );
    assert_eq!(id(&related(&a)), id(&related(&b)));
}

#[test]
fn order_matters_only_with_a_limit_or_a_start() {
    let ordered = json!({ "table": "issue", "orderBy": [["title", "desc"]] });
    assert_eq!(id(&ordered), id(&json!({ "table": "issue" })));
    let mut limited = ordered.clone();
    limited["limit"] = json!(5);
    assert_ne!(id(&limited), id(&json!({ "table": "issue", "limit": 5 })));
    let mut started = ordered;
    started["start"] = json!({ "row": { "title": "a" }, "exclusive": true });
    let mut inclusive = started.clone();
    inclusive["start"]["exclusive"] = json!(false);
    assert_ne!(id(&started), id(&inclusive));
    let mut later = started.clone();
    later["start"]["row"]["title"] = json!("b");
    assert_ne!(id(&started), id(&later));
}

#[test]
fn literals_that_look_alike_are_told_apart() {
    let of = |right: Json| id(&filtered(&simple("=", "owner", &right)));
    assert_ne!(of(json!(1)), of(json!("1")));
    assert_ne!(of(json!(1)), of(json!(true)));
    assert_eq!(of(json!(1)), of(json!(1.0)));
    let one = id(&filtered(&simple("IN", "owner", &json!([1]))));
    assert_eq!(one, of(json!(1)));
    assert_eq!(
        id(&filtered(&simple("IN", "owner", &json!([1, 2])))),
        id(&filtered(&simple("IN", "owner", &json!([2, 1, 2])))),
    );
}

#[test]
fn permission_rules_and_client_keys_are_part_of_the_identity() {
    let asked = exists(&json!({ "table": "comment" }));
    let mut rule = asked.clone();
    rule["related"]["system"] = json!("permissions");
    assert_ne!(id(&filtered(&asked)), id(&filtered(&rule)));

    let ast: Ast = serde_json::from_value(json!({ "table": "issue", "limit": 1 })).unwrap();
    let with_key = |key: &[&str]| {
        let names = key.iter().map(|name| (*name).to_owned()).collect();
        let keys = ClientKeys::from([("issue".to_owned(), names)]);
        Plan::compile(&ast, &catalog(), &keys).unwrap().id()
    };
    assert_ne!(with_key(&["id"]), with_key(&["owner", "id"]));
    assert_ne!(with_key(&["id", "owner"]), with_key(&["owner", "id"]));
    assert_eq!(
        with_key(&[]),
        compile(&json!({ "table": "issue", "limit": 1 }))
            .unwrap()
            .id()
    );
}

#[test]
fn a_plan_tells_the_key_its_clients_know_rows_by() {
    let ast: Ast = serde_json::from_value(json!({ "table": "issue" })).unwrap();
    let key = vec!["owner".to_owned(), "id".to_owned()];
    let keys = ClientKeys::from([("issue".to_owned(), key)]);
    let (catalog, issue) = (catalog(), catalog().table("issue").unwrap().clone());
    let declared = Plan::compile(&ast, &catalog, &keys).unwrap();
    assert_eq!(declared.client_key(&issue), [1, 0]);
    let undeclared = Plan::compile(&ast, &catalog, &ClientKeys::new()).unwrap();
    assert_eq!(undeclared.client_key(&issue), [0]);
}

#[test]
fn a_plan_is_out_of_date_with_any_part_of_its_tables_but_their_indexes() {
    let plan = compile(&filtered(&exists(&json!({ "table": "comment" })))).unwrap();
    let altered = |alter: &dyn Fn(&mut Table)| {
        let catalog = catalog();
        let tables = catalog.tables().iter().map(|table| {
            let mut table = Table::clone(table);
            if table.name == "comment" {
                alter(&mut table);
            }
            table
        });
        plan.is_current(&Catalog::new(tables.collect(), Vec::new()))
    };
    assert!(altered(&|_| ()));
    assert!(altered(&|table| table.indexes.clear()));
    assert!(!altered(&|table| table.name.push('s')));
    assert!(!altered(&|table| table.columns[1].upstream_type.push('s')));
    assert!(!altered(&|table| table.key = vec![1]));
    assert!(!altered(&|table| table.unique_keys.push(vec![1])));
}

#[test]
fn a_plan_says_which_tables_it_reads_and_which_indexes_it_lacks() {
    let plan = compile(&related(&json!({ "table": "comment" }))).unwrap();
    assert_eq!(plan.tables().len(), 2);
    let catalog = catalog();
    let wishes = plan.missing_indexes(&catalog);
    assert_eq!(wishes.len(), 1);
    assert_eq!(wishes[0].table, catalog.table("comment").unwrap().id);
    assert_eq!(wishes[0].columns[0].0, 1);
}

#[test]
fn the_order_of_an_exists_is_no_reason_for_an_index() {
    let comments = json!({ "table": "comment", "orderBy": [["id", "desc"]] });
    let query = filtered(&exists(&comments));
    let wishes = compile(&query).unwrap().missing_indexes(&catalog());
    let columns: Vec<_> = wishes.iter().map(|wish| &wish.columns[..]).collect();
    assert_eq!(columns, [[(1, Direction::Asc)]]);
}
