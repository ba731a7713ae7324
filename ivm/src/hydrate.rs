//! From nothing to the view at one version.

use std::collections::HashMap;
use std::ops::ControlFlow;

use kelvin_storage::{Row, TableId, View};

use crate::Error;
use crate::budget::{Budget, Meter};
use crate::plan::Plan;
use crate::plan::node::{NodeId, PartitionKey};
use crate::reader::Reader;
use crate::state::{Members, NodeState, Partition, Spot, Window};

/// The rows a client needs for the plan at the view's version, each distinct row once, in no
/// particular order. A pure function of the database at that version: what it yields is what a
/// [`PlanState`](crate::PlanState) at that version holds.
///
/// # Errors
/// [`Budget`](crate::ErrorKind::Budget) where more rows were examined than allowed,
/// [`Stopped`](crate::ErrorKind::Stopped) where the budget's stop condition or the sink ended it,
/// [`Storage`](crate::ErrorKind::Storage) where a read failed.
pub fn evaluate(
    plan: &Plan,
    view: &View,
    budget: &Budget,
    sink: &mut dyn FnMut(TableId, &Row) -> ControlFlow<()>,
) -> Result<(), Error> {
    let meter = Meter::new(budget);
    let reader = Reader::new(plan, view, &meter);
    hydrate(plan, &reader, false, sink).map(drop)
}

/// Reads all partitions, parents before children. `windows` says whether to keep the places of
/// limited rows.
pub(crate) fn hydrate(
    plan: &Plan,
    reader: &Reader<'_>,
    windows: bool,
    sink: &mut dyn FnMut(TableId, &Row) -> ControlFlow<()>,
) -> Result<(Vec<NodeState>, Members), Error> {
    let mut nodes = vec![NodeState::default(); plan.nodes().len()];
    let mut members = Members::default();
    let root = Partition {
        parents: 1,
        window: Window::default(),
    };
    insert(&mut nodes, NodeId::ROOT, Box::new([]), root);
    for id in plan.ids() {
        let node = plan.node(id);
        let Some(state) = nodes.get_mut(id.0) else {
            continue;
        };
        let mut own = std::mem::take(&mut state.partitions);
        let mut keys: Vec<PartitionKey> = own.keys().cloned().collect();
        keys.sort_unstable();
        let mut references: Vec<HashMap<PartitionKey, u64>> =
            vec![HashMap::new(); node.branches.len()];
        reader.contents(node, &keys, &mut |at, row| {
            for (branch, counts) in node.branches.iter().zip(&mut references) {
                if let Some(key) = plan.node(*branch).partition_of_parent(&row) {
                    *counts.entry(key).or_default() += 1;
                }
            }
            if windows
                && node.limit.is_some()
                && let Some(partition) = keys.get(at).and_then(|key| own.get_mut(key))
            {
                partition.window.spots.push(Spot::of(&node.order, &row));
            }
            reader.note_kept(id);
            if members.add(node.table.id, row.id) && sink(node.table.id, &row).is_break() {
                return Err(Error::Stopped);
            }
            Ok(())
        })?;
        for (branch, counts) in node.branches.iter().zip(references) {
            for (key, parents) in counts {
                let window = Window::default();
                insert(&mut nodes, *branch, key, Partition { parents, window });
            }
        }
        if let Some(state) = nodes.get_mut(id.0) {
            state.partitions = own;
        }
    }
    Ok((nodes, members))
}

fn insert(nodes: &mut [NodeState], id: NodeId, key: PartitionKey, partition: Partition) {
    if let Some(state) = nodes.get_mut(id.0) {
        state.partitions.insert(key, partition);
    }
}
