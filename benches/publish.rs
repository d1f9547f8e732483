//! Publishing at `Os`: one at a time and in batches, by size of payload, beside the floors of the same run.
//!
//! `cargo bench --bench publish`. A message is built in the loop, as a caller must.

mod common;

use common::floor::{self, Mapping, Tail};
use common::pond::{Pond, payload};
use common::yard::{Yard, short_measure};
use common::{Arena, time};
use criterion::{BenchmarkId, Criterion, Throughput};
use millpond::{Durability, Message};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

const LENS: [usize; 3] = [100, 1 << 10, 16 << 10];
/// The file that the floor stores into; made anew, untimed, when it is full.
const FLOOR_BYTES: usize = 64 << 20;

fn one_at_a_time(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish Os, one at a time");
    group.measurement_time(short_measure());
    for len in LENS {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("millpond", len), |bencher| {
            let mut yard = Yard::new(Durability::Os);
            let payload = payload(0, len);
            let work = |pond: &Pond, count| {
                for _ in 0..count {
                    black_box(pond.topic.publish(Message::new(&payload[..])).expect("publish"));
                }
            };
            bencher.iter_custom(|iters| yard.publish(iters, 1, len, work));
        });
        group.bench_function(BenchmarkId::new("floor: mapped store and checksum", len), |bencher| {
            let arena = Arena::new();
            bencher.iter_custom(|iters| mapped_stores(&arena, iters, &payload(0, len)));
        });
        group.bench_function(BenchmarkId::new("floor: copy in memory", len), |bencher| {
            bencher.iter_custom(|iters| floor::copy(len, iters));
        });
    }
}

fn mapped_stores(arena: &Arena, mut left: u64, payload: &[u8]) -> Duration {
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let path = arena.fresh();
        let mut tail = Tail::create(&path, FLOOR_BYTES, Mapping::SyncSeldom);
        elapsed += time(|| {
            while left > 0 && tail.has_room(payload.len()) {
                tail.append(black_box(payload));
                left -= 1;
            }
        });
        drop(tail);
        std::fs::remove_file(path).expect("remove the file");
    }
    elapsed
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish Os, a batch");
    group.measurement_time(short_measure());
    for len in LENS {
        for size in [10, 100, 1_000] {
            group.throughput(Throughput::Elements(size));
            group.bench_function(BenchmarkId::new(format!("of {size}"), len), |bencher| {
                let mut yard = Yard::new(Durability::Os);
                let payload = payload(0, len);
                let work = |pond: &Pond, count| {
                    for _ in 0..count {
                        let batch = (0..size).map(|_| Message::new(&payload[..]));
                        black_box(pond.topic.publish_batch(batch).expect("publish"));
                    }
                };
                bencher.iter_custom(|iters| yard.publish(iters, size, len, work));
            });
        }
    }
}

fn main() -> ExitCode {
    common::call::begin("publish", &[one_at_a_time, batches])
}
