//! From nothing to the view at one version.

use std::collections::HashMap;
use std::ops::ControlFlow;

use kelvin_storage::{Row, TableId, View};

use crate::Error;
use crate::budget::{Budget, Meter};
use crate::plan::Plan;
use crate::plan::node::{NodeId, PartitionKey};
use crate::reader::Reader;
use crate::state::{Filling, Members, Partitions};

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
) -> Result<(Vec<Partitions>, Members), Error> {
    let mut nodes = vec![Partitions::default(); plan.nodes().len()];
    let mut members = Members::default();
    insert(plan, &mut nodes, NodeId::ROOT, vec![(Box::new([]), 1)]);
    for id in plan.ids() {
        let node = plan.node(id);
        let Some(own) = nodes.get_mut(id.0) else {
            continue;
        };
        let keys: Vec<PartitionKey> = own.keys().collect();
        let mut references: Vec<HashMap<PartitionKey, u32>> =
            vec![HashMap::new(); node.branches.len()];
        let limited = node.limit.filter(|_| windows);
        let mut filling = limited.map(|_| Filling::new(&node.order, keys.len()));
        reader.contents(node, &keys, &mut |at, row| {
            for (branch, counts) in node.branches.iter().zip(&mut references) {
                if let Some(key) = plan.node(*branch).partition_of_parent(&row) {
                    *counts.entry(key).or_default() += 1;
                }
            }
            if let Some(filling) = &mut filling {
                filling.push(at, &row);
            }
            reader.note_kept(id);
            if members.add(node.table.id, row.id) && sink(node.table.id, &row).is_break() {
                return Err(Error::Stopped);
            }
            Ok(())
        })?;
        let filled = filling.into_iter().flat_map(Filling::finish);
        for (key, window) in keys.iter().zip(filled) {
            if let Some(place) = own.window_mut(key) {
                *place = window;
            }
        }
        for (branch, counts) in node.branches.iter().zip(references) {
            insert(plan, &mut nodes, *branch, counts.into_iter().collect());
        }
    }
    Ok((nodes, members))
}

/// Makes these the live partitions of a node, each of so many kept parents.
fn insert(
    plan: &Plan,
    nodes: &mut [Partitions],
    id: NodeId,
    mut parents: Vec<(PartitionKey, u32)>,
) {
    parents.sort_unstable();
    if let Some(partitions) = nodes.get_mut(id.0) {
        *partitions = Partitions::of(plan.node(id), &parents);
    }
}
