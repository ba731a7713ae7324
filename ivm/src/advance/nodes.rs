//! The top-down pass: what enters and leaves the partitions of each node.

use std::collections::HashMap;

use kelvin_storage::Row;

use super::Step;
use super::candidates::{Candidate, Candidates};
use super::touches::Touches;
use super::window::{self, WindowChange};
use crate::Error;
use crate::plan::node::{Node, NodeId, PartitionKey};
use crate::state::{Filling, Partition, Partitions, PlanState, refs};

/// The state of the pass.
pub(super) struct Pass<'a> {
    step: &'a Step<'a>,
    candidates: &'a Candidates,
    /// Per node, how the numbers of kept parent rows of its partitions change.
    references: Vec<HashMap<PartitionKey, i64>>,
    pub(super) touches: Touches,
}

/// Partitions of a node that come to life or end in this step.
#[derive(Default)]
struct Turnover {
    opened: Vec<(PartitionKey, u32)>,
    closed: Vec<(PartitionKey, Partition)>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(step: &'a Step<'a>, candidates: &'a Candidates) -> Self {
        Self {
            step,
            candidates,
            references: vec![HashMap::new(); step.plan.nodes().len()],
            touches: Touches::default(),
        }
    }

    /// Brings one node up to date; its parent has been already.
    pub(super) fn node(&mut self, id: NodeId, state: &mut PlanState) -> Result<(), Error> {
        let node = self.step.plan.node(id);
        let Some(own) = state.nodes.get_mut(id.0).filter(|_| node.kept) else {
            return Ok(());
        };
        let references = self.references.get_mut(id.0).map(std::mem::take);
        let turnover = turn_over(own, references.unwrap_or_default());
        self.close(node, turnover.closed)?;
        if !own.is_empty() {
            match node.limit {
                None => self.unlimited(id, node, own)?,
                Some(limit) => self.limited(id, node, limit, own)?,
            }
        }
        self.open(node, own, turnover.opened)
    }

    /// One path more or less leads to the row, and from it to the partitions below.
    fn count(&mut self, node: &Node, row: &Row, paths: i64) {
        self.touches.add(node.table.id, row, paths);
        for branch in &node.branches {
            if let Some(key) = self.step.plan.node(*branch).partition_of_parent(row)
                && let Some(references) = self.references.get_mut(branch.0)
            {
                *references.entry(key).or_default() += paths;
            }
        }
    }

    fn close(&mut self, node: &Node, closed: Vec<(PartitionKey, Partition)>) -> Result<(), Error> {
        if closed.is_empty() {
            return Ok(());
        }
        if let Some(limit) = node.limit {
            let windows = closed.iter().map(|(_, partition)| &partition.window);
            for spot in windows.flat_map(|window| window.in_view(limit)) {
                let row = self.step.before.row_at(node, &spot)?;
                self.count(node, &row, -1);
            }
            return Ok(());
        }
        let mut keys: Vec<_> = closed.into_iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        self.step.before.contents(node, &keys, &mut |_, row| {
            self.count(node, &row, -1);
            Ok(())
        })
    }

    fn open(
        &mut self,
        node: &Node,
        own: &mut Partitions,
        mut opened: Vec<(PartitionKey, u32)>,
    ) -> Result<(), Error> {
        if opened.is_empty() {
            return Ok(());
        }
        opened.sort_unstable();
        let keys: Vec<_> = opened.iter().map(|(key, _)| key.clone()).collect();
        let mut filling = node.limit.map(|_| Filling::new(&node.order, keys.len()));
        self.step.after.contents(node, &keys, &mut |at, row| {
            self.count(node, &row, 1);
            if let Some(filling) = &mut filling {
                filling.push(at, &row);
            }
            Ok(())
        })?;
        let mut windows = filling.map(Filling::finish).unwrap_or_default().into_iter();
        for (key, parents) in opened {
            let window = windows.next().unwrap_or_default();
            own.insert(&key, Partition { parents, window });
        }
        Ok(())
    }

    /// Candidates of partitions that live on, where nothing but the candidate itself matters.
    fn unlimited(&mut self, id: NodeId, node: &Node, own: &Partitions) -> Result<(), Error> {
        let (step, candidates) = (self.step, self.candidates);
        let is_live = |row: &Row| {
            let key = node.partition_refs(row);
            key.is_some_and(|key| own.contains(&key))
        };
        for candidate in candidates.of(step, id) {
            if let Some(old) = candidate.old
                && is_live(old)
                && step.before.passes(node, old)?
            {
                self.count(node, old, -1);
            }
            if let Some(new) = candidate.new
                && is_live(new)
                && step.after.passes(node, new)?
            {
                self.count(node, new, 1);
            }
        }
        Ok(())
    }

    fn limited(
        &mut self,
        id: NodeId,
        node: &Node,
        limit: usize,
        own: &mut Partitions,
    ) -> Result<(), Error> {
        let (step, candidates) = (self.step, self.candidates);
        for (key, group) in by_partition(node, own, candidates.of(step, id)) {
            let Some(window) = own.window_mut(&key) else {
                continue;
            };
            let WindowChange { left, entered } =
                window::advance(step, node, limit, &key, window, &group)?;
            for row in left {
                self.count(node, &row, -1);
            }
            for row in entered {
                self.count(node, &row, 1);
            }
        }
        Ok(())
    }
}

/// Applies the changed numbers of parents.
fn turn_over(own: &mut Partitions, references: HashMap<PartitionKey, i64>) -> Turnover {
    let mut turnover = Turnover::default();
    for (key, change) in references {
        let before = own.parents(&key);
        let after = i64::from(before).saturating_add(change);
        debug_assert!(after >= 0, "more parents left than were");
        let after = u32::try_from(after.max(0)).unwrap_or(u32::MAX);
        if before == 0 && after > 0 {
            turnover.opened.push((key, after));
        } else if before > 0 && after == 0 {
            let partition = own.remove(&key);
            turnover
                .closed
                .extend(partition.map(|partition| (key, partition)));
        } else if after != before {
            own.set_parents(&key, after);
        }
    }
    turnover
}

/// Candidates by live partition; one that moves from a partition to another is in both, in each
/// with the side that belongs there.
fn by_partition<'c>(
    node: &Node,
    own: &Partitions,
    candidates: impl Iterator<Item = Candidate<'c>>,
) -> HashMap<PartitionKey, Vec<Candidate<'c>>> {
    let mut groups: HashMap<PartitionKey, Vec<Candidate<'c>>> = HashMap::new();
    let mut add = |key: Option<PartitionKey>, candidate: Candidate<'c>| {
        if let Some(key) = key.filter(|key| own.contains(&refs(key))) {
            groups.entry(key).or_default().push(candidate);
        }
    };
    for candidate in candidates {
        let old_key = candidate.old.and_then(|row| node.partition(row));
        let new_key = candidate.new.and_then(|row| node.partition(row));
        if old_key == new_key {
            add(old_key, candidate);
            continue;
        }
        let (old, new) = (candidate.old, candidate.new);
        add(old_key, Candidate { old, new: None });
        add(new_key, Candidate { old: None, new });
    }
    groups
}
