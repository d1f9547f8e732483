//! Transactions: publishes and settlements in one frame.
//!
//! Whether a nack is the last one, and so needs a copy of its message, is asked before the frame is put together, and checked by the
//! decision. Never here: public handles.

use crate::engine::deliver::leased::LeasedMessage;
use crate::engine::deliver::notices::{MoveNotice, Moved};
use crate::engine::stream::facts::StreamFacts;
use crate::engine::stream::snapshots::no_such_version;
use crate::engine::stream::streams::{StreamAt, wrong_version};
use crate::engine::{Engine, Outgoing, Published};
use crate::error::{Error, RefusedEvent, Result};
use crate::ids::{Expected, GroupId};
use crate::record::{FailureCause, Hold, Record, StreamId};
use crate::state::{Command, HeldRun, Notice, Rejection, Repeat, StreamFact};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a transaction does to leases.
#[derive(Debug)]
pub(crate) enum Settlement<'a> {
    Ack {
        group: GroupId,
        held: Vec<HeldRun>,
        /// The bytes of its messages.
        len: u64,
    },
    Nack {
        message: LeasedMessage<'a>,
        delay_ms: Option<u64>,
        text: String,
    },
    Reject {
        message: LeasedMessage<'a>,
        text: String,
    },
}

/// Where a transaction sets a cursor.
#[derive(Debug)]
pub(crate) struct CursorChange {
    pub(crate) name: String,
    pub(crate) expected: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) hold: Option<Hold>,
}

/// What a transaction appends to a stream.
pub(crate) struct StreamAppend {
    pub(crate) stream: StreamId,
    pub(crate) key: Arc<[u8]>,
    pub(crate) expected: Expected,
    pub(crate) outgoing: Outgoing,
}

/// What a transaction saves of a stream.
pub(crate) struct SnapshotSave {
    pub(crate) stream: StreamId,
    pub(crate) key: Arc<[u8]>,
    pub(crate) version: u64,
    pub(crate) note: Outgoing,
}

impl StreamAppend {
    fn refused(&self, number: u32) -> RefusedEvent {
        StreamAt { id: self.stream, key: &self.key }.refused(number)
    }

    fn command(&self, fact: Option<StreamFact>) -> Command<'_> {
        let Self { stream, expected, outgoing, .. } = self;
        let count = outgoing.len() as u32;
        Command::Append { stream: *stream, count, expected: *expected, ids: outgoing.ids(), fact }
    }
}

impl SnapshotSave {
    fn command(&self, fact: Option<StreamFact>) -> Command<'_> {
        Command::SaveSnapshot { stream: self.stream, version: self.version, fact }
    }
}

/// All that a transaction is to do.
pub(crate) struct Work<'a, 'b> {
    pub(crate) outgoing: &'b Outgoing,
    pub(crate) appends: &'b [StreamAppend],
    pub(crate) snapshots: &'b [SnapshotSave],
    pub(crate) settlements: &'b [Settlement<'a>],
    pub(crate) cursors: &'b [CursorChange],
}

impl Work<'_, '_> {
    /// What is decided, with `facts` of its streams and `notices`, one for each settlement, as far as they are known.
    fn steps<'s>(&'s self, facts: &StreamFacts<'_>, notices: &[MoveNotice]) -> Vec<Command<'s>> {
        let Work { outgoing, appends, snapshots, settlements, cursors } = self;
        let mut steps = Vec::with_capacity(appends.len() + snapshots.len() + settlements.len() + cursors.len() + 1);
        // In the order of their messages.
        steps.extend((outgoing.len() > 0).then(|| outgoing.command(None)));
        steps.extend(appends.iter().map(|append| append.command(facts.of(append.stream))));
        steps.extend(snapshots.iter().map(|save| save.command(facts.of(save.stream))));
        steps.extend(settlements.iter().zip(notices).map(|(settlement, made)| settlement.command(made.notice)));
        steps.extend(cursors.iter().map(CursorChange::command));
        steps
    }

    /// The append that a step is.
    fn append(&self, step: u32) -> Option<&StreamAppend> {
        // seam: another event is named
        let nth = (step as usize).checked_sub(usize::from(self.outgoing.len() > 0))?;
        self.appends.get(nth)
    }

    /// The first event whose id a message before it has.
    fn event_with_id_given_twice(&self) -> Option<RefusedEvent> {
        let mut seen: BTreeSet<u128> = self.outgoing.ids().iter().map(|id| id.id).collect();
        self.appends.iter().find_map(|append| {
            let twice = append.outgoing.ids().iter().find(|id| !seen.insert(id.id))?;
            Some(append.refused(twice.part))
        })
    }

    /// The cursor that a step sets, of which `before` come before the settlements.
    fn cursor(&self, step: u32, before: usize) -> String {
        let nth = (step as usize).saturating_sub(before + self.settlements.len());
        self.cursors.get(nth).map(|cursor| cursor.name.clone()).unwrap_or_default()
    }
}

/// What a transaction did.
pub(crate) struct Transacted {
    pub(crate) published: Published,
    /// By append: the version of its first event.
    pub(crate) appended: Vec<u64>,
}

impl CursorChange {
    fn command(&self) -> Command<'_> {
        let Self { name, expected, value, hold } = self;
        Command::SetCursor { name, expected: expected.as_deref(), value, hold: *hold }
    }
}

impl Settlement<'_> {
    /// How many records it may lead to.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Ack { held, .. } => held.len(),
            Self::Nack { .. } | Self::Reject { .. } => 1,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Ack { len, .. } => *len,
            // Its copy is among what is added.
            Self::Reject { message, .. } => message.part().len() as u64,
            // It comes back.
            Self::Nack { .. } => 0,
        }
    }

    fn command(&self, notice: Notice) -> Command<'_> {
        match self {
            Self::Ack { group, held, .. } => Command::Ack { group: *group, held },
            Self::Nack { message, delay_ms, text } => message.nack(*delay_ms, text, notice),
            Self::Reject { message, text } => message.reject(text, notice),
        }
    }

    /// The message that it may move to the dead letters.
    fn moved(&self) -> Option<Moved<'_>> {
        match self {
            Self::Ack { .. } => None,
            Self::Nack { message, text, .. } => Some(message.moved(FailureCause::Nacked, text)),
            Self::Reject { message, text } => Some(message.moved(FailureCause::Rejected, text)),
        }
    }
}

/// Why nothing of a transaction was done.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// Message `number` of this settlement is no longer leased to the caller.
    LeaseLost { settlement: usize, number: u32 },
    /// Message `number` of this settlement is settled by another one as well.
    Twice { settlement: usize, number: u32, reason: &'static str },
    /// These messages were accepted before; all else can be done without them.
    Repeated(Vec<Repeat>),
}

impl Engine {
    /// Publishes, appends and settles in one frame.
    ///
    /// # Errors
    /// Whatever keeps any of it from being done; nothing was done then.
    pub(crate) fn transact(&self, work: &Work<'_, '_>) -> Result<Result<Transacted, NotDone>> {
        self.enter()?;
        let Work { outgoing, appends, snapshots, settlements, .. } = work;
        let before = usize::from(outgoing.len() > 0) + appends.len() + snapshots.len();
        // seam: a transaction is two frames
        // seam: a cursor is ahead of its output
        let none = |_| MoveNotice::none(Notice::Unasked);
        let mut notices: Vec<MoveNotice> = settlements.iter().map(none).collect();
        let appended = appends.iter().map(|append| append.stream);
        let streams: Vec<StreamId> = appended.chain(snapshots.iter().map(|save| save.stream)).collect();
        if !streams.is_empty() {
            self.check_index_room()?;
        }
        loop {
            let with_others = self.with_others(work, &notices)?;
            let parts = with_others.as_ref().unwrap_or(outgoing).parts();
            let submitted = self.submit_with_facts(&streams, |facts| {
                let steps = work.steps(facts, &notices);
                let settled_len = settlements.iter().map(Settlement::len).sum();
                let command = Command::Transaction { steps: &steps, parts: parts.ends.len() as u32, settled_len };
                self.try_submit(&command, parts, |core, committed| {
                    let published = Published::of(core, committed, outgoing.runs());
                    let appended =
                        core.records.iter().filter_map(Record::appends).map(|(version, _)| version).collect();
                    (Transacted { published, appended }, core.view.streams.len())
                })
            })?;
            match submitted {
                Ok(transacted) => {
                    if outgoing.has_delays() {
                        self.due_times_changed();
                    }
                    return Ok(Ok(transacted));
                }
                Err(Rejection::NoticeDue) => notices = self.notices(settlements)?,
                Err(rejection) => return self.not_done(rejection, work, before),
            }
        }
    }

    /// All messages of the frame, in the order of its steps: what is published, appended and saved, what moves to the dead letters, and the
    /// `notices` of that, one for each settlement. `None` where only something is published.
    fn with_others(&self, work: &Work<'_, '_>, notices: &[MoveNotice]) -> Result<Option<Outgoing>> {
        let copies = self.copies(work.settlements).into_iter().zip(notices);
        let copies: Vec<&[u8]> =
            copies.flat_map(|(copy, made)| copy.into_iter().flat_map(|copy| made.parts_of_move(copy))).collect();
        let noted = work.snapshots.iter().map(|save| &save.note);
        let others: Vec<&Outgoing> = work.appends.iter().map(|append| &append.outgoing).chain(noted).collect();
        let has_others = !copies.is_empty() || !others.is_empty();
        has_others.then(|| work.outgoing.with_others(&others, &copies)).transpose()
    }

    fn not_done(
        &self,
        rejection: Rejection,
        work: &Work<'_, '_>,
        before: usize,
    ) -> Result<Result<Transacted, NotDone>> {
        match rejection {
            Rejection::LeaseLostIn { step, number } => {
                Ok(Err(NotDone::LeaseLost { settlement: (step as usize).saturating_sub(before), number }))
            }
            Rejection::InvalidIn { step, number, reason } => {
                let settlement = (step as usize).checked_sub(before).filter(|nth| *nth < work.settlements.len());
                if let Some(settlement) = settlement {
                    return Ok(Err(NotDone::Twice { settlement, number, reason }));
                }
                Err(Error::InvalidTransaction { reason: format!("{reason}: {}", work.cursor(step, before)) })
            }
            Rejection::Invalid(reason) => {
                let event = work.event_with_id_given_twice();
                let named = |event| format!("{reason}: {event}");
                Err(Error::InvalidTransaction { reason: event.map_or_else(|| reason.to_owned(), named) })
            }
            Rejection::CursorMovedIn { step } => Err(Error::CursorMoved { name: work.cursor(step, before) }),
            Rejection::Repeated(repeats) => Ok(Err(NotDone::Repeated(repeats))),
            Rejection::DedupConflict { first, .. } => Err(self.dedup_conflict(*first, None)),
            Rejection::KeyPending { pending } => Err(self.key_pending(*pending)),
            Rejection::DedupConflictIn { step, part, first } => {
                Err(self.dedup_conflict(*first, work.append(step).map(|append| append.refused(part))))
            }
            Rejection::WrongVersionIn { step, actual } => {
                let (key, expected) =
                    work.append(step).map_or((&[][..], Expected::Any), |append| (&append.key[..], append.expected));
                Err(wrong_version(key, expected, actual))
            }
            Rejection::NoSuchVersion { stream, actual } => {
                let of = work.snapshots.iter().find(|save| save.stream == stream);
                let (key, version) = of.map_or((&[][..], 0), |save| (&save.key[..], save.version));
                Err(no_such_version(key, version, actual))
            }
            rejection => Err(self.rejected(rejection)),
        }
    }

    /// The notices of the settlements that may move a message.
    fn notices(&self, settlements: &[Settlement<'_>]) -> Result<Vec<MoveNotice>> {
        let of = |settlement: &Settlement<'_>| match settlement.moved() {
            Some(moved) => self.notice(&moved),
            None => Ok(MoveNotice::none(Notice::Unasked)),
        };
        settlements.iter().map(of).collect()
    }

    /// Of each settlement the message that moves to the dead letters. As long as a lease lasts its message keeps its limit of attempts, so the
    /// decision comes to the same.
    fn copies<'a>(&self, settlements: &[Settlement<'a>]) -> Vec<Option<&'a [u8]>> {
        let may_copy = |settlement: &Settlement<'_>| match settlement {
            Settlement::Ack { .. } => false,
            Settlement::Nack { .. } | Settlement::Reject { .. } => true,
        };
        if !settlements.iter().any(may_copy) {
            return Vec::new();
        }
        let core = self.lock_core();
        let copied = |settlement: &Settlement<'a>| match settlement {
            Settlement::Ack { .. } => None,
            Settlement::Nack { message, .. } => {
                let moves = core.view.state.nack_moves(message.group, message.held());
                moves.then(|| message.part())
            }
            Settlement::Reject { message, .. } => Some(message.part()),
        };
        settlements.iter().map(copied).collect()
    }
}
