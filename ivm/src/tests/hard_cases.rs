//! The cases that engines of this kind get wrong, one by one. Each step is also checked against the
//! naive evaluator, a fresh hydration and what a client would compute.

use kelvin_storage::RowOp;
use serde_json::{Value as Json, json};

use super::case::{
    Case, any, counts, delete, equal, exists, filtered, issue, link, not_exists, of, put, rekey,
    world,
};
use super::watched::Watched;
use crate::ClientKeys;

#[test]
fn removing_a_child_of_several_limited_parents_refills_the_window() {
    let query = json!({ "table": "issue", "limit": 2, "orderBy": [["prio", "asc"]],
        "where": exists("owner", "id", of("user")) });
    let issues = json!([
        issue(1, json!(1), json!(1)),
        issue(2, json!(1), json!(2)),
        issue(3, json!(2), json!(3)),
        issue(4, json!(2), json!(4))
    ]);
    let mut case = Case::new(
        &[("issue", issues), ("user", json!([[1, null], [2, null]]))],
        &query,
    );
    assert_eq!((case.ids("issue"), case.ids("user")), (vec![1, 2], vec![1]));
    case.step(|world| vec![delete(world, "user", json!([1]))]);
    assert_eq!((case.ids("issue"), case.ids("user")), (vec![3, 4], vec![2]));
    case.step(|world| vec![put(world, "user", json!([1, null]))]);
    assert_eq!(case.ids("issue"), [1, 2]);
}

#[test]
fn a_self_join_over_three_levels_follows_a_row_that_moves_below_itself() {
    let mut below = of("user");
    below["related"] = json!([link("id", "boss", of("user"))]);
    let mut query = filtered("user", equal("id", json!(1)));
    query["related"] = json!([link("id", "boss", below)]);
    let users = json!([[1, null], [2, 1], [3, 2], [4, 3]]);
    let mut case = Case::new(&[("user", users)], &query);
    assert_eq!(case.ids("user"), [1, 2, 3]);
    case.step(|world| vec![put(world, "user", json!([4, 1]))]);
    assert_eq!(case.ids("user"), [1, 2, 3, 4]);
    case.step(|world| vec![put(world, "user", json!([1, 1]))]);
    assert_eq!(case.ids("user"), [1, 2, 3, 4]);
    let delta = case.step(|world| vec![put(world, "user", json!([2, 2]))]);
    assert_eq!((case.ids("user"), counts(&delta)), (vec![1, 4], (0, 0, 2)));
}

#[test]
fn a_row_that_is_root_child_and_witness_leaves_with_its_last_path() {
    let mut query = filtered("user", exists("id", "boss", of("user")));
    query["related"] = json!([link("boss", "id", of("user"))]);
    let mut case = Case::new(&[("user", json!([[1, null], [2, 1], [3, 2]]))], &query);
    assert_eq!(case.ids("user"), [1, 2, 3]);
    let delta = case.step(|world| vec![delete(world, "user", json!([3]))]);
    assert_eq!((case.ids("user"), counts(&delta)), (vec![1, 2], (0, 0, 1)));
    let delta = case.step(|world| vec![put(world, "user", json!([2, null]))]);
    assert_eq!((case.ids("user"), counts(&delta)), (vec![], (0, 0, 2)));
}

#[test]
fn a_changed_key_is_one_row_that_leaves_and_another_that_enters() {
    let mut query = of("issue");
    query["related"] = json!([link("id", "issue", of("issue_label"))]);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("issue_label", json!([[1, 1], [1, 2], [2, 1]])),
    ];
    let mut case = Case::new(&rows, &query);
    let delta = case.step(|world| {
        vec![rekey(
            world,
            "issue",
            json!([1]),
            issue(2, json!(1), json!(1)),
        )]
    });
    assert_eq!(counts(&delta), (2, 0, 3));
    let delta = case.step(|world| vec![rekey(world, "issue_label", json!([2, 1]), json!([2, 9]))]);
    assert_eq!(counts(&delta), (1, 0, 1));
    assert_eq!(case.keys("issue_label"), [json!([2, 9])]);
}

#[test]
fn one_change_reaches_sibling_relationships_and_conditions_at_once() {
    let both = json!({ "type": "and", "conditions": [
        exists("id", "issue", filtered("comment", equal("author", json!(1)))),
        exists("id", "issue", of("comment")),
    ] });
    let mut query = filtered("issue", both);
    query["related"] = json!([
        { "correlation": { "parentField": ["id"], "childField": ["issue"] },
          "subquery": { "table": "comment", "alias": "first", "limit": 1 } },
        link("id", "issue", of("comment")),
    ]);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("comment", json!([[1, 1, 1], [2, 1, 2]])),
    ];
    let mut case = Case::new(&rows, &query);
    assert_eq!(case.ids("comment"), [1, 2]);
    let delta = case.step(|world| vec![put(world, "comment", json!([1, 1, 2]))]);
    assert_eq!(counts(&delta), (0, 0, 3));
    let delta = case.step(|world| vec![put(world, "comment", json!([2, 1, 1]))]);
    assert_eq!(counts(&delta), (3, 0, 0));
}

#[test]
fn a_change_that_switches_branches_of_an_or_is_one_change() {
    let condition = any(&[equal("prio", json!(1)), equal("owner", json!(1))]);
    let issues = json!([issue(1, json!(0), json!(1))]);
    let mut case = Case::new(&[("issue", issues)], &filtered("issue", condition));
    let delta = case.step(|world| vec![put(world, "issue", issue(1, json!(1), json!(0)))]);
    assert_eq!(counts(&delta), (0, 1, 0));
}

#[test]
fn a_limit_window_follows_edits_at_its_end() {
    let query = json!({ "table": "issue", "limit": 2, "orderBy": [["prio", "asc"]] });
    let issues: Vec<Json> = (1..=4).map(|id| issue(id, json!(1), json!(id))).collect();
    let mut case = Case::new(&[("issue", json!(issues))], &query);
    let mut edit = |id: i64, prio: Json| {
        let delta = case.step(|world| vec![put(world, "issue", issue(id, json!(1), prio))]);
        (case.ids("issue"), counts(&delta))
    };
    assert_eq!(edit(1, json!(9)), (vec![2, 3], (1, 0, 1)));
    assert_eq!(edit(3, json!(0)), (vec![2, 3], (0, 1, 0)));
    assert_eq!(edit(10, json!(-1)), (vec![3, 10], (1, 0, 1)));
    // A tie at the end is broken by the key, and null comes first.
    assert_eq!(edit(4, json!(0)), (vec![3, 10], (0, 0, 0)));
    assert_eq!(edit(2, json!(0)), (vec![2, 10], (1, 0, 1)));
    assert_eq!(edit(4, Json::Null), (vec![4, 10], (1, 0, 1)));
    assert_eq!(edit(10, json!(5)), (vec![2, 4], (1, 0, 1)));
}

#[test]
fn a_limit_window_runs_dry_and_fills_again() {
    let query = json!({ "table": "issue", "limit": 1, "orderBy": [["prio", "desc"]] });
    let issues = json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(2))]);
    let mut case = Case::new(&[("issue", issues)], &query);
    assert_eq!(case.ids("issue"), [2]);
    case.step(|world| vec![delete(world, "issue", json!([2]))]);
    assert_eq!(case.ids("issue"), [1]);
    case.step(|world| vec![delete(world, "issue", json!([1]))]);
    assert!(case.ids("issue").is_empty());
    case.step(|world| vec![put(world, "issue", issue(3, json!(1), Json::Null))]);
    assert_eq!(case.ids("issue"), [3]);
}

#[test]
fn a_start_row_that_is_gone_or_null_still_starts_the_result() {
    let issues = json!([
        issue(1, json!(1), Json::Null),
        issue(2, json!(1), json!(5)),
        issue(3, json!(1), json!(5)),
        issue(4, json!(1), json!(9))
    ]);
    let from = |row: Json, exclusive: bool| {
        let query = json!({ "table": "issue", "orderBy": [["prio", "asc"]],
            "start": { "row": row, "exclusive": exclusive } });
        Case::new(&[("issue", issues.clone())], &query).ids("issue")
    };
    assert_eq!(from(json!({ "prio": 5, "id": 2 }), true), [3, 4]);
    assert_eq!(from(json!({ "prio": 5, "id": 2 }), false), [2, 3, 4]);
    assert_eq!(from(json!({ "prio": null, "id": 1 }), true), [2, 3, 4]);
    assert_eq!(from(json!({ "prio": 5 }), true), [2, 3, 4]);
    assert_eq!(from(json!({ "prio": 6, "id": 77 }), false), [4]);
}

#[test]
fn not_exists_turns_with_the_first_and_the_last_child_and_an_edit_of_the_parent() {
    let condition = any(&[
        not_exists("id", "issue", of("comment")),
        equal("prio", json!(7)),
    ]);
    let issues = json!([issue(1, json!(1), json!(1))]);
    let mut case = Case::new(&[("issue", issues)], &filtered("issue", condition));
    assert_eq!(case.ids("issue"), [1]);
    case.step(|world| vec![put(world, "comment", json!([1, 1, 1]))]);
    assert!(case.ids("issue").is_empty());
    case.step(|world| vec![put(world, "comment", json!([2, 1, 1]))]);
    let delta = case.step(|world| {
        vec![
            delete(world, "comment", json!([1])),
            delete(world, "comment", json!([2])),
            put(world, "issue", issue(1, json!(1), json!(2))),
        ]
    });
    assert_eq!((case.ids("issue"), counts(&delta)), (vec![1], (1, 0, 0)));
    let delta = case.step(|world| {
        vec![
            put(world, "comment", json!([3, 1, 1])),
            put(world, "issue", issue(1, json!(1), json!(7))),
        ]
    });
    assert_eq!(counts(&delta), (0, 1, 0));
    assert!(case.ids("comment").is_empty());
}

#[test]
fn a_nested_exists_cascades_and_a_replaced_witness_keeps_its_parent() {
    let labelled = exists(
        "label",
        "id",
        filtered("label", equal("name", json!("bug"))),
    );
    let condition = exists("id", "issue", filtered("issue_label", labelled));
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("label", json!([[1, "bug"], [2, "bug"], [3, "idea"]])),
        (
            "issue_label",
            json!([[1, 1], [1, 2], [1, 3], [2, 1], [2, 3]]),
        ),
    ];
    let mut case = Case::new(&rows, &filtered("issue", condition));
    assert_eq!(
        (case.ids("issue"), case.ids("label")),
        (vec![1, 2], vec![1, 2])
    );
    case.step(|world| vec![put(world, "label", json!([1, "done"]))]);
    assert_eq!((case.ids("issue"), case.ids("label")), (vec![1], vec![2]));
    assert_eq!(case.keys("issue_label"), [json!([1, 2])]);
    case.step(|world| {
        vec![
            put(world, "label", json!([3, "bug"])),
            delete(world, "label", json!([2])),
        ]
    });
    assert_eq!(
        (case.ids("issue"), case.ids("label")),
        (vec![1, 2], vec![3])
    );
}

#[test]
fn of_many_witnesses_the_first_three_by_key_are_in_the_view() {
    let condition = exists("id", "issue", of("comment"));
    let comments: Vec<Json> = (1..=6).map(|id| json!([id, 1, 1])).collect();
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("comment", json!(comments)),
    ];
    let mut case = Case::new(&rows, &filtered("issue", condition));
    assert_eq!(case.ids("comment"), [1, 2, 3]);
    case.step(|world| vec![delete(world, "comment", json!([2]))]);
    assert_eq!(case.ids("comment"), [1, 3, 4]);
    case.step(|world| vec![put(world, "comment", json!([0, 1, 1]))]);
    assert_eq!(case.ids("comment"), [0, 1, 3]);
}

#[test]
fn a_witness_that_several_parents_share_is_replaced_for_all_of_them() {
    let condition = exists("owner", "author", of("comment"));
    let comments: Vec<Json> = (1..=5).map(|id| json!([id, 0, 1])).collect();
    let issues: Vec<Json> = (1..=3).map(|id| issue(id, json!(1), json!(id))).collect();
    let rows = [("issue", json!(issues)), ("comment", json!(comments))];
    let mut case = Case::new(&rows, &filtered("issue", condition));
    assert_eq!(case.ids("comment"), [1, 2, 3]);
    let delta = case.step(|world| {
        vec![
            delete(world, "comment", json!([1])),
            delete(world, "issue", json!([2])),
        ]
    });
    assert_eq!(
        (case.ids("issue"), case.ids("comment")),
        (vec![1, 3], vec![2, 3, 4])
    );
    assert_eq!(counts(&delta), (1, 0, 2));
    let all = |world: &super::world::World| {
        (2..=5)
            .map(|id| delete(world, "comment", json!([id])))
            .collect()
    };
    case.step(all);
    assert!(case.watched.rows.is_empty());
}

#[test]
fn a_window_over_an_or_of_exists_with_a_start_is_refilled_from_behind_its_end() {
    for flip in [None, Some(true), Some(false)] {
        let mut by_author = exists(
            "id",
            "issue",
            filtered("comment", equal("author", json!(1))),
        );
        let mut by_owner = exists("owner", "id", of("user"));
        if let Some(flip) = flip {
            by_author["flip"] = json!(flip);
            by_owner["flip"] = json!(flip);
        }
        let mut query = filtered("issue", any(&[by_author, by_owner]));
        query["orderBy"] = json!([["prio", "asc"]]);
        query["limit"] = json!(2);
        query["start"] = json!({ "row": { "prio": 2, "id": 2 }, "exclusive": true });
        // Issues 1 to 6; the even ones have a comment of author 1, the first three a known owner.
        let owner = |id: i64| if id <= 3 { json!(7) } else { Json::Null };
        let issues: Vec<Json> = (1..=6).map(|id| issue(id, owner(id), json!(id))).collect();
        let comments: Vec<Json> = (1..=3).map(|n| json!([n, 2 * n, 1])).collect();
        let rows = [
            ("issue", json!(issues)),
            ("comment", json!(comments)),
            ("user", json!([[7, null]])),
        ];
        let mut case = Case::new(&rows, &query);
        assert_eq!((case.ids("issue"), case.ids("user")), (vec![3, 4], vec![7]));
        case.step(|world| vec![delete(world, "user", json!([7]))]);
        assert_eq!(
            (case.ids("issue"), case.ids("comment")),
            (vec![4, 6], vec![2, 3])
        );
        case.step(|world| vec![put(world, "comment", json!([2, 5, 1]))]);
        assert_eq!(case.ids("issue"), [5, 6]);
        // Before the start nothing enters, whatever becomes true there.
        case.step(|world| vec![put(world, "comment", json!([9, 1, 1]))]);
        assert_eq!(case.ids("issue"), [5, 6]);
        case.step(|world| vec![put(world, "user", json!([7, null]))]);
        assert_eq!(
            (case.ids("issue"), case.ids("comment")),
            (vec![3, 5], vec![2])
        );
    }
}

#[test]
fn a_grandchild_below_a_limited_child_follows_the_windows_it_is_under() {
    let mut latest =
        json!({ "table": "comment", "alias": "c", "limit": 1, "orderBy": [["id", "desc"]] });
    latest["related"] = json!([link("author", "id", of("user"))]);
    let mut query = of("issue");
    query["related"] = json!([link("id", "issue", latest)]);
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("comment", json!([[1, 1, 5], [2, 1, 6], [3, 2, 5]])),
        ("user", json!([[5, null], [6, null], [7, null]])),
    ];
    let mut case = Case::new(&rows, &query);
    assert_eq!(
        (case.ids("comment"), case.ids("user")),
        (vec![2, 3], vec![5, 6])
    );
    let delta = case.step(|world| vec![put(world, "user", json!([5, 1]))]);
    assert_eq!(counts(&delta), (0, 1, 0));
    // Its only comment in a window is gone; the one that takes its place has the same author.
    let delta = case.step(|world| vec![delete(world, "comment", json!([2]))]);
    assert_eq!((case.ids("user"), counts(&delta)), (vec![5], (1, 0, 2)));
    let delta = case.step(|world| vec![put(world, "user", json!([6, 1]))]);
    assert_eq!(counts(&delta), (0, 0, 0));
    case.step(|world| vec![put(world, "comment", json!([4, 1, 7]))]);
    assert_eq!(
        (case.ids("comment"), case.ids("user")),
        (vec![3, 4], vec![5, 7])
    );
}

#[test]
fn lists_match_by_identity_and_never_null() {
    let issues = json!([
        issue(1, json!(1), json!(1)),
        issue(2, Json::Null, json!(2)),
        issue(3, json!(3), json!(3))
    ]);
    let ids = |column: &str, op: &str, list: Json| {
        let mut condition = equal(column, list);
        condition["op"] = json!(op);
        Case::new(&[("issue", issues.clone())], &filtered("issue", condition)).ids("issue")
    };
    assert_eq!(ids("owner", "IN", json!([1, "3", true])), [1]);
    assert_eq!(ids("owner", "NOT IN", json!([1])), [3]);
    assert!(ids("owner", "IN", json!([])).is_empty());
    // What PostgreSQL would let through: a null is in no list, nor out of an empty one.
    assert_eq!(ids("owner", "NOT IN", json!([])), [1, 3]);
    assert_eq!(ids("open", "IN", json!([true])), [1, 2, 3]);
    assert!(ids("open", "IN", json!([1, "true"])).is_empty());
    assert!(ids("owner", "IN", Json::Null).is_empty());
    assert!(ids("owner", "NOT IN", Json::Null).is_empty());
}

#[test]
fn a_scalar_hint_on_a_subquery_of_many_rows_loses_none() {
    let nested = exists("author", "id", of("user"));
    let mut condition = exists("id", "issue", filtered("comment", nested));
    condition["scalar"] = json!(true);
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("comment", json!([[1, 1, 1], [2, 1, 2], [3, 2, 2]])),
        ("user", json!([[1, null], [2, null]])),
    ];
    let mut case = Case::new(&rows, &filtered("issue", condition));
    assert_eq!(
        (case.ids("issue"), case.ids("comment")),
        (vec![1, 2], vec![1, 2, 3])
    );
    case.step(|world| vec![delete(world, "user", json!([2]))]);
    assert_eq!((case.ids("issue"), case.ids("comment")), (vec![1], vec![1]));
}

#[test]
fn a_range_over_texts_cuts_where_their_order_does_even_beyond_utf_16() {
    let titled = |id: i64, title: &str| json!([id, 1, 1, title, true]);
    // By UTF-16 units the emoji would come first.
    let issues = json!([
        titled(1, "\u{FF5E}"),
        titled(2, "\u{1F600}"),
        titled(3, "a")
    ]);
    let ids = |query: &Json| Case::new(&[("issue", issues.clone())], query).ids("issue");
    let mut condition = equal("title", json!("\u{FF5E}"));
    condition["op"] = json!(">");
    assert_eq!(ids(&filtered("issue", condition)), [2]);
    let last = |direction: &str| {
        ids(&json!({ "table": "issue", "limit": 1, "orderBy": [["title", direction]] }))
    };
    assert_eq!((last("desc"), last("asc")), (vec![2], vec![3]));
    let after = json!({ "table": "issue", "orderBy": [["title", "asc"]],
        "start": { "row": { "title": "\u{FF5E}", "id": 1 }, "exclusive": true } });
    assert_eq!(ids(&after), [2]);
}

#[test]
fn parents_with_one_key_share_a_window_until_the_last_of_them_is_gone() {
    let mut query = filtered("issue", equal("open", json!(true)));
    let latest =
        json!({ "table": "comment", "alias": "c", "limit": 1, "orderBy": [["id", "desc"]] });
    query["related"] = json!([link("owner", "author", latest)]);
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("comment", json!([[1, 0, 1], [2, 0, 1], [3, 0, 2]])),
    ];
    let mut case = Case::new(&rows, &query);
    assert_eq!(case.ids("comment"), [2]);
    let delta = case.step(|world| vec![delete(world, "issue", json!([1]))]);
    assert_eq!(counts(&delta), (0, 0, 1));
    // Pointed to a partition that nobody looked at before.
    case.step(|world| vec![put(world, "issue", issue(2, json!(2), json!(1)))]);
    assert_eq!(case.ids("comment"), [3]);
    case.step(|world| vec![put(world, "issue", issue(2, Json::Null, json!(1)))]);
    assert!(case.ids("comment").is_empty());
}

#[test]
fn null_never_joins_null() {
    let mut query = filtered("issue", not_exists("owner", "boss", of("user")));
    query["related"] = json!([link("owner", "boss", of("user"))]);
    let rows = [
        ("issue", json!([issue(1, Json::Null, json!(1))])),
        ("user", json!([[1, null], [2, null]])),
    ];
    let case = Case::new(&rows, &query);
    assert_eq!(case.ids("issue"), [1]);
    assert!(case.ids("user").is_empty());
}

#[test]
fn a_compound_correlation_matches_on_all_columns() {
    let condition = json!({ "type": "correlatedSubquery", "op": "EXISTS", "related": {
        "correlation": { "parentField": ["id", "owner"], "childField": ["issue", "author"] },
        "subquery": of("comment"),
    } });
    let rows = [
        (
            "issue",
            json!([issue(1, json!(5), json!(1)), issue(2, json!(6), json!(1))]),
        ),
        ("comment", json!([[1, 1, 6], [2, 2, 5], [3, 2, 6]])),
    ];
    let mut case = Case::new(&rows, &filtered("issue", condition));
    assert_eq!(case.ids("issue"), [2]);
    case.step(|world| vec![put(world, "comment", json!([1, 1, 5]))]);
    assert_eq!(
        (case.ids("issue"), case.ids("comment")),
        (vec![1, 2], vec![1, 3])
    );
}

#[test]
fn parent_and_child_can_be_deleted_together() {
    let mut query = filtered("issue", exists("id", "issue", of("comment")));
    query["related"] = json!([link("id", "issue", of("comment"))]);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("comment", json!([[1, 1, 1]])),
    ];
    let mut case = Case::new(&rows, &query);
    let delta = case.step(|world| {
        vec![
            delete(world, "issue", json!([1])),
            delete(world, "comment", json!([1])),
        ]
    });
    assert_eq!(counts(&delta), (0, 0, 2));
}

#[test]
fn two_rows_can_swap_a_value_the_client_knows_them_by() {
    let mut case = Case::new(
        &[(
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(2), json!(2))]),
        )],
        &json!({ "table": "issue", "limit": 1, "orderBy": [["owner", "asc"]] }),
    );
    let delta = case.step(|world| {
        vec![
            put(world, "issue", issue(1, json!(2), json!(1))),
            put(world, "issue", issue(2, json!(1), json!(2))),
        ]
    });
    assert_eq!((case.ids("issue"), counts(&delta)), (vec![2], (1, 0, 1)));
}

#[test]
fn a_row_deleted_and_inserted_again_is_one_change() {
    let mut query = json!({ "table": "issue", "limit": 2 });
    query["related"] = json!([link("owner", "id", of("user"))]);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("user", json!([[1, null], [2, null]])),
    ];
    let mut case = Case::new(&rows, &query);
    let delta = case.step(|world| {
        vec![
            delete(world, "issue", json!([1])),
            put(world, "issue", issue(1, json!(2), json!(1))),
        ]
    });
    assert_eq!(counts(&delta), (1, 1, 1));
    let changed = delta
        .rows
        .iter()
        .find(|row| row.old.is_some() && row.new.is_some())
        .unwrap();
    assert_ne!(
        changed.old.as_ref().unwrap().id,
        changed.new.as_ref().unwrap().id
    );
}

#[test]
fn a_truncate_next_to_changes_of_the_same_table_is_an_ordinary_change() {
    let mut query = filtered("issue", exists("id", "issue", of("comment")));
    query["related"] = json!([link("id", "issue", of("comment"))]);
    let issues: Vec<Json> = (0..50).map(|id| issue(id, json!(1), json!(id))).collect();
    let comments: Vec<Json> = (0..200).map(|id| json!([id, id % 50, 1])).collect();
    let mut case = Case::new(
        &[("issue", json!(issues)), ("comment", json!(comments))],
        &query,
    );
    let delta = case.step(|world| {
        let comment = world.catalog().table("comment").unwrap().id;
        vec![
            put(world, "comment", json!([1, 1, 2])),
            RowOp::Truncate {
                tables: vec![comment],
            },
            put(world, "comment", json!([2, 2, 2])),
            put(world, "comment", json!([900, 3, 2])),
        ]
    });
    assert_eq!(
        (case.ids("issue"), case.ids("comment")),
        (vec![2, 3], vec![2, 900])
    );
    assert_eq!(counts(&delta), (1, 1, 48 + 199));
}

#[test]
fn a_deleted_witness_leaves_whichever_branch_of_an_or_it_stood_for() {
    let mut by_author = exists(
        "id",
        "issue",
        filtered("comment", equal("author", json!(1))),
    );
    by_author["flip"] = json!(true);
    let mut by_owner = exists("owner", "id", of("user"));
    by_owner["flip"] = json!(true);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("comment", json!([[1, 1, 1]])),
        ("user", json!([[1, null]])),
    ];
    let query = filtered("issue", any(&[by_author, by_owner]));
    let mut case = Case::new(&rows, &query);
    assert_eq!((case.ids("comment"), case.ids("user")), (vec![1], vec![1]));
    case.step(|world| vec![delete(world, "comment", json!([1]))]);
    assert!(case.ids("comment").is_empty());
    assert_eq!(case.ids("issue"), [1]);
    case.step(|world| vec![delete(world, "user", json!([1]))]);
    assert!(case.watched.rows.is_empty());
}

#[test]
fn a_limit_inside_exists_means_nothing_unless_it_is_zero() {
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("comment", json!([[1, 1, 1], [2, 1, 1]])),
    ];
    let limited = |limit: usize, flip: bool, op: &str| {
        let mut condition = exists("id", "issue", json!({ "table": "comment", "limit": limit }));
        condition["flip"] = json!(flip);
        condition["op"] = json!(op);
        Case::new(&rows, &filtered("issue", condition)).ids("issue")
    };
    for flip in [false, true] {
        assert_eq!(limited(1, flip, "EXISTS"), [1]);
        assert_eq!(limited(1, flip, "NOT EXISTS"), [2]);
        assert!(limited(0, flip, "EXISTS").is_empty());
        assert_eq!(limited(0, flip, "NOT EXISTS"), [1, 2]);
    }
}

#[test]
fn rows_a_permission_rule_asks_about_are_not_synced_nor_is_anything_below_them() {
    let below = exists("author", "id", of("user"));
    let mut rule = exists("id", "issue", filtered("comment", below));
    rule["related"]["system"] = json!("permissions");
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("comment", json!([[1, 1, 1], [2, 2, 2]])),
        ("user", json!([[1, null]])),
    ];
    let mut case = Case::new(&rows, &filtered("issue", rule));
    assert_eq!(case.ids("issue"), [1]);
    assert_eq!(case.watched.rows.len(), 1);
    case.step(|world| vec![put(world, "user", json!([2, null]))]);
    assert_eq!(
        (case.ids("issue"), case.watched.rows.len()),
        (vec![1, 2], 2)
    );
}

#[test]
fn of_relationships_with_one_name_the_last_counts() {
    let mut query = of("issue");
    query["related"] = json!([
        link("id", "issue", json!({ "table": "comment", "alias": "it" })),
        link("owner", "id", json!({ "table": "user", "alias": "it" })),
    ]);
    let rows = [
        ("issue", json!([issue(1, json!(1), json!(1))])),
        ("comment", json!([[1, 1, 1]])),
        ("user", json!([[1, null]])),
    ];
    let case = Case::new(&rows, &query);
    assert!(case.ids("comment").is_empty());
    assert_eq!(case.ids("user"), [1]);
}

#[test]
fn a_junction_brings_its_hidden_rows_and_their_destinations_once() {
    let mut hop = json!({ "table": "issue_label", "alias": "labels" });
    hop["related"] = json!([link(
        "label",
        "id",
        json!({ "table": "label", "alias": "labels" })
    )]);
    let mut hidden = link("id", "issue", hop);
    hidden["hidden"] = json!(true);
    let mut query = of("issue");
    query["related"] = json!([hidden]);
    let rows = [
        (
            "issue",
            json!([issue(1, json!(1), json!(1)), issue(2, json!(1), json!(1))]),
        ),
        ("label", json!([[1, "bug"]])),
        ("issue_label", json!([[1, 1], [2, 1]])),
    ];
    let mut case = Case::new(&rows, &query);
    assert_eq!(
        (case.ids("label"), case.ids("issue_label")),
        (vec![1], vec![1, 2])
    );
    let delta = case.step(|world| vec![delete(world, "issue_label", json!([1, 1]))]);
    assert_eq!(counts(&delta), (0, 0, 1));
    let delta = case.step(|world| vec![delete(world, "issue_label", json!([2, 1]))]);
    assert_eq!(counts(&delta), (0, 0, 2));
}

#[test]
fn texts_too_long_for_an_index_still_sort_exactly() {
    let mut world = world();
    let long = "long".repeat(9000);
    let row = |id: i64, tail: &str| json!([id, 1, 1, format!("{long}{tail}"), true]);
    let ops = [row(1, "c"), row(2, "b"), row(3, "a"), row(4, "")];
    let ops: Vec<RowOp> = ops
        .into_iter()
        .map(|row| put(&world, "issue", row))
        .collect();
    world.apply(ops);
    let issue = world.catalog().table("issue").unwrap().id;
    world
        .replica
        .add_index(issue, &[(3, kelvin_protocol::Direction::Asc)], &|| true)
        .unwrap();
    let query = json!({ "table": "issue", "limit": 2, "orderBy": [["title", "asc"]] });
    let watched = Watched::new(&query, &world, &ClientKeys::new());
    let mut case = Case { world, watched };
    assert_eq!(case.ids("issue"), [3, 4]);
    case.step(|world| vec![delete(world, "issue", json!([4]))]);
    assert_eq!(case.ids("issue"), [2, 3]);
}

#[test]
fn a_window_of_texts_too_long_for_an_index_is_refilled_exactly() {
    let mut world = world();
    let long = "long".repeat(9000);
    let row = |id: i64, title: String| json!([id, 1, 1, title, true]);
    let rows = [
        row(9, format!("{long}a")),
        row(1, format!("{long}b")),
        row(5, "z".into()),
    ];
    let ops: Vec<RowOp> = rows
        .into_iter()
        .map(|row| put(&world, "issue", row))
        .collect();
    world.apply(ops);
    let table = world.catalog().table("issue").unwrap().id;
    world
        .replica
        .add_index(table, &[(3, kelvin_protocol::Direction::Asc)], &|| true)
        .unwrap();
    let query = json!({ "table": "issue", "limit": 1, "orderBy": [["title", "asc"]] });
    let watched = Watched::new(&query, &world, &ClientKeys::new());
    let mut case = Case { world, watched };
    assert_eq!(case.ids("issue"), [9]);
    // The end of the window is gone; what the index cannot tell from it comes before "z".
    case.step(|world| vec![delete(world, "issue", json!([9]))]);
    assert_eq!(case.ids("issue"), [1]);
}
