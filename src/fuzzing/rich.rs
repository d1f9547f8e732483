//! A store with something of everything, made by the public API alone: every kind of record, several segments, a copied
//! end, a retired range, checkpoints, index files, and messages in every phase.
//!
//! Never here: damage, and judging it.

use crate::api::{Backoff, Delivery, Durability, Group, Message, Seek, Store, Topic};
use crate::clock::SimClock;
use crate::disk::sim::SimDisk;
use crate::engine::{WhenFull, WhilePending};
use crate::error::{Error, Result};
use crate::ids::WallMs;
use std::sync::Arc;
use std::time::Duration;

const WALL: WallMs = WallMs(1_800_000_000_000);
const NOW: Duration = Duration::ZERO;

/// Made by [`rich`].
#[derive(Clone, Debug)]
pub struct Rich {
    /// Closed cleanly.
    pub closed: SimDisk,
    /// The same before the last process closed it: it died with some of its last frames synced and others not.
    pub unclosed: SimDisk,
    /// As it was after each process before that.
    pub older: Vec<SimDisk>,
    /// Opens the store at the time at which it was left.
    pub wall: WallMs,
}

struct Builder {
    disk: SimDisk,
    clock: Arc<SimClock>,
    seed: u64,
}

struct RichHandles {
    store: Store,
    orders: Topic,
    audit: Topic,
    kitchen: Group,
    billing: Group,
    careful: Group,
    listener: Group,
    archive: Group,
}

/// Opens a store on `disk` at `level` with the smallest segments.
///
/// # Errors
/// Those of opening.
pub fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Result<Store> {
    let handle = disk.attach().unwrap();
    // Groups in order of keys keep few messages one by one, so that others are counted.
    let options = Store::options().durability(level).segment_bytes_max(64 << 10).parked_max(4, 1);
    options.open_on(Arc::new(handle), Arc::clone(clock) as _)
}

/// The store that this seed gives. Equal seeds give equal bytes.
#[must_use]
pub fn rich(seed: u64) -> Rich {
    let builder = Builder { disk: SimDisk::new(seed), clock: Arc::new(SimClock::new(WALL)), seed };
    let mut older = Vec::new();
    let lives = [
        Builder::audited,
        Builder::settled_in_every_way,
        Builder::moved_and_killed,
        Builder::alone,
        Builder::unreadable,
        Builder::emptied,
        Builder::scheduled,
        Builder::bounded,
    ];
    for life in lives {
        life(&builder);
        older.push(builder.disk.snapshot());
    }
    let (unclosed, closed) = builder.last();
    Rich { closed, unclosed, older, wall: WallMs(WALL.0 + 10 * 86_400_000) }
}

impl Builder {
    fn open(&self, level: Durability) -> RichHandles {
        self.clock.advance(1_000);
        let store = open(&self.disk, &self.clock, level).unwrap();
        let orders = store.topic("orders").partitions(2).open().unwrap();
        let audit = store.topic("audit").open().unwrap();
        let group = |topic: &Topic, name: &str, attempts, backoff| {
            let builder = topic.group(name).max_attempts(attempts).backoff(backoff);
            builder.visibility_timeout(Duration::from_secs(5)).open().unwrap()
        };
        let delay = Backoff::fixed(Duration::from_millis(100));
        RichHandles {
            kitchen: group(&orders, "kitchen", 3, delay),
            billing: group(&orders, "billing", 1, Backoff::none()),
            careful: group(&orders, "careful", 2, Backoff::exponential(Duration::from_millis(10))),
            listener: group(&orders, "listener", 0, delay),
            archive: audit
                .group("archive")
                .max_attempts(1)
                .backoff(delay)
                .visibility_timeout(Duration::from_secs(5))
                .filter("not draft exists")
                .open()
                .unwrap(),
            store,
            orders,
            audit,
        }
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        let len = [0, 40, 100, 5, 700, 33, 1_500][number as usize % 7];
        let mut bytes = format!("message {number} of store {}. ", self.seed).into_bytes().repeat(len / 20 + 1);
        bytes.truncate(len.max(24));
        if number.is_multiple_of(7) { Vec::new() } else { bytes }
    }

    fn message(&self, number: u64) -> Message<'static> {
        let message = Message::new(self.payload(number));
        match number % 3 {
            0 => message,
            1 => message.key(format!("key {}", number % 5)),
            _ => message.key("").header("type", "order").header("number", number.to_le_bytes()),
        }
    }

    fn publish(&self, topic: &Topic, numbers: std::ops::Range<u64>) {
        numbers.for_each(|number| drop(topic.publish(self.message(number)).unwrap()));
    }

    fn settle(mut deliveries: Vec<Delivery>, ways: &[fn(Delivery) -> Result<()>]) {
        assert_eq!(deliveries.len(), ways.len());
        deliveries.drain(..).zip(ways).for_each(|(delivery, way)| way(delivery).unwrap());
    }

    fn take(group: &Group, count: usize) -> Vec<Delivery> {
        let taken: Vec<Delivery> = group.receive_batch(count, NOW).unwrap().into_iter().collect();
        assert_eq!(taken.len(), count, "{}", group.name());
        taken
    }

    /// A segment in which nothing lives any more.
    fn audited(&self) {
        let to = self.open(Durability::Disk);
        self.publish(&to.audit, 0..6);
        assert!(to.archive.receive_batch(6, NOW).unwrap().ack().unwrap().is_empty());
        to.audit.publish(Message::new("a draft").header("draft", "")).unwrap();
        assert!(to.archive.receive(NOW).unwrap().is_none());
        self.clock.advance(1_000);
        to.store.tick().unwrap();
        to.store.close().unwrap();
    }

    fn settled_in_every_way(&self) {
        let to = self.open(Durability::Disk);
        self.publish(&to.orders, 10..20);
        to.orders.publish_batch((20..26).map(|number| self.message(number))).unwrap();
        let later = |delivery: Delivery| delivery.nack_after(Duration::from_secs(3 * 86_400), "later");
        let extended = |delivery: Delivery| {
            delivery.extend(Duration::from_secs(60))?;
            delivery.ack()
        };
        let kitchen = Self::take(&to.kitchen, 7);
        Self::settle(
            kitchen,
            &[
                Delivery::ack,
                |delivery| delivery.nack("too hot"),
                extended,
                |delivery| delivery.reject("no oven"),
                later,
                Delivery::ack_durable,
                |delivery| delivery.reject("no oven either"),
            ],
        );
        let reject = |delivery: Delivery| delivery.reject("unpaid");
        Self::settle(Self::take(&to.billing, 6), &[Delivery::ack, reject, reject, reject, Delivery::ack, reject]);
        to.store.sync().unwrap();
        to.store.tick().unwrap();
        to.store.close().unwrap();
    }

    /// Dead letters move; a subscriber gives a message back; the wall clock jumps; the process dies with leases and unsynced frames.
    fn moved_and_killed(&self) {
        let to = self.open(Durability::Os);
        self.publish(&to.orders, 28..29);
        to.kitchen.dead_letters().unwrap().next().unwrap().unwrap().redrive().unwrap();
        let mut dead_letters = to.billing.dead_letters().unwrap();
        dead_letters.next().unwrap().unwrap().discard().unwrap();
        dead_letters.next().unwrap().unwrap().redrive_to(&to.audit).unwrap();
        Self::take(&to.listener, 1).into_iter().for_each(|delivery| delivery.release().unwrap());
        self.clock.set_wall(WallMs(WALL.0 + 86_400_000));
        to.store.tick().unwrap();
        let held = [Self::take(&to.kitchen, 2), Self::take(&to.careful, 1)];
        self.publish(&to.orders, 30..36);
        self.disk.crash_process();
        drop(held);
    }

    /// A message in whose hands a process died is waited for, and tried alone.
    fn alone(&self) {
        let to = self.open(Durability::Os);
        assert!(to.store.report().copied_bytes > 0, "the last process left an end that nothing proved");
        let quiet = to.store.topic("quiet").partitions(3).open().unwrap();
        quiet.group("nobody").open().unwrap();
        self.publish(&quiet, 37..39);
        self.altered_and_removed(&to);
        let mut billing = Self::take(&to.billing, 1);
        assert!(to.careful.receive(NOW).unwrap().is_none(), "somebody holds a lease");
        billing.pop().unwrap().ack().unwrap();
        to.careful.receive(NOW).unwrap().unwrap().ack().unwrap();
        let left = Self::take(&to.billing, 1);
        to.store.close().unwrap();
        drop(left);
    }

    /// A topic and a group that come and go with messages, leases and dead letters, and a group whose options change under a lease.
    fn altered_and_removed(&self, to: &RichHandles) {
        let passing = to.store.topic("passing").open().unwrap();
        let reader = passing.group("reader").max_attempts(2).open().unwrap();
        self.publish(&passing, 1..4);
        let mut taken = Self::take(&reader, 2);
        reader.alter().max_attempts(5).apply().unwrap();
        taken.pop().unwrap().reject("unwanted").unwrap();
        let guest = to.orders.group("guest").open().unwrap();
        let _held = guest.receive(NOW).unwrap();
        to.orders.remove_group("guest").unwrap();
        to.store.remove_topic("passing").unwrap();
        to.listener.alter().max_outstanding(1_000).apply().unwrap();
        to.listener.seek(Seek::Earliest).unwrap();
        drop(taken);
    }

    /// A message that billing used up its attempts on, and that others have still to see, cannot be read for a while.
    fn unreadable(&self) {
        let to = self.open(Durability::Os);
        assert!(to.billing.receive_batch(100, NOW).unwrap().ack().is_ok());
        self.publish(&to.orders, 39..40);
        let held = Self::take(&to.billing, 1);
        self.clock.advance(6_000);
        let (name, place) = self.find(&self.payload(39));
        let flip = || {
            let mut bytes = self.disk.read_file(&name).unwrap();
            bytes[place] ^= 0x20;
            self.disk.write_file(&name, &bytes);
        };
        flip();
        assert!(matches!(to.billing.receive(NOW), Err(Error::Unreadable { .. })));
        let listened = to.listener.receive_batch(100, NOW).unwrap();
        assert_eq!(listened.unreadable().len(), 1);
        flip();
        drop((held, listened));
        to.store.close().unwrap();
    }

    /// Where in which segment a payload stands. It stands once: copies are of other messages.
    fn find(&self, payload: &[u8]) -> (String, usize) {
        assert!(payload.len() > 20);
        let mut found = Vec::new();
        for name in self.disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(".seg")) {
            let bytes = self.disk.read_file(&name).unwrap();
            let places = bytes.windows(payload.len()).enumerate().filter(|(_, window)| *window == payload);
            found.extend(places.map(|(place, _)| (name.clone(), place)));
        }
        found.pop().unwrap()
    }

    /// What is settled for all is retired, and unlinked.
    fn emptied(&self) {
        let to = self.open(Durability::Disk);
        assert!(to.archive.receive_batch(100, NOW).unwrap().ack().is_ok());
        for _ in 0..3 {
            to.store.sync().unwrap();
            to.store.tick().unwrap();
        }
        self.publish(&to.audit, 40..44);
        to.store.close().unwrap();
    }

    /// Messages for later: one has come, one was taken back, one has another time, and one waits for a year.
    fn scheduled(&self) {
        let to = self.open(Durability::Disk);
        let later = |number, ms| self.message(number).delay(Duration::from_millis(ms));
        let ids = [(44, 20), (45, 10), (46, 50)].map(|(number, ms)| to.audit.publish(later(number, ms)).unwrap().id());
        to.orders.publish(later(47, 365 * 86_400_000)).unwrap();
        to.audit.cancel_scheduled(ids[1]).unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_millis(WALL.0 + 30 * 86_400_000);
        to.audit.reschedule_at(ids[2], at).unwrap();
        self.clock.advance(100);
        to.store.tick().unwrap();
        assert_eq!(to.audit.scheduled(None, 10).unwrap().len(), 1);
        to.store.close().unwrap();
    }

    /// A full topic drops its oldest messages, and a newer message takes the place and the key of an older one.
    fn bounded(&self) {
        let to = self.open(Durability::Disk);
        let unique = |number| self.message(number).unique_key("nightly report", WhilePending::Replace);
        to.audit.publish_batch((71..73).map(|number| self.message(number))).unwrap();
        (73..76).for_each(|number| drop(to.audit.publish(unique(number)).unwrap()));
        let ring = to.store.topic("ring").max_messages(3).when_full(WhenFull::DropOldest).open().unwrap();
        let watcher = ring.group("watcher").open().unwrap();
        self.publish(&ring, 48..50);
        let mut held = Self::take(&watcher, 2);
        held.remove(0).ack().unwrap();
        self.publish(&ring, 64..70);
        let stats = to.store.stats().unwrap();
        let dropped = stats.topics.iter().flat_map(|topic| &topic.groups).map(|group| group.dropped);
        assert_eq!(dropped.sum::<u64>(), 4);
        to.store.close().unwrap();
        drop(held);
    }

    /// Messages in every phase at the end: ready, waiting, leased, dead. The machine as it was when the process died in the
    /// middle, and as it is when another one went on and closed.
    fn last(&self) -> (SimDisk, SimDisk) {
        let to = self.open(Durability::Os);
        self.publish(&to.orders, 50..56);
        // Those in whose hands the process died: each alone.
        for _ in 0..2 {
            to.kitchen.receive(NOW).unwrap().unwrap().ack().unwrap();
        }
        let held = Self::take(&to.kitchen, 3);
        to.store.sync().unwrap();
        to.store.tick().unwrap();
        self.publish(&to.orders, 60..64);
        Self::settle(Self::take(&to.listener, 2), &[Delivery::ack, |delivery| delivery.nack("not now")]);
        let unclosed = self.disk.snapshot();
        self.disk.reseed(self.seed ^ 1);
        to.store.close().unwrap();
        drop(held);
        (unclosed, self.disk.snapshot())
    }
}
