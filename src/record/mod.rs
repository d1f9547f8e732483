//! The vocabulary of facts: what the log can say, and (in `codec`, `message`, `wire`) its bytes.
//!
//! A frame's head is a list of [`Record`]s; its parts are messages, claimed in order by the records that carry messages
//! (see [`Record::claim`]). Records say what happened, with every time and number that applying them needs; whether it may happen
//! was decided before. What else follows from a record (which consumers wake, what room on the disk it may use) is said in `about`, beside
//! the variants. Never here: disk, log, state.

mod about;
mod claim;
pub(crate) mod codec;
mod counted;
mod filter;
#[cfg(any(test, feature = "simulation"))]
mod kinds;
pub(crate) mod message;
mod order;
mod topic;
pub(crate) mod wire;

pub(crate) use about::{Room, Wakes};
pub(crate) use claim::OffsetClaim;
pub(crate) use counted::{Counted, LeaseEnd};
pub(crate) use filter::{Filter, FilterFault};
pub(crate) use order::KeyHash;
pub use order::Ordering;
pub(crate) use topic::TopicOptions;
pub use topic::{Retention, WhenFull};

use crate::ids::{Epoch, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, StoreMs, TopicId, WallMs};
use std::sync::Arc;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A process began to append. Ends every lease (by a crash where the last close was not clean), frees exclusive
    /// leases, and clamps due times to `wall` plus their delay.
    Opened { epoch: Epoch, clean: bool, wall: WallMs },
    /// The wall clock was seen to jump by so many milliseconds: due times are clamped to `wall` plus their delay, and ages do not count
    /// the jump.
    ClockJumped { wall: WallMs, by_ms: i64 },
    /// A topic with its partitions `first .. first + count`.
    TopicCreated { topic: TopicId, name: String, first: PartitionId, count: u32, options: TopicOptions },
    /// A group on a topic: where it starts in each partition, and its two hidden partitions `retry` and `retry + 1` (dead).
    GroupCreated {
        group: GroupId,
        topic: TopicId,
        name: String,
        options: GroupOptions,
        retry: PartitionId,
        starts: Vec<Offset>,
    },
    /// A topic is gone, with its groups and all their partitions. Its number is never used again.
    TopicRemoved { topic: TopicId },
    /// A group is gone, with what it held and its hidden partitions. Its number is never used again.
    GroupRemoved { group: GroupId },
    /// A group goes on with other options.
    GroupAltered { group: GroupId, options: GroupOptions },
    /// A group goes on at `starts` in its topic's partitions, and what it had in progress there is settled for it, but for messages from
    /// `from` on up to there: those are ready, or parked as they were, and no attempt is on their accounts.
    GroupSought { group: GroupId, from: Vec<Offset>, starts: Vec<Offset> },
    /// `count` messages (parts of this frame) at `base ..` of a topic's partition.
    Published { partition: PartitionId, base: Offset, count: u32, time: WallMs },
    /// The group looked at the next messages of a partition, from `first` on, and of each this is the hash of its key. Each is outstanding
    /// from here on, and waits for those of its key that are before it. But those of the numbers `counted`, which rise, are only counted by
    /// their keys.
    Considered { group: GroupId, partition: PartitionId, first: Offset, keys: Vec<KeyHash>, counted: Vec<u32> },
    /// The group looked again at messages from `first` on, for those of free keys that were only counted. Those that are outstanding from
    /// here on have a key here; all others have none.
    Recalled { group: GroupId, partition: PartitionId, first: Offset, keys: Vec<KeyHash> },
    /// The next `count` messages of a partition, from `first` on, do not pass the group's filter: they are settled for it.
    Filtered { group: GroupId, partition: PartitionId, first: Offset, count: u32 },
    /// The next `count` messages of the partition from `first` on go without a delivery, for want of room or because they are too old.
    Dropped { group: GroupId, partition: PartitionId, first: Offset, count: u32 },
    /// `count` messages from `first` leased until `until`, each now on its attempt number `attempt` (from 1). `time` is
    /// zero for a first attempt; otherwise the wall clock, for the history of a lease that expired.
    Leased {
        group: GroupId,
        partition: PartitionId,
        first: Offset,
        count: u32,
        attempt: u32,
        until: MonoMs,
        time: WallMs,
        exclusive: bool,
    },
    /// Since this time a message waits until no other lease is live, so that it can have one alone. How long others are held up for
    /// it is decided anew each time, and in no record.
    ExclusivePending { group: GroupId, partition: PartitionId, offset: Offset, since: MonoMs },
    /// The lease of one message now lasts until `until`.
    Extended { group: GroupId, partition: PartitionId, offset: Offset, until: MonoMs },
    /// `count` leased messages from `first` are done.
    Acked { group: GroupId, partition: PartitionId, first: Offset, count: u32 },
    /// A leased message waits until `due`, `delay_ms` after its nack.
    Nacked {
        group: GroupId,
        partition: PartitionId,
        offset: Offset,
        due: WallMs,
        delay_ms: u64,
        failure: AttemptFailure,
    },
    /// A lease was given back unused: the attempt is taken back and the message is ready at once.
    Released { group: GroupId, partition: PartitionId, offset: Offset },
    /// A leased message could not be read: the attempt is taken back and it waits until `due`.
    Unreadable { group: GroupId, partition: PartitionId, offset: Offset, due: WallMs, delay_ms: u64 },
    /// An exhausted message could not be moved to the dead letters now (no room, or it cannot be read): it stays
    /// outstanding and waits until `due`.
    Postponed { group: GroupId, partition: PartitionId, offset: Offset, due: WallMs, delay_ms: u64 },
    /// An outstanding message was given up, and `copy` stands among the group's dead letters.
    DeadLettered { group: GroupId, partition: PartitionId, offset: Offset, copy: Box<Copied> },
    /// A dead letter left for a topic, or for its group again: as `copy`.
    Redriven { group: GroupId, dead_letter: Offset, copy: Box<Copied> },
    /// A dead letter was thrown away.
    Discarded { group: GroupId, dead_letter: Offset },
    /// A named cursor stands at `value` now.
    CursorSet { name: String, value: Box<[u8]>, hold: Option<Hold> },
    /// A named cursor is no more.
    CursorRemoved { name: String },
    /// The message of this frame at `offset` was accepted under an id, of which a hash is kept, as of its bytes. `time` is store time.
    Accepted { partition: PartitionId, offset: Offset, id: u128, body: u64, time: StoreMs },
    /// The message of this frame at `offset` has a unique key, of which a hash is kept. It takes the place of the message `replaced`, which
    /// had the key and is not delivered any more.
    KeyTaken {
        partition: PartitionId,
        offset: Offset,
        key: u128,
        /// That of the message, by which a group in order of keys goes.
        message_key: KeyHash,
        replaced: Option<(PartitionId, Offset)>,
    },
    /// A producer has published up to this number of its own.
    Sequenced { topic: TopicId, producer: String, sequence: u64 },
    /// `count` messages (parts of this frame) at `base ..` of the stream's partition: its events from `version` on. The first event that
    /// is there has version `first`.
    Appended { stream: StreamId, base: Offset, count: u32, time: WallMs, version: u64, first: u64 },
    /// Of a stream whose next event has version `next`, no event below version `first` is there any more for those who read it, and where
    /// that leaves none, no snapshot either. `note` has the key alone.
    StreamTruncated { stream: StreamId, note: StreamNote, first: u64, next: u64 },
    /// A topic that keeps its messages for a time has come so far at this time. Those that its partitions had at an earlier mark, which is
    /// that old by now, are kept no longer.
    RetentionMarked { topic: TopicId, time: StoreMs },
    /// A topic has a hidden partition for messages that are published for later.
    ScheduleCreated { topic: TopicId, partition: PartitionId },
    /// The message at `offset` of such a partition is due in partition `to` of its topic at `due`: a message of this frame, or one that
    /// was to be due at another time (`again`).
    Scheduled { partition: PartitionId, offset: Offset, to: PartitionId, due: DueTime, again: bool },
    /// A scheduled message was due, and went to the partition of `copy`; or it was cancelled.
    ScheduleEnded { partition: PartitionId, offset: Offset, copy: Option<Box<Copied>> },
    /// A snapshot of a stream that has the events `first .. next`, as it was after event `version`: the payload of `note`.
    SnapshotSaved { stream: StreamId, note: StreamNote, version: u64, first: u64, next: u64 },
}

/// When a scheduled message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DueTime {
    /// After a delay, which no jump of the wall clock makes shorter or longer.
    Store(StoreMs),
    /// At a time of day.
    Wall(WallMs),
}

/// A message (a part of this frame) at the end of the hidden partition of a topic of streams, which nobody gets. It has the key of a
/// stream. It keeps its segment, so that what is said of the stream stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamNote {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) time: WallMs,
}

/// A stream: the partition in which its events stand, and a hash of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId {
    pub(crate) partition: PartitionId,
    pub(crate) key: u128,
}

/// What a cursor keeps: the messages of a topic in the frame at `from` and in all frames after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) topic: TopicId,
    pub(crate) from: Lsn,
}

/// What a group goes by: the options of its creation, or of the last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupOptions {
    pub(crate) visibility_timeout_ms: u64,
    /// 0: no limit.
    pub(crate) max_attempts: u32,
    /// Of a message: nacks and expiries in all, and crashes in a row, after which it has no other attempt. 0: no limit of this kind.
    pub(crate) max_nacks: u32,
    pub(crate) max_expiries: u32,
    pub(crate) max_crashes: u32,
    pub(crate) backoff: BackoffOptions,
    pub(crate) max_outstanding: u32,
    /// Of a message: orderly closes in a row while it is leased that are not counted. At most [`crate::limits::CLOSES_MAX`].
    pub(crate) max_closes: u32,
    /// The topic in which the move of each message to the dead letters publishes a notice. It may be gone: then there are none.
    pub(crate) notices: Option<TopicId>,
    /// Never altered, like the next one.
    pub(crate) ordering: Ordering,
    /// How many messages of a key, or of a partition, may be out at once where these are in order. From 1; 1 where they are not.
    pub(crate) max_in_flight_per_key: u32,
    /// It gets no leases.
    pub(crate) paused: bool,
    /// How many messages may be leased at once. 0: no limit.
    pub(crate) max_in_flight: u32,
    pub(crate) rate: RateOptions,
    /// Which messages it wants; all if `None`.
    pub(crate) filter: Option<Arc<Filter>>,
}

/// How many messages a group gets over time. Each takes a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateOptions {
    /// So many tokens come in each `per_ms`, one after another. All three are 0 where there is no limit; else none is.
    pub(crate) count: u32,
    pub(crate) per_ms: u64,
    /// How many there are at most.
    pub(crate) burst: u32,
}

impl GroupOptions {
    /// What the format leaves out, for ever: whatever a builder's defaults become.
    pub(crate) const LEFT_OUT: Self = Self {
        visibility_timeout_ms: 30_000,
        max_attempts: 5,
        max_nacks: 0,
        max_expiries: 0,
        max_crashes: 0,
        backoff: BackoffOptions {
            first_ms: 1_000,
            max_ms: 300_000,
            jitter: Jitter::UpperHalf,
            growth: Growth::Exponential,
        },
        max_outstanding: 65_536,
        max_closes: 20,
        notices: None,
        ordering: Ordering::None,
        max_in_flight_per_key: 1,
        paused: false,
        max_in_flight: 0,
        rate: RateOptions { count: 0, per_ms: 0, burst: 0 },
        filter: None,
    };
}

/// How long a message waits after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackoffOptions {
    /// The delay after the first attempt.
    pub(crate) first_ms: u64,
    /// No delay is longer.
    pub(crate) max_ms: u64,
    pub(crate) jitter: Jitter,
    pub(crate) growth: Growth,
}

/// Of which part of a delay one is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jitter {
    /// None: it is the delay.
    None,
    UpperHalf,
    /// From none at all up to the delay.
    Full,
}

/// How delays follow on each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Each is twice the one before it.
    Exponential,
    /// Each is longer than the one before it by the first.
    Linear,
    /// These, and then the last of them again and again. From 1 to [`crate::limits::BACKOFF_LIST_MAX`]; `first_ms` is the first of them
    /// and `max_ms` the longest.
    List(Box<[u64]>),
}

/// A message (a part of this frame) at `offset` of a hidden or a topic's partition, copied from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) time: WallMs,
    pub(crate) provenance: Provenance,
}

/// Where a copied message comes from and what it went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// The first publish: unchanged through any number of copies, but for the count of redrives.
    pub(crate) origin: Origin,
    /// Attempts in all in the group that gave it up.
    pub(crate) attempts: u32,
    /// The last attempts, oldest first.
    pub(crate) history: Vec<AttemptFailure>,
    /// Those before, of which the history has no room: none unless it is full.
    pub(crate) earlier: FailureCounts,
}

/// How often attempts of a message ended in each way, but for the closes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureCounts {
    /// Consumers gave it back.
    pub nacks: u32,
    /// The visibility timeout passed.
    pub expiries: u32,
    /// The process died.
    pub crashes: u32,
}

impl FailureCounts {
    /// Counts one more.
    pub(crate) fn add(&mut self, cause: FailureCause) {
        let count = match cause {
            FailureCause::Nacked => &mut self.nacks,
            FailureCause::Expired => &mut self.expiries,
            FailureCause::Crashed => &mut self.crashes,
            // A rejection is the last one and in no count.
            FailureCause::Closed | FailureCause::Rejected => return,
        };
        // seam: failures are not counted
        *count = count.saturating_add(1);
    }

    /// With these as well.
    pub(crate) fn with<'a>(mut self, failures: impl Iterator<Item = &'a AttemptFailure>) -> Self {
        failures.for_each(|failure| self.add(failure.cause));
        self
    }
}

/// A message's first publish, and how often it was sent from dead letters to a topic since. Its public id, for its topic may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) id: MessageId,
    pub(crate) time: WallMs,
    /// At most [`crate::limits::REDRIVES_TO_TOPICS_MAX`]. Redrives to its own group do not count: somebody asks for each.
    pub(crate) redrives: u32,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptFailure {
    pub(crate) cause: FailureCause,
    pub(crate) time: WallMs,
    /// At most [`crate::limits::ERROR_TEXT_LEN_MAX`] bytes; empty where there is none.
    pub(crate) text: Box<str>,
}

/// Why an attempt ended without an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureCause {
    /// The consumer gave it back.
    Nacked,
    /// The visibility timeout passed.
    Expired,
    /// The process died while it was leased.
    Crashed,
    /// The store was closed while it was leased, as at too many closes in a row before.
    Closed,
    /// The consumer rejected it.
    Rejected,
}

/// A fencing token: the lease's record stands at this place of this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
}
