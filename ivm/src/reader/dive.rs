//! Looking into indexes before one is chosen.
//!
//! The columns of an index say what it might narrow a read to, not how many rows that leaves: most
//! issues may be open, and a project may have one issue or all. Averages would not tell either, for
//! values are anything but evenly spread. But the values are known by the time a node is read, so a
//! look at the first few rows of each way tells whether that way is short, and nothing has to be
//! kept or can be out of date.

use kelvin_protocol::{Direction, Value};

use super::{Reader, Step, equal_columns, known_value};
use crate::Error;
use crate::access::{Path, candidates};
use crate::explain::Purpose;
use crate::fuzzing::is_impatient;
use crate::order::is_unique_key;
use crate::plan::node::Node;

/// Rows looked at on each way.
const DIVE_ROWS: usize = 100;
/// The same for tests, which have small tables and shall see both outcomes.
const SHALLOW_DIVE_ROWS: usize = 3;
/// Ways looked at.
const MAX_WAYS: usize = 4;

/// The way that was chosen.
pub(super) struct Chosen {
    pub(super) path: Path,
    /// A way along the wanted order, to be tried first for a few rows: the chosen one is long and
    /// knows nothing of the order.
    pub(super) along_order: Option<Path>,
}

impl Reader<'_> {
    /// The path for the rows of a node, in a partition of which the values are known.
    pub(super) fn look_and_choose(
        &self,
        node: &Node,
        partition: &[Value],
        wanted: Option<&[(usize, Direction)]>,
    ) -> Result<Chosen, Error> {
        let table = self.table(node);
        let equal = equal_columns(node, &node.correlation);
        let first = self.path(node, &node.correlation, wanted);
        let ways = candidates(table, &equal, wanted).into_iter().skip(1);
        let (mut telling, others): (Vec<Path>, Vec<Path>) = ways.partition(|path| path.telling);
        // What knows no other column leaves no fewer rows.
        telling.retain(|path| path.prefix.iter().any(|at| !first.prefix.contains(at)));
        let ordered = others
            .into_iter()
            .find(|path| wanted.is_some() && path.ordered);
        let settled = !first.telling
            || is_unique_key(table, &first.prefix)
            || (telling.is_empty() && (first.ordered || ordered.is_none()));
        if settled {
            return Ok(Chosen {
                path: first,
                along_order: None,
            });
        }
        let mut rows = self.dive(node, &first, partition)?;
        let mut path = first;
        for other in telling.into_iter().take(MAX_WAYS - 1) {
            if rows < depth() && path.ordered {
                break;
            }
            let others = self.dive(node, &other, partition)?;
            if others < rows {
                (path, rows) = (other, others);
            }
        }
        let long = rows >= depth() && !path.ordered;
        Ok(Chosen {
            path,
            along_order: ordered.filter(|_| long),
        })
    }

    /// How many rows there are along a path, as far as it is looked at.
    fn dive(&self, node: &Node, path: &Path, partition: &[Value]) -> Result<usize, Error> {
        let value_of = |column| known_value(node, &node.correlation, partition, column);
        let (scan, mut rows) = (path.scan(value_of, None), 0);
        self.walk(Purpose::Choice, node, (path, &scan), |_| {
            rows += 1;
            let deep = rows >= depth();
            Ok(if deep { Step::Enough } else { Step::More })
        })?;
        Ok(rows)
    }
}

fn depth() -> usize {
    if is_impatient() {
        SHALLOW_DIVE_ROWS
    } else {
        DIVE_ROWS
    }
}
