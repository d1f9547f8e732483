//! What is known of streams beside the index: those that were touched above its stamp, and the heads of many others.
//!
//! Follows the log from `floor` on, record by record, and forgets touches that the index has taken in. So a stream that is not here is as
//! the index says, if the index follows the log up to the floor. A head that is here is that of the end of the log, however old it is: no
//! touch passes it by. Never here: touches that lie below the floor.

use super::StreamHead;
use crate::ids::{Lsn, Offset, PartitionId};
use crate::record::{Record, StreamId};
use crate::state::kit::prehashed::Prehashed;
use std::collections::{BTreeMap, VecDeque};

/// Events next to each other: those of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRun {
    pub(crate) version: u64,
    pub(crate) offset: Offset,
    pub(crate) count: u32,
}

impl StreamRun {
    /// The version behind its last.
    pub(crate) fn end(&self) -> u64 {
        self.version.saturating_add(u64::from(self.count))
    }
}

/// What a frame did to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Appended(StreamRun),
    /// With the hidden partition of notes.
    TruncatedTo(StreamHead, PartitionId),
    /// A snapshot, and the note that it is in.
    Saved {
        version: u64,
        partition: PartitionId,
        offset: Offset,
    },
}

impl Touch {
    /// What a record does to a stream, and how far that has come then.
    #[inline]
    pub(crate) fn of(record: &Record) -> Option<(StreamId, Self, StreamHead)> {
        match *record {
            Record::Appended { stream, base: offset, count, version, first, .. } => {
                let run = StreamRun { version, offset, count };
                Some((stream, Self::Appended(run), StreamHead { first, next: run.end() }))
            }
            Record::StreamTruncated { stream, note, first, next } => {
                let head = StreamHead { first, next };
                Some((stream, Self::TruncatedTo(head, note.partition), head))
            }
            Record::SnapshotSaved { stream, note, version, first, next } => {
                let saved = Self::Saved { version, partition: note.partition, offset: note.offset };
                Some((stream, saved, StreamHead { first, next }))
            }
            Record::Opened { .. }
            | Record::ClockJumped { .. }
            | Record::TopicCreated { .. }
            | Record::RetentionMarked { .. }
            | Record::ScheduleCreated { .. }
            | Record::Scheduled { .. }
            | Record::ScheduleEnded { .. }
            | Record::GroupCreated { .. }
            | Record::TopicRemoved { .. }
            | Record::GroupRemoved { .. }
            | Record::GroupAltered { .. }
            | Record::GroupSought { .. }
            | Record::Published { .. }
            | Record::Considered { .. }
            | Record::Recalled { .. }
            | Record::Filtered { .. }
            | Record::Dropped { .. }
            | Record::Leased { .. }
            | Record::ExclusivePending { .. }
            | Record::Extended { .. }
            | Record::Acked { .. }
            | Record::Nacked { .. }
            | Record::Released { .. }
            | Record::Unreadable { .. }
            | Record::Postponed { .. }
            | Record::DeadLettered { .. }
            | Record::Redriven { .. }
            | Record::Discarded { .. }
            | Record::CursorSet { .. }
            | Record::CursorRemoved { .. }
            | Record::Accepted { .. }
            | Record::KeyTaken { .. }
            | Record::Sequenced { .. } => None,
        }
    }
}

/// How many heads each of the two generations has: about 16 MiB in all.
const HEADS_LEN: usize = 1 << 17;

/// The touched streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamTails {
    floor: Lsn,
    /// Of each stream what was done to it, and how far it had come then.
    streams: BTreeMap<StreamId, VecDeque<(Touch, StreamHead)>>,
    /// The heads of the streams that were touched last, and of those before them.
    young: Prehashed<StreamId, StreamHead>,
    old: Prehashed<StreamId, StreamHead>,
    /// The touches of all streams in the order of the log, each with the end of its frame.
    order: VecDeque<(Lsn, StreamId)>,
}

impl StreamTails {
    /// Nothing is known of what lies below the floor.
    pub(crate) fn new(floor: Lsn) -> Self {
        Self { floor, ..Self::default() }
    }

    /// All that was touched above this is known here.
    pub(crate) const fn floor(&self) -> Lsn {
        self.floor
    }

    /// How many touches are known.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Takes in a record of the frame that ends at `end`.
    #[inline]
    pub(crate) fn follow(&mut self, record: &Record, end: Lsn) {
        let Some((stream, touch, head)) = Touch::of(record) else { return };
        if end <= self.floor {
            return;
        }
        self.streams.entry(stream).or_default().push_back((touch, head));
        self.order.push_back((end, stream));
        if self.young.len() >= HEADS_LEN {
            // Room for all of them at once: what grows under the lock is copied under it.
            self.old =
                std::mem::replace(&mut self.young, Prehashed::with_capacity_and_hasher(HEADS_LEN, Default::default()));
        }
        self.young.insert(stream, head);
        self.old.remove(&stream);
    }

    /// How far a stream has come, if that is known without the index.
    pub(crate) fn head(&self, stream: StreamId) -> Option<StreamHead> {
        let touched = || self.streams.get(&stream).and_then(VecDeque::back).map(|(_, head)| head);
        self.young.get(&stream).or_else(|| self.old.get(&stream)).or_else(touched).copied()
    }

    /// What was done to a stream, in the order of the log.
    pub(crate) fn touches(&self, stream: StreamId) -> impl Iterator<Item = Touch> {
        self.streams.get(&stream).into_iter().flatten().map(|(touch, _)| *touch)
    }

    /// The first touches, with the ends of their frames: of whole frames that end at or below `upto`, and at least `min` if there are so
    /// many.
    pub(crate) fn first(&self, upto: Lsn, min: usize) -> Vec<(Lsn, StreamId, Touch)> {
        let mut next: BTreeMap<StreamId, usize> = BTreeMap::new();
        let mut found: Vec<(Lsn, StreamId, Touch)> = Vec::new();
        for &(end, stream) in &self.order {
            // seam: the index follows what is not durable
            if end > upto || found.len() >= min && found.last().is_some_and(|last| last.0 < end) {
                break;
            }
            let nth = next.entry(stream).or_default();
            let touch = self.streams.get(&stream).and_then(|touches| touches.get(*nth));
            found.extend(touch.map(|(touch, _)| (end, stream, *touch)));
            *nth += 1;
        }
        found
    }

    /// The index follows the log up to `upto`: some of what it knows is forgotten, and the floor rises. Returns whether there is more.
    pub(crate) fn forget(&mut self, upto: Lsn, max: usize) -> bool {
        for _ in 0..max {
            let Some(&(end, stream)) = self.order.front().filter(|(end, _)| *end <= upto) else { break };
            self.floor = self.floor.max(end);
            self.order.pop_front();
            if let Some(touches) = self.streams.get_mut(&stream) {
                touches.pop_front();
                if touches.is_empty() {
                    self.streams.remove(&stream);
                }
            }
        }
        let is_more = self.order.front().is_some_and(|(end, _)| *end <= upto);
        if !is_more {
            self.floor = self.floor.max(upto);
        }
        is_more
    }
}
