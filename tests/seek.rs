//! Groups that go on from elsewhere, in a whole store: files that were cleaned, consumers that wait, leases that are kept, a full disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/machine.rs"]
mod machine;

use machine::{Machine, START};
use millpond::{
    Error, ErrorKind, Group, GroupStats, Message, Ordering, Position, PositionFault, Retention, Seek, Start, Topic,
    WhenFull, WhilePending,
};
use std::time::{Duration, UNIX_EPOCH};

const NOW: Duration = Duration::ZERO;
const DAY: Duration = Duration::from_secs(86_400);

impl Machine {
    /// Two checkpoints cover what there is; then the jobs run for some seconds.
    fn rest(&self, topic: &Topic) {
        for _ in 0..2 {
            topic.publish("traffic").unwrap();
            self.store.checkpoint().unwrap();
        }
        self.pass(10);
    }
}

/// Every 50th message has a key, which is the same for all of these.
fn publish(topic: &Topic, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let message = Message::new([number.to_le_bytes().as_slice(), &[7; 1_000]].concat());
        topic.publish(if number % 50 == 5 { message.key("five") } else { message }).unwrap();
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload[..4].try_into().unwrap())
}

/// Takes and acks all that there is but traffic.
fn take_all(group: &Group) -> Vec<u32> {
    let mut seen = Vec::new();
    loop {
        let batch = group.receive_batch(64, NOW).unwrap();
        assert!(batch.unreadable().is_empty(), "{:?}", batch.unreadable());
        if batch.is_empty() {
            return seen;
        }
        let numbered = batch.iter().filter(|delivery| delivery.payload().len() > 100);
        seen.extend(numbered.map(|delivery| number(delivery.payload())));
        assert!(batch.ack().unwrap().is_empty());
    }
}

fn positions(topic: &Topic) -> Vec<Position> {
    let mut reader = topic.reader().open().unwrap();
    std::iter::from_fn(|| reader.try_next().unwrap()).map(|message| message.position()).collect()
}

/// A topic of 300 messages, of which a group keeps number 5 for days and has settled the others, so that most of these are gone. Another
/// group has settled all up to number 250, and the positions of all are as they were.
fn with_a_gap(seed: u64, ordering: Ordering) -> (Machine, Topic, Group, Vec<Position>) {
    let machine = Machine::new(seed);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("slow").ordering(ordering).visibility_timeout(10 * DAY).open().unwrap();
    let other = topic.group("other").open().unwrap();
    publish(&topic, 0..300);
    let all = positions(&topic);
    for _ in 0..6 {
        let delivery = group.receive(NOW).unwrap().unwrap();
        if number(delivery.payload()) == 5 {
            std::mem::forget(delivery);
        } else {
            delivery.ack().unwrap();
        }
    }
    let waiting = if ordering == Ordering::Key { 5 } else { 0 };
    assert_eq!(take_all(&group).len(), 294 - waiting);
    (0..250).for_each(|_| other.receive(NOW).unwrap().unwrap().ack().unwrap());
    machine.rest(&topic);
    (machine, topic, group, all)
}

/// G5: what is behind the place that was asked for comes, or is counted as missing; none of it is an error.
#[test]
fn what_is_gone_is_counted_and_the_rest_comes() {
    let (machine, topic, group, positions) = with_a_gap(1, Ordering::None);
    // Of the 300 and two more.
    for (nth, position) in positions.iter().enumerate().step_by(29) {
        let preview = group.preview_seek(Seek::Position(*position)).unwrap();
        let sought = group.seek(Seek::Position(*position)).unwrap();
        assert_eq!(sought, preview);
        let behind = 301 - nth as u64;
        assert_eq!(sought.lag + sought.missing, behind, "{nth}: {sought:?}");
        assert!(nth > 5 || sought.missing > 100, "{nth}: most are gone: {sought:?}");
        assert!(nth < 250 || sought.missing == 0, "{nth}: the other group keeps these: {sought:?}");
        let seen = take_all(&group);
        assert_eq!(seen.len() as u64 + 2, sought.lag);
        assert!(seen.iter().all(|number| *number > nth as u32));
        if nth == 0 {
            assert_eq!(seen.iter().filter(|number| **number < 100).count(), 1, "number 5: {seen:?}");
        }
    }
    // A group that is created now begins at the same place, after a restart too.
    let late = topic.group("late").open().unwrap();
    drop((topic, group));
    let lag = late.preview_seek(Seek::Latest).unwrap().lag_before;
    drop(late);
    let machine = machine.reopen();
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("slow").open().unwrap();
    assert_eq!(group.seek(Seek::Earliest).unwrap().lag, lag);
    assert_eq!(take_all(&group).len() as u64 + 2, lag);
}

/// G5: the start is behind a gap, and what the group had not settled is before it.
#[test]
fn what_is_not_settled_comes_from_before_a_gap() {
    for (seed, to) in [(2, Seek::Earliest), (3, Seek::Time(UNIX_EPOCH + Duration::from_millis(START)))] {
        let (machine, topic, group, _) = with_a_gap(seed, Ordering::None);
        let sought = group.seek(to).unwrap();
        assert_eq!((sought.lag_before, sought.leases_lost, sought.missing), (3, 1, 0), "{sought:?}");
        drop((topic, group));
        // It holds no more than its own file.
        let machine = machine.reopen();
        let topic = machine.store.topic("orders").open().unwrap();
        let group = topic.group("slow").open().unwrap();
        machine.rest(&topic);
        let delivery = group.receive(NOW).unwrap().unwrap();
        assert_eq!((number(delivery.payload()), delivery.attempt()), (5, 1));
        delivery.ack().unwrap();
        let seen = take_all(&group);
        assert!(seen.len() < 100 && seen.contains(&299) && !seen.contains(&4), "{seen:?}");
    }
}

/// Those of the key wait for number 5, also where they are kept before a gap.
#[test]
fn order_holds_after_a_seek_over_a_gap() {
    let (_machine, _topic, group, positions) = with_a_gap(4, Ordering::Key);
    let sought = group.seek(Seek::Position(positions[2])).unwrap();
    assert!(sought.leases_lost == 1 && sought.missing > 100, "{sought:?}");
    let five = group.receive(NOW).unwrap().unwrap();
    assert_eq!(number(five.payload()), 5);
    assert!(take_all(&group).iter().all(|number| number % 50 != 5), "they wait for it");
    five.ack().unwrap();
    assert_eq!(take_all(&group), [55, 105, 155, 205, 255]);
}

#[test]
fn a_position_that_is_not_there_is_refused_and_changes_nothing() {
    let machine = Machine::new(6);
    let (topic, other) = (machine.store.topic("a").open().unwrap(), machine.store.topic("b").open().unwrap());
    let group = topic.group("g").open().unwrap();
    publish(&topic, 0..3);
    publish(&other, 0..1);
    let foreign = positions(&other)[0];
    let refused = group.seek(Seek::Position(foreign));
    assert!(
        matches!(refused, Err(Error::InvalidPosition { position, fault: PositionFault::OtherTopic }) if position == foreign)
    );
    let last = positions(&topic)[2].to_string();
    let beyond: Position = last.rsplit_once('-').map(|(front, _)| format!("{front}-7")).unwrap().parse().unwrap();
    for position in [beyond, "1-0-0-0".parse().unwrap()] {
        let end = machine.store.stats().unwrap().log.end;
        assert!(matches!(group.seek(Seek::Position(position)), Err(Error::InvalidPosition { .. })));
        assert!(matches!(group.preview_seek(Seek::Position(position)), Err(Error::InvalidPosition { .. })));
        assert_eq!(machine.store.stats().unwrap().log.end, end);
    }
    assert_eq!(take_all(&group), [0, 1, 2]);
}

#[test]
fn a_consumer_that_waits_gets_what_comes_again() {
    let machine = Machine::new(7);
    let topic = machine.store.topic("orders").retention(Retention::Forever).open().unwrap();
    let group = topic.group("g").open().unwrap();
    publish(&topic, 0..3);
    assert_eq!(take_all(&group), [0, 1, 2]);
    let sleeper = group.fall_asleep(60 * DAY).unwrap().expect("there is nothing");
    assert!(!sleeper.is_awake());
    group.seek(Seek::Earliest).unwrap();
    assert!(sleeper.is_awake());
    drop(sleeper);
    assert_eq!(take_all(&group), [0, 1, 2]);
}

#[test]
fn a_lease_that_is_kept_alive_ends_with_a_seek() {
    let machine = Machine::new(8);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("g").visibility_timeout(Duration::from_secs(3)).open().unwrap();
    publish(&topic, 0..1);
    let delivery = group.receive(NOW).unwrap().unwrap();
    let alive = delivery.keep_alive(DAY).unwrap();
    machine.pass(5);
    assert!(alive.is_active());
    assert_eq!(group.seek(Seek::Earliest).unwrap().leases_lost, 1);
    let again = group.receive(NOW).unwrap().unwrap();
    machine.pass(2);
    assert!(!alive.is_active());
    assert_eq!(delivery.ack().unwrap_err().kind(), ErrorKind::LeaseLost);
    again.ack().unwrap();
}

/// G14: what a group lets go of gives room back, so a full disk does not keep it from that.
#[test]
fn a_group_seeks_to_the_end_on_a_full_disk() {
    let machine = Machine::new(9);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("g").open().unwrap();
    machine.disk.set_capacity(Some(2 << 20));
    let payload = vec![7; 10_000];
    while topic.publish(payload.clone()).is_ok() {}
    let sought = group.seek(Seek::Latest).unwrap();
    assert!(sought.lag_before > 20 && sought.lag == 0, "{sought:?}");
    machine.store.checkpoint().unwrap();
    machine.pass(30);
    topic.publish(payload).unwrap();
    assert_eq!(group.receive(NOW).unwrap().unwrap().payload().len(), 10_000);
}

/// What is there of texts, each acked.
fn take_texts(group: &Group) -> Vec<String> {
    let batch = group.receive_batch(64, NOW).unwrap();
    let texts = batch.iter().map(|delivery| String::from_utf8(delivery.payload().to_vec()).unwrap()).collect();
    assert!(batch.ack().unwrap().is_empty());
    texts
}

fn stats(machine: &Machine, name: &str) -> GroupStats {
    let stats = machine.store.stats().unwrap();
    stats.topics[0].groups.iter().find(|group| group.name == name).unwrap().clone()
}

/// S13: a key is pending while a group has its message before it, and once nobody had, going back takes it from nobody.
#[test]
fn a_seek_ahead_frees_a_key_and_one_back_takes_none() {
    let machine = Machine::new(10);
    let topic = machine.store.topic("jobs").retention(Retention::Forever).open().unwrap();
    let (group, other) = (topic.group("g").open().unwrap(), topic.group("other").open().unwrap());
    let publish = |text: &'static str| topic.publish(Message::new(text).unique_key("k", WhilePending::Reject));
    let is_pending = |of: &millpond::Receipt| match publish("no") {
        Err(Error::KeyPending { pending, .. }) => pending == of.id(),
        other => panic!("{other:?}"),
    };
    let one = publish("one").unwrap();
    other.seek(Seek::Latest).unwrap();
    assert!(is_pending(&one));
    other.seek(Seek::Earliest).unwrap();
    let held = group.receive(NOW).unwrap().unwrap();
    group.seek(Seek::Latest).unwrap();
    assert!(is_pending(&one), "one group went back, and has it to come");
    other.seek(Seek::Latest).unwrap();
    assert!(held.ack().is_err());
    assert!(machine.store.violations().is_empty(), "{:?}", machine.store.violations());
    group.seek(Seek::Earliest).unwrap();
    let two = publish("two").unwrap();
    assert!(is_pending(&two), "the first one comes again without its key");
    drop((group, other, topic));
    let machine = machine.reopen();
    let topic = machine.store.topic("jobs").open().unwrap();
    assert_eq!(take_texts(&topic.group("g").open().unwrap()), ["one", "two"]);
    assert_eq!(take_texts(&topic.group("other").open().unwrap()), ["two"]);
    topic.publish(Message::new("three").unique_key("k", WhilePending::Reject)).unwrap();
    assert!(machine.store.violations().is_empty(), "{:?}", machine.store.violations());
}

/// S14: as long as some group has it to pass over; then nobody knows any more that it was replaced.
#[test]
fn what_was_replaced_stays_out_while_a_group_has_not_passed_it() {
    let machine = Machine::new(11);
    let topic = machine.store.topic("jobs").retention(Retention::Forever).open().unwrap();
    let (group, other) = (topic.group("g").open().unwrap(), topic.group("other").open().unwrap());
    let publish =
        |text: &'static str| topic.publish(Message::new(text).unique_key("k", WhilePending::Replace)).unwrap();
    publish("old");
    group.receive(NOW).unwrap().unwrap().nack_after(DAY, "later").unwrap();
    publish("new");
    assert_eq!(take_texts(&group), ["new"]);
    for _ in 0..2 {
        group.seek(Seek::Earliest).unwrap();
        assert_eq!(take_texts(&group), ["new"], "the other group has not come to it");
    }
    assert_eq!(take_texts(&other), ["new"]);
    group.seek(Seek::Earliest).unwrap();
    assert_eq!(take_texts(&group), ["old", "new"]);
    assert!(machine.store.violations().is_empty(), "{:?}", machine.store.violations());
}

/// S15: the bound of a topic goes by where its groups are.
#[test]
fn a_seek_makes_room_in_a_topic_and_takes_it() {
    let machine = Machine::new(12);
    let bounded = machine.store.topic("orders").retention(Retention::Forever).max_messages(2);
    let topic = bounded.when_full(WhenFull::Block(DAY)).open().unwrap();
    let group = topic.group("g").open().unwrap();
    topic.publish_batch(["one", "two"]).unwrap();
    let is_full = |topic: &Topic| {
        // A transaction does not wait.
        let refused = machine.store.transaction(|tx| tx.publish(topic, "no"));
        matches!(refused, Err(Error::TopicFull { .. }))
    };
    let held = group.receive(NOW).unwrap().unwrap();
    assert!(is_full(&topic));
    let publisher = std::thread::spawn({
        let topic = topic.clone();
        move || topic.publish_batch(["three", "four"]).map(drop)
    });
    group.seek(Seek::Latest).unwrap();
    publisher.join().unwrap().unwrap();
    assert!(held.ack().is_err() && is_full(&topic));
    group.seek(Seek::Earliest).unwrap();
    assert_eq!(stats(&machine, "g").lag, 4, "beyond the bound");
    (0..3).for_each(|_| {
        assert!(is_full(&topic));
        group.receive(NOW).unwrap().unwrap().ack().unwrap();
    });
    topic.publish("five").unwrap();
    assert_eq!(take_texts(&group), ["four", "five"]);
}

/// S16: what had no room comes again if it is kept, and goes again.
#[test]
fn what_was_dropped_for_room_comes_again_and_goes_again() {
    let machine = Machine::new(13);
    let bounded = machine.store.topic("orders").retention(Retention::Forever).max_messages(2);
    let topic = bounded.when_full(WhenFull::DropOldest).open().unwrap();
    let group = topic.group("g").open().unwrap();
    ["one", "two", "three"].into_iter().for_each(|text| drop(topic.publish(text).unwrap()));
    assert_eq!((stats(&machine, "g").lag, stats(&machine, "g").dropped), (2, 1));
    assert_eq!(group.seek(Seek::Earliest).unwrap().lag, 3);
    assert_eq!((stats(&machine, "g").lag, stats(&machine, "g").dropped), (3, 1));
    topic.publish("four").unwrap();
    assert_eq!((stats(&machine, "g").lag, stats(&machine, "g").dropped), (2, 3));
    group.seek(Seek::Earliest).unwrap();
    assert_eq!(take_texts(&group), ["one", "two", "three", "four"]);
    assert!(machine.store.violations().is_empty(), "{:?}", machine.store.violations());
}

/// S17: of a topic that drops what is older than it keeps, though files still have it.
#[test]
fn what_is_too_old_does_not_come_again() {
    let machine = Machine::new(14);
    let topic = machine.store.topic("orders").retention(Retention::Count(2)).drop_unsettled(true).open().unwrap();
    let group = topic.group("g").open().unwrap();
    ["one", "two", "three", "four"].into_iter().for_each(|text| drop(topic.publish(text).unwrap()));
    machine.pass(5);
    let first = positions(&topic)[0];
    assert_eq!((stats(&machine, "g").lag, stats(&machine, "g").dropped), (2, 2));
    for to in [Seek::Earliest, Seek::Time(UNIX_EPOCH), Seek::Position(first)] {
        let sought = group.seek(to).unwrap();
        assert_eq!((sought.lag, sought.missing), (2, u64::from(to == Seek::Position(first))));
        assert_eq!(take_texts(&group), ["three", "four"]);
        machine.pass(5);
        assert_eq!(stats(&machine, "g").dropped, 2);
    }
    let late = topic.group("late").start(Start::Earliest).open().unwrap();
    assert_eq!(take_texts(&late), ["three", "four"]);
    assert_eq!(stats(&machine, "late").dropped, 0);
}

/// S18: the filter is asked as it is then, but for what the group had not settled.
#[test]
fn a_filter_is_asked_again_as_it_is_then() {
    let machine = Machine::new(15);
    let topic = machine.store.topic("orders").retention(Retention::Forever).open().unwrap();
    let group = topic.group("g").filter("kind = 'a'").open().unwrap();
    let publish = |text: &'static str, kind: &str| topic.publish(Message::new(text).header("kind", kind)).unwrap();
    publish("one", "a");
    publish("two", "b");
    publish("three", "a");
    publish("four", "b");
    for _ in 0..2 {
        assert_eq!(take_texts(&group), ["one", "three"]);
        group.seek(Seek::Earliest).unwrap();
    }
    group.alter().filter_from_here("kind = 'b'").apply().unwrap();
    group.seek(Seek::Position(positions(&topic)[0])).unwrap();
    assert_eq!(take_texts(&group), ["two", "four"]);
    assert!(machine.store.violations().is_empty(), "{:?}", machine.store.violations());
}
