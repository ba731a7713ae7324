//! Lets everybody read and write everything: the demo has no sign-in.

use serde_json::{Map, Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::Error;

/// Tables of the demo, as PostgreSQL knows them.
const TABLES: [&str; 6] = [
    "users",
    "projects",
    "issues",
    "comments",
    "labels",
    "issue_labels",
];

/// Puts the permissions where the sync server of `app_id` reads them. The server has made the
/// table.
///
/// # Errors
/// When PostgreSQL refuses it.
pub async fn deploy(client: &Client, app_id: &str) -> Result<(), Error> {
    let statement = format!("UPDATE \"{app_id}\".permissions SET permissions = $1");
    let changed = client
        .execute(&statement, &[&Json(anyone_can())])
        .await
        .map_err(Error::sql("deploying the demo's permissions"))?;
    if changed == 0 {
        return Err(Error::Serve(format!(
            "it left no row in \"{app_id}\".permissions"
        )));
    }
    Ok(())
}

/// The permissions: every operation on every table is allowed by a condition that always holds.
fn anyone_can() -> Value {
    let allow = json!([["allow", {"type": "and", "conditions": []}]]);
    let row = json!({
        "row": {
            "select": allow,
            "insert": allow,
            "update": {"preMutation": allow, "postMutation": allow},
            "delete": allow,
        }
    });
    let tables: Map<String, Value> = TABLES
        .iter()
        .map(|table| ((*table).to_owned(), row.clone()))
        .collect();
    json!({ "tables": tables })
}
