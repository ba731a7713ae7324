//! The contents of partitions: rows that pass, as far as the limit goes.

use std::collections::HashMap;

use kelvin_protocol::Value;
use kelvin_storage::Row;

use super::dive::Chosen;
use super::top::Top;
use super::{Reader, Step, known_value, serves_partitions};
use crate::Error;
use crate::access::Path;
use crate::explain::Purpose;
use crate::fuzzing::is_impatient;
use crate::plan::node::{Node, PartitionKey, Predicate};

/// Rows examined along an order, beyond twice as many as are wanted, before it is tried to find the
/// few that pass another way.
const PATIENCE: usize = 1000;
/// The same for tests, which have small tables and shall see both outcomes.
const LITTLE_PATIENCE: usize = 4;

/// How many rows to read of a limited partition.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// Unless there are fewer.
    pub(crate) needed: usize,
    /// Beyond these, for as long as no more rows than this have to be examined for it.
    pub(crate) more: usize,
}

impl Ahead {
    /// No more than these.
    fn none(needed: usize) -> Self {
        Self { needed, more: 0 }
    }

    /// Whether so many rows are enough, where so many may still be examined for more.
    fn is_met(self, rows: usize, left: usize) -> bool {
        rows >= self.most() || (rows >= self.needed && left == 0)
    }

    fn most(self) -> usize {
        self.needed.saturating_add(self.more)
    }
}

/// What reading along an index came to.
enum Sorted {
    Rows(Vec<Row>),
    /// The index turned out to hold values that it cannot tell apart.
    Misplaced,
    /// Too many rows that do not pass.
    Impatient,
}

/// Receives a row and the position of its partition among those asked for.
type Each<'a> = &'a mut dyn FnMut(usize, Row) -> Result<(), Error>;

impl Reader<'_> {
    /// The contents of several partitions of one node. Rows of one partition come in order where
    /// the node has a limit.
    pub(crate) fn contents(
        &self,
        node: &Node,
        partitions: &[PartitionKey],
        each: Each<'_>,
    ) -> Result<(), Error> {
        if matches!(node.predicate, Predicate::Const(false)) {
            return Ok(());
        }
        let wanted = node.limit.map(|_| node.order.decisive());
        let path = self.path(node, &node.correlation, wanted);
        let apart = node.correlation.is_empty()
            || serves_partitions(&path, &node.correlation)
            || partitions.len() == 1;
        if !apart {
            return self.contents_in_one_scan(node, partitions, each);
        }
        for (at, partition) in partitions.iter().enumerate() {
            let chosen = match &path {
                // Looking pays for the one partition of the root, not for each of many.
                _ if node.correlation.is_empty() => {
                    self.look_and_choose(node, partition, wanted)?
                }
                path => Chosen {
                    path: path.clone(),
                    along_order: None,
                },
            };
            match node.limit {
                None => self.all_rows(node, &chosen.path, partition, &mut |row| each(at, row))?,
                Some(limit) => {
                    for row in
                        self.first_rows(node, &chosen, partition, None, Ahead::none(limit))?
                    {
                        each(at, row)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows of a limited partition that come strictly after `place`, as many as are asked for.
    pub(crate) fn rows_after(
        &self,
        node: &Node,
        partition: &[Value],
        place: &[Value],
        count: Ahead,
    ) -> Result<Vec<Row>, Error> {
        let wanted = Some(node.order.decisive());
        let chosen = if node.correlation.is_empty() {
            self.look_and_choose(node, partition, wanted)?
        } else {
            Chosen {
                path: self.path(node, &node.correlation, wanted),
                along_order: None,
            }
        };
        self.first_rows(node, &chosen, partition, Some(place), count)
    }

    fn all_rows(
        &self,
        node: &Node,
        path: &Path,
        partition: &[Value],
        each: &mut dyn FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !path.telling
            && let Some(rows) = self.drive(node)?
        {
            return rows.into_iter().try_for_each(each);
        }
        let value_of = |column| known_value(node, &node.correlation, partition, column);
        let scan = path.scan(value_of, None).expecting(usize::MAX);
        self.walk(Purpose::Rows, node, (path, &scan), |row| {
            if node.is_in(&row, partition) && self.passes(node, &row)? {
                each(row)?;
            }
            Ok(Step::More)
        })
    }

    fn first_rows(
        &self,
        node: &Node,
        Chosen { path, along_order }: &Chosen,
        partition: &[Value],
        after: Option<&[Value]>,
        count: Ahead,
    ) -> Result<Vec<Row>, Error> {
        let read = |patience| self.first_sorted(node, path, partition, after, count, patience);
        let may_drive = !path.telling && !matches!(node.predicate, Predicate::Const(true));
        let beyond = if is_impatient() {
            LITTLE_PATIENCE
        } else {
            PATIENCE
        };
        let patience = (count.needed.saturating_mul(2)).saturating_add(beyond + count.more);
        if let Some(path) = along_order
            && let Sorted::Rows(rows) =
                self.first_sorted(node, path, partition, after, count, patience)?
        {
            return Ok(rows);
        }
        let mut sorted = read(if may_drive { patience } else { usize::MAX })?;
        let mut top = Top::new(&node.order, count.most());
        if matches!(sorted, Sorted::Impatient) {
            if let Some(rows) = self.drive(node)? {
                for row in rows {
                    self.offer(node, partition, after, row, &mut top)?;
                }
                return Ok(top.finish().collect());
            }
            sorted = read(usize::MAX)?;
        }
        if let Sorted::Rows(rows) = sorted {
            return Ok(rows);
        }
        let value_of = |column| known_value(node, &node.correlation, partition, column);
        let scan = path.scan(value_of, None).expecting(usize::MAX);
        self.walk(Purpose::Rows, node, (path, &scan), |row| {
            self.offer(node, partition, after, row, &mut top)?;
            Ok(Step::More)
        })?;
        Ok(top.finish().collect())
    }

    /// Reads along an index that yields the leading columns of the node's order, and ends with the
    /// group of rows equal in these that completes the count.
    fn first_sorted(
        &self,
        node: &Node,
        path: &Path,
        partition: &[Value],
        after: Option<&[Value]>,
        count: Ahead,
        mut patience: usize,
    ) -> Result<Sorted, Error> {
        let order = node.order.decisive();
        let begin = match (after, &node.start) {
            (Some(place), _) => Some((order, place)),
            (None, Some(start)) if *start.order == *order => Some((order, &*start.values)),
            _ => None,
        };
        let value_of = |column| known_value(node, &node.correlation, partition, column);
        let mut top = Top::new(&node.order, count.most());
        let mut ahead = count.more;
        let mut group: Option<Row> = None;
        let mut failed = None;
        let scan = path.scan(value_of, begin).expecting(count.most());
        self.walk(Purpose::Rows, node, (path, &scan), |row| {
            if path.misplaces(&row) {
                failed = Some(Sorted::Misplaced);
                return Ok(Step::Enough);
            }
            let Some(fewer) = patience.checked_sub(1) else {
                failed = Some(Sorted::Impatient);
                return Ok(Step::Enough);
            };
            patience = fewer;
            if top.len() >= count.needed {
                ahead = ahead.saturating_sub(1);
            }
            if !path.ordered && count.is_met(top.len(), ahead) {
                let same = |before: &Row| agree(&path.sorted_by, before, &row);
                if !group.as_ref().is_some_and(same) {
                    return Ok(Step::Enough);
                }
            }
            if !path.ordered {
                group = Some(row.clone());
            }
            self.offer(node, partition, after, row, &mut top)?;
            let enough = path.ordered && count.is_met(top.len(), ahead);
            Ok(if enough { Step::Enough } else { Step::More })
        })?;
        Ok(failed.unwrap_or_else(|| Sorted::Rows(top.finish().collect())))
    }

    /// Takes the row if it passes, is in the partition and comes after the place.
    fn offer(
        &self,
        node: &Node,
        partition: &[Value],
        after: Option<&[Value]>,
        row: Row,
        top: &mut Top<'_>,
    ) -> Result<(), Error> {
        if !node.is_in(&row, partition) {
            return Ok(());
        }
        let place = node.order.place(&row);
        let late = after.is_none_or(|after| node.order.compare(&place, after).is_gt());
        if late && top.wants(&place) && self.passes(node, &row)? {
            top.push(place, row);
        }
        Ok(())
    }

    /// For want of an index: one scan for all partitions instead of one for each.
    fn contents_in_one_scan(
        &self,
        node: &Node,
        partitions: &[PartitionKey],
        each: Each<'_>,
    ) -> Result<(), Error> {
        let at_of: HashMap<&PartitionKey, usize> = partitions
            .iter()
            .enumerate()
            .map(|(at, key)| (key, at))
            .collect();
        let path = self.path(node, &[], None);
        let scan = path.scan(|column| known_value(node, &[], &[], column), None);
        let scan = scan.expecting(usize::MAX);
        let mut tops: HashMap<usize, Top<'_>> = HashMap::new();
        self.walk(Purpose::Rows, node, (&path, &scan), |row| {
            let partition = node.partition(&row);
            let Some(at) = partition.and_then(|partition| at_of.get(&partition).copied()) else {
                return Ok(Step::More);
            };
            let Some(limit) = node.limit else {
                if self.passes(node, &row)? {
                    each(at, row)?;
                }
                return Ok(Step::More);
            };
            let top = tops
                .entry(at)
                .or_insert_with(|| Top::new(&node.order, limit));
            let place = node.order.place(&row);
            if top.wants(&place) && self.passes(node, &row)? {
                top.push(place, row);
            }
            Ok(Step::More)
        })?;
        for at in 0..partitions.len() {
            for row in tops.remove(&at).into_iter().flat_map(Top::finish) {
                each(at, row)?;
            }
        }
        Ok(())
    }
}

/// Whether two rows are equal in these columns.
fn agree(columns: &[usize], a: &Row, b: &Row) -> bool {
    columns
        .iter()
        .all(|column| a.value(*column) == b.value(*column))
}
