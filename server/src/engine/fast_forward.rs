//! A plan that was hydrated while commits went on is brought up to a later version.
//!
//! What was committed meanwhile is read from the changelog in slices, so that no more of it than a
//! slice is in memory, however long the hydration took.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use kelvin_ivm::{ChangeSet, Plan, PlanState};
use kelvin_protocol::Version;
use kelvin_storage::Replica;

use super::HydrationError;
use super::step::{AdvanceLimits, DEFECT};
use super::thread::reads_any;

/// Changed rows of a slice, at most. A transaction with more, which is bounded by itself, is a slice
/// of its own.
pub(super) const SLICE_ROWS: u64 = 20_000;

/// Pairs of a transaction and a table it wrote to, of which it is found out at a time how many rows
/// they are.
const SLICE_PAIRS: usize = 10_000;

/// Moves a state to the version `to` by the changelog, in slices of `rows` changed rows. Says
/// whether the view changed.
///
/// # Errors
/// `Stale` where a table of the plan was altered or swept meanwhile.
pub(super) fn fast_forward(
    replica: &Replica,
    plan: &Plan,
    state: &mut PlanState,
    to: Version,
    (limits, rows): (AdvanceLimits, u64),
) -> Result<bool, HydrationError> {
    let mut changed = false;
    while state.version() < to {
        let end = slice_end(replica, state.version(), to, rows).map_err(|error| failed(&error))?;
        changed |= forward(replica, plan, state, end, limits)?;
    }
    Ok(changed)
}

fn failed(error: &kelvin_storage::Error) -> HydrationError {
    HydrationError::Failed(error.to_string())
}

/// The version at which the slice that begins after `from` ends, `to` at the latest.
fn slice_end(
    replica: &Replica,
    from: Version,
    to: Version,
    rows: u64,
) -> kelvin_storage::Result<Version> {
    let mut to = to;
    let written = loop {
        match replica.written(from, to, SLICE_PAIRS)? {
            Some(written) => break written,
            None if to - from <= 1 => return Ok(to),
            None => to = from + (to - from) / 2,
        }
    };
    let mut by_version: BTreeMap<Version, u64> = BTreeMap::new();
    for (version, rows) in written.rows.into_values().flatten() {
        *by_version.entry(version).or_default() += rows;
    }
    let (mut sum, mut end) = (0, None);
    for (version, more) in by_version {
        sum += more;
        match end {
            Some(end) if sum > rows => return Ok(end),
            _ => end = Some(version),
        }
    }
    Ok(to)
}

/// Moves a state over one slice.
fn forward(
    replica: &Replica,
    plan: &Plan,
    state: &mut PlanState,
    to: Version,
    limits: AdvanceLimits,
) -> Result<bool, HydrationError> {
    let from = state.version();
    let applied = replica.changes(from, to).map_err(|error| failed(&error))?;
    if reads_any(plan, &applied.altered) || reads_any(plan, &applied.swept) {
        return Err(HydrationError::Stale);
    }
    let changes = ChangeSet::new(applied);
    let (before, after) = (
        replica.at(from).map_err(|error| failed(&error))?,
        replica.at(to).map_err(|error| failed(&error))?,
    );
    let budget = limits.budget(Instant::now());
    // A panic in one plan must not take the others with it.
    let advance = AssertUnwindSafe(|| state.advance_within(&changes, &before, &after, &budget));
    let delta = catch_unwind(advance)
        .map_err(|_| HydrationError::Failed(DEFECT.to_owned()))?
        .map_err(|error| HydrationError::Failed(limits.told(&error).message))?;
    Ok(!delta.rows.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use kelvin_ivm::Budget;
    use kelvin_storage::View;
    use serde_json::json;

    use super::*;
    use crate::engine::EngineOptions;
    use crate::engine::tests::{apply, insert, plan, replica};

    #[test]
    fn a_gap_is_followed_in_slices_of_bounded_size() {
        let (_dir, replica) = replica();
        apply(&replica, (0..50).map(|id| insert(id, 1, id)).collect());
        let from = replica.watermark();
        // Twenty commits of one row on either side of one of thirty.
        for id in 0..20 {
            apply(&replica, vec![insert(id, 2, 100 - id)]);
        }
        apply(&replica, (0..30).map(|id| insert(id, 3, id)).collect());
        for id in 0..20 {
            apply(&replica, vec![insert(id + 20, 4, 100 - id)]);
        }
        let (to, mut at, mut slices) = (replica.watermark(), from, Vec::new());
        while at < to {
            let end = slice_end(&replica, at, to, 7).unwrap();
            slices.push(replica.changes(at, end).unwrap().changes.len());
            at = end;
        }
        assert_eq!(slices, [7, 7, 6, 30, 7, 7, 6]);
    }

    #[test]
    fn a_view_is_the_same_whether_its_gap_is_followed_in_slices_or_as_a_whole() {
        let (_dir, replica) = replica();
        apply(&replica, (0..50).map(|id| insert(id, 1, id)).collect());
        let before = replica.latest().unwrap();
        for id in 0..40 {
            apply(&replica, vec![insert(id % 13, id % 3, 100 - id)]);
        }
        let top = json!({"table": "issue", "orderBy": [["votes", "desc"]], "limit": 10});
        let plan = plan(&replica, top);
        let hydrate = |view: &View| {
            let mut ignore = |_, _: &_| ControlFlow::Continue(());
            PlanState::hydrate(Arc::clone(&plan), view, &Budget::unlimited(), &mut ignore).unwrap()
        };
        let members = |state: &PlanState| -> BTreeSet<u32> {
            state.rows().flat_map(|(_, rows)| rows.iter()).collect()
        };
        let now = hydrate(&replica.latest().unwrap());
        let limits = AdvanceLimits::of(&EngineOptions::default());
        for rows in [1, 7, SLICE_ROWS] {
            let (mut state, to) = (hydrate(&before), replica.watermark());
            let forwarded = fast_forward(&replica, &plan, &mut state, to, (limits, rows));
            assert!(matches!(forwarded, Ok(true)));
            assert_eq!(state.version(), to);
            assert_eq!(members(&state), members(&now), "{rows}");
        }
    }
}
