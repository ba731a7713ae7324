//! Reading a query from its selective side.
//!
//! A query such as "issues of mine, or that have the label *bug*" fixes no column of its own table.
//! Rather than scan that table and ask each row, the few labels are read first, and from them the
//! way goes up to the issues. Whether that pays is found out by trying, within a bound, so that no
//! statistics are needed; the rows are the same either way.

use std::collections::{BTreeMap, HashSet};

use kelvin_protocol::Value;
use kelvin_storage::{Row, RowId};

use super::{Reader, Step, known_value, serves_partitions};
use crate::Error;
use crate::access::Path;
use crate::check::Check;
use crate::explain::Purpose;
use crate::fuzzing::is_impatient;
use crate::plan::node::{Node, NodeId, PartitionKey, Predicate};

/// Rows that may be examined to find out whether a query has a selective side.
const DRIVE_ROWS: usize = 2000;
/// The same for tests, which have small tables and shall see both outcomes.
const IMPATIENT_DRIVE_ROWS: usize = 12;

/// Rows for which each side of an AND is tried at first.
const FIRST_TRY_ROWS: usize = 50;
/// The same for tests.
const IMPATIENT_FIRST_TRY_ROWS: usize = 3;
/// Times as many rows as one attempt may examine, for all of them: sides are tried in rounds, and
/// sides of sides as well.
const ALL_ATTEMPTS: usize = 4;
/// How many times as many in each next round.
const NEXT_TRY: usize = 6;

/// Rows found so far, each once.
type Found = BTreeMap<RowId, Row>;

/// One attempt.
struct Drive<'r, 'a> {
    reader: &'r Reader<'a>,
    /// Rows that may still be examined.
    left: usize,
    /// Rows that all attempts together may still examine.
    total: usize,
}

impl Reader<'_> {
    /// All rows that pass the root's condition, in no order, if they can be had from a selective
    /// side of it.
    pub(super) fn drive(&self, node: &Node) -> Result<Option<Vec<Row>>, Error> {
        if !node.correlation.is_empty() {
            return Ok(None);
        }
        let left = if is_impatient() {
            IMPATIENT_DRIVE_ROWS
        } else {
            DRIVE_ROWS
        };
        let mut drive = Drive {
            reader: self,
            left,
            total: left.saturating_mul(ALL_ATTEMPTS),
        };
        let mut found = Found::new();
        let complete = drive.by(node, &node.predicate, &mut found)?;
        if let Some(trace) = self.trace.filter(|_| !complete) {
            trace.drive_failed();
        }
        Ok(complete.then(|| found.into_values().collect()))
    }
}

impl Drive<'_, '_> {
    /// Adds the node's rows that pass and, among these, at least those that meet `part` of its
    /// condition; `false` if there is no way to them but a scan, or if they are too many.
    fn by(&mut self, node: &Node, part: &Predicate, found: &mut Found) -> Result<bool, Error> {
        if self.total == 0 {
            self.left = 0;
            return Ok(false);
        }
        match part {
            Predicate::Const(truth) => Ok(!truth),
            Predicate::Test { column, check } => match &**check {
                Check::Equal(value) => self.by_value(node, *column, value, found),
                Check::IsNull => self.by_value(node, *column, &Value::Null, found),
                Check::Among {
                    values,
                    negated: false,
                } => self.all(values.iter(), |drive, value| {
                    drive.by_value(node, *column, value, found)
                }),
                _ => Ok(false),
            },
            Predicate::All(members) => self.by_shortest(node, members, found),
            Predicate::Any(members) => {
                self.all(members, |drive, member| drive.by(node, member, found))
            }
            Predicate::Exists { negated: true, .. } => Ok(false),
            Predicate::Exists {
                gate,
                negated: false,
            } => self.by_gate(node, *gate, found),
        }
    }

    /// By the member of an AND that leads to the rows soonest: all are tried for a few rows each,
    /// then for more, so that a hopeless one in front does not use up what another one needs.
    fn by_shortest(
        &mut self,
        node: &Node,
        members: &[Predicate],
        found: &mut Found,
    ) -> Result<bool, Error> {
        let all = self.left;
        let first = if is_impatient() {
            IMPATIENT_FIRST_TRY_ROWS
        } else {
            FIRST_TRY_ROWS
        };
        let mut bound = first.min(all);
        let mut open: Vec<&Predicate> = members.iter().collect();
        while !open.is_empty() {
            let mut longer = Vec::new();
            for member in open {
                self.left = bound;
                if self.by(node, member, found)? {
                    // What the others used was theirs.
                    self.left += all - bound;
                    return Ok(true);
                }
                if self.left == 0 {
                    longer.push(member);
                }
            }
            if bound == all {
                self.left = 0;
                return Ok(false);
            }
            bound = bound.saturating_mul(NEXT_TRY).min(all);
            open = longer;
        }
        self.left = all;
        Ok(false)
    }

    /// Whether the way is open for every one of the items.
    fn all<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut way: impl FnMut(&mut Self, T) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        for item in items {
            if !way(self, item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn by_value(
        &mut self,
        node: &Node,
        column: usize,
        value: &Value,
        found: &mut Found,
    ) -> Result<bool, Error> {
        let path = self.reader.path(node, &[column], None);
        if !serves_partitions(&path, &[column]) {
            return Ok(false);
        }
        self.scan(node, &path, &[column], std::slice::from_ref(value), found)
    }

    fn by_gate(&mut self, node: &Node, gate: NodeId, found: &mut Found) -> Result<bool, Error> {
        let before = self.left;
        let complete = self.through_gate(node, gate, found)?;
        if let Some(trace) = self.reader.trace.filter(|_| self.left < before || complete) {
            trace.gate_read(gate, complete);
        }
        Ok(complete)
    }

    fn through_gate(
        &mut self,
        node: &Node,
        gate: NodeId,
        found: &mut Found,
    ) -> Result<bool, Error> {
        let below = self.reader.plan.node(gate);
        let Some((_, columns)) = &below.parent else {
            return Ok(false);
        };
        let path = self.reader.path(node, columns, None);
        if !serves_partitions(&path, columns) {
            return Ok(false);
        }
        let mut children = Found::new();
        if !self.gate_rows(below, &mut children)? {
            return Ok(false);
        }
        let keys: HashSet<PartitionKey> = children
            .values()
            .filter_map(|row| below.partition(row))
            .collect();
        self.all(&keys, |drive, key| {
            drive.scan(node, &path, columns, key, found)
        })
    }

    /// The rows of a gate that pass, whatever their partition; small tables are just read.
    fn gate_rows(&mut self, node: &Node, found: &mut Found) -> Result<bool, Error> {
        if self.by(node, &node.predicate, found)? {
            return Ok(true);
        }
        let path = self.reader.path(node, &[], None);
        self.scan(node, &path, &[], &[], found)
    }

    /// Adds the rows along a path that pass and have these values; `false` if they are too many.
    fn scan(
        &mut self,
        node: &Node,
        path: &Path,
        columns: &[usize],
        values: &[Value],
        found: &mut Found,
    ) -> Result<bool, Error> {
        let scan = path.scan(|column| known_value(node, columns, values, column), None);
        let scan = scan.expecting(self.left);
        let mut complete = true;
        let way = (path, &scan);
        self.reader.walk(Purpose::Drive, node, way, |row| {
            let (Some(left), Some(total)) = (self.left.checked_sub(1), self.total.checked_sub(1))
            else {
                self.left = 0;
                complete = false;
                return Ok(Step::Enough);
            };
            (self.left, self.total) = (left, total);
            let mut pairs = columns.iter().zip(values);
            if pairs.all(|(column, value)| row.value(*column) == *value)
                && self.reader.passes(node, &row)?
            {
                found.insert(row.id, row);
            }
            Ok(Step::More)
        })?;
        Ok(complete)
    }
}
