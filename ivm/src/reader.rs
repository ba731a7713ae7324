//! Reads of a plan's nodes at one version.

mod dive;
mod drive;
mod gates;
mod partitions;
mod top;

use std::cell::RefCell;

use kelvin_protocol::{Direction, Value};
use kelvin_storage::{Row, Scan, Table, View};

use crate::Error;
use crate::access::{Path, choose};
use crate::budget::Meter;
use crate::explain::{Purpose, Trace};
use crate::plan::Plan;
use crate::plan::node::{Node, NodeId, Predicate};
use crate::reader::gates::Gate;
pub(crate) use crate::reader::partitions::Ahead;
use crate::state::Spot;

/// Evaluates the nodes of one plan at the version of one view.
pub(crate) struct Reader<'a> {
    plan: &'a Plan,
    view: &'a View,
    meter: &'a Meter,
    trace: Option<&'a Trace>,
    /// What is known of the gates' partitions, by node.
    gates: RefCell<Vec<Gate>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(plan: &'a Plan, view: &'a View, meter: &'a Meter) -> Self {
        Self {
            plan,
            view,
            meter,
            trace: None,
            gates: RefCell::new(vec![Gate::default(); plan.nodes().len()]),
        }
    }

    /// The same, noting what it reads.
    pub(crate) fn traced(mut self, trace: &'a Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Notes that a row of the node is in the view.
    pub(crate) fn note_kept(&self, node: NodeId) {
        if let Some(trace) = self.trace {
            trace.kept(node);
        }
    }

    /// Whether the row passes the node's start and condition, whatever its partition and the limit.
    pub(crate) fn passes(&self, node: &Node, row: &Row) -> Result<bool, Error> {
        if node.start.as_ref().is_some_and(|start| !start.admits(row)) {
            return Ok(false);
        }
        self.holds(&node.predicate, row)
    }

    fn holds(&self, predicate: &Predicate, row: &Row) -> Result<bool, Error> {
        match predicate {
            Predicate::Const(truth) => Ok(*truth),
            Predicate::Test { column, check } => Ok(check.holds(row.value(*column))),
            Predicate::All(members) => self.each_is(members, row, true),
            Predicate::Any(members) => Ok(!self.each_is(members, row, false)?),
            Predicate::Exists { gate, negated } => {
                let found = match self.plan.node(*gate).partition_of_parent(row) {
                    Some(partition) => self.exists(*gate, &partition)?,
                    None => false,
                };
                Ok(found != *negated)
            }
        }
    }

    fn each_is(&self, members: &[Predicate], row: &Row, truth: bool) -> Result<bool, Error> {
        for member in members {
            if self.holds(member, row)? != truth {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The row at a place in a window of the node that is the same at this version.
    pub(crate) fn row_at(&self, node: &Node, spot: &Spot) -> Result<Row, Error> {
        self.meter.count()?;
        let key = node.order.key_of(&spot.place);
        let row = self.view.get(node.table.id, &key)?;
        let version = self.view.version();
        row.ok_or(Error::Stale {
            state: version,
            from: version,
            to: version,
            problem: "a row of the view is not in the replica",
        })
    }

    /// The path for rows with known values in `columns` and in the node's fixed columns.
    ///
    /// Indexes come and go while a plan lives, so the view says which there are.
    fn path(&self, node: &Node, columns: &[usize], wanted: Option<&[(usize, Direction)]>) -> Path {
        choose(self.table(node), &equal_columns(node, columns), wanted)
    }

    /// The node's table with the indexes there are in this view.
    fn table<'b>(&'b self, node: &'b Node) -> &'b Table {
        let known = self.view.catalog().table_by_id(node.table.id);
        known.map_or(&*node.table, |table| table)
    }

    /// Walks a scan, counting what it examines, until `each` has enough.
    fn walk(
        &self,
        purpose: Purpose,
        node: &Node,
        (path, scan): (&Path, &Scan),
        mut each: impl FnMut(Row) -> Result<Step, Error>,
    ) -> Result<(), Error> {
        let mut examined = 0;
        for row in self.view.scan(node.table.id, scan)? {
            self.meter.count()?;
            examined += 1;
            if each(row?)? == Step::Enough {
                break;
            }
        }
        if let Some(trace) = self.trace {
            trace.scanned(node.id, purpose, path, examined);
        }
        Ok(())
    }
}

/// Columns whose values are known: these, and those that the node's condition fixes.
fn equal_columns(node: &Node, columns: &[usize]) -> Vec<usize> {
    let fixed = node.fixed.iter().map(|(column, _)| *column);
    columns.iter().copied().chain(fixed).collect()
}

/// Whether a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Enough,
}

/// The known value of a column: by the partition, else by the node's condition.
fn known_value<'v>(
    node: &'v Node,
    columns: &[usize],
    partition: &'v [Value],
    column: usize,
) -> Option<&'v Value> {
    let by_partition = columns
        .iter()
        .position(|known| *known == column)
        .and_then(|at| partition.get(at));
    by_partition.or_else(|| {
        let fixed = node.fixed.iter().find(|(known, _)| *known == column);
        fixed.map(|(_, value)| value)
    })
}

/// Whether walking a path once for each partition beats walking the whole table once.
fn serves_partitions(path: &Path, columns: &[usize]) -> bool {
    columns.iter().any(|column| path.prefix.contains(column))
}
