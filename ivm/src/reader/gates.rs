//! EXISTS, and the way back from a child to its parents.

use std::collections::{HashMap, HashSet};

use kelvin_protocol::Value;
use kelvin_storage::Row;

use super::{Reader, Step, known_value, serves_partitions};
use crate::Error;
use crate::explain::Purpose;
use crate::plan::node::{NodeId, PartitionKey, project};

/// What is known of the partitions of one gate at one version.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    known: HashMap<PartitionKey, bool>,
    /// Whether every partition that has a row is in `known`.
    complete: bool,
}

impl Reader<'_> {
    /// Whether the partition of a gate has a row.
    pub(crate) fn exists(&self, gate: NodeId, partition: &[Value]) -> Result<bool, Error> {
        if let Some(known) = self.known(gate, partition) {
            return Ok(known);
        }
        let node = self.plan.node(gate);
        let path = self.path(node, &node.correlation, None);
        if !serves_partitions(&path, &node.correlation) {
            self.survey(gate)?;
            return Ok(self.known(gate, partition).unwrap_or(false));
        }
        let value_of = |column| known_value(node, &node.correlation, partition, column);
        let mut found = false;
        let scan = path.scan(value_of, None);
        self.walk(Purpose::Probe, node, (&path, &scan), |row| {
            found = node.is_in(&row, partition) && self.passes(node, &row)?;
            Ok(if found { Step::Enough } else { Step::More })
        })?;
        if let Some(cache) = self.gates.borrow_mut().get_mut(gate.0) {
            cache.known.insert(partition.into(), found);
        }
        Ok(found)
    }

    fn known(&self, gate: NodeId, partition: &[Value]) -> Option<bool> {
        let gates = self.gates.borrow();
        let cache = gates.get(gate.0)?;
        let known = cache.known.get(partition).copied();
        known.or_else(|| cache.complete.then_some(false))
    }

    /// Finds every partition that has a row in one scan, for want of an index.
    fn survey(&self, gate: NodeId) -> Result<(), Error> {
        let node = self.plan.node(gate);
        let path = self.path(node, &[], None);
        let scan = path.scan(|column| known_value(node, &[], &[], column), None);
        let scan = scan.expecting(usize::MAX);
        let mut found: HashMap<PartitionKey, bool> = HashMap::new();
        self.walk(Purpose::Survey, node, (&path, &scan), |row| {
            if let Some(partition) = node.partition(&row)
                && !found.contains_key(&partition)
                && self.passes(node, &row)?
            {
                found.insert(partition, true);
            }
            Ok(Step::More)
        })?;
        if let Some(cache) = self.gates.borrow_mut().get_mut(gate.0) {
            cache.known.extend(found);
            cache.complete = true;
        }
        Ok(())
    }

    /// The rows of the parent node's table that the partitions of `gate` belong to, whether they
    /// pass or not.
    pub(crate) fn parents(
        &self,
        gate: NodeId,
        partitions: &HashSet<PartitionKey>,
        mut each: impl FnMut(Row),
    ) -> Result<(), Error> {
        let Some((parent, columns)) = &self.plan.node(gate).parent else {
            return Ok(());
        };
        let node = self.plan.node(*parent);
        let path = self.path(node, columns, None);
        if serves_partitions(&path, columns) {
            for partition in partitions {
                let value_of = |column| known_value(node, columns, partition, column);
                let scan = path.scan(value_of, None).expecting(usize::MAX);
                self.walk(Purpose::Parents, node, (&path, &scan), |row| {
                    if project(&row, columns).as_ref() == Some(partition) {
                        each(row);
                    }
                    Ok(Step::More)
                })?;
            }
            return Ok(());
        }
        let path = self.path(node, &[], None);
        let scan = path.scan(|column| known_value(node, &[], &[], column), None);
        let scan = scan.expecting(usize::MAX);
        self.walk(Purpose::Parents, node, (&path, &scan), |row| {
            if project(&row, columns).is_some_and(|key| partitions.contains(&key)) {
                each(row);
            }
            Ok(Step::More)
        })
    }
}
