//! Where a reader of the log begins: at the start, at the end, or behind a position.
//!
//! A position is judged by the epochs of the log, for an LSN alone may come again after a power failure. Of the other partitions the first
//! message behind it is found by halving, for the messages of a partition stand in the log in their order. Never here: reading on.

use super::View;
use super::log_scan::LogHolder;
use super::next::{NextRun, next_run};
use super::read::Reader;
use super::topics::TopicInfo;
use crate::error::{Error, PositionFault, Result};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, Position};
use crate::log::Class;
use crate::state::{Role, State};

/// How many partitions are looked at in one hold of the lock.
const LOOKS_AT_ONCE: usize = 1024;

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
    /// Older than the epochs that are known.
    Older,
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
        Some((from, first)) if *from > Lsn(0) && epoch.count() < first.count() => Ok(Verdict::Older),
        _ => Err(PositionFault::UnknownLog),
    }
}

/// Whether a partition is one of the topic's.
fn of_topic(state: &State, topic: TopicInfo, partition: PartitionId) -> Result<(), PositionFault> {
    match state.partition_role(partition) {
        Some(Role::Topic { topic: of, .. }) if of == topic.id => Ok(()),
        Some(Role::Topic { .. }) => Err(PositionFault::OtherTopic),
        None if partition < state.partitions_end() => Err(PositionFault::TopicRemoved),
        Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. }) | None => {
            Err(PositionFault::UnknownLog)
        }
    }
}

/// Where a reader begins in each partition.
///
/// # Errors
/// `InvalidPosition`; what reading an index says.
pub(crate) fn nexts<H: LogHolder>(holder: &H, topic: TopicInfo, start: LogStart) -> Result<Vec<Offset>> {
    Ok(match start {
        LogStart::First => look_at_each(holder, topic, |view, partition| {
            let end = view.visible_end(partition);
            view.find_next(partition, Offset(0)).map_or(end, |found| found.first().min(end))
        }),
        LogStart::End => look_at_each(holder, topic, |view, partition| view.visible_end(partition)),
        LogStart::After(position) => nexts_after(holder, topic, &position)?,
    })
}

/// Whether a reader of the topic could begin behind this position.
///
/// # Errors
/// `InvalidPosition`; what reading an index says.
pub(crate) fn check_position<H: LogHolder>(holder: &H, topic: TopicInfo, position: Position) -> Result<()> {
    check_place(holder, &mut Reader::default(), topic, &position).map(drop)
}

/// Whether a position is of this topic, as far as its partition says.
///
/// # Errors
/// `InvalidPosition`.
pub(crate) fn check_partition(view: &View, topic: TopicInfo, position: Position) -> Result<()> {
    let fault = of_topic(&view.state, topic, position.partition);
    fault.map_err(|fault| Error::InvalidPosition { position, fault })
}

/// What `look` says of each partition of the topic, in several holds of the lock.
fn look_at_each<H: LogHolder>(
    holder: &H,
    topic: TopicInfo,
    look: impl Fn(&View, PartitionId) -> Offset,
) -> Vec<Offset> {
    let all: Vec<PartitionId> = topic.all().collect();
    let some = |some: &[PartitionId]| {
        holder.with_view(|view| some.iter().map(|partition| look(view, *partition)).collect::<Vec<_>>())
    };
    all.chunks(LOOKS_AT_ONCE).flat_map(some).collect()
}

/// Where in the log a position stands. `None` if no more is known than that all messages of later epochs come after it: its epoch is older
/// than those that are known, and its message was removed.
///
/// # Errors
/// `InvalidPosition`; what reading an index says.
fn check_place<H: LogHolder>(
    holder: &H,
    reader: &mut Reader,
    topic: TopicInfo,
    position: &Position,
) -> Result<Option<Lsn>> {
    let invalid = |fault| Error::InvalidPosition { position: *position, fault };
    // First: the position was given before, and the log only grows.
    let end = holder.log_end();
    let verdict = holder.with_view(|view| judge_position(view, end, topic, position)).map_err(invalid)?;
    let here = next_run(holder, reader, position.partition, position.offset)?;
    let here = here.filter(|run| run.first == position.offset);
    let is_it = here.map(|run| (run.epoch, run.lsn) == (position.epoch, position.lsn));
    match (verdict, is_it) {
        (Verdict::Known, Some(true) | None) | (Verdict::Older, Some(true)) => Ok(Some(position.lsn)),
        (Verdict::Known, Some(false)) => Err(invalid(PositionFault::UnknownLog)),
        // Another message has its offset: its own went in a power failure.
        (Verdict::Older, Some(false)) => Err(invalid(PositionFault::Lost)),
        (Verdict::Older, None) if was_retired(holder, Lsn(0), None) => Ok(None),
        (Verdict::Older, None) => Err(invalid(PositionFault::Lost)),
    }
}

fn judge_position(view: &View, end: Lsn, topic: TopicInfo, position: &Position) -> Result<Verdict, PositionFault> {
    let verdict = judge(view.catalog.epochs(), end, position)?;
    of_topic(&view.state, topic, position.partition)?;
    if position.offset < view.visible_end(position.partition) { Ok(verdict) } else { Err(PositionFault::Lost) }
}

/// Where in each partition to go on behind the position. What is missing from there on is told.
fn nexts_after<H: LogHolder>(holder: &H, topic: TopicInfo, position: &Position) -> Result<Vec<Offset>> {
    let mut reader = Reader::default();
    let stands_at = check_place(holder, &mut reader, topic, position)?;
    let Position { epoch, lsn, partition: of, .. } = *position;
    let next = topic.all().map(|partition| {
        if partition == of && stands_at.is_some() {
            return Ok(position.offset.saturating_add(1));
        }
        let comes_after = |run: &NextRun| (run.epoch, run.lsn, partition) > (epoch, lsn, of);
        let first = first_where(holder, &mut reader, partition, comes_after)?;
        let found = next_run(holder, &mut reader, partition, first)?;
        // What is missing before it is a gap only where it may have stood behind the position.
        // seam: what is missing behind an old position is not told
        if was_retired(holder, stands_at.unwrap_or_default(), found.map(|run| run.lsn)) {
            return Ok(first);
        }
        Ok(found.map_or_else(|| visible_end(holder, partition), |run| run.first))
    });
    next.collect()
}

/// The offset after the last message of a partition that is there and for which `wanted` does not hold; it holds for all behind one for
/// which it does.
fn first_where<H: LogHolder>(
    holder: &H,
    reader: &mut Reader,
    partition: PartitionId,
    wanted: impl Fn(&NextRun) -> bool,
) -> Result<Offset> {
    let (mut low, mut high) = (Offset(0), visible_end(holder, partition));
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        match next_run(holder, reader, partition, middle)? {
            Some(run) if !wanted(&run) => low = run.end(),
            Some(_) | None => high = middle,
        }
    }
    Ok(low.min(visible_end(holder, partition)))
}

fn visible_end<H: LogHolder>(holder: &H, partition: PartitionId) -> Offset {
    holder.with_view(|view| view.visible_end(partition))
}

/// Whether messages were removed from a part of the log, which ends with it where no end is given.
fn was_retired<H: LogHolder>(holder: &H, from: Lsn, to: Option<Lsn>) -> bool {
    holder.with_view(|view| {
        let catalog = &view.catalog;
        let is_within = |start: Lsn, end: Lsn| end > from && to.is_none_or(|to| start < to);
        let cleaned = catalog.segments().iter().filter(|file| file.kind().class() == Some(Class::Messages));
        catalog.retired().of(Class::Messages).iter().any(|(start, end)| is_within(*start, *end))
            // A file of a class lacks what nobody wanted.
            || cleaned.map(|file| (file.base(), file.end())).any(|(start, end)| is_within(start, end))
    })
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
        assert_eq!(judged(of(2), 8), Ok(Verdict::Older), "older than what is known");
        let whole = [(Lsn(0), of(3))];
        assert_eq!(judge(&whole, Lsn(400), &position(of(2), 8)), Err(PositionFault::UnknownLog), "all is known");
        assert_eq!(judge(&[], Lsn(0), &position(of(1), 0)), Err(PositionFault::UnknownLog), "an empty log");
    }
}
