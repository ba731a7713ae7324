//! What is written, and what becomes of a mutation that cannot be.

use kelvin_protocol::ErrorKind;
use serde_json::json;

use super::fixture::{Fixture, issue};
use crate::mutation::failure::Executed;

#[tokio::test]
async fn operations_are_applied_in_their_order_and_the_id_advances() {
    let db = Fixture::open().await;
    let insert = json!([
        issue(
            "insert",
            &json!({ "id": "1", "title": "it's \"a\"", "open": true, "stars": 3 })
        ),
        issue("insert", &json!({ "id": "2", "title": "b" })),
    ]);
    assert_eq!(db.run(1, insert).await.unwrap(), Executed::Applied);
    let change = json!([
        issue("update", &json!({ "id": "1", "open": null })),
        issue("upsert", &json!({ "id": "2", "title": "B" })),
        issue("upsert", &json!({ "id": "3", "title": "c" })),
        issue(
            "insert",
            &json!({ "id": "1", "title": "ignored: it is there" })
        ),
    ]);
    assert_eq!(db.run(2, change).await.unwrap(), Executed::Applied);
    assert_eq!(db.text("SELECT title FROM issue WHERE id = '2'").await, "B");
    let delete = json!([issue("delete", &json!({ "id": "2" }))]);
    assert_eq!(db.run(3, delete).await.unwrap(), Executed::Applied);
    let rows =
        db.text("SELECT json_agg(json_build_array(id, title, open, stars) ORDER BY id) FROM issue");
    let rows: serde_json::Value = serde_json::from_str(&rows.await).unwrap();
    assert_eq!(
        rows,
        json!([["1", "it's \"a\"", null, 3], ["3", "c", null, null]])
    );
    assert_eq!(db.last_id().await, "3");
}

#[tokio::test]
async fn a_mutation_is_applied_once_and_in_order() {
    let db = Fixture::open().await;
    let insert = |id: &str| json!([issue("insert", &json!({ "id": id, "title": "t" }))]);
    db.run(1, insert("1")).await.unwrap();
    assert_eq!(
        db.run(1, insert("2")).await.unwrap(),
        Executed::AlreadyProcessed
    );
    let failure = db.run(3, insert("3")).await.unwrap_err();
    assert_eq!(
        (failure.body.kind, failure.close),
        (ErrorKind::InvalidPush, true)
    );
    assert_eq!(db.text("SELECT string_agg(id, ',') FROM issue").await, "1");
    assert_eq!(db.last_id().await, "1");
}

#[tokio::test]
async fn a_mutation_that_cannot_be_executed_advances_the_id_alone() {
    let db = Fixture::open().await;
    let good = || issue("insert", &json!({ "id": "1", "title": "t" }));
    let bad = [
        json!([
            good(),
            issue("insert", &json!({ "id": "2", "title": null }))
        ]),
        json!([
            good(),
            issue(
                "insert",
                &json!({ "id": "2", "title": "t", "stars": "many" })
            )
        ]),
        json!([
            good(),
            issue(
                "insert",
                &json!({ "id": "2", "title": "t", "teamID": "no uuid" })
            )
        ]),
        json!([
            good(),
            issue("insert", &json!({ "id": "2", "title": "t", "secret": "x" }))
        ]),
        json!([good(), issue("insert", &json!({ "title": "t" }))]),
        json!([{ "op": "insert", "tableName": "clients", "primaryKey": ["a"], "value": {} }]),
        json!([{ "op": "insert", "tableName": "pg_class", "primaryKey": ["oid"], "value": { "oid": 1 } }]),
        json!("no operations"),
    ];
    for (at, ops) in bad.into_iter().enumerate() {
        let id = at as u64 + 1;
        let shown = ops.to_string();
        let failure = db.run(id, ops).await.unwrap_err();
        assert_eq!(failure.body.kind, ErrorKind::MutationFailed, "{shown}");
        assert!(!failure.close);
        assert_eq!(db.last_id().await, id.to_string());
    }
    assert_eq!(db.text("SELECT count(*) FROM issue").await, "0");
}

#[tokio::test]
async fn a_key_that_names_several_rows_is_refused() {
    let db = Fixture::open().await;
    let setup = "INSERT INTO issue (id, owner, title) VALUES ('1', 'u', 'a'), ('2', 'u', 'b')";
    db.sql.batch_execute(setup).await.unwrap();
    let by_owner = json!([{
        "op": "delete", "tableName": "issue", "primaryKey": ["owner"], "value": { "owner": "u" }
    }]);
    let failure = db.run(1, by_owner).await.unwrap_err();
    assert_eq!(failure.body.kind, ErrorKind::MutationFailed);
    assert_eq!(db.text("SELECT count(*) FROM issue").await, "2");
}

#[tokio::test]
async fn every_type_is_written_as_the_client_means_it() {
    let db = Fixture::open().await;
    let value = json!({
        "i8": 9_007_199_254_740_991_i64, "i2": -5, "n": 12345.678, "f4": 1.5,
        "f8": 0.1, "b": false, "t": "päng \\ ' \" \n", "vc": "abcde", "c": "x",
        "u": "00000000-0000-0000-0000-000000000001", "ip": "10.0.0.1", "m": "it's ok",
        "ts": 1_700_000_000_123.456, "tz": 1_700_000_000_123.456, "d": 951_782_400_000_i64,
        "tm": 3_723_004, "ttz": 3_723_004, "j": { "a": [1, null] }, "jb": "text",
        "ia": [1, null, 3], "ta": ["a,b", "\"q\"", null], "da": [0, 86_400_000],
        "ma": ["sad", "it's ok"]
    });
    let insert = json!([{
        "op": "insert", "tableName": "Odd.All", "primaryKey": ["i8"], "value": value
    }]);
    assert_eq!(db.run(1, insert).await.unwrap(), Executed::Applied);
    db.sql.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let row = db.text(r#"SELECT row_to_json(a) FROM "Odd"."All" a"#).await;
    let row: serde_json::Value = serde_json::from_str(&row).unwrap();
    let mut expected = value;
    for (name, shown) in [
        ("c", json!("x  ")),
        ("ts", json!("2023-11-14T22:13:20.123456")),
        ("tz", json!("2023-11-14T22:13:20.123456+00:00")),
        ("d", json!("2000-02-29")),
        ("tm", json!("01:02:03.004")),
        ("ttz", json!("01:02:03.004+00")),
        ("da", json!(["1970-01-01", "1970-01-02"])),
    ] {
        expected[name] = shown;
    }
    assert_eq!(row, expected);
    let too_long = json!([{
        "op": "update", "tableName": "Odd.All", "primaryKey": ["i8"],
        "value": { "i8": 9_007_199_254_740_991_i64, "vc": "abcdef" }
    }]);
    let failure = db.run(2, too_long).await.unwrap_err();
    assert_eq!(failure.body.kind, ErrorKind::MutationFailed);
}

#[tokio::test]
async fn mutations_that_collide_all_succeed_in_the_end() {
    let db = Fixture::open().await;
    db.sql
        .batch_execute("INSERT INTO issue (id, title, stars) VALUES ('1', 't', 0)")
        .await
        .unwrap();
    let bump = |stars: u64| json!([issue("update", &json!({ "id": "1", "stars": stars }))]);
    let outcomes = futures_util::future::join_all((1..=4).map(|at| {
        let (db, ops) = (&db, bump(at));
        async move {
            loop {
                match db.run(at, ops.clone()).await {
                    Err(failure) if failure.body.kind == ErrorKind::InvalidPush => {
                        tokio::task::yield_now().await;
                    }
                    other => return other,
                }
            }
        }
    }))
    .await;
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(db.last_id().await, "4");
}

#[tokio::test]
async fn a_database_that_is_gone_makes_the_client_come_back() {
    let db = Fixture::open().await;
    let insert = || json!([issue("insert", &json!({ "id": "1", "title": "t" }))]);
    let read_only = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET \
        default_transaction_read_only = on', current_database()); END $$";
    db.sql.batch_execute(read_only).await.unwrap();
    let failure = db.run(1, insert()).await.unwrap_err();
    assert_eq!(
        (failure.body.kind, failure.close),
        (ErrorKind::Rehome, true)
    );
    assert!(failure.body.min_backoff_ms.is_some() && failure.body.max_backoff_ms.is_none());
}
