//! Which of many intervals a value lies in.

use std::cmp::Ordering;

use kelvin_protocol::ValueRef;

use super::interval::{Edge, Interval, begins_before, cmp_high, ends_after};
use super::rank::{rank, rank_of_high, rank_of_low};

/// Intervals with what they lead to: a treap by their low edges, where each node knows how far its
/// subtree reaches. Asking costs the logarithm of their number for each interval found, and once
/// more; so do adding and removing.
///
/// A descent compares ranks, which lie close together, and looks at values only where ranks are
/// equal.
#[derive(Clone, Debug, Default)]
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    /// What a node stands for, at the same position.
    entries: Vec<Entry>,
    free: Vec<u32>,
    root: Link,
    /// Of the numbers that give nodes their place; they keep the tree balanced whatever comes in
    /// whichever order.
    seed: u64,
}

type Link = Option<u32>;

/// Ranks of the edges, and the children.
#[derive(Clone, Copy, Debug)]
struct Node {
    low: u64,
    high: u64,
    reach: u64,
    left: Link,
    right: Link,
}

#[derive(Clone, Debug)]
struct Entry {
    interval: Interval,
    target: u32,
    priority: u64,
    /// The last high edge in the subtree.
    reach: Option<Edge>,
}

impl Entry {
    fn cmp(&self, interval: &Interval, target: u32) -> Ordering {
        self.interval
            .cmp(interval)
            .then_with(|| self.target.cmp(&target))
    }
}

impl IntervalTree {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Adds an interval. The same one may lead to several targets, once to each.
    pub(super) fn insert(&mut self, interval: Interval, target: u32) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (before, after) = self.split(self.root, &interval, target);
        let high = rank_of_high(interval.high.as_ref());
        let node = Node {
            low: rank_of_low(interval.low.as_ref()),
            high,
            reach: high,
            left: None,
            right: None,
        };
        let entry = Entry {
            reach: interval.high.clone(),
            interval,
            target,
            priority: mixed(self.seed),
        };
        let new = self.place(node, entry);
        let upto = self.merge(before, Some(new));
        self.root = self.merge(upto, after);
    }

    /// Removes what was inserted.
    pub(super) fn remove(&mut self, interval: &Interval, target: u32) {
        self.root = self.without(self.root, interval, target);
    }

    /// Calls `each` with the target of every interval that the value lies in.
    pub(super) fn find(&self, value: ValueRef<'_>, each: &mut impl FnMut(u32)) {
        self.find_below(self.root, (rank(value), value), each);
    }

    fn find_below(
        &self,
        link: Link,
        (ranked, value): (u64, ValueRef<'_>),
        each: &mut impl FnMut(u32),
    ) {
        let mut next = link;
        while let Some(at) = next {
            let (node, entry) = (&self.nodes[at as usize], &self.entries[at as usize]);
            let reaches = match node.reach.cmp(&ranked) {
                Ordering::Equal => ends_after(entry.reach.as_ref(), value),
                ordering => ordering.is_gt(),
            };
            if !reaches {
                return;
            }
            self.find_below(node.left, (ranked, value), each);
            let begins = match node.low.cmp(&ranked) {
                Ordering::Equal => begins_before(entry.interval.low.as_ref(), value),
                ordering => ordering.is_lt(),
            };
            if !begins {
                return;
            }
            let ends = match node.high.cmp(&ranked) {
                Ordering::Equal => ends_after(entry.interval.high.as_ref(), value),
                ordering => ordering.is_gt(),
            };
            if ends {
                each(entry.target);
            }
            next = node.right;
        }
    }

    fn place(&mut self, node: Node, entry: Entry) -> u32 {
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            self.entries[at as usize] = entry;
            return at;
        }
        self.nodes.push(node);
        self.entries.push(entry);
        (self.nodes.len() - 1) as u32
    }

    /// Nodes before the interval, and those after it.
    fn split(&mut self, link: Link, interval: &Interval, target: u32) -> (Link, Link) {
        let Some(at) = link else {
            return (None, None);
        };
        let node = self.nodes[at as usize];
        if self.entries[at as usize].cmp(interval, target).is_lt() {
            let (before, after) = self.split(node.right, interval, target);
            self.nodes[at as usize].right = before;
            self.measure(at);
            (Some(at), after)
        } else {
            let (before, after) = self.split(node.left, interval, target);
            self.nodes[at as usize].left = after;
            self.measure(at);
            (before, Some(at))
        }
    }

    /// All nodes of both, where those of the first come before those of the second.
    fn merge(&mut self, first: Link, second: Link) -> Link {
        let (Some(a), Some(b)) = (first, second) else {
            return first.or(second);
        };
        if self.entries[a as usize].priority >= self.entries[b as usize].priority {
            let right = self.merge(self.nodes[a as usize].right, second);
            self.nodes[a as usize].right = right;
            self.measure(a);
            Some(a)
        } else {
            let left = self.merge(first, self.nodes[b as usize].left);
            self.nodes[b as usize].left = left;
            self.measure(b);
            Some(b)
        }
    }

    fn without(&mut self, link: Link, interval: &Interval, target: u32) -> Link {
        let at = link?;
        let Node { left, right, .. } = self.nodes[at as usize];
        match self.entries[at as usize].cmp(interval, target) {
            Ordering::Equal => {
                self.free.push(at);
                return self.merge(left, right);
            }
            Ordering::Less => self.nodes[at as usize].right = self.without(right, interval, target),
            Ordering::Greater => {
                self.nodes[at as usize].left = self.without(left, interval, target);
            }
        }
        self.measure(at);
        Some(at)
    }

    /// Finds out anew how far the node's subtree reaches.
    fn measure(&mut self, at: u32) {
        let node = self.nodes[at as usize];
        let mut furthest = self.entries[at as usize].interval.high.as_ref();
        for child in [node.left, node.right].into_iter().flatten() {
            let reach = self.entries[child as usize].reach.as_ref();
            if cmp_high(reach, furthest).is_gt() {
                furthest = reach;
            }
        }
        let reach = furthest.cloned();
        self.nodes[at as usize].reach = rank_of_high(reach.as_ref());
        self.entries[at as usize].reach = reach;
    }
}

/// SplitMix64: bits that look random, from a counter.
fn mixed(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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

    proptest! {
        #[test]
        fn exactly_the_intervals_that_hold_a_value_are_found(
            steps in proptest::collection::vec((interval(), any::<bool>(), any::<u16>()), 0..80),
            values in proptest::collection::vec(value(), 1..20),
        ) {
            let mut tree = IntervalTree::default();
            let mut model: Vec<(Interval, u32)> = Vec::new();
            for (number, (interval, remove, pick)) in (0_u32..).zip(steps) {
                if remove && !model.is_empty() {
                    let (interval, target) = model.swap_remove(pick as usize % model.len());
                    tree.remove(&interval, target);
                } else {
                    tree.insert(interval.clone(), number);
                    model.push((interval, number));
                }
            }
            prop_assert_eq!(tree.is_empty(), model.is_empty());
            for value in values {
                let mut found = Vec::new();
                tree.find(value.as_ref(), &mut |target| found.push(target));
                found.sort_unstable();
                let inside = model.iter().filter(|(interval, _)| holds(interval, &value));
                let mut expected: Vec<u32> = inside.map(|(_, target)| *target).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn an_intersection_holds_what_both_hold(a in interval(), b in interval(), value in value()) {
            let both = a.intersection(&b);
            prop_assert_eq!(holds(&both, &value), holds(&a, &value) && holds(&b, &value));
            prop_assert!(!(both.is_empty() && holds(&both, &value)));
        }
    }
}
