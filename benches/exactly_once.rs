//! What it costs to do a thing once: a publish under an id, and a transaction beside the calls that it replaces. At `Os`.
//!
//! `cargo bench --bench exactly_once`. Ids are made before the clock runs, as a caller has them.

mod common;

use common::pond::{LEN, Pond, payload};
use common::time;
use common::yard::{Yard, short_measure};
use criterion::{BenchmarkId, Criterion, Throughput};
use millpond::{Delivery, Durability, Error, Message};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

/// Messages that are leased before the clock runs.
const LEASED: u64 = 10_000;

fn ids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish Os under an id, 100 B");
    group.measurement_time(short_measure());
    group.throughput(Throughput::Elements(1));
    let payload = payload(0, LEN);
    let mut next = 0u64;
    for what in ["without an id", "a new id", "a repeat"] {
        group.bench_function(BenchmarkId::from_parameter(what), |bencher| {
            let mut yard = Yard::new(Durability::Os);
            let mut run = |pond: &Pond, count: u64| {
                let is_new = what == "a new id";
                let ids: Vec<[u8; 16]> = (0..count)
                    .map(|_| {
                        next += u64::from(is_new);
                        u128::from(next).to_le_bytes()
                    })
                    .collect();
                if !is_new {
                    let first = Message::new(&payload[..]).dedup_id(u128::from(next).to_le_bytes());
                    pond.topic.publish(first).expect("publish");
                }
                time(|| {
                    for id in &ids {
                        let message = Message::new(&payload[..]);
                        let message = if what == "without an id" { message } else { message.dedup_id(&id[..]) };
                        black_box(pond.topic.publish(message).expect("publish"));
                    }
                })
            };
            bencher.iter_custom(|iters| yard.chunks(iters, 100_000, &mut run));
        });
    }
}

fn transactions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("3 publishes and an ack Os, 100 B");
    group.measurement_time(short_measure());
    group.throughput(Throughput::Elements(1));
    group.bench_function("four calls", |bencher| {
        measure(bencher, |pond, payload, delivery| {
            for _ in 0..3 {
                pond.topic.publish(Message::new(payload)).expect("publish");
            }
            delivery.ack().expect("ack");
        });
    });
    group.bench_function("a transaction", |bencher| {
        measure(bencher, |pond, payload, delivery| {
            let done = pond.store.transaction(|tx| {
                for _ in 0..3 {
                    tx.publish(&pond.topic, Message::new(payload))?;
                }
                tx.ack(&delivery)
            });
            black_box(done.map_err(|error: Error| error).expect("a transaction"));
        });
    });
}

fn measure(bencher: &mut criterion::Bencher<'_>, each: impl Fn(&Pond, &[u8], Delivery)) {
    let mut yard = Yard::new(Durability::Os);
    let payload = payload(0, LEN);
    bencher.iter_custom(|iters| {
        yard.chunks(iters, LEASED, |pond, count| {
            let work = pond.store.topic("work").open().expect("open a topic");
            let group = work.group("worker").open().expect("open a group");
            work.publish_batch((0..count).map(|_| Message::new(&payload[..]))).expect("publish");
            let leased: Vec<Delivery> =
                group.receive_batch(count as usize, Duration::ZERO).expect("receive").into_iter().collect();
            assert_eq!(leased.len() as u64, count, "all are leased");
            time(|| leased.into_iter().for_each(|delivery| each(pond, &payload, delivery)))
        })
    });
}

fn main() -> ExitCode {
    common::call::begin("exactly_once", &[ids, transactions])
}
