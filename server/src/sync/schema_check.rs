//! Whether a client's schema fits the replica.

use std::collections::BTreeSet;

use kelvin_protocol::{ClientSchema, ClientTable, ErrorBody, ErrorKind};
use kelvin_storage::{Catalog, Table};

/// Checks every table, column and key the client relies on.
///
/// # Errors
/// One `SchemaVersionNotSupported` that lists all problems, a line each; `Internal` if nothing at
/// all is replicated.
pub fn check_schema(schema: &ClientSchema, catalog: &Catalog) -> Result<(), ErrorBody> {
    let mut problems = Vec::new();
    for (name, wanted) in &schema.tables {
        match catalog.table(name) {
            Some(table) => check_table(name, wanted, table, &mut problems),
            None => problems.push(missing_table(name, catalog)),
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    if catalog.tables().is_empty() && catalog.unsynced().is_empty() {
        let message = "No tables have been synced from upstream. Check the publication.";
        return Err(ErrorBody::new(ErrorKind::Internal, message));
    }
    Err(ErrorBody::new(
        ErrorKind::SchemaVersionNotSupported,
        problems.join("\n"),
    ))
}

fn missing_table(name: &str, catalog: &Catalog) -> String {
    match catalog.unsynced().iter().find(|table| table.name == name) {
        Some(table) => format!("The \"{name}\" table is not synced: {}", table.reason),
        None => {
            let tables = catalog.tables().iter().map(|table| table.name.as_str());
            let known: Vec<&str> = tables.filter(|name| !name.contains('.')).collect();
            let known = known.join(", ");
            format!(
                "The \"{name}\" table does not exist or is not one of the replicated tables: {known}."
            )
        }
    }
}

fn check_table(name: &str, wanted: &ClientTable, table: &Table, problems: &mut Vec<String>) {
    for (column, wanted) in &wanted.columns {
        match table.column(column).map(|at| &table.columns[at]) {
            Some(found) if found.value_type == wanted.value_type => {}
            Some(found) => problems.push(format!(
                "The \"{name}\".\"{column}\" column's upstream type \"{}\" does not match the \
                 client type \"{:?}\"",
                found.upstream_type, wanted.value_type
            )),
            None => problems.push(missing_column(name, column, table)),
        }
    }
    let key: BTreeSet<Option<usize>> = wanted
        .primary_key
        .iter()
        .map(|column| table.column(column))
        .collect();
    let fits =
        |unique: &Vec<usize>| unique.iter().map(|at| Some(*at)).collect::<BTreeSet<_>>() == key;
    if !table.unique_keys.iter().any(fits) {
        problems.push(format!(
            "The \"{name}\" table's primaryKey <{}> does not match the primary key or any unique \
             index over columns that are NOT NULL",
            wanted.primary_key.join(",")
        ));
    }
}

fn missing_column(name: &str, column: &str, table: &Table) -> String {
    match table
        .unsynced_columns
        .iter()
        .find(|(unsynced, _)| unsynced == column)
    {
        Some((_, reason)) => {
            format!("The \"{name}\".\"{column}\" column cannot be synced: {reason}")
        }
        None => {
            let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            format!(
                "The \"{name}\".\"{column}\" column does not exist or is not one of the replicated \
                 columns: {}.",
                columns.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kelvin_protocol::ValueType;
    use kelvin_storage::{Column, TableId};

    fn catalog() -> Catalog {
        let column = |name: &str, value_type| Column {
            name: name.into(),
            attnum: 1,
            upstream_type: "text".into(),
            type_oid: 25,
            value_type,
            not_null: true,
        };
        let table = Table {
            id: TableId(1),
            name: "issue".into(),
            schema: "public".into(),
            upstream_name: "issue".into(),
            oid: 1,
            columns: vec![
                column("id", ValueType::String),
                column("org", ValueType::String),
            ],
            unsynced_columns: vec![("blob".into(), "type bytea is not supported".into())],
            key: vec![0],
            unique_keys: vec![vec![0], vec![1, 0]],
            indexes: Vec::new(),
        };
        Catalog::new(vec![table], Vec::new())
    }

    fn schema(json: &str) -> ClientSchema {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn any_unique_key_in_any_order_will_do() {
        for key in [r#"["id"]"#, r#"["id","org"]"#, r#"["org","id"]"#] {
            let schema = schema(&format!(
                r#"{{"tables":{{"issue":{{"columns":{{"id":{{"type":"string"}}}},"primaryKey":{key}}}}}}}"#
            ));
            assert!(check_schema(&schema, &catalog()).is_ok(), "{key}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let schema = schema(
            r#"{"tables":{"issue":{"columns":{"id":{"type":"number"},"blob":{"type":"string"},"x":{"type":"json"}},"primaryKey":["org"]},"nope":{"columns":{},"primaryKey":["id"]}}}"#,
        );
        let error = check_schema(&schema, &catalog()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::SchemaVersionNotSupported);
        assert_eq!(error.message.lines().count(), 5, "{}", error.message);
    }
}
