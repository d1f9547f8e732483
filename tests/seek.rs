//! Groups that go on from elsewhere, in a whole store: files that were cleaned, consumers that wait, leases that are kept, a full disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{SimClock, SimDisk, WallMs};
use millpond::{
    Durability, Error, ErrorKind, Group, Message, Ordering, Position, PositionFault, Retention, Seek, Store, Topic,
};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const NOW: Duration = Duration::ZERO;
const START: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(START))));
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    fn reopen(self) -> Self {
        self.store.close().unwrap();
        let Self { disk, clock, store } = self;
        drop(store);
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    /// Two checkpoints cover what there is; then the jobs run for some seconds.
    fn rest(&self, topic: &Topic) {
        for _ in 0..2 {
            topic.publish("traffic").unwrap();
            self.store.checkpoint().unwrap();
        }
        self.pass(10);
    }

    fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(1_000);
            self.store.tick().unwrap();
        }
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Store {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), Arc::clone(clock) as _).unwrap()
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
