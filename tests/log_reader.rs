//! Reading a topic as a log: order, positions at every edge, gaps, the tail, and positions that are none (G25).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{PowerOutcome, SimClock, SimDisk, lock_holds};
use millpond::{
    Durability, Error, ErrorKind, LogMessage, LogReader, Message, Position, PositionFault, Retention, Store, Topic,
};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

const NOW: Duration = Duration::ZERO;
/// Only a failing test waits as long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    level: Durability,
    store: Store,
}

impl Machine {
    fn new(level: Durability) -> Self {
        let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let store = open(&disk, &clock, level);
        Self { disk, clock, level, store }
    }

    fn topic(&self, partitions: u32) -> Topic {
        self.store.topic("log").partitions(partitions).open().unwrap()
    }

    /// Ends the process as `end` does, and begins another.
    fn again(self, end: impl FnOnce(&SimDisk)) -> Self {
        end(&self.disk);
        let Self { disk, clock, level, store } = self;
        drop(store);
        let store = open(&disk, &clock, level);
        Self { disk, clock, level, store }
    }

    /// All that maintenance does, twice: what is retired lies below both kept checkpoints.
    fn rest(&self) {
        for _ in 0..3 {
            self.topic(1).publish("tick").unwrap();
            self.store.sync().unwrap();
            self.store.checkpoint().unwrap();
            self.clock.advance(10_000);
            self.store.tick().unwrap();
        }
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    let options = Store::options().durability(level).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap()
}

fn text(message: &LogMessage) -> String {
    let payload = message.payload();
    String::from_utf8(payload[..payload.len().min(20)].to_vec()).unwrap().trim_end().to_owned()
}

/// All that is there.
fn rest(reader: &mut LogReader) -> Vec<LogMessage> {
    std::iter::from_fn(|| reader.try_next().unwrap()).collect()
}

fn texts(reader: &mut LogReader) -> Vec<String> {
    rest(reader).iter().map(text).collect()
}

/// A message with this text that takes so many bytes.
fn padded(text: &str, len: usize) -> Message<'static> {
    Message::new(format!("{text:<len$}").into_bytes())
}

/// From every position a reader reads exactly what comes after it.
fn goes_on_everywhere(topic: &Topic) -> usize {
    let all = rest(&mut topic.reader().open().unwrap());
    let ids: Vec<_> = all.iter().map(LogMessage::id).collect();
    for (nth, message) in all.iter().enumerate() {
        let mut reader = topic.reader().from(message.position()).open().unwrap();
        let after: Vec<_> = rest(&mut reader).iter().map(LogMessage::id).collect();
        assert_eq!(after, ids[nth + 1..], "after number {nth}, {message:?}");
    }
    assert!(all.is_sorted_by_key(LogMessage::position));
    all.len()
}

#[test]
fn messages_come_in_the_order_of_the_log_with_all_they_have() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic(3);
    let other = machine.store.topic("other").open().unwrap();
    for (partition, text) in [(2, "a"), (0, "b"), (2, "c"), (1, "d")] {
        topic.publish(Message::new(text).partition(partition)).unwrap();
        other.publish("not of this topic").unwrap();
    }
    // Within a frame by partition and offset.
    topic.publish_batch([(2, "h"), (0, "e"), (2, "i"), (0, "f")].map(|(p, t)| Message::new(t).partition(p))).unwrap();
    let full = Message::new("full").partition(1).key("key").header("kind", "order").header("kind", "again");
    let id = topic.publish(full).unwrap().id();
    let mut reader = topic.reader().from_start().open().unwrap();
    let all = rest(&mut reader);
    assert_eq!(all.iter().map(text).collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f", "h", "i", "full"]);
    let last = &all[8];
    assert_eq!((last.id(), last.origin(), last.topic(), last.key()), (id, id, "log", Some(&b"key"[..])));
    assert_eq!(last.headers().collect::<Vec<_>>(), [("kind", &b"order"[..]), ("kind", b"again")]);
    assert_eq!(last.header("kind"), Some(&b"order"[..]));
    assert_eq!(last.timestamp(), UNIX_EPOCH + Duration::from_millis(1_800_000_000_000));
    assert!(reader.try_next().unwrap().is_none() && reader.next(NOW).unwrap().is_none());
    // It goes on with what comes.
    topic.publish(Message::new("more").partition(0)).unwrap();
    assert_eq!(texts(&mut reader), ["more"]);
    // From the end there is nothing but what comes.
    let mut end = topic.reader().from_end().open().unwrap();
    assert_eq!(texts(&mut end), [""; 0]);
    topic.publish(Message::new("last").partition(2)).unwrap();
    assert_eq!((texts(&mut end), texts(&mut reader)), (vec!["last".to_owned()], vec!["last".to_owned()]));
}

#[test]
fn a_position_goes_on_at_exactly_the_next_message() {
    for level in [Durability::Os, Durability::Disk] {
        let mut machine = Machine::new(level);
        for round in 0..3 {
            let topic = machine.topic(3);
            let other = machine.store.topic("other").open().unwrap();
            for n in 0..12u32 {
                let message = |partition: u32| padded(&format!("{round} {n} {partition}"), 2_000).partition(partition);
                topic.publish(message(n % 3)).unwrap();
                topic.publish_batch([2, 0, 2].map(message)).unwrap();
                let sent = machine.store.transaction(|tx| {
                    tx.publish(&topic, message(1))?;
                    tx.publish(&other, "beside")?;
                    tx.publish(&topic, message(0))
                });
                sent.unwrap();
            }
            let count = goes_on_everywhere(&topic);
            assert_eq!(count, 12 * 6 * (round + 1));
            assert!(machine.store.stats().unwrap().log.segments > 2 * round + 2, "over segments");
            // With index files, without, and with what recovery copied.
            machine.store.tick().unwrap();
            machine.store.checkpoint().unwrap();
            goes_on_everywhere(&topic);
            machine = match round {
                0 => machine.again(SimDisk::crash_process),
                1 => machine.again(|disk| disk.crash_power(PowerOutcome::KeepAll)),
                _ => machine,
            };
            assert_eq!(goes_on_everywhere(&machine.topic(3)), count);
        }
    }
}

/// In a `Disk` store a reader sees what groups may get: nothing above the watermark, and all below it.
#[test]
fn nothing_is_read_that_is_not_durable() {
    let machine = Machine::new(Durability::Disk);
    let topic = machine.topic(2);
    let quick = topic.with_durability(Durability::Os);
    topic.publish(Message::new("a").partition(0)).unwrap();
    let mut reader = topic.reader().open().unwrap();
    let first = rest(&mut reader).remove(0).position();
    quick.publish(Message::new("b").partition(1)).unwrap();
    quick.publish_batch([1, 0].map(|partition| Message::new("c").partition(partition))).unwrap();
    assert!(texts(&mut reader).is_empty(), "not durable yet");
    assert!(
        texts(&mut topic.reader().open().unwrap()) == ["a"]
            && texts(&mut topic.reader().from(first).open().unwrap()).is_empty()
    );
    let mut end = topic.reader().from_end().open().unwrap();
    machine.store.sync().unwrap();
    assert_eq!(texts(&mut reader), ["b", "c", "c"]);
    assert_eq!(texts(&mut end), ["b", "c", "c"], "they came into sight after it was opened");
    // What a power failure takes had never been seen.
    quick.publish("d").unwrap();
    assert!(texts(&mut reader).is_empty());
    drop((reader, end, quick, topic));
    let machine = machine.again(|disk| disk.crash_power(PowerOutcome::LoseAll));
    let topic = machine.topic(2);
    assert_eq!(texts(&mut topic.reader().from(first).open().unwrap()), ["b", "c", "c"]);
    assert_eq!(goes_on_everywhere(&topic), 4);
}

/// A position whose message a power failure took names no other message, whatever came into its place.
#[test]
fn a_position_that_was_lost_is_told() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic(1);
    topic.publish("kept").unwrap();
    machine.store.sync().unwrap();
    topic.publish("lost").unwrap();
    let [kept, lost] =
        rest(&mut topic.reader().open().unwrap()).iter().map(LogMessage::position).collect::<Vec<_>>()[..]
    else {
        panic!("two are there");
    };
    drop(topic);
    let machine = machine.again(|disk| disk.crash_power(PowerOutcome::LoseAll));
    let topic = machine.topic(1);
    for text in ["new", "newer"] {
        topic.publish(text).unwrap();
        let refused = topic.reader().from(lost).open().unwrap_err();
        assert!(matches!(refused, Error::InvalidPosition { fault: PositionFault::Lost, position } if position == lost));
    }
    assert_eq!(texts(&mut topic.reader().from(kept).open().unwrap()), ["new", "newer"]);
}

fn gap(reader: &mut LogReader) -> (u32, u64, u64) {
    match reader.try_next() {
        Err(error @ Error::Gap { .. }) => {
            assert_eq!(error.kind(), ErrorKind::Skip, "{error}");
            let Error::Gap { partition, offset, count, .. } = error else { unreachable!() };
            (partition, offset, count)
        }
        other => panic!("no gap: {other:?}"),
    }
}

/// What was removed is told once for each partition, and read on behind it.
#[test]
fn a_gap_is_told_once_and_read_over() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.store.topic("settled").partitions(2).open().unwrap();
    let group = topic.group("g").open().unwrap();
    let publish = |from: u32, to: u32| {
        for n in from..to {
            topic.publish(padded(&n.to_string(), 1_000).partition(n % 2)).unwrap();
        }
    };
    let settle = || {
        while let Ok(batch) = group.receive_batch(100, NOW)
            && !batch.is_empty()
        {
            assert!(batch.ack().unwrap().is_empty());
        }
    };
    publish(0, 10);
    let mut open = topic.reader().open().unwrap();
    let first: Vec<_> = (0..4).map(|_| open.try_next().unwrap().unwrap()).collect();
    assert_eq!(first.iter().map(text).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let mut waiting = topic.reader().from_end().open().unwrap();
    assert!(waiting.try_next().unwrap().is_none());
    publish(10, 300);
    settle();
    machine.rest();
    publish(300, 304);
    let mut start = topic.reader().open().unwrap();
    let kept = rest(&mut start);
    let numbers: Vec<u32> = kept.iter().map(|message| text(message).parse().unwrap()).collect();
    assert!(numbers[0] > 10 && numbers.ends_with(&[300, 301, 302, 303]), "{numbers:?}");
    assert!(numbers.is_sorted() && kept.len() == (304 - numbers[0]) as usize, "no gap behind the start");
    // The first that is kept of each partition.
    let first_of = |partition: u32| u64::from(numbers.iter().find(|n| **n % 2 == partition).unwrap() / 2);
    let after = |message: &LogMessage| topic.reader().from(message.position()).open().unwrap();
    for (mut reader, next) in
        [(open, [2, 2]), (after(&first[3]), [2, 2]), (after(&first[0]), [1, 0]), (waiting, [5, 5])]
    {
        let (mut told, mut read) = (Vec::new(), Vec::new());
        loop {
            match reader.try_next() {
                Ok(Some(message)) => read.push(text(&message).parse::<u32>().unwrap()),
                Ok(None) => break,
                Err(Error::Gap { topic, partition, offset, count }) => {
                    assert_eq!(topic, "settled");
                    told.push((partition, offset, count));
                }
                Err(other) => panic!("{other}"),
            }
        }
        told.sort_unstable();
        let expected = [0, 1].map(|partition| {
            let next = next[partition as usize];
            (partition, next, first_of(partition) - next)
        });
        let exact: Vec<_> = told.iter().copied().zip(expected).filter(|(told, expected)| told == expected).collect();
        // A position knows its own partition; of the other it knows what is kept.
        let upper = |(told, expected): ((u32, u64, u64), (u32, u64, u64))| {
            told.0 == expected.0 && told.1 <= expected.1 && told.1 + told.2 == expected.1 + expected.2
        };
        assert!(
            told.len() == 2 && told.iter().copied().zip(expected).all(upper) && !exact.is_empty(),
            "{told:?} {expected:?}"
        );
        assert_eq!(read, numbers, "read on behind");
        assert!(reader.try_next().unwrap().is_none(), "told once");
    }
    // All of it gone.
    let mut reader = after(&kept[kept.len() - 2]);
    publish(304, 306);
    settle();
    publish(306, 308);
    let busy = machine.topic(1);
    let others = busy.group("g").open().unwrap();
    for _ in 0..100 {
        busy.publish(padded("busy", 1_000)).unwrap();
    }
    settle();
    while let Some(delivery) = others.receive(NOW).unwrap() {
        delivery.ack().unwrap();
    }
    machine.rest();
    while let Some(delivery) = others.receive(NOW).unwrap() {
        delivery.ack().unwrap();
    }
    machine.rest();
    let told = [gap(&mut reader), gap(&mut reader)];
    assert_eq!(told.map(|(_, _, count)| count).iter().sum::<u64>(), 5, "303 to 307: {told:?}");
    assert!(reader.try_next().unwrap().is_none());
    publish(308, 309);
    assert_eq!(texts(&mut reader), ["308"]);
}

/// A position that stands behind all that was removed has no gap, whatever its partitions lost before.
#[test]
fn what_was_removed_before_a_position_is_no_gap() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.store.topic("settled").partitions(3).open().unwrap();
    let group = topic.group("g").open().unwrap();
    for n in 0..200u32 {
        topic.publish(padded(&n.to_string(), 1_000).partition(n % 3)).unwrap();
    }
    while let Some(delivery) = group.receive(NOW).unwrap() {
        delivery.ack().unwrap();
    }
    machine.rest();
    assert!(rest(&mut topic.reader().open().unwrap()).len() < 200);
    topic.publish(Message::new("one").partition(1)).unwrap();
    let mark = rest(&mut topic.reader().open().unwrap()).pop().unwrap().position();
    topic.publish_batch([2, 0].map(|partition| Message::new(partition.to_string()).partition(partition))).unwrap();
    assert_eq!(texts(&mut topic.reader().from(mark).open().unwrap()), ["0", "2"]);
}

/// What a topic keeps forever is read from the start, whatever its groups settled.
#[test]
fn a_topic_that_keeps_all_has_no_gap() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.store.topic("audit").retention(Retention::Forever).open().unwrap();
    let group = topic.group("g").open().unwrap();
    for n in 0..200 {
        topic.publish(padded(&n.to_string(), 1_000)).unwrap();
        group.receive(NOW).unwrap().unwrap().ack().unwrap();
    }
    machine.rest();
    assert_eq!(goes_on_everywhere(&topic), 200);
    let stats = machine.store.stats().unwrap();
    assert_eq!(stats.topics[0].retention, Retention::Forever);
}

#[test]
fn a_reader_at_the_tail_is_woken() {
    for level in [Durability::Os, Durability::Disk] {
        let machine = Machine::new(level);
        let topic = machine.topic(4);
        let mut reader = topic.reader().open().unwrap();
        let follower = thread::spawn(move || {
            let mut read = Vec::new();
            while read.last().is_none_or(|last| last != "end") {
                read.push(text(&reader.next(PATIENCE).unwrap().expect("nobody wakes the reader")));
            }
            read
        });
        let quick = topic.with_durability(Durability::Os);
        let sent: Vec<String> = (0..200).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
        for (nth, text) in sent.iter().enumerate() {
            // In a store at `Disk` a sync shows several, and what waits for one shows itself.
            let topic = if nth % 7 == 0 { &topic } else { &quick };
            topic.publish(text.as_str()).unwrap();
        }
        machine.store.sync().unwrap();
        assert_eq!(follower.join().unwrap(), sent);
    }
}

#[test]
fn a_reader_that_waits_is_told_of_a_removal_and_of_the_end() {
    let machine = Machine::new(Durability::Os);
    type End = fn(&Store);
    type Told = fn(&Error) -> bool;
    let ends: [(End, Told); 2] = [
        (|store| store.remove_topic("log").unwrap(), |error| matches!(error, Error::Removed { what: "topic" })),
        (|store| store.close().unwrap(), |error| matches!(error, Error::Closed)),
    ];
    for (end, is_told) in ends {
        let topic = machine.topic(2);
        let mut reader = topic.reader().open().unwrap();
        let mut read = move || match reader.next(PATIENCE) {
            Ok(message) => panic!("{message:?}"),
            Err(error) => error,
        };
        let follower = thread::spawn(move || {
            let error = read();
            (error, read())
        });
        end(&machine.store);
        let (first, again) = follower.join().unwrap();
        assert!(is_told(&first) && is_told(&again), "{first} {again}");
    }
}

#[test]
fn positions_that_are_none_are_refused() {
    let machine = Machine::new(Durability::Os);
    let (topic, other) = (machine.topic(2), machine.store.topic("other").open().unwrap());
    let gone = machine.store.topic("gone").open().unwrap();
    for topic in [&topic, &other, &gone] {
        topic.publish("a").unwrap();
    }
    let position = |topic: &Topic| rest(&mut topic.reader().open().unwrap()).pop().unwrap().position();
    let (mine, others, removed) = (position(&topic), position(&other), position(&gone));
    machine.store.remove_topic("gone").unwrap();
    let gone_again = machine.store.topic("gone").open().unwrap();
    gone_again.publish("b").unwrap();
    let elsewhere = Machine { disk: SimDisk::new(77), ..Machine::new(Durability::Os) };
    let store = open(&elsewhere.disk, &elsewhere.clock, Durability::Os);
    let foreign = store.topic("log").partitions(2).open().unwrap();
    foreign.publish("a").unwrap();
    let foreign = position(&foreign);
    let fault = |topic: &Topic, position: Position| match topic.reader().from(position).open() {
        Err(error @ Error::InvalidPosition { .. }) => {
            assert_eq!(error.kind(), ErrorKind::FixCall);
            let Error::InvalidPosition { position: named, fault } = error else { unreachable!() };
            assert_eq!(named, position);
            fault
        }
        other => panic!("{position}: {other:?}"),
    };
    assert_eq!(fault(&topic, others), PositionFault::OtherTopic);
    assert_eq!(fault(&gone_again, removed), PositionFault::TopicRemoved);
    assert_eq!(fault(&topic, foreign), PositionFault::UnknownLog);
    // Each field of a good one, changed: no panic, and never a message that was not asked for.
    let fields: Vec<String> = mine.to_string().split('-').map(str::to_owned).collect();
    for (nth, value) in (0..4).flat_map(|nth| ["0", "1", "7", "zz", "3w5e11264sgsf"].map(|value| (nth, value))) {
        let mut fields = fields.clone();
        fields[nth] = value.to_owned();
        let Ok(position) = fields.join("-").parse::<Position>() else { panic!("{fields:?}") };
        if position != mine {
            assert!(matches!(topic.reader().from(position).open(), Err(Error::InvalidPosition { .. })), "{position}");
        }
    }
    assert!(texts(&mut topic.reader().from(mine).open().unwrap()).is_empty());
    machine.store.remove_topic("log").unwrap();
    assert!(matches!(topic.reader().open(), Err(Error::Removed { .. })));
}

#[test]
fn a_damaged_message_is_told_and_passed() {
    let machine = Machine::new(Durability::Os);
    let topic = machine.topic(2);
    for (n, partition) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        topic.publish(padded(&format!("message {n}"), 100).partition(partition)).unwrap();
    }
    machine.store.close().unwrap();
    drop(topic);
    let segment = machine.disk.files().into_iter().map(|file| file.name).find(|name| name.ends_with(".seg")).unwrap();
    let mut bytes = machine.disk.read_file(&segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"message 1").unwrap();
    bytes[at] ^= 1;
    machine.disk.write_file(&segment, &bytes);
    let machine = machine.again(|_| ());
    let mut reader = machine.topic(2).reader().open().unwrap();
    let mut next = || reader.try_next().map(|message| message.map(|message| text(&message)));
    assert_eq!(next().unwrap().as_deref(), Some("message 0"));
    let error = next().unwrap_err();
    assert!(matches!(&error, Error::Unreadable { topic, partition: 1, offset: 0, .. } if topic == "log"), "{error}");
    assert_eq!(
        [next().unwrap(), next().unwrap(), next().unwrap()].map(Option::unwrap_or_default),
        ["message 2", "message 3", ""]
    );
}

/// What one message costs does not grow with the partitions, nor with what waits.
#[test]
fn a_message_costs_the_same_however_many_partitions_there_are() {
    let costs = [1, 4_096].map(|partitions| {
        let machine = Machine::new(Durability::Os);
        let topic = machine.topic(partitions);
        let mut reader = topic.reader().open().unwrap();
        assert!(reader.try_next().unwrap().is_none());
        (0..64u32)
            .map(|n| {
                topic.publish(Message::new("m").partition(n * 37 % partitions)).unwrap();
                let before = lock_holds();
                assert!(reader.try_next().unwrap().is_some());
                let cost = lock_holds() - before;
                assert!(reader.try_next().unwrap().is_none());
                cost
            })
            .max()
    });
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0].is_some_and(|holds| holds <= 2), "{costs:?}");
}

/// However much was published since it looked last, a reader gets all of it, and wakes for what comes after.
#[test]
fn a_reader_that_comes_back_late_misses_nothing() {
    const PARTITIONS: u32 = 1 << 10;
    let machine = Machine::new(Durability::Os);
    let topic = machine.store.topic("wide").partitions(PARTITIONS).open().unwrap();
    let mut reader = topic.reader().from_end().open().unwrap();
    assert!(reader.try_next().unwrap().is_none());
    // More than is noted for any reader.
    for _ in 0..65 {
        topic.publish_batch((0..PARTITIONS).map(|index| Message::new("x").partition(index))).unwrap();
    }
    let mut places: Vec<_> =
        rest(&mut reader).iter().map(|message| (message.id().partition, message.id().offset)).collect();
    assert_eq!(places.len(), 65 * PARTITIONS as usize);
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 65 * PARTITIONS as usize);
    topic.publish(Message::new("last").partition(7)).unwrap();
    assert_eq!(texts(&mut reader), ["last"]);
}
