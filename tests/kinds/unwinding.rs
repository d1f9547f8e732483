//! The caller's code panics: at every place where the engine calls it, and wherever it calls the engine while it unwinds. The store is
//! as it was then, or the message was given back as by a drop. Only a panic of the engine's own stops a store.

use crate::Machine;
use millpond::{Backoff, Delivery, Error, Group, Message, Store, Topic};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

/// A panic that says nothing, for it is meant.
fn blow() -> ! {
    resume_unwind(Box::new("meant"))
}

struct Bad;

impl fmt::Display for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        blow()
    }
}

/// Calls the engine while the thread unwinds.
struct Last<F: FnMut()>(F);

impl<F: FnMut()> Drop for Last<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn parts(store: &Store) -> (Topic, Group) {
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").max_attempts(3).backoff(Backoff::none()).open().unwrap();
    (topic, group)
}

fn one(group: &Group) -> Delivery {
    group.receive(NOW).unwrap().unwrap()
}

/// Each place: what is published before, the panic, and how many attempts each message then has, in the order of delivery.
type Place = (&'static str, fn(&Store, &Topic, &Group), &'static [u32]);

const PLACES: &[Place] = &[
    (
        "a handler with a delivery",
        |_, _, group| {
            let _held = one(group);
            blow()
        },
        &[1, 2],
    ),
    (
        "a handler with a batch, after the first",
        |_, _, group| {
            let batch = group.receive_batch(2, NOW).unwrap();
            assert_eq!(batch.iter().next().unwrap().attempt(), 1);
            blow()
        },
        &[2, 1],
    ),
    (
        "a handler with a batch taken apart, at the second",
        |_, _, group| {
            for (nth, delivery) in group.receive_batch(2, NOW).unwrap().into_iter().enumerate() {
                if nth == 1 {
                    blow()
                }
                delivery.nack("first").unwrap();
            }
        },
        &[2, 2],
    ),
    (
        "an iterator of messages",
        |_, topic, _| {
            let messages = (0..3).map(|nth| if nth == 2 { blow() } else { Message::new("never") });
            topic.publish_batch(messages).map(drop).unwrap();
        },
        &[1, 1],
    ),
    (
        "an iterator that publishes and panics",
        |_, topic, _| {
            let messages = (0..2).map(|nth| -> Message<'static> {
                topic.publish_batch(["nested"]).unwrap();
                if nth == 1 {
                    blow()
                }
                Message::new("never")
            });
            topic.publish_batch(messages).map(drop).unwrap();
        },
        &[1, 1, 1, 1],
    ),
    ("the text of a nack", |_, _, group| one(group).nack(Bad).unwrap(), &[1, 2]),
    ("the text of a nack with a delay", |_, _, group| one(group).nack_after(NOW, Bad).unwrap(), &[1, 2]),
    ("the text of a rejection", |_, _, group| one(group).reject(Bad).unwrap(), &[1, 2]),
    (
        "the choice of dead letters to redrive",
        |store, _, group| {
            one(group).reject("dead").unwrap();
            store.sync().unwrap();
            group.redrive_where(|_| blow()).map(drop).unwrap();
        },
        &[1],
    ),
    (
        "a destructor that publishes while unwinding",
        |_, topic, _| {
            let _last = Last(|| drop(topic.publish("late").unwrap()));
            blow()
        },
        &[1, 1, 1],
    ),
    (
        "a destructor that counts and syncs while unwinding",
        |store, _, _| {
            let _last = Last(|| {
                store.stats().unwrap();
                store.sync().unwrap();
            });
            blow()
        },
        &[1, 1],
    ),
    (
        "a destructor that receives and acks while unwinding",
        |_, _, group| {
            let _last = Last(|| one(group).ack().unwrap());
            blow()
        },
        &[1],
    ),
    (
        "a destructor that drops what it received while unwinding",
        |_, _, group| {
            let _last = Last(|| drop(one(group)));
            blow()
        },
        &[1, 2],
    ),
];

#[test]
fn panic_of_the_caller_leaves_the_store_as_it_was() {
    for &(place, panics, attempts) in PLACES {
        for durable in [false, true] {
            let machine = Machine::new();
            let store = if durable { machine.open_with(Store::options()) } else { machine.open() };
            let (topic, group) = parts(&store);
            topic.publish_batch(["one", "two"]).unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| panics(&store, &topic, &group)));
            assert!(caught.is_err(), "{place}: it did not panic");
            store.sync().unwrap_or_else(|error| panic!("{place}: {error}"));
            let mut found: Vec<u32> = Vec::new();
            while let Some(delivery) = group.receive(NOW).unwrap_or_else(|error| panic!("{place}: {error}")) {
                found.push(delivery.attempt());
                delivery.ack().unwrap();
            }
            found.sort_unstable();
            let mut expected = attempts.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{place}");
            topic.publish("after").unwrap();
            assert!(store.violations().is_empty() && store.stuck_sleepers().is_empty(), "{place}");
            store.close().unwrap();
            drop((topic, group, store));
            assert!(machine.open().report().was_clean, "{place}");
        }
    }
}

#[test]
fn handler_thread_that_panics_stops_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let (topic, group) = parts(&store);
    topic.publish_batch(["a", "b"]).unwrap();
    let consumer = group.clone();
    let worker = std::thread::spawn(move || {
        let _held = consumer.receive(Duration::from_secs(10)).unwrap().unwrap();
        blow()
    });
    assert!(worker.join().is_err());
    topic.publish("c").unwrap();
    for _ in 0..3 {
        group.receive(Duration::from_secs(10)).unwrap().unwrap().ack().unwrap();
    }
    store.close().unwrap();
}

#[test]
fn destructors_of_thread_locals_use_the_store() {
    struct Late(Option<(Topic, Group)>);
    impl Drop for Late {
        fn drop(&mut self) {
            let Some((topic, group)) = self.0.take() else { return };
            topic.publish("one").unwrap();
            topic.publish_batch(["two", "three"]).unwrap();
            group.receive(NOW).unwrap().unwrap().ack().unwrap();
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) };
    }
    let machine = Machine::new();
    let store = machine.open();
    let (topic, group) = parts(&store);
    let parts = (topic.clone(), group.clone());
    // In the order of their first use the destructors run, or in the reverse one: the engine's own comes before and after.
    for first in [true, false] {
        let parts = parts.clone();
        let thread = std::thread::spawn(move || {
            if first {
                parts.0.publish("first").unwrap();
            }
            LATE.with(|late| late.borrow_mut().0 = Some(parts.clone()));
            parts.0.publish("then").unwrap();
        });
        thread.join().unwrap();
    }
    assert_eq!(store.stats().unwrap().topics[0].published, 9);
    assert_eq!(store.stats().unwrap().topics[0].groups[0].lag, 7);
}

#[test]
fn panic_between_receive_and_settle_is_a_failed_attempt_with_its_reason() {
    let machine = Machine::new();
    let store = machine.open();
    let (topic, group) = parts(&store);
    topic.publish("poison").unwrap();
    for _ in 0..3 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _held = one(&group);
            blow()
        }));
        assert!(caught.is_err());
    }
    assert!(group.receive(NOW).unwrap().is_none());
    let letters: Result<Vec<_>, Error> = group.dead_letters().unwrap().collect();
    let letters = letters.unwrap();
    assert_eq!((letters.len(), letters[0].attempts()), (1, 3));
    assert!(letters[0].history().iter().all(|failure| failure.text == "dropped"));
}

#[test]
fn handles_are_used_across_a_caught_panic() {
    let machine = Machine::new();
    let store = machine.open();
    let (topic, group) = parts(&store);
    topic.publish("m").unwrap();
    let delivery = catch_unwind(|| group.receive(NOW).unwrap().unwrap()).unwrap();
    catch_unwind(|| delivery.ack().unwrap()).unwrap();
    assert!(catch_unwind(|| store.stats().unwrap().topics[0].groups[0].lag).unwrap() == 0);
}

#[test]
fn reason_that_cannot_be_written_is_cut_and_the_message_is_nacked() {
    struct Half;
    impl fmt::Display for Half {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("as far as it gets")?;
            Err(fmt::Error)
        }
    }
    let machine = Machine::new();
    let store = machine.open();
    let (topic, group) = parts(&store);
    topic.publish("m").unwrap();
    one(&group).reject(Half).unwrap();
    store.sync().unwrap();
    let letter = group.dead_letters().unwrap().next().unwrap().unwrap();
    assert_eq!(letter.history()[0].text, "as far as it gets");
}
