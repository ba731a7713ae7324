//! What the last steps did to a view, for clients that come back to it.
//!
//! A log names rows and holds none: whoever follows it reads them from the replica, at either end,
//! where they differ.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kelvin_protocol::{Value, Version};
use kelvin_storage::{Catalog, RowId, TableId};

use crate::PlanDelta;

/// The replica's key of a row: one value for each of the table's `key` columns.
pub type RowKey = Arc<[Value]>;

/// One row that a step touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRow {
    /// The table.
    pub table: TableId,
    /// Its key.
    pub key: RowKey,
    /// Whether it was in the view before.
    pub was: bool,
    /// Whether it is in the view after.
    pub is: bool,
}

/// What one step did to a view: a [`PlanDelta`] without rows.
#[derive(Clone, Debug)]
pub struct LoggedDelta {
    /// Version before the step.
    pub from: Version,
    /// Version after it.
    pub version: Version,
    /// The rows it touched, each once.
    pub rows: Box<[LoggedRow]>,
    bytes: usize,
}

/// Keys of the rows of one step, made once for all plans.
#[derive(Default)]
pub struct RowKeys {
    keys: HashMap<(TableId, RowId), RowKey>,
}

impl LoggedDelta {
    /// What there is to log of the step from `from` to `version`. `catalog` is that of either end.
    #[must_use]
    pub fn new(
        (from, version): (Version, Version),
        delta: &PlanDelta,
        catalog: &Catalog,
        keys: &mut RowKeys,
    ) -> Self {
        let logged = delta.rows.iter().filter_map(|change| {
            let table = catalog.table_by_id(change.table)?;
            let row = change.new.as_ref().or(change.old.as_ref())?;
            let key = keys.keys.entry((table.id, row.id));
            let key = key.or_insert_with(|| row.project(&table.key).into());
            Some(LoggedRow {
                table: table.id,
                key: Arc::clone(key),
                was: change.old.is_some(),
                is: change.new.is_some(),
            })
        });
        let rows: Box<[LoggedRow]> = logged.collect();
        let bytes = size_of::<Self>() + rows.iter().map(bytes_of).sum::<usize>();
        Self {
            from,
            version,
            rows,
            bytes,
        }
    }

    /// The same step the other way round.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.from, &mut self.version);
        for row in &mut self.rows {
            std::mem::swap(&mut row.was, &mut row.is);
        }
        self
    }

    /// Memory it takes, roughly. Keys that it shares with others count in full.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes_of(row: &LoggedRow) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) | Value::Json(text) => text.len(),
        _ => 0,
    };
    let values: usize = row.key.iter().map(|v| size_of::<Value>() + text(v)).sum();
    size_of::<LoggedRow>() + values
}

/// The steps of one plan since a version, without those that left its view as it was.
///
/// # Invariants
/// * From [`since`](Self::since) on every step that changed the view is in it, oldest first.
#[derive(Clone, Debug)]
pub struct DeltaLog {
    since: Version,
    deltas: VecDeque<Arc<LoggedDelta>>,
    rows: usize,
    bytes: usize,
}

impl DeltaLog {
    /// The log of a view that stands at `since`.
    #[must_use]
    pub fn new(since: Version) -> Self {
        Self {
            since,
            deltas: VecDeque::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// The version since which it is complete.
    #[must_use]
    pub fn since(&self) -> Version {
        self.since
    }

    /// Steps in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Whether the view has not changed since [`since`](Self::since).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Rows its steps touched, once for each step.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Memory its steps take, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest step.
    #[must_use]
    pub fn oldest(&self) -> Option<&Arc<LoggedDelta>> {
        self.deltas.front()
    }

    /// Adds the newest step.
    pub fn push(&mut self, delta: Arc<LoggedDelta>) {
        self.rows += delta.rows.len();
        self.bytes += delta.bytes;
        self.deltas.push_back(delta);
    }

    /// Lets the log begin at `since` with these steps, oldest first, which are all that changed the
    /// view between then and where the log began.
    pub fn extend_back(&mut self, since: Version, deltas: Vec<Arc<LoggedDelta>>) {
        for delta in deltas.into_iter().rev() {
            self.rows += delta.rows.len();
            self.bytes += delta.bytes;
            self.deltas.push_front(delta);
        }
        self.since = since;
    }

    /// Lets go of the oldest step; the log is complete only since then.
    pub fn pop_oldest(&mut self) -> Option<Arc<LoggedDelta>> {
        let delta = self.deltas.pop_front()?;
        self.rows -= delta.rows.len();
        self.bytes -= delta.bytes;
        self.since = self.since.max(delta.version);
        Some(delta)
    }

    /// The steps after `version`, if the log reaches back to it.
    #[must_use]
    pub fn after(&self, version: Version) -> Option<Vec<Arc<LoggedDelta>>> {
        let first = self
            .deltas
            .partition_point(|delta| delta.version <= version);
        let within = self
            .deltas
            .get(first)
            .is_some_and(|delta| delta.from < version);
        (version >= self.since && !within)
            .then(|| self.deltas.range(first..).map(Arc::clone).collect())
    }
}

/// Whether a row was in a view, and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// At the older version.
    pub was: bool,
    /// At the newer one.
    pub is: bool,
}

type ByKey<T> = HashMap<TableId, HashMap<RowKey, T>>;

/// The net effect of logged steps between two versions.
///
/// The log may go on beyond the newer version, which matters where membership is asked of a state
/// that has gone on, too.
#[derive(Clone, Debug, Default)]
pub struct NetTouches {
    touched: ByKey<Touch>,
    /// Rows that only later steps touched: whether they were in the view before that.
    later: ByKey<bool>,
}

impl NetTouches {
    /// What `deltas`, the steps after the older version, did up to `until`.
    #[must_use]
    pub fn new(deltas: &[Arc<LoggedDelta>], until: Version) -> Self {
        let mut net = Self::default();
        for delta in deltas {
            for row in &delta.rows {
                if delta.version <= until {
                    let touch = Touch {
                        was: row.was,
                        is: row.is,
                    };
                    let of_table = net.touched.entry(row.table).or_default();
                    let known = of_table.entry(Arc::clone(&row.key)).or_insert(touch);
                    known.is = row.is;
                } else {
                    let of_table = net.later.entry(row.table).or_default();
                    of_table.entry(Arc::clone(&row.key)).or_insert(row.was);
                }
            }
        }
        net
    }

    /// The rows that were touched. One that was in the view and is may have changed or not.
    pub fn rows(&self) -> impl Iterator<Item = (TableId, &RowKey, Touch)> + '_ {
        self.touched
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(|(key, touch)| (*table, key, *touch)))
    }

    /// Whether the row was in the view all the time between the two versions, untouched. `now` says
    /// whether it is in the view at the end of the log.
    #[must_use]
    pub fn stayed(&self, table: TableId, key: &[Value], now: impl FnOnce() -> bool) -> bool {
        let touched = self.touched.get(&table);
        if touched.is_some_and(|rows| rows.contains_key(key)) {
            return false;
        }
        let later = self.later.get(&table).and_then(|rows| rows.get(key));
        later.copied().unwrap_or_else(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(version: Version, text: &str) -> Arc<LoggedDelta> {
        let rows: Box<[LoggedRow]> = Box::new([LoggedRow {
            table: TableId(1),
            key: Arc::from([Value::from(text)]),
            was: true,
            is: false,
        }]);
        let bytes = size_of::<LoggedDelta>() + rows.iter().map(bytes_of).sum::<usize>();
        Arc::new(LoggedDelta {
            from: version - 1,
            version,
            rows,
            bytes,
        })
    }

    #[test]
    fn a_log_counts_what_it_holds_whichever_end_it_grows_and_shrinks_at() {
        let (short, long) = (step(5, "a"), step(3, &"a".repeat(1001)));
        assert_eq!(long.bytes() - short.bytes(), 1000);
        let held = size_of::<LoggedDelta>() + size_of::<LoggedRow>();
        assert!(short.bytes() > held);
        let mut log = DeltaLog::new(4);
        assert!(log.is_empty());
        log.push(short.clone());
        assert!(!log.is_empty());
        log.extend_back(2, vec![long.clone(), step(4, "b")]);
        assert_eq!((log.since(), log.len(), log.rows()), (2, 3, 3));
        assert_eq!(log.bytes(), long.bytes() + 2 * short.bytes());
        assert_eq!(log.pop_oldest().map(|oldest| oldest.version), Some(3));
        assert_eq!((log.since(), log.len(), log.rows()), (3, 2, 2));
        assert_eq!(log.bytes(), 2 * short.bytes());
    }
}
