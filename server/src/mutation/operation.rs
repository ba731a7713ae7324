//! Row operations as SQL.

use std::collections::HashMap;

use kelvin_protocol::{CrudOp, CrudOpKind};
use kelvin_storage::{Catalog, Table};
use serde_json::{Map, Value};
use tokio_postgres::Transaction;

use super::failure::Abort;
use super::sql::{Param, Statement, identifier, qualified};
use super::temporal::to_column;

/// Types of a table's columns, as PostgreSQL writes them.
pub(super) type ColumnTypes = HashMap<String, String>;

const COLUMN_TYPES: &str = "SELECT attname::text, format_type(atttypid, atttypmod) \
     FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";

/// Asks for the column types of a table.
pub(super) async fn column_types(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<ColumnTypes, Abort> {
    let mut statement = Statement::default();
    statement.param(Param::Text(qualified(&table.schema, &table.upstream_name)));
    let rows = transaction
        .query_typed(COLUMN_TYPES, &statement.bound())
        .await?;
    let mut types = ColumnTypes::with_capacity(rows.len());
    for row in rows {
        types.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(types)
}

/// A row operation, checked against the catalog: its columns exist, its key identifies one row.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    pub(super) kind: CrudOpKind,
    pub(super) table: &'a Table,
    /// Columns of the value.
    pub(super) columns: Vec<&'a str>,
    key: Vec<&'a str>,
    /// The value as JSON text, dates and times as PostgreSQL reads them.
    json: String,
    /// `r("id" text, ...)`.
    record: String,
}

impl<'a> Operation<'a> {
    /// # Errors
    /// What is wrong with the operation; one sentence.
    pub(super) fn table_of(op: &CrudOp, catalog: &'a Catalog) -> Result<&'a Table, String> {
        let name = &op.table_name;
        let table = catalog.table(name);
        table
            .map(AsRef::as_ref)
            .ok_or_else(|| format!("Table {name:?} is not synced."))
    }

    pub(super) fn new(
        op: &'a CrudOp,
        table: &'a Table,
        types: &ColumnTypes,
    ) -> Result<Self, String> {
        let mut value = Map::new();
        let mut record = Vec::new();
        for (name, given) in &op.value {
            let column = table.column(name).and_then(|at| table.columns.get(at));
            let (Some(column), Some(sql_type)) = (column, types.get(name)) else {
                return Err(format!(
                    "Table {:?} has no synced column {name:?}.",
                    table.name
                ));
            };
            value.insert(name.clone(), to_column(&column.upstream_type, given)?);
            record.push(format!("{} {sql_type}", identifier(name)));
        }
        let key: Vec<&str> = op.primary_key.iter().map(String::as_str).collect();
        check_key(table, &key, &op.value)?;
        Ok(Self {
            kind: op.op,
            table,
            columns: op.value.keys().map(String::as_str).collect(),
            key,
            json: Value::Object(value).to_string(),
            record: format!("r({})", record.join(", ")),
        })
    }

    /// `json_to_record(...) AS r(...)`: PostgreSQL itself turns JSON into values of its types.
    fn record(&self, statement: &mut Statement) -> String {
        let json = statement.param(Param::Text(self.json.clone()));
        format!("json_to_record({json}::json) AS {}", self.record)
    }

    fn name(&self) -> String {
        qualified(&self.table.schema, &self.table.upstream_name)
    }

    fn matches_key(&self) -> String {
        let pairs = self.key.iter().map(|name| {
            let name = identifier(name);
            format!("t.{name} = r.{name}")
        });
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// The statement that does it.
    pub(super) fn statement(&self) -> Statement {
        let mut statement = Statement::default();
        let (record, name) = (self.record(&mut statement), self.name());
        let list = |names: &[&str], each: &dyn Fn(&str) -> String| -> String {
            let names = names.iter().map(|name| each(&identifier(name)));
            names.collect::<Vec<_>>().join(", ")
        };
        let (columns, key) = (&self.columns, &self.key);
        let text = match self.kind {
            CrudOpKind::Insert | CrudOpKind::Upsert => {
                let conflict = if self.kind == CrudOpKind::Insert {
                    "NOTHING".to_owned()
                } else {
                    let set = list(columns, &|name| format!("{name} = excluded.{name}"));
                    format!("UPDATE SET {set}")
                };
                format!(
                    "INSERT INTO {name} ({}) SELECT {} FROM {record} ON CONFLICT ({}) DO {conflict}",
                    list(columns, &str::to_owned),
                    list(columns, &|name| format!("r.{name}")),
                    list(key, &str::to_owned),
                )
            }
            CrudOpKind::Update => format!(
                "UPDATE {name} AS t SET {} FROM {record} WHERE {}",
                list(columns, &|name| format!("{name} = r.{name}")),
                self.matches_key(),
            ),
            CrudOpKind::Delete => {
                format!(
                    "DELETE FROM {name} AS t USING {record} WHERE {}",
                    self.matches_key()
                )
            }
        };
        statement.push(&text);
        statement
    }

    /// Begins `SELECT EXISTS (...)` of the operation's row, called `t`; conditions and a closing
    /// parenthesis have to follow.
    pub(super) fn row_exists(&self) -> Statement {
        let mut statement = Statement::default();
        let (record, name) = (self.record(&mut statement), self.name());
        let key = self.matches_key();
        statement.push(&format!(
            "SELECT EXISTS (SELECT 1 FROM {name} AS t, {record} WHERE {key}"
        ));
        statement
    }
}

/// INVARIANT: the key names at most one row. Permissions are judged about one row, so that a key
/// that names several would let the others pass unjudged.
fn check_key(table: &Table, key: &[&str], value: &Map<String, Value>) -> Result<(), String> {
    if let Some(name) = key.iter().find(|name| !value.contains_key(**name)) {
        return Err(format!("The key column {name:?} has no value."));
    }
    let named = |at: &usize| {
        let column = table.columns.get(*at);
        column.is_some_and(|column| key.contains(&column.name.as_str()))
    };
    let unique = table
        .unique_keys
        .iter()
        .any(|unique| !unique.is_empty() && unique.len() == key.len() && unique.iter().all(named));
    if unique {
        return Ok(());
    }
    Err(format!(
        "Columns {key:?} are no unique key of table {:?}.",
        table.name
    ))
}
