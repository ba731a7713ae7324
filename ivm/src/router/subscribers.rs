//! The plans of a group.

use std::collections::BTreeMap;

use crate::plan::PlanId;

/// Plans with the number of their nodes in a group. Most groups have one, which is kept without a
/// tree of its own: there are as many of these as there are plans.
#[derive(Debug)]
pub(super) enum Subscribers {
    One(PlanId, usize),
    /// More than one at some time.
    Many(BTreeMap<PlanId, usize>),
}

impl Subscribers {
    /// None yet.
    pub(super) fn none() -> Self {
        Self::Many(BTreeMap::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::One(_, nodes) => *nodes == 0,
            Self::Many(plans) => plans.is_empty(),
        }
    }

    /// Adds a node of a plan.
    pub(super) fn add(&mut self, plan: PlanId) {
        match self {
            Self::One(one, nodes) if *one == plan => *nodes += 1,
            Self::One(_, 0) => *self = Self::One(plan, 1),
            Self::One(one, nodes) => {
                *self = Self::Many(BTreeMap::from([(*one, *nodes), (plan, 1)]));
            }
            Self::Many(plans) if plans.is_empty() => *self = Self::One(plan, 1),
            Self::Many(plans) => *plans.entry(plan).or_default() += 1,
        }
    }

    /// Takes a node of a plan away.
    pub(super) fn remove(&mut self, plan: &PlanId) {
        match self {
            Self::One(one, nodes) if one == plan => *nodes = nodes.saturating_sub(1),
            Self::One(..) => {}
            Self::Many(plans) => {
                if let Some(nodes) = plans.get_mut(plan) {
                    *nodes -= 1;
                    if *nodes == 0 {
                        plans.remove(plan);
                    }
                }
            }
        }
    }

    pub(super) fn plans(&self) -> impl Iterator<Item = PlanId> + '_ {
        let (one, many) = match self {
            Self::One(one, _) => (Some(*one), None),
            Self::Many(plans) => (None, Some(plans.keys().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_there_until_its_last_node_is_gone() {
        let [a, b] = [PlanId([1; 16]), PlanId([2; 16])];
        let mut plans = Subscribers::none();
        assert!(plans.is_empty());
        for plan in [b, b, a] {
            plans.add(plan);
        }
        plans.remove(&b);
        assert_eq!(plans.plans().collect::<Vec<_>>(), [a, b]);
        plans.remove(&b);
        plans.remove(&b);
        assert_eq!(plans.plans().collect::<Vec<_>>(), [a]);
        plans.remove(&a);
        assert!(plans.is_empty());
        plans.add(b);
        plans.add(b);
        plans.remove(&a);
        plans.remove(&b);
        assert_eq!(plans.plans().collect::<Vec<_>>(), [b]);
        plans.remove(&b);
        assert!(plans.is_empty());
    }
}
