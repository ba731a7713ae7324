//! Things measured beside each other, and the ratios between them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

/// Samples of one thing.
struct Thing {
    group: String,
    name: String,
    /// Nanoseconds for one iteration.
    samples: Vec<f64>,
}

/// A name, and what it is the name of.
pub type Contender<'a> = (&'a str, &'a mut dyn FnMut());

/// Calls of a short routine before it is the next one's turn.
const CALLS_OF_A_TURN: u64 = 16;

/// Measures by groups. The first thing of a group is what is asked about, the others are what it is
/// held against.
pub struct Measure {
    criterion: Criterion,
    things: Vec<Thing>,
    notes: Vec<String>,
}

impl Measure {
    /// As the command line says.
    pub fn new() -> Self {
        let criterion = Criterion::default()
            .sample_size(20)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3))
            .configure_from_args();
        Self {
            criterion,
            things: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Measures a routine; `rows` are what one call of it handles.
    pub fn run<T>(&mut self, group: &str, name: &str, rows: usize, mut routine: impl FnMut() -> T) {
        self.run_timed(group, name, rows, |iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(routine());
            }
            start.elapsed()
        });
    }

    /// Measures two routines that take turns, so that whatever else the machine does meets both.
    pub fn run_both<A, B>(
        &mut self,
        group: &str,
        rows: usize,
        (name, mut routine): (&str, impl FnMut() -> A),
        (other_name, mut other): (&str, impl FnMut() -> B),
    ) {
        let contenders: &mut [Contender<'_>] = &mut [
            (name, &mut || drop(black_box(routine()))),
            (other_name, &mut || drop(black_box(other()))),
        ];
        self.take_turns(group, rows, 1, contenders);
    }

    /// Measures short routines that take turns, a few calls each: next to one call, looking at the
    /// clock would count.
    pub fn run_all(&mut self, group: &str, contenders: &mut [Contender<'_>]) {
        self.take_turns(group, 1, CALLS_OF_A_TURN, contenders);
    }

    fn take_turns(
        &mut self,
        group: &str,
        rows: usize,
        calls: u64,
        contenders: &mut [Contender<'_>],
    ) {
        let names: Vec<String> = contenders.iter().map(|(name, _)| (*name).into()).collect();
        let mut samples = vec![Vec::new(); contenders.len()];
        self.run_timed(group, &names[0], rows, |iterations| {
            let mut elapsed = vec![Duration::ZERO; contenders.len()];
            let mut left = iterations;
            while left > 0 {
                let calls = calls.min(left);
                left -= calls;
                for ((_, routine), elapsed) in contenders.iter_mut().zip(&mut elapsed) {
                    let start = Instant::now();
                    (0..calls).for_each(|_| routine());
                    *elapsed += start.elapsed();
                }
            }
            for (samples, elapsed) in samples.iter_mut().zip(&elapsed) {
                samples.push(elapsed.as_secs_f64() * 1e9 / iterations as f64);
            }
            elapsed[0]
        });
        for (name, samples) in names.iter().zip(samples).skip(1) {
            self.beside(group, name, samples);
        }
    }

    /// Takes samples that were measured along with the last thing of the group, in nanoseconds for
    /// one iteration.
    pub fn beside(&mut self, group: &str, name: &str, samples: Vec<f64>) {
        self.things.push(Thing {
            group: group.into(),
            name: name.into(),
            samples,
        });
    }

    /// Measures a routine that says itself how long so many calls took.
    pub fn run_timed(
        &mut self,
        group: &str,
        name: &str,
        rows: usize,
        mut routine: impl FnMut(u64) -> Duration,
    ) {
        let mut samples = Vec::new();
        let mut criterion = self.criterion.benchmark_group(group);
        criterion.throughput(Throughput::Elements(rows as u64));
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let elapsed = routine(iterations);
                samples.push(elapsed.as_secs_f64() * 1e9 / iterations as f64);
                elapsed
            });
        });
        criterion.finish();
        self.things.push(Thing {
            group: group.into(),
            name: name.into(),
            samples,
        });
    }

    /// Takes note of two figures that were measured once.
    pub fn note(&mut self, group: &str, subject: &str, a: f64, other: &str, b: f64) {
        let ratio = shown(a / b);
        self.notes
            .push(format!("  {group}: {subject} / {other} = {ratio}"));
    }

    /// Prints the ratios, and the times they are of.
    pub fn finish(self) {
        self.criterion.final_summary();
        println!("\nratios of medians, all of this run:");
        for (at, thing) in self.things.iter().enumerate() {
            let first = self
                .things
                .iter()
                .position(|other| other.group == thing.group);
            let Some(subject) = first.filter(|first| *first != at) else {
                continue;
            };
            let subject = &self.things[subject];
            if let (Some(a), Some(b)) = (median(&subject.samples), median(&thing.samples)) {
                let (group, subject, other) = (&thing.group, &subject.name, &thing.name);
                println!(
                    "  {group}: {subject} / {other} = {} ({} / {})",
                    shown(a / b),
                    time(a),
                    time(b)
                );
            }
        }
        for note in self.notes {
            println!("{note}");
        }
    }
}

/// A ratio with two digits that tell something.
fn shown(ratio: f64) -> String {
    if ratio < 0.1 {
        format!("{ratio:.4}")
    } else {
        format!("{ratio:.2}")
    }
}

/// Nanoseconds as one reads them.
fn time(nanoseconds: f64) -> String {
    format!("{:.2?}", Duration::from_secs_f64(nanoseconds / 1e9))
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A size from the environment variable `KELVIN_BENCH_<NAME>`, or this one.
pub fn size(name: &str, default: usize) -> usize {
    let name = format!("KELVIN_BENCH_{name}");
    match std::env::var(&name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a size: {text:?}")),
        Err(_) => default,
    }
}
