//! Where a reader of the log begins: at the start, at the end, or behind a position.
//!
//! A position is judged by the epochs of the log, for an LSN alone may come again after a power failure. Of the other partitions the first
//! message behind it is found by halving, for the messages of a partition stand in the log in their order. Never here: reading on.

use super::Engine;
use super::log_reader::{Gap, LogCursor, visible_end};
use super::topics::TopicInfo;
use crate::error::{Error, PositionFault, Result};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, Position};
use crate::log::Class;
use crate::state::{Role, State};
use crate::view::{NextRun, Reader, ViewHolder, resolve};

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogStart {
    /// At the first message that is there.
    First,
    /// Behind all that may be seen.
    End,
    After(Position),
}

/// What the epochs of a log say of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Known,
    /// Older than the epochs that are known, the first of which began here.
    Older(Lsn),
}

/// Judges a position of a log that ends at `end`.
fn judge(epochs: &[(Lsn, Epoch)], end: Lsn, position: &Position) -> Result<Verdict, PositionFault> {
    let Position { epoch, lsn, .. } = *position;
    if let Some(index) = epochs.iter().position(|(_, other)| *other == epoch) {
        let begins = |index: usize| epochs.get(index).map(|(from, _)| *from);
        return match (begins(index), begins(index + 1).unwrap_or(end)) {
            (Some(from), _) if lsn < from => Err(PositionFault::UnknownLog),
            // seam: a position beyond the end of its epoch counts
            (_, end) if lsn >= end => Err(PositionFault::Lost),
            _ => Ok(Verdict::Known),
        };
    }
    match epochs.first() {
        Some((from, first)) if *from > Lsn(0) && epoch.count() < first.count() => Ok(Verdict::Older(*from)),
        _ => Err(PositionFault::UnknownLog),
    }
}

/// Whether a partition is one of the topic's.
fn of_topic(state: &State, topic: TopicInfo, partition: PartitionId) -> Result<(), PositionFault> {
    match state.partition_role(partition) {
        Some(Role::Topic { topic: of, .. }) if of == topic.id => Ok(()),
        Some(Role::Topic { .. }) => Err(PositionFault::OtherTopic),
        None if partition < state.partitions_end() => Err(PositionFault::TopicRemoved),
        Some(Role::Retry { .. } | Role::Dead { .. }) | None => Err(PositionFault::UnknownLog),
    }
}

impl Engine {
    /// Begins to read a topic as a log.
    ///
    /// # Errors
    /// `InvalidPosition`; `Removed`; what reading an index says; the store's.
    pub(crate) fn open_log(&self, topic: TopicInfo, start: LogStart) -> Result<LogCursor> {
        self.enter()?;
        let (nexts, gaps) = match start {
            LogStart::First => {
                let first = self.look_at_each(topic, |core, partition, _| {
                    let end = visible_end(core, partition);
                    core.view.find_next(partition, Offset(0)).map_or(end, |found| found.first().min(end))
                });
                (first, Vec::new())
            }
            LogStart::End => (self.look_at_each(topic, |core, partition, _| visible_end(core, partition)), Vec::new()),
            LogStart::After(position) => {
                let invalid = |fault| Error::InvalidPosition { position, fault };
                match self.judge_position(topic, &position).map_err(invalid)? {
                    Verdict::Known => (self.nexts_after(topic, &position)?, Vec::new()),
                    Verdict::Older(from) => self.nexts_from(topic, &position, from)?,
                }
            }
        };
        self.log_cursor(topic, nexts, gaps)
    }

    /// Whether a reader of the topic could begin behind this position.
    ///
    /// # Errors
    /// `InvalidPosition`; what reading an index says; the store's.
    pub(crate) fn check_position(&self, topic: TopicInfo, position: Position) -> Result<()> {
        self.enter()?;
        let invalid = |fault| Error::InvalidPosition { position, fault };
        match self.judge_position(topic, &position).map_err(invalid)? {
            Verdict::Known => self.check_place(&mut Reader::default(), &position),
            Verdict::Older(_) => Ok(()),
        }
    }

    /// Whether a position is of this topic, as far as its partition says.
    ///
    /// # Errors
    /// `InvalidPosition`; the store's.
    pub(crate) fn check_partition(&self, topic: TopicInfo, position: Position) -> Result<()> {
        self.enter()?;
        let fault = of_topic(&self.lock_core().view.state, topic, position.partition);
        fault.map_err(|fault| Error::InvalidPosition { position, fault })
    }

    /// Whether the message at a position, if it is there, stands where the position says.
    fn check_place(&self, reader: &mut Reader, position: &Position) -> Result<()> {
        let here = self.next_run(reader, position.partition, position.offset)?;
        if here.is_some_and(|run| run.first == position.offset && run.lsn != position.lsn) {
            return Err(Error::InvalidPosition { position: *position, fault: PositionFault::UnknownLog });
        }
        Ok(())
    }

    fn judge_position(&self, topic: TopicInfo, position: &Position) -> Result<Verdict, PositionFault> {
        let core = self.lock_core();
        let (view, partition) = (&core.view, position.partition);
        let verdict = judge(view.catalog.epochs(), core.appender.end(), position)?;
        of_topic(&view.state, topic, partition)?;
        if position.offset < visible_end(&core, partition) { Ok(verdict) } else { Err(PositionFault::Lost) }
    }

    /// The first message of each partition that comes after the position.
    fn nexts_after(&self, topic: TopicInfo, position: &Position) -> Result<Vec<Offset>> {
        let mut reader = Reader::default();
        self.check_place(&mut reader, position)?;
        let partitions = (0..topic.partitions).map(|index| topic.first.nth(index));
        let next = partitions.map(|partition| {
            if partition == position.partition {
                return Ok(position.offset.saturating_add(1));
            }
            let comes_after = |run: &NextRun| (run.lsn, partition) > (position.lsn, position.partition);
            let first = self.first_where(&mut reader, partition, comes_after)?;
            let found = self.next_run(&mut reader, partition, first)?;
            // What is missing before it is a gap only where it may have stood behind the position.
            if self.was_retired(position.lsn, found.map(|run| run.lsn)) {
                return Ok(first);
            }
            Ok(found.map_or_else(|| self.lock_visible_end(partition), |run| run.first))
        });
        next.collect()
    }

    /// Where to go on from a position of which no more is known than that it lies before `from`.
    fn nexts_from(&self, topic: TopicInfo, position: &Position, from: Lsn) -> Result<(Vec<Offset>, Vec<Gap>)> {
        let mut reader = Reader::default();
        let partitions = (0..topic.partitions).map(|index| topic.first.nth(index));
        let nexts = partitions.map(|partition| self.first_where(&mut reader, partition, |run| run.lsn >= from));
        let nexts = nexts.collect::<Result<Vec<_>>>()?;
        let (partition, first) = (position.partition, position.offset.saturating_add(1));
        let index = partition.0.saturating_sub(topic.first.0) as usize;
        let end = nexts.get(index).copied().unwrap_or(first).max(first);
        Ok((nexts, vec![Gap { partition, first, end }]))
    }

    /// The offset after the last message of a partition that is there and for which `wanted` does not hold; it holds for all behind one for
    /// which it does.
    fn first_where(
        &self,
        reader: &mut Reader,
        partition: PartitionId,
        wanted: impl Fn(&NextRun) -> bool,
    ) -> Result<Offset> {
        let (mut low, mut high) = (Offset(0), self.lock_visible_end(partition));
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            match self.next_run(reader, partition, middle)? {
                Some(run) if !wanted(&run) => low = run.end(),
                Some(_) | None => high = middle,
            }
        }
        Ok(low.min(self.lock_visible_end(partition)))
    }

    /// The first messages of a partition at or behind `from` that there are.
    fn next_run(&self, reader: &mut Reader, partition: PartitionId, from: Offset) -> Result<Option<NextRun>> {
        loop {
            let Some(found) = self.with_view(|view| view.find_next(partition, from)) else { return Ok(None) };
            if let Some(run) = resolve(self, reader, found)? {
                return Ok(Some(run));
            }
        }
    }

    fn lock_visible_end(&self, partition: PartitionId) -> Offset {
        visible_end(&self.lock_core(), partition)
    }

    /// Whether messages were removed from a part of the log, which ends with it where no end is given.
    fn was_retired(&self, from: Lsn, to: Option<Lsn>) -> bool {
        let core = self.lock_core();
        let retired = core.view.catalog.retired().of(Class::Messages);
        retired.iter().any(|(start, end)| *end > from && to.is_none_or(|to| *start < to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: Epoch, lsn: u64) -> Position {
        Position { epoch, lsn: Lsn(lsn), partition: PartitionId(0), offset: Offset(0) }
    }

    #[test]
    fn positions_are_judged_by_the_epochs_of_the_log() {
        let of = |count| Epoch::of(count, 7 * count);
        let epochs = [(Lsn(80), of(3)), (Lsn(160), of(5))];
        let judged = |epoch, lsn| judge(&epochs, Lsn(400), &position(epoch, lsn));
        assert_eq!([80, 152].map(|lsn| judged(of(3), lsn)), [Ok(Verdict::Known); 2]);
        assert_eq!([160, 392].map(|lsn| judged(of(5), lsn)), [Ok(Verdict::Known); 2]);
        for (epoch, lsn) in [(of(3), 160), (of(3), 400), (of(5), 400), (of(5), u64::MAX)] {
            assert_eq!(judged(epoch, lsn), Err(PositionFault::Lost), "{epoch} {lsn}");
        }
        for (epoch, lsn) in [(of(3), 72), (of(5), 152), (Epoch::of(3, 8), 80), (of(4), 160), (of(6), 160)] {
            assert_eq!(judged(epoch, lsn), Err(PositionFault::UnknownLog), "{epoch} {lsn}");
        }
        assert_eq!(judged(of(2), 8), Ok(Verdict::Older(Lsn(80))), "older than what is known");
        let whole = [(Lsn(0), of(3))];
        assert_eq!(judge(&whole, Lsn(400), &position(of(2), 8)), Err(PositionFault::UnknownLog), "all is known");
        assert_eq!(judge(&[], Lsn(0), &position(of(1), 0)), Err(PositionFault::UnknownLog), "an empty log");
    }
}
