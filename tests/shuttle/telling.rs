//! What one call tells of another: where a cursor stands, what was published first, what is there to be read.

use crate::rig::{LONG, Machine, explore, topic};
use millpond::{Cursor, Durability, Error, Message, Store, Topic};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::time::Duration;

fn number(value: Option<Vec<u8>>) -> u8 {
    value.map_or(0, |value| value[0])
}

/// Adds one to a cursor. Returns how often it had moved meanwhile.
fn count_up(cursor: &Cursor) -> usize {
    let mut moved = 0;
    loop {
        let before = cursor.get().unwrap();
        match cursor.set(before.as_deref(), [number(before.clone()) + 1]) {
            Ok(()) => return moved,
            Err(Error::CursorMoved { .. }) => moved += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Two threads count by one cursor: no step of either is lost, alone or in a transaction, and what a cursor tells is durable.
#[test]
fn a_cursor_moves_once_for_each_caller() {
    explore("a_cursor_moves_once_for_each_caller", ["at Os", "at Disk", "one had moved"], |seen| {
        let machine = Machine::new();
        let disk = thread_rng().gen_bool(0.5);
        seen.note(usize::from(disk));
        let level = if disk { Durability::Disk } else { Durability::Os };
        let store = machine.open(level);
        let start = |store: &Store| {
            let cursor = store.cursor("progress").unwrap();
            thread::spawn(move || count_up(&cursor) + count_up(&cursor))
        };
        let threads = [start(&store), start(&store)];
        let moved: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        if moved > 0 {
            seen.note(2);
        }
        let cursor = store.cursor("progress").unwrap();
        assert_eq!(number(cursor.get().unwrap()), 4, "a step is lost");
        if disk {
            machine.kill((store, cursor));
            machine.lose_power();
            let store = machine.open(Durability::Disk);
            assert_eq!(number(store.cursor("progress").unwrap().get().unwrap()), 4, "told, and not durable");
        }
    });
}

/// Of publishers of one id one publishes. The others are told of it, in a store at `Disk` once that is durable.
#[test]
fn an_id_is_accepted_once_and_told_when_it_is_durable() {
    let cases = ["the first is synced", "the first is not synced"];
    explore("an_id_is_accepted_once", cases, |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Disk);
        let topic = topic(&store);
        let publish = |level: Durability| {
            let (topic, store) = (topic.with_durability(level), store.clone());
            thread::spawn(move || {
                let receipt = topic.publish(Message::new("order").dedup_id("o-12")).unwrap();
                let durable = store.stats().unwrap().log.durable;
                (receipt.id(), receipt.is_repeat(), durable > receipt.lsn())
            })
        };
        let levels = if thread_rng().gen_bool(0.5) { [Durability::Os; 2] } else { [Durability::Os, Durability::Disk] };
        let told = levels.map(publish).map(|thread| thread.join().unwrap());
        let first = told.iter().find(|(_, is_repeat, _)| !is_repeat).expect("one publishes");
        let repeats: Vec<_> = told.iter().filter(|(_, is_repeat, _)| *is_repeat).collect();
        assert_eq!(repeats.len(), 1, "accepted twice");
        assert_eq!(repeats[0].0, first.0);
        assert!(repeats[0].2, "a repeat is told of what is not durable (G4, G20)");
        seen.note(usize::from(!first.2));
        machine.kill((store, topic));
        assert_eq!(machine.payloads_after_power_cut(), [b"order"], "told, and lost");
    });
}

fn publish(topic: &Topic, texts: &'static [&'static str]) -> thread::JoinHandle<()> {
    let topic = topic.clone();
    thread::spawn(move || {
        for text in texts {
            topic.publish(*text).unwrap();
        }
    })
}

/// A reader at the tail sleeps until somebody publishes, and gets each message in the order of the log.
#[test]
fn a_reader_at_the_tail_gets_every_message() {
    explore("a_reader_at_the_tail_gets_every_message", ["at Os", "at Disk"], |seen| {
        let machine = Machine::new();
        let disk = thread_rng().gen_bool(0.5);
        seen.note(usize::from(disk));
        let store = machine.open(if disk { Durability::Disk } else { Durability::Os });
        let topic = store.topic("t").partitions(2).open().unwrap();
        let reading = {
            let mut reader = topic.reader().from_end().open().unwrap();
            thread::spawn(move || {
                let mut texts = Vec::new();
                let mut place = None;
                while texts.len() < 4 {
                    let message = reader.next(LONG).unwrap().expect("nobody lets time pass");
                    let at = message.position();
                    assert!(place.replace(at) < Some(at), "out of order");
                    texts.push(String::from_utf8(message.payload().to_vec()).unwrap());
                }
                assert!(reader.next(Duration::ZERO).unwrap().is_none());
                texts
            })
        };
        let publishers = [publish(&topic, &["a", "b"]), publish(&topic, &["c", "d"])];
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let mut texts = reading.join().unwrap();
        texts.sort();
        assert_eq!(texts, ["a", "b", "c", "d"]);
    });
}
