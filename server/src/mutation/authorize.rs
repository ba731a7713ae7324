//! Write permissions, judged by the upstream database within the mutation's transaction.

use kelvin_protocol::{Condition, CrudOpKind};
use kelvin_storage::Catalog;
use tokio_postgres::Transaction;

use super::condition::ConditionCompiler;
use super::failure::Abort;
use super::operation::Operation;
use crate::permissions::{AuthData, PermissionAsset, Permissions, Policy, bind_condition};

/// When a rule is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before any operation of the mutation.
    Before,
    /// After all of them.
    After,
}

/// Judges the operations of one mutation.
pub(super) struct Authorizer<'a> {
    pub(super) permissions: &'a Permissions,
    pub(super) claims: AuthData<'a>,
    pub(super) catalog: &'a Catalog,
}

/// What an operation is for its rules: an upsert is an insert or an update.
pub(super) struct Judged<'a> {
    pub(super) operation: Operation<'a>,
    pub(super) acts_as: CrudOpKind,
}

impl Authorizer<'_> {
    /// Whether `judged` is allowed in this phase.
    pub(super) async fn allows(
        &self,
        transaction: &Transaction<'_>,
        judged: &Judged<'_>,
        phase: Phase,
    ) -> Result<bool, Abort> {
        let Some(policies) = self.policies(judged, phase) else {
            return Ok(false);
        };
        if policies.is_empty() {
            return Ok(true);
        }
        let bound = policies.into_iter();
        let conditions = bound
            .map(|policy| bind_condition(policy.condition(), self.claims))
            .collect();
        let mut statement = judged.operation.row_exists();
        statement.push(" AND ");
        let condition = Condition::And { conditions };
        ConditionCompiler::new(self.catalog)
            .compile(&condition, judged.operation.table, "t", &mut statement)
            .map_err(Abort::Rejected)?;
        statement.push(")");
        let row = transaction
            .query_typed_one(&statement.text, &statement.bound())
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The policies that all have to hold; `None` if the operation is denied without asking: a row
    /// needs a policy, a single column only has one where somebody restricts it.
    fn policies(&self, judged: &Judged<'_>, phase: Phase) -> Option<Vec<&Policy>> {
        let pick: fn(&PermissionAsset) -> Option<&Policy> = match (judged.acts_as, phase) {
            (CrudOpKind::Insert, Phase::After) => |asset| asset.insert.as_ref(),
            (CrudOpKind::Delete, Phase::Before) => |asset| asset.delete.as_ref(),
            (CrudOpKind::Update, Phase::Before) => {
                |asset| asset.update.as_ref()?.pre_mutation.as_ref()
            }
            (CrudOpKind::Update, Phase::After) => {
                |asset| asset.update.as_ref()?.post_mutation.as_ref()
            }
            // Nothing to judge in this phase.
            _ => return Some(Vec::new()),
        };
        let table = &judged.operation.table.name;
        let mut policies = vec![pick(self.permissions.row(table)?)?];
        for (column, asset) in self.permissions.cells(table) {
            let concerned =
                judged.acts_as != CrudOpKind::Update || judged.operation.columns.contains(&column);
            policies.extend(pick(asset).filter(|_| concerned));
        }
        Some(policies)
    }
}
