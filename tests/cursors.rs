//! Named cursors: they move for those who know where they stand, together with what they stand for, and hold what is to be read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Error, ErrorKind, LogReader, Position, Store, Topic};
use std::sync::Arc;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
}

impl Machine {
    fn new(level: Durability) -> Self {
        let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let store = open(&disk, &clock, level);
        Self { disk, clock, store }
    }

    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).open().unwrap()
    }

    fn end(&self) -> (u64, u64) {
        (self.store.stats().unwrap().log.end.0, self.store.state_hash().unwrap().unwrap())
    }

    fn watermark(&self) -> u64 {
        self.store.stats().unwrap().log.durable.0
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    let options = Store::options().durability(level).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap()
}

fn positions(reader: &mut LogReader) -> Vec<Position> {
    std::iter::from_fn(|| reader.try_next().unwrap()).map(|message| message.position()).collect()
}

#[test]
fn a_cursor_moves_only_for_those_who_know_where_it_stands() {
    let machine = Machine::new(Durability::Os);
    let cursor = machine.store.cursor("import").unwrap();
    assert_eq!((cursor.get().unwrap(), machine.store.cursors().unwrap()), (None, vec![]));
    assert!(matches!(cursor.set(Some(b""), "1"), Err(Error::CursorMoved { name }) if name == "import"));
    cursor.set(None, "1").unwrap();
    let before = machine.end();
    let moved = cursor.set(None, "2").unwrap_err();
    assert_eq!((moved.kind(), machine.end()), (ErrorKind::Conflict, before));
    cursor.set(Some(b"1"), "2").unwrap();
    machine.store.cursor("a").unwrap().set(None, "").unwrap();
    assert_eq!(machine.store.cursors().unwrap(), ["a", "import"]);
    let Machine { disk, clock, store } = machine;
    drop((store, cursor));
    let store = open(&disk, &clock, Durability::Os);
    let cursor = store.cursor("import").unwrap();
    assert_eq!(cursor.get().unwrap().as_deref(), Some(&b"2"[..]));
    cursor.remove().unwrap();
    assert!(matches!(cursor.remove(), Err(Error::NotFound { what: "cursor", .. })));
    assert_eq!(store.cursors().unwrap(), ["a"]);
}

#[test]
fn cursors_out_of_bounds_are_refused() {
    let machine = Machine::new(Durability::Os);
    assert!(matches!(machine.store.cursor("x".repeat(256)), Err(Error::InvalidName { what: "cursor", .. })));
    assert!(matches!(machine.store.cursor(""), Err(Error::InvalidName { .. })));
    let cursor = machine.store.cursor("x".repeat(255)).unwrap();
    machine.topic("t");
    let before = machine.end();
    assert!(matches!(cursor.set(None, [0; 1025]), Err(Error::TooLarge { what: "cursor value", max: 1024, .. })));
    assert_eq!(machine.end(), before);
    cursor.set(None, [0; 1024]).unwrap();
    for nth in 1..65_536u32 {
        machine.store.cursor(nth.to_string()).unwrap().set(None, "").unwrap();
    }
    let one_more = machine.store.cursor("one more").unwrap();
    assert!(matches!(one_more.set(None, ""), Err(Error::LimitReached { what: "cursors" })));
    cursor.set(Some(&[0; 1024]), "").unwrap();
    cursor.remove().unwrap();
    let another = machine.store.cursor("another").unwrap();
    let before = machine.end();
    let two = machine.store.transaction(|tx| {
        tx.set_cursor(&one_more, None, "")?;
        tx.set_cursor(&another, None, "")
    });
    assert!(matches!(two, Err(Error::LimitReached { what: "cursors" })), "one of them fits");
    assert_eq!(machine.end(), before);
    one_more.set(None, "").unwrap();
}

#[test]
fn a_cursor_moves_with_its_output_or_not_at_all() {
    let machine = Machine::new(Durability::Os);
    let (cursor, topic) = (machine.store.cursor("c").unwrap(), machine.topic("t"));
    let publish = |expected: Option<&[u8]>, value: &str| {
        machine.store.transaction(|tx| {
            tx.publish(&topic, "output")?;
            tx.set_cursor(&cursor, expected, value)
        })
    };
    publish(None, "1").unwrap();
    let before = machine.end();
    assert!(matches!(publish(None, "2"), Err(Error::CursorMoved { name }) if name == "c"));
    let twice = machine.store.transaction(|tx| {
        tx.set_cursor(&cursor, Some(b"1"), "2")?;
        tx.set_cursor(&cursor, Some(b"2"), "3")
    });
    assert!(matches!(twice, Err(Error::InvalidTransaction { reason }) if reason == "a cursor is set twice: c"));
    let foreign = Machine::new(Durability::Os);
    let other = foreign.store.cursor("c").unwrap();
    let foreign = machine.store.transaction(|tx| tx.set_cursor(&other, None, "2"));
    assert!(matches!(foreign, Err(Error::InvalidTransaction { .. })));
    let long = machine.store.transaction(|tx| tx.set_cursor(&cursor, Some(b"1"), [0; 1025]));
    assert!(matches!(long, Err(Error::TooLarge { .. })));
    assert_eq!(machine.end(), before);
    publish(Some(b"1"), "2").unwrap();
    assert_eq!(cursor.get().unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn what_a_cursor_says_is_durable_where_only_that_is_shown() {
    let machine = Machine::new(Durability::Disk);
    let (cursor, topic) = (machine.store.cursor("c").unwrap(), machine.topic("t"));
    let set = |expected: Option<&[u8]>, value: &str| {
        let done = machine.store.transaction(|tx| {
            tx.durability(Durability::Os);
            tx.publish(&topic, "output")?;
            tx.set_cursor(&cursor, expected, value)
        });
        let lsn = done.unwrap().lsn();
        assert!(machine.watermark() <= lsn.0);
        lsn
    };
    let lsn = set(None, "1");
    cursor.get().unwrap();
    assert!(machine.watermark() > lsn.0);
    let lsn = set(Some(b"1"), "2");
    assert!(matches!(cursor.set(None, "3"), Err(Error::CursorMoved { .. })));
    assert!(machine.watermark() > lsn.0, "a conflict tells of it too");
    let lsn = set(Some(b"2"), "3");
    machine.store.cursors().unwrap();
    assert!(machine.watermark() > lsn.0);
    // What is not there may have been removed a moment ago.
    let lsn = set(Some(b"3"), "4");
    assert_eq!(machine.store.cursor("other").unwrap().get().unwrap(), None);
    assert!(machine.watermark() > lsn.0);
}

#[test]
fn a_cursor_over_a_topic_holds_what_it_has_not_passed() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic("t");
    let group = topic.group("g").open().unwrap();
    let settle = || {
        for _ in 0..100 {
            topic.publish(vec![7; 2000]).unwrap();
            group.receive(std::time::Duration::ZERO).unwrap().unwrap().ack().unwrap();
        }
        machine.store.sync().unwrap();
        machine.store.checkpoint().unwrap();
        machine.store.tick().unwrap();
    };
    let bytes = || machine.store.stats().unwrap().log.bytes;
    topic.publish("first").unwrap();
    group.receive(std::time::Duration::ZERO).unwrap().unwrap().ack().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let first = reader.try_next().unwrap().unwrap().position();
    let cursor = topic.cursor("c").unwrap();
    assert_eq!(cursor.position().unwrap(), None);
    cursor.advance(None, first).unwrap();
    (0..4).for_each(|_| settle());
    let held = bytes();
    let mut again = topic.reader().from(cursor.position().unwrap().unwrap()).open().unwrap();
    let all = positions(&mut again);
    assert_eq!(all.len(), 400, "nothing went that it has not passed");
    assert!(matches!(cursor.advance(None, all[399]), Err(Error::CursorMoved { .. })));
    cursor.advance(Some(first), all[399]).unwrap();
    (0..2).for_each(|_| settle());
    assert!(bytes() + (300 << 10) < held, "{} of {held} bytes", bytes());
    let next = positions(&mut topic.reader().from(all[399]).open().unwrap());
    assert_eq!(next.len(), 200);
    cursor.remove().unwrap();
    (0..3).for_each(|_| settle());
    let mut late = topic.reader().from(all[399]).open().unwrap();
    assert!(matches!(late.try_next(), Err(Error::Gap { .. })), "nobody held it");
}

#[test]
fn only_positions_of_its_topic_are_taken() {
    let machine = Machine::new(Durability::Os);
    let (one, other) = (machine.topic("one"), machine.topic("other"));
    let position = |topic: &Topic| {
        topic.publish("x").unwrap();
        positions(&mut topic.reader().open().unwrap()).pop().unwrap()
    };
    let (of_one, of_other) = (position(&one), position(&other));
    let cursor = one.cursor("c").unwrap();
    let before = machine.end();
    assert!(matches!(cursor.advance(None, of_other), Err(Error::InvalidPosition { .. })));
    let beyond: Position = "1jz4b0g0-zzzzzzzz-0-0".parse().unwrap();
    assert!(matches!(cursor.advance(None, beyond), Err(Error::InvalidPosition { .. })));
    let in_transaction = machine.store.transaction(|tx| tx.advance(&cursor, None, of_other));
    assert!(matches!(in_transaction, Err(Error::InvalidPosition { .. })));
    assert_eq!(machine.end(), before);
    let made_up: Position = {
        let text = of_one.to_string();
        let parts: Vec<&str> = text.split('-').collect();
        format!("{}-8-{}-{}", parts[0], parts[2], parts[3]).parse().unwrap()
    };
    assert!(matches!(cursor.advance(None, made_up), Err(Error::InvalidPosition { .. })), "another place in the log");
    machine.store.transaction(|tx| tx.advance(&cursor, None, of_one)).unwrap();
    // A cursor of one topic is none of another, and goes on holding its own.
    let foreign = other.cursor("c").unwrap();
    assert!(matches!(foreign.position(), Err(Error::InvalidPosition { .. })));
    assert!(matches!(foreign.advance(Some(of_one), of_other), Err(Error::InvalidPosition { .. })));
    assert_eq!(cursor.position().unwrap(), Some(of_one));
    // Names are shared: what was set otherwise is no position.
    machine.store.cursor("d").unwrap().set(None, "no position").unwrap();
    assert!(matches!(one.cursor("d").unwrap().position(), Err(Error::InvalidOption { .. })));
    // A cursor outlives its topic, and holds nothing then.
    machine.store.remove_topic("one").unwrap();
    assert!(matches!(cursor.position(), Err(Error::InvalidPosition { .. })));
    assert!(matches!(cursor.advance(Some(of_one), of_one), Err(Error::InvalidPosition { .. })));
    cursor.remove().unwrap();
}

#[test]
fn a_full_store_takes_no_new_cursor_and_can_be_drained() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic("t");
    let group = topic.group("g").open().unwrap();
    let first = {
        topic.publish("first").unwrap();
        positions(&mut topic.reader().open().unwrap())[0]
    };
    let moved = topic.cursor("moved").unwrap();
    moved.advance(None, first).unwrap();
    let taken = machine.disk.files().iter().map(|file| file.len).sum::<u64>();
    machine.disk.set_capacity(Some(taken + (2 << 20)));
    let mut published = 1;
    while topic.publish([7; 500]).map_err(|error| assert!(matches!(error, Error::DiskFull))).is_ok() {
        published += 1;
    }
    let taken = group.receive(std::time::Duration::ZERO).unwrap().unwrap();
    let mut held = 0;
    for nth in 0..2_000 {
        let cursor = machine.store.cursor(format!("{nth}")).unwrap();
        assert!(matches!(cursor.set(None, [1; 1024]), Err(Error::DiskFull)));
        let alone = machine.store.transaction(|tx| tx.set_cursor(&cursor, None, [1; 1024]));
        assert!(matches!(alone, Err(Error::DiskFull)));
        let holding = topic.cursor(format!("h{nth}")).unwrap();
        match holding.advance(None, first) {
            // What is less than a message may still fit.
            Ok(()) => held += 1,
            Err(error) => assert!(matches!(error, Error::DiskFull)),
        }
        let nacked = machine.store.transaction(|tx| {
            tx.nack(&taken, "no")?;
            tx.publish(&topic, [7; 500])
        });
        assert!(matches!(nacked, Err(Error::DiskFull)));
        moved.advance(Some(first), first).unwrap();
    }
    assert!(held < 100, "{held} cursors");
    taken.ack().unwrap();
    let mut acked = 1;
    while let Some(delivery) = group.receive(std::time::Duration::ZERO).unwrap() {
        delivery.ack().unwrap();
        acked += 1;
    }
    assert_eq!(acked, published);
}
