//! Messages for later (G21): never early, once each, through crashes, jumps of the clock, cancelling and rescheduling.
//!
//! A model of its own: what is scheduled, and by which clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{Clock, PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{Durability, Error, Group, Message, MessageId, Store, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const NOW: Duration = Duration::ZERO;
const START: u64 = 1_800_000_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
    /// How far the wall clock has jumped while a store was open.
    jumped: i64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(START))));
        let store = open(&disk, &clock, Durability::Disk);
        Self { disk, clock, store, jumped: 0 }
    }

    fn topic(&self) -> Topic {
        self.store.topic("mails").partitions(2).open().unwrap()
    }

    fn group(&self) -> Group {
        self.topic().group("sender").open().unwrap()
    }

    fn advance(&self, by: u64) {
        self.clock.advance(by);
        self.tick();
    }

    /// A tick moves 256 messages at most.
    fn tick(&self) {
        for _ in 0..3 {
            self.store.tick().unwrap();
        }
    }

    fn jump(&mut self, by: i64) {
        self.clock.set_wall(WallMs(self.clock.wall().0.saturating_add_signed(by)));
        self.jumped += by;
        self.tick();
    }

    fn reopen(&mut self) {
        self.store = open(&self.disk, &self.clock, Durability::Disk);
    }

    /// The origins and payloads of all that can be received, acked.
    fn take(&self) -> Vec<(MessageId, String)> {
        let batch = self.group().receive_batch(10_000, NOW).unwrap();
        let taken =
            batch.iter().map(|delivery| (delivery.origin(), String::from_utf8(delivery.payload().to_vec()).unwrap()));
        let taken = taken.collect();
        assert!(batch.ack_durable().unwrap().is_empty());
        taken
    }

    fn payloads(&self) -> Vec<String> {
        // Those of two partitions have no order.
        let mut payloads: Vec<String> = self.take().into_iter().map(|(_, payload)| payload).collect();
        payloads.sort();
        payloads
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    let options = Store::options().durability(level).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), Arc::clone(clock) as _).unwrap()
}

#[test]
fn g21_a_delay_ends_and_not_a_millisecond_before() {
    let machine = Machine::new(1);
    let topic = machine.topic();
    let group = machine.group();
    topic.publish(Message::new("later").delay(ms(500)).key("k")).unwrap();
    topic.publish(Message::new("at noon").deliver_at(UNIX_EPOCH + ms(START + 700))).unwrap();
    topic.publish(Message::new("now").delay(NOW)).unwrap();
    topic.publish(Message::new("long ago").deliver_at(UNIX_EPOCH)).unwrap();
    machine.tick();
    assert_eq!(machine.payloads(), ["long ago", "now"]);
    machine.advance(499);
    assert!(group.receive(NOW).unwrap().is_none());
    machine.advance(1);
    let delivery = group.receive(NOW).unwrap().unwrap();
    assert_eq!((delivery.payload(), delivery.key(), delivery.attempt()), (&b"later"[..], Some(&b"k"[..]), 1));
    delivery.ack().unwrap();
    machine.advance(199);
    assert!(group.receive(NOW).unwrap().is_none());
    machine.advance(1);
    assert_eq!(machine.payloads(), ["at noon"]);
}

#[test]
fn the_receipt_names_what_is_scheduled_and_the_origin_of_its_deliveries() {
    let machine = Machine::new(1);
    let (topic, _group) = (machine.topic(), machine.group());
    let receipts = topic.publish_batch([
        Message::new("b").delay(ms(20)).partition(1),
        Message::new("now").partition(0),
        Message::new("a").delay(ms(10)).partition(0),
    ]);
    let ids = receipts.unwrap().ids().to_vec();
    let scheduled = topic.scheduled(None, 10).unwrap();
    let due = |after| UNIX_EPOCH + ms(START + after);
    let listed: Vec<_> = scheduled.iter().map(|one| (one.id, one.due, one.partition)).collect();
    assert_eq!(listed, [(ids[0], due(20), 1), (ids[2], due(10), 0)]);
    assert_eq!(topic.scheduled(Some(ids[0]), 10).unwrap().len(), 1, "behind the first");
    assert_eq!(topic.scheduled(None, 1).unwrap().len(), 1);
    let stats = machine.store.stats().unwrap();
    assert_eq!((stats.topics[0].published, stats.topics[0].scheduled), (1, 2));
    machine.advance(20);
    let taken = machine.take();
    let mut all: Vec<_> = taken.iter().map(|(origin, payload)| (&payload[..], *origin)).collect();
    all.sort_unstable();
    assert_eq!(all, [("a", ids[2]), ("b", ids[0]), ("now", ids[1])]);
    let stats = machine.store.stats().unwrap();
    assert_eq!((stats.topics[0].published, stats.topics[0].scheduled), (3, 0));
}

#[test]
fn a_scheduled_message_is_cancelled_and_rescheduled_until_it_is_due() {
    let machine = Machine::new(1);
    let (topic, _group) = (machine.topic(), machine.group());
    let ids = [100, 100, 100].map(|delay| topic.publish(Message::new("m").delay(ms(delay))).unwrap().id());
    topic.cancel_scheduled(ids[0]).unwrap();
    topic.reschedule_in(ids[1], ms(50)).unwrap();
    topic.reschedule_at(ids[2], UNIX_EPOCH + ms(START + 300)).unwrap();
    let gone =
        |done: millpond::Result<()>, id| assert!(matches!(done, Err(Error::NotScheduled { id: of }) if of == id));
    gone(topic.cancel_scheduled(ids[0]), ids[0]);
    machine.advance(50);
    assert_eq!(machine.take().len(), 1);
    gone(topic.cancel_scheduled(ids[1]), ids[1]);
    gone(topic.reschedule_in(ids[1], NOW), ids[1]);
    machine.advance(249);
    assert_eq!(machine.take(), []);
    topic.reschedule_at(ids[2], UNIX_EPOCH).unwrap();
    machine.tick();
    assert_eq!(machine.take().len(), 1);
    let other = machine.store.topic("other").open().unwrap();
    let plain = other.publish("now").unwrap().id();
    gone(other.cancel_scheduled(plain), plain);
    gone(other.cancel_scheduled(ids[2]), ids[2]);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let machine = Machine::new(1);
    let topic = machine.topic();
    let years = ms(10 * 366 * 86_400_000);
    let at = UNIX_EPOCH + ms(START) + years;
    let refused = |done: millpond::Result<_>, name| {
        assert!(matches!(done, Err(Error::InvalidOption { option, .. }) if option == name), "{name}");
    };
    refused(topic.publish(Message::new("m").delay(years + ms(1))), "delay");
    refused(topic.publish(Message::new("m").deliver_at(at + ms(86_400_000))), "deliver_at");
    refused(topic.publish(Message::new("m").delay(ms(1)).deliver_at(at)), "delay and deliver_at");
    let streams = machine.store.topic("streams").streams().open().unwrap();
    let appended = streams.stream("s").unwrap().append(millpond::Expected::Any, [Message::new("m").delay(ms(1))]);
    refused(appended.map(|_| unreachable!("it was refused")), "delay");
    assert_eq!(topic.scheduled(None, 10).unwrap(), []);
}

#[test]
fn an_id_is_accepted_once_whenever_its_message_comes() {
    let mut machine = Machine::new(1);
    let (topic, _group) = (machine.topic(), machine.group());
    let later = || Message::new("m").dedup_id("o-12").delay(ms(50));
    let first = topic.publish(later()).unwrap();
    let again = topic.publish(later()).unwrap();
    assert!(again.is_repeat() && again.id() == first.id());
    let batch = topic.publish_batch([later(), Message::new("now")]).unwrap();
    assert_eq!((batch.ids()[0], batch.is_repeat(0)), (first.id(), true));
    machine.advance(50);
    assert_eq!(machine.payloads(), ["m", "now"]);
    drop((topic, first, again, batch, _group));
    machine.store.close().unwrap();
    machine.reopen();
    let again = machine.topic().publish(later()).unwrap();
    assert!(again.is_repeat());
}

#[test]
fn a_transaction_schedules_all_or_nothing() {
    let machine = Machine::new(1);
    let (topic, group) = (machine.topic(), machine.group());
    topic.publish("work").unwrap();
    let delivery = group.receive(NOW).unwrap().unwrap();
    let failed = machine.store.transaction(|tx| {
        tx.publish(&topic, Message::new("reminder").delay(ms(10)))?;
        Err::<(), Error>(Error::Closed)
    });
    assert!(failed.is_err() && topic.scheduled(None, 10).unwrap().is_empty());
    let done = machine.store.transaction(|tx| {
        tx.ack(&delivery)?;
        tx.publish(&topic, Message::new("x").delay(ms(10)))?;
        tx.publish(&topic, "now")?;
        tx.publish(&topic, Message::new("y").delay(ms(5)))
    });
    let done = done.unwrap();
    let scheduled = topic.scheduled(None, 10).unwrap();
    assert_eq!(scheduled.iter().map(|one| one.id).collect::<Vec<_>>(), [done.ids()[0], done.ids()[2]]);
    assert_eq!(done.id(done.value), Some(scheduled[1].id));
    machine.advance(10);
    assert_eq!(machine.payloads(), ["now", "x", "y"]);
}

/// What is due while no store is open comes right after the next open, and what was cancelled does not.
#[test]
fn g21_what_is_scheduled_outlives_its_process() {
    for clean in [true, false] {
        let mut machine = Machine::new(1);
        let (topic, group) = (machine.topic(), machine.group());
        let ids =
            [10, 20, 3_000].map(|delay| topic.publish(Message::new(delay.to_string()).delay(ms(delay))).unwrap().id());
        topic.cancel_scheduled(ids[0]).unwrap();
        if clean {
            machine.store.close().unwrap();
        } else {
            machine.disk.crash_power(PowerOutcome::LoseAll);
        }
        drop((topic, group));
        machine.clock.advance(2_000);
        machine.reopen();
        let _group = machine.group();
        machine.tick();
        assert_eq!(machine.payloads(), ["20"], "clean: {clean}");
        machine.advance(1_000);
        assert_eq!(machine.payloads(), ["3000"]);
    }
}

/// A message that waits for a year keeps its segment, and no other one.
#[test]
fn what_is_scheduled_keeps_its_own_segment() {
    let mut machine = Machine::new(1);
    let (topic, group) = (machine.topic(), machine.group());
    topic.publish(Message::new("in a year").delay(ms(365 * 86_400_000))).unwrap();
    for _ in 0..20 {
        topic.publish_batch((0..100).map(|_| vec![7; 1_000])).unwrap();
        assert!(group.receive_batch(100, NOW).unwrap().ack().unwrap().is_empty());
        machine.store.checkpoint().unwrap();
        machine.tick();
    }
    let segments = machine.store.stats().unwrap().log.segments;
    assert!(segments <= 9, "{segments} of 64 KiB");
    drop((topic, group));
    machine.store.close().unwrap();
    machine.clock.advance(366 * 86_400_000);
    machine.reopen();
    let _group = machine.group();
    machine.tick();
    assert_eq!(machine.payloads(), ["in a year"]);
}

#[test]
fn a_full_disk_delays_what_is_due_and_loses_nothing() {
    let machine = Machine::new(1);
    let (topic, group) = (machine.topic(), machine.group());
    for nth in 0..50 {
        topic.publish(Message::new(nth.to_string().repeat(2_000)).delay(ms(10))).unwrap();
    }
    machine.disk.set_capacity(Some(machine.disk.files().iter().map(|file| file.len).sum()));
    for _ in 0..5 {
        machine.advance(10);
    }
    machine.disk.set_capacity(None);
    let mut count = 0;
    for _ in 0..20 {
        machine.advance(1_000);
        let batch = group.receive_batch(100, NOW).unwrap();
        count += batch.len();
        assert!(batch.ack().unwrap().is_empty());
    }
    assert_eq!((count, topic.scheduled(None, 100).unwrap().len()), (50, 0));
}

#[test]
fn a_topic_that_is_removed_takes_its_messages_for_later_along() {
    let machine = Machine::new(1);
    let topic = machine.topic();
    let id = topic.publish(Message::new("m").delay(ms(10))).unwrap().id();
    machine.store.remove_topic("mails").unwrap();
    assert!(matches!(topic.cancel_scheduled(id), Err(Error::Removed { .. })));
    assert!(matches!(topic.publish(Message::new("m").delay(ms(10))), Err(Error::Removed { .. })));
    assert!(matches!(topic.scheduled(None, 1), Err(Error::Removed { .. })));
    machine.advance(10);
    let (topic, _group) = (machine.topic(), machine.group());
    assert_eq!(topic.scheduled(None, 1).unwrap(), []);
    assert_eq!(machine.take(), []);
}

/// What the model knows of a message.
struct Known {
    payload: String,
    /// By store time, or by the wall clock.
    due: (bool, u64),
}

struct Model {
    machine: Machine,
    rng: Rng,
    scheduled: BTreeMap<MessageId, Known>,
    count: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let machine = Machine::new(seed);
        drop(machine.group());
        Self { machine, rng: Rng::new(seed), scheduled: BTreeMap::new(), count: 0 }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn store_time(&self) -> u64 {
        self.machine.clock.wall().0.saturating_add_signed(-self.machine.jumped)
    }

    fn due(&self, (by_wall, time): (bool, u64)) -> bool {
        time <= if by_wall { self.machine.clock.wall().0 } else { self.store_time() }
    }

    fn time(&mut self) -> (bool, u64) {
        (self.below(3) == 0, [1, 10, 100, 1_000, 5_000][self.below(5) as usize])
    }

    fn publish(&mut self) {
        let (topic, count) = (self.machine.topic(), 1 + self.below(4));
        let mut messages = Vec::new();
        let mut known = Vec::new();
        for _ in 0..count {
            let (by_wall, after) = self.time();
            self.count += 1;
            let payload = self.count.to_string();
            let message = Message::new(payload.clone());
            let wall = self.machine.clock.wall().0;
            messages.push(if by_wall {
                message.deliver_at(UNIX_EPOCH + ms(wall + after))
            } else {
                message.delay(ms(after))
            });
            let due = (by_wall, if by_wall { wall + after } else { self.store_time() + after });
            known.push(Known { payload, due });
        }
        let ids = match self.below(2) {
            0 => messages.into_iter().map(|message| topic.publish(message).unwrap().id()).collect(),
            _ => topic.publish_batch(messages).unwrap().ids().to_vec(),
        };
        for (id, known) in ids.into_iter().zip(known) {
            assert!(self.scheduled.insert(id, known).is_none(), "an id comes twice");
        }
    }

    fn change(&mut self) {
        let nth = self.below(1 + self.scheduled.len() as u64) as usize;
        let Some(&id) = self.scheduled.keys().nth(nth) else { return };
        let topic = self.machine.topic();
        if self.below(2) == 0 {
            topic.cancel_scheduled(id).unwrap();
            self.scheduled.remove(&id);
            return;
        }
        let (by_wall, after) = self.time();
        let wall = self.machine.clock.wall().0;
        let due = if by_wall {
            topic.reschedule_at(id, UNIX_EPOCH + ms(wall + after)).unwrap();
            (true, wall + after)
        } else {
            topic.reschedule_in(id, ms(after)).unwrap();
            (false, self.store_time() + after)
        };
        self.scheduled.get_mut(&id).unwrap().due = due;
    }

    /// What is due is there, and nothing else.
    fn receive(&mut self) {
        self.machine.tick();
        let mut taken = self.machine.take();
        taken.sort();
        let due: Vec<MessageId> =
            self.scheduled.iter().filter(|(_, known)| self.due(known.due)).map(|(id, _)| *id).collect();
        let mut expected = Vec::new();
        for id in due {
            expected.push((id, self.scheduled.remove(&id).unwrap().payload));
        }
        assert_eq!(taken, expected);
        let mut listed = Vec::new();
        loop {
            let page = self.machine.topic().scheduled(listed.last().copied(), 3).unwrap();
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|one| one.id));
        }
        listed.sort();
        assert!(listed.iter().eq(self.scheduled.keys()), "what is listed is what is scheduled");
        assert_eq!(self.machine.store.violations(), Vec::<String>::new());
    }

    fn restart(&mut self) {
        match self.below(3) {
            0 => self.machine.store.close().unwrap(),
            1 => self.machine.disk.crash_process(),
            _ => self.machine.disk.crash_power(PowerOutcome::LoseAll),
        }
        let pause = self.below(2_000);
        self.machine.clock.advance(pause);
        self.machine.reopen();
    }

    fn step(&mut self) {
        match self.below(12) {
            0..4 => self.publish(),
            4..6 => {
                self.receive();
                self.change();
            }
            6..9 => {
                let by = [0, 1, 9, 10, 99, 500, 2_000][self.below(7) as usize];
                self.machine.advance(by);
                self.receive();
            }
            9 => {
                let by = [-86_400_000, -2_000, 2_000, 86_400_000][self.below(4) as usize];
                self.machine.jump(by);
                self.receive();
            }
            10 => self.machine.store.checkpoint().unwrap(),
            _ => {
                self.receive();
                self.restart();
            }
        }
    }
}

#[test]
fn g21_whatever_happens_each_message_comes_once_and_never_early() {
    let seeds = std::env::var("MILLPOND_SCHEDULE_SEEDS").map_or(60, |count| count.parse().unwrap());
    for seed in 0..seeds {
        let mut model = Model::new(seed);
        for _ in 0..120 {
            model.step();
        }
        model.machine.jump(100 * 86_400_000);
        model.machine.advance(10_000);
        model.receive();
        assert!(model.scheduled.is_empty(), "seed {seed}");
    }
}

/// With threads and a real clock: the flusher, which would sleep for an hour, is awake when the message is due. Only a failing test waits.
#[test]
fn g21_the_flusher_is_awake_when_a_message_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let options = Store::options().durability(Durability::Os).sync_interval(Duration::from_secs(3_600));
    let store = options.open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    for nth in 0..3 {
        topic.publish(Message::new("a year").delay(ms(365 * 86_400_000))).unwrap();
        topic.publish(Message::new("soon").delay(ms(10 * nth))).unwrap();
        let delivery = group.receive(Duration::from_secs(10)).unwrap().expect("it is due");
        assert_eq!(delivery.payload(), b"soon");
        delivery.ack().unwrap();
    }
}
