//! From the view at one version to the view at the next.
//!
//! Two passes over the nodes. Bottom-up, [`candidates`] finds the rows that may enter or leave a
//! node: those that were written, and those whose EXISTS changed its truth. Top-down, the live
//! partitions with candidates are compared before and after, and what enters or leaves moves the
//! references to partitions below; [`window`] does so for limited partitions. Everything is counted
//! in [`touches`] and comes out as one net delta.

mod candidates;
mod nodes;
mod touches;
mod window;

use kelvin_storage::{Row, TableId, View};

use crate::budget::{Budget, Meter};
use crate::plan::Plan;
use crate::reader::Reader;
use crate::state::PlanState;
use crate::{ChangeSet, Error};

use self::candidates::Candidates;
use self::nodes::Pass;

/// What a step did to a view: net, each row once, in the order of tables and row numbers.
#[derive(Clone, Debug, Default)]
pub struct PlanDelta {
    /// The rows.
    pub rows: Vec<RowDelta>,
}

impl PlanDelta {
    /// Whether the view is as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// One row that entered, left or changed within a view. At least one side is there; both have the
/// same key. A side says that the row was, or is, in the view, not merely in the database.
#[derive(Clone, Debug)]
pub struct RowDelta {
    /// The table.
    pub table: TableId,
    /// The row before, if it was in the view.
    pub old: Option<Row>,
    /// The row now, if it is in the view.
    pub new: Option<Row>,
}

pub(crate) fn advance(
    plan: &Plan,
    state: &mut PlanState,
    changes: &ChangeSet,
    (before, after): (&View, &View),
    budget: &Budget,
) -> Result<PlanDelta, Error> {
    let meter = Meter::new(budget);
    let before = Reader::new(plan, before, &meter);
    let after = Reader::new(plan, after, &meter);
    let step = Step {
        plan,
        changes,
        before: &before,
        after: &after,
    };
    let candidates = Candidates::find(&step, state)?;
    let mut pass = Pass::new(&step, &candidates);
    for id in plan.ids() {
        pass.node(id, state)?;
    }
    let rows = pass.touches.settle(plan, changes, &mut state.members);
    state.examined = meter.examined();
    Ok(PlanDelta { rows })
}

/// What one advance is about.
struct Step<'a> {
    plan: &'a Plan,
    changes: &'a ChangeSet,
    before: &'a Reader<'a>,
    after: &'a Reader<'a>,
}
