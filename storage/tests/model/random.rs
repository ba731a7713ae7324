//! Reproducible choices.

use kelvin_protocol::Value;

/// SplitMix64.
pub struct Random {
    state: u64,
    /// Whether few values are chosen from, so that rows change often.
    pub narrow: bool,
}

impl Random {
    pub fn new(seed: u64, narrow: bool) -> Self {
        Self {
            state: seed,
            narrow,
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// One of few numbers, so that values meet often.
    pub fn number(&mut self) -> Value {
        if self.narrow {
            return Value::from_i64(i64::try_from(self.below(3)).unwrap());
        }
        match self.below(10) {
            0 => Value::from_i64(i64::MAX - i64::try_from(self.below(3)).unwrap()),
            1 => Value::from_i64(i64::MIN + i64::try_from(self.below(3)).unwrap()),
            2 => Value::from(0.5),
            3 => Value::from(-1e300),
            _ => Value::from_i64(i64::try_from(self.below(12)).unwrap() - 3),
        }
    }

    pub fn nullable(&mut self, value: Value) -> Value {
        if self.chance(20) { Value::Null } else { value }
    }

    pub fn text(&mut self) -> Value {
        if self.narrow {
            return Value::from(*self.pick(&["a", "b"]));
        }
        let texts = [
            "",
            "a",
            "a\0",
            "a\0b",
            "ab",
            "b",
            "\u{FF5E}",
            "\u{1F600}",
            "zz",
        ];
        Value::from(*self.pick(&texts))
    }
}
