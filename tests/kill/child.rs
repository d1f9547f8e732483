//! The process that gets killed. It says on stdout what it tries before it tries it, and what the store promised after
//! the call returned; each line is one write, so a line that arrives is whole.
//!
//! ```text
//! start
//! open                          the store, topic and group are open
//! try NUMBER COUNT              about to publish COUNT messages, in one batch where it is more than one
//! ok LEVEL NUMBER ID ID ...     published, with their ids
//! got ID NUMBER                 delivered
//! ack ID                        acked
//! ```

use crate::payload::{Number, Random, number_of, payload};
use millpond::{Backoff, DeliveryRef, Durability, Group, Message, Store, Topic};
use std::fmt::Display;
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// After so many messages at `Os` a thread goes on at `Disk`, so that a fast machine does not fill its disk.
const OS_MESSAGES_MAX: u32 = 1_500;

pub(crate) fn open_store(dir: &Path, level: Durability) -> Store {
    must(Store::options().durability(level).segment_bytes_max(1 << 20).open(dir))
}

pub(crate) fn open_topic(store: &Store) -> Topic {
    let topic = must(store.topic("numbers").partitions(3).open());
    // It never receives, so no message is ever removed.
    must(topic.group("archive").open());
    topic
}

pub(crate) fn open_workers(topic: &Topic) -> Group {
    let workers = topic.group("workers").max_attempts(0).backoff(Backoff::none());
    must(workers.visibility_timeout(Duration::from_secs(30)).max_outstanding(1 << 20).open())
}

/// Works until it is killed.
pub(crate) fn work(dir: &Path, round: u32) {
    say(format_args!("start"));
    let level = if round.is_multiple_of(2) { Durability::Disk } else { Durability::Os };
    let store = open_store(dir, level);
    let topic = open_topic(&store);
    let workers = open_workers(&topic);
    say(format_args!("open"));
    thread::scope(|scope| {
        for (thread, batch_max) in [(0, 1), (1, 1), (2, 1), (3, 20)] {
            let topic = &topic;
            scope.spawn(move || publish(topic, round, thread, batch_max));
        }
        scope.spawn(|| consume_one_by_one(&workers));
        scope.spawn(|| consume_in_batches(&workers));
    });
}

/// Threads with an even number publish at `Disk`, the others at `Os` first.
fn publish(topic: &Topic, round: u32, thread: u8, batch_max: u64) {
    let mut number = Number { round, thread, index: 0 };
    let mut random = Random(number.to_word());
    loop {
        let level = if thread % 2 == 1 && number.index < OS_MESSAGES_MAX { Durability::Os } else { Durability::Disk };
        let count = u32::try_from(1 + random.below(batch_max)).expect("a small number");
        publish_once(&topic.with_durability(level), level, number, count);
        number = number.plus(count);
    }
}

/// Publishes `count` messages from `number` on, several in one batch.
pub(crate) fn publish_once(topic: &Topic, level: Durability, number: Number, count: u32) {
    say(format_args!("try {} {count}", number.to_word()));
    let message = |number: Number| Message::new(payload(number)).key(vec![number.thread]);
    let ids = if count == 1 {
        must(topic.publish(message(number))).id().to_string()
    } else {
        let receipt = must(topic.publish_batch((0..count).map(|index| message(number.plus(index)))));
        let ids: Vec<String> = receipt.ids().iter().map(ToString::to_string).collect();
        ids.join(" ")
    };
    say(format_args!("ok {level:?} {} {ids}", number.to_word()));
}

fn consume_one_by_one(workers: &Group) {
    loop {
        let Some(delivery) = must(workers.receive(Duration::from_millis(100))) else { continue };
        let id = delivery.id();
        say_got((&delivery).into());
        must(if id.offset.get() % 16 == 0 { delivery.ack_durable() } else { delivery.ack() });
        say(format_args!("ack {id}"));
    }
}

fn consume_in_batches(workers: &Group) {
    loop {
        receive_and_ack(workers, 10, Duration::from_millis(100));
    }
}

/// One batch, received and acked.
pub(crate) fn receive_and_ack(workers: &Group, max: usize, wait: Duration) {
    let batch = must(workers.receive_batch(max, wait));
    batch.iter().for_each(say_got);
    let ids: Vec<_> = batch.iter().map(|delivery| delivery.id()).collect();
    let lost = must(batch.ack());
    if !lost.is_empty() {
        die(format_args!("lost the leases {lost:?} long before they end"));
    }
    for id in ids {
        say(format_args!("ack {id}"));
    }
}

fn say_got(delivery: DeliveryRef<'_>) {
    match number_of(delivery.payload()) {
        Some(number) => say(format_args!("got {} {}", delivery.id(), number.to_word())),
        None => die(format_args!("{} was delivered with other bytes", delivery.id())),
    }
}

/// Publishes so many messages at `Os`, says so, and waits to be killed.
pub(crate) fn fill(dir: &Path, count: u32) {
    let store = open_store(dir, Durability::Os);
    let topic = open_topic(&store).with_durability(Durability::Os);
    let mut number = Number { round: 0, thread: 0, index: 0 };
    while number.index < count {
        // Half of them one by one.
        let step = if number.index < count / 2 { 1 } else { 100 };
        let messages = (0..step).map(|index| Message::new(payload(number.plus(index))));
        must(topic.publish_batch(messages));
        number = number.plus(step);
    }
    say(format_args!("filled"));
    // Ends only where the parent is gone.
    drop(std::io::stdin().read(&mut [0]));
}

pub(crate) fn say(line: impl Display) {
    let line = format!("{line}\n");
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}

pub(crate) fn must<T>(result: millpond::Result<T>) -> T {
    result.unwrap_or_else(|error| die(error))
}

/// In a child a panic would end one thread only.
fn die(reason: impl Display) -> ! {
    assert!(std::env::var_os(crate::TASK).is_some(), "the parent cannot go on: {reason}");
    drop(writeln!(std::io::stderr(), "the child gives up: {reason}"));
    std::process::exit(3)
}
