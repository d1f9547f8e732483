//! Whether a store grows that should not: millions of messages through a small one, and many that wait in a large one.
//!
//! `cargo bench --bench soak`; words after `--` choose parts. `MILLPOND_WRITE_DOCS=1` writes `docs/measured/soak.md`.

mod common;

use common::child::hold_in_child;
use common::machine::{self, occupied_bytes};
use common::pond::{LEN, Pond, drain_in_batches};
use common::table::{self, Table, count, digits};
use common::{Arena, call, pick, rest, say};
use millpond::{Delivery, Durability};
use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

/// Messages that a call publishes, receives or acks.
const BATCH: u64 = 1_000;
/// How often the table has a row.
const SAMPLES: u64 = 10;

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", digits(bytes as f64 / f64::from(1 << 20)))
}

/// What is on the disk once the background jobs have nothing left to do: it stays the same for a while.
fn disk_at_rest(pond: &Pond) -> u64 {
    pond.store.sync().expect("sync");
    let pause = pick(Duration::from_secs(2), Duration::from_millis(200));
    let mut last = occupied_bytes(&pond.path);
    for _ in 0..10 {
        rest(pause);
        let now = occupied_bytes(&pond.path);
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// Publishes, receives and acks by batches; as many wait after each round as before.
fn soak(text: &RefCell<String>) {
    let messages = pick(50_000_000, 20_000);
    // More than a segment: what is received is read from sealed segments, through the block cache, which is full soon.
    let waiting = pick(100_000, BATCH);
    let arena = Arena::new();
    let pond = Pond::with_segments(&arena, Durability::Os, 4 << 20);
    let group = pond.group();
    let floor = disk_at_rest(&pond);
    let mut table = Table::new(&["messages", "private memory", "disk", "segments", "most disk so far"]);
    let mut most = 0;
    pond.fill(0..waiting);
    for first in (0..messages).step_by(BATCH as usize) {
        pond.fill(first + waiting..first + waiting + BATCH);
        drain_in_batches(&group, first..first + BATCH, BATCH);
        let done = first + BATCH;
        if done.is_multiple_of(messages / SAMPLES / 20) {
            most = most.max(occupied_bytes(&pond.path));
        }
        if done.is_multiple_of(messages / SAMPLES) {
            assert_eq!(pond.lag(), waiting, "as many came out as went in");
            let (memory, disk) = (machine::private_bytes(), occupied_bytes(&pond.path));
            let cells = [mebibytes(memory), mebibytes(disk), pond.segments().to_string(), mebibytes(most)];
            table.row([count(done as f64)].into_iter().chain(cells).collect());
        }
    }
    drain_in_batches(&group, messages..messages + waiting, BATCH);
    assert_eq!(pond.lag(), 0, "all are settled");
    let open = disk_at_rest(&pond);
    pond.store.close().expect("close");
    let closed = occupied_bytes(&pond.path);
    let what = format!(
        "{} messages of {LEN} B at `Os`, published, received and acked by {BATCH} through a store with segments of 4 MiB; {waiting} wait all the time. \
         Private memory is that of the whole process, with a block cache of at most 16 MiB. Disk is what the store's files occupy.",
        count(messages as f64),
    );
    let end = format!(
        "\nThe disk of the store before the first message: {}. With every message acked, at rest: {}; closed: {}.\n",
        mebibytes(floor),
        mebibytes(open),
        mebibytes(closed)
    );
    section(text, "Through a small store", &what, &table, &end);
}

/// Many messages that wait, and as many of them handed out as a group may have in progress.
fn waiting(text: &RefCell<String>) {
    let waiting = pick(5_000_000, 2_000);
    let arena = Arena::new();
    let held = hold_in_child(&arena.fresh(), waiting);
    assert_eq!(held.deliveries, waiting.min(65_536), "as many are out as may be");
    let mut table = Table::new(&["what", "private memory"]);
    table.row(vec![format!("{waiting} messages waiting"), mebibytes(held.waiting)]);
    let out = format!("and {} of them outstanding, their deliveries held", held.deliveries);
    table.row(vec![out, mebibytes(held.outstanding)]);
    let deliveries = held.deliveries * (size_of::<Delivery>() + LEN) as u64;
    let what = "What the store adds to the private memory of a fresh process that fills it with 100 B at `Os` by 1,000 and then receives one at a time.";
    let end = format!(
        "\nOf that, {} are the deliveries themselves with their payloads, which belong to the caller.\n",
        mebibytes(deliveries)
    );
    section(text, "With many waiting", what, &table, &end);
}

fn section(text: &RefCell<String>, title: &str, what: &str, table: &Table, end: &str) {
    let section = format!("\n## {title}\n\n{what}\n\n{}{end}", table.markdown());
    say(&section);
    text.borrow_mut().push_str(&section);
}

const PREFACE: &str = "# Soak

Whether memory or disk grows with messages that have passed, and what those cost that wait. Printed
by `cargo bench --bench soak`, and written here with `MILLPOND_WRITE_DOCS=1`; never edited by hand.
";

fn main() -> ExitCode {
    let text = RefCell::new(String::new());
    let parts: [(&str, &dyn Fn()); 2] = [("soak", &|| soak(&text)), ("waiting", &|| waiting(&text))];
    call::run(&parts, || {
        let titles = text.borrow().matches("\n## ").count();
        if titles == parts.len() {
            let facts = machine::facts(Arena::new().path());
            table::write("soak.md", &format!("{PREFACE}\n{facts}.\n{}", text.borrow()));
        }
    })
}
