//! What the store promised, as its children told it, and whether it keeps that.

use crate::child::{open_store, open_topic, open_workers};
use crate::payload::{Number, number_of};
use millpond::{Durability, Group, MessageId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Oracle {
    /// The publishes that were begun: the first number and how many.
    tried: BTreeMap<Number, u32>,
    /// The publishes that returned `Ok`.
    promised: HashMap<String, Number>,
    /// All ids ever seen, with what they name.
    names: HashMap<String, Number>,
    /// Delivered in this round.
    got_now: HashSet<String>,
    /// Delivered to a child that died before it said that it had acked: either is right.
    in_doubt: HashSet<String>,
    acked: HashSet<String>,
    checks: u32,
}

impl Oracle {
    pub(crate) fn begin_round(&mut self) {
        self.got_now.clear();
    }

    /// Takes in one line of a child. See `child` for what there is.
    pub(crate) fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| Number::from_word(word.parse().expect("a number"));
        match words[..] {
            ["start" | "open"] => {}
            ["try", first, count] => {
                let before = self.tried.insert(number(first), count.parse().expect("a count"));
                assert_eq!(before, None, "the child tries no number twice");
            }
            ["ok", _level, first, ref ids @ ..] => {
                let first = number(first);
                assert_eq!(self.tried.get(&first).copied(), u32::try_from(ids.len()).ok(), "one id for each: {line}");
                for (index, id) in (0..).zip(ids) {
                    self.name(id, first.plus(index));
                    let before = self.promised.insert((*id).to_owned(), first.plus(index));
                    assert_eq!(before, None, "G11: the id {id} was handed out twice");
                }
            }
            ["got", id, word] => {
                self.name(id, number(word));
                assert!(!self.acked.contains(id), "G6: {id} was acked and is delivered again");
                assert!(self.got_now.insert(id.to_owned()), "G8: {id} was delivered twice under a lease of 30 s");
                self.in_doubt.insert(id.to_owned());
            }
            ["ack", id] => {
                assert!(self.in_doubt.remove(id), "{id} was not delivered");
                self.acked.insert(id.to_owned());
            }
            // The test harness of the child has something to say, too.
            _ => {}
        }
    }

    /// G4 and G11: an id names what was published under it, for ever.
    fn name(&mut self, id: &str, number: Number) {
        assert!(self.was_tried(number), "G4: {id} holds {number:?}, which nobody published");
        let before = *self.names.entry(id.to_owned()).or_insert(number);
        assert_eq!(before, number, "G11: {id} names other bytes than before");
    }

    fn was_tried(&self, number: Number) -> bool {
        let last = self.tried.range(..=number).next_back();
        last.is_some_and(|(first, count)| {
            (number.round, number.thread) == (first.round, first.thread) && number.index < first.index + count
        })
    }

    /// Opens the store and looks at all of it.
    pub(crate) fn check(&mut self, dir: &Path) {
        self.checks += 1;
        let store = open_store(dir, Durability::Disk);
        let topic = open_topic(&store);
        self.check_backlog(&open_workers(&topic));
        let reader = topic.group(format!("check-{}", self.checks)).open().expect("it opens");
        self.check_log(&reader);
        store.close().expect("it closes");
    }

    /// G1, G5, G6: whatever was promised and not acked is delivered; nothing that was acked is.
    fn check_backlog(&mut self, workers: &Group) {
        let mut waiting = HashSet::new();
        let mut held = Vec::new();
        loop {
            let batch = workers.receive_batch(1_000, Duration::ZERO).expect("it receives");
            if batch.is_empty() {
                break;
            }
            for delivery in batch {
                let id = delivery.id().to_string();
                let number = number_of(delivery.payload()).unwrap_or_else(|| panic!("G4: {id} has other bytes"));
                self.name(&id, number);
                assert!(!self.acked.contains(&id), "G6: {id} was acked and is delivered again");
                assert!(waiting.insert(id), "G8: {} was delivered twice", delivery.id());
                held.push(delivery);
            }
        }
        for id in self.promised.keys() {
            let settled = self.acked.contains(id) || self.in_doubt.contains(id);
            assert!(settled || waiting.contains(id), "G1: {id} was published, was never acked, and is not there");
        }
        // The doubt is over: what does not wait was acked, and stays so.
        let (open, acked) = self.in_doubt.drain().partition(|id| waiting.contains(id));
        self.in_doubt = open;
        self.acked.extend::<HashSet<String>>(acked);
        // Half of it is acked here, the other half goes back to wait for the next children.
        for delivery in held.into_iter().filter(|delivery| delivery.id().offset.get() % 2 == 0) {
            let id = delivery.id().to_string();
            delivery.ack().expect("its lease is young");
            self.in_doubt.remove(&id);
            self.acked.insert(id);
        }
    }

    /// G1 to G4, G7, G11: the log holds every promise, each batch whole or not at all, and no thread's messages have a
    /// hole or another order.
    fn check_log(&mut self, reader: &Group) {
        let mut found: HashMap<String, Number> = HashMap::new();
        let mut last: HashMap<(u32, u8), Number> = HashMap::new();
        loop {
            let batch = reader.receive_batch(1_000, Duration::ZERO).expect("it receives");
            if batch.is_empty() {
                break;
            }
            for delivery in batch.iter() {
                let id: MessageId = delivery.id();
                let number = number_of(delivery.payload()).unwrap_or_else(|| panic!("G4: {id} has other bytes"));
                self.name(&id.to_string(), number);
                let before = last.insert((number.round, number.thread), number);
                let expected = before.map_or(Number { index: 0, ..number }, |before| before.plus(1));
                assert_eq!(number, expected, "G2, G7: {id} does not follow on its thread's message before it");
                found.insert(id.to_string(), number);
            }
            assert!(batch.ack().expect("it acks").is_empty(), "young leases");
        }
        for (id, number) in &self.promised {
            assert_eq!(found.get(id), Some(number), "G1: {id} was published and is not in the log");
        }
        for (first, count) in &self.tried {
            let end = last.get(&(first.round, first.thread)).map_or(0, |last| last.index + 1);
            let is_whole = end <= first.index || end >= first.index + count;
            assert!(is_whole, "G3: of the {count} messages from {first:?} only {} are there", end - first.index);
        }
    }

    /// How much was put to the test, for the eyes of whoever runs it.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} publishes begun, {} ids promised, {} acked",
            self.tried.len(),
            self.promised.len(),
            self.acked.len()
        )
    }

    /// The counts of [`Oracle::summary`].
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("ids promised", self.promised.len() as u64), ("acked", self.acked.len() as u64)]
    }

    /// A test in which nothing happened proves nothing.
    pub(crate) fn assert_busy(&self) {
        assert!(self.promised.len() > 100 && self.acked.len() > 50, "hardly anything happened: {}", self.summary());
    }
}
