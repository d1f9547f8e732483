//! The vocabulary of decisions: what a state can be asked to do, with what facts, and what it says to that.
//!
//! The vocabulary of facts is [`crate::record`]. Never here: a rule.

use super::filter::KnownVerdicts;
use super::order::{KeyRun, ParkedMax};
use super::stream::{StreamFact, StreamTails};
use super::{Rejection, Sparse, UniqueKey};
use crate::ids::{Epoch, Expected, GroupId, Lsn, MessageId, MonoMs, Offset, PartitionId, TopicId, WallMs};
use crate::record::{
    BackoffOptions, Filter, GroupOptions, Hold, Origin, Provenance, RateOptions, StreamId, Token, TopicOptions,
};
use std::sync::Arc;

/// What the engine has read before it asks for a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    /// Never less than at an earlier decision in the same epoch, and never more than the time that it is.
    pub(crate) mono: MonoMs,
    pub(crate) wall: WallMs,
    /// What the wall clock would say but for a jump that is not noted yet.
    pub(crate) steady: WallMs,
    /// By how much both clocks may be behind: what is to last a while lasts that much longer, so that nothing ends early.
    pub(crate) slack_ms: u64,
    pub(crate) hold_up: HoldUp,
    pub(crate) visible: Visible<'a>,
    /// How far streams have come, as far as that is known without the index.
    pub(crate) streams: &'a StreamTails,
    /// What filters say of the next messages of their groups, as far as they were read.
    pub(crate) verdicts: &'a KnownVerdicts,
}

impl Inputs<'_> {
    /// No earlier than `ms` milliseconds from now.
    pub(super) fn mono_in(&self, ms: u64) -> Result<MonoMs, Rejection> {
        let later = self.mono.checked_add(self.slack_ms).and_then(|mono| mono.checked_add(ms));
        later.ok_or(Rejection::Invalid("the monotonic clock is out of range"))
    }

    /// No earlier than now.
    pub(super) fn wall_at_most(&self) -> WallMs {
        // seam: due times by a clock that is behind
        self.wall.saturating_add(self.slack_ms)
    }
}

/// How long all others may be held up for one message that is to be alone: what is left of what a process has for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldUp(pub(crate) u64);

impl HoldUp {
    pub(super) fn end(self, since: MonoMs) -> MonoMs {
        since.saturating_add(self.0)
    }
}

/// Which messages may be delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Visible<'a> {
    /// All that are there.
    All,
    /// Those below an end, by number of partition; none in a partition without one.
    Ends(&'a Sparse<Offset>),
}

impl Visible<'_> {
    #[inline]
    pub(crate) fn end(&self, partition: PartitionId, end: Offset) -> Offset {
        match self {
            Self::All => end,
            Self::Ends(ends) => ends.get(partition.0).copied().unwrap_or_default().min(end),
        }
    }
}

/// A message that somebody says to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) token: Token,
}

impl From<Held> for HeldRun {
    fn from(first: Held) -> Self {
        Self { first, count: 1 }
    }
}

/// Messages next to each other that somebody says to hold by one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldRun {
    pub(crate) first: Held,
    pub(crate) count: u32,
}

impl HeldRun {
    /// One of them.
    pub(crate) fn nth(&self, nth: u32) -> Held {
        Held { offset: self.first.offset.saturating_add(u64::from(nth)), ..self.first }
    }
}

/// The id under which message number `part` of a frame is published, as hashes of it and of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DedupId {
    pub(crate) part: u32,
    pub(crate) id: u128,
    pub(crate) body: u64,
}

/// The number that a producer of a topic gives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence<'a> {
    pub(crate) topic: TopicId,
    pub(crate) producer: &'a str,
    pub(crate) number: u64,
}

/// When a message is wanted that is published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    /// So many milliseconds from now.
    In(u64),
    /// When the wall clock says so.
    At(WallMs),
}

/// Message number `part` of a frame goes to a partition later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    pub(crate) part: u32,
    pub(crate) to: PartitionId,
    pub(crate) later: Later,
}

/// Message number `part` of a frame was accepted before: under this id, in the frame at this LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub(crate) part: u32,
    pub(crate) id: MessageId,
    pub(crate) lsn: Lsn,
}

/// Where a message was published first, which may have to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publication {
    Here {
        epoch: Epoch,
        time: WallMs,
    },
    /// It is a copy.
    Elsewhere(Origin),
}

/// What follows the copy of a message that moves to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing, as far as the caller knows.
    Unasked,
    /// Nothing, whatever its group asks for: the message is a notice itself.
    Never,
    /// The next part, which is published to this partition.
    Into(PartitionId),
}

/// What is known of a message that may have to move to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moving {
    pub(crate) published: Publication,
    pub(crate) notice: Notice,
}

/// Options of a group that are to change; the others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupChanges {
    pub(crate) visibility_timeout_ms: Option<u64>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) max_nacks: Option<u32>,
    pub(crate) max_expiries: Option<u32>,
    pub(crate) max_crashes: Option<u32>,
    pub(crate) backoff: Option<BackoffOptions>,
    pub(crate) max_outstanding: Option<u32>,
    pub(crate) max_closes: Option<u32>,
    pub(crate) notices: Option<Option<TopicId>>,
    pub(crate) paused: Option<bool>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) rate: Option<RateOptions>,
    /// For messages that the group has not looked at. A filter, or none at all.
    pub(crate) filter: Option<Option<Arc<Filter>>>,
}

impl GroupChanges {
    pub(crate) fn applied_to(&self, options: &GroupOptions) -> GroupOptions {
        let Self { visibility_timeout_ms, max_attempts, max_nacks, max_expiries, max_crashes, .. } = self;
        let Self { backoff, max_outstanding, max_closes, notices, paused, max_in_flight, rate, filter, .. } = self;
        GroupOptions {
            visibility_timeout_ms: visibility_timeout_ms.unwrap_or(options.visibility_timeout_ms),
            max_attempts: max_attempts.unwrap_or(options.max_attempts),
            max_nacks: max_nacks.unwrap_or(options.max_nacks),
            max_expiries: max_expiries.unwrap_or(options.max_expiries),
            max_crashes: max_crashes.unwrap_or(options.max_crashes),
            backoff: backoff.as_ref().unwrap_or(&options.backoff).clone(),
            max_outstanding: max_outstanding.unwrap_or(options.max_outstanding),
            max_closes: max_closes.unwrap_or(options.max_closes),
            notices: notices.unwrap_or(options.notices),
            ordering: options.ordering,
            max_in_flight_per_key: options.max_in_flight_per_key,
            paused: paused.unwrap_or(options.paused),
            max_in_flight: max_in_flight.unwrap_or(options.max_in_flight),
            rate: rate.unwrap_or(options.rate),
            filter: filter.as_ref().unwrap_or(&options.filter).clone(),
        }
    }
}

/// What somebody wants to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command<'a> {
    /// A process begins: comes before all others, under an epoch that was never used.
    Open {
        epoch: Epoch,
        clean: bool,
    },
    /// The wall clock and the monotonic one have come apart.
    NoteClockJump,
    CreateTopic {
        name: &'a str,
        partitions: u32,
        options: TopicOptions,
    },
    /// `starts`: the first offset that the group wants, for each of the topic's partitions; none beyond its end.
    CreateGroup {
        topic: TopicId,
        name: &'a str,
        options: &'a GroupOptions,
        starts: &'a [Offset],
    },
    /// With its groups, and all that they have in progress.
    RemoveTopic {
        topic: TopicId,
    },
    RemoveGroup {
        group: GroupId,
    },
    /// Gives a topic its hidden partition of messages for later.
    CreateSchedule {
        topic: TopicId,
    },
    /// Marks how far a topic has come that keeps its messages for a time.
    MarkRetention {
        topic: TopicId,
    },
    /// Drops messages of a topic that a group has not come to and that its retention keeps no longer.
    DropOld {
        topic: TopicId,
    },
    /// A scheduled message is wanted at another time, or with `None` not at all.
    Reschedule {
        at: (PartitionId, Offset),
        /// That of the message's id; `None` for whichever is there.
        epoch: Option<Epoch>,
        later: Option<Later>,
    },
    /// A scheduled message is due.
    MoveDue {
        at: (PartitionId, Offset),
        published: Publication,
    },
    AlterGroup {
        group: GroupId,
        changes: &'a GroupChanges,
    },
    /// A group goes on at these offsets, one for each of its topic's partitions; none beyond its end. What it has in progress from `from` on
    /// up to there it gets again as well.
    Seek {
        group: GroupId,
        from: &'a [Offset],
        starts: &'a [Offset],
    },
    /// So many messages into each of these partitions, which are distinct partitions of topics: one record each, in order.
    Publish {
        runs: &'a [(PartitionId, u32)],
        /// Of those that have one, in order.
        ids: &'a [DedupId],
        /// Of those that go into the hidden partition of messages for later, in order.
        delays: &'a [Delay],
        /// Of those that have one, in order.
        uniques: &'a [UniqueKey],
        /// That of the one message, if a producer numbers it.
        sequence: Option<Sequence<'a>>,
    },
    /// Appends `count` messages to a stream. `ids` of those that have one; `fact`: what the index said of the stream, if it was asked.
    Append {
        stream: StreamId,
        count: u32,
        expected: Expected,
        ids: &'a [DedupId],
        fact: Option<StreamFact>,
    },
    /// Takes all events below version `first` from a stream.
    TruncateStream {
        stream: StreamId,
        first: u64,
        fact: Option<StreamFact>,
    },
    /// Saves a snapshot of a stream as it is after event `version`.
    SaveSnapshot {
        stream: StreamId,
        version: u64,
        fact: Option<StreamFact>,
    },
    /// Sets a cursor that stands at `expected`, or that is not there.
    SetCursor {
        name: &'a str,
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        hold: Option<Hold>,
    },
    RemoveCursor {
        name: &'a str,
    },
    /// Exhausted messages are asked for first, unless they are to be skipped: they cannot be moved just now.
    Lease {
        group: GroupId,
        max: u32,
        pass_exhausted: bool,
        /// Where room is short: messages that never were leased, which add to what is outstanding, come after all others, and at most so
        /// many.
        new_last: Option<u32>,
        /// The keys of messages that an earlier decision asked for.
        keys: Option<KeyRun<'a>>,
        /// How many messages the call has looked at so far.
        looked_at: u32,
    },
    /// Settles messages that do not pass the group's filter, as far as that is known.
    SettleFiltered {
        group: GroupId,
        /// Of this partition also what passes is looked at, so that what is behind it can be settled.
        ahead: Option<PartitionId>,
        parked_max: ParkedMax,
    },
    /// Those whose tokens are dead are reported and change nothing; the others are acked.
    Ack {
        group: GroupId,
        held: &'a [HeldRun],
    },
    /// Gives a message back for another attempt after `delay_ms`, or after the group's backoff; to the dead letters if
    /// this was the last attempt.
    Nack {
        group: GroupId,
        held: Held,
        delay_ms: Option<u64>,
        text: &'a str,
        moving: Moving,
    },
    /// Sends a message to the dead letters now.
    Reject {
        group: GroupId,
        held: Held,
        text: &'a str,
        moving: Moving,
    },
    /// Keeps a lease for `for_ms` from now on; never makes it shorter.
    Extend {
        group: GroupId,
        held: Held,
        for_ms: u64,
    },
    /// Gives messages back unused. Those whose tokens are dead are reported and change nothing.
    Release {
        group: GroupId,
        held: &'a [HeldRun],
    },
    /// Gives back a message that could not be read.
    Unreadable {
        group: GroupId,
        held: Held,
    },
    /// Sends a message to the dead letters that `Lease` found exhausted.
    GiveUp {
        group: GroupId,
        partition: PartitionId,
        offset: Offset,
        moving: Moving,
    },
    /// Such a message cannot be copied now (no room, or it cannot be read): it is looked at again later.
    Postpone {
        at: (GroupId, PartitionId, Offset),
    },
    /// Sends a dead letter to a topic's partition, or to its group again.
    Redrive {
        group: GroupId,
        dead_letter: Offset,
        to: Option<PartitionId>,
        provenance: &'a Provenance,
    },
    Discard {
        group: GroupId,
        dead_letter: Offset,
    },
    /// Publishes, acks, nacks and rejections, all in one frame or none. Their records claim `parts` messages. `settled_len`: the bytes of
    /// the messages that are settled.
    Transaction {
        steps: &'a [Command<'a>],
        parts: u32,
        settled_len: u64,
    },
}

#[cfg(test)]
impl<'a> Command<'a> {
    /// A publish of messages without ids.
    pub(crate) const fn publish(runs: &'a [(PartitionId, u32)]) -> Self {
        Self::Publish { runs, ids: &[], delays: &[], uniques: &[], sequence: None }
    }
}

/// What follows from a command, beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Done,
    /// There is nothing to lease now; there are no records.
    Nothing,
    /// This message must be dead-lettered or postponed before anything is leased; there are no records.
    Exhausted {
        partition: PartitionId,
        offset: Offset,
    },
    /// Before anything is leased, the group has to look at these messages, whose keys are not known; there are no records.
    KeysNeeded {
        partition: PartitionId,
        first: Offset,
        count: u32,
    },
    /// The group has looked at so many messages; it may be asked again for a lease.
    Considered {
        count: u32,
    },
    /// Before anything is leased, the group's filter has to be asked about these messages; there are no records.
    VerdictsNeeded {
        partition: PartitionId,
        first: Offset,
        count: u32,
    },
    /// So many messages are done with, for they do not pass the group's filter or were looked at; there may be more.
    Filtered {
        count: u32,
    },
    /// `lost`: the numbers of those whose tokens were dead, counted over all runs, in order.
    Settled {
        lost: Vec<u32>,
    },
}
