//! Bringing a client from its cookie to the group's state: the difference of two evaluations.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{Budget, Plan, PlanDelta, PlanId, RowDelta, evaluate};
use kelvin_protocol::{Value, Version};
use kelvin_storage::{Replica, Row, Table, TableId};
use roaring::RoaringBitmap;

use super::poke::PokeBody;
use crate::engine::SnapshotCache;

/// Plans at one version.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The plans.
    pub plans: Vec<Arc<Plan>>,
    /// The version.
    pub version: Version,
}

/// Why a difference could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The replica no longer has one of the versions, or cannot be read.
    #[error(transparent)]
    Storage(#[from] kelvin_storage::Error),
    /// One of these plans fails; the others are sound.
    #[error("{message}")]
    Plan {
        /// The plan.
        plan: PlanId,
        /// Why, for the application's developer.
        message: String,
    },
}

/// Evaluates plans and encodes what clients need of them. Blocks: for worker threads.
pub struct RowReader {
    /// Where the rows are.
    pub replica: Replica,
    /// Encoded results that groups share.
    pub snapshots: Arc<SnapshotCache>,
    /// What one evaluation may cost.
    pub budget: Arc<dyn Fn() -> Budget + Send + Sync>,
}

type RowKey = (TableId, Vec<Value>);

impl RowReader {
    /// The whole answer of `plans` at `version`, each with the version since which it is unchanged.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub fn whole(
        &self,
        plans: &[(Arc<Plan>, Version)],
        version: Version,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        if plans.is_empty() {
            return Ok(());
        }
        let view = self.replica.at(version)?;
        for (plan, unchanged_since) in plans {
            let snapshot = self
                .snapshots
                .get(plan, &view, *unchanged_since, &(self.budget)())
                .map_err(|message| CatchUpError::Plan {
                    plan: plan.id(),
                    message,
                })?;
            body.add_plan(&snapshot.patch);
        }
        Ok(())
    }

    /// Deletions of the rows of `plans` at `version` whose numbers are in `gone`.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub fn removals(
        &self,
        plans: &[Arc<Plan>],
        gone: &[(TableId, RoaringBitmap)],
        version: Version,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        let (Some(first), false) = (plans.first(), gone.is_empty()) else {
            return Ok(());
        };
        let gone: HashMap<TableId, &RoaringBitmap> =
            gone.iter().map(|(table, rows)| (*table, rows)).collect();
        let mut left: HashMap<(TableId, u32), Row> = HashMap::new();
        for plan in plans {
            self.each_row(plan, version, |table, row| {
                if gone
                    .get(&table.id)
                    .is_some_and(|rows| rows.contains(row.id))
                {
                    left.insert((table.id, row.id), row.clone());
                }
            })?;
        }
        let rows = left.into_iter().map(|((table, _), row)| RowDelta {
            table,
            old: Some(row),
            new: None,
        });
        self.encode(first, rows.collect(), body)
    }

    /// What turns the answers of `old` into the answers of `new`.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub fn difference(
        &self,
        old: &Held,
        new: &Held,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        let Some(any) = new.plans.first().or(old.plans.first()) else {
            return Ok(());
        };
        let mut before: HashMap<RowKey, Row> = HashMap::new();
        for plan in &old.plans {
            self.each_row(plan, old.version, |table, row| {
                before.insert(key_of(plan, table, row), row.clone());
            })?;
        }
        let mut after: HashMap<RowKey, Option<Row>> = HashMap::new();
        for plan in &new.plans {
            self.each_row(plan, new.version, |table, row| {
                let key = key_of(plan, table, row);
                // A row version is written once: the same version is the same content.
                let known = before
                    .get(&key)
                    .is_some_and(|held| held.version == row.version);
                after
                    .entry(key)
                    .or_insert_with(|| (!known).then(|| row.clone()));
            })?;
        }
        let mut rows = Vec::new();
        for ((table, key), row) in before {
            if !after.contains_key(&(table, key)) {
                rows.push(RowDelta {
                    table,
                    old: Some(row),
                    new: None,
                });
            }
        }
        for ((table, _), row) in after {
            if let Some(row) = row {
                rows.push(RowDelta {
                    table,
                    old: None,
                    new: Some(row),
                });
            }
        }
        self.encode(any, rows, body)
    }

    fn each_row(
        &self,
        plan: &Plan,
        version: Version,
        mut visit: impl FnMut(&Table, &Row),
    ) -> Result<(), CatchUpError> {
        let view = self.replica.at(version)?;
        let catalog = Arc::clone(view.catalog());
        let mut sink = |table: TableId, row: &Row| {
            if let Some(table) = catalog.table_by_id(table) {
                visit(table, row);
            }
            ControlFlow::Continue(())
        };
        evaluate(plan, &view, &(self.budget)(), &mut sink).map_err(|error| CatchUpError::Plan {
            plan: plan.id(),
            message: error.to_string(),
        })
    }

    fn encode(
        &self,
        plan: &Plan,
        rows: Vec<RowDelta>,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        let encoder = self.snapshots.encoder();
        let delta = PlanDelta { rows };
        let patch = encoder
            .encode(plan, &delta, &mut crate::engine::EncodedRows::default())
            .map_err(|e| CatchUpError::Plan {
                plan: plan.id(),
                message: e.to_string(),
            })?;
        body.add_plan(&patch);
        body.dels
            .extend(patch.left.iter().map(|(_, _, del)| Arc::clone(del)));
        Ok(())
    }
}

fn key_of(plan: &Plan, table: &Table, row: &Row) -> RowKey {
    (table.id, row.project(plan.client_key(table)))
}
