//! A store with a topic, to publish to and receive from, that checks its counts.
//!
//! Never here: timing.

use super::{Arena, pick};
use millpond::{Delivery, Durability, Group, Message, Store, Topic, TopicStats};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The topic that is measured.
pub(crate) const TOPIC: &str = "measured";
/// How many messages a fill puts into one frame.
const FILL: u64 = 1_000;
/// After this much log the segments have their full size.
const RIPE_BYTES: u64 = 66 << 20;
/// The usual payload, in bytes.
pub(crate) const LEN: usize = 100;

/// A payload of `len` bytes (at least 8) that tells its number.
pub(crate) fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The number that a payload tells.
pub(crate) fn number(payload: &[u8]) -> u64 {
    let Some((head, _)) = payload.split_first_chunk() else { panic!("a payload of {} bytes", payload.len()) };
    u64::from_le_bytes(*head)
}

/// A store in a directory of its own with one topic.
pub(crate) struct Pond {
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) path: PathBuf,
}

impl Pond {
    /// A store of default options.
    pub(crate) fn new(arena: &Arena, level: Durability) -> Self {
        Self::with_segments(arena, level, 64 << 20)
    }

    /// A store whose segments grow up to `segment_bytes`.
    pub(crate) fn with_segments(arena: &Arena, level: Durability, segment_bytes: u64) -> Self {
        Self::open(&arena.fresh(), level, segment_bytes)
    }

    pub(crate) fn open(path: &Path, level: Durability, segment_bytes: u64) -> Self {
        let store = Store::options().durability(level).segment_bytes_max(segment_bytes).open(path).expect("open");
        let topic = store.topic(TOPIC).open().expect("open the topic");
        Self { store, topic, path: path.to_path_buf() }
    }

    /// Grows the log, by another topic's messages, until segments have their full size. Not in a tiny run.
    pub(crate) fn ripen(&self) {
        self.grow_to(pick(RIPE_BYTES, 0));
    }

    /// Grows the log by large messages of another topic up to this LSN or a little more, and syncs.
    pub(crate) fn grow_to(&self, lsn: u64) {
        while self.log_end() < lsn {
            self.grow();
        }
        self.store.sync().expect("sync");
    }

    /// Grows the log until a new segment begins, and returns about where it begins.
    pub(crate) fn grow_to_new_segment(&self) -> u64 {
        let before = self.segments();
        while self.segments() == before {
            self.grow();
        }
        self.log_end()
    }

    fn grow(&self) {
        let other = self.store.topic("ripening").open().expect("open a topic").with_durability(Durability::Os);
        other.publish_batch((0..4).map(|n| Message::new(payload(n, 60 << 10)))).expect("publish");
    }

    /// A group of the topic whose leases outlast any run.
    pub(crate) fn group(&self) -> Group {
        group_of(&self.topic)
    }

    /// Publishes numbered messages at `Os`, in large batches.
    pub(crate) fn fill(&self, numbers: std::ops::Range<u64>) {
        fill(&self.topic, numbers, LEN);
    }

    pub(crate) fn log_end(&self) -> u64 {
        self.store.stats().expect("stats").log.end.get()
    }

    pub(crate) fn segments(&self) -> u64 {
        self.store.stats().expect("stats").log.segments as u64
    }

    /// How many messages the topic was ever given.
    pub(crate) fn published(&self) -> u64 {
        self.stats().published
    }

    /// How many messages of the group opened first are not settled.
    pub(crate) fn lag(&self) -> u64 {
        self.stats().groups.first().expect("a group").lag
    }

    fn stats(&self) -> TopicStats {
        let stats = self.store.stats().expect("stats");
        stats.topics.into_iter().find(|topic| topic.name == TOPIC).expect("the topic")
    }

    /// Closes the store, so that nothing writes any more whatever handles are left, and removes its directory.
    pub(crate) fn remove(self) {
        self.store.close().expect("close");
        std::fs::remove_dir_all(&self.path).expect("remove the store");
    }
}

/// A group whose leases outlast any run and whose messages all may be out at once.
pub(crate) fn group_of(topic: &Topic) -> Group {
    let day = Duration::from_secs(86_400);
    topic.group("reader").visibility_timeout(day).open().expect("open the group")
}

/// Publishes messages of these numbers and this length at `Os`, in large batches.
pub(crate) fn fill(topic: &Topic, mut numbers: std::ops::Range<u64>, len: usize) {
    let topic = topic.with_durability(Durability::Os);
    while !numbers.is_empty() {
        let upto = numbers.end.min(numbers.start + FILL);
        let batch = (numbers.start..upto).map(|n| Message::new(payload(n, len)));
        let receipt = topic.publish_batch(batch).expect("publish");
        assert_eq!(receipt.ids().len() as u64, upto - numbers.start);
        numbers.start = upto;
    }
}

/// The next message, which must be there.
#[inline]
pub(crate) fn take(group: &Group) -> Delivery {
    group.receive(Duration::ZERO).expect("receive").expect("a message that waits")
}

/// Receives and acks the messages of these numbers, one at a time.
pub(crate) fn drain_one_by_one(group: &Group, numbers: std::ops::Range<u64>) {
    for expected in numbers {
        let delivery = take(group);
        assert_eq!(number(delivery.payload()), expected);
        delivery.ack().expect("ack");
    }
}

/// Receives and acks the messages of these numbers in batches of `size`. They are a multiple of it.
pub(crate) fn drain_in_batches(group: &Group, mut numbers: std::ops::Range<u64>, size: u64) {
    while !numbers.is_empty() {
        let batch = group.receive_batch(size as usize, Duration::ZERO).expect("receive");
        assert!(!batch.is_empty(), "{} messages should wait", numbers.end - numbers.start);
        for delivery in &batch {
            assert_eq!(number(delivery.payload()), numbers.start);
            numbers.start += 1;
        }
        assert!(batch.ack().expect("ack").is_empty(), "a lease was lost");
    }
}
