//! Stretches of the order of values.

use std::cmp::Ordering;

use kelvin_protocol::{Value, ValueRef};

/// An end of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) value: Value,
    /// Whether the value itself is inside.
    pub(super) inclusive: bool,
}

impl Edge {
    pub(super) fn at(value: &Value) -> Self {
        Self {
            value: value.clone(),
            inclusive: true,
        }
    }

    pub(super) fn beside(value: &Value) -> Self {
        Self {
            value: value.clone(),
            inclusive: false,
        }
    }
}

/// The values from `low` to `high` in the order of [`Value::zql_cmp`], null being the least of all;
/// an edge that is missing leaves its side open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) low: Option<Edge>,
    pub(super) high: Option<Edge>,
}

impl Interval {
    /// The values that are in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let later = cmp_low(self.low.as_ref(), other.low.as_ref()).is_ge();
        let sooner = cmp_high(self.high.as_ref(), other.high.as_ref()).is_le();
        Self {
            low: if later { &self.low } else { &other.low }.clone(),
            high: if sooner { &self.high } else { &other.high }.clone(),
        }
    }

    /// Whether no value can be in it.
    pub(super) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Some(low), Some(high)) => match low.value.zql_cmp(&high.value) {
                Ordering::Less => false,
                Ordering::Equal => !(low.inclusive && high.inclusive),
                Ordering::Greater => true,
            },
            _ => false,
        }
    }

    /// Whether both sides end somewhere. Where null alone is out, as below every comparison,
    /// nothing is narrowed.
    pub(super) fn is_closed(&self) -> bool {
        self.high.is_some() && self.low.as_ref().is_some_and(|low| !low.value.is_null())
    }

    /// By the low edge, then by the high one.
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        cmp_low(self.low.as_ref(), other.low.as_ref())
            .then_with(|| cmp_high(self.high.as_ref(), other.high.as_ref()))
    }
}

/// Whether the value comes at or after a low edge.
pub(super) fn begins_before(low: Option<&Edge>, value: ValueRef<'_>) -> bool {
    low.is_none_or(|low| match low.value.as_ref().zql_cmp(value) {
        Ordering::Less => true,
        Ordering::Equal => low.inclusive,
        Ordering::Greater => false,
    })
}

/// Whether the value comes at or before a high edge.
pub(super) fn ends_after(high: Option<&Edge>, value: ValueRef<'_>) -> bool {
    high.is_none_or(|high| match high.value.as_ref().zql_cmp(value) {
        Ordering::Less => false,
        Ordering::Equal => high.inclusive,
        Ordering::Greater => true,
    })
}

/// The order of low edges: what begins sooner is less.
fn cmp_low(a: Option<&Edge>, b: Option<&Edge>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => (a.value.zql_cmp(&b.value)).then(b.inclusive.cmp(&a.inclusive)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// The order of high edges: what ends sooner is less.
pub(super) fn cmp_high(a: Option<&Edge>, b: Option<&Edge>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => (a.value.zql_cmp(&b.value)).then(a.inclusive.cmp(&b.inclusive)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}
