//! What the one lock holds: log end, state, positions, and the sleeping consumers.
//!
//! [`Core::commit`] is the write path of every operation: decide, append, apply, in one hold of the lock, with no
//! system call and no allocation per record. Never here: syncing, creating files, waiting for the disk, user code.

use super::rates::Rates;
use super::refusal::Refusal;
use super::room::reserve_of;
use crate::ids::{FileNumber, GroupId, Lsn, MonoMs, PartitionId};
use crate::log::{AppendError, Appended, Appender, ControlFrame, Parts, Reserve};
use crate::record::{RateOptions, Record, Wakes, codec};
use crate::state::{Command, Decision, HoldUp, Inputs, Role, State};
use crate::view::{Counters, FrameAt, Now, View};
use crate::wait::WaitList;
use std::sync::Arc;

/// The store's changing parts. One lock holds them together.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) view: View,
    pub(crate) appender: Appender,
    pub(crate) waiters: WaitList,
    /// This process's `opened` record: applied already, and to be appended before any other.
    pub(crate) unwritten_open: Option<Record>,
    pub(crate) last_sync: Option<MonoMs>,
    /// The background threads are woken when the log ends beyond this: because they rest, or because much waits for a sync.
    pub(crate) wake_beyond: Lsn,
    /// Whether the background threads know that a segment is to be created ahead.
    pub(crate) standby_asked: bool,
    /// How many more messages may be leased before somebody looks at the room on the disk again.
    pub(crate) leases_left: u64,
    /// As much where there is no room for more: of messages that were leased before, and of others where there are none of these.
    pub(crate) again_left: u64,
    pub(crate) new_left: u64,
    /// Whether there is room for the texts of nacks.
    pub(crate) texts_fit: bool,
    /// What the newest checkpoint covers, and its size.
    pub(crate) checkpoint: CheckpointNote,
    pub(crate) counters: Counters,
    /// How fast groups may lease.
    pub(in crate::engine) rates: Rates,
    /// What exclusive leases have cost all others.
    pub(crate) isolation: Isolation,
    /// The records of the last commit.
    pub(crate) records: Vec<Record>,
    pub(crate) head: Vec<u8>,
}

/// What is remembered of the two newest checkpoints.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CheckpointNote {
    pub(crate) covers: Lsn,
    pub(crate) len: u64,
    /// What the outstanding messages took at most in it.
    pub(crate) outstanding_len: u64,
    pub(crate) older_len: u64,
    /// What the one before it covers: nothing above that may be unlinked.
    pub(crate) older_covers: Lsn,
    /// The end of the log when maintenance last saw that it had moved, and when that was.
    pub(crate) end_seen: Lsn,
    pub(crate) end_seen_at: MonoMs,
}

impl CheckpointNote {
    /// How much more room checkpoints need, where the outstanding messages take at most `outstanding_len` in one: there are two, and a
    /// third while the oldest is not removed yet.
    pub(crate) fn room(&self, outstanding_len: u64) -> u64 {
        let rest = self.len.saturating_sub(self.outstanding_len);
        let next = self.len.max(rest.saturating_add(outstanding_len));
        next.saturating_mul(3).saturating_sub(self.len).saturating_sub(self.older_len)
    }
}

/// For how long an exclusive lease, and the wait for it, have held up and may hold up all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Isolation {
    /// At a time.
    limit_ms: u64,
    /// All times that are over, since the store was opened.
    spent_ms: u64,
    /// Since when somebody is held up now.
    since: Option<MonoMs>,
    /// Up to when it has been counted.
    counted_to: MonoMs,
}

impl Isolation {
    /// For all exclusive leases of a process together.
    const TOTAL_MS: u64 = 30_000;

    pub(crate) fn new(limit_ms: u64) -> Self {
        Self { limit_ms, spent_ms: 0, since: None, counted_to: MonoMs(0) }
    }

    /// How long the time that runs now, or the next one, may be in all.
    fn hold_up(&self) -> HoldUp {
        // seam: exclusive leases hold up the store without end
        HoldUp(self.limit_ms.min(Self::TOTAL_MS.saturating_sub(self.spent_ms)))
    }

    /// Notes since when somebody is held up, as of `mono`.
    fn note(&mut self, since: Option<MonoMs>, mono: MonoMs) {
        if since == self.since {
            return;
        }
        if let Some(began) = std::mem::replace(&mut self.since, since) {
            let HoldUp(most) = self.hold_up();
            let end = mono.min(began.saturating_add(most));
            self.spent_ms = self.spent_ms.saturating_add(end.0.saturating_sub(began.max(self.counted_to).0));
            self.counted_to = self.counted_to.max(end);
        }
    }
}

/// What those who sleep go by while others are held up for an exclusive lease.
#[derive(Clone, Copy, Debug, Default)]
struct HeldUp {
    /// When that ends by itself.
    until: Option<MonoMs>,
    /// The group whose message is waited for, and from when on that message could have its lease.
    goes_alone: Option<(GroupId, MonoMs)>,
}

/// What a commit did.
#[derive(Debug)]
pub(crate) struct CommitOutcome {
    pub(crate) decision: Decision,
    /// The frame's own LSN and the end of the log after it, or `None` where the decision needed no record.
    pub(crate) frame: Option<(Lsn, Lsn)>,
}

impl Core {
    /// Decides `command`, appends what it decides as one frame with `parts` as its messages, and applies it. The
    /// records stay readable in `self.records`.
    ///
    /// # Errors
    /// What refuses it; nothing was changed then but that this process's `opened` record may have been appended, except by
    /// `Inconsistent`.
    pub(crate) fn commit(
        &mut self,
        command: &Command<'_>,
        parts: Parts<'_>,
        now: Now,
    ) -> Result<CommitOutcome, Refusal> {
        self.records.clear();
        let hold_up = self.isolation.hold_up();
        let inputs = now.inputs(hold_up, &self.view.visible, (&self.view.streams, &self.view.verdicts));
        let decision = self.view.state.decide(command, &inputs, &mut self.records)?;
        if self.records.is_empty() {
            return Ok(CommitOutcome { decision, frame: None });
        }
        let reserve = reserve_of(command, &self.records, parts, &self.view.state);
        if reserve > Reserve::Copy {
            self.spend_on_texts();
        }
        self.append_opened(now, reserve)?;
        self.head.clear();
        // seam: leases are not recorded
        codec::encode(&self.records, &mut self.head);
        // The messages are there for the records that claim them; a decision that claims none writes none.
        let claimed = self.records.iter().any(|record| record.claim().is_some());
        let parts = if claimed { parts } else { Parts::default() };
        let frame = self.appender.append(&self.head, parts, now.watermark, reserve)?;
        let (lsn, end) = (frame.lsn, frame.end);
        let place = Some((entered(&frame, &mut self.view), frame.at));
        self.counters.count(&self.records, &self.view.state);
        let held_up = if self.waiters.any() { self.held_up(now) } else { HeldUp::default() };
        self.view.follow(&self.records, &FrameAt { lsn, end, place })?;
        if !self.view.verdicts.is_empty() {
            self.settle_verdicts();
        }
        self.isolation.note(self.view.state.held_up_since(), now.mono);
        if self.waiters.any() {
            self.wake_for_records(held_up, now);
            self.wake_publishers();
        }
        Ok(CommitOutcome { decision, frame: Some((lsn, end)) })
    }

    /// Forgets what filters said of messages that the last records got past.
    fn settle_verdicts(&mut self) {
        let Self { records, view: View { state, verdicts, .. }, .. } = self;
        for record in records.iter() {
            let (Record::Leased { group, partition, .. }
            | Record::Filtered { group, partition, .. }
            | Record::Dropped { group, partition, .. }
            | Record::Considered { group, partition, .. }) = record
            else {
                continue;
            };
            let next = state.next_of(*group, *partition);
            next.into_iter().for_each(|next| verdicts.settle((*group, *partition), next));
        }
    }

    /// Appends this process's `opened` record unless that has been done.
    pub(crate) fn append_opened(&mut self, now: Now, reserve: Reserve) -> Result<(), Refusal> {
        // seam: the opening is not recorded
        let Some(opened) = &self.unwritten_open else { return Ok(()) };
        self.head.clear();
        codec::encode(std::slice::from_ref(opened), &mut self.head);
        let frame = self.appender.append(&self.head, Parts::default(), now.watermark, reserve)?;
        entered(&frame, &mut self.view);
        self.unwritten_open = None;
        Ok(())
    }

    /// Appends a control frame. Returns the end of the log after it.
    ///
    /// # Errors
    /// What the log needs first; nothing was changed.
    pub(crate) fn append_control(&mut self, control: ControlFrame, watermark: Lsn) -> Result<Lsn, AppendError> {
        let frame = self.appender.append_control(control, watermark)?;
        entered(&frame, &mut self.view);
        Ok(frame.end)
    }

    /// Shows what lies below the new watermark, where only durable messages may be seen.
    pub(crate) fn make_visible(&mut self, watermark: Lsn) {
        let Self { view: View { visible, state, .. }, waiters, .. } = self;
        visible.advance(watermark, |partition| wake_partition(waiters, state, partition));
    }

    /// Takes note of that many leases. When the room for them is used up, what needs some of it looks at the disk again.
    #[inline]
    pub(crate) fn use_room(&mut self, leases: u64) {
        self.leases_left = self.leases_left.saturating_sub(leases);
        self.again_left = self.again_left.saturating_sub(leases);
        self.new_left = self.new_left.saturating_sub(leases);
        if self.leases_left == 0 {
            self.appender.set_scarce(true);
        }
    }

    /// Takes note of the texts in the records, which the log and each checkpoint keep, each as much as a lease. Where room is short they are
    /// left out: a nack adds nothing then, and needs no more than an ack.
    #[inline]
    fn spend_on_texts(&mut self) {
        let mut count = 0;
        for record in &mut self.records {
            if let Record::Nacked { failure, .. } = record
                && !failure.text.is_empty()
            {
                // seam: texts take the room for settling
                if !self.texts_fit {
                    failure.text = Box::default();
                }
                count += 1;
            }
        }
        if count > 0 {
            self.use_room(count);
        }
    }

    /// What is known of a hold-up now.
    fn held_up(&self, now: Now) -> HeldUp {
        let hold_up = self.isolation.hold_up();
        HeldUp {
            until: self.view.state.held_up_until(now.mono, hold_up),
            goes_alone: self.view.state.goes_alone(now.mono, hold_up),
        }
    }

    /// Wakes the consumers to whom the last records may matter. `before`: what was known of a hold-up before them.
    fn wake_for_records(&mut self, before: HeldUp, now: Now) {
        for record in &self.records {
            match record.wakes() {
                Wakes::Nobody => {}
                Wakes::ReadersOf(partition) => {
                    if !self.view.visible.is_durable_only() {
                        wake_partition(&mut self.waiters, &self.view.state, partition);
                    }
                }
                Wakes::Group(group) => self.waiters.wake_one(group),
                // seam: a place below the cap wakes nobody
                Wakes::HeldBack(group) => self.waiters.wake_one_if_held_back(group),
                // seam: what a replaced message held back sleeps on
                Wakes::HeldBackOf(partition) => {
                    if let Some(Role::Topic { topic, .. }) = self.view.state.partition_role(partition) {
                        let groups = self.view.state.groups_of(topic).map(|(group, _)| group);
                        groups.for_each(|group| self.waiters.wake_one_if_held_back(group));
                    }
                }
                // seam: sleepers of a removed group sleep on
                Wakes::AllOf(group) => self.waiters.wake_group(group),
                Wakes::AllOfTopic(topic) => self.waiters.wake_all_of(topic),
                Wakes::EachGroup => self.waiters.wake_each(),
            }
        }
        let held_up = self.held_up(now);
        // All look again when a hold-up ends, and when its end is another than they know.
        // seam: the end of an exclusive lease wakes nobody
        if held_up.until != before.until {
            self.waiters.wake_each();
        } else if held_up.goes_alone != before.goes_alone
            && let Some((group, _)) = held_up.goes_alone
        {
            // Another lease is over before its time: it may go earlier than its sleepers know.
            // seam: an exclusive lease that may go early is not told of
            self.waiters.wake_one(group);
        }
    }

    /// The rate of the group, if it has one.
    pub(in crate::engine) fn rate_of(&self, group: GroupId) -> Option<RateOptions> {
        let rate = self.view.state.group(group).map(|group| group.options.rate);
        rate.filter(|rate| *rate != RateOptions::default())
    }

    /// In how many milliseconds time alone may make something deliverable to the group.
    pub(crate) fn sleep_until(&self, group: GroupId, now: Now) -> Option<u64> {
        // Until there is a token, nothing is.
        if let Some(rate) = self.rate_of(group)
            && let Some(ms) = self.rates.wait(group, rate, now.mono)
        {
            return Some(ms);
        }
        let inputs = self.inputs(now);
        let deadline = self.view.state.next_deadline(group, &inputs);
        let mono = deadline.mono.map(|at| at.0.saturating_sub(now.mono.0));
        let wall = deadline.wall.map(|at| at.0.saturating_sub(now.wall.0));
        match (mono, wall) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Decisions go by this.
    pub(crate) fn inputs(&self, now: Now) -> Inputs<'_> {
        now.inputs(self.isolation.hold_up(), &self.view.visible, (&self.view.streams, &self.view.verdicts))
    }
}

/// Takes the frame's segment into the catalog when this frame began it. Returns its number.
fn entered(frame: &Appended<'_>, view: &mut View) -> FileNumber {
    let number = frame.segment.number();
    if frame.rolled {
        view.catalog.add(Arc::clone(frame.segment));
        view.positions.roll(number);
    }
    number
}

fn wake_partition(waiters: &mut WaitList, state: &State, partition: PartitionId) {
    match state.partition_role(partition) {
        Some(Role::Topic { topic, .. }) => {
            waiters.wake_topic(topic);
            waiters.appeared(topic, partition);
        }
        Some(Role::Retry { group }) => waiters.wake_one(group),
        Some(Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. }) | None => {}
    }
}
