//! Decisions of a generator: from a seed without end, or from bytes until they are used up.

/// Where decisions come from.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
    /// State of SplitMix64, where there is a seed.
    seed: Option<u64>,
}

impl<'a> Choices<'a> {
    /// Decisions of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self {
            bytes: &[],
            seed: Some(seed),
        }
    }

    /// Decisions read from bytes; when they are used up, the first of all possibilities, so that
    /// whatever loops on a decision comes to an end.
    #[must_use]
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes, seed: None }
    }

    /// A number below `end`, which is at least 1 and at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        let drawn = match &mut self.seed {
            Some(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                // The high bits are the better ones, and few are needed.
                ((mixed ^ (mixed >> 31)) >> 32) as usize
            }
            None => match self.bytes.split_first() {
                Some((first, rest)) => {
                    self.bytes = rest;
                    usize::from(*first)
                }
                None => 0,
            },
        };
        drawn % end
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True in `percent` of a hundred cases; never when the bytes are used up.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    /// One of them.
    pub fn pick<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    /// Puts them in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
