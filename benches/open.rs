//! Opening a store with many messages waiting, after a clean close and after SIGKILL; and writing a checkpoint.
//!
//! `cargo bench --bench open`. Stores are filled, killed and opened in processes of their own.

mod common;

use common::child::{End, fill_in_child, open_in_child};
use common::pond::{Pond, take};
use common::yard::short_measure;
use common::{Arena, pick, time};
use criterion::{BenchmarkId, Criterion, SamplingMode};
use millpond::{Durability, Message};
use std::process::ExitCode;
use std::time::Duration;

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open, 100 B messages waiting");
    // Criterion's clock runs during the untimed work as well.
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(pick(100, 1)));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    for waiting in pick(vec![10_000, 1_000_000, 5_000_000], vec![200]) {
        group.bench_function(BenchmarkId::new("after a clean close", waiting), |bencher| {
            let arena = Arena::new();
            let path = arena.fresh();
            fill_in_child(&path, waiting, End::Clean);
            let mut left = waiting;
            bencher.iter_custom(|iters| {
                let open = |_| {
                    let opened = open_in_child(&path);
                    assert_eq!(opened.waiting, left, "all are there");
                    // The child settled one.
                    left -= 1;
                    opened.open
                };
                (0..iters).map(open).sum()
            });
        });
        for (name, end) in
            [("after SIGKILL in quiet", End::KilledInQuiet), ("after SIGKILL at full rate", End::KilledAtFullRate)]
        {
            group.bench_function(BenchmarkId::new(name, waiting), |bencher| {
                bencher.iter_custom(|iters| (0..iters).map(|_| open_killed(waiting, end)).sum());
            });
        }
    }
}

fn open_killed(waiting: u64, end: End) -> Duration {
    let arena = Arena::new();
    let path = arena.fresh();
    fill_in_child(&path, waiting, end);
    let opened = open_in_child(&path);
    assert!(opened.waiting >= waiting, "what had returned is there");
    opened.open
}

/// A clean close of a store that published one message since it was opened: a sync, a checkpoint, and the end of two threads.
fn checkpoint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("close with a checkpoint, messages outstanding");
    group.measurement_time(short_measure()).sampling_mode(SamplingMode::Flat).sample_size(10);
    for outstanding in [0, pick(65_536, 100)] {
        group.bench_function(BenchmarkId::from_parameter(outstanding), |bencher| {
            let arena = Arena::new();
            let path = arena.fresh();
            lease_and_close(&path, outstanding);
            bencher.iter_custom(|iters| (0..iters).map(|_| close_again(&path, outstanding)).sum());
        });
    }
}

/// Leaves `outstanding` messages that were handed out and not settled.
fn lease_and_close(path: &std::path::Path, outstanding: u64) {
    let pond = Pond::open(path, Durability::Os, 64 << 20);
    let group = pond.group();
    pond.fill(0..outstanding);
    let deliveries: Vec<_> = (0..outstanding).map(|_| take(&group)).collect();
    assert_eq!(pond.lag(), outstanding);
    pond.store.close().expect("close");
    // Given back too late: the store is closed.
    drop(deliveries);
}

fn close_again(path: &std::path::Path, outstanding: u64) -> Duration {
    let pond = Pond::open(path, Durability::Os, 64 << 20);
    let before = pond.published();
    pond.topic.publish(Message::new("one more")).expect("publish");
    assert_eq!(pond.lag(), before + 1);
    assert!(before >= outstanding);
    time(|| pond.store.close().expect("close"))
}

fn main() -> ExitCode {
    common::call::begin("open", &[open, checkpoint])
}
