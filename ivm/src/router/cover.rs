//! By what a condition is found: the few terms of which each row that meets it meets one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kelvin_protocol::{Direction, Value};

use super::condition::Condition;
use super::interval::{Edge, Interval};
use crate::check::Check;
use crate::like::{Part, Pattern};
use crate::order::Start;

/// Longest IN list whose values are listened to one by one; a longer one is one test.
const MAX_VALUES: usize = 1024;

/// How many rows a term may let through, as a guess: what matters is which comes first.
const A_VALUE: u64 = 1;
const CLOSED_RANGE: u64 = 50;
/// A range that is open on one side.
const OPEN_RANGE: u64 = 500;
/// A value that many rows have: a boolean or null.
const SHARED_VALUE: u64 = 2_000;
const NARROW_TEST: u64 = 5_000;
/// Not equal to something.
const WIDE_TEST: u64 = 20_000;
const EVERY_ROW: u64 = 1_000_000;

/// Something that finds rows.
#[derive(Clone, Debug)]
pub(super) enum Term {
    /// Rows that have this value in the column: one look-up for all of them.
    Value(usize, Value),
    /// Rows whose value lies in a stretch: one descent for all of them.
    Range(usize, Box<Interval>),
    /// Rows that pass a test: one evaluation for each distinct one.
    Test(usize, Arc<Check>),
    /// Every row.
    Always,
}

/// Terms one of which every row that meets a condition meets, and how many rows they may let
/// through.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    pub(super) terms: Vec<Term>,
    cost: u64,
}

impl Cover {
    /// The narrowest cover of a condition.
    pub(super) fn of(condition: &Condition) -> Self {
        match condition {
            Condition::Const(false) => Self::nothing(),
            Condition::Const(true) => Self::one(Term::Always, EVERY_ROW),
            Condition::Test { column, check } => Self::of_test(*column, check),
            Condition::From(start) => match start_range(start) {
                Some((column, interval)) => Self::of_range(column, interval),
                None => Self::one(Term::Always, EVERY_ROW),
            },
            Condition::All(members) => {
                let ranges = ranges(members).into_iter();
                let ranges = ranges.map(|(column, interval)| Self::of_range(column, interval));
                let covers = members.iter().map(Self::of).chain(ranges);
                let best = covers.min_by_key(|cover| cover.cost);
                best.unwrap_or_else(|| Self::one(Term::Always, EVERY_ROW))
            }
            Condition::Any(members) => {
                let mut all = Self::nothing();
                for member in members.iter().map(Self::of) {
                    all.terms.extend(member.terms);
                    all.cost = all.cost.saturating_add(member.cost);
                }
                all
            }
        }
    }

    /// Whether a stretch that is open on one side would be no worse.
    pub(super) fn is_wide(&self) -> bool {
        self.cost >= OPEN_RANGE
    }

    fn nothing() -> Self {
        Self {
            terms: Vec::new(),
            cost: 0,
        }
    }

    fn one(term: Term, cost: u64) -> Self {
        Self {
            terms: vec![term],
            cost,
        }
    }

    fn of_range(column: usize, interval: Interval) -> Self {
        if interval.is_empty() {
            return Self::nothing();
        }
        let cost = if interval.is_closed() {
            CLOSED_RANGE
        } else {
            OPEN_RANGE
        };
        Self::one(Term::Range(column, Box::new(interval)), cost)
    }

    /// The stretch in which what passes lies, or else the test, at this cost.
    fn of_range_or_test(column: usize, check: &Arc<Check>, cost: u64) -> Self {
        match range(check) {
            Some(interval) => Self::of_range(column, interval),
            None => Self::one(Term::Test(column, check.clone()), cost),
        }
    }

    fn of_test(column: usize, check: &Arc<Check>) -> Self {
        let value = |value: &Value| {
            let shared = matches!(value, Value::Null | Value::Bool(_));
            let cost = if shared { SHARED_VALUE } else { A_VALUE };
            (Term::Value(column, value.clone()), cost)
        };
        let values = |values: &mut dyn Iterator<Item = &Value>| {
            let (terms, costs): (Vec<_>, Vec<_>) = values.map(value).unzip();
            let cost = costs.into_iter().sum();
            Self { terms, cost }
        };
        match &**check {
            Check::Equal(only) => values(&mut std::iter::once(only)),
            Check::IsNull => values(&mut std::iter::once(&Value::Null)),
            Check::Among {
                values: several,
                negated: false,
            } if several.len() <= MAX_VALUES => values(&mut several.iter()),
            Check::Like(like) if !like.negated => match &like.pattern {
                Pattern::Equal(text) => values(&mut std::iter::once(&Value::from(text.as_str()))),
                _ => Self::of_range_or_test(column, check, NARROW_TEST),
            },
            Check::Among { negated: false, .. } => {
                Self::of_range_or_test(column, check, NARROW_TEST)
            }
            _ => Self::of_range_or_test(column, check, WIDE_TEST),
        }
    }
}

/// What the members of an AND say together about single columns.
fn ranges(members: &[Condition]) -> BTreeMap<usize, Interval> {
    let mut ranges: BTreeMap<usize, Interval> = BTreeMap::new();
    let known = members.iter().filter_map(|member| match member {
        Condition::Test { column, check } => Some((*column, range(check)?)),
        Condition::From(start) => start_range(start),
        _ => None,
    });
    for (column, interval) in known {
        let so_far = ranges.entry(column).or_default();
        *so_far = so_far.intersection(&interval);
    }
    ranges
}

/// The stretch in which the values lie that pass a check, if there is one.
fn range(check: &Check) -> Option<Interval> {
    let above_null = Some(Edge::beside(&Value::Null));
    let (low, high) = match check {
        Check::Less(value) => (above_null, Some(Edge::beside(value))),
        Check::AtMost(value) => (above_null, Some(Edge::at(value))),
        Check::Greater(value) => (Some(Edge::beside(value)), None),
        Check::AtLeast(value) => (Some(Edge::at(value)), None),
        Check::Like(like) if !like.negated => {
            let Pattern::Wild {
                parts,
                ignore_case: false,
            } = &like.pattern
            else {
                return None;
            };
            let prefix = parts.iter().map_while(|part| match part {
                Part::Char(char) => Some(*char),
                _ => None,
            });
            let prefix: String = prefix.collect();
            let low = Value::from(prefix.as_str());
            let end = text_after(prefix)?;
            (Some(Edge::at(&low)), Some(Edge::beside(&Value::from(end))))
        }
        _ => return None,
    };
    Some(Interval { low, high })
}

/// The least text that comes after every text with this prefix.
fn text_after(mut prefix: String) -> Option<String> {
    while let Some(last) = prefix.pop() {
        // The iterator knows which numbers are no characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            prefix.push(next);
            return Some(prefix);
        }
    }
    None
}

/// What a start says about the first column of its order. Null is the least value here.
fn start_range(start: &Start) -> Option<(usize, Interval)> {
    let (column, direction) = start.order.first()?;
    let edge = Some(Edge::at(start.values.first()?));
    Some((*column, at_or_after(edge, *direction)))
}

/// The stretch up to the end of a full window, in the first column of its order.
pub(super) fn window_range(end: &Value, direction: Direction) -> Interval {
    let turned = match direction {
        Direction::Asc => Direction::Desc,
        Direction::Desc => Direction::Asc,
    };
    at_or_after(Some(Edge::at(end)), turned)
}

fn at_or_after(edge: Option<Edge>, direction: Direction) -> Interval {
    match direction {
        Direction::Asc => Interval {
            low: edge,
            high: None,
        },
        Direction::Desc => Interval {
            low: None,
            high: edge,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_after_a_prefix_is_the_least_there_is() {
        let after = |prefix: &str| text_after(prefix.to_owned());
        assert_eq!(after("ab").as_deref(), Some("ac"));
        assert_eq!(after("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(after("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after("\u{10FFFF}"), None);
        assert_eq!(after(""), None);
    }

    fn cover(checks: &[Check]) -> Cover {
        let tests = checks.iter().map(|check| Condition::Test {
            column: 1,
            check: Arc::new(check.clone()),
        });
        Cover::of(&Condition::All(tests.collect()))
    }

    #[test]
    fn comparisons_and_prefixes_are_found_by_a_stretch() {
        let five = Value::from(5.0);
        for check in [
            Check::Less(five.clone()),
            Check::AtMost(five.clone()),
            Check::Greater(five.clone()),
            Check::AtLeast(five),
        ] {
            let cover = cover(&[check]);
            assert!(matches!(cover.terms[..], [Term::Range(1, _)]), "{cover:?}");
            assert!(cover.is_wide());
        }
    }

    #[test]
    fn a_stretch_closed_on_both_sides_is_narrow_and_one_that_ends_before_it_begins_finds_nothing() {
        let (five, nine) = (Value::from(5.0), Value::from(9.0));
        let closed = cover(&[Check::Greater(five.clone()), Check::AtMost(nine.clone())]);
        assert!(!closed.is_wide() && matches!(closed.terms[..], [Term::Range(1, _)]));
        let nothing = cover(&[Check::Less(five.clone()), Check::Greater(nine)]);
        assert!(nothing.terms.is_empty());
        let nothing = cover(&[Check::Less(five.clone()), Check::AtLeast(five)]);
        assert!(nothing.terms.is_empty());
    }
}
