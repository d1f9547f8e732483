//! The state of a store: the fold of its records, as a pure machine.
//!
//! `decide` turns a command and what the engine has read beforehand into records, or refuses; `apply` folds a record in.
//! The fold of the log is the state: the same records give the same state, byte for byte in its snapshot, and the same
//! state decides the same. Whoever drives it, in order: decide, append the records, apply each with the LSN of their
//! frame. Never here: disk, clocks, threads, randomness, or an order that is not part of the value.

mod apply;
mod backoff;
mod deadlines;
mod decide;
mod exclusive;
mod group;
mod history;
#[cfg(any(test, feature = "simulation"))]
mod invariants;
mod kit;
mod lease;
mod outstanding;
mod query;
mod queue;
mod settle;
mod snapshot;
#[cfg(test)]
mod tests;
mod topic;

pub(crate) use group::{Group, Kept};
pub(crate) use kit::sparse::Sparse;
pub(crate) use query::GroupCounts;
pub(crate) use snapshot::Snapshot;
pub(crate) use topic::{Role, Topic};

use crate::ids::{Epoch, GroupId, MonoMs, Offset, PartitionId, TopicId, WallMs};
use crate::record::{BackoffOptions, GroupOptions, Origin, Provenance, Token};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Everything that a store is, but for the bytes of its messages.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Zero until the first process has opened the store.
    epoch: Epoch,
    catalog: topic::Catalog,
    groups: BTreeMap<GroupId, Box<Group>>,
    exclusive: exclusive::Exclusive,
    /// What is no more: whoever holds the lock takes it out, to free it outside.
    removed: Vec<Removed>,
}

/// A group, or the partitions of a topic, that are no more.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    partitions: Range<u64>,
    /// Freed with this.
    _group: Option<Box<Group>>,
}

/// What the engine has read before it asks for a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    /// Never less than at an earlier decision in the same epoch, and never more than the time that it is.
    pub(crate) mono: MonoMs,
    pub(crate) wall: WallMs,
    /// By how much both clocks may be behind: what is to last a while lasts that much longer, so that nothing ends early.
    pub(crate) slack_ms: u64,
    pub(crate) hold_up: HoldUp,
    pub(crate) visible: Visible<'a>,
}

impl Inputs<'_> {
    /// No earlier than `ms` milliseconds from now.
    fn mono_in(&self, ms: u64) -> Result<MonoMs, Rejection> {
        let later = self.mono.checked_add(self.slack_ms).and_then(|mono| mono.checked_add(ms));
        later.ok_or(Rejection::Invalid("the monotonic clock is out of range"))
    }

    /// No earlier than now.
    fn wall_at_most(&self) -> WallMs {
        // seam: due times by a clock that is behind
        self.wall.saturating_add(self.slack_ms)
    }
}

/// How long all others may be held up for one message that is to be alone: what is left of what a process has for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldUp(pub(crate) u64);

impl HoldUp {
    fn end(self, since: MonoMs) -> MonoMs {
        since.saturating_add(self.0)
    }
}

/// Which messages may be handed out.
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

/// Options of a group that are to change; the others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupChanges {
    pub(crate) visibility_timeout_ms: Option<u64>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) backoff: Option<BackoffOptions>,
    pub(crate) max_outstanding: Option<u32>,
}

impl GroupChanges {
    pub(crate) fn applied_to(&self, options: &GroupOptions) -> GroupOptions {
        let Self { visibility_timeout_ms, max_attempts, backoff, max_outstanding } = self;
        GroupOptions {
            visibility_timeout_ms: visibility_timeout_ms.unwrap_or(options.visibility_timeout_ms),
            max_attempts: max_attempts.unwrap_or(options.max_attempts),
            backoff: backoff.unwrap_or(options.backoff),
            max_outstanding: max_outstanding.unwrap_or(options.max_outstanding),
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
    AlterGroup {
        group: GroupId,
        changes: &'a GroupChanges,
    },
    /// So many messages into each of these partitions, which are distinct partitions of topics: one record each, in order.
    Publish {
        runs: &'a [(PartitionId, u32)],
    },
    /// Exhausted messages are asked for first, unless they are to be passed over: they cannot be moved just now.
    Lease {
        group: GroupId,
        max: u32,
        pass_exhausted: bool,
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
        published: Publication,
    },
    /// Sends a message to the dead letters now.
    Reject {
        group: GroupId,
        held: Held,
        text: &'a str,
        published: Publication,
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
        published: Publication,
    },
    /// Such a message cannot be copied now (no room, or it cannot be read): it is looked at again later.
    PutOff {
        group: GroupId,
        partition: PartitionId,
        offset: Offset,
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
}

/// What follows from a command, beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Done,
    /// There is nothing to lease now; there are no records.
    Nothing,
    /// This message must be given up (or put off) before anything is leased; there are no records.
    Exhausted {
        partition: PartitionId,
        offset: Offset,
    },
    /// `lost`: the numbers of those whose tokens were dead, counted over all runs, in order.
    Settled {
        lost: Vec<u32>,
    },
}

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    UnknownTopic,
    UnknownGroup,
    UnknownPartition,
    /// The token is dead: the message was settled, or belongs to another holder, or to none since the store was reopened.
    LeaseLost,
    /// No dead letter has this offset, or it was settled.
    NoSuchDeadLetter,
    /// The dead letter was sent to topics as often as a message may be.
    TooManyRedrives,
    /// The message is not exhausted (any more).
    Stale,
    /// The name is taken.
    Exists,
    /// A bound of the engine, by its name in words.
    LimitReached(&'static str),
    /// The command contradicts itself or the state.
    Invalid(&'static str),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownTopic => "there is no such topic",
            Self::UnknownGroup => "there is no such group",
            Self::UnknownPartition => "there is no such partition",
            Self::LeaseLost => "the lease is lost",
            Self::NoSuchDeadLetter => "there is no such dead letter",
            Self::TooManyRedrives => "the dead letter was sent to topics too often",
            Self::Stale => "the message is no longer exhausted",
            Self::Exists => "the name is taken",
            Self::LimitReached(limit) => return write!(f, "the limit on {limit} is reached"),
            Self::Invalid(reason) => reason,
        })
    }
}

impl std::error::Error for Rejection {}

/// A record that does not follow from the state: the log and this code disagree, and nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inconsistent(pub(crate) &'static str);

impl fmt::Display for Inconsistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Inconsistent {}

impl State {
    /// A store that was never opened.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch(0),
            catalog: topic::Catalog::default(),
            groups: BTreeMap::new(),
            exclusive: exclusive::Exclusive::default(),
            removed: Vec::new(),
        }
    }

    /// A fingerprint of the state; see [`Snapshot::hash`].
    pub(crate) fn hash(&self) -> u64 {
        self.snapshot().hash()
    }

    /// The state as it is now. Copies pointers: little, however much is outstanding.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// What removals have taken out since the last call. Freeing it takes time in proportion to what was in progress.
    pub(crate) fn take_removed(&mut self) -> Vec<Removed> {
        std::mem::take(&mut self.removed)
    }

    /// Whether removals have taken something out since the last [`State::take_removed`].
    #[inline]
    pub(crate) fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// The partitions of what removals have taken out, as ranges of numbers.
    pub(crate) fn removed_partitions(&self) -> impl Iterator<Item = Range<u64>> {
        self.removed.iter().map(|removed| removed.partitions.clone())
    }
}
