//! Which rows may have entered or left a node.

use std::collections::{HashMap, HashSet};

use kelvin_storage::{Row, RowId};

use super::Step;
use crate::Error;
use crate::plan::node::{Node, NodeId, PartitionKey};
use crate::state::PlanState;

/// A row before and after the step, as far as it was and is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) old: Option<&'a Row>,
    pub(super) new: Option<&'a Row>,
}

/// Per node, the rows that were not written themselves but had an EXISTS change its truth.
pub(super) struct Candidates {
    flipped: Vec<HashMap<RowId, Row>>,
}

impl Candidates {
    /// Goes from the leaves to the root: what an EXISTS says of a node's rows has to be known
    /// before the node's own partitions can be judged.
    pub(super) fn find(step: &Step<'_>, state: &PlanState) -> Result<Self, Error> {
        let mut found = Self {
            flipped: vec![HashMap::new(); step.plan.nodes().len()],
        };
        for id in step.plan.ids().rev() {
            let node = step.plan.node(id);
            if node.gate && found.of(step, id).next().is_some() {
                let flips = found.flips(step, state, id, node)?;
                found.add_parents(step, id, node, &flips)?;
            }
        }
        Ok(found)
    }

    /// All candidates of a node, each row once.
    pub(super) fn of<'a>(
        &'a self,
        step: &'a Step<'_>,
        id: NodeId,
    ) -> impl Iterator<Item = Candidate<'a>> {
        let written = step.changes.rows(step.plan.node(id).table.id);
        let written = written.iter().map(|change| Candidate {
            old: change.old.as_ref(),
            new: change.new.as_ref(),
        });
        let flipped = self.flipped.get(id.0).into_iter().flat_map(HashMap::values);
        written.chain(flipped.map(|row| Candidate {
            old: Some(row),
            new: Some(row),
        }))
    }

    /// The partitions of a gate that went from having rows to having none, or back.
    fn flips(
        &self,
        step: &Step<'_>,
        state: &PlanState,
        id: NodeId,
        node: &Node,
    ) -> Result<HashSet<PartitionKey>, Error> {
        let mut seen: HashMap<PartitionKey, Seen> = HashMap::new();
        for candidate in self.of(step, id) {
            if let Some(old) = candidate.old
                && let Some(key) = node.partition(old)
                && step.before.passes(node, old)?
            {
                seen.entry(key).or_default().before = true;
            }
            if let Some(new) = candidate.new
                && let Some(key) = node.partition(new)
                && step.after.passes(node, new)?
            {
                seen.entry(key).or_default().after = true;
            }
        }
        let mut flips = HashSet::new();
        for (key, seen) in seen {
            let flipped = match (seen.before, seen.after) {
                (true, false) => !step.after.exists(id, &key)?,
                (false, true) => !existed(step, state, id, &key)?,
                _ => false,
            };
            if flipped {
                flips.insert(key);
            }
        }
        Ok(flips)
    }

    fn add_parents(
        &mut self,
        step: &Step<'_>,
        gate: NodeId,
        node: &Node,
        flips: &HashSet<PartitionKey>,
    ) -> Result<(), Error> {
        let Some((parent, _)) = &node.parent else {
            return Ok(());
        };
        let Some(found) = self.flipped.get_mut(parent.0) else {
            return Ok(());
        };
        if flips.is_empty() {
            return Ok(());
        }
        // A parent that was written is a candidate anyway, so only those that stayed as they are
        // have to be found, and these are the same in both views.
        let written = step.changes.table(step.plan.node(*parent).table.id);
        step.after.parents(gate, flips, |row| {
            if !written.is_some_and(|changes| changes.wrote(row.id)) {
                found.insert(row.id, row);
            }
        })
    }
}

/// What candidates tell of a partition: whether one of them was, or is, a row of it.
#[derive(Clone, Copy, Default)]
struct Seen {
    before: bool,
    after: bool,
}

/// Whether a partition of a gate had a row before the step. The witnesses of a live one tell.
fn existed(
    step: &Step<'_>,
    state: &PlanState,
    id: NodeId,
    key: &PartitionKey,
) -> Result<bool, Error> {
    let live = state.nodes.get(id.0).and_then(|node| node.window(key));
    match live {
        Some(window) => Ok(!window.is_empty()),
        None => step.before.exists(id, key),
    }
}
