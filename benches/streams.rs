//! What streams cost: an append with a version check in few streams and in many, and reading a hundred events. At `Os`.
//!
//! `cargo bench --bench streams`. The handles of the streams are made before the clock runs, and the index follows behind it.

mod common;

use common::pond::{LEN, Pond, payload};
use common::time;
use common::yard::{Yard, short_measure};
use criterion::{BenchmarkId, Criterion, Throughput};
use millpond::{Durability, Expected, Message, Stream};
use std::hint::black_box;
use std::process::ExitCode;

/// The handles of the first streams of a topic of them.
fn streams(pond: &Pond, count: u64) -> Vec<Stream> {
    let topic = pond.store.topic("streams").streams().open().expect("open a topic");
    let streams: Vec<Stream> = (0..count).map(|n| topic.stream(n.to_le_bytes()).expect("a stream")).collect();
    // The first call for a stream opens the index.
    if let Some(stream) = streams.first() {
        assert_eq!(stream.last_version().expect("a version"), None, "it is new");
    }
    streams
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append an event Os, 100 B");
    group.measurement_time(short_measure());
    group.throughput(Throughput::Elements(1)).sample_size(10);
    let payload = payload(0, LEN);
    for (what, count) in [("to one stream", 1), ("to 1,000 streams in turn", 1_000), ("to new streams", u64::MAX)] {
        group.bench_function(BenchmarkId::from_parameter(what), |bencher| {
            let mut yard = Yard::new(Durability::Os);
            bencher.iter_custom(|iters| {
                yard.chunks(iters, 100_000, |pond, iters| {
                    let streams = streams(pond, count.min(iters));
                    let mut last: Vec<Option<u64>> = streams.iter().map(|_| None).collect();
                    time(|| {
                        for n in 0..iters as usize {
                            let n = n % streams.len();
                            let expected = last[n].map_or(Expected::NoStream, Expected::Version);
                            let receipt = streams[n].append(expected, [Message::new(&payload[..])]).expect("append");
                            last[n] = Some(receipt.last_version());
                        }
                    })
                })
            });
        });
    }
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read 100 events, 100 B");
    group.measurement_time(short_measure());
    group.throughput(Throughput::Elements(100)).sample_size(10);
    group.bench_function("of one stream", |bencher| {
        let mut yard = Yard::new(Durability::Os);
        let payload = payload(0, LEN);
        bencher.iter_custom(|iters| {
            yard.chunks(iters, 1_000, |pond, iters| {
                let stream = &streams(pond, 1)[0];
                for _ in 0..100 {
                    stream.append(Expected::Any, [Message::new(&payload[..])]).expect("append");
                }
                time(|| (0..iters).for_each(|_| drop(black_box(stream.read(0, 100).expect("read")))))
            })
        });
    });
}

fn main() -> ExitCode {
    common::call::begin("streams", &[append, read])
}
