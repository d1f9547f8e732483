//! Messages that kill the process which handles them: real handlers, real deaths, until the queue is drained (G9).
//!
//! The parent publishes poison among good messages and starts a child as often as one dies. It hears which leases a child
//! held when it died. `MILLPOND_POISON_ROUNDS` repeats the cases in which threads race.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "how long a level took is noted; nothing is decided by it")]

#[path = "../common/child.rs"]
mod child;
#[path = "../common/counts.rs"]
mod counts;
mod handler;
#[path = "../common/memory.rs"]
mod memory;

use handler::{Death, GROUP, POISON, TOPIC, open_store};
use millpond::{Backoff, Cause, Group, Message, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// Not a test: the body of the child.
#[test]
fn child_process() {
    if let Some((task, dir)) = child::task() {
        handler::work(&task, &dir);
    }
}

/// What is published, and how a child works on it.
#[derive(Clone, Copy, Debug)]
struct Case {
    death: Death,
    max_attempts: u32,
    threads: u32,
    batch: u32,
    good: u32,
    /// The places of the poison among all messages.
    poison: &'static [u32],
}

const ALONE: Case = Case { death: Death::Abort, max_attempts: 5, threads: 1, batch: 1, good: 3, poison: &[1] };

/// What the parent heard and found.
#[derive(Debug, Default)]
struct Outcome {
    deaths: u32,
    /// Deaths at which good messages were leased, too.
    crowded: u32,
}

/// One child, as the parent heard it.
#[derive(Debug, Default)]
struct Life {
    /// The leases that it held at its end, with their attempts.
    held: BTreeMap<String, u32>,
    settled: BTreeSet<String>,
    /// The poison that it died of.
    handled: Option<String>,
    drained: bool,
}

impl Life {
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["got", id, attempt] => {
                self.held.insert(id.to_owned(), attempt.parse().expect("an attempt"));
            }
            ["ack", id] => {
                self.held.remove(id);
                self.settled.insert(id.to_owned());
            }
            ["handle", id] => self.handled = Some(id.to_owned()),
            ["drained"] => self.drained = true,
            _ => {}
        }
    }
}

fn open_group(store: &Store, case: Case) -> Group {
    let topic = store.topic(TOPIC).open().expect("it opens");
    topic.group(GROUP).max_attempts(case.max_attempts).backoff(Backoff::none()).open().expect("it opens")
}

/// Publishes the messages of the case; returns the ids of the good ones and of the poison.
fn publish(dir: &Path, case: Case) -> (BTreeSet<String>, BTreeSet<String>) {
    let store = open_store(dir);
    open_group(&store, case);
    let topic = store.topic(TOPIC).open().expect("it opens");
    let (mut good, mut poison) = (BTreeSet::new(), BTreeSet::new());
    for place in 0..case.good + case.poison.len() as u32 {
        let is_poison = case.poison.contains(&place);
        let payload = if is_poison { POISON.to_vec() } else { format!("good {place}").into_bytes() };
        let id = topic.publish(Message::new(payload)).expect("it publishes").id().to_string();
        if is_poison {
            poison.insert(id)
        } else {
            good.insert(id)
        };
    }
    store.close().expect("it closes");
    (good, poison)
}

/// Runs the case until a child says that nothing is left, and checks all that G9 says about it.
fn drain(case: Case) -> Outcome {
    let dir = memory::directory();
    let store = dir.path().join("store");
    let (good, poison) = publish(&store, case);
    // Where the last attempt comes without a death before it, it cannot be alone, and there is one more.
    let last_attempt = case.max_attempts.max(2);
    let deaths_max = last_attempt * case.poison.len() as u32;
    let (mut outcome, mut settled) = (Outcome::default(), BTreeSet::new());
    loop {
        let mut life = Life::default();
        let task = format!("{} {} {}", case.death.name(), case.threads, case.batch);
        let mut command = child::command("child_process", &task, &store);
        if case.death == Death::StackOverflow {
            // The runtime writes about it.
            command.stderr(Stdio::null());
        }
        let status = child::run(command, |line| life.hear(line));
        settled.extend(std::mem::take(&mut life.settled));
        if life.drained {
            assert!(status.success(), "{status}");
            break;
        }
        case.death.assert_died(status);
        outcome.deaths += 1;
        assert!(outcome.deaths <= deaths_max, "G9: {case:?} died once more, at {life:?}");
        let handled = life.handled.expect("a child dies of poison only");
        assert!(poison.contains(&handled));
        if life.held[&handled] == last_attempt {
            let held: Vec<_> = life.held.keys().collect();
            assert_eq!(held, [&handled], "G9: the last attempt is alone: {case:?}");
        }
        outcome.crowded += u32::from(life.held.keys().any(|id| good.contains(id)));
    }
    assert_eq!(settled, good, "every good message was settled, and no other");
    assert_letters(&store, case, &poison, last_attempt);
    outcome
}

/// The poison is in the dead letters with its history, nothing else is, and nothing is left to do.
fn assert_letters(dir: &Path, case: Case, poison: &BTreeSet<String>, attempts: u32) {
    let store = open_store(dir);
    let group = open_group(&store, case);
    store.sync().expect("it syncs");
    let mut letters = BTreeSet::new();
    for letter in group.dead_letters().expect("it lists") {
        let letter = letter.expect("it is readable");
        assert_eq!(letter.payload(), POISON, "G9: an innocent message is a dead letter");
        assert_eq!(letter.attempts(), attempts, "{case:?}");
        let causes: Vec<_> = letter.history().iter().map(|failure| failure.cause).collect();
        assert_eq!(causes, vec![Cause::Crashed; attempts as usize], "{case:?}");
        letters.insert(letter.origin().to_string());
    }
    assert_eq!(&letters, poison);
    let stats = store.stats().expect("it counts");
    let found = &stats.topics[0].groups[0];
    assert_eq!((found.lag, found.dead), (0, poison.len() as u64));
}

#[test]
fn each_kind_of_death_ends_in_the_dead_letters() {
    let began = Instant::now();
    let mut deaths = 0;
    for death in Death::ALL {
        let outcome = drain(Case { death, ..ALONE });
        assert_eq!(outcome.deaths, 5, "{death:?}: five attempts, five deaths");
        deaths += u64::from(outcome.deaths);
    }
    counts::note("poison", began.elapsed(), &[("kinds of death", Death::ALL.len() as u64), ("deaths", deaths)]);
}

#[test]
fn as_many_deaths_as_attempts_but_never_one_alone() {
    for (max_attempts, deaths) in [(1, 2), (2, 2), (3, 3)] {
        for (threads, batch) in [(1, 1), (1, 10)] {
            let outcome = drain(Case { max_attempts, threads, batch, good: 12, poison: &[4], ..ALONE });
            assert_eq!(outcome.deaths, deaths, "max_attempts {max_attempts}, batches of {batch}");
        }
    }
}

#[test]
fn poison_in_a_batch_of_ten_takes_no_neighbour_with_it() {
    let outcome = drain(Case { batch: 10, good: 25, poison: &[3], ..ALONE });
    assert_eq!(outcome.deaths, 5);
    assert!(outcome.crowded > 0, "it never had a neighbour");
}

#[test]
fn poison_takes_no_message_of_another_thread_with_it() {
    for round in 0..rounds() {
        let death = Death::ALL[round % Death::ALL.len()];
        let outcome = drain(Case { death, threads: 4, batch: 10, good: 60, poison: &[17], ..ALONE });
        assert_eq!(outcome.deaths, 5, "{death:?}");
        assert!(outcome.crowded > 0, "it never had a neighbour");
    }
}

#[test]
fn two_poisons_at_once_take_no_neighbour_with_them() {
    for _ in 0..rounds() {
        // In one batch, and in two that threads hold at the same time.
        for poison in [&[5, 6], &[5, 15]] {
            for (threads, batch) in [(1, 10), (2, 10), (4, 3)] {
                let outcome = drain(Case { threads, batch, good: 40, poison, ..ALONE });
                // What died beside the other was charged for it.
                assert!((6..=10).contains(&outcome.deaths), "{} deaths", outcome.deaths);
            }
        }
    }
}

fn rounds() -> usize {
    std::env::var("MILLPOND_POISON_ROUNDS").map_or(1, |value| value.parse().expect("a number"))
}
