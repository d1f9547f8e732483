//! The whole way of a message, published, received and acked at `Os`: with threads that share one topic, and over many topics.
//!
//! `cargo bench --bench cycle`.

mod common;

use common::pond::{LEN, Pond, group_of, number, payload, take};
use common::yard::{Yard, short_measure};
use common::{Arena, pick, time};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use millpond::{Durability, Group, Message, Topic};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As many messages go through before the counts are checked, at most.
const CHUNK: u64 = 400_000;

fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish, receive and ack Os, 100 B");
    group.measurement_time(short_measure()).sampling_mode(SamplingMode::Flat).sample_size(10);
    for pairs in [1, 4] {
        // An iteration is one message of each producer.
        group.throughput(Throughput::Elements(pairs));
        group.bench_function(BenchmarkId::new("producers and as many consumers", pairs), |bencher| {
            let mut yard = Yard::new(Durability::Os);
            bencher.iter_custom(|iters| {
                yard.chunks(iters, CHUNK / pairs, |pond, each| {
                    let group = pond.group();
                    let elapsed = time(|| run_threads(pond, &group, pairs, each));
                    assert_eq!(pond.lag(), 0, "as many came out as went in");
                    elapsed
                })
            });
        });
    }
}

/// Each of `pairs` producers sends `each` messages, flat out, and as many consumers take them all, each once.
fn run_threads(pond: &Pond, group: &Group, pairs: u64, each: u64) {
    let (taken, sum) = (AtomicU64::new(0), AtomicU64::new(0));
    let total = pairs * each;
    std::thread::scope(|scope| {
        for producer in 0..pairs {
            let numbers = producer * each..(producer + 1) * each;
            scope.spawn(|| {
                for n in numbers {
                    pond.topic.publish(Message::new(payload(n, LEN))).expect("publish");
                }
            });
            scope.spawn(|| {
                // A ticket for each message: its holder waits until it comes.
                while taken.fetch_add(1, Ordering::Relaxed) < total {
                    let delivery = group.receive(Duration::from_secs(30)).expect("receive").expect("a message in time");
                    sum.fetch_add(number(delivery.payload()), Ordering::Relaxed);
                    delivery.ack().expect("ack");
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), total * (total - 1) / 2, "each came once");
}

struct Many {
    topics: Vec<(Topic, Group)>,
    turn: usize,
    /// Handles before the directory that their store writes to.
    _pond: Pond,
    _arena: Arena,
}

impl Many {
    fn new(count: usize) -> Self {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let open = |n| {
            let topic = pond.store.topic(format!("topic-{n}")).open().expect("open a topic");
            let group = group_of(&topic);
            (topic, group)
        };
        let topics = (0..count).map(open).collect();
        pond.ripen();
        Self { topics, turn: 0, _pond: pond, _arena: arena }
    }

    /// Publishes `count` messages, each to the next topic.
    fn publish(&self, count: u64) {
        for (n, (topic, _)) in (0..count).zip(self.topics.iter().cycle().skip(self.turn)) {
            topic.publish(Message::new(payload(n, LEN))).expect("publish");
        }
    }

    /// Receives and acks `count` messages, each from the next topic.
    fn receive(&mut self, count: u64) {
        for (n, (_, group)) in (0..count).zip(self.topics.iter().cycle().skip(self.turn)) {
            let delivery = take(group);
            assert_eq!(number(delivery.payload()), n, "in order");
            delivery.ack().expect("ack");
        }
        self.turn = (self.turn + count as usize) % self.topics.len();
    }
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topics round robin, Os, 100 B");
    group.measurement_time(short_measure()).throughput(Throughput::Elements(1));
    for count in [1, 10, pick(10_000, 20)] {
        // Made by the first that runs.
        let mut many = None;
        group.bench_function(BenchmarkId::new("publish", count), |bencher| {
            bencher.iter_custom(|iters| {
                let many = many.get_or_insert_with(|| Many::new(count));
                in_chunks(iters, |chunk| {
                    let elapsed = time(|| many.publish(chunk));
                    many.receive(chunk);
                    elapsed
                })
            });
        });
        group.bench_function(BenchmarkId::new("receive and ack", count), |bencher| {
            bencher.iter_custom(|iters| {
                let many = many.get_or_insert_with(|| Many::new(count));
                in_chunks(iters, |chunk| {
                    many.publish(chunk);
                    time(|| many.receive(chunk))
                })
            });
        });
    }
}

fn in_chunks(iters: u64, mut run: impl FnMut(u64) -> Duration) -> Duration {
    let mut left = iters;
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let chunk = left.min(CHUNK);
        elapsed += run(chunk);
        left -= chunk;
    }
    elapsed
}

fn main() -> ExitCode {
    common::call::begin("cycle", &[threads, topics])
}
