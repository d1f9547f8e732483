//! What the traced child was promised, and whether the store keeps it once nothing fails any more.

use crate::workload::{LEFT, groups, number_of};
use millpond::{Durability, Group, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Promises {
    tried: BTreeSet<u32>,
    published: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    settling: BTreeSet<u32>,
    acked: BTreeSet<u32>,
    /// Lines that tell of an error.
    pub(crate) errors: Vec<String>,
    pub(crate) came_to_its_end: bool,
}

impl Promises {
    /// With what the process before the child left.
    pub(crate) fn new(something_was_left: bool) -> Self {
        let left: BTreeSet<u32> = if something_was_left { LEFT.collect() } else { BTreeSet::new() };
        Self { tried: left.clone(), published: left, ..Self::default() }
    }

    pub(crate) fn hear(&mut self, line: &str) {
        let number = |word: &str| word.parse::<u32>().expect("a number");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["try", word] => assert!(self.tried.insert(number(word))),
            ["ok", _, word] => assert!(self.published.insert(number(word))),
            ["no", word] => assert!(self.refused.insert(number(word))),
            ["got", word] => {
                assert!(!self.acked.contains(&number(word)), "G6: {word} was acked and is delivered again");
                assert!(!self.refused.contains(&number(word)), "G4: {word} was refused and is delivered");
            }
            ["settling", word] => assert!(self.settling.insert(number(word)) || !self.acked.contains(&number(word))),
            ["acked", word] => assert!(self.acked.insert(number(word)), "G6, G8: {word} was acked twice"),
            ["error", ..] => self.errors.push(line.to_owned()),
            ["end"] => self.came_to_its_end = true,
            _ => {}
        }
    }

    /// Opens the store, with nothing that fails, and looks at all of it.
    pub(crate) fn check(&self, dir: &Path) {
        let store = Store::options().durability(Durability::Os).open(dir).expect("it opens once nothing fails");
        let (topic, workers) = groups(&store).expect("they open");
        // Before anything more is settled: what nobody wants any more may go at any moment.
        let reader = topic.group("reader").open().expect("it opens");
        let waiting = drain(&workers);
        let everything = drain(&reader);
        // What everybody has settled may be gone.
        let lost: Vec<_> = self.published.difference(&everything).filter(|n| !self.settling.contains(n)).collect();
        assert!(lost.is_empty(), "G1: {lost:?} were published and are not there");
        let undead: Vec<_> = everything.intersection(&self.refused).collect();
        assert!(undead.is_empty(), "G4: {undead:?} were refused and are there");
        let strange: Vec<_> = everything.difference(&self.tried).collect();
        assert!(strange.is_empty(), "G4: nobody published {strange:?}");
        let again: Vec<_> = waiting.intersection(&self.acked).collect();
        assert!(again.is_empty(), "G6: {again:?} were acked and wait again");
        let passed: Vec<_> =
            self.published.iter().filter(|n| !self.settling.contains(n) && !waiting.contains(n)).collect();
        // What could not be read a moment ago was postponed, and is counted.
        let postponed = store.stats().expect("it counts").topics[0].groups[0].waiting;
        assert_eq!(passed.len() as u64, postponed, "G5: {passed:?} are not settled and do not wait");
        topic.publish("goes on").expect("it goes on");
        store.close().expect("it closes");
    }

    pub(crate) fn published(&self) -> usize {
        self.published.len()
    }
}

fn drain(group: &Group) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    loop {
        let batch = group.receive_batch(1_000, Duration::ZERO).expect("it receives");
        if batch.is_empty() {
            return found;
        }
        assert_eq!(batch.unreadable().len(), 0, "{:?}", batch.unreadable());
        for delivery in &batch {
            let number = number_of(delivery.payload()).expect("G4: the bytes that were published");
            assert!(found.insert(number), "G8: {number} came twice");
        }
        assert!(batch.ack().expect("it acks").is_empty());
    }
}
