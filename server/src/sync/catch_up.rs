//! Bringing a client from its cookie to the group's state: the difference of two evaluations.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{Budget, Plan, PlanDelta, PlanId, RowDelta, evaluate};
use kelvin_protocol::{Value, Version};
use kelvin_storage::{Catalog, Column, Replica, Row, Table, TableId};
use roaring::RoaringBitmap;

use super::poke::PokeBody;
use crate::engine::{EncodedRows, SnapshotCache, fallen};

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
    /// A plan was compiled for another form of a table than the one at the version.
    #[error("the schema changed meanwhile")]
    Stale,
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
            if !plan.is_current(view.catalog()) {
                return Err(CatchUpError::Stale);
            }
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
        if plans.is_empty() || gone.is_empty() {
            return Ok(());
        }
        let gone: HashMap<TableId, &RoaringBitmap> =
            gone.iter().map(|(table, rows)| (*table, rows)).collect();
        let mut left: HashMap<(TableId, u32), (usize, Row)> = HashMap::new();
        for (number, plan) in plans.iter().enumerate() {
            self.each_row(plan, version, |table, row| {
                if gone
                    .get(&table.id)
                    .is_some_and(|rows| rows.contains(row.id))
                {
                    left.insert((table.id, row.id), (number, row.clone()));
                }
            })?;
        }
        let rows = left.into_iter().map(|((table, _), (plan, row))| {
            let delta = RowDelta {
                table,
                old: Some(row),
                new: None,
            };
            (plan, delta)
        });
        let held = Held {
            plans: plans.to_vec(),
            version,
        };
        self.encode(&held, rows, body)
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
        let (then, now) = (self.catalog(old)?, self.catalog(new)?);
        let mut before: HashMap<RowKey, (usize, Row)> = HashMap::new();
        for (number, plan) in old.plans.iter().enumerate() {
            self.each_row(plan, old.version, |table, row| {
                before.insert(key_of(plan, table, row), (number, row.clone()));
            })?;
        }
        let mut after: HashMap<RowKey, Option<(usize, Row)>> = HashMap::new();
        for (number, plan) in new.plans.iter().enumerate() {
            let tables = plan.tables().into_iter();
            let alike: HashSet<TableId> =
                tables.filter(|id| reads_alike(*id, &then, &now)).collect();
            self.each_row(plan, new.version, |table, row| {
                let key = key_of(plan, table, row);
                // A row version is written once: the same version is the same content, unless the
                // table has other columns now.
                let known = alike.contains(&table.id)
                    && before
                        .get(&key)
                        .is_some_and(|(_, held)| held.version == row.version);
                after
                    .entry(key)
                    .or_insert_with(|| (!known).then(|| (number, row.clone())));
            })?;
        }
        self.find_fallen(&before, &after, &now, body);
        before.retain(|key, _| !after.contains_key(key));
        let left = before.into_iter().map(|((table, _), (plan, row))| {
            let delta = RowDelta {
                table,
                old: Some(row),
                new: None,
            };
            (plan, delta)
        });
        self.encode(old, left, body)?;
        let come = after.into_iter().filter_map(|((table, _), row)| {
            let (plan, row) = row?;
            let delta = RowDelta {
                table,
                old: None,
                new: Some(row),
            };
            Some((plan, delta))
        });
        self.encode(new, come, body)
    }

    /// Notes the clients whose last mutation id fell.
    fn find_fallen(
        &self,
        before: &HashMap<RowKey, (usize, Row)>,
        after: &HashMap<RowKey, Option<(usize, Row)>>,
        now: &Catalog,
        body: &mut PokeBody,
    ) {
        let clients = self.snapshots.encoder().internal().clients;
        let table = clients.and_then(|id| now.table_by_id(id));
        let Some(table) = table else { return };
        for (key, (_, held)) in before.iter().filter(|(key, _)| key.0 == table.id) {
            let new = match after.get(key) {
                // It is the same.
                Some(None) => continue,
                Some(Some((_, row))) => Some(row.clone()),
                None => None,
            };
            let change = RowDelta {
                table: table.id,
                old: Some(held.clone()),
                new,
            };
            body.fallen.extend(fallen(table, &change));
        }
    }

    /// The catalog that the rows of `held` are read by.
    fn catalog(&self, held: &Held) -> Result<Arc<Catalog>, CatchUpError> {
        if held.plans.is_empty() {
            return Ok(Arc::default());
        }
        Ok(Arc::clone(self.replica.at(held.version)?.catalog()))
    }

    fn each_row(
        &self,
        plan: &Plan,
        version: Version,
        mut visit: impl FnMut(&Table, &Row),
    ) -> Result<(), CatchUpError> {
        let view = self.replica.at(version)?;
        let catalog = Arc::clone(view.catalog());
        if !plan.is_current(&catalog) {
            return Err(CatchUpError::Stale);
        }
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
        held: &Held,
        rows: impl Iterator<Item = (usize, RowDelta)>,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        let mut by_plan: HashMap<usize, PlanDelta> = HashMap::new();
        for (plan, delta) in rows {
            by_plan.entry(plan).or_default().rows.push(delta);
        }
        let (encoder, catalog) = (self.snapshots.encoder(), self.catalog(held)?);
        let mut encoded = EncodedRows::default();
        for (number, plan) in held.plans.iter().enumerate() {
            let Some(delta) = by_plan.get(&number) else {
                continue;
            };
            let patch = encoder
                .encode(plan, delta, &catalog, &mut encoded)
                .map_err(|e| CatchUpError::Plan {
                    plan: plan.id(),
                    message: e.to_string(),
                })?;
            body.add_plan(&patch);
            body.dels
                .extend(patch.left.iter().map(|(_, _, del)| Arc::clone(del)));
        }
        Ok(())
    }
}

/// Whether rows of a table mean the same to clients in both catalogs.
fn reads_alike(id: TableId, then: &Catalog, now: &Catalog) -> bool {
    let (Some(then), Some(now)) = (then.table_by_id(id), now.table_by_id(id)) else {
        return false;
    };
    let same = |(then, now): (&Column, &Column)| {
        (&then.name, then.attnum, then.type_oid) == (&now.name, now.attnum, now.type_oid)
    };
    Arc::ptr_eq(then, now)
        || (then.name == now.name
            && then.columns.len() == now.columns.len()
            && then.columns.iter().zip(&now.columns).all(same))
}

fn key_of(plan: &Plan, table: &Table, row: &Row) -> RowKey {
    (table.id, row.project(plan.client_key(table)))
}
