//! Receiving and acking messages that wait, at `Os`: one at a time and in batches, beside the floor of the same run.
//!
//! `cargo bench --bench receive`.

mod common;

use common::pond::{LEN, drain_in_batches, drain_one_by_one, payload};
use common::yard::{Yard, short_measure};
use common::{Arena, floor, pick, time};
use criterion::{BenchmarkId, Criterion, Throughput};
use millpond::{Durability, Group};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// As many messages are published ahead, at most: several segments of them.
const AHEAD: u64 = 2_000_000;

/// Publishes `iters` messages, untimed, and times `drain`.
fn receive_and_ack(yard: &mut Yard, iters: u64, batch: u64, drain: impl Fn(&Group, Range<u64>)) -> Duration {
    yard.chunks(iters, AHEAD / batch, |pond, count| {
        let group = pond.group();
        let first = pond.published();
        let numbers = first..first + count * batch;
        pond.fill(numbers.clone());
        let elapsed = time(|| drain(&group, numbers));
        assert_eq!(pond.lag(), 0, "as many came out as went in");
        elapsed
    })
}

fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive and ack Os, 100 B");
    group.measurement_time(short_measure());
    group.throughput(Throughput::Elements(1));
    group.bench_function("one at a time", |bencher| {
        let mut yard = Yard::new(Durability::Os);
        bencher.iter_custom(|iters| receive_and_ack(&mut yard, iters, 1, drain_one_by_one));
    });
    for size in [10, 100, 1_000] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("batches", size), |bencher| {
            let mut yard = Yard::new(Durability::Os);
            let drain = |group: &Group, numbers| drain_in_batches(group, numbers, size);
            bencher.iter_custom(|iters| receive_and_ack(&mut yard, iters, size, drain));
        });
    }
}

fn floors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor: read, check, copy, two small records");
    group.measurement_time(short_measure());
    let arena = Arena::new();
    for batch in [1, 100] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("batches", batch), |bencher| {
            bencher.iter_custom(|iters| {
                let directory = arena.fresh();
                std::fs::create_dir(&directory).expect("create a directory");
                // At most so many records that the files stay small; the rest is taken to cost the same.
                let count = (iters * batch).min(pick(AHEAD, 1_000)).next_multiple_of(batch);
                let ns = floor::settle_ns(&directory, count, batch, &payload(0, LEN));
                Duration::from_secs_f64(ns * 1e-9 * (iters * batch) as f64)
            });
        });
    }
}

fn main() -> ExitCode {
    common::call::begin("receive", &[receive, floors])
}
