//! Publishing at `Disk`: one thread, threads that wait together, and receipts waited for later; and what a sync writes.
//!
//! `cargo bench --bench durable`.

mod common;

use common::pond::{LEN, Pond, payload};
use common::yard::{Yard, short_measure};
use common::{Arena, call, floor, machine, median, ns_each, pick, say, time};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use millpond::{Durability, Message};
use std::process::ExitCode;
use std::time::Duration;

fn blocked_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish Disk, 100 B, threads that wait");
    group.measurement_time(short_measure()).sampling_mode(SamplingMode::Flat).sample_size(10);
    for threads in [1, 8, 64] {
        // An iteration is one message of each thread.
        group.throughput(Throughput::Elements(threads));
        group.bench_function(BenchmarkId::new("millpond", threads), |bencher| {
            let mut yard = Yard::new(Durability::Disk);
            let work = |pond: &Pond, count| publish_from(pond, threads, count);
            bencher.iter_custom(|iters| yard.publish(iters, threads, LEN, work));
        });
        group.bench_function(BenchmarkId::new("floor: leader syncs for all", threads), |bencher| {
            let arena = Arena::new();
            bencher.iter_custom(|iters| {
                let rate = floor::leader_sync_rate(&arena.fresh(), threads, iters, &payload(0, LEN));
                Duration::from_secs_f64((threads * iters) as f64 / rate)
            });
        });
    }
}

fn publish_from(pond: &Pond, threads: u64, each: u64) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for n in 0..each {
                    pond.topic.publish(Message::new(payload(n, LEN))).expect("publish");
                }
            });
        }
    });
}

fn pipelined(criterion: &mut Criterion) {
    const RUN: u64 = 1_000;
    let mut group = criterion.benchmark_group("publish Disk, 100 B, 1,000 receipts waited for at once");
    group.measurement_time(short_measure()).throughput(Throughput::Elements(RUN));
    group.bench_function("millpond", |bencher| {
        let mut yard = Yard::new(Durability::Disk);
        bencher.iter_custom(|iters| {
            yard.publish(iters, RUN, LEN, |pond, count| {
                let topic = pond.topic.with_durability(Durability::Os);
                let mut receipts = Vec::with_capacity(RUN as usize);
                for _ in 0..count {
                    receipts.extend((0..RUN).map(|n| topic.publish(Message::new(payload(n, LEN))).expect("publish")));
                    receipts.drain(..).rev().for_each(|receipt| receipt.wait_durable().expect("durable"));
                }
            })
        });
    });
    group.bench_function("floor: a thousand stores and a sync", |bencher| {
        let arena = Arena::new();
        bencher.iter_custom(|iters| {
            let rate = floor::pipelined_rate(&arena.fresh(), iters, RUN, &payload(0, LEN));
            Duration::from_secs_f64((iters * RUN) as f64 / rate)
        });
    });
}

/// What a sync of one message writes to the device, in each quarter of a segment. Printed, for criterion measures time.
fn bytes_a_sync(_: &mut Criterion) {
    if !call::is_wanted("bytes a sync") {
        return;
    }
    let (segment, syncs) = (pick(64 << 20, 1 << 20), pick(200, 3));
    let arena = Arena::new();
    let pond = Pond::with_segments(&arena, Durability::Disk, segment);
    pond.ripen();
    let base = pond.grow_to_new_segment();
    for quarter in 0..4 {
        pond.grow_to(base + quarter * segment / 4 + segment / 8);
        let mut bytes = Vec::new();
        let elapsed = time(|| {
            for n in 0..syncs {
                let before = machine::bytes_written(arena.path());
                pond.topic.publish(Message::new(payload(n, LEN))).expect("publish");
                let after = machine::bytes_written(arena.path());
                bytes.extend(before.zip(after).map(|(before, after)| (after - before) as f64));
            }
        });
        let micros = ns_each(elapsed, syncs) / 1e3;
        match bytes.is_empty() {
            true => say(&format!(
                "quarter {}: {micros:.0} us a publish; the kernel does not tell bytes written",
                quarter + 1
            )),
            false => {
                say(&format!("quarter {}: {micros:.0} us a publish, {} bytes written", quarter + 1, median(bytes)))
            }
        }
    }
    pond.remove();
}

fn main() -> ExitCode {
    common::call::begin("durable", &[blocked_threads, pipelined, bytes_a_sync])
}
