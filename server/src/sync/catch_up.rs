//! Bringing a client from its cookie to the group's state: the difference of two evaluations, or
//! what the delta logs say happened in between.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{Budget, Plan, PlanDelta, PlanId, RowDelta, RowKey, evaluate};
use kelvin_protocol::{Value, Version};
use kelvin_storage::{Catalog, Column, Replica, Row, Table, TableId};
use roaring::RoaringBitmap;

use super::followed::{Followed, Holders};
use super::poke::PokeBody;
use crate::engine::{EncodedRows, SnapshotCache, fallen};

pub use super::followed::{Pasts, question};

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

/// A row, and the number of a plan that has it.
type HeldRow = (usize, Arc<Table>, Row);

/// A table, and the values of the key that clients know its rows by.
type RowKeyOfClient = (TableId, Vec<Value>);

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
        let mut answers = Vec::new();
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
            answers.push(snapshot);
        }
        body.add_plans(answers.iter().map(|answer| &answer.patch));
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

    /// What turns the answers of `old` into the answers of `new`. Plans whose past is in `pasts`
    /// are followed: that costs what changed in them. The others are evaluated at both versions.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub fn difference(
        &self,
        old: &Held,
        new: &Held,
        pasts: &Pasts,
        body: &mut PokeBody,
    ) -> Result<(), CatchUpError> {
        let mut rows = Difference::new(self.catalog(old)?, self.catalog(new)?);
        let evaluated = |(_, plan): &(usize, &Arc<Plan>)| !pasts.contains_key(&plan.id());
        for (number, plan) in old.plans.iter().enumerate().filter(evaluated) {
            self.each_row(plan, old.version, |table, row| {
                rows.held(plan, number, table, row);
            })?;
        }
        let followed = Followed::new(pasts, new.version);
        let touched = followed.touched();
        let entered = self.read_touched(old, new, &touched, &mut rows)?;
        for (number, plan) in new.plans.iter().enumerate().filter(evaluated) {
            self.each_row(plan, new.version, |table, row| {
                rows.holds(plan, number, table, row);
            })?;
        }
        let Some(entered) = entered else {
            tracing::error!("a delta log names rows that are not there; evaluating instead");
            return self.difference(old, new, &Pasts::new(), body);
        };
        for (number, table, row) in entered {
            if let Some(plan) = new.plans.get(number) {
                rows.holds(plan, number, &table, &row);
            }
        }
        self.find_fallen(&rows, &followed, body);
        rows.settle(&followed);
        let (left, come) = rows.sides();
        self.encode(old, left, body)?;
        self.encode(new, come, body)
    }

    /// Notes the clients whose last mutation id fell.
    fn find_fallen(&self, rows: &Difference, followed: &Followed<'_>, body: &mut PokeBody) {
        let clients = self.snapshots.encoder().internal().clients;
        let table = clients.and_then(|id| rows.now.table_by_id(id));
        if let Some(table) = table {
            let changes = rows.changes_of_held(table.id, followed);
            body.fallen
                .extend(changes.filter_map(|change| fallen(table, &change)));
        }
    }

    /// Reads the rows that followed plans held, into `rows`, and those that they hold. `None` where
    /// one that has to be there is not.
    fn read_touched(
        &self,
        old: &Held,
        new: &Held,
        touched: &HashMap<(TableId, &RowKey), Holders>,
        rows: &mut Difference,
    ) -> Result<Option<Vec<HeldRow>>, CatchUpError> {
        let mut entered = Vec::new();
        if touched.is_empty() {
            return Ok(Some(entered));
        }
        let (then, now) = (self.replica.at(old.version)?, self.replica.at(new.version)?);
        let number = |held: &Held, id: PlanId| held.plans.iter().position(|plan| plan.id() == id);
        for ((table, key), holders) in touched {
            if let Some(id) = holders.was {
                let (row, at) = (then.get(*table, key)?, number(old, id));
                let known = then.catalog().table_by_id(*table).zip(row).zip(at);
                let Some(((table, row), at)) = known else {
                    return Ok(None);
                };
                if let Some(plan) = old.plans.get(at) {
                    rows.held(plan, at, table, &row);
                }
            }
            if let Some(id) = holders.is {
                let (row, at) = (now.get(*table, key)?, number(new, id));
                let known = now.catalog().table_by_id(*table).zip(row).zip(at);
                let Some(((table, row), at)) = known else {
                    return Ok(None);
                };
                entered.push((at, Arc::clone(table), row));
            }
        }
        Ok(Some(entered))
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

/// The rows by which the answers of two sets of plans may differ, by the key that clients know.
struct Difference {
    then: Arc<Catalog>,
    now: Arc<Catalog>,
    /// See [`reads_alike`].
    alike: HashMap<TableId, bool>,
    /// Of the older answers: the row, and which plan has it.
    before: HashMap<RowKeyOfClient, (usize, Row)>,
    /// Of the newer answers; `None` for a row that clients have as it is.
    after: HashMap<RowKeyOfClient, Option<(usize, Row)>>,
}

impl Difference {
    fn new(then: Arc<Catalog>, now: Arc<Catalog>) -> Self {
        Self {
            then,
            now,
            alike: HashMap::new(),
            before: HashMap::new(),
            after: HashMap::new(),
        }
    }

    /// A row of the older answers.
    fn held(&mut self, plan: &Plan, number: usize, table: &Table, row: &Row) {
        self.before
            .insert(key_of(plan, table, row), (number, row.clone()));
    }

    /// A row of the newer answers. The older ones are complete.
    fn holds(&mut self, plan: &Plan, number: usize, table: &Table, row: &Row) {
        let key = key_of(plan, table, row);
        // A row version is written once: the same version is the same content, unless the table has
        // other columns now.
        let same = |(_, held): &(usize, Row)| held.version == row.version;
        let alike = || reads_alike(table.id, &self.then, &self.now);
        let known = self.before.get(&key).is_some_and(same)
            && *self.alike.entry(table.id).or_insert_with(alike);
        self.after
            .entry(key)
            .or_insert_with(|| (!known).then(|| (number, row.clone())));
    }

    /// What became of the rows of a table in the older answers, where it is not the same. Before it
    /// is settled.
    fn changes_of_held(
        &self,
        table: TableId,
        followed: &Followed<'_>,
    ) -> impl Iterator<Item = RowDelta> {
        let of_table = self.before.iter().filter(move |(key, _)| key.0 == table);
        of_table.filter_map(move |(key, (_, held))| {
            let new = match self.after.get(key) {
                Some(Some((_, row))) => Some(row.clone()),
                None if !stays(followed, &self.then, table, held) => None,
                _ => return None,
            };
            let old = Some(held.clone());
            Some(RowDelta { table, old, new })
        })
    }

    /// Leaves the rows that come and go. Some only seem to: a followed plan had them all the time.
    fn settle(&mut self, followed: &Followed<'_>) {
        let (before, after) = (&mut self.before, &mut self.after);
        for (key, come) in &mut *after {
            let seems =
                |row: &Row| !before.contains_key(key) && stays(followed, &self.now, key.0, row);
            drop(come.take_if(|(_, row)| seems(row)));
        }
        before.retain(|key, (_, row)| {
            !after.contains_key(key) && !stays(followed, &self.then, key.0, row)
        });
    }

    /// What left, and what entered or changed: each with the number of a plan that has it.
    fn sides(
        self,
    ) -> (
        impl Iterator<Item = (usize, RowDelta)>,
        impl Iterator<Item = (usize, RowDelta)>,
    ) {
        let left = self.before.into_iter().map(|((table, _), (plan, row))| {
            let (old, new) = (Some(row), None);
            (plan, RowDelta { table, old, new })
        });
        let come = self.after.into_iter().filter_map(|((table, _), row)| {
            let (plan, row) = row?;
            let (old, new) = (None, Some(row));
            Some((plan, RowDelta { table, old, new }))
        });
        (left, come)
    }
}

/// Whether a followed plan had the row all the time.
fn stays(followed: &Followed<'_>, catalog: &Catalog, id: TableId, row: &Row) -> bool {
    let table = catalog.table_by_id(id);
    table.is_some_and(|table| followed.stayed(table, row))
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

fn key_of(plan: &Plan, table: &Table, row: &Row) -> RowKeyOfClient {
    (table.id, row.project(plan.client_key(table)))
}
