//! What an evaluation read, and why.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use kelvin_storage::IndexId;
use serde::{Deserialize, Serialize};

use crate::access::Path;
use crate::plan::node::NodeId;

/// Why rows of a node were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// For what they are: the rows of the result.
    Rows,
    /// To find out whether a parent has one, parent by parent.
    Probe,
    /// To find out in one go which parents have one, for want of an index.
    Survey,
    /// From the selective side of the query, to find its few rows without asking each row of its
    /// table.
    Drive,
    /// To see how long a way is before it is chosen.
    Choice,
    /// To find the parents of rows that changed.
    Parents,
}

/// One way of reading a node's table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) node: NodeId,
    pub(crate) purpose: Purpose,
    pub(crate) index: IndexId,
    pub(crate) prefix: Vec<usize>,
    pub(crate) sorted_by: Vec<usize>,
}

/// How often a way was gone, and how many rows came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) scans: u64,
    pub(crate) examined: u64,
}

/// Filled by a reader while it evaluates.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    ways: RefCell<BTreeMap<Way, Cost>>,
    /// Rows of the view by node, one for each path to them.
    rows: RefCell<BTreeMap<NodeId, u64>>,
    /// Gates whose rows were read first, to get from them to the root's.
    drove: RefCell<BTreeSet<NodeId>>,
    /// Gates for which that was given up.
    gave_up: RefCell<BTreeSet<NodeId>>,
}

impl Trace {
    pub(crate) fn scanned(&self, node: NodeId, purpose: Purpose, path: &Path, examined: u64) {
        let way = Way {
            node,
            purpose,
            index: path.index,
            prefix: path.prefix.clone(),
            sorted_by: path.sorted_by.clone(),
        };
        let mut ways = self.ways.borrow_mut();
        let cost = ways.entry(way).or_default();
        cost.scans += 1;
        cost.examined += examined;
    }

    pub(crate) fn kept(&self, node: NodeId) {
        *self.rows.borrow_mut().entry(node).or_default() += 1;
    }

    pub(crate) fn gate_read(&self, gate: NodeId, complete: bool) {
        let set = if complete { &self.drove } else { &self.gave_up };
        set.borrow_mut().insert(gate);
    }

    /// All that was read from selective sides was in vain: it did not lead to every row.
    pub(crate) fn drive_failed(&self) {
        let drove = std::mem::take(&mut *self.drove.borrow_mut());
        self.gave_up.borrow_mut().extend(drove);
    }

    pub(crate) fn ways_of(&self, node: NodeId) -> Vec<(Way, Cost)> {
        let ways = self.ways.borrow();
        let own = ways.iter().filter(|(way, _)| way.node == node);
        own.map(|(way, cost)| (way.clone(), *cost)).collect()
    }

    pub(crate) fn rows_of(&self, node: NodeId) -> u64 {
        self.rows.borrow().get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn drove(&self, gate: NodeId) -> bool {
        self.drove.borrow().contains(&gate)
    }

    pub(crate) fn gave_up(&self, gate: NodeId) -> bool {
        self.gave_up.borrow().contains(&gate)
    }
}
