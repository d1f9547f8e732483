//! Budgets that look at more than one call: latency from end to end, opening, bytes on disk.

use super::common::child::{End, Opened, fill_segments_in_child, open_in_child};
use super::common::pace::{bare_hand_over, end_to_end};
use super::common::pond::{LEN, Pond, number, payload, take};
use super::common::{Arena, pick};
use super::row::{Bound, Line, Sample, Section, Unit};
use millpond::{Durability, Message};
use std::time::Duration;

pub(crate) const PACED: Section = Section {
    name: "paced",
    lines: &[
        Line {
            what: "publish to receive at `Os`, 50,000/s, p50",
            unit: Unit::Nanoseconds,
            bound: Bound::MostTimesFloor(3.0),
        },
        Line { what: "the same, p99", unit: Unit::Nanoseconds, bound: Bound::MostTimesFloor(3.0) },
    ],
    measure: paced,
};

pub(crate) const OPENING: Section = Section {
    name: "open",
    lines: &[
        Line { what: "open with 5 M x 100 B waiting, closed", unit: Unit::Nanoseconds, bound: Bound::Most(10e6) },
        Line { what: "the same, each segment more", unit: Unit::Nanoseconds, bound: Bound::Most(20e3) },
        Line { what: "the same, killed in quiet", unit: Unit::Nanoseconds, bound: Bound::Most(120e6) },
        Line { what: "the same, killed at full rate", unit: Unit::Nanoseconds, bound: Bound::Most(250e6) },
        Line {
            what: "private memory then, the most of the three",
            unit: Unit::Bytes,
            bound: Bound::Most(64.0 * 1024.0 * 1024.0),
        },
    ],
    measure: opening,
};

/// Makes many segments of the messages that open with few.
const SMALL_SEGMENT_BYTES: u64 = 4 << 20;

pub(crate) const DISK: Section = Section {
    name: "disk",
    lines: &[
        Line { what: "bytes of log for 100 B, published one at a time", unit: Unit::Bytes, bound: Bound::Most(128.0) },
        Line { what: "the same, received and acked", unit: Unit::Bytes, bound: Bound::Most(176.0) },
    ],
    measure: disk,
};

fn paced(arena: &Arena) -> Vec<Sample> {
    let (rate, count) = (50_000, pick(250_000, 500));
    let bare = bare_hand_over(rate, count);
    let pond = Pond::new(arena, Durability::Os);
    let group = pond.group();
    pond.ripen();
    let publish = |n| drop(pond.topic.publish(Message::new(payload(n, LEN))).expect("publish"));
    let latencies = end_to_end(rate, count, publish, || {
        let delivery = group.receive(Duration::from_secs(30)).expect("receive").expect("a message in time");
        let number = number(delivery.payload());
        delivery.ack().expect("ack");
        number
    });
    assert_eq!(pond.lag(), 0, "as many came out as went in");
    drop(group);
    pond.remove();
    let at = |quantile| {
        let ns = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(quantile) as f64;
        Sample::of(ns(&latencies)).floor(ns(&bare)).tail(&latencies)
    };
    vec![at(0.5), at(0.99)]
}

fn opening(arena: &Arena) -> Vec<Sample> {
    let waiting = pick(5_000_000, 2_000);
    let open = |end, segment_bytes| -> Opened {
        let path = arena.fresh();
        fill_segments_in_child(&path, waiting, end, segment_bytes);
        let opened = open_in_child(&path);
        assert!(opened.waiting >= waiting, "what had returned is there");
        std::fs::remove_dir_all(path).expect("remove the store");
        opened
    };
    let [clean, quiet, busy] =
        [End::Clean, End::KilledInQuiet, End::KilledAtFullRate].map(|end| open(end, pick(64 << 20, 1 << 20)));
    let many = open(End::Clean, pick(SMALL_SEGMENT_BYTES, 64 << 10));
    assert!(many.segments > clean.segments, "{} segments", many.segments);
    let ns = |opened: &Opened| opened.open.as_nanos() as f64;
    let private = [&clean, &quiet, &busy].map(|opened| opened.private_bytes as f64);
    vec![
        Sample::of(ns(&clean)),
        Sample::of((ns(&many) - ns(&clean)) / (many.segments - clean.segments) as f64),
        Sample::of(ns(&quiet)),
        Sample::of(ns(&busy)),
        Sample::of(private.into_iter().fold(0.0, f64::max)),
    ]
}

fn disk(arena: &Arena) -> Vec<Sample> {
    let count = pick(100_000, 500);
    let pond = Pond::new(arena, Durability::Os);
    let group = pond.group();
    let begin = pond.log_end();
    (0..count).for_each(|n| drop(pond.topic.publish(Message::new(payload(n, LEN))).expect("publish")));
    // In whole bytes: a frame in many thousands carries the watermark, and is longer by eight.
    let published = ((pond.log_end() - begin) as f64 / count as f64).round();
    (0..count).for_each(|_| take(&group).ack().expect("ack"));
    let settled = ((pond.log_end() - begin) as f64 / count as f64).round();
    assert_eq!(pond.lag(), 0, "as many came out as went in");
    drop(group);
    pond.remove();
    vec![Sample::of(published).floor(LEN as f64), Sample::of(settled).floor(LEN as f64)]
}
