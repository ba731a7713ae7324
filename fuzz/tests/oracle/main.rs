//! Queries over random histories, with a real PostgreSQL as the oracle.
//!
//! `KELVIN_ORACLE_CASES` is how many cases are run, or `KELVIN_ORACLE_MINUTES` for how long new ones
//! are begun; `KELVIN_ORACLE_SEED` is the seed of the first. A case that fails is made small and
//! printed; in a file of `cases/` it is run first from then on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is how tests fail"
)]

#[path = "../../../replication/tests/postgres/cluster.rs"]
#[allow(dead_code, reason = "this needs little of it")]
mod cluster;
mod postgres;
mod sql;

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kelvin_fuzz::query::{Case, Choices, Failure, check, naive_answers, shrink};

use self::cluster::Cluster;
use self::postgres::Postgres;

/// Cases of one run, unless `KELVIN_ORACLE_CASES` or `KELVIN_ORACLE_MINUTES` says otherwise.
const CASES: u64 = 500;
/// After so many cases a run tells how far it is.
const PROGRESS: u64 = 10_000;
/// Most cases that run at a time.
const MAX_THREADS: usize = 16;

/// PostgreSQL's answers are those of the naive evaluator and of kelvin. Gives `false` where there
/// are too many of them to tell.
fn agree(postgres: &Postgres, case: &Case) -> Result<bool, Failure> {
    let failure = |check, detail| Failure { check, detail };
    let Some(naive) = naive_answers(case) else {
        return Ok(false);
    };
    let expected = postgres
        .answers(case)
        .map_err(|error| failure("PostgreSQL answers", error))?;
    for (version, (wanted, found)) in expected.iter().zip(&naive).enumerate() {
        for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
            if wanted != found {
                let detail =
                    format!("transaction {version}, query {at}: {found:?}, not {wanted:?}");
                return Err(failure("the naive evaluator agrees", detail));
            }
        }
    }
    check(case, &expected).map(|()| true)
}

/// Panics with a small case.
fn report(postgres: &Postgres, case: &Case, failure: &Failure, what: &str) -> ! {
    println!("{what} failed: {failure:?}; making it small");
    let small = shrink(case, &mut |case| {
        agree(postgres, case).is_err_and(|other| other.check == failure.check)
    });
    let Err(failure) = agree(postgres, &small) else {
        panic!("{what} failed once, and not when it was run again: {failure:?}");
    };
    let json = serde_json::to_string(&small).unwrap();
    let asts: Vec<_> = small
        .queries
        .iter()
        .map(|ast| small.with_rules(ast))
        .collect();
    let statements: Vec<_> = asts.iter().map(|ast| sql::answer(&small, ast)).collect();
    panic!(
        "{what}: {}: {}\ncase: {json}\nas SQL: {}",
        failure.check,
        failure.detail,
        statements.join("\n")
    );
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn cases_that_once_failed_agree_with_postgresql() {
    let cluster = Cluster::start();
    let postgres = Postgres::connect(&cluster.url());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let mut case: Case = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        case.settle();
        match agree(&postgres, &case) {
            Ok(told) => assert!(told, "{} is too large", file.display()),
            Err(failure) => report(&postgres, &case, &failure, &file.display().to_string()),
        }
    }
}

#[test]
fn random_cases_agree_with_postgresql() {
    let seed = variable("KELVIN_ORACLE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 >> 8
    });
    let minutes = variable("KELVIN_ORACLE_MINUTES").map(Duration::from_mins);
    let cases = variable("KELVIN_ORACLE_CASES");
    let cases = cases.unwrap_or(minutes.map_or(CASES, |_| u64::MAX));
    println!("KELVIN_ORACLE_SEED={seed}");
    let cluster = Cluster::start();
    let (url, start) = (cluster.url(), Instant::now());
    let (begun, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (queries, too_large) = (AtomicU64::new(0), AtomicU64::new(0));
    let agreed = AtomicU64::new(0);
    let work = || {
        let postgres = Postgres::connect(&url);
        while !failed.load(Ordering::Relaxed) && minutes.is_none_or(|time| start.elapsed() < time) {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            if number >= cases {
                return;
            }
            let seed = seed.wrapping_add(number);
            let case = Case::generate(&mut Choices::of_seed(seed));
            let checked = case.queries.len() * (1 + case.transactions().count());
            match agree(&postgres, &case) {
                Ok(true) => queries.fetch_add(checked as u64, Ordering::Relaxed),
                Ok(false) => too_large.fetch_add(1, Ordering::Relaxed),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    let what = format!("KELVIN_ORACLE_SEED={seed} KELVIN_ORACLE_CASES=1");
                    report(&postgres, &case, &failure, &what);
                }
            };
            let agreed = 1 + agreed.fetch_add(1, Ordering::Relaxed);
            if agreed.is_multiple_of(PROGRESS) {
                println!("{agreed} cases so far, {:?}", start.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..cores.min(MAX_THREADS) {
            scope.spawn(work);
        }
    });
    let agreed = agreed.into_inner();
    // A generator that makes nothing else would test nothing.
    assert!(too_large.load(Ordering::Relaxed) <= agreed.div_ceil(100));
    println!(
        "{agreed} cases, {too_large:?} of them too large, {queries:?} answers, {:?}",
        start.elapsed()
    );
}
