//! Latency under a steady load: from publish to receive, and of the publish call itself while segments roll, checkpoints are written
//! and dead segments are unlinked.
//!
//! `cargo bench --bench latency`; words after `--` choose parts. Each latency counts from the moment the message was due, so a stall
//! counts for every message that it held up. `MILLPOND_WRITE_DOCS=1` writes `docs/measured/latency.md`.

mod common;

use common::pace::{bare_hand_over, call_latency, end_to_end};
use common::pond::{LEN, Pond, number, payload};
use common::table::{self, Table, quantiles};
use common::{Arena, call, machine, pick, say};
use hdrhistogram::Histogram;
use millpond::{Durability, Group, Message};
use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 0.9999];

fn rates() -> Vec<u64> {
    pick(vec![10_000, 50_000, 200_000], vec![5_000])
}

fn seconds() -> u64 {
    5
}

fn table(what: &str) -> Table {
    Table::new(&[what, "p50", "p99", "p99.9", "p99.99", "max"])
}

fn row(table: &mut Table, what: String, latencies: &Histogram<u64>) {
    let cells = [what].into_iter().chain(quantiles(latencies, &QUANTILES)).collect();
    table.row(cells);
}

fn bare(text: &RefCell<String>) {
    let mut table = table("messages a second");
    for rate in rates() {
        let latencies = bare_hand_over(rate, pick(rate * seconds(), 500));
        row(&mut table, rate.to_string(), &latencies);
    }
    let what = "Numbers handed from thread to thread through a bounded channel: the floor of the two tables below.";
    section(text, "A bare channel", what, &table);
}

fn os(text: &RefCell<String>) {
    let mut table = table("messages a second");
    for rate in rates() {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let group = pond.group();
        pond.ripen();
        let latencies = publish_to_receive(&pond, &group, rate);
        row(&mut table, rate.to_string(), &latencies);
    }
    let what = "One thread publishes, another waits for each message, receives it and acks it.";
    section(text, "From publish to receive, at `Os`", what, &table);
}

/// One thread publishes without waiting, another waits for all that was published, over and over: a message is delivered once it
/// is durable.
fn disk(text: &RefCell<String>) {
    let mut table = table("messages a second");
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
        row(&mut table, rate.to_string(), &latencies);
    }
    let what = "The same in a store at `Disk`, where a message is delivered once it is durable. A third thread waits for all that was published, \
                over and over.";
    section(text, "From publish to receive, at `Disk`", what, &table);
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

/// A publish at `Os` while segments roll seldom and often, while checkpoints of a large state are written, and while segments are
/// unlinked whose messages were acked just before.
fn publish(text: &RefCell<String>) {
    let mut table = table("store");
    let rate = pick(200_000, 5_000);
    let many = pick(65_536, 100);
    let cases = [
        ("segments of 64 MiB", 64 << 20, 0, 0),
        ("segments of 1 MiB", 1 << 20, 0, 0),
        ("segments of 1 MiB, checkpoints of many outstanding", 1 << 20, many, 0),
        ("segments of 1 MiB, dead ones unlinked", 1 << 20, 0, 10 * many),
    ];
    for (what, segment_bytes, outstanding, dead) in cases {
        let arena = Arena::new();
        let pond = Pond::with_segments(&arena, Durability::Os, segment_bytes);
        let group = pond.group();
        pond.fill(0..outstanding);
        let held = group.receive_batch(outstanding as usize, Duration::ZERO).expect("receive");
        assert_eq!(held.len() as u64, outstanding, "all are out");
        pond.ripen();
        pond.fill(0..dead);
        for _ in 0..dead / many {
            let batch = group.receive_batch(many as usize, Duration::ZERO).expect("receive");
            assert!(batch.ack().expect("ack").is_empty(), "no lease was lost");
        }
        let (segments, end, before) = (pond.segments(), pond.log_end(), pond.published());
        let count = pick(rate * seconds(), 500);
        let latencies = call_latency(rate, count, |n| {
            drop(pond.topic.publish(Message::new(payload(n, LEN))).expect("publish"));
        });
        assert_eq!(pond.published() - before, count, "every message is there");
        let rolls = (pond.log_end() - end) / segment_bytes;
        let unlinked = (segments + rolls).saturating_sub(pond.segments());
        row(&mut table, format!("{what} ({rolls} rolls, {unlinked} unlinked)"), &latencies);
        assert!(held.ack().expect("ack").is_empty(), "no lease was lost");
    }
    let what =
        format!("At {rate} messages a second at `Os`, from one thread: how long after it was due each call returned.");
    section(
        text,
        "The call of publish, while segments roll, checkpoints are written and dead segments unlinked",
        &what,
        &table,
    );
}

fn section(text: &RefCell<String>, title: &str, what: &str, table: &Table) {
    let section = format!("\n## {title}\n\n{what}\n\n{}", table.markdown());
    say(&section);
    text.borrow_mut().push_str(&section);
}

const PREFACE: &str = "# Latency

How long a message takes at a steady rate, and how long the call of publish does. Printed by `cargo
bench --bench latency`, and written here with `MILLPOND_WRITE_DOCS=1`; never edited by hand.
Messages of 100 B are sent on a fixed schedule for five seconds, and each latency counts from the
moment at which the message was due, so a stall counts for every message that it held up. One run:
what a table says of its rarest events is one sample of them.
";

fn main() -> ExitCode {
    let text = RefCell::new(String::new());
    let parts: [(&str, &dyn Fn()); 4] =
        [("bare", &|| bare(&text)), ("os", &|| os(&text)), ("disk", &|| disk(&text)), ("publish", &|| publish(&text))];
    call::run(&parts, || {
        let (facts, clock) = (machine::facts(Arena::new().path()), table::duration(machine::clock_ns()));
        let facts = format!("{facts}; reading the clock takes {clock}.");
        say(&format!("\n{facts}"));
        let titles = text.borrow().matches("\n## ").count();
        if titles == parts.len() {
            table::write("latency.md", &format!("{PREFACE}\n{facts}\n{}", text.borrow()));
        }
    })
}
