//! Schemas and tables. Each is created where it is missing and left alone where it is there.
//!
//! INVARIANT: nothing here ever drops or empties `clients`; it holds the last mutation ids.

use tokio_postgres::{Client, Transaction};

use super::{publications, triggers};
use crate::options::{Options, REPLICAS, Shard};
use crate::quote::{identifier, literal, qualified};
use crate::{Error, Result, advice};

/// Version of the shard schema, in the count of zero-cache. The next one is that with its event
/// triggers, and kelvin has others: a zero-cache that comes to the database adds its own by its
/// migration, and says so in `ddlDetection`, which is about them alone.
const SCHEMA_VERSION: i32 = 22;

/// Creates what is missing and gives the publications to follow, sorted. Safe to run at the same
/// time from several processes.
pub(crate) async fn ensure(client: &mut Client, options: &Options) -> Result<Vec<String>> {
    let work = async {
        let shard = options.shard();
        let mut transaction = client.transaction().await?;
        let lock = format!("migrate-schema:{}", shard.schema());
        transaction
            .execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&lock])
            .await?;
        ensure_schema(&transaction, &shard.app).await?;
        ensure_permissions(&transaction, &shard.app).await?;
        ensure_schema(&transaction, &shard.schema()).await?;
        for (table, columns) in SHARD_TABLES {
            ensure_table(&transaction, &shard.schema(), table, columns).await?;
        }
        let names = publications::ensure(&transaction, options).await?;
        ensure_rows(&transaction, &shard, &names).await?;
        triggers::ensure(&mut transaction, options, &names).await?;
        transaction.commit().await?;
        Ok(names)
    };
    work.await.map_err(|error: Error| explain(error, options))
}

const PERMISSIONS: &str = r#"
    "permissions" JSONB,
    "hash" TEXT,
    "lock" BOOL PRIMARY KEY DEFAULT true CHECK (lock)"#;

const SHARD_TABLES: [(&str, &str); 7] = [
    (
        "clients",
        r#""clientGroupID" TEXT NOT NULL,
           "clientID" TEXT NOT NULL,
           "lastMutationID" BIGINT NOT NULL,
           "userID" TEXT,
           PRIMARY KEY ("clientGroupID", "clientID")"#,
    ),
    (
        "mutations",
        r#""clientGroupID" TEXT NOT NULL,
           "clientID" TEXT NOT NULL,
           "mutationID" BIGINT NOT NULL,
           "result" JSON NOT NULL,
           PRIMARY KEY ("clientGroupID", "clientID", "mutationID")"#,
    ),
    (
        "shardConfig",
        r#""publications" TEXT[] NOT NULL,
           "ddlDetection" BOOL NOT NULL,
           "lock" BOOL PRIMARY KEY DEFAULT true CHECK (lock)"#,
    ),
    (
        "replicas",
        r#""id" TEXT PRIMARY KEY DEFAULT REPLACE(gen_random_uuid()::text, '-', ''),
           "rank" BIGSERIAL,
           "slot" TEXT NOT NULL,
           "version" TEXT NOT NULL,
           "initialSchema" JSON,
           "initialSyncContext" JSON,
           "subscriberContext" JSON"#,
    ),
    (
        REPLICAS,
        r#""id" TEXT PRIMARY KEY,
           "rank" BIGSERIAL,
           "slot" TEXT NOT NULL,
           "version" TEXT NOT NULL,
           "copied" BOOL NOT NULL DEFAULT false,
           "taskID" TEXT"#,
    ),
    (
        "publishedSchema",
        r#""current" JSON,
           "exists" BOOL PRIMARY KEY DEFAULT true CHECK ("exists")"#,
    ),
    (
        "versionHistory",
        r#""dataVersion" INT NOT NULL,
           "schemaVersion" INT NOT NULL,
           "minSafeVersion" INT NOT NULL,
           "lock" CHAR(1) NOT NULL CONSTRAINT "DF_schema_meta_lock" DEFAULT 'v',
           CONSTRAINT "PK_schema_meta_lock" PRIMARY KEY ("lock"),
           CONSTRAINT "CK_schema_meta_lock" CHECK ("lock" = 'v')"#,
    ),
];

/// Schema and name of each table that is ours.
pub(crate) fn tables(shard: &Shard) -> Vec<(String, String)> {
    let of_shard = SHARD_TABLES.map(|(name, _)| (shard.schema(), name.to_owned()));
    let permissions = (shard.app.clone(), "permissions".to_owned());
    std::iter::once(permissions).chain(of_shard).collect()
}

/// `CREATE … IF NOT EXISTS` wants the privilege to create even where nothing is to be created, so
/// what is there is looked up first.
async fn ensure_schema(transaction: &Transaction<'_>, name: &str) -> Result<()> {
    let there = transaction
        .query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&name])
        .await?;
    if there.is_none() {
        let create = format!("CREATE SCHEMA {}", identifier(name));
        transaction.batch_execute(&create).await?;
    }
    Ok(())
}

/// Whether the table had to be created.
async fn ensure_table(
    transaction: &Transaction<'_>,
    schema: &str,
    name: &str,
    columns: &str,
) -> Result<bool> {
    let there = transaction
        .query_opt(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2",
            &[&schema, &name],
        )
        .await?;
    if there.is_none() {
        let create = format!("CREATE TABLE {} ({columns})", qualified(schema, name));
        transaction.batch_execute(&create).await?;
    }
    Ok(there.is_none())
}

/// The permissions table with its trigger and its one row, which `zero-deploy-permissions` only
/// updates. That tool may also have created all of it before.
async fn ensure_permissions(transaction: &Transaction<'_>, app: &str) -> Result<()> {
    ensure_table(transaction, app, "permissions", PERMISSIONS).await?;
    let table = qualified(app, "permissions");
    let trigger = transaction
        .query_opt(
            "SELECT 1 FROM pg_trigger
             WHERE tgrelid = $1::text::regclass AND tgname = 'on_set_permissions'",
            &[&table],
        )
        .await?;
    if trigger.is_none() {
        let function = qualified(app, "set_permissions_hash");
        transaction
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS TRIGGER LANGUAGE plpgsql AS $$
                 BEGIN
                   NEW.hash := md5(NEW.permissions::text);
                   RETURN NEW;
                 END $$;
                 CREATE TRIGGER on_set_permissions BEFORE INSERT OR UPDATE ON {table}
                   FOR EACH ROW EXECUTE FUNCTION {function}()"
            ))
            .await?;
    }
    insert_if_empty(transaction, &table, "(permissions) VALUES (NULL)").await
}

async fn ensure_rows(
    transaction: &Transaction<'_>,
    shard: &Shard,
    publications: &[String],
) -> Result<()> {
    let schema = shard.schema();
    let versions = format!(
        r#"("dataVersion", "schemaVersion", "minSafeVersion")
           VALUES ({SCHEMA_VERSION}, {SCHEMA_VERSION}, 0)"#
    );
    insert_if_empty(
        transaction,
        &qualified(&schema, "versionHistory"),
        &versions,
    )
    .await?;
    let published = qualified(&schema, "publishedSchema");
    insert_if_empty(transaction, &published, "(\"current\") VALUES (NULL)").await?;
    let config = qualified(&schema, "shardConfig");
    let names: Vec<_> = publications.iter().map(|name| literal(name)).collect();
    let names = format!("ARRAY[{}]::TEXT[]", names.join(", "));
    let row = format!(r#"("publications", "ddlDetection") VALUES ({names}, false)"#);
    insert_if_empty(transaction, &config, &row).await?;
    transaction
        .batch_execute(&format!(
            r#"UPDATE {config} SET "publications" = {names} WHERE "publications" <> {names}"#
        ))
        .await?;
    Ok(())
}

async fn insert_if_empty(transaction: &Transaction<'_>, table: &str, row: &str) -> Result<()> {
    let there = transaction
        .query_opt(&format!("SELECT 1 FROM {table} LIMIT 1"), &[])
        .await?;
    if there.is_none() {
        let insert = format!("INSERT INTO {table} {row}");
        transaction.batch_execute(&insert).await?;
    }
    Ok(())
}

fn explain(error: Error, options: &Options) -> Error {
    if error.sqlstate() != Some("42501") {
        return error;
    }
    advice::may_not_set_up(&error.to_string(), options).into()
}
