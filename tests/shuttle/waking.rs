//! Wake-ups: whoever waits for a message is woken when there is one for it, and when time makes one.

use crate::rig::{LONG, Machine, explore, group, topic};
use millpond::simulation::{caught, panic_quietly};
use millpond::{Backoff, Delivery, Durability, Error, Message};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// No wake-up is lost: as many messages as consumers, each of whom waits for one. Two groups, so each message is for both.
#[test]
fn who_waits_for_a_message_gets_one() {
    explore("who_waits_for_a_message_gets_one", ["at Os", "at Disk", "Os in a Disk store"], |seen| {
        let machine = Machine::new();
        let which = thread_rng().gen_range(0..3);
        seen.note(which);
        let store = machine.open(if which == 0 { Durability::Os } else { Durability::Disk });
        let topic = topic(&store);
        let consumers: Vec<_> = ["a", "a", "a", "b", "b", "b"]
            .into_iter()
            .map(|name| {
                let group = group(&topic, name);
                thread::spawn(move || {
                    let delivery = group.receive(LONG).unwrap().expect("nobody lets time pass");
                    let payload = delivery.payload().to_vec();
                    delivery.ack().unwrap();
                    (name, payload)
                })
            })
            .collect();
        let level = if which == 1 { Durability::Disk } else { Durability::Os };
        let publishers: Vec<_> = [vec!["1", "2"], vec!["3"]]
            .into_iter()
            .map(|payloads| {
                let topic = topic.with_durability(level);
                thread::spawn(move || topic.publish_batch(payloads.into_iter().map(Message::new)).map(drop).unwrap())
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        if which == 2 {
            store.tick().unwrap();
        }
        let mut got: Vec<_> = consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect();
        got.sort();
        let all = |name| [b"1", b"2", b"3"].map(|payload| (name, payload.to_vec()));
        assert_eq!(got, [all("a"), all("b")].concat());
    });
}

/// A settle races the end of its lease and the next consumer: it is acknowledged and never seen again, or the lease is lost and
/// the message is delivered once more. Never both, never neither (G6, G8).
#[test]
fn an_ack_that_races_the_end_of_its_lease_has_one_of_two_outcomes() {
    explore("an_ack_that_races", ["acknowledged", "lost"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let group = group(&topic, "g");
        topic.publish("m").unwrap();
        let delivery = group.receive(Duration::ZERO).unwrap().unwrap();
        let acking = thread::spawn(move || delivery.ack());
        let done = Arc::new(AtomicBool::new(false));
        let next = {
            let (group, done) = (group.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let delivery = group.receive(Duration::from_millis(50)).unwrap();
                done.store(true, SeqCst);
                let delivery = delivery?;
                assert_eq!((delivery.payload(), delivery.attempt()), (&b"m"[..], 2));
                delivery.ack().unwrap();
                Some(())
            })
        };
        machine.pass_until(|| done.load(SeqCst));
        let acked = acking.join().unwrap();
        let again = next.join().unwrap();
        match (&acked, again) {
            (Ok(()), None) => seen.note(0),
            (Err(Error::LeaseLost { .. }), Some(())) => seen.note(1),
            other => panic!("{other:?}"),
        }
        machine.pass(1_000);
        assert!(group.receive(Duration::ZERO).unwrap().is_none(), "it was settled");
        assert!(store.violations().is_empty());
    });
}

/// Of the consumers who wait, some know when the next lease ends, or when a retry is due. They may take a message, or run out of
/// patience: whoever waits on still gets the message when its time has come.
#[test]
fn some_sleeper_always_knows_the_next_deadline() {
    let cases = ["the lease runs out", "a retry is due", "the impatient one leaves", "it takes the message"];
    explore("some_sleeper_always_knows", cases, |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let nacks = thread_rng().gen_bool(0.5);
        let timeout = if nacks { 2 * LONG } else { Duration::from_millis(20) };
        let group = topic.group("g").visibility_timeout(timeout).open().unwrap();
        let (finished, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // Takes a message, and does not settle it, or has it tried again later.
        let consume = |wait: Duration| {
            let (group, finished, left) = (group.clone(), Arc::clone(&finished), Arc::clone(&left));
            thread::spawn(move || {
                let delivery = group.receive(wait).unwrap();
                let attempt = delivery.as_ref().map(Delivery::attempt);
                let mut kept = None;
                match (delivery, nacks) {
                    (None, _) => {}
                    // It may come so late that the lease is lost.
                    (Some(delivery), _) if delivery.attempt() > 1 => drop(delivery.ack()),
                    (Some(delivery), true) => delivery.nack_after(Duration::from_millis(20), "later").unwrap(),
                    (Some(delivery), false) => kept = Some(delivery),
                }
                finished.fetch_add(1, SeqCst);
                left.fetch_or(wait < LONG, SeqCst);
                (attempt, kept)
            })
        };
        let impatient = consume(Duration::from_millis(5));
        let patient = [consume(LONG), consume(LONG)];
        let publishing = {
            let topic = topic.clone();
            thread::spawn(move || topic.publish("m").map(drop).unwrap())
        };
        publishing.join().unwrap();
        // The message is delivered twice: to the two who wait on, or to one of them and the third.
        machine.pass_until(|| finished.load(SeqCst) >= 2 && left.load(SeqCst));
        let (early, early_kept) = impatient.join().unwrap();
        seen.note(usize::from(nacks));
        seen.note(if early.is_none() { 2 } else { 3 });
        machine.pass_until(|| finished.load(SeqCst) >= if early.is_none() { 3 } else { 2 });
        if early.is_some() {
            topic.publish("for the one who waits on").unwrap();
        }
        let patient = patient.map(|thread| thread.join().unwrap());
        let mut attempts: Vec<_> = patient.iter().filter_map(|(attempt, _)| *attempt).chain(early).collect();
        attempts.sort_unstable();
        assert!(attempts.contains(&1) && attempts.contains(&2), "{attempts:?}");
        machine.kill((store, patient, early_kept));
    });
}

/// The background threads of a store at rest are woken by what is appended: it becomes durable, and is delivered where only that
/// is, though no time passes.
#[test]
fn a_store_at_rest_wakes_up() {
    explore("a_store_at_rest_wakes_up", ["by a message", "by the second", "while it looks around"], |seen| {
        let machine = Machine::new();
        let store = machine.open_with_threads(Durability::Disk);
        let topic = topic(&store);
        let group = group(&topic, "g");
        let second = thread_rng().gen_bool(0.5);
        seen.note(usize::from(second));
        for _ in 0..=usize::from(second) {
            while !store.rests() {
                machine.pass(100);
                thread::yield_now();
            }
            // At rest the threads look around once a second: the message may come before, while and after they do.
            if thread_rng().gen_bool(0.5) {
                machine.pass(1_000);
                seen.note(2);
            }
            topic.with_durability(Durability::Os).publish("m").unwrap();
            group.receive(LONG).unwrap().expect("nobody lets time pass").ack().unwrap();
        }
        drop((topic, group));
        store.close().unwrap();
    });
}

/// Segments roll, checkpoints are written, dead segments go and index files come while messages flow: each arrives once, in
/// order, and the state on the disk is the one in memory.
#[test]
fn jobs_run_beside_everything() {
    const MESSAGES: u8 = 8;
    explore("jobs_run_beside_everything", ["a segment was unlinked"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let group = topic.group("g").open().unwrap();
        let ticking = {
            let store = store.clone();
            thread::spawn(move || (0..4).for_each(|_| store.tick().unwrap()))
        };
        let publishing = {
            let topic = topic.with_durability(Durability::Os);
            thread::spawn(move || {
                (0..MESSAGES).for_each(|number| drop(topic.publish(vec![number; 24 << 10]).unwrap()));
                topic.publish("the last").unwrap().wait_durable().unwrap();
            })
        };
        let mut got = Vec::new();
        while got.len() <= usize::from(MESSAGES) {
            let batch = group.receive_batch(3, LONG).unwrap();
            got.extend(batch.iter().map(|delivery| (delivery.payload()[0], delivery.payload().len())));
            assert!(batch.ack().unwrap().is_empty());
        }
        let expected: Vec<_> = (0..MESSAGES).map(|number| (number, 24 << 10)).chain([(b't', 8)]).collect();
        assert_eq!(got, expected);
        publishing.join().unwrap();
        ticking.join().unwrap();
        assert!(store.violations().is_empty());
        let hash = store.state_hash().unwrap();
        if store.stats().unwrap().log.segments < 4 {
            seen.note(0);
        }
        machine.kill((store, topic, group));
        assert_eq!(Some(machine.open(Durability::Disk).report().state_hash), hash);
    });
}

/// Handlers panic while they hold deliveries, and others publish, receive and ack meanwhile: each message comes again to somebody, and
/// nobody else is stopped.
#[test]
fn handlers_that_panic_stop_nobody() {
    explore("handlers_that_panic_stop_nobody", ["at Os", "at Disk"], |seen| {
        let machine = Machine::new();
        let durable = thread_rng().gen_bool(0.5);
        seen.note(usize::from(durable));
        let store = machine.open(if durable { Durability::Disk } else { Durability::Os });
        let topic = topic(&store);
        let group = topic.group("g").backoff(Backoff::none()).open().unwrap();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || {
                    let mut acked = 0;
                    // Three messages, each of which comes twice: to whomever.
                    for _ in 0..2 {
                        let delivery = group.receive(LONG).unwrap().expect("nobody lets time pass");
                        acked += usize::from(
                            caught(|| {
                                if delivery.attempt() == 1 {
                                    panic_quietly();
                                }
                                delivery.ack().unwrap();
                            })
                            .is_some(),
                        );
                    }
                    acked
                })
            })
            .collect();
        (0..3).for_each(|_| drop(topic.publish("m").unwrap()));
        let acked: usize = consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum();
        assert_eq!(acked, 3);
        assert_eq!(store.stats().unwrap().topics[0].groups[0].lag, 0);
        topic.publish("the store goes on").unwrap();
    });
}

/// A message that has to go alone is settled while consumers of another group wait beside their messages: they are woken, though no
/// time passes.
#[test]
fn end_of_an_exclusive_lease_wakes_the_other_group() {
    explore("end_of_an_exclusive_lease", ["acked", "given back"], |seen| {
        let machine = Machine::new();
        {
            let store = machine.open(Durability::Os);
            let one = store.topic("one").open().unwrap();
            let a = one.group("a").max_attempts(2).backoff(Backoff::none()).open().unwrap();
            store.topic("two").open().unwrap().group("b").open().unwrap();
            one.publish("was in flight").unwrap();
            let held = a.receive(Duration::ZERO).unwrap().unwrap();
            machine.kill((held, a, one, store));
        }
        let store = machine.open(Durability::Os);
        let (one, two) = (store.topic("one").open().unwrap(), store.topic("two").open().unwrap());
        let (a, b) = (one.group("a").open().unwrap(), two.group("b").open().unwrap());
        let gives_back = thread_rng().gen_bool(0.5);
        seen.note(usize::from(gives_back));
        let suspect = thread::spawn(move || {
            let mut delivery = a.receive(LONG).unwrap().expect("nobody lets time pass");
            if gives_back {
                delivery.release().unwrap();
                delivery = a.receive(LONG).unwrap().expect("nobody lets time pass");
            }
            delivery.ack().unwrap();
        });
        let others: Vec<_> = (0..2)
            .map(|_| {
                let b = b.clone();
                thread::spawn(move || b.receive(LONG).unwrap().expect("nobody lets time pass").ack().unwrap())
            })
            .collect();
        (0..2).for_each(|_| drop(two.publish("innocent").unwrap()));
        suspect.join().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(store.violations().is_empty() && store.stuck_sleepers().is_empty());
    });
}

/// A group, or its topic, is removed while consumers wait or come to wait: each is told, though no time passes.
#[test]
fn removal_tells_everybody_who_waits() {
    explore("removal_tells_everybody_who_waits", ["of the group", "of its topic"], |seen| {
        let machine = Machine::new();
        let durable = thread_rng().gen_bool(0.5);
        let store = machine.open(if durable { Durability::Disk } else { Durability::Os });
        let topic = topic(&store);
        let group = topic.group("g").backoff(Backoff::none()).open().unwrap();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || {
                    loop {
                        match group.receive(LONG) {
                            Ok(delivery) => match delivery.expect("nobody lets time pass").ack() {
                                Ok(()) | Err(Error::Removed { .. }) => {}
                                Err(error) => panic!("{error}"),
                            },
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        let publishing = {
            let topic = topic.clone();
            thread::spawn(move || topic.publish("m").map(drop))
        };
        let whole = thread_rng().gen_bool(0.5);
        seen.note(usize::from(whole));
        if whole {
            store.remove_topic(topic.name()).unwrap()
        } else {
            topic.remove_group("g").unwrap()
        }
        for consumer in consumers {
            let error = consumer.join().unwrap();
            assert!(matches!(error, Error::Removed { what: "group" }), "{error}");
        }
        let published = publishing.join().unwrap();
        assert!(
            published.is_ok() || whole && matches!(published, Err(Error::Removed { what: "topic" })),
            "{published:?}"
        );
        assert!(store.violations().is_empty() && store.stuck_sleepers().is_empty());
    });
}
