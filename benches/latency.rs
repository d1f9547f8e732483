//! Latency under a steady load: from publish to receive, and of the publish call itself while segments roll and checkpoints are written.
//!
//! `cargo bench --bench latency`; words after `--` choose parts. Each latency counts from the moment the message was due, so a stall
//! counts for every message that it held up.

mod common;

use common::pace::{bare_hand_over, call_latency, end_to_end};
use common::pond::{LEN, Pond, number, payload};
use common::table::{self, Table, quantiles};
use common::{Arena, call, machine, pick, say};
use hdrhistogram::Histogram;
use millpond::{Durability, Group, Message};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 0.9999];
const COLUMNS: [&str; 6] = ["what", "p50", "p99", "p99.9", "p99.99", "max"];

fn rates() -> Vec<u64> {
    pick(vec![10_000, 50_000, 200_000], vec![5_000])
}

fn seconds() -> u64 {
    5
}

fn row(table: &mut Table, what: String, latencies: &Histogram<u64>) {
    let cells = [what].into_iter().chain(quantiles(latencies, &QUANTILES)).collect();
    table.row(cells);
}

fn bare() {
    let mut table = Table::new(&COLUMNS);
    for rate in rates() {
        let latencies = bare_hand_over(rate, pick(rate * seconds(), 500));
        row(&mut table, format!("bare channel, {rate}/s"), &latencies);
    }
    say(&table.markdown());
}

fn os() {
    let mut table = Table::new(&COLUMNS);
    for rate in rates() {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let group = pond.group();
        pond.ripen();
        let latencies = publish_to_receive(&pond, &group, rate);
        row(&mut table, format!("publish to receive, `Os`, {rate}/s"), &latencies);
    }
    say(&table.markdown());
}

/// One thread publishes without waiting, another waits for all that was published, over and over: a message is delivered once it
/// is durable.
fn disk() {
    let mut table = Table::new(&COLUMNS);
    for rate in rates() {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Disk);
        let group = pond.group();
        pond.ripen();
        let done = AtomicBool::new(false);
        let latencies = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    pond.store.sync().expect("sync");
                    // With nothing to sync it returns at once.
                    std::thread::yield_now();
                }
            });
            let latencies = publish_to_receive(&pond, &group, rate);
            done.store(true, Ordering::Relaxed);
            latencies
        });
        row(&mut table, format!("publish to receive, `Disk`, {rate}/s"), &latencies);
    }
    say(&table.markdown());
}

fn publish_to_receive(pond: &Pond, group: &Group, rate: u64) -> Histogram<u64> {
    let topic = pond.topic.with_durability(Durability::Os);
    let publish = |n| drop(topic.publish(Message::new(payload(n, LEN))).expect("publish"));
    let latencies = end_to_end(rate, pick(rate * seconds(), 500), publish, || {
        let delivery = group.receive(Duration::from_secs(30)).expect("receive").expect("a message in time");
        let number = number(delivery.payload());
        delivery.ack().expect("ack");
        number
    });
    assert_eq!(pond.lag(), 0, "as many came out as went in");
    latencies
}

/// A publish at `Os` while segments roll seldom and often, and while checkpoints of a large state are written.
fn publish() {
    let mut table = Table::new(&COLUMNS);
    let rate = pick(200_000, 5_000);
    let many = pick(65_536, 100);
    let cases = [
        ("segments of 64 MiB", 64 << 20, 0),
        ("segments of 1 MiB", 1 << 20, 0),
        ("segments of 1 MiB, checkpoints of many outstanding", 1 << 20, many),
    ];
    for (what, segment_bytes, outstanding) in cases {
        let arena = Arena::new();
        let pond = Pond::with_segments(&arena, Durability::Os, segment_bytes);
        let group = pond.group();
        pond.fill(0..outstanding);
        let held = group.receive_batch(outstanding as usize, Duration::ZERO).expect("receive");
        assert_eq!(held.len() as u64, outstanding, "all are out");
        pond.ripen();
        let (segments, before) = (pond.segments(), pond.published());
        let count = pick(rate * seconds(), 500);
        let latencies = call_latency(rate, count, |n| {
            drop(pond.topic.publish(Message::new(payload(n, LEN))).expect("publish"));
        });
        assert_eq!(pond.published() - before, count, "every message is there");
        let rolls = pond.segments() - segments;
        row(&mut table, format!("publish `Os`, {rate}/s, {what} ({rolls} rolls)"), &latencies);
        assert!(held.ack().expect("ack").is_empty(), "no lease was lost");
    }
    say(&table.markdown());
}

fn main() -> ExitCode {
    let facts = || {
        say(&format!(
            "{}; reading the clock takes {}.\n",
            machine::facts(Arena::new().path()),
            table::duration(machine::clock_ns())
        ));
    };
    call::run(&[("facts", &facts), ("bare", &bare), ("os", &os), ("disk", &disk), ("publish", &publish)], || ())
}
