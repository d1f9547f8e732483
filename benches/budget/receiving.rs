//! Budgets of receiving and acking, and of many topics.

use super::common::pond::{LEN, Pond, drain_in_batches, drain_one_by_one, group_of, number, payload, take};
use super::common::{Arena, floor, machine, now, ns_each, pace, per_second, pick, time};
use super::row::{Bound, Line, Sample, Section, Unit};
use hdrhistogram::Histogram;
use millpond::{Durability, Group, Message, Topic};
use std::ops::Range;
use std::time::Duration;

/// Enough for four segments of 64 MiB.
const COUNT: u64 = 2_800_000;
const BATCH: u64 = 100;

pub(crate) const ONE_AT_A_TIME: Section = Section {
    name: "receive-one",
    lines: &[Line {
        what: "receive and ack 100 B at `Os`, one at a time",
        unit: Unit::Nanoseconds,
        bound: Bound::Either { figure: 400.0, times: 5.7 },
    }],
    measure: |arena| receive(arena, 1, drain_one_by_one),
};

pub(crate) const IN_BATCHES: Section = Section {
    name: "receive-batch",
    lines: &[Line {
        what: "receive and ack 100 B at `Os` in batches of 100, a message",
        unit: Unit::Nanoseconds,
        bound: Bound::Most(100.0),
    }],
    measure: |arena| receive(arena, BATCH, |group, numbers| drain_in_batches(group, numbers, BATCH)),
};

pub(crate) const TOPICS: Section = Section {
    name: "topics",
    lines: &[
        Line {
            what: "publish 100 B at `Os` over 10,000 topics in turn",
            unit: Unit::PerSecond,
            bound: Bound::LeastTimesFloor(0.7),
        },
        Line {
            what: "receive and ack over 10,000 topics in turn",
            unit: Unit::PerSecond,
            bound: Bound::LeastTimesFloor(0.7),
        },
    ],
    measure: |arena| {
        let one = over_topics(arena, 1);
        let many = over_topics(arena, pick(10_000, 20));
        many.into_iter().zip(one).map(|(many, one)| Sample::of(many).floor(one)).collect()
    },
};

/// Times the draining of messages that wait: the mean without looking at the clock, then each call by itself.
fn receive(arena: &Arena, batch: u64, drain: impl Fn(&Group, Range<u64>)) -> Vec<Sample> {
    let count = pick(COUNT, 2_000);
    let floor = floor_ns(arena, count, batch);
    machine::warm_memory();
    let pond = Pond::new(arena, Durability::Os);
    let group = pond.group();
    pond.ripen();
    pond.fill(0..count);
    pond.store.sync().expect("sync");
    let elapsed = time(|| drain(&group, 0..count));
    let tail = count..count + count / 4;
    pond.fill(tail.clone());
    let latencies = each_call(&group, tail, batch, drain);
    assert_eq!(pond.lag(), 0, "as many came out as went in");
    drop(group);
    pond.remove();
    vec![Sample::of(ns_each(elapsed, count)).floor(floor).tail(&latencies)]
}

fn each_call(group: &Group, mut numbers: Range<u64>, batch: u64, drain: impl Fn(&Group, Range<u64>)) -> Histogram<u64> {
    let mut latencies = pace::histogram();
    while !numbers.is_empty() {
        let upto = numbers.end.min(numbers.start + batch);
        let start = now();
        drain(group, numbers.start..upto);
        pace::record(&mut latencies, start.elapsed());
        numbers.start = upto;
    }
    latencies
}

fn floor_ns(arena: &Arena, count: u64, batch: u64) -> f64 {
    machine::warm_memory();
    let directory = arena.fresh();
    std::fs::create_dir(&directory).expect("create a directory");
    floor::settle_ns(&directory, count, batch, &payload(0, LEN))
}

/// Messages a second over `topics` topics in turn: published, and then received and acked.
fn over_topics(arena: &Arena, topics: u64) -> [f64; 2] {
    let count = pick(COUNT, 2_000);
    machine::warm_memory();
    let pond = Pond::new(arena, Durability::Os);
    let open = |n| {
        let topic = pond.store.topic(format!("topic-{n}")).open().expect("open a topic");
        let group = group_of(&topic);
        (topic, group)
    };
    let handles: Vec<(Topic, Group)> = (0..topics).map(open).collect();
    pond.ripen();
    let published = time(|| {
        for (n, (topic, _)) in (0..count).zip(handles.iter().cycle()) {
            topic.publish(Message::new(payload(n, LEN))).expect("publish");
        }
    });
    pond.store.sync().expect("sync");
    let received = time(|| {
        for (n, (_, group)) in (0..count).zip(handles.iter().cycle()) {
            let delivery = take(group);
            assert_eq!(number(delivery.payload()), n, "in order");
            delivery.ack().expect("ack");
        }
    });
    for (_, group) in handles.iter().take(100) {
        assert!(group.receive(Duration::ZERO).expect("receive").is_none(), "all are settled");
    }
    drop(handles);
    pond.remove();
    [published, received].map(|elapsed| per_second(elapsed, count))
}
