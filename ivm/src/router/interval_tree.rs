//! Which of many intervals a value lies in.

use std::cmp::Ordering;

use kelvin_protocol::ValueRef;

use super::interval::{Edge, Interval, begins_before, cmp_high, ends_after};
use super::rank::rank;
use super::spans::{Spans, WIDTH};

/// A node with fewer members is joined to a neighbour, where one node can hold both.
const FEW: usize = WIDTH / 4;

/// Intervals with what they lead to: a tree of wide nodes in the order of low edges, where each
/// node knows how far its children reach. Asking costs a look at one node of each level, of which
/// a hundred thousand intervals have three or four, and as much again for each interval found;
/// adding and removing cost about the same.
///
/// A descent compares ranks, which lie close together, and looks at values only where ranks are
/// equal.
#[derive(Debug, Default)]
pub(super) struct IntervalTree {
    root: Node,
}

/// INVARIANT: of each member, the spans hold the ranks: those of its edges, or of the first low and
/// the last high edge below it. A node holds fewer members than it has room for, and only the root
/// may hold none; all leaves are equally far from the root.
#[derive(Debug, Default)]
struct Node {
    spans: Spans,
    members: Members,
}

#[derive(Debug)]
enum Members {
    Intervals(Vec<Entry>),
    Nodes(Vec<Child>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Intervals(Vec::new())
    }
}

#[derive(Debug)]
struct Entry {
    interval: Interval,
    target: u32,
}

impl Entry {
    fn cmp(&self, interval: &Interval, target: u32) -> Ordering {
        self.interval
            .cmp(interval)
            .then_with(|| self.target.cmp(&target))
    }
}

#[derive(Debug)]
struct Child {
    /// The last high edge below.
    reach: Option<Edge>,
    node: Box<Node>,
}

impl IntervalTree {
    pub(super) fn is_empty(&self) -> bool {
        self.root.len() == 0
    }

    /// Adds an interval. The same one may lead to several targets, once to each.
    pub(super) fn insert(&mut self, interval: Interval, target: u32) {
        if let Some(right) = self.root.insert(Entry { interval, target }) {
            let left = std::mem::take(&mut self.root);
            let mut root = Node {
                spans: Spans::default(),
                members: Members::Nodes(Vec::with_capacity(WIDTH)),
            };
            root.adopt(0, left);
            root.adopt(1, right);
            self.root = root;
        }
    }

    /// Removes what was inserted.
    pub(super) fn remove(&mut self, interval: &Interval, target: u32) {
        self.root.remove(interval, target);
        while let Members::Nodes(children) = &mut self.root.members
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = *only.node;
        }
    }

    /// Calls `each` with the target of every interval that the value lies in.
    pub(super) fn find(&self, value: ValueRef<'_>, each: &mut impl FnMut(u32)) {
        self.root.find((rank(value), value), each);
    }
}

impl Node {
    fn len(&self) -> usize {
        match &self.members {
            Members::Intervals(entries) => entries.len(),
            Members::Nodes(children) => children.len(),
        }
    }

    fn first(&self) -> Option<&Entry> {
        match &self.members {
            Members::Intervals(entries) => entries.first(),
            Members::Nodes(children) => children.first()?.node.first(),
        }
    }

    fn find(&self, (ranked, value): (u64, ValueRef<'_>), each: &mut impl FnMut(u32)) {
        for at in self.spans.around(ranked) {
            let (low_is_equal, high_is_equal) = self.spans.touch(at, ranked);
            match &self.members {
                Members::Intervals(entries) => {
                    let Entry { interval, target } = &entries[at];
                    if (!low_is_equal || begins_before(interval.low.as_ref(), value))
                        && (!high_is_equal || ends_after(interval.high.as_ref(), value))
                    {
                        each(*target);
                    }
                }
                // Where the next child begins before the value, too, all of this one does, and
                // what reaches furthest holds it: only the last child can be asked in vain.
                Members::Nodes(children) => {
                    let Child { reach, node } = &children[at];
                    if (!low_is_equal || node.begins_before(value))
                        && (!high_is_equal || ends_after(reach.as_ref(), value))
                    {
                        node.find((ranked, value), each);
                    }
                }
            }
        }
    }

    fn begins_before(&self, value: ValueRef<'_>) -> bool {
        self.first()
            .is_some_and(|first| begins_before(first.interval.low.as_ref(), value))
    }

    /// Adds an entry; gives the later part of the node where it was full.
    fn insert(&mut self, entry: Entry) -> Option<Self> {
        let at = match &mut self.members {
            Members::Intervals(entries) => {
                let Entry { interval, target } = &entry;
                let at = entries.partition_point(|other| other.cmp(interval, *target).is_lt());
                self.spans.insert(at, interval);
                entries.insert(at, entry);
                at
            }
            Members::Nodes(children) => {
                let at = child_for(children, &entry.interval, entry.target);
                let right = children[at].node.insert(entry);
                self.measure(at);
                if let Some(right) = right {
                    self.adopt(at + 1, right);
                }
                at + 1
            }
        };
        // Those that come in order leave full nodes behind, not half empty ones.
        let last = WIDTH - 1;
        let middle = if at >= last { last } else { WIDTH / 2 };
        (self.len() == WIDTH).then(|| self.split_off(middle))
    }

    fn remove(&mut self, interval: &Interval, target: u32) {
        match &mut self.members {
            Members::Intervals(entries) => {
                let found = entries.binary_search_by(|other| other.cmp(interval, target));
                if let Ok(at) = found {
                    entries.remove(at);
                    self.spans.remove(at);
                }
            }
            Members::Nodes(children) => {
                let at = child_for(children, interval, target);
                children[at].node.remove(interval, target);
                let left = children[at].node.len();
                if left == 0 {
                    children.remove(at);
                    self.spans.remove(at);
                    return;
                }
                self.measure(at);
                if left < FEW {
                    self.join(at);
                    self.join(at.wrapping_sub(1));
                }
            }
        }
    }

    /// Makes one of the child at a position and the next, if there are both and one node can hold
    /// them.
    fn join(&mut self, at: usize) {
        let Members::Nodes(children) = &mut self.members else {
            return;
        };
        let next = at.wrapping_add(1);
        let (Some(child), Some(neighbour)) = (children.get(at), children.get(next)) else {
            return;
        };
        if child.node.len() + neighbour.node.len() >= WIDTH {
            return;
        }
        let neighbour = children.remove(next);
        self.spans.remove(next);
        let node = &mut children[at].node;
        node.spans.append(node.len(), &neighbour.node.spans);
        match (&mut node.members, neighbour.node.members) {
            (Members::Intervals(entries), Members::Intervals(more)) => entries.extend(more),
            (Members::Nodes(children), Members::Nodes(more)) => children.extend(more),
            // No two nodes of one level are of different kinds.
            _ => {}
        }
        self.measure(at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            spans: self.spans.split_off(at),
            members: match &mut self.members {
                Members::Intervals(entries) => Members::Intervals(entries.split_off(at)),
                Members::Nodes(children) => Members::Nodes(children.split_off(at)),
            },
        }
    }

    /// Takes in a child.
    fn adopt(&mut self, at: usize, node: Self) {
        if let Members::Nodes(children) = &mut self.members {
            let child = Child {
                reach: None,
                node: Box::new(node),
            };
            children.insert(at, child);
            self.spans.insert(at, &Interval::default());
            self.measure(at);
        }
    }

    /// Finds out anew where the child at a position begins and how far it reaches.
    fn measure(&mut self, at: usize) {
        if let Members::Nodes(children) = &mut self.members {
            let Child { reach, node } = &mut children[at];
            self.spans.set(at, node.spans.extent());
            *reach = node.reach().cloned();
        }
    }

    /// The last high edge below; none where one is open.
    fn reach(&self) -> Option<&Edge> {
        let furthest = self.spans.furthest(self.len());
        let edges = furthest.map(|at| match &self.members {
            Members::Intervals(entries) => entries[at].interval.high.as_ref(),
            Members::Nodes(children) => children[at].reach.as_ref(),
        });
        edges.max_by(|a, b| cmp_high(*a, *b)).flatten()
    }
}

/// Position of the child that holds such an entry, if one does.
fn child_for(children: &[Child], interval: &Interval, target: u32) -> usize {
    let before = |child: &Child| {
        let first = child.node.first();
        first.is_some_and(|first| first.cmp(interval, target).is_le())
    };
    children.partition_point(before).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Value;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            1 => Just(Value::Null),
            8 => (0..12_u8).prop_map(|n| Value::from(f64::from(n))),
            1 => "[a-c]{0,2}".prop_map(Value::from),
        ]
    }

    fn edge() -> impl Strategy<Value = Option<Edge>> {
        let edge =
            (value(), any::<bool>()).prop_map(|(value, inclusive)| Edge { value, inclusive });
        proptest::option::weighted(0.8, edge)
    }

    fn interval() -> impl Strategy<Value = Interval> {
        (edge(), edge()).prop_map(|(low, high)| Interval { low, high })
    }

    fn holds(interval: &Interval, value: &Value) -> bool {
        begins_before(interval.low.as_ref(), value.as_ref())
            && ends_after(interval.high.as_ref(), value.as_ref())
    }

    /// Adds and removes, and asks for values in between.
    fn check(steps: Vec<(Interval, bool, u16)>, values: &[Value]) -> Result<(), TestCaseError> {
        let mut tree = IntervalTree::default();
        let mut model: Vec<(Interval, u32)> = Vec::new();
        let often = steps.len() / 8 + 1;
        for (number, (interval, remove, pick)) in (0_u32..).zip(steps) {
            if remove && !model.is_empty() {
                let (interval, target) = model.swap_remove(pick as usize % model.len());
                tree.remove(&interval, target);
            } else {
                tree.insert(interval.clone(), number);
                model.push((interval, number));
            }
            if (number as usize).is_multiple_of(often) {
                agree(&tree, &model, values)?;
            }
        }
        agree(&tree, &model, values)?;
        while let Some((interval, target)) = model.pop() {
            tree.remove(&interval, target);
            if model.len().is_multiple_of(often) {
                agree(&tree, &model, values)?;
            }
        }
        prop_assert!(tree.is_empty());
        Ok(())
    }

    fn agree(
        tree: &IntervalTree,
        model: &[(Interval, u32)],
        values: &[Value],
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(tree.is_empty(), model.is_empty());
        for value in values {
            let mut found = Vec::new();
            tree.find(value.as_ref(), &mut |target| found.push(target));
            found.sort_unstable();
            let inside = model.iter().filter(|(interval, _)| holds(interval, value));
            let mut expected: Vec<u32> = inside.map(|(_, target)| *target).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_tree_of_several_levels_grows_and_shrinks_without_losing_any(
            mut steps in proptest::collection::vec((interval(), any::<bool>(), any::<u16>()), 0..3000),
            growing in 0..3000_usize,
            values in proptest::collection::vec(value(), 1..6),
        ) {
            // At first nothing is removed, so that there is something to remove.
            steps.iter_mut().take(growing).for_each(|(_, remove, _)| *remove = false);
            check(steps, &values)?;
        }
    }

    proptest! {
        #[test]
        fn exactly_the_intervals_that_hold_a_value_are_found(
            steps in proptest::collection::vec((interval(), any::<bool>(), any::<u16>()), 0..80),
            values in proptest::collection::vec(value(), 1..20),
        ) {
            check(steps, &values)?;
        }

        #[test]
        fn an_intersection_holds_what_both_hold(a in interval(), b in interval(), value in value()) {
            let both = a.intersection(&b);
            prop_assert_eq!(holds(&both, &value), holds(&a, &value) && holds(&b, &value));
            prop_assert!(!(both.is_empty() && holds(&both, &value)));
        }
    }
}
