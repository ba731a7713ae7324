//! What the last commits did to the live plans, for groups whose clients come back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kelvin_ivm::{DeltaLog, LoggedDelta, PlanId};
use kelvin_protocol::Version;
use kelvin_storage::TableId;
use roaring::RoaringBitmap;

/// Versions of the engine that are remembered, eight bytes each.
const VERSIONS: usize = 1 << 20;

/// A log is followed for as long as it touched no more rows than this, or than are in the view
/// [`VIEWS`] times. A longer one costs more than the two evaluations it spares.
const ROWS: usize = 1_000;
/// See [`ROWS`].
const VIEWS: u64 = 2;

/// The changelog is read in vain again only where so many times the rows may be looked at.
const RETRY_FROM: u64 = 2;

/// How clients that came back were brought up, in plans: one for each plan that a client had and
/// still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastCounts {
    /// By the plan's log, as far as the engine wrote it.
    pub logged: u64,
    /// By the plan's log, as far as it was read from the changelog.
    pub recalled: u64,
    /// By evaluating the plan at the client's version and now.
    pub evaluated: u64,
}

/// A plan's last steps, and who is in its view after them.
#[derive(Clone, Debug, Default)]
pub struct PlanPast {
    /// The steps after the version that was asked for, oldest first.
    pub deltas: Vec<Arc<LoggedDelta>>,
    /// Numbers of the rows in the view after the last of them, of the tables that were asked for.
    pub members: HashMap<TableId, RoaringBitmap>,
}

/// Rows that the log of a plan with so many rows may have touched.
pub(super) fn most_logged(rows: u64) -> usize {
    let rows = usize::try_from(rows.saturating_mul(VIEWS)).unwrap_or(usize::MAX);
    rows.max(ROWS)
}

/// The log of one plan.
struct Kept {
    log: DeltaLog,
    /// The version from which on the engine wrote it. What is older was read from the changelog,
    /// transaction by transaction.
    begun: Version,
    /// A version to which, and a number of rows with which, the changelog was read in vain.
    in_vain: Option<(Version, u64)>,
}

impl Kept {
    fn recalls(&self, version: Version) -> bool {
        (self.log.since()..self.begun).contains(&version)
    }
}

/// The logs of all live plans, within one bound of bytes.
///
/// # Invariants
/// * A log begins at a version the plan stood at in full, and ends where the plan stands.
pub(super) struct DeltaLogs {
    limit: usize,
    bytes: usize,
    logs: HashMap<PlanId, Kept>,
    /// The version of each log's oldest step.
    oldest: BTreeSet<(Version, PlanId)>,
    /// The versions the engine stood at, oldest first.
    ///
    /// INVARIANT: only at these is a log followed. Several transactions may be one step, and a view
    /// that is the same before and after may have been another in between. A client can hold a
    /// version in between where a power cut made the replica go back and follow in larger steps.
    stood: VecDeque<Version>,
}

impl DeltaLogs {
    /// Logs of at most `limit` bytes in all, of an engine that stands at `version`.
    pub(super) fn new(limit: usize, version: Version) -> Self {
        Self {
            limit,
            bytes: 0,
            logs: HashMap::new(),
            oldest: BTreeSet::new(),
            stood: VecDeque::from([version]),
        }
    }

    /// Memory the logs take, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The engine stands at a new version.
    pub(super) fn reached(&mut self, version: Version) {
        if self.stood.len() >= VERSIONS {
            self.stood.pop_front();
        }
        self.stood.push_back(version);
    }

    /// Begins the log of a plan that stands at `version`.
    pub(super) fn open(&mut self, plan: PlanId, version: Version) {
        self.forget(plan);
        let kept = Kept {
            log: DeltaLog::new(version),
            begun: version,
            in_vain: None,
        };
        self.logs.insert(plan, kept);
    }

    /// Drops the log of a plan.
    pub(super) fn forget(&mut self, plan: PlanId) {
        let Some(Kept { log, .. }) = self.logs.remove(&plan) else {
            return;
        };
        self.bytes -= log.bytes();
        if let Some(oldest) = log.oldest() {
            self.oldest.remove(&(oldest.version, plan));
        }
    }

    /// The log of a plan.
    pub(super) fn get(&self, plan: PlanId) -> Option<&DeltaLog> {
        Some(&self.logs.get(&plan)?.log)
    }

    /// Adds a step of a plan whose view has `rows` rows now.
    pub(super) fn push(&mut self, plan: PlanId, delta: LoggedDelta, rows: u64) {
        let Some(Kept { log, .. }) = self.logs.get_mut(&plan) else {
            return;
        };
        if log.is_empty() {
            self.oldest.insert((delta.version, plan));
        }
        self.bytes += delta.bytes();
        log.push(Arc::new(delta));
        self.shorten(plan, rows);
    }

    /// Lets the log of a plan begin at `to` instead of `since`, with these steps in between, oldest
    /// first. Nothing happens where it does not begin at `since` any more.
    pub(super) fn extend_back(
        &mut self,
        plan: PlanId,
        (since, to): (Version, Version),
        deltas: Vec<Arc<LoggedDelta>>,
        rows: u64,
    ) {
        let kept = self.logs.get_mut(&plan);
        let Some(kept) = kept.filter(|kept| kept.log.since() == since) else {
            return;
        };
        if let Some(oldest) = kept.log.oldest() {
            self.oldest.remove(&(oldest.version, plan));
        }
        self.bytes += deltas.iter().map(|delta| delta.bytes()).sum::<usize>();
        kept.log.extend_back(to, deltas);
        if let Some(oldest) = kept.log.oldest() {
            self.oldest.insert((oldest.version, plan));
        }
        self.shorten(plan, rows);
    }

    /// Keeps the bounds.
    fn shorten(&mut self, plan: PlanId, rows: u64) {
        let most = most_logged(rows);
        let long = |kept: &Kept| kept.log.rows() > most;
        while self.logs.get(&plan).is_some_and(long) {
            self.pop_oldest(plan);
        }
        while self.bytes > self.limit
            && let Some((_, oldest)) = self.oldest.first().copied()
        {
            self.pop_oldest(oldest);
        }
    }

    fn pop_oldest(&mut self, plan: PlanId) {
        let Some(Kept { log, .. }) = self.logs.get_mut(&plan) else {
            return;
        };
        let Some(gone) = log.pop_oldest() else { return };
        self.bytes -= gone.bytes();
        self.oldest.remove(&(gone.version, plan));
        if let Some(next) = log.oldest() {
            self.oldest.insert((next.version, plan));
        }
    }

    /// The steps of a plan after `version`, if its log reaches back to it.
    pub(super) fn after(&self, plan: PlanId, version: Version) -> Option<Vec<Arc<LoggedDelta>>> {
        let kept = self.logs.get(&plan)?;
        if !kept.recalls(version) {
            self.stood.binary_search(&version).ok()?;
        }
        kept.log.after(version)
    }

    /// Whether what is known of the plan after `version` was read from the changelog.
    pub(super) fn is_recalled(&self, plan: PlanId, version: Version) -> bool {
        let kept = self.logs.get(&plan);
        kept.is_some_and(|kept| kept.recalls(version))
    }

    /// Whether it may help to read the changelog back to `version`, looking at so many rows.
    pub(super) fn may_recall(&self, plan: PlanId, version: Version, most: u64) -> bool {
        self.logs.get(&plan).is_some_and(|kept| {
            let in_vain = kept.in_vain.is_some_and(|(to, tried)| {
                version <= to && most < tried.saturating_mul(RETRY_FROM)
            });
            version < kept.log.since() && !in_vain
        })
    }

    /// Reading the changelog back to `version`, looking at so many rows, did not help.
    pub(super) fn note_in_vain(&mut self, plan: PlanId, version: Version, most: u64) {
        if let Some(kept) = self.logs.get_mut(&plan) {
            kept.in_vain = Some((version, most));
        }
    }
}

#[cfg(test)]
mod tests {
    use kelvin_ivm::{PlanDelta, RowKeys};
    use kelvin_storage::Catalog;

    use super::*;

    fn plan(number: u8) -> PlanId {
        PlanId([number; 16])
    }

    /// A step that touched nothing that needs memory beyond its own.
    fn step(from: Version, version: Version) -> LoggedDelta {
        let catalog = Catalog::default();
        let delta = PlanDelta::default();
        LoggedDelta::new((from, version), &delta, &catalog, &mut RowKeys::default())
    }

    fn versions(logs: &DeltaLogs, plan: PlanId, after: Version) -> Option<Vec<Version>> {
        let deltas = logs.after(plan, after)?;
        Some(deltas.iter().map(|delta| delta.version).collect())
    }

    #[test]
    fn a_log_is_followed_only_from_versions_the_engine_stood_at() {
        let mut logs = DeltaLogs::new(1 << 20, 100);
        logs.open(plan(1), 100);
        logs.reached(120);
        logs.push(plan(1), step(100, 120), 10);
        logs.reached(140);
        assert_eq!(versions(&logs, plan(1), 100), Some(vec![120]));
        assert_eq!(versions(&logs, plan(1), 120), Some(vec![]));
        assert_eq!(versions(&logs, plan(1), 140), Some(vec![]));
        for between in [90, 110, 130] {
            assert_eq!(versions(&logs, plan(1), between), None, "{between}");
        }
    }

    #[test]
    fn of_all_logs_the_oldest_step_is_dropped_first() {
        let mut logs = DeltaLogs::new(2 * step(0, 1).bytes(), 100);
        for number in [1, 2] {
            logs.open(plan(number), 100);
        }
        for (number, version) in [(1, 110), (2, 120), (2, 130)] {
            logs.reached(version);
            logs.push(plan(number), step(version - 10, version), 10);
        }
        assert_eq!(logs.bytes(), 2 * step(0, 1).bytes());
        assert_eq!(versions(&logs, plan(1), 100), None);
        assert_eq!(versions(&logs, plan(1), 110), Some(vec![]));
        assert_eq!(versions(&logs, plan(2), 100), Some(vec![120, 130]));
        logs.forget(plan(2));
        assert_eq!((logs.bytes(), logs.oldest.len()), (0, 0));
    }
}
