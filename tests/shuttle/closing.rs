//! Closing, and dropping the last handle, while others publish, wait, receive and subscribe.

use crate::rig::{LONG, Machine, explore, group, receive_until_refused, topic};
use millpond::{Durability, Error};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What `Ok` promised is there after a close, what was refused with `Closed` is not, and nobody who waited is left behind.
#[test]
fn a_close_lets_everybody_go() {
    let cases = ["published before", "refused after", "a receiver is told", "with threads", "without"];
    explore("a_close_lets_everybody_go", cases, |seen| {
        let machine = Machine::new();
        let with_threads = thread_rng().gen_bool(0.5);
        seen.note(if with_threads { 3 } else { 4 });
        let store =
            if with_threads { machine.open_with_threads(Durability::Disk) } else { machine.open(Durability::Disk) };
        let topic = topic(&store);
        let group = group(&topic, "g");
        let publishers: Vec<_> = (0..3u8)
            .map(|number| {
                let level = if number == 0 { Durability::Os } else { Durability::Disk };
                let topic = topic.with_durability(level);
                thread::spawn(move || topic.publish(vec![number]).map(drop))
            })
            .collect();
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || receive_until_refused(&group))
            })
            .collect();
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || store.close())
            })
            .collect();
        for closer in closers {
            closer.join().unwrap().unwrap();
        }
        let outcomes: Vec<_> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let received: Vec<_> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        for (error, _) in &received {
            assert!(matches!(error, Error::Closed), "{error}");
            seen.note(2);
        }
        assert!(matches!(topic.publish("late"), Err(Error::Closed)));
        machine.kill((store, topic, group, received));
        let there = machine.payloads_after_power_cut();
        for (number, outcome) in (0..).zip(&outcomes) {
            match outcome {
                Ok(()) => seen.note(0),
                Err(Error::Closed) => seen.note(1),
                Err(other) => panic!("{other}"),
            }
            assert_eq!(there.contains(&vec![number]), outcome.is_ok(), "{outcomes:?}, and there is {there:?}");
        }
    });
}

/// A close, also of a store that a failed sync has stopped, waits for whoever changes the directory; then nobody does any more.
#[test]
fn nobody_writes_after_a_close() {
    let cases = ["closed cleanly", "stopped before", "a publish was refused"];
    explore("nobody_writes_after_a_close", cases, |seen| {
        let machine = Arc::new(Machine::new());
        let store = machine.open_with_threads(Durability::Disk);
        let topic = topic(&store);
        if thread_rng().gen_bool(0.5) {
            machine.fail_sync(thread_rng().gen_range(0..4));
        }
        let publishing = [Durability::Disk, Durability::Os, Durability::Os].map(|level| {
            let topic = topic.with_durability(level);
            thread::spawn(move || (0..4u8).try_for_each(|number| topic.publish(vec![number; 24 << 10]).map(drop)))
        });
        // So that the background jobs run.
        let passing = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || (0..3).for_each(|_| machine.pass(100)))
        };
        // At some point of all that.
        for _ in 0..thread_rng().gen_range(0..60) {
            thread::yield_now();
        }
        let closed = store.close();
        if publishing.map(|thread| thread.join().unwrap()).iter().any(Result::is_err) {
            seen.note(2);
        }
        passing.join().unwrap();
        seen.note(usize::from(closed.is_err()));
        assert!(machine.disk.attach().is_ok(), "another process may work there while these handles still live");
        machine.kill((store, topic));
    });
}

/// A subscription ends with a close, and when it is dropped, whatever its thread is doing. What was requested and not taken is
/// released: nobody saw it, so it is not charged.
#[test]
fn a_subscription_ends_with_the_store() {
    let cases = ["closed", "dropped", "something was delivered", "nothing was delivered"];
    explore("a_subscription_ends_with_the_store", cases, |seen| {
        let machine = Machine::new();
        let with_threads = thread_rng().gen_bool(0.5);
        let store = if with_threads { machine.open_with_threads(Durability::Os) } else { machine.open(Durability::Os) };
        let (orders, kitchen) = (topic(&store), group(&topic(&store), "g"));
        let deliveries = kitchen.subscribe().unwrap();
        let publishing = {
            let topic = orders.clone();
            thread::spawn(move || drop(topic.publish("m")))
        };
        let closes = thread_rng().gen_bool(0.5);
        let channel = deliveries.request().clone();
        let consuming = thread::spawn(move || {
            let (mut count, mut closed) = (0, 0);
            while let Ok(item) = channel.recv() {
                match item {
                    Ok(delivery) => {
                        assert_eq!((delivery.payload(), delivery.attempt()), (&b"m"[..], 1));
                        count += 1;
                        assert!(matches!(delivery.ack(), Ok(()) | Err(Error::Closed)));
                    }
                    Err(Error::Closed) => closed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (count, closed)
        });
        if closes {
            store.close().unwrap();
        }
        drop(deliveries);
        let (count, closed) = consuming.join().unwrap();
        publishing.join().unwrap();
        drop((store, orders, kitchen));
        assert!(count <= 1 && closed == u32::from(closes), "{count} deliveries, and {closed} times closed");
        seen.note(usize::from(!closes));
        seen.note(if count == 1 { 2 } else { 3 });
        if count == 0 {
            let store = machine.open(Durability::Os);
            let found = group(&topic(&store), "g").receive(Duration::ZERO).unwrap();
            assert!(found.is_none_or(|delivery| delivery.attempt() == 1), "nobody saw it, and it was charged");
        }
    });
}

/// An offer that nobody takes is released in time, and wakes a consumer that waits for it.
#[test]
fn an_untaken_offer_is_released() {
    explore("an_untaken_offer_is_released", ["requested again", "received otherwise"], |seen| {
        let machine = Arc::new(Machine::new());
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        // Offers are taken back long before the time is up that the test lets pass.
        let group = topic.group("g").visibility_timeout(Duration::from_secs(2)).open().unwrap();
        let deliveries = group.subscribe().unwrap();
        let channel = deliveries.request().clone();
        topic.publish("m").unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let passing = {
            let (machine, done) = (Arc::clone(&machine), Arc::clone(&done));
            thread::spawn(move || machine.pass_until(|| done.load(Ordering::Relaxed)))
        };
        let delivery = if thread_rng().gen_bool(0.5) {
            seen.note(0);
            // Right before the request ends, right after it, or in between.
            deliveries.request();
            channel.recv().unwrap().unwrap()
        } else {
            seen.note(1);
            // Beside the request, which may have the message now.
            group.receive(LONG).unwrap().unwrap()
        };
        assert_eq!(delivery.payload(), b"m");
        drop(delivery);
        done.store(true, Ordering::Relaxed);
        passing.join().unwrap();
    });
}
