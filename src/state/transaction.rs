//! Several commands in one frame: all of them, or none.
//!
//! Each command is decided against the state as it is before the frame. What those before it change for it stands in an overlay: where
//! partitions end by then, which messages were touched, and which cursors were set. No message is touched twice in a frame. Never here: a change of the state.

use super::{Command, Decision, Inputs, Rejection, State};
use crate::ids::{GroupId, Offset, PartitionId};
use crate::limits::FRAME_PARTS_MAX;
use crate::record::{Record, StreamId};
use std::collections::{BTreeMap, BTreeSet};

/// What the commands so far change for the next one.
#[derive(Debug, Default)]
struct Overlay {
    /// How many messages were added to each partition.
    added: BTreeMap<PartitionId, u64>,
    /// Messages whose leases ended: group, partition, the first and one beyond the last, and the step.
    touched: Vec<(GroupId, PartitionId, Offset, Offset, u32)>,
    /// The cursors that were set.
    cursors: BTreeSet<String>,
    /// How many of them were not there before.
    new_cursors: usize,
    /// How many events were appended to each stream.
    appended: BTreeMap<StreamId, u64>,
    /// How many messages the frame has.
    parts: u64,
}

impl Overlay {
    /// Takes in the records of a step, which were decided against the state alone, and puts their messages behind those of the frame so
    /// far.
    fn take_in_all(&mut self, records: &mut [Record], step: u32) -> Result<(), Rejection> {
        for record in &mut *records {
            // Its message is one that a record beside it claims.
            if let Record::Accepted { partition, offset, .. }
            | Record::KeyTaken { partition, offset, .. }
            | Record::Scheduled { partition, offset, again: false, .. } = record
            {
                let added = self.added.get(partition).copied().unwrap_or_default();
                // seam: an id names a message before its own
                *offset = offset.checked_add(added).ok_or(Rejection::LimitReached("messages in a partition"))?;
            }
        }
        records.iter_mut().try_for_each(|record| self.take_in(record, step))
    }

    fn take_in(&mut self, record: &mut Record, step: u32) -> Result<(), Rejection> {
        if let Some((partition, first, count)) = record.claim_mut() {
            let added = self.added.entry(partition).or_default();
            // seam: messages of one frame overlap
            let begin = first.checked_add(*added).ok_or(Rejection::LimitReached("messages in a partition"))?;
            begin.checked_add(u64::from(count)).ok_or(Rejection::LimitReached("messages in a partition"))?;
            *first = begin;
            *added += u64::from(count);
            self.parts += u64::from(count);
        }
        let settles = record.settles();
        self.touched.extend(settles.map(|(group, partition, first, end)| (group, partition, first, end, step)));
        self.cursors.extend(record.sets_cursor().map(str::to_owned));
        Ok(())
    }

    /// Whether command `nth` may follow those so far.
    fn admit(&mut self, nth: u32, step: &Command<'_>, state: &State) -> Result<(), Rejection> {
        let Command::SetCursor { name, .. } = step else { return Ok(()) };
        // seam: a cursor is set twice in a frame
        if self.cursors.contains(*name) {
            return Err(Rejection::InvalidIn { step: nth, number: 0, reason: "a cursor is set twice" });
        }
        self.new_cursors += usize::from(state.cursor(name).is_none());
        // seam: cursors of one frame have no bound
        if state.has_room_for_cursors(self.new_cursors) { Ok(()) } else { Err(Rejection::LimitReached("cursors")) }
    }

    fn check(mut self, steps: &[Command<'_>], parts: u64) -> Result<(), Rejection> {
        self.touched.sort_unstable();
        let twice = self.touched.array_windows().find_map(|&[one, (group, partition, first, _, step)]| {
            ((one.0, one.1) == (group, partition) && one.3 > first).then_some((partition, first, step))
        });
        // seam: a message is settled twice in a frame
        if let Some((partition, offset, step)) = twice {
            let number = steps.get(step as usize).map_or(0, |step| number_in(step, partition, offset));
            return Err(Rejection::InvalidIn { step, number, reason: "a message is settled twice" });
        }
        if self.parts > FRAME_PARTS_MAX as u64 {
            return Err(Rejection::LimitReached("messages in a transaction"));
        }
        // A frame has exactly the messages that its records claim.
        if self.parts == parts { Ok(()) } else { Err(Rejection::Stale) }
    }
}

/// Which of the messages that a step settles this is, from 0.
fn number_in(step: &Command<'_>, partition: PartitionId, offset: Offset) -> u32 {
    let Command::Ack { held, .. } = step else { return 0 };
    let mut number = 0_u32;
    for run in *held {
        let nth = offset.0.checked_sub(run.first.offset.0).filter(|_| run.first.partition == partition);
        match nth.and_then(|nth| u32::try_from(nth).ok()).filter(|nth| *nth < run.count) {
            Some(nth) => return number.saturating_add(nth),
            None => number = number.saturating_add(run.count),
        }
    }
    number
}

impl State {
    /// Decides all of `steps`, whose records claim `parts` messages.
    pub(super) fn decide_transaction(
        &self,
        steps: &[Command<'_>],
        parts: u32,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let mut overlay = Overlay::default();
        for (nth, step) in (0..).zip(steps) {
            let start = records.len();
            // seam: the acks of a transaction are lost
            overlay.admit(nth, step, self)?;
            let decision = match self.decide_step(step, &mut overlay, inputs, records) {
                Err(Rejection::LeaseLost) => Err(Rejection::LeaseLostIn { step: nth, number: 0 }),
                Err(Rejection::WrongVersion { actual, .. }) => Err(Rejection::WrongVersionIn { step: nth, actual }),
                Err(Rejection::CursorMoved) => Err(Rejection::CursorMovedIn { step: nth }),
                // What was published before can be left out; what was appended before is no part of this transaction.
                Err(Rejection::Repeated(repeats)) if matches!(step, Command::Append { .. }) => {
                    let first = repeats.first().map(|repeat| (repeat.part, Box::new(repeat.id)));
                    let refused = |(part, first)| Rejection::DedupConflictIn { step: nth, part, first };
                    Err(first.map_or(Rejection::Stale, refused))
                }
                Err(Rejection::DedupConflict { part, first }) if matches!(step, Command::Append { .. }) => {
                    Err(Rejection::DedupConflictIn { step: nth, part, first })
                }
                other => other,
            };
            // seam: a lost lease does not reject a transaction
            match decision? {
                Decision::Done | Decision::Nothing => {}
                Decision::Settled { lost } => {
                    if let Some(&number) = lost.first() {
                        return Err(Rejection::LeaseLostIn { step: nth, number });
                    }
                }
                Decision::Exhausted { .. }
                | Decision::KeysNeeded { .. }
                | Decision::Considered { .. }
                | Decision::VerdictsNeeded { .. }
                | Decision::Filtered { .. } => {
                    return Err(Rejection::Invalid("only a lease finds what is exhausted, or not considered"));
                }
            }
            overlay.take_in_all(&mut records[start..], nth)?;
        }
        self.check_all_accepted(records)?;
        self.check_replaced(records, &overlay)?;
        overlay.check(steps, u64::from(parts))?;
        Ok(Decision::Done)
    }

    /// What a frame settles is pending until then, and not replaced in it.
    fn check_replaced(&self, records: &[Record], overlay: &Overlay) -> Result<(), Rejection> {
        let replaced: BTreeSet<(PartitionId, Offset)> = records
            .iter()
            .filter_map(|record| if let Record::KeyTaken { replaced, .. } = record { *replaced } else { None })
            .collect();
        let of = |&(_, partition, first, end, _): &_| replaced.range((partition, first)..(partition, end)).next();
        // seam: a message is settled and replaced in a frame
        match overlay.touched.iter().find_map(of) {
            Some(place) => Err(self.key_pending(*place)),
            None => Ok(()),
        }
    }

    fn decide_step(
        &self,
        step: &Command<'_>,
        overlay: &mut Overlay,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        match step {
            Command::SaveSnapshot { stream, version, fact } => {
                let ahead = overlay.appended.get(stream).copied().unwrap_or_default();
                records.push(self.decide_save_snapshot(*stream, (*version, ahead), *fact, inputs)?);
                Ok(Decision::Done)
            }
            Command::Append { stream, count, expected, ids, fact } => {
                let ahead = overlay.appended.entry(*stream).or_default();
                // seam: appends of one frame have the same versions
                let appended = (*stream, *count, *ahead);
                *ahead = ahead.saturating_add(u64::from(*count));
                self.decide_append(appended, *expected, (ids, *fact), inputs, records)
            }
            Command::Publish { .. }
            | Command::Ack { .. }
            | Command::Nack { .. }
            | Command::Reject { .. }
            | Command::SetCursor { .. } => self.dispatch(step, inputs, records),
            Command::Open { .. }
            | Command::NoteClockJump
            | Command::CreateTopic { .. }
            | Command::CreateGroup { .. }
            | Command::RemoveTopic { .. }
            | Command::RemoveGroup { .. }
            | Command::AlterGroup { .. }
            | Command::Seek { .. }
            | Command::SettleFiltered { .. }
            | Command::Lease { .. }
            | Command::Extend { .. }
            | Command::Release { .. }
            | Command::Unreadable { .. }
            | Command::GiveUp { .. }
            | Command::Postpone { .. }
            | Command::Redrive { .. }
            | Command::Discard { .. }
            | Command::RemoveCursor { .. }
            | Command::CreateSchedule { .. }
            | Command::MarkRetention { .. }
            | Command::DropOld { .. }
            | Command::Reschedule { .. }
            | Command::MoveDue { .. }
            | Command::TruncateStream { .. }
            | Command::Transaction { .. } => Err(Rejection::Invalid("no part of a transaction")),
        }
    }
}
