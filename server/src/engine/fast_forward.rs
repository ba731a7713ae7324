//! A plan that was hydrated while commits went on is brought up to a later version.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kelvin_ivm::{ChangeSet, Plan, PlanState};
use kelvin_protocol::Version;
use kelvin_storage::Replica;

use super::HydrationError;
use super::step::DEFECT;
use super::thread::reads_any;

/// Moves a state to the version `to` by the changelog. Says whether the view changed.
///
/// # Errors
/// `Stale` where a table of the plan was altered or swept meanwhile.
pub(super) fn fast_forward(
    replica: &Replica,
    plan: &Plan,
    state: &mut PlanState,
    to: Version,
) -> Result<bool, HydrationError> {
    let from = state.version();
    let error = |error: kelvin_storage::Error| HydrationError::Failed(error.to_string());
    let applied = replica.changes(from, to).map_err(error)?;
    if reads_any(plan, &applied.altered) || reads_any(plan, &applied.swept) {
        return Err(HydrationError::Stale);
    }
    let changes = ChangeSet::new(applied);
    let (before, after) = (
        replica.at(from).map_err(error)?,
        replica.at(to).map_err(error)?,
    );
    // A panic in one plan must not take the others with it.
    let advance = AssertUnwindSafe(|| state.advance(&changes, &before, &after));
    let delta = catch_unwind(advance)
        .map_err(|_| HydrationError::Failed(DEFECT.to_owned()))?
        .map_err(|error| HydrationError::Failed(error.to_string()))?;
    Ok(!delta.rows.is_empty())
}
