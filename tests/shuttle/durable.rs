//! Group commit: everybody who waits for a sync gets an answer, and the answer is true.

use crate::rig::{Machine, explore, group, is_stopped, receive_until_refused, topic};
use millpond::simulation::caught;
use millpond::{Durability, Error, Topic};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

const PUBLISHERS: u8 = 3;

/// What became of one publisher's two messages.
type Outcome = Result<(), Error>;

/// Publishes one message at `Disk`, or two with one wait for both.
fn publish(topic: &Topic, number: u8) -> Outcome {
    if number == 0 {
        let quick = topic.with_durability(Durability::Os);
        quick.publish(vec![number])?;
        quick.publish(vec![number + 100])?.wait_durable()
    } else {
        topic.publish(vec![number]).map(drop)
    }
}

fn promised(number: u8) -> Vec<Vec<u8>> {
    if number == 0 { vec![vec![0], vec![100]] } else { vec![vec![number]] }
}

/// What was promised to be durable is there after a power cut, and nothing that nobody published.
fn assert_kept(machine: &Machine, outcomes: &[Option<Outcome>]) {
    let there = machine.payloads_after_power_cut();
    for (number, outcome) in (0..).zip(outcomes) {
        let kept = promised(number).iter().all(|payload| there.contains(payload));
        assert!(kept || !matches!(outcome, Some(Ok(()))), "G1: {number} was promised, and there is {there:?}");
    }
    let mut sorted = there.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), there.len(), "twice: {there:?}");
}

fn publishers(topic: &Topic) -> Vec<thread::JoinHandle<Option<Outcome>>> {
    let start = |number| {
        let topic = topic.clone();
        thread::spawn(move || caught(|| publish(&topic, number)))
    };
    (0..PUBLISHERS).map(start).collect()
}

fn join<T>(threads: Vec<thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// G1, G13: three threads wait for one another's syncs.
#[test]
fn everybody_who_waits_for_a_sync_gets_an_answer() {
    explore("everybody_who_waits_for_a_sync", ["one sync for several"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let before = machine.syncs();
        let outcomes = join(publishers(&topic));
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Some(Ok(())))), "{outcomes:?}");
        if machine.syncs() - before < u64::from(PUBLISHERS) {
            seen.note(0);
        }
        machine.kill((store, topic));
        assert_kept(&machine, &outcomes);
    });
}

/// G13: a sync fails while others wait, publish, receive and tick. Nobody is left behind, and no promise is broken.
#[test]
fn a_failed_sync_reaches_everybody() {
    let cases = ["the leader is told", "a waiter is told", "a later call is refused", "a receiver is woken"];
    explore("a_failed_sync_reaches_everybody", cases, |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let groups = [group(&topic, "a"), group(&topic, "b")];
        machine.fail_sync(thread_rng().gen_range(0..3));
        let receivers: Vec<_> =
            groups.iter().cloned().map(|group| thread::spawn(move || receive_until_refused(&group))).collect();
        let ticking = {
            let store = store.clone();
            thread::spawn(move || store.tick())
        };
        let outcomes = join(publishers(&topic));
        let ticked = ticking.join().unwrap();
        // If the failure is still to come, it comes now.
        assert!((200..).any(|number| topic.publish(vec![number]).is_err()));
        let unknown = |outcome: &&Option<Outcome>| matches!(outcome, Some(Err(Error::OutcomeUnknown { .. })));
        let refused = |outcome: &&Option<Outcome>| matches!(outcome, Some(Err(Error::Poisoned { .. })));
        match outcomes.iter().filter(unknown).count() {
            0 => {}
            1 => seen.note(0),
            _ => seen.note(1),
        }
        if outcomes.iter().any(|outcome| refused(&outcome)) {
            seen.note(2);
        }
        let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().unwrap().as_ref().err());
        assert!(errors.chain(ticked.as_ref().err()).all(is_stopped), "{outcomes:?} {ticked:?}");
        let received = join(receivers);
        for (error, _) in &received {
            assert!(matches!(error, Error::Poisoned { .. }), "{error}");
            seen.note(3);
        }
        assert!(matches!(topic.publish("refused"), Err(Error::Poisoned { .. })));
        machine.kill((store, topic, groups, received));
        assert_kept(&machine, &outcomes);
    });
}

/// G13: a disk that does not answer holds up the one who asks it. Once the store has stopped, those who wait for him are told.
#[test]
fn a_leader_who_is_stuck_does_not_keep_others_waiting_in_a_stopped_store() {
    explore("a_leader_who_is_stuck", ["the writer waits for the sync", "he was refused"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let stalled = machine.stall_syncs();
        let publish = |number: u8| {
            let topic = topic.clone();
            thread::spawn(move || caught(|| topic.publish(vec![number]).map(drop)))
        };
        let leader = publish(0);
        while !machine.is_stalled() {
            thread::yield_now();
        }
        let waiter = publish(1);
        machine.panic_in_append(thread_rng().gen_range(0..2));
        // The panic takes the waiter's append, or this one.
        let panicking = {
            let topic = topic.with_durability(Durability::Os);
            thread::spawn(move || caught(|| topic.publish("p").map(drop)))
        };
        let panicked = panicking.join().unwrap();
        match waiter.join().unwrap() {
            Some(Err(Error::OutcomeUnknown { .. })) => seen.note(0),
            Some(Err(Error::Poisoned { .. })) => seen.note(1),
            None => assert!(panicked.is_none_or(|published| published.as_ref().err().is_none_or(is_stopped))),
            Some(other) => panic!("{other:?}"),
        }
        drop(stalled);
        drop(leader.join().unwrap());
        machine.kill((store, topic));
    });
}

/// G13: a panic in a sync or under the store's lock takes its own thread, and stops the store for all others.
#[test]
fn a_panic_leaves_nobody_behind() {
    let cases = ["a leader panics", "a writer panics", "a waiter is told", "a receiver is woken"];
    explore("a_panic_leaves_nobody_behind", cases, |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let group = group(&topic, "a");
        let in_sync = thread_rng().gen_bool(0.5);
        if in_sync {
            machine.panic_in_sync(thread_rng().gen_range(0..2));
        } else {
            machine.panic_in_append(thread_rng().gen_range(0..4));
        }
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || caught(|| receive_until_refused(&group)))
            })
            .collect();
        let outcomes = join(publishers(&topic));
        for number in 200.. {
            if machine.panicked() {
                break;
            }
            // The panic is still to come: it comes to this thread, or to a receiver.
            drop(caught(|| topic.publish(vec![number]).map(drop)));
        }
        seen.note(usize::from(!in_sync));
        if outcomes.iter().flatten().any(|outcome| outcome.as_ref().is_err_and(is_stopped)) {
            seen.note(2);
        }
        let received = join(receivers);
        for (error, _) in received.iter().flatten() {
            assert!(matches!(error, Error::Poisoned { .. }), "{error}");
            seen.note(3);
        }
        assert!(outcomes.iter().flatten().all(|outcome| outcome.as_ref().err().is_none_or(is_stopped)), "{outcomes:?}");
        assert!(matches!(topic.publish("refused"), Err(Error::Poisoned { .. })));
        machine.kill((store, topic, group, received));
        assert_kept(&machine, &outcomes);
    });
}
