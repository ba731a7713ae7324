//! Every target on its corpus and on seeded mutations of it.
//!
//! `KELVIN_FUZZ_SEED` replays the mutations of a seed that was printed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kelvin_fuzz::{TARGETS, Target};

/// Mutations tried on a target, and how long at most.
const MUTATIONS: usize = 4000;
const MOST: Duration = Duration::from_secs(3);

/// Longest input.
const MAX_BYTES: usize = 4096;

/// What JSON, patterns and wire messages turn on.
const WORDS: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b"null",
    b"-1e309",
    b"%",
    b"_",
    b"\\",
    b"\0",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xf0\x9f\x98\x80",
];

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Runs a target; names the input where it fails.
fn run(target: Target, input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        println!("failed on {what}: {:?}", input.escape_ascii().to_string());
        resume_unwind(panic);
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 => bytes.insert(at, random.below(256) as u8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let from = random.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + random.below(word.len() + 1)).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
        }
    }
    bytes.truncate(MAX_BYTES);
}

#[test]
fn every_target_passes_its_corpus() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "{name} has no corpus");
        for (file, bytes) in files {
            run(*target, &bytes, &format!("{name}/{file}"));
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}

#[test]
fn every_target_passes_mutations_of_its_corpus() {
    let seed = match std::env::var("KELVIN_FUZZ_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    println!("KELVIN_FUZZ_SEED={seed}");
    for (name, target) in TARGETS {
        let (files, mut random, start) = (corpus(name), Random(seed), Instant::now());
        let mut tried = 0;
        while tried < MUTATIONS && start.elapsed() < MOST {
            let mut bytes = files[random.below(files.len())].1.clone();
            let other = &files[random.below(files.len())].1;
            mutate(&mut random, &mut bytes, other);
            run(*target, &bytes, &format!("{name}, mutation {tried}"));
            tried += 1;
        }
        println!("{name}: {tried} mutations");
    }
}
