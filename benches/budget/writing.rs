//! Budgets of publishing at `Os`.

use super::common::pond::{LEN, Pond, payload};
use super::common::{Arena, floor, machine, now, ns_each, pace, pick, time};
use super::row::{Bound, Line, Sample, Section, Unit};
use millpond::{Durability, Message};
use std::hint::black_box;

/// Enough for four segments of 64 MiB.
const COUNT: u64 = 2_800_000;
const BATCH: u64 = 100;

pub(crate) const ONE_AT_A_TIME: Section = Section {
    name: "publish-one",
    lines: &[Line {
        what: "publish 100 B at `Os`, one at a time",
        unit: Unit::Nanoseconds,
        bound: Bound::Either { figure: 150.0, times: 3.1 },
    }],
    measure: |arena| {
        let payload = payload(0, LEN);
        publish(arena, 1, |pond| drop(black_box(pond.topic.publish(Message::new(&payload[..])).expect("publish"))))
    },
};

pub(crate) const IN_BATCHES: Section = Section {
    name: "publish-batch",
    lines: &[Line {
        what: "publish 100 B at `Os` in batches of 100, a message",
        unit: Unit::Nanoseconds,
        bound: Bound::Either { figure: 80.0, times: 2.6 },
    }],
    measure: |arena| {
        let payload = payload(0, LEN);
        publish(arena, BATCH, |pond| {
            let batch = (0..BATCH).map(|_| Message::new(&payload[..]));
            drop(black_box(pond.topic.publish_batch(batch).expect("publish")));
        })
    },
};

/// Times calls that publish `batch` messages each: their mean without looking at the clock, then each by itself.
fn publish(arena: &Arena, batch: u64, call: impl Fn(&Pond)) -> Vec<Sample> {
    let calls = pick(COUNT, 2_000) / batch;
    let floor = floor_ns(arena, batch as usize);
    machine::warm_memory();
    let pond = Pond::new(arena, Durability::Os);
    pond.ripen();
    let segments = pond.segments();
    let elapsed = time(|| (0..calls).for_each(|_| call(&pond)));
    let rolls = pond.segments() - segments;
    assert!(rolls >= pick(4, 0), "a mean over {rolls} segment rolls");
    let mut latencies = pace::histogram();
    for _ in 0..calls {
        let start = now();
        call(&pond);
        pace::record(&mut latencies, start.elapsed());
    }
    assert_eq!(pond.published(), 2 * calls * batch, "every message is there");
    pond.remove();
    vec![Sample::of(ns_each(elapsed, calls * batch)).floor(floor).tail(&latencies)]
}

fn floor_ns(arena: &Arena, batch: usize) -> f64 {
    machine::warm_memory();
    let directory = arena.fresh();
    std::fs::create_dir(&directory).expect("create a directory");
    floor::append_ns(&directory, LEN, batch, pick(4, 1), pick(64 << 20, 64 << 10))
}
