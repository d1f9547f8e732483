//! What happens before the power goes, and what was promised when.

use crate::recorder::Watch;
use millpond::{Backoff, Delivery, Durability, Group, Message, Result, Store, Topic};
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Small enough that segments roll, are indexed, and make checkpoints due.
const SEGMENT_BYTES: u64 = 256 << 10;
const PUBLISHERS: u64 = 3;

/// A number, told by the position in the record of the device, of when something happened.
pub type Position = usize;

/// One call that published: its messages are there together or not at all.
pub struct Published {
    pub numbers: Vec<u64>,
    pub ids: Vec<String>,
    pub lsn: u64,
    pub begun: Position,
    /// When it was promised to survive a power cut, if it was.
    pub promised: Option<Position>,
}

/// One ack.
pub struct Acked {
    pub number: u64,
    pub begun: Position,
    pub promised: Option<Position>,
}

/// Everything that was done, and when.
#[derive(Default)]
pub struct History {
    pub published: Mutex<Vec<Published>>,
    pub acked: Mutex<Vec<Acked>>,
    /// When the topic and its groups were promised to be there.
    pub opened: Mutex<Option<Position>>,
}

fn position_text(position: Option<Position>) -> String {
    position.map_or_else(|| "-".to_owned(), |position| position.to_string())
}

fn parse<T: std::str::FromStr>(word: Option<&str>) -> T {
    word.and_then(|word| word.parse().ok()).expect("the worker writes what is read here")
}

fn parse_position(word: Option<&str>) -> Option<Position> {
    if word == Some("-") { None } else { Some(parse(word)) }
}

impl History {
    /// For the process that checks it: a line for each entry.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for call in self.published.lock().expect("nobody panics").iter() {
            let messages = call.numbers.iter().zip(&call.ids).map(|(number, id)| format!(" {number} {id}"));
            let promised = position_text(call.promised);
            let _ = writeln!(text, "published {} {promised} {}{}", call.begun, call.lsn, messages.collect::<String>());
        }
        for ack in self.acked.lock().expect("nobody panics").iter() {
            let _ = writeln!(text, "acked {} {} {}", ack.begun, position_text(ack.promised), ack.number);
        }
        let opened = *self.opened.lock().expect("nobody panics");
        let _ = writeln!(text, "opened {}", position_text(opened));
        text
    }

    pub fn from_text(text: &str) -> Self {
        let history = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let kind = words.next();
            let begun = parse_position(words.next());
            if kind == Some("opened") {
                *history.opened.lock().expect("nobody panics") = begun;
                continue;
            }
            let (begun, promised) = (begun.expect("a beginning"), parse_position(words.next()));
            if kind == Some("acked") {
                let number = parse(words.next());
                history.acked.lock().expect("nobody panics").push(Acked { number, begun, promised });
                continue;
            }
            let lsn = parse(words.next());
            let (mut numbers, mut ids) = (Vec::new(), Vec::new());
            while let Some(number) = words.next() {
                numbers.push(parse(Some(number)));
                ids.push(parse(words.next()));
            }
            history.published.lock().expect("nobody panics").push(Published { numbers, ids, lsn, begun, promised });
        }
        history
    }
}

/// What a message carries: its number, and bytes that depend on it.
pub fn payload(number: u64) -> Vec<u8> {
    let len = 40 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53);
    number.to_le_bytes().into_iter().chain((0..len).map(|n| (n ^ number) as u8)).collect()
}

/// The number, if all bytes are those of [`payload`].
pub fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (payload(number) == bytes).then_some(number)
}

pub fn open_store(dir: &Path) -> Result<Store> {
    Store::options()
        .durability(Durability::Disk)
        .segment_bytes_max(SEGMENT_BYTES)
        .sync_interval(Duration::from_millis(5))
        .open(dir)
}

pub fn open_topic(store: &Store) -> Result<(Topic, Group, Group)> {
    let topic = store.topic("numbers").partitions(2).open()?;
    // It settles nothing before the cut, so everything can be asked for.
    let archive = topic.group("archive").max_outstanding(1 << 20).open()?;
    let workers = topic.group("workers").max_attempts(0).backoff(Backoff::none()).max_outstanding(1 << 20).open()?;
    Ok((topic, archive, workers))
}

/// Opens the store in `dir`, works, closes, and does so once more; `rounds` calls a publisher each time.
pub fn work(dir: &Path, watch: &Watch, history: &History, rounds: u64) -> Result<()> {
    for process in 0..2 {
        let store = open_store(dir)?;
        let (topic, _archive, workers) = open_topic(&store)?;
        history.opened.lock().expect("nobody panics").get_or_insert(watch.position());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (topic, is_over) = (&topic, &is_over);
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|thread| scope.spawn(move || publish(topic, watch, history, process, thread, rounds)))
                .collect();
            let consumer = scope.spawn(move || consume(&workers, watch, history, is_over));
            let published = publishers.into_iter().map(|thread| thread.join().expect("it lives"));
            let ended = published.collect::<Result<Vec<()>>>();
            is_over.store(true, Ordering::SeqCst);
            consumer.join().expect("it lives").and(ended.map(drop))
        })?;
        store.close()?;
    }
    Ok(())
}

fn publish(topic: &Topic, watch: &Watch, history: &History, process: u64, thread: u64, rounds: u64) -> Result<()> {
    let first = (process * PUBLISHERS + thread) << 32;
    let mut number = first;
    for round in 0..rounds {
        // One by one, in batches, and some that nothing is promised about.
        let count = if thread == 1 { 1 + round % 7 } else { 1 };
        let level = if thread == 2 && round % 3 > 0 { Durability::Os } else { Durability::Disk };
        let numbers: Vec<u64> = (number..number + count).collect();
        number += count;
        let begun = watch.position();
        let messages = numbers.iter().map(|number| Message::new(payload(*number)));
        let receipt = topic.with_durability(level).publish_batch(messages)?;
        let promised = (level == Durability::Disk).then(|| watch.position());
        let (ids, lsn) = (receipt.ids().iter().map(ToString::to_string).collect(), receipt.lsn().get());
        history.published.lock().expect("nobody panics").push(Published { numbers, ids, lsn, begun, promised });
    }
    Ok(())
}

/// Acks most of what comes, some of it durably, until the publishers are done.
fn consume(workers: &Group, watch: &Watch, history: &History, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::SeqCst) {
        let Some(delivery) = workers.receive(Duration::from_millis(5))? else { continue };
        ack(delivery, watch, history)?;
    }
    Ok(())
}

fn ack(delivery: Delivery, watch: &Watch, history: &History) -> Result<()> {
    let number = number_of(delivery.payload()).expect("what was delivered was published");
    let begun = watch.position();
    let durably = number.is_multiple_of(5);
    if durably {
        delivery.ack_durable()?
    } else {
        delivery.ack()?
    }
    let promised = durably.then(|| watch.position());
    history.acked.lock().expect("nobody panics").push(Acked { number, begun, promised });
    Ok(())
}
