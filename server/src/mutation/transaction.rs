//! One attempt at one mutation: one transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use kelvin_protocol::{CrudArg, CrudOp, CrudOpKind};
use kelvin_storage::Catalog;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::authorize::{Authorizer, Judged, Phase};
use super::crud::CrudRequest;
use super::failure::{Abort, Executed};
use super::operation::{Operation, column_types};
use super::sql::{Param, Statement, identifier, qualified};
use crate::config::AppId;
use crate::permissions::Permissions;

/// What is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The whole mutation.
    Whole,
    /// Only its id advances, because the rest has failed.
    IdOnly,
}

/// What every transaction has in common.
pub(super) struct Statements {
    advance_id: String,
    load_permissions: String,
    permissions: Mutex<Option<(String, Arc<Permissions>)>>,
}

impl Statements {
    pub(super) fn new(app: &AppId) -> Self {
        let clients = qualified(&app.shard_schema(), "clients");
        Self {
            advance_id: format!(
                "INSERT INTO {clients} AS current \
                 (\"clientGroupID\", \"clientID\", \"lastMutationID\") VALUES ($1, $2, 1) \
                 ON CONFLICT (\"clientGroupID\", \"clientID\") DO UPDATE \
                 SET \"lastMutationID\" = current.\"lastMutationID\" + 1 \
                 RETURNING \"lastMutationID\""
            ),
            load_permissions: format!(
                "SELECT hash, CASE WHEN hash IS DISTINCT FROM $1 THEN permissions::text END \
                 FROM {}.permissions",
                identifier(&app.id)
            ),
            permissions: Mutex::default(),
        }
    }

    /// Runs one attempt. Unless it returns `Ok`, the transaction was rolled back, or its connection
    /// broke and nobody knows; then the client's id will tell.
    pub(super) async fn run(
        &self,
        client: &mut Client,
        request: &CrudRequest<'_>,
        mode: Mode,
    ) -> Result<Executed, Abort> {
        let builder = client.build_transaction();
        // Dropping it rolls back, also where this future is dropped.
        let mut transaction = builder
            .isolation_level(IsolationLevel::Serializable)
            .start()
            .await?;
        let expected = self.advance_id(&transaction, request).await?;
        let received = i64::try_from(request.mutation.id).unwrap_or(i64::MAX);
        if received < expected {
            transaction.rollback().await?;
            return Ok(Executed::AlreadyProcessed);
        }
        if received > expected {
            transaction.rollback().await?;
            return Err(Abort::OutOfOrder(expected));
        }
        let outcome = match mode {
            Mode::IdOnly => Executed::Applied,
            Mode::Whole => self.execute(&mut transaction, request).await?,
        };
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Advances the client's id; returns where it stands then.
    async fn advance_id(
        &self,
        transaction: &Transaction<'_>,
        request: &CrudRequest<'_>,
    ) -> Result<i64, Abort> {
        let mut statement = Statement::default();
        statement.param(Param::Text(request.client_group_id.to_owned()));
        statement.param(Param::Text(request.mutation.client_id.clone()));
        let row = transaction
            .query_typed_one(&self.advance_id, &statement.bound())
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn execute(
        &self,
        transaction: &mut Transaction<'_>,
        request: &CrudRequest<'_>,
    ) -> Result<Executed, Abort> {
        let reject = |message: String| Abort::Rejected(message);
        let [arg] = request.mutation.args.as_slice() else {
            return Err(reject(
                "A CRUD mutation has exactly one argument.".to_owned(),
            ));
        };
        let arg: CrudArg = serde_json::from_str(arg.get())
            .map_err(|error| reject(format!("The CRUD argument cannot be read: {error}")))?;
        let permissions = self.permissions(transaction).await?;
        let authorizer = Authorizer {
            permissions: &permissions,
            claims: request.claims,
            catalog: request.catalog,
        };
        let operations = prepare(transaction, &arg.ops, request.catalog).await?;
        // INVARIANT: every rule about rows as they were is judged before any of them changes.
        for operation in &operations {
            if !authorizer
                .allows(transaction, operation, Phase::Before)
                .await?
            {
                return Ok(Executed::Denied);
            }
        }
        let savepoint = transaction.transaction().await?;
        for judged in &operations {
            let statement = judged.operation.statement();
            savepoint
                .execute_typed(&statement.text, &statement.bound())
                .await?;
        }
        for operation in &operations {
            if !authorizer
                .allows(&savepoint, operation, Phase::After)
                .await?
            {
                savepoint.rollback().await?;
                return Ok(Executed::Denied);
            }
        }
        savepoint.commit().await?;
        Ok(Executed::Applied)
    }

    /// The permissions as deployed, read anew when their hash has changed.
    async fn permissions(&self, transaction: &Transaction<'_>) -> Result<Arc<Permissions>, Abort> {
        let known = {
            let cached = self
                .permissions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            cached.clone()
        };
        let mut statement = Statement::default();
        let hash = known
            .as_ref()
            .map(|(hash, _)| hash.clone())
            .unwrap_or_default();
        statement.param(Param::Text(hash));
        let found = transaction
            .query_typed_opt(&self.load_permissions, &statement.bound())
            .await?;
        let (hash, json): (Option<String>, Option<String>) = match found {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (None, None),
        };
        if let Some((known_hash, permissions)) = known
            && hash.as_ref() == Some(&known_hash)
        {
            return Ok(permissions);
        }
        let parsed = Permissions::parse(json.as_deref());
        let parsed = Arc::new(parsed.map_err(|error| Abort::Rejected(error.to_string()))?);
        if let Some(hash) = hash {
            let mut cached = self
                .permissions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *cached = Some((hash, Arc::clone(&parsed)));
        }
        Ok(parsed)
    }
}

/// Checks the operations and finds out what each upsert is.
async fn prepare<'a>(
    transaction: &Transaction<'_>,
    ops: &'a [CrudOp],
    catalog: &'a Catalog,
) -> Result<Vec<Judged<'a>>, Abort> {
    let mut types = HashMap::new();
    let mut prepared = Vec::with_capacity(ops.len());
    for op in ops {
        let table = Operation::table_of(op, catalog).map_err(Abort::Rejected)?;
        let types = match types.entry(table.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(column_types(transaction, table).await?),
        };
        let operation = Operation::new(op, table, types).map_err(Abort::Rejected)?;
        let acts_as = match op.op {
            CrudOpKind::Upsert => {
                let mut exists = operation.row_exists();
                exists.push(")");
                let row = transaction
                    .query_typed_one(&exists.text, &exists.bound())
                    .await?;
                match row.try_get(0)? {
                    true => CrudOpKind::Update,
                    false => CrudOpKind::Insert,
                }
            }
            other => other,
        };
        prepared.push(Judged { operation, acts_as });
    }
    Ok(prepared)
}
