//! Publishers that wait for room in their topic: each is woken when there is some for it.

use crate::rig::{LONG, Machine, explore};
use millpond::{Durability, Error, Message, WhenFull};
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// More publishers than there is room for, of one message and of two. None of them waits on where there is room.
#[test]
fn who_waits_for_room_gets_it() {
    explore("who_waits_for_room", ["some were settled"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = store.topic("t").max_messages(2).when_full(WhenFull::Block(LONG)).open().unwrap();
        let group = topic.group("g").open().unwrap();
        let publishers: Vec<_> = [vec!["1"], vec!["2", "3"], vec!["4"], vec!["5", "6"]]
            .into_iter()
            .map(|payloads| {
                let topic = topic.clone();
                thread::spawn(move || topic.publish_batch(payloads.into_iter().map(Message::new)).map(drop).unwrap())
            })
            .collect();
        for _ in 0..6 {
            let delivery = group.receive(LONG).unwrap().expect("nobody lets time pass");
            delivery.ack().unwrap();
            seen.note(0);
        }
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        assert!(group.receive(Duration::ZERO).unwrap().is_none() && store.violations().is_empty());
    });
}

/// One that is woken and has run out of time, or that fails, leaves the room to the next.
#[test]
fn who_gives_up_leaves_the_room_to_others() {
    explore("who_gives_up_leaves_the_room", ["it was refused", "it got the room"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let short = Duration::from_millis(20);
        let topic = store.topic("t").max_messages(1).when_full(WhenFull::Block(short)).open().unwrap();
        let group = topic.group("g").open().unwrap();
        topic.publish("first").unwrap();
        let (ended, published) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (topic, ended, published) = (topic.clone(), Arc::clone(&ended), Arc::clone(&published));
                thread::spawn(move || {
                    match topic.publish("m") {
                        Ok(_) => drop(published.fetch_add(1, SeqCst)),
                        Err(Error::TopicFull { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    ended.fetch_add(1, SeqCst);
                })
            })
            .collect();
        let consumer = thread::spawn(move || group.receive(LONG).unwrap().unwrap().ack().unwrap());
        machine.pass_until(|| ended.load(SeqCst) == 2);
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        consumer.join().unwrap();
        let published = published.load(SeqCst);
        assert!(published < 2, "there was room for one");
        seen.note(published);
        // Those that were refused took nothing: there is room for as many as were not published.
        assert_eq!(store.stats().unwrap().topics[0].groups[0].lag, published as u64);
        if published == 0 {
            topic.publish("m").unwrap();
        }
    });
}
