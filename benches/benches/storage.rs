//! The replica: loading, applying, point reads, scans, reads of the past.
#![allow(
    missing_docs,
    reason = "criterion's macros make items without documentation"
)]
#![allow(clippy::unwrap_used, reason = "a bench that fails should stop")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kelvin_benches::{ISSUE, Sample, by_newest, issue_id};
use std::hint::black_box;

/// Issues in the replica.
const ISSUES: u64 = 20_000;
/// Rows of a page.
const PAGE: usize = 100;

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage/load");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ISSUES));
    group.bench_function("issues", |b| {
        b.iter(|| Sample::new(black_box(ISSUES)).unwrap());
    });
    group.finish();
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage/apply");
    for rows in [1, 100] {
        let mut sample = Sample::new(ISSUES).unwrap();
        let replica = sample.replica.clone();
        group.throughput(Throughput::Elements(rows));
        group.bench_function(format!("{rows} rows"), |b| {
            b.iter_batched(
                || sample.next(rows),
                |transaction| replica.apply(&[transaction]).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    let mut sample = Sample::new(ISSUES).unwrap();
    let before = sample.replica.watermark();
    for _ in 0..100 {
        let transaction = sample.next(100);
        sample.apply(transaction).unwrap();
    }
    let views = [
        ("now", sample.replica.latest().unwrap()),
        ("100 commits ago", sample.replica.at(before).unwrap()),
    ];
    for (when, view) in views {
        let mut n = 0;
        c.bench_function(&format!("storage/get/{when}"), |b| {
            b.iter(|| {
                n = (n + 7_919) % ISSUES;
                view.get(ISSUE, &[issue_id(n)]).unwrap()
            });
        });
        c.bench_function(&format!("storage/scan a page/{when}"), |b| {
            b.iter(|| view.scan(ISSUE, &by_newest()).unwrap().take(PAGE).count());
        });
    }
}

criterion_group!(benches, load, apply, read);
criterion_main!(benches);
