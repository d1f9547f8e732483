//! Ids under which a topic accepts a message once, and producers that number theirs (G20). For crashes see the simulation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{Clock, SimClock, SimDisk};
use millpond::{Durability, Error, ErrorKind, Message, Receipt, Store, Topic};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

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

    fn topic(&self) -> Topic {
        self.store.topic("orders").partitions(3).dedup_ids(4).dedup_window(Duration::from_secs(60)).open().unwrap()
    }

    fn end(&self) -> (u64, u64) {
        (self.store.stats().unwrap().log.end.0, self.store.state_hash().unwrap().unwrap())
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    Store::options().durability(level).open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap()
}

fn jump(clock: &SimClock, by_ms: i64) {
    clock.set_wall(WallMs(clock.wall().0.strict_add_signed(by_ms)));
}

fn order(id: &str) -> Message<'_> {
    Message::new("two pizzas").header("type", "order").dedup_id(id)
}

fn same(one: &Receipt, other: &Receipt) {
    assert_eq!((one.id(), one.lsn()), (other.id(), other.lsn()));
}

#[test]
fn g20_a_repeat_publishes_nothing_and_gives_the_first_receipt() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    let group = topic.group("g").open().unwrap();
    let first = topic.publish(order("o-1")).unwrap();
    assert!(!first.is_repeat());
    // Its message is settled: the id is remembered all the same.
    group.receive(NOW).unwrap().unwrap().ack().unwrap();
    let before = machine.end();
    let again = topic.publish(order("o-1")).unwrap();
    assert!(again.is_repeat());
    same(&first, &again);
    again.wait_durable().unwrap();
    assert_eq!(machine.end().1, before.1);
    assert!(group.receive(NOW).unwrap().is_none());
    let other = topic.publish(order("o-2")).unwrap();
    assert!(!other.is_repeat() && other.id() != first.id());
    // Another topic has ids of its own.
    assert!(!machine.store.topic("other").open().unwrap().publish(order("o-1")).unwrap().is_repeat());
}

#[test]
fn g20_other_bytes_under_an_id_are_a_conflict_that_names_the_first_message() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    let first = topic.publish(order("o-1")).unwrap();
    let before = machine.end();
    let others = [
        Message::new("one pizza").header("type", "order"),
        Message::new("two pizzas"),
        Message::new("two pizzas").header("type", "order").key("k"),
    ];
    for other in others {
        let refused = topic.publish(other.dedup_id("o-1")).unwrap_err();
        assert!(matches!(&refused, Error::DedupConflict { first: id, .. } if *id == first.id()), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::FixCall);
    }
    let batch = topic.publish_batch([order("o-2"), Message::new("one").dedup_id("o-1")]);
    assert!(matches!(batch, Err(Error::DedupConflict { .. })), "the batch as a whole");
    assert_eq!(machine.end(), before);
}

#[test]
fn g20_an_id_leaves_by_count_or_by_age_and_no_earlier() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    for id in ["1", "2", "3", "4"] {
        topic.publish(order(id)).unwrap();
    }
    assert!(topic.publish(order("1")).unwrap().is_repeat());
    topic.publish(order("5")).unwrap();
    assert!(!topic.publish(order("1")).unwrap().is_repeat(), "four are remembered");
    machine.clock.advance(60_000);
    assert!(topic.publish(order("5")).unwrap().is_repeat());
    // However the clock jumps.
    jump(&machine.clock, 3_600_000);
    assert!(topic.publish(order("5")).unwrap().is_repeat());
    machine.store.tick().unwrap();
    jump(&machine.clock, -7_200_000);
    assert!(topic.publish(order("5")).unwrap().is_repeat());
    machine.store.tick().unwrap();
    assert!(topic.publish(order("5")).unwrap().is_repeat());
    machine.clock.advance(1);
    assert!(!topic.publish(order("5")).unwrap().is_repeat());
}

#[test]
fn g20_ids_outlive_their_process_and_a_checkpoint() {
    for (level, with_checkpoint) in [(Durability::Os, true), (Durability::Disk, false), (Durability::Disk, true)] {
        let machine = Machine::new(level);
        let first = machine.topic().publish(order("o-1")).unwrap();
        if with_checkpoint {
            machine.store.checkpoint().unwrap();
        }
        let Machine { disk, clock, store } = machine;
        drop(store);
        let store = open(&disk, &clock, level);
        let again = store.topic("orders").open().unwrap().publish(order("o-1")).unwrap();
        assert!(again.is_repeat());
        same(&first, &again);
    }
}

#[test]
fn g20_a_repeat_is_told_only_once_it_is_durable() {
    let machine = Machine::new(Durability::Disk);
    let topic = machine.topic();
    let quick = topic.with_durability(Durability::Os);
    let first = quick.publish(order("o-1")).unwrap();
    let before = machine.store.stats().unwrap().log.durable;
    assert!(before <= first.lsn(), "the first one is not durable yet");
    assert!(quick.publish(order("o-1")).unwrap().is_repeat());
    assert!(machine.store.stats().unwrap().log.durable > first.lsn());
    // And so is a conflict, and what a producer hears.
    let second = quick.publish(order("o-2")).unwrap();
    assert!(matches!(quick.publish(Message::new("x").dedup_id("o-2")), Err(Error::DedupConflict { .. })));
    assert!(machine.store.stats().unwrap().log.durable > second.lsn());
    let producer = quick.producer("p").unwrap();
    let third = producer.publish(0, "0").unwrap().unwrap();
    assert!(machine.store.stats().unwrap().log.durable <= third.lsn());
    assert!(producer.publish(0, "0").unwrap().is_none());
    assert!(machine.store.stats().unwrap().log.durable > third.lsn());
    let fourth = producer.publish(1, "1").unwrap().unwrap();
    assert_eq!(producer.next_sequence().unwrap(), 2);
    assert!(machine.store.stats().unwrap().log.durable > fourth.lsn());
}

#[test]
fn a_batch_publishes_what_is_new_in_it() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    let two = topic.publish(order("2").key("b")).unwrap();
    let keyed = |id, key| order(id).key(key);
    let batch = topic
        .publish_batch([
            keyed("1", "c"),
            keyed("2", "b"),
            keyed("3", "a"),
            keyed("1", "c"),
            Message::new("plain"),
            keyed("3", "a"),
        ])
        .unwrap();
    let repeats: Vec<_> = (0..7).map(|nth| batch.is_repeat(nth)).collect();
    assert_eq!(repeats, [false, true, false, true, false, true, false]);
    let ids = batch.ids();
    assert_eq!((ids[1], ids[3], ids[5]), (two.id(), ids[0], ids[2]));
    // Each id is that of its message.
    let mut reader = topic.reader().open().unwrap();
    let mut read = Vec::new();
    while let Some(message) = reader.try_next().unwrap() {
        read.push((message.id(), message.key().map(<[u8]>::to_vec)));
    }
    let mut expected = vec![
        (two.id(), Some(b"b".to_vec())),
        (ids[0], Some(b"c".to_vec())),
        (ids[2], Some(b"a".to_vec())),
        (ids[4], None),
    ];
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
    // All of it again, without the one that has no id.
    let before = machine.end();
    let again = topic.publish_batch([keyed("1", "c"), keyed("2", "b"), keyed("3", "a")]).unwrap();
    assert_eq!((again.ids(), machine.end()), (&[ids[0], two.id(), ids[2]][..], before));
    again.wait_durable().unwrap();
    let twice = topic.publish_batch([order("9"), Message::new("other").dedup_id("9")]);
    assert!(matches!(twice, Err(Error::InvalidOption { option: "dedup_id", .. })));
}

#[test]
fn a_transaction_leaves_out_what_was_published_before() {
    let machine = Machine::new(Durability::Os);
    let (topic, other) = (machine.topic(), machine.store.topic("other").open().unwrap());
    let group = topic.group("g").open().unwrap();
    let first = topic.publish(order("1")).unwrap();
    let delivery = group.receive(NOW).unwrap().unwrap();
    let done = machine
        .store
        .transaction(|tx| {
            tx.ack(&delivery)?;
            let others = [tx.publish(&other, order("1"))?, tx.publish(&topic, order("2"))?];
            Ok::<_, Error>((tx.publish(&topic, order("1"))?, others))
        })
        .unwrap();
    let (repeat, others) = done.value;
    assert!(done.is_repeat(repeat) && !done.is_repeat(others[0]) && !done.is_repeat(others[1]));
    assert_eq!(done.id(repeat), Some(first.id()));
    // A handle of another transaction names nothing in this one.
    let next = machine.store.transaction(|tx| tx.publish(&other, "x")).unwrap();
    assert_eq!((next.id(repeat), next.is_repeat(repeat), done.id(next.value)), (None, false, None));
    // Only what was published before: the ack alone is carried out.
    topic.publish("more").unwrap();
    let deliveries: Vec<_> = group.receive_batch(9, NOW).unwrap().into_iter().collect();
    let before = machine.store.stats().unwrap().log.end;
    let done = machine
        .store
        .transaction(|tx| {
            deliveries.iter().try_for_each(|delivery| tx.ack(delivery))?;
            tx.publish(&topic, order("2"))
        })
        .unwrap();
    assert!(done.is_repeat(done.value) && machine.store.stats().unwrap().log.end > before);
    assert!(deliveries.into_iter().all(|delivery| delivery.ack().is_err()), "settled in the transaction");
    let conflict = machine.store.transaction(|tx| tx.publish(&topic, Message::new("x").dedup_id("2")));
    assert!(matches!(conflict, Err(Error::DedupConflict { .. })));
}

#[test]
fn ids_and_options_out_of_bounds_are_refused() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    let before = machine.end();
    assert!(matches!(topic.publish(order("")), Err(Error::InvalidOption { option: "dedup_id", .. })));
    let long = "x".repeat(64 << 10);
    assert!(matches!(topic.publish(order(&long)), Err(Error::TooLarge { what: "dedup id", .. })));
    assert!(matches!(topic.publish_batch([order("a"), order(&long)]), Err(Error::TooLarge { .. })));
    assert_eq!(machine.end(), before);
    topic.publish(order(&long[..1024])).unwrap();
    let options = |ids, ms| machine.store.topic("new").dedup_ids(ids).dedup_window(Duration::from_millis(ms)).open();
    assert!(matches!(options(0, 1), Err(Error::InvalidOption { option: "dedup_ids", .. })));
    assert!(matches!(options(1_048_577, 1), Err(Error::InvalidOption { option: "dedup_ids", .. })));
    assert!(matches!(options(1, 0), Err(Error::InvalidOption { option: "dedup_window", .. })));
    assert!(matches!(options(1, u64::MAX), Err(Error::InvalidOption { option: "dedup_window", .. })));
    assert!(matches!(machine.store.topic("orders").dedup_ids(5).open(), Err(Error::OptionMismatch { .. })));
    let window = machine.store.topic("orders").dedup_window(Duration::from_secs(61)).open();
    assert!(matches!(window, Err(Error::OptionMismatch { .. })));
    // The rooms of all topics that have seen an id have a bound together; a topic without one needs no room.
    let large = options(1_048_576, 1).unwrap();
    large.publish("without an id").unwrap();
    assert!(matches!(large.publish(order("a")), Err(Error::LimitReached { what }) if what.contains("dedup_ids")));
    machine.store.remove_topic("orders").unwrap();
    large.publish(order("a")).unwrap();
}

/// What one frame adds to several topics counts together.
#[test]
fn a_transaction_does_not_exceed_the_room_for_ids() {
    let machine = Machine::new(Durability::Os);
    let topic = |name: &str| machine.store.topic(name).dedup_ids(600_000).open().unwrap();
    let (one, other) = (topic("one"), topic("other"));
    let before = machine.end();
    let both = machine.store.transaction(|tx| {
        tx.publish(&one, order("1"))?;
        tx.publish(&other, order("1"))
    });
    assert!(matches!(both, Err(Error::LimitReached { what }) if what.contains("dedup_ids")));
    assert_eq!(machine.end(), before);
    one.publish(order("1")).unwrap();
}

#[test]
fn g20_a_producer_publishes_each_number_once_and_without_gaps() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic();
    let producer = topic.producer("importer").unwrap();
    assert_eq!(producer.next_sequence().unwrap(), 0);
    assert!(matches!(producer.publish(1, "b"), Err(Error::SequenceGap { expected: 0, given: 1, .. })));
    assert!(producer.publish(0, "a").unwrap().is_some());
    assert!(producer.publish(1, "b").unwrap().is_some());
    let before = machine.end();
    assert!(producer.publish(1, "b").unwrap().is_none());
    assert!(producer.publish(0, "whatever").unwrap().is_none());
    assert!(matches!(producer.publish(3, "d"), Err(Error::SequenceGap { expected: 2, given: 3, .. })));
    assert!(matches!(producer.publish(2, order("x")), Err(Error::InvalidOption { option: "dedup_id", .. })));
    assert_eq!(machine.end(), before);
    // Each topic counts for itself; the numbers outlive the process.
    assert_eq!(machine.store.topic("other").open().unwrap().producer("importer").unwrap().next_sequence().unwrap(), 0);
    let Machine { disk, clock, store } = machine;
    store.close().unwrap();
    drop((store, producer, topic));
    let store = open(&disk, &clock, Durability::Os);
    let producer = store.topic("orders").open().unwrap().producer("importer").unwrap();
    assert_eq!(producer.next_sequence().unwrap(), 2);
    assert!(producer.publish(2, "c").unwrap().is_some());
    assert!(matches!(store.topic("orders").open().unwrap().producer(""), Err(Error::InvalidName { .. })));
    store.remove_topic("orders").unwrap();
    assert!(matches!(producer.publish(3, "d"), Err(Error::Removed { .. })));
    assert!(matches!(producer.next_sequence(), Err(Error::Removed { .. })));
}
