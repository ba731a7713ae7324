//! What is kept of a plan between two versions: numbers of rows and places in windows, never rows.

mod members;
mod names;
mod packing;
mod partitions;
mod places;
mod window;

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_protocol::{Value, Version};
use kelvin_storage::{Row, RowId, TableId, View};

use crate::budget::{Budget, Meter};
use crate::hydrate::hydrate;
use crate::plan::Plan;
use crate::plan::node::NodeId;
use crate::reader::Reader;
use crate::{ChangeSet, Error, PlanDelta};

pub(crate) use members::Members;
pub(crate) use partitions::{Partition, Partitions, refs};
pub(crate) use window::{Filling, Spot, Window};

/// A plan's view at one version, ready to be brought to the next.
///
/// # Invariants
/// * The members are exactly the rows that [`evaluate`](crate::evaluate) yields at
///   [`version`](Self::version).
/// * A partition is held if and only if a member row refers to it (the root's always is).
#[derive(Clone, Debug)]
pub struct PlanState {
    plan: Arc<Plan>,
    version: Version,
    /// The live partitions of each node.
    pub(crate) nodes: Vec<Partitions>,
    pub(crate) members: Members,
    /// Rows the last step examined.
    pub(crate) examined: u64,
    /// Whether an advance failed half way.
    broken: bool,
}

impl PlanState {
    /// Evaluates the plan at the view's version, handing each distinct row of it to `sink`, and
    /// keeps what is needed to go on from there.
    ///
    /// # Errors
    /// [`Budget`](crate::ErrorKind::Budget) or [`Stopped`](crate::ErrorKind::Stopped) where the
    /// budget or the sink ended it, [`Storage`](crate::ErrorKind::Storage) where a read failed.
    pub fn hydrate(
        plan: Arc<Plan>,
        view: &View,
        budget: &Budget,
        sink: &mut dyn FnMut(TableId, &Row) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let meter = Meter::new(budget);
        let reader = Reader::new(&plan, view, &meter);
        let (nodes, mut members) = hydrate(&plan, &reader, true, sink)?;
        members.shrink_to_fit();
        Ok(Self {
            plan,
            version: view.version(),
            nodes,
            members,
            examined: meter.examined(),
            broken: false,
        })
    }

    /// Brings the state from the version before `changes` to the version after them and says what
    /// that did to the view: net, each row once.
    ///
    /// `before` and `after` are views at exactly these versions. The state may be at an older
    /// version than `before` if nothing in between concerned the plan, as the
    /// [`Router`](crate::Router) tells.
    ///
    /// # Errors
    /// [`Stale`](crate::ErrorKind::Stale) where versions do not fit or an earlier advance failed;
    /// [`Storage`](crate::ErrorKind::Storage) where a read failed. After any error the state is of
    /// no use and the plan has to be hydrated anew.
    pub fn advance(
        &mut self,
        changes: &ChangeSet,
        before: &View,
        after: &View,
    ) -> Result<PlanDelta, Error> {
        self.advance_within(changes, before, after, &Budget::unlimited())
    }

    /// [`advance`](Self::advance) within limits: a small change can concern very many rows.
    ///
    /// # Errors
    /// As `advance`, and [`Budget`](crate::ErrorKind::Budget) or
    /// [`Stopped`](crate::ErrorKind::Stopped) where the budget ended it.
    pub fn advance_within(
        &mut self,
        changes: &ChangeSet,
        before: &View,
        after: &View,
        budget: &Budget,
    ) -> Result<PlanDelta, Error> {
        let stale = |problem| Error::Stale {
            state: self.version,
            from: changes.from(),
            to: changes.version(),
            problem,
        };
        if changes.from() < self.version {
            return Err(stale("the changes are older than the state"));
        }
        self.step(changes, (before, after), budget)
    }

    /// Takes the state back from the version after changes to the version before them: the opposite
    /// of [`advance`](Self::advance), for which `changes` are [reversed](ChangeSet::reversed). The
    /// delta is reversed, too: its `old` sides are those of `newer`.
    ///
    /// The state may be at another version than `newer`, on either side of it, if nothing in
    /// between concerned the plan.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn rewind(
        &mut self,
        changes: &ChangeSet,
        newer: &View,
        older: &View,
    ) -> Result<PlanDelta, Error> {
        self.step(changes, (newer, older), &Budget::unlimited())
    }

    fn step(
        &mut self,
        changes: &ChangeSet,
        (before, after): (&View, &View),
        budget: &Budget,
    ) -> Result<PlanDelta, Error> {
        let stale = |problem| Error::Stale {
            state: self.version,
            from: changes.from(),
            to: changes.version(),
            problem,
        };
        if self.broken {
            return Err(stale("an earlier advance failed"));
        }
        if before.version() != changes.from() || after.version() != changes.version() {
            return Err(stale("the views are not at the versions of the changes"));
        }
        self.broken = true;
        let plan = self.plan.clone();
        let delta = crate::advance::advance(&plan, self, changes, (before, after), budget)?;
        self.broken = false;
        self.version = changes.version();
        Ok(delta)
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The version the state is at.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the row is in the view.
    #[must_use]
    pub fn contains(&self, table: TableId, id: RowId) -> bool {
        self.members.count(table, id) > 0
    }

    /// Distinct rows in the view.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.members.len()
    }

    /// Rows of the replica that the hydration or the last advance examined: what it cost.
    #[must_use]
    pub fn examined(&self) -> u64 {
        self.examined
    }

    /// Where what is known of the root's window ends, in the first column of its order, if there
    /// may be rows behind it.
    pub(crate) fn window_end(&self) -> Option<Value> {
        let limit = self.plan.node(NodeId::ROOT).limit?;
        let end = self.nodes.first()?.window(&[])?.end(limit)?;
        end.place.first().cloned()
    }

    /// Numbers of the rows in the view, by table.
    pub fn rows(&self) -> impl Iterator<Item = (TableId, &roaring::RoaringBitmap)> + '_ {
        self.members.tables()
    }
}
