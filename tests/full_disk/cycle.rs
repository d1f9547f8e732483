//! G14 as a cycle: fill until publishes are refused, settle, and go on publishing, again and again, without opening the store anew.
//! With dead letters, on disks of many sizes, with messages of many sizes, in segments of the default length.

use millpond::simulation::WallMs;
use millpond::simulation::{Disk, SimClock, SimDisk};
use millpond::{Backoff, Delivery, Durability, Error, Group, Store, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// More beats of the jobs than anything here needs.
const BEATS_MAX: usize = 100;

/// How leases end without an ack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Crash,
    Close,
    /// All of them together, so many times.
    Expiry(usize),
    /// One after another, so many times, each with the longest text.
    Nack(usize),
}

pub(crate) struct Cycle {
    store: Store,
    topic: Topic,
    group: Group,
    clock: Arc<SimClock>,
    message_len: usize,
    next: u32,
    waiting: BTreeSet<u32>,
    letters: usize,
    /// Whether a copy was refused since the disk was filled.
    is_full: bool,
}

impl Cycle {
    pub(crate) fn open(disk: Arc<dyn Disk>, message_len: usize) -> Self {
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        let store = Store::options().durability(Durability::Os).open_on(disk, Arc::clone(&clock) as _).expect("opens");
        let topic = store.topic("numbers").open().expect("it opens");
        let builder = topic.group("workers").backoff(Backoff::none()).max_attempts(1_000);
        let group = builder.visibility_timeout(Duration::from_secs(60)).open().expect("it opens");
        let (waiting, letters, is_full) = (BTreeSet::new(), 0, false);
        Self { store, topic, group, clock, message_len, next: 0, waiting, letters, is_full }
    }

    /// Three times around, and then the store closes and opens as it was.
    pub(crate) fn go_around(disk: impl Fn() -> Arc<dyn Disk>, message_len: usize, at: &str) {
        let mut cycle = Self::open(disk(), message_len);
        let first = cycle.fill();
        assert!(first > 5, "{at}: there was room for {first} messages");
        for round in 1..=3 {
            cycle.settle_all(at);
            cycle.publish_when_possible(at);
            let again = cycle.fill();
            assert!(again > first / 2, "{at}: room for {again} came back of that for {first} in round {round}");
        }
        cycle.settle_all(at);
        cycle.store.close().unwrap_or_else(|error| panic!("{at}: {error}"));
        let letters = cycle.letters;
        drop(cycle);
        let mut cycle = Self::open(disk(), message_len);
        assert!(cycle.store.report().was_clean, "{at}");
        assert_eq!(cycle.group.dead_letters().expect("it lists").count(), letters, "{at}: dead letters");
        cycle.publish_when_possible(at);
        assert!(cycle.receive(at).is_some(), "{at}: all else was settled");
    }

    fn tick(&self) {
        self.store.tick().expect("no job fails because the disk is full");
    }

    /// `false` where the disk is full.
    fn publish(&mut self) -> bool {
        let mut payload = self.next.to_le_bytes().to_vec();
        payload.resize(self.message_len, 7);
        match self.topic.publish(payload) {
            Ok(_) => {
                self.waiting.insert(self.next);
                self.next += 1;
                true
            }
            Err(Error::DiskFull) => false,
            Err(error) => panic!("a full disk is told as {error}"),
        }
    }

    /// Publishes until the disk stays full. Returns how many messages there was room for.
    pub(crate) fn fill(&mut self) -> u32 {
        let before = self.next;
        self.is_full = false;
        for _ in 0..3 {
            while self.publish() {
                if self.next.is_multiple_of(256) {
                    self.tick();
                }
            }
            self.tick();
        }
        self.next - before
    }

    /// Receives one message and acks it; a few are rejected, as long as there is room for their copies. The number of its payload, or
    /// `None` where there was none.
    fn receive(&mut self, at: &str) -> Option<u32> {
        for _ in 0..BEATS_MAX {
            let delivery = match self.group.receive(Duration::ZERO) {
                Ok(received) => received?,
                Err(Error::DiskFull) => {
                    self.tick();
                    continue;
                }
                Err(error) => panic!("{at}: a full disk is told as {error}"),
            };
            let number = u32::from_le_bytes(*delivery.payload().first_chunk().expect("four bytes"));
            assert_eq!(delivery.payload().len(), self.message_len, "{at}: G4");
            if number.is_multiple_of(50) && self.letters < 20 && !self.is_full {
                match delivery.reject("spoilt") {
                    Ok(()) => self.letters += 1,
                    Err(Error::DiskFull) => {
                        // Its copy does not fit. It comes back when its lease is over.
                        self.is_full = true;
                        self.clock.advance(61_000);
                        continue;
                    }
                    Err(error) => panic!("{at}: a full disk is told as {error}"),
                }
            } else {
                delivery.ack().unwrap_or_else(|error| panic!("{at}: G14: an ack was refused: {error}"));
            }
            self.waiting.remove(&number);
            return Some(number);
        }
        panic!("{at}: G14: nothing is leased, and no lease is granted")
    }

    /// So many messages used up their attempts with consumers that hang; then the disk fills.
    pub(crate) fn exhaust_some_and_fill(&mut self, count: usize) {
        self.group = self.topic.group("hanging").max_attempts(1).backoff(Backoff::none()).open().expect("it opens");
        (0..count).for_each(|_| assert!(self.publish()));
        let hung = self.group.receive_batch(count, Duration::ZERO).expect("it receives");
        assert_eq!(hung.len(), count);
        std::mem::forget(hung.into_iter().collect::<Vec<_>>());
        self.fill();
        self.clock.advance(3_600_000);
    }

    /// Of those that are ready so many are received and acked, and a few dead letters are thrown away.
    pub(crate) fn receives_go_on(&self, count: u32, when: &str) {
        let group = self.topic.group("hanging").open().expect("it opens");
        for nth in 0..count {
            let received = group.receive(Duration::ZERO).unwrap_or_else(|error| panic!("{when}: {nth}: {error}"));
            let delivery = received.unwrap_or_else(|| panic!("{when}: {nth}: others are ready"));
            delivery.ack().unwrap_or_else(|error| panic!("{when}: G14: an ack was refused: {error}"));
            self.tick();
        }
        for letter in group.dead_letters().expect("it lists").take(3) {
            let discarded = letter.and_then(|letter| letter.discard());
            discarded.unwrap_or_else(|error| panic!("{when}: G14: a discard was refused: {error}"));
        }
    }

    /// Leases until no more are granted, or all are out, and keeps them. Returns how many there are.
    fn lease_all(&self) -> usize {
        let mut leased = 0;
        loop {
            match self.group.receive_batch(1_000, Duration::ZERO) {
                Ok(batch) if batch.is_empty() => return leased,
                Ok(batch) => {
                    leased += batch.len();
                    std::mem::forget(batch);
                }
                Err(Error::DiskFull) => return leased,
                Err(error) => panic!("a full disk is told as {error}"),
            }
        }
    }

    /// On a full disk as many as may be are leased, and end as `ending` says: all can be settled afterwards.
    pub(crate) fn ends(disk: &SimDisk, message_len: usize, ending: Ending) {
        let at = format!("{ending:?}, {message_len} bytes");
        let attach = || Arc::new(disk.attach().expect("nobody has it")) as Arc<dyn Disk>;
        let mut cycle = Self::open(attach(), message_len);
        cycle.fill();
        if !matches!(ending, Ending::Nack(_)) {
            assert!(cycle.lease_all() > 500, "{at}: leases are granted on a full disk");
        }
        match ending {
            Ending::Crash | Ending::Close => {
                let waiting = std::mem::take(&mut cycle.waiting);
                let next = cycle.next;
                if matches!(ending, Ending::Close) {
                    cycle.close();
                }
                std::mem::forget(cycle);
                disk.crash_process();
                cycle = Self::open(attach(), message_len);
                (cycle.waiting, cycle.next) = (waiting, next);
            }
            Ending::Expiry(times) => {
                for _ in 0..times {
                    cycle.clock.advance(61_000);
                    cycle.tick();
                    cycle.lease_all();
                }
            }
            Ending::Nack(times) => {
                for nth in 0..times {
                    let delivery = cycle.receive_any(&at);
                    delivery.nack("x".repeat(200)).unwrap_or_else(|error| panic!("{at}: G14: nack {nth}: {error}"));
                    if nth % 64 == 0 {
                        cycle.tick();
                    }
                }
            }
        }
        cycle.clock.advance(3_600_000);
        cycle.settle_all(&at);
        cycle.publish_when_possible(&at);
    }

    /// On a full disk as many as may be are leased, and hang until they have used up all their attempts: the others flow past them.
    pub(crate) fn flows_past_exhausted_ones(disk: Arc<dyn Disk>, message_len: usize, at: &str) {
        let mut cycle = Self::open(disk, message_len);
        cycle.group.alter().max_attempts(3).apply().expect("it is altered");
        cycle.fill();
        // Until there is room for nothing but some that were never leased: the same few come three times, and are exhausted.
        let mut counts = [0; 3];
        loop {
            counts.rotate_left(1);
            match cycle.group.receive_batch(200, Duration::ZERO) {
                Ok(batch) => {
                    counts[2] = batch.len();
                    std::mem::forget(batch);
                }
                Err(Error::DiskFull) => break,
                Err(error) => panic!("{at}: a full disk is told as {error}"),
            }
            if (2..200).contains(&counts[0]) && counts.iter().all(|&count| count == counts[0]) {
                break;
            }
            cycle.clock.advance(61_000);
            cycle.tick();
        }
        let (mut acked, mut beats) = (0, 0);
        while beats < BEATS_MAX && cycle.stats().ready > 0 {
            match cycle.group.receive(Duration::ZERO) {
                Ok(Some(delivery)) => {
                    delivery.ack().unwrap_or_else(|error| panic!("{at}: G14: an ack was refused: {error}"));
                    (acked, beats) = (acked + 1, 0);
                }
                Ok(None) | Err(Error::DiskFull) => {
                    // Moves are tried again after a while.
                    cycle.clock.advance(2_000);
                    cycle.tick();
                    beats += 1;
                }
                Err(error) => panic!("{at}: a full disk is told as {error}"),
            }
        }
        let stats = cycle.stats();
        assert_eq!((stats.ready, stats.leased), (0, 0), "{at}: G14: {stats:?}");
        assert!(stats.exhausted + stats.dead > 100 && acked > 10_000, "{at}: {acked} were acked: {stats:?}");
        assert_eq!(acked as u64 + stats.exhausted + stats.dead, cycle.waiting.len() as u64, "{at}: G5: {stats:?}");
    }

    fn stats(&self) -> millpond::GroupStats {
        let stats = self.store.stats().expect("it says");
        let topic = stats.topics.into_iter().find(|topic| topic.name == "numbers").expect("it is there");
        topic.groups.into_iter().next().expect("it has one")
    }

    /// Receives one message, whichever it is.
    fn receive_any(&self, at: &str) -> Delivery {
        for _ in 0..BEATS_MAX {
            match self.group.receive(Duration::ZERO) {
                Ok(received) => return received.unwrap_or_else(|| panic!("{at}: all is ready")),
                Err(Error::DiskFull) => self.tick(),
                Err(error) => panic!("{at}: a full disk is told as {error}"),
            }
        }
        panic!("{at}: G14: nothing is leased, and no lease is granted")
    }

    pub(crate) fn close(&self) {
        self.store.close().expect("there is room for what a close writes");
    }

    pub(crate) fn settle_all(&mut self, at: &str) {
        let mut count = 0u32;
        while self.receive(at).is_some() {
            count += 1;
            if count.is_multiple_of(64) {
                self.tick();
            }
        }
        assert_eq!(self.waiting, BTreeSet::new(), "{at}: G5: these were never delivered");
    }

    pub(crate) fn publish_when_possible(&mut self, at: &str) {
        for _ in 0..BEATS_MAX {
            if self.publish() {
                return;
            }
            self.tick();
        }
        panic!("{at}: G14: everything is settled, and there is still no room to publish");
    }
}
