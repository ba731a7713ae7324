//! How many records came, and how many of them the engine got.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stream::Place;
use crate::TableId;
use crate::error::{Error, Result};

/// Counts of a load, of the rows of each table and of the entries of each index.
///
/// INVARIANT: a load comes to its end only where the engine got every record that came. Between
/// the two they are sorted, spilled and merged, and nobody else would notice one that is lost there.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Place, Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    came: u64,
    arrived: u64,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Place, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part handed over so many.
    pub(super) fn came(&self, place: Place, records: u64) {
        self.counts().entry(place).or_default().came += records;
    }

    /// The engine got so many.
    pub(super) fn arrived(&self, place: Place, records: u64) {
        self.counts().entry(place).or_default().arrived += records;
    }

    /// Leaves a table out.
    pub(super) fn forget(&self, table: TableId) {
        self.counts().retain(|(other, _), _| *other != table);
    }

    /// Makes sure that what came arrived.
    ///
    /// # Errors
    /// [`Error::Corrupt`], which names the first that differs.
    pub(super) fn check(&self) -> Result<()> {
        let counts = self.counts();
        let differs = counts.iter().find(|(_, count)| count.came != count.arrived);
        match differs {
            Some(((table, range), Count { came, arrived })) => Err(Error::Corrupt(format!(
                "a load has {arrived} of {came} records of table {} (range {range}): please report \
                 this",
                table.0
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_lost_a_record_is_corrupt() {
        let tally = Tally::default();
        let (rows, entries, others) = ((TableId(1), 0), (TableId(1), 1), (TableId(2), 0));
        for place in [rows, entries] {
            tally.came(place, 5);
            tally.came(place, 2);
            tally.arrived(place, 7);
        }
        tally.check().unwrap();
        tally.came(others, 3);
        tally.arrived(others, 2);
        let error = tally.check().unwrap_err().to_string();
        assert!(error.contains("2 of 3 records of table 2"), "{error}");
        tally.forget(TableId(2));
        tally.check().unwrap();
        tally.arrived(entries, 1);
        assert!(matches!(tally.check(), Err(Error::Corrupt(_))));
    }
}
