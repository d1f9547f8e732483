//! What publishing, receiving, acking and opening cost as the store grows: with messages that wait, with groups, with topics.
//!
//! `cargo bench --bench curves`; words after `--` choose parts. `MILLPOND_WRITE_DOCS=1` writes `docs/measured/scaling.md`.

mod common;

use common::child::{End, fill_in_child, open_in_child};
use common::pond::{LEN, Pond, group_of, number, payload, take};
use common::table::{self, Table, digits, duration};
use common::{Arena, call, machine, median, ns_each, pick, say, time};
use millpond::{Durability, Group, Message, Topic};
use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

/// Nanoseconds a message of each step.
#[derive(Clone, Copy, Default)]
struct Costs {
    publish: f64,
    receive: f64,
    ack: f64,
}

impl Costs {
    fn cells(self) -> [String; 3] {
        [self.publish, self.receive, self.ack].map(duration)
    }
}

fn median_costs(runs: &[Costs]) -> Costs {
    let middle = |value: fn(&Costs) -> f64| median(runs.iter().map(value));
    Costs { publish: middle(|c| c.publish), receive: middle(|c| c.receive), ack: middle(|c| c.ack) }
}

fn runs() -> usize {
    pick(3, 1)
}

/// How many messages wait, from few to many.
fn backlogs() -> Vec<u64> {
    pick(vec![10, 1_000, 100_000, 1_000_000, 10_000_000], vec![10, 200])
}

/// Rounds of publishing, receiving and acking as many messages from each topic in turn, so that what waits stays the same.
struct Rounds {
    topics: Vec<(Topic, Group)>,
    /// The number of the next message of each topic to be received.
    next: u64,
    waiting: u64,
}

impl Rounds {
    fn run(&mut self, rounds: u64, each: u64) -> Costs {
        let mut total = [Duration::ZERO; 3];
        let count = each * self.topics.len() as u64;
        let mut held = Vec::with_capacity(count as usize);
        for _ in 0..rounds {
            let first = self.next + self.waiting;
            total[0] += time(|| {
                for n in first..first + each {
                    for (topic, _) in &self.topics {
                        topic.publish(Message::new(payload(n, LEN))).expect("publish");
                    }
                }
            });
            total[1] += time(|| {
                for _ in 0..each {
                    held.extend(self.topics.iter().map(|(_, group)| take(group)));
                }
            });
            let topics = self.topics.len() as u64;
            for (index, delivery) in (0..).zip(&held) {
                assert_eq!(number(delivery.payload()), self.next + index / topics, "in order");
            }
            total[2] += time(|| held.drain(..).for_each(|delivery| delivery.ack().expect("ack")));
            self.next += each;
        }
        let [publish, receive, ack] = total.map(|elapsed| ns_each(elapsed, rounds * count));
        Costs { publish, receive, ack }
    }
}

fn over_backlog(text: &RefCell<String>) {
    let mut table = Table::new(&["messages waiting", "publish", "receive", "ack"]);
    for waiting in backlogs() {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let group = pond.group();
        pond.ripen();
        pond.fill(0..waiting);
        pond.store.sync().expect("sync");
        let mut rounds = Rounds { topics: vec![(pond.topic.clone(), group)], next: 0, waiting };
        let each = waiting.min(1_000);
        // The first rounds warm up.
        rounds.run(pick(20_000, 100) / each, each);
        let costs: Vec<Costs> = (0..runs()).map(|_| rounds.run(pick(200_000, 200) / each, each)).collect();
        assert_eq!(pond.lag(), waiting, "as many came out as went in");
        table.row([waiting.to_string()].into_iter().chain(median_costs(&costs).cells()).collect());
    }
    section(
        text,
        "Messages that wait",
        "100 B at `Os`, one at a time. As many wait after each round as before.",
        &table,
    );
}

fn over_groups(text: &RefCell<String>) {
    let mut table = Table::new(&["groups of the topic", "publish"]);
    for groups in [1, pick(100, 3)] {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let handles: Vec<Group> =
            (0..groups).map(|n| pond.topic.group(format!("group-{n}")).open().expect("open a group")).collect();
        pond.ripen();
        let count = pick(500_000, 200);
        let publish = |_| {
            let elapsed = time(|| {
                (0..count).for_each(|n| drop(pond.topic.publish(Message::new(payload(n, LEN))).expect("publish")));
            });
            ns_each(elapsed, count)
        };
        let ns = median((0..runs()).map(publish));
        assert_eq!(pond.lag(), count * runs() as u64, "all wait for each group");
        table.row(vec![handles.len().to_string(), duration(ns)]);
    }
    section(text, "Groups", "100 B at `Os`, one at a time; nobody receives.", &table);
}

fn over_topics(text: &RefCell<String>) {
    let mut table = Table::new(&["topics in turn", "publish", "receive", "ack"]);
    for topics in [1, pick(10_000, 20)] {
        let arena = Arena::new();
        let pond = Pond::new(&arena, Durability::Os);
        let open = |n| {
            let topic = pond.store.topic(format!("topic-{n}")).open().expect("open a topic");
            let group = group_of(&topic);
            (topic, group)
        };
        let mut rounds = Rounds { topics: (0..topics).map(open).collect(), next: 0, waiting: 0 };
        pond.ripen();
        let each = pick(10_000, 20) / topics;
        rounds.run(pick(2, 1), each);
        let costs: Vec<Costs> = (0..runs()).map(|_| rounds.run(pick(20, 1), each)).collect();
        let empty = |(_, group): &(Topic, Group)| group.receive(Duration::ZERO).expect("receive").is_none();
        assert!(rounds.topics.iter().take(100).all(empty), "all are settled");
        table.row([topics.to_string()].into_iter().chain(median_costs(&costs).cells()).collect());
    }
    section(text, "Topics", "100 B at `Os`, one at a time, each to and from the next topic; one group each.", &table);
}

fn over_opening(text: &RefCell<String>) {
    let mut table = Table::new(&["messages waiting", "ended", "open", "first message", "private memory", "segments"]);
    for waiting in backlogs() {
        for (name, end) in [("closed", End::Clean), ("killed", End::KilledInQuiet)] {
            let open = |_| {
                let arena = Arena::new();
                let path = arena.fresh();
                fill_in_child(&path, waiting, end);
                let opened = open_in_child(&path);
                assert_eq!(opened.waiting, waiting, "all are there");
                opened
            };
            let opened: Vec<_> = (0..runs()).map(open).collect();
            let middle = |value: fn(&common::child::Opened) -> f64| median(opened.iter().map(value));
            table.row(vec![
                waiting.to_string(),
                name.to_owned(),
                duration(middle(|opened| opened.open.as_nanos() as f64)),
                duration(middle(|opened| opened.first_delivery.as_nanos() as f64)),
                format!("{} MiB", digits(middle(|opened| opened.private_bytes as f64) / f64::from(1 << 20))),
                format!("{}", middle(|opened| opened.segments as f64)),
            ]);
        }
    }
    let what = "100 B, in a process of its own with the page cache warm. \"First message\" is from the start of the open to a delivery in hand.";
    section(text, "Opening", what, &table);
}

fn section(text: &RefCell<String>, title: &str, what: &str, table: &Table) {
    let section = format!("\n## {title}\n\n{what}\n\n{}", table.markdown());
    say(&section);
    text.borrow_mut().push_str(&section);
}

const PREFACE: &str = "# Scaling

How costs change as a store grows. Printed by `cargo bench --bench curves`, and written here with
`MILLPOND_WRITE_DOCS=1`; never edited by hand. Times are for one message, medians of three runs.
";

fn main() -> ExitCode {
    let text = RefCell::new(String::new());
    let parts: [(&str, &dyn Fn()); 4] = [
        ("backlog", &|| over_backlog(&text)),
        ("groups", &|| over_groups(&text)),
        ("topics", &|| over_topics(&text)),
        ("opening", &|| over_opening(&text)),
    ];
    call::run(&parts, || {
        let titles = text.borrow().matches("\n## ").count();
        if titles == parts.len() {
            let facts = machine::facts(Arena::new().path());
            table::write("scaling.md", &format!("{PREFACE}\n{facts}.\n{}", text.borrow()));
        }
    })
}
