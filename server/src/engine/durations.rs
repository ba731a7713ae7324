//! How long something took, many times over, in a fixed size.

use std::time::Duration;

/// What lengths are counted in: short advances take a few microseconds.
const UNIT: Duration = Duration::from_nanos(100);

/// Each is √2 times as long as the one before; the last takes all that is beyond 3.5 minutes.
const BUCKETS: usize = 64;

/// The longest length that is told from longer ones, in units.
const LONGEST: u64 = 1 << 31;

/// Counts of lengths. What is longer than two microseconds is known to within a fifth of it.
#[derive(Clone, Copy, Debug)]
pub struct Durations([u32; BUCKETS]);

impl Default for Durations {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Durations {
    pub(super) fn record(&mut self, took: Duration) {
        let units = took.as_nanos() / UNIT.as_nanos();
        let units = u64::try_from(units).unwrap_or(LONGEST).min(LONGEST);
        let half_octave = (units * units).checked_ilog2();
        let bucket = half_octave.map_or(0, |log| log as usize + 1);
        if let Some(count) = self.0.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
    }

    /// The lengths that came, shortest first: a typical one of those alike, in milliseconds, and
    /// how many there were.
    pub fn lengths(&self) -> impl Iterator<Item = (f64, u32)> {
        let typical = |bucket: usize| match i32::try_from(bucket) {
            Ok(at @ 1..) => UNIT.as_secs_f64() * 1000.0 * 2_f64.powf(f64::from(2 * at - 1) / 4.0),
            _ => 0.0,
        };
        let counted = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(move |(bucket, count)| (typical(bucket), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_remembered_to_within_a_fifth() {
        for nanos in (11..36).map(|power| 150 + (1_u64 << power)) {
            let took = Duration::from_nanos(nanos);
            let mut times = Durations::default();
            times.record(took);
            let (ms, count) = times.lengths().next().unwrap();
            let ratio = ms / (took.as_secs_f64() * 1000.0);
            assert!(count == 1 && (0.8..1.2).contains(&ratio), "{took:?}: {ms}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_are_counted_too() {
        let mut times = Durations::default();
        for took in [Duration::ZERO, Duration::MAX, Duration::from_secs(86_400)] {
            times.record(took);
        }
        let lengths: Vec<_> = times.lengths().collect();
        assert_eq!(lengths.len(), 2);
        assert_eq!(lengths[0], (0.0, 1));
        assert_eq!(lengths[1].1, 2);
        assert!(lengths[1].0 > 200_000.0);
    }
}
