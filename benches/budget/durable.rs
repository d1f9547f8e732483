//! Budgets of publishing at `Disk`.

use super::common::floor::{self, Synced};
use super::common::pond::{LEN, Pond, payload};
use super::common::{Arena, machine, median, now, ns_each, pace, per_second, pick, time};
use super::row::{Bound, Line, Sample, Section, Unit};
use hdrhistogram::Histogram;
use millpond::{Durability, Message};

pub(crate) const ALONE: Section = Section {
    name: "durable-alone",
    lines: &[
        Line { what: "publish 100 B at `Disk`, 1 thread", unit: Unit::Nanoseconds, bound: Bound::MostTimesFloor(1.15) },
        Line { what: "bytes written a sync, worst quarter", unit: Unit::Bytes, bound: Bound::Most(8192.0) },
    ],
    measure: alone,
};

pub(crate) const BLOCKED: Section = Section {
    name: "durable-blocked",
    lines: &[Line {
        what: "publish 100 B at `Disk`, 64 threads that wait",
        unit: Unit::PerSecond,
        bound: Bound::LeastTimesFloor(0.8),
    }],
    measure: blocked,
};

pub(crate) const PIPELINED: Section = Section {
    name: "durable-pipelined",
    lines: &[Line {
        what: "publish 100 B at `Disk`, 1 thread, 1,000 receipts at once",
        unit: Unit::PerSecond,
        bound: Bound::Least(300_000.0),
    }],
    measure: pipelined,
};

fn alone(arena: &Arena) -> Vec<Sample> {
    let (segment, rolls, quarters) = pick((64_u64 << 20, 4, 4), (1 << 20, 1, 1));
    let syncs = pick(150, 3);
    let payload = payload(0, LEN);
    let pond = Pond::with_segments(arena, Durability::Disk, segment);
    pond.ripen();
    let (mut measured, mut floors, mut worst) = (0.0, 0.0, None::<f64>);
    let mut latencies = pace::histogram();
    for _ in 0..rolls {
        let path = arena.fresh();
        let mut synced = Synced::create(&path, segment as usize);
        let base = pond.grow_to_new_segment();
        for quarter in 0..quarters {
            let place = quarter * segment / 4 + segment / 8;
            pond.grow_to(base + place);
            synced.fill_to(place);
            measured += alone_ns(&pond, syncs, &payload, &mut latencies);
            floors += synced.mean_ns(&payload, syncs);
            worst = bytes_a_sync(&pond, syncs / 3, &payload).into_iter().chain(worst).reduce(f64::max);
        }
        drop(synced);
        for extension in ["mapped", "written"] {
            std::fs::remove_file(path.with_extension(extension)).expect("remove a file");
        }
    }
    let places = (rolls * quarters) as f64;
    assert_eq!(pond.published(), rolls * quarters * (syncs + syncs / 3), "every message is there");
    pond.remove();
    vec![
        Sample::of(measured / places).floor(floors / places).tail(&latencies),
        Sample { floor: None, measured: worst, tail_ns: None },
    ]
}

fn alone_ns(pond: &Pond, count: u64, payload: &[u8], latencies: &mut Histogram<u64>) -> f64 {
    let elapsed = time(|| {
        for _ in 0..count {
            let start = now();
            pond.topic.publish(Message::new(payload)).expect("publish");
            pace::record(latencies, start.elapsed());
        }
    });
    ns_each(elapsed, count)
}

/// The median of the bytes that the device wrote during a publish.
fn bytes_a_sync(pond: &Pond, count: u64, payload: &[u8]) -> Option<f64> {
    let written = (0..count).map(|_| {
        let before = machine::bytes_written(&pond.path)?;
        pond.topic.publish(Message::new(payload)).expect("publish");
        Some(machine::bytes_written(&pond.path)?.saturating_sub(before) as f64)
    });
    Some(median(written.collect::<Option<Vec<f64>>>()?))
}

fn blocked(arena: &Arena) -> Vec<Sample> {
    let (threads, each) = pick((64, 2_500), (4, 5));
    let payload = payload(0, LEN);
    let floor = floor::leader_sync_rate(&arena.fresh(), threads, each, &payload);
    let pond = Pond::with_segments(arena, Durability::Disk, 4 << 20);
    let segments = pond.segments();
    let elapsed = time(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..each {
                        pond.topic.publish(Message::new(&payload[..])).expect("publish");
                    }
                });
            }
        });
    });
    assert!(pond.segments() - segments >= pick(4, 0), "at least four segment rolls");
    let latencies = blocked_latencies(&pond, threads, each / 4, &payload);
    assert_eq!(pond.published(), threads * (each + each / 4), "every message is there");
    pond.remove();
    vec![Sample::of(per_second(elapsed, threads * each)).floor(floor).tail(&latencies)]
}

fn blocked_latencies(pond: &Pond, threads: u64, each: u64, payload: &[u8]) -> Histogram<u64> {
    let mut all = pace::histogram();
    std::thread::scope(|scope| {
        let publish = || {
            let mut latencies = pace::histogram();
            alone_ns(pond, each, payload, &mut latencies);
            latencies
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(publish)).collect();
        for thread in threads {
            all.add(thread.join().expect("a publisher")).expect("the same bounds");
        }
    });
    all
}

fn pipelined(arena: &Arena) -> Vec<Sample> {
    const RUN: u64 = 1_000;
    let runs = pick(700, 2);
    let payload = payload(0, LEN);
    let floor = floor::pipelined_rate(&arena.fresh(), runs, RUN, &payload);
    let pond = Pond::with_segments(arena, Durability::Disk, 16 << 20);
    let segments = pond.segments();
    let topic = pond.topic.with_durability(Durability::Os);
    let mut receipts = Vec::with_capacity(RUN as usize);
    let mut latencies = pace::histogram();
    let elapsed = time(|| {
        for _ in 0..runs {
            let start = now();
            receipts.extend((0..RUN).map(|_| topic.publish(Message::new(&payload[..])).expect("publish")));
            // The last waits for all; the others find their turn done.
            receipts.drain(..).rev().for_each(|receipt| receipt.wait_durable().expect("durable"));
            pace::record(&mut latencies, start.elapsed());
        }
    });
    assert!(pond.segments() - segments >= pick(4, 0), "at least four segment rolls");
    assert_eq!(pond.published(), runs * RUN, "every message is there");
    pond.remove();
    vec![Sample::of(per_second(elapsed, runs * RUN)).floor(floor).tail(&latencies)]
}
