//! Write permissions.

use serde_json::{Value, json};

use super::fixture::{Fixture, issue};
use crate::mutation::failure::Executed;

fn any() -> Value {
    json!([["allow", { "type": "and", "conditions": [] }]])
}

fn allow(condition: &Value) -> Value {
    json!([["allow", condition]])
}

fn simple(column: &str, op: &str, right: &Value) -> Value {
    json!({ "type": "simple", "op": op, "left": { "type": "column", "name": column }, "right": right })
}

fn literal(value: &Value) -> Value {
    json!({ "type": "literal", "value": value })
}

fn claim(field: &str) -> Value {
    json!({ "type": "static", "anchor": "authData", "field": field })
}

fn rules(row: &Value, cell: &Value) -> Value {
    json!({ "tables": { "issue": { "row": row, "cell": cell } } })
}

const ROWS: &str = "INSERT INTO issue (id, owner, title, open, stars) VALUES
    ('mine', 'u', 't', true, 1), ('theirs', 'v', 't', true, 1)";

#[tokio::test]
async fn without_a_rule_everything_is_denied_and_the_id_advances() {
    let db = Fixture::with(&json!({ "tables": {} })).await;
    db.sql.batch_execute(ROWS).await.unwrap();
    let ops = [
        issue("insert", &json!({ "id": "1", "title": "t" })),
        issue("upsert", &json!({ "id": "1", "title": "t" })),
        issue("upsert", &json!({ "id": "mine", "title": "new" })),
        issue("update", &json!({ "id": "mine", "title": "new" })),
        issue("delete", &json!({ "id": "mine" })),
    ];
    for (at, op) in ops.into_iter().enumerate() {
        let id = at as u64 + 1;
        assert_eq!(db.run(id, json!([op])).await.unwrap(), Executed::Denied);
        assert_eq!(db.last_id().await, id.to_string());
    }
    assert_eq!(
        db.text("SELECT string_agg(title, ',') FROM issue").await,
        "t,t"
    );
}

#[tokio::test]
async fn rules_see_the_row_before_and_after() {
    let own = allow(&simple("owner", "=", &claim("sub")));
    let update = json!({ "preMutation": own, "postMutation": own });
    let row = json!({ "insert": own, "delete": own, "update": update });
    let db = Fixture::with(&rules(&row, &json!({}))).await;
    db.sql.batch_execute(ROWS).await.unwrap();
    let cases = [
        (
            issue("insert", &json!({ "id": "1", "title": "t", "owner": "u" })),
            true,
        ),
        (
            issue("insert", &json!({ "id": "2", "title": "t", "owner": "v" })),
            false,
        ),
        (issue("insert", &json!({ "id": "3", "title": "t" })), false),
        (
            issue("update", &json!({ "id": "mine", "title": "x" })),
            true,
        ),
        (
            issue("update", &json!({ "id": "theirs", "title": "x" })),
            false,
        ),
        (
            issue("update", &json!({ "id": "mine", "owner": "v" })),
            false,
        ),
        (
            issue("update", &json!({ "id": "theirs", "owner": "u" })),
            false,
        ),
        (
            issue(
                "upsert",
                &json!({ "id": "theirs", "title": "x", "owner": "u" }),
            ),
            false,
        ),
        (
            issue("update", &json!({ "id": "missing", "title": "x" })),
            false,
        ),
        (issue("delete", &json!({ "id": "theirs" })), false),
        (issue("delete", &json!({ "id": "mine" })), true),
    ];
    for (at, (op, allowed)) in cases.into_iter().enumerate() {
        let (shown, claims) = (op.to_string(), json!({ "sub": "u" }));
        let outcome = db
            .run_as(Some(claims), at as u64 + 1, json!([op]))
            .await
            .unwrap();
        assert_eq!(outcome == Executed::Applied, allowed, "{shown}");
    }
    let rows = db
        .text("SELECT string_agg(id || owner, ',' ORDER BY id) FROM issue")
        .await;
    assert_eq!(rows, "1u,theirsv");
    let insert = issue("insert", &json!({ "id": "9", "title": "t", "owner": "u" }));
    let anonymous = db.run(12, json!([insert])).await.unwrap();
    assert_eq!(
        anonymous,
        Executed::Denied,
        "nobody is not the owner of anything"
    );
}

#[tokio::test]
async fn one_denied_operation_denies_the_whole_mutation() {
    let row = json!({ "insert": any() });
    let db = Fixture::with(&rules(&row, &json!({}))).await;
    db.sql.batch_execute(ROWS).await.unwrap();
    let ops = json!([
        issue("insert", &json!({ "id": "1", "title": "t" })),
        issue("delete", &json!({ "id": "mine" })),
    ]);
    assert_eq!(db.run(1, ops).await.unwrap(), Executed::Denied);
    assert_eq!(db.text("SELECT count(*) FROM issue").await, "2");
}

#[tokio::test]
async fn rules_of_a_column_hold_where_the_column_is_written() {
    let update = json!({ "preMutation": any(), "postMutation": any() });
    let row = json!({ "insert": any(), "update": update, "delete": any() });
    let few = allow(&simple("stars", "<", &literal(&json!(10))));
    let cell = json!({
        "stars": { "update": { "postMutation": few } },
        "open": { "insert": [] }
    });
    let db = Fixture::with(&rules(&row, &cell)).await;
    db.sql.batch_execute(ROWS).await.unwrap();
    let cases = [
        (issue("update", &json!({ "id": "mine", "stars": 9 })), true),
        (
            issue("update", &json!({ "id": "mine", "stars": 10 })),
            false,
        ),
        (
            issue("update", &json!({ "id": "mine", "title": "x" })),
            true,
        ),
        (issue("insert", &json!({ "id": "1", "title": "t" })), false),
        (issue("delete", &json!({ "id": "mine" })), true),
    ];
    for (at, (op, allowed)) in cases.into_iter().enumerate() {
        let shown = op.to_string();
        let outcome = db.run(at as u64 + 1, json!([op])).await.unwrap();
        assert_eq!(outcome == Executed::Applied, allowed, "{shown}");
    }
}

#[tokio::test]
async fn newly_deployed_rules_hold_at_once() {
    let db = Fixture::open().await;
    let insert = |id: &str| json!([issue("insert", &json!({ "id": id, "title": "t" }))]);
    assert_eq!(db.run(1, insert("1")).await.unwrap(), Executed::Applied);
    db.deploy(&json!({ "tables": {} })).await;
    assert_eq!(db.run(2, insert("2")).await.unwrap(), Executed::Denied);
    db.deploy(&json!({ "tables": 5 })).await;
    assert!(db.run(3, insert("3")).await.is_err());
}

/// Whether `condition` holds for the row of "Odd"."All" and for that of issue `mine`.
async fn holds(db: &Fixture, id: u64, table: &str, condition: Value) -> bool {
    let delete = allow(&condition);
    db.deploy(&json!({ "tables": { table: { "row": { "delete": delete } } } }))
        .await;
    let (key, value) = match table {
        "issue" => ("id", json!({ "id": "mine" })),
        _ => ("i8", json!({ "i8": 1 })),
    };
    db.sql
        .batch_execute("BEGIN; TRUNCATE issue; TRUNCATE \"Odd\".\"All\"")
        .await
        .unwrap();
    db.sql.batch_execute(ROWS).await.unwrap();
    let all = r#"INSERT INTO "Odd"."All" (i8, b, t, vc, c, u, ip, m, ts, tz, d, tm, ttz, jb, f8)
        VALUES (1, true, 'B', 'b%', 'x', '00000000-0000-0000-0000-000000000001', '10.0.0.1', 'sad',
        '2023-11-14 22:13:20.123456', '2023-11-14 22:13:20.123456+00', '2000-02-29',
        '01:02:03.004567', '00:30:00+01', '{}', 1.5)"#;
    db.sql.batch_execute(all).await.unwrap();
    let teams = r#"UPDATE issue SET "teamID" = '00000000-0000-0000-0000-000000000001';
        TRUNCATE team; INSERT INTO team VALUES ('00000000-0000-0000-0000-000000000001', 'u', 'boss',
        NULL); COMMIT"#;
    db.sql.batch_execute(teams).await.unwrap();
    let op = json!([{ "op": "delete", "tableName": table, "primaryKey": [key], "value": value }]);
    db.run(id, op).await.unwrap() == Executed::Applied
}

#[tokio::test]
async fn comparisons_mean_what_they_mean_to_clients() {
    let db = Fixture::open().await;
    let cases = [
        ("t", "=", json!("B"), true),
        ("t", "=", json!("b"), false),
        ("t", "=", json!(5), false),
        ("t", "!=", json!(5), true),
        ("t", "<", json!("a"), true),
        ("t", "ILIKE", json!("b"), true),
        ("t", "LIKE", json!("b"), false),
        ("vc", "LIKE", json!("b\\%"), true),
        ("vc", "NOT LIKE", json!("b\\%"), false),
        ("c", "=", json!("x  "), true),
        ("c", "=", json!("x"), false),
        ("ip", "=", json!("10.0.0.1"), true),
        (
            "u",
            "IN",
            json!(["00000000-0000-0000-0000-000000000001", 5, null]),
            true,
        ),
        ("u", "IN", json!([]), false),
        ("u", "NOT IN", json!([]), true),
        ("i2", "NOT IN", json!([]), false),
        ("i2", "NOT IN", json!([1]), false),
        ("m", "=", json!("sad"), true),
        ("i2", "=", json!(null), false),
        ("i2", "!=", json!(5), false),
        ("i2", "IS", json!(null), true),
        ("i2", "IS NOT", json!(5), true),
        ("t", "IS", json!("B"), true),
        ("t", "IS", json!(5), false),
        ("jb", "IS NOT", json!(null), true),
        ("b", "=", json!(true), true),
        ("f8", ">=", json!(1.5), true),
        ("ts", "=", json!(1_700_000_000_123.456), true),
        ("tz", "=", json!(1_700_000_000_123.456), true),
        ("d", "=", json!(951_782_400_000_i64), true),
        ("tm", "=", json!(3_723_004), true),
        ("ttz", "=", json!(84_600_000), true),
    ];
    for (at, (column, op, value, expected)) in cases.into_iter().enumerate() {
        let condition = simple(column, op, &literal(&value));
        let held = holds(&db, at as u64 + 1, "Odd.All", condition).await;
        assert_eq!(held, expected, "{column} {op} {value}");
    }
}

#[tokio::test]
async fn subqueries_follow_their_correlation() {
    let db = Fixture::open().await;
    let exists = |op: &str, member: &str, parent: &str| {
        json!({ "type": "correlatedSubquery", "op": op, "related": {
            "correlation": { "parentField": [parent], "childField": ["id"] },
            "subquery": { "table": "team", "where": { "type": "and", "conditions": [
                simple("memberID", "=", &literal(&json!(member))),
                simple("role", "LIKE", &literal(&json!("boss%")))
            ] } } } })
    };
    let cases = [
        (exists("EXISTS", "u", "teamID"), true),
        (exists("EXISTS", "v", "teamID"), false),
        (exists("NOT EXISTS", "v", "teamID"), true),
        (exists("EXISTS", "u", "owner"), false),
        (exists("EXISTS", "u", "stars"), false),
        (json!({ "type": "or", "conditions": [] }), false),
        (
            json!({ "type": "or", "conditions": [exists("EXISTS", "v", "teamID"),
            simple("stars", "=", &literal(&json!(1)))] }),
            true,
        ),
    ];
    for (at, (condition, expected)) in cases.into_iter().enumerate() {
        let shown = condition.to_string();
        assert_eq!(
            holds(&db, at as u64 + 1, "issue", condition).await,
            expected,
            "{shown}"
        );
    }
}
