//! A database with an app's tables, and the catalog of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kelvin_protocol::{Mutation, ValueType};
use kelvin_storage::{Catalog, Column, Table, TableId};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::cluster::Cluster;
use crate::config::AppId;
use crate::mutation::crud::{CrudExecutor, CrudRequest};
use crate::mutation::failure::{CrudFailure, Executed};
use crate::mutation::pool::{ConnectSql, SqlPool};

const SETUP: &str = r#"
    CREATE SCHEMA zero; CREATE SCHEMA zero_0; CREATE SCHEMA "Odd";
    CREATE TABLE zero_0.clients ("clientGroupID" text, "clientID" text, "lastMutationID" bigint,
        "userID" text, PRIMARY KEY ("clientGroupID", "clientID"));
    CREATE TABLE zero.permissions (permissions jsonb, hash text, lock bool PRIMARY KEY);
    INSERT INTO zero.permissions VALUES (NULL, NULL, true);
    CREATE TYPE "Odd"."Mood" AS ENUM ('sad', 'it''s ok');
    CREATE TABLE issue (id text PRIMARY KEY, owner text, title text NOT NULL, open bool,
        stars int, "teamID" uuid, secret text);
    CREATE TABLE team (id uuid, "memberID" text, role char(5), since timestamptz,
        PRIMARY KEY (id, "memberID"));
    CREATE TABLE "Odd"."All" (i8 int8 PRIMARY KEY, i2 int2, n numeric(12, 3), f4 real, f8 float8,
        b bool, t text, vc varchar(5), c char(3), u uuid, ip inet, m "Odd"."Mood", ts timestamp,
        tz timestamptz, d date, tm time, ttz timetz, j json, jb jsonb, ia int[], ta text[],
        da date[], ma "Odd"."Mood"[]);
"#;

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// One database of the shared cluster.
pub(super) struct Fixture {
    pub(super) sql: Client,
    pub(super) catalog: Catalog,
    executor: CrudExecutor,
    _cluster: Arc<Cluster>,
}

impl Fixture {
    /// With these permissions.
    pub(super) async fn with(permissions: &Value) -> Self {
        let cluster = Cluster::shared();
        let database = format!("d{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin = cluster.connect("postgres").await.unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let sql = cluster.connect(&database).await.unwrap();
        sql.batch_execute(SETUP).await.unwrap();
        let connect: ConnectSql = {
            let cluster = Arc::clone(&cluster);
            Arc::new(move || {
                let (cluster, database) = (Arc::clone(&cluster), database.clone());
                Box::pin(async move { cluster.connect(&database).await })
            })
        };
        let app = AppId {
            id: "zero".into(),
            shard_num: 0,
            publications: vec![],
        };
        let fixture = Self {
            executor: CrudExecutor::new(SqlPool::new(connect, 4).unwrap(), &app, false),
            catalog: catalog(),
            sql,
            _cluster: cluster,
        };
        fixture.deploy(permissions).await;
        fixture
    }

    /// Anyone may do anything.
    pub(super) async fn open() -> Self {
        let any = json!([["allow", { "type": "and", "conditions": [] }]]);
        let row = json!({
            "insert": any, "delete": any,
            "update": { "preMutation": any, "postMutation": any }
        });
        let tables = ["issue", "team", "Odd.All"].map(|table| (table, json!({ "row": row })));
        Self::with(&json!({ "tables": serde_json::Map::from_iter(
            tables.map(|(name, rules)| (name.to_owned(), rules))
        ) }))
        .await
    }

    pub(super) async fn deploy(&self, permissions: &Value) {
        let text = permissions.to_string();
        let update = "UPDATE zero.permissions SET permissions = $1::text::jsonb, hash = md5($1)";
        let statement = self
            .sql
            .prepare_typed(update, &[tokio_postgres::types::Type::TEXT]);
        self.sql
            .execute(&statement.await.unwrap(), &[&text])
            .await
            .unwrap();
    }

    /// Executes a mutation of client `c`.
    pub(super) async fn run(&self, id: u64, ops: Value) -> Result<Executed, CrudFailure> {
        self.run_as(None, id, ops).await
    }

    pub(super) async fn run_as(
        &self,
        claims: Option<Value>,
        id: u64,
        ops: Value,
    ) -> Result<Executed, CrudFailure> {
        let mutation: Mutation = serde_json::from_value(json!({
            "type": "crud", "id": id, "clientID": "c", "name": "_zero_crud", "timestamp": 1,
            "args": [{ "ops": ops }]
        }))
        .unwrap();
        let request = CrudRequest {
            client_group_id: "g",
            mutation: &mutation,
            claims: claims.as_ref().and_then(Value::as_object),
            catalog: &self.catalog,
        };
        self.executor.execute(&request).await
    }

    /// The one text a query gives.
    pub(super) async fn text(&self, query: &str) -> String {
        let query = format!("SELECT coalesce(({query})::text, 'none')");
        self.sql.query_one(&query, &[]).await.unwrap().get(0)
    }

    /// Last mutation id of client `c`.
    pub(super) async fn last_id(&self) -> String {
        self.text(r#"SELECT "lastMutationID" FROM zero_0.clients WHERE "clientID" = 'c'"#)
            .await
    }
}

/// An operation on `issue`.
pub(super) fn issue(op: &str, value: &Value) -> Value {
    json!({ "op": op, "tableName": "issue", "primaryKey": ["id"], "value": value })
}

fn table(id: u32, schema: &str, name: &str, key: &[usize], columns: &[(&str, &str)]) -> Table {
    let column = |(at, (name, kind)): (usize, &(&str, &str))| Column {
        name: (*name).to_owned(),
        attnum: i16::try_from(at + 1).unwrap(),
        upstream_type: (*kind).to_owned(),
        type_oid: oid(kind),
        value_type: value_type(kind),
        not_null: key.contains(&at),
    };
    let prefix = if schema == "public" {
        String::new()
    } else {
        format!("{schema}.")
    };
    Table {
        id: TableId(id),
        name: format!("{prefix}{name}"),
        schema: schema.to_owned(),
        upstream_name: name.to_owned(),
        oid: id,
        columns: columns.iter().enumerate().map(column).collect(),
        unsynced_columns: vec![],
        key: key.to_vec(),
        unique_keys: vec![key.to_vec()],
        indexes: vec![],
    }
}

/// Only equality of these matters.
fn oid(kind: &str) -> u32 {
    kind.bytes()
        .fold(0, |sum, byte| sum * 31 % 60_000 + u32::from(byte))
}

fn value_type(kind: &str) -> ValueType {
    match kind {
        "bool" => ValueType::Boolean,
        "json" | "jsonb" => ValueType::Json,
        kind if kind.ends_with("[]") => ValueType::Json,
        "text" | "varchar" | "bpchar" | "uuid" | "inet" | "Mood" => ValueType::String,
        _ => ValueType::Number,
    }
}

fn catalog() -> Catalog {
    let issue = [
        ("id", "text"),
        ("owner", "text"),
        ("title", "text"),
        ("open", "bool"),
        ("stars", "int4"),
        ("teamID", "uuid"),
    ];
    let team = [
        ("id", "uuid"),
        ("memberID", "text"),
        ("role", "bpchar"),
        ("since", "timestamptz"),
    ];
    let all = [
        ("i8", "int8"),
        ("i2", "int2"),
        ("n", "numeric"),
        ("f4", "float4"),
        ("f8", "float8"),
        ("b", "bool"),
        ("t", "text"),
        ("vc", "varchar"),
        ("c", "bpchar"),
        ("u", "uuid"),
        ("ip", "inet"),
        ("m", "Mood"),
        ("ts", "timestamp"),
        ("tz", "timestamptz"),
        ("d", "date"),
        ("tm", "time"),
        ("ttz", "timetz"),
        ("j", "json"),
        ("jb", "jsonb"),
        ("ia", "int4[]"),
        ("ta", "text[]"),
        ("da", "date[]"),
        ("ma", "Mood[]"),
    ];
    let tables = vec![
        table(1, "public", "issue", &[0], &issue),
        table(2, "public", "team", &[0, 1], &team),
        table(3, "Odd", "All", &[0], &all),
    ];
    Catalog::new(tables, vec![])
}
