//! What a commit does to a plan, encoded once for every group that has the plan.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kelvin_ivm::{Plan, PlanDelta, PlanId, RowDelta};
use kelvin_protocol::{ValueRef, Version};
use kelvin_storage::{Catalog, Row, RowId, Table, TableId};

use crate::sync::row_json::{EncodeError, push_string, push_value};

/// The upstream tables whose rows become messages of their own instead of row patches.
#[derive(Clone, Copy, Debug, Default)]
pub struct InternalTables {
    /// `{app}_{n}.clients`: last mutation ids.
    pub clients: Option<TableId>,
    /// `{app}_{n}.mutations`: mutation results.
    pub mutations: Option<TableId>,
    /// `{app}.permissions`.
    pub permissions: Option<TableId>,
}

impl InternalTables {
    /// Looks the tables up by name.
    #[must_use]
    pub fn find(catalog: &Catalog, app_id: &str, shard: u32) -> Self {
        let id = |name: String| catalog.table(&name).map(|table| table.id);
        Self {
            clients: id(format!("{app_id}_{shard}.clients")),
            mutations: id(format!("{app_id}_{shard}.mutations")),
            permissions: id(format!("{app_id}.permissions")),
        }
    }
}

/// The part of a poke that comes from one plan. JSON texts are fragments: operations without the
/// brackets around them.
#[derive(Debug, Default)]
pub struct PlanPatch {
    /// The plan.
    pub plan: Option<PlanId>,
    /// `put` operations of `rowsPatch`, comma-separated.
    pub puts: Vec<Arc<str>>,
    /// `del` operations for keys that are gone although the row is still there.
    pub rekeyed: Vec<Arc<str>>,
    /// Rows that left the plan, each with its `del` operation.
    pub left: Vec<(TableId, RowId, Arc<str>)>,
    /// Last mutation ids: client and number.
    pub last_mutation_ids: Vec<(Arc<str>, u64)>,
    /// Clients whose last mutation id fell, or is gone: PostgreSQL has lost mutations of theirs.
    pub fallen: Vec<Arc<str>>,
    /// Operations of `mutationsPatch`.
    pub mutations: Vec<Arc<str>>,
}

/// Turns rows into the JSON of their patches.
pub struct RowEncoder {
    internal: InternalTables,
}

/// Patches of the rows of one commit, so that each row is encoded once for all plans.
#[derive(Default)]
pub struct EncodedRows {
    puts: HashMap<(TableId, RowId, Version), Arc<str>>,
}

impl RowEncoder {
    /// An encoder that treats these tables apart.
    #[must_use]
    pub fn new(internal: InternalTables) -> Self {
        Self { internal }
    }

    /// The tables this encoder treats apart.
    #[must_use]
    pub fn internal(&self) -> InternalTables {
        self.internal
    }

    /// Encodes what a commit did to `plan`. `catalog` is that of the version the rows were read at;
    /// none of the plan's tables has another form on the other side of the commit.
    ///
    /// # Errors
    /// If a row holds a value that no client can be sent.
    pub fn encode(
        &self,
        plan: &Plan,
        delta: &PlanDelta,
        catalog: &Catalog,
        rows: &mut EncodedRows,
    ) -> Result<PlanPatch, EncodeError> {
        let mut patch = PlanPatch {
            plan: Some(plan.id()),
            ..PlanPatch::default()
        };
        for change in &delta.rows {
            let Some(table) = catalog.table_by_id(change.table) else {
                continue;
            };
            if self.encode_internal(table, change, &mut patch)? {
                continue;
            }
            let key = plan.client_key(table);
            match (&change.old, &change.new) {
                (Some(old), None) => {
                    patch
                        .left
                        .push((table.id, old.id, encode_del(table, key, old)?.into()));
                }
                (old, Some(new)) => {
                    if let Some(old) = old.as_ref().filter(|old| !same_key(old, new, key)) {
                        patch.rekeyed.push(encode_del(table, key, old)?.into());
                    }
                    patch.puts.push(rows.put(table, new)?);
                }
                (None, None) => {}
            }
        }
        Ok(patch)
    }

    /// Whether rows of a table become messages of their own.
    #[must_use]
    pub(super) fn is_internal(&self, table: TableId) -> bool {
        let id = Some(table);
        id == self.internal.clients || id == self.internal.mutations
    }

    /// Adds a row of an internal table to `patch`; `false` if `table` is none.
    pub(super) fn encode_internal(
        &self,
        table: &Table,
        change: &RowDelta,
        patch: &mut PlanPatch,
    ) -> Result<bool, EncodeError> {
        let id = Some(table.id);
        if id == self.internal.clients {
            patch.fallen.extend(fallen(table, change));
            if let Some((client, number)) = change.new.as_ref().and_then(last_mutation_id(table)) {
                patch.last_mutation_ids.push((client, number));
            }
            Ok(true)
        } else if id == self.internal.mutations {
            if let Some(op) = mutation_op(table, change)? {
                patch.mutations.push(op.into());
            }
            Ok(true)
        } else {
            Ok(false)
        }
    }
}

impl EncodedRows {
    /// The `put` of a row, encoded at most once.
    ///
    /// # Errors
    /// If the row holds a value that no client can be sent.
    pub fn put(&mut self, table: &Table, row: &Row) -> Result<Arc<str>, EncodeError> {
        let slot = (table.id, row.id, row.version);
        if let Some(text) = self.puts.get(&slot) {
            return Ok(Arc::clone(text));
        }
        let mut text = String::with_capacity(64 + 24 * table.columns.len());
        push_put(&mut text, table, row)?;
        let text: Arc<str> = text.into();
        self.puts.insert(slot, Arc::clone(&text));
        Ok(text)
    }
}

fn same_key(old: &Row, new: &Row, key: &[usize]) -> bool {
    key.iter().all(|at| old.value(*at) == new.value(*at))
}

/// Appends the `put` operation of a row.
///
/// # Errors
/// If it holds a value that no client can be sent.
pub(super) fn push_put(text: &mut String, table: &Table, row: &Row) -> Result<(), EncodeError> {
    text.push_str(r#"{"op":"put","tableName":"#);
    push_string(text, &table.name);
    text.push_str(r#","value":"#);
    push_columns(text, table, row, 0..table.columns.len())?;
    text.push('}');
    Ok(())
}

/// A row as a JSON object.
///
/// # Errors
/// If it holds a value that no client can be sent.
pub fn encode_row(table: &Table, row: &Row) -> Result<String, EncodeError> {
    let mut text = String::with_capacity(24 * table.columns.len());
    push_columns(&mut text, table, row, 0..table.columns.len())?;
    Ok(text)
}

/// The `del` operation of a row with these key columns.
///
/// # Errors
/// If the key holds a value that no client can be sent.
pub fn encode_del(table: &Table, key: &[usize], row: &Row) -> Result<String, EncodeError> {
    let mut text = String::with_capacity(96);
    text.push_str(r#"{"op":"del","tableName":"#);
    push_string(&mut text, &table.name);
    text.push_str(r#","id":"#);
    push_columns(&mut text, table, row, key.iter().copied())?;
    text.push('}');
    Ok(text)
}

fn push_columns(
    text: &mut String,
    table: &Table,
    row: &Row,
    columns: impl Iterator<Item = usize>,
) -> Result<(), EncodeError> {
    text.push('{');
    let mut first = true;
    for at in columns {
        let Some(column) = table.columns.get(at) else {
            continue;
        };
        if !first {
            text.push(',');
        }
        first = false;
        push_string(text, &column.name);
        text.push(':');
        push_value(text, row.value(at))
            .map_err(|error| error.in_column(&table.name, &column.name))?;
    }
    text.push('}');
    Ok(())
}

fn text_of(table: &Table, row: &Row, column: &str) -> Option<Arc<str>> {
    row.value(table.column(column)?).as_str().map(Arc::from)
}

fn number_of(table: &Table, row: &Row, column: &str) -> Option<u64> {
    let number = row.value(table.column(column)?).as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    (0.0..=9_007_199_254_740_991.0)
        .contains(&number)
        .then_some(number as u64)
}

fn last_mutation_id(table: &Table) -> impl Fn(&Row) -> Option<(Arc<str>, u64)> {
    move |row| {
        Some((
            text_of(table, row, "clientID")?,
            number_of(table, row, "lastMutationID")?,
        ))
    }
}

/// The client whose last mutation id fell, if it did.
pub fn fallen(table: &Table, change: &RowDelta) -> Option<Arc<str>> {
    let id = |row: &Option<Row>| row.as_ref().and_then(last_mutation_id(table));
    let (client, before) = id(&change.old)?;
    let now = id(&change.new).map_or(0, |(_, now)| now);
    (now < before).then_some(client)
}

fn mutation_op(table: &Table, change: &RowDelta) -> Result<Option<String>, EncodeError> {
    let Some(row) = change.new.as_ref().or(change.old.as_ref()) else {
        return Ok(None);
    };
    let client = text_of(table, row, "clientID");
    let (Some(client), Some(number)) = (client, number_of(table, row, "mutationID")) else {
        return Ok(None);
    };
    let mut id = String::from(r#"{"clientID":"#);
    push_string(&mut id, &client);
    let _ = write!(id, r#","id":{number}}}"#);
    if change.new.is_none() {
        return Ok(Some(format!(r#"{{"op":"del","id":{id}}}"#)));
    }
    let mut result = String::new();
    let value = table
        .column("result")
        .map_or(ValueRef::Null, |at| row.value(at));
    push_value(&mut result, value)?;
    Ok(Some(format!(
        r#"{{"op":"put","mutation":{{"id":{id},"result":{result}}}}}"#
    )))
}
