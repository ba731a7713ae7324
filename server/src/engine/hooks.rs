//! What only tests can do: look on, hold up, or break a plan.

use std::fmt;
use std::sync::Arc;

use kelvin_ivm::Plan;

/// Called with a plan that something is about to be done with.
#[derive(Clone)]
pub struct PlanHook(Arc<dyn Fn(&Plan) + Send + Sync>);

impl PlanHook {
    pub fn new(hook: impl Fn(&Plan) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn call(&self, plan: &Plan) {
        (self.0)(plan);
    }
}

impl fmt::Debug for PlanHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlanHook")
    }
}

/// The hooks of one engine.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Before a plan is moved over a commit.
    pub advance: Option<PlanHook>,
    /// Whenever a long hydration has asked whether to go on.
    pub hydrate: Option<PlanHook>,
}
