//! The outstanding messages of a group in the order in which they may be leased again.
//!
//! A message stands in the queue of its class, and there under its phase. Everything here can be derived from the slots:
//! it is kept so that the next one is found without looking at the others. Never here: a decision.

use super::deadlines::{Deadlines, LeaseKey, key};
use super::outstanding::{Lease, OutstandingEntry, Phase, Prospect};
use crate::ids::{MonoMs, Offset, WallMs};
use crate::state::group::GroupState;
use std::collections::BTreeSet;

/// What a message's next attempt would be, once it may have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum AttemptClass {
    /// One among others.
    Plain,
    /// One that may only be made under an exclusive lease.
    Exclusive,
    /// None: it goes to the dead letters.
    Exhausted,
}

/// The class of a message, from its account. A lease counts as ended by its timeout here: while it lasts, this is what the
/// message would be afterwards.
pub(in crate::state) fn class(entry: &OutstandingEntry) -> AttemptClass {
    let is_leased = entry.lease().is_some();
    let (prospect, crashed) = if is_leased { (Prospect::None, false) } else { (entry.prospect, entry.crashes > 0) };
    // seam: a limit of expiries is not kept
    if entry.attempts == u32::MAX || prospect == Prospect::Over || entry.lease().is_some_and(|lease| lease.is_last) {
        return AttemptClass::Exhausted;
    }
    match entry.max_attempts {
        0 if prospect == Prospect::Alone => AttemptClass::Exclusive,
        0 => AttemptClass::Plain,
        // Its crashes were never alone, and there were enough of them.
        // seam: one more attempt for ever
        _ if crashed && entry.is_crash_limit_reached() => AttemptClass::Exhausted,
        max if entry.attempts >= max && prospect != Prospect::None => AttemptClass::Exclusive,
        // seam: the attempts have no cap
        max if entry.attempts >= max => AttemptClass::Exhausted,
        _ if prospect == Prospect::Alone => AttemptClass::Exclusive,
        max if entry.attempts + 1 == max && crashed => AttemptClass::Exclusive,
        _ => AttemptClass::Plain,
    }
}

/// Where the next message to be leased comes from. They take turns: the one that gave the last message is the last to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) enum Source {
    /// Leases that ended.
    Ended,
    /// Messages whose due time has come.
    Waited,
    /// Messages that failed and are ready at once.
    Ready,
    /// Messages of which no attempt is on the account: those given back before anybody saw them, in offset order, and then those that were
    /// never leased.
    #[default]
    New,
}

impl Source {
    const ALL: [Self; 4] = [Self::Ended, Self::Waited, Self::Ready, Self::New];

    /// The sources in the order in which they are asked after this one gave a message.
    pub(in crate::state) fn turns(self) -> impl Iterator<Item = Self> {
        // seam: retries come before what is new for ever
        let after = self as usize + 1;
        (0..Self::ALL.len()).map(move |nth| Self::ALL[(after + nth) % Self::ALL.len()])
    }

    /// The number by which a snapshot knows it.
    pub(in crate::state) fn number(self) -> u64 {
        self as u64
    }

    pub(in crate::state) fn numbered(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// That of the outstanding message there.
    pub(in crate::state) fn of_place(group: &GroupState, cursor: u32, offset: Offset) -> Self {
        group.entry(cursor, offset).map_or(Self::New, Self::of)
    }

    /// That of an outstanding message that is leased again.
    pub(in crate::state) fn of(entry: &OutstandingEntry) -> Self {
        match entry.phase {
            Phase::Leased(_) => Self::Ended,
            Phase::Waiting { .. } => Self::Waited,
            Phase::Ready { .. } if entry.attempts == 0 => Self::New,
            Phase::Ready { .. } => Self::Ready,
            Phase::Parked { .. } => Self::New,
        }
    }
}

/// Leased messages that wait for a while once their leases have ended: few, and in no order that they come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Backoffs {
    /// By the time from which on each may be leased again.
    again: BTreeSet<(MonoMs, u32, Offset)>,
    /// By the ends of their leases.
    ends: BTreeSet<(MonoMs, u32, Offset)>,
}

impl Backoffs {
    fn insert(&mut self, cursor: u32, offset: Offset, entry: &OutstandingEntry, lease: &Lease) {
        self.again.insert((entry.leasable_from(lease), cursor, offset));
        self.ends.insert((lease.until, cursor, offset));
    }

    fn remove(&mut self, cursor: u32, offset: Offset, entry: &OutstandingEntry, lease: &Lease) {
        self.again.remove(&(entry.leasable_from(lease), cursor, offset));
        self.ends.remove(&(lease.until, cursor, offset));
    }

    fn first(&self) -> Option<MonoMs> {
        self.again.first().map(|(again, ..)| *again)
    }

    fn next_after(&self, mono: MonoMs) -> Option<MonoMs> {
        let from = (mono.checked_add(1)?, 0, Offset(0));
        self.again.range(from..).next().map(|(again, ..)| *again)
    }
}

/// The messages of one class.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Queue {
    /// Of messages that may be leased again as soon as these have ended.
    pub(in crate::state) leases: Deadlines,
    pub(in crate::state) backoffs: Backoffs,
    pub(in crate::state) waiting: BTreeSet<(WallMs, u32, Offset)>,
    pub(in crate::state) ready: BTreeSet<(u64, u32, Offset)>,
    /// Ready, and no attempt is on the account.
    pub(in crate::state) unseen: BTreeSet<(u32, Offset)>,
}

impl Queue {
    /// How many messages there are.
    pub(in crate::state) fn len(&self) -> u64 {
        self.lease_count() + (self.waiting.len() + self.ready.len() + self.unseen.len()) as u64
    }

    /// How many messages are leased, by leases that are over or not.
    pub(in crate::state) fn lease_count(&self) -> u64 {
        self.leases.len() + self.backoffs.ends.len() as u64
    }

    /// How many messages are leased by leases that end after `mono`, or a few more. Looks through these leases.
    pub(in crate::state) fn lease_count_after(&self, mono: MonoMs) -> u64 {
        let after = (mono.saturating_add(1), 0, Offset(0));
        self.leases.len_after(mono) + self.backoffs.ends.range(after..).count() as u64
    }

    /// Whether a source has none that may be leased now. Most have none.
    #[inline]
    pub(in crate::state) fn is_idle(&self, source: Source, mono: MonoMs, wall: WallMs) -> bool {
        match source {
            Source::Ended => {
                self.leases.first().is_none_or(|key| key.0 > mono)
                    && self.backoffs.first().is_none_or(|again| again > mono)
            }
            Source::Waited => self.waiting.first().is_none_or(|(due, ..)| *due > wall),
            Source::Ready => self.ready.is_empty(),
            Source::New => self.unseen.is_empty(),
        }
    }

    /// Those of a source that may be leased now, by age.
    pub(in crate::state) fn due(
        &self,
        source: Source,
        mono: MonoMs,
        wall: WallMs,
        holds: impl Fn(&LeaseKey) -> bool,
    ) -> impl Iterator<Item = (u32, Offset)> {
        let is = |one| source == one;
        let ended = is(Source::Ended).then(|| self.ended(mono, holds));
        let due = move |&&(due, ..): &&(WallMs, u32, Offset)| due <= wall;
        let waited =
            is(Source::Waited).then(|| self.waiting.iter().take_while(due).map(|&(_, cursor, at)| (cursor, at)));
        let ready = is(Source::Ready).then(|| self.ready.iter().map(|&(_, cursor, offset)| (cursor, offset)));
        let unseen = is(Source::New).then(|| self.unseen.iter().copied());
        let (waited, ready) = (waited.into_iter().flatten(), ready.into_iter().flatten());
        ended.into_iter().flatten().chain(waited).chain(ready).chain(unseen.into_iter().flatten())
    }

    /// Those whose leases have ended and that wait no longer, by the time since when that is so.
    fn ended(&self, mono: MonoMs, holds: impl Fn(&LeaseKey) -> bool) -> impl Iterator<Item = (u32, Offset)> {
        let plain = self.leases.expired(mono, holds).map(|(until, _, _, cursor, offset)| (until, cursor, offset));
        let (mut plain, mut again) = (plain.peekable(), self.backoffs.again.iter().copied().peekable());
        std::iter::from_fn(move || {
            let from = again.peek().map(|(from, ..)| *from).filter(|from| *from <= mono);
            match (plain.peek(), from) {
                (Some((until, ..)), Some(from)) if from < *until => again.next(),
                (None, Some(_)) => again.next(),
                _ => plain.next(),
            }
        })
        .map(|(_, cursor, offset)| (cursor, offset))
    }

    /// The latest end of any lease.
    pub(in crate::state) fn latest_end(&self) -> Option<MonoMs> {
        self.leases.latest().max(self.backoffs.ends.last().map(|(until, ..)| *until))
    }

    /// The next time after `mono` at which a message may be leased since its lease has ended.
    pub(in crate::state) fn next_ended_after(&self, mono: MonoMs) -> Option<MonoMs> {
        self.leases.next_after(mono).into_iter().chain(self.backoffs.next_after(mono)).min()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.backoffs.again.is_empty()
            && self.leases.is_empty()
            && self.waiting.is_empty()
            && self.ready.is_empty()
            && self.unseen.is_empty()
    }

    /// Whether no source has one that may be leased now.
    #[inline]
    pub(in crate::state) fn is_all_idle(&self, mono: MonoMs, wall: WallMs) -> bool {
        self.is_empty() || Source::ALL.into_iter().all(|source| self.is_idle(source, mono, wall))
    }

    /// The first of those of all sources.
    #[inline]
    pub(in crate::state) fn first_due(&self, mono: MonoMs, wall: WallMs) -> Option<(u32, Offset)> {
        if self.is_empty() {
            return None;
        }
        let leases = self.leases.first().map(|(until, _, _, cursor, offset)| (until, cursor, offset));
        let ended = leases.into_iter().chain(self.backoffs.again.first().copied()).min();
        let ended = ended.filter(|(from, ..)| *from <= mono).map(|(_, cursor, offset)| (cursor, offset));
        let waited = || self.waiting.first().filter(|(due, ..)| *due <= wall).map(|&(_, cursor, at)| (cursor, at));
        let ready = || self.ready.first().map(|&(_, cursor, offset)| (cursor, offset));
        ended.or_else(waited).or_else(ready).or_else(|| self.unseen.first().copied())
    }

    /// The first due time after `wall`.
    pub(in crate::state) fn next_due_after(&self, wall: WallMs) -> Option<WallMs> {
        let from = (wall.checked_add(1)?, 0, Offset(0));
        self.waiting.range(from..).next().map(|&(due, ..)| due)
    }
}

/// The queues of a group.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Queues {
    plain: Queue,
    exclusive: Queue,
    exhausted: Queue,
}

impl Queues {
    pub(in crate::state) fn of(&self, class: AttemptClass) -> &Queue {
        match class {
            AttemptClass::Plain => &self.plain,
            AttemptClass::Exclusive => &self.exclusive,
            AttemptClass::Exhausted => &self.exhausted,
        }
    }

    fn of_mut(&mut self, class: AttemptClass) -> &mut Queue {
        match class {
            AttemptClass::Plain => &mut self.plain,
            AttemptClass::Exclusive => &mut self.exclusive,
            AttemptClass::Exhausted => &mut self.exhausted,
        }
    }

    pub(in crate::state) fn all(&self) -> [&Queue; 3] {
        [&self.plain, &self.exclusive, &self.exhausted]
    }

    pub(in crate::state) fn all_mut(&mut self) -> [&mut Queue; 3] {
        [&mut self.plain, &mut self.exclusive, &mut self.exhausted]
    }

    /// Enters a message where its account says.
    #[inline]
    pub(in crate::state) fn insert(&mut self, cursor: u32, offset: Offset, entry: &OutstandingEntry) {
        let queue = self.of_mut(class(entry));
        match &entry.phase {
            Phase::Leased(lease) if entry.backoff_ms > 0 => queue.backoffs.insert(cursor, offset, entry, lease),
            Phase::Leased(lease) if lease.extended => queue.leases.push_apart(key(lease, cursor, offset)),
            Phase::Leased(lease) => queue.leases.push(key(lease, cursor, offset), 1),
            Phase::Waiting { due, .. } => drop(queue.waiting.insert((*due, cursor, offset))),
            Phase::Ready { .. } if entry.attempts == 0 => drop(queue.unseen.insert((cursor, offset))),
            Phase::Ready { turn } => drop(queue.ready.insert((*turn, cursor, offset))),
            // Those stand in line by their keys.
            Phase::Parked { .. } => {}
        }
    }

    /// Enters `count` messages from `first` on, each of which is as `slot`, under a lease that was never extended.
    pub(in crate::state) fn insert_leased(&mut self, cursor: u32, first: Offset, count: u32, entry: &OutstandingEntry) {
        if let Some(lease) = entry.lease() {
            self.of_mut(class(entry)).leases.push(key(lease, cursor, first), count);
        }
    }

    /// Takes a message out, which has not changed since it was entered. [`Queues::tidy`] follows once it has changed.
    #[inline]
    pub(in crate::state) fn remove(&mut self, cursor: u32, offset: Offset, entry: &OutstandingEntry) {
        let queue = self.of_mut(class(entry));
        match &entry.phase {
            Phase::Leased(lease) if entry.backoff_ms > 0 => queue.backoffs.remove(cursor, offset, entry, lease),
            Phase::Leased(lease) => queue.leases.remove(&key(lease, cursor, offset)),
            Phase::Waiting { due, .. } => drop(queue.waiting.remove(&(*due, cursor, offset))),
            Phase::Ready { .. } if entry.attempts == 0 => drop(queue.unseen.remove(&(cursor, offset))),
            Phase::Ready { turn } => drop(queue.ready.remove(&(*turn, cursor, offset))),
            Phase::Parked { .. } => {}
        }
    }

    #[inline]
    pub(in crate::state) fn tidy(&mut self, holds: impl Fn(&LeaseKey) -> bool) {
        for queue in self.all_mut() {
            queue.leases.tidy(&holds);
        }
    }
}
