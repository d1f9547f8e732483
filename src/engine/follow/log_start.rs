//! Where a reader of the log begins: at the start, at the end, or behind a position.
//!
//! A position is judged by the epochs of the log, for an LSN alone may come again after a power failure. Of the other partitions the first
//! message behind it is found by halving, for the messages of a partition stand in the log in their order. Never here: reading on.

use crate::engine::Engine;
use crate::engine::follow::log_reader::{LogCursor, visible_end};
use crate::engine::topics::TopicInfo;
use crate::error::{Error, PositionFault, Result};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, Position};
use crate::log::Class;
use crate::state::{Role, State};
use crate::view::{NextRun, Reader, next_run};

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

impl Engine {
    /// Begins to read a topic as a log.
    ///
    /// # Errors
    /// `InvalidPosition`; `Removed`; what reading an index says; the store's.
    pub(crate) fn open_log(&self, topic: TopicInfo, start: LogStart) -> Result<LogCursor> {
        self.enter()?;
        let nexts = self.nexts(topic, start)?;
        self.log_cursor(topic, nexts)
    }

    /// How many messages of a topic that may be seen stand behind a position, or are there at all.
    ///
    /// # Errors
    /// As [`Engine::open_log`].
    pub(crate) fn log_lag(&self, topic: TopicInfo, position: Option<Position>) -> Result<u64> {
        self.enter()?;
        let nexts = self.nexts(topic, position.map_or(LogStart::First, LogStart::After))?;
        let core = self.lock_core();
        let behind =
            |(index, next): (u32, &Offset)| visible_end(&core, topic.first.nth(index)).0.saturating_sub(next.0);
        Ok((0..).zip(&nexts).map(behind).sum())
    }

    /// Where a reader begins in each partition.
    fn nexts(&self, topic: TopicInfo, start: LogStart) -> Result<Vec<Offset>> {
        Ok(match start {
            LogStart::First => self.look_at_each(topic, |core, partition, _| {
                let end = visible_end(core, partition);
                core.view.find_next(partition, Offset(0)).map_or(end, |found| found.first().min(end))
            }),
            LogStart::End => self.look_at_each(topic, |core, partition, _| visible_end(core, partition)),
            LogStart::After(position) => self.nexts_after(topic, &position)?,
        })
    }

    /// Whether a reader of the topic could begin behind this position.
    ///
    /// # Errors
    /// `InvalidPosition`; what reading an index says; the store's.
    pub(crate) fn check_position(&self, topic: TopicInfo, position: Position) -> Result<()> {
        self.enter()?;
        self.check_place(&mut Reader::default(), topic, &position).map(drop)
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

    /// Where in the log a position stands. `None` if no more is known than that all messages of later epochs come after it: its epoch is older
    /// than those that are known, and its message was removed.
    ///
    /// # Errors
    /// `InvalidPosition`; what reading an index says; the store's.
    fn check_place(&self, reader: &mut Reader, topic: TopicInfo, position: &Position) -> Result<Option<Lsn>> {
        let invalid = |fault| Error::InvalidPosition { position: *position, fault };
        let verdict = self.judge_position(topic, position).map_err(invalid)?;
        let here = next_run(self, reader, position.partition, position.offset)?;
        let here = here.filter(|run| run.first == position.offset);
        let is_it = here.map(|run| (run.epoch, run.lsn) == (position.epoch, position.lsn));
        match (verdict, is_it) {
            (Verdict::Known, Some(true) | None) | (Verdict::Older, Some(true)) => Ok(Some(position.lsn)),
            (Verdict::Known, Some(false)) => Err(invalid(PositionFault::UnknownLog)),
            // Another message has its offset: its own went in a power failure.
            (Verdict::Older, Some(false)) => Err(invalid(PositionFault::Lost)),
            (Verdict::Older, None) if self.was_retired(Lsn(0), None) => Ok(None),
            (Verdict::Older, None) => Err(invalid(PositionFault::Lost)),
        }
    }

    fn judge_position(&self, topic: TopicInfo, position: &Position) -> Result<Verdict, PositionFault> {
        let core = self.lock_core();
        let (view, partition) = (&core.view, position.partition);
        let verdict = judge(view.catalog.epochs(), core.appender.end(), position)?;
        of_topic(&view.state, topic, partition)?;
        if position.offset < visible_end(&core, partition) { Ok(verdict) } else { Err(PositionFault::Lost) }
    }

    /// Where in each partition to go on behind the position. What is missing from there on is told.
    fn nexts_after(&self, topic: TopicInfo, position: &Position) -> Result<Vec<Offset>> {
        let mut reader = Reader::default();
        let stands_at = self.check_place(&mut reader, topic, position)?;
        let Position { epoch, lsn, partition: of, .. } = *position;
        let partitions = (0..topic.partitions).map(|index| topic.first.nth(index));
        let next = partitions.map(|partition| {
            if partition == of && stands_at.is_some() {
                return Ok(position.offset.saturating_add(1));
            }
            let comes_after = |run: &NextRun| (run.epoch, run.lsn, partition) > (epoch, lsn, of);
            let first = self.first_where(&mut reader, partition, comes_after)?;
            let found = next_run(self, &mut reader, partition, first)?;
            // What is missing before it is a gap only where it may have stood behind the position.
            // seam: what is missing behind an old position is not told
            if self.was_retired(stands_at.unwrap_or_default(), found.map(|run| run.lsn)) {
                return Ok(first);
            }
            Ok(found.map_or_else(|| self.lock_visible_end(partition), |run| run.first))
        });
        next.collect()
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
            match next_run(self, reader, partition, middle)? {
                Some(run) if !wanted(&run) => low = run.end(),
                Some(_) | None => high = middle,
            }
        }
        Ok(low.min(self.lock_visible_end(partition)))
    }

    fn lock_visible_end(&self, partition: PartitionId) -> Offset {
        visible_end(&self.lock_core(), partition)
    }

    /// Whether messages were removed from a part of the log, which ends with it where no end is given.
    fn was_retired(&self, from: Lsn, to: Option<Lsn>) -> bool {
        let core = self.lock_core();
        let catalog = &core.view.catalog;
        let is_within = |start: Lsn, end: Lsn| end > from && to.is_none_or(|to| start < to);
        let cleaned = catalog.segments().iter().filter(|file| file.kind().class() == Some(Class::Messages));
        catalog.retired().of(Class::Messages).iter().any(|(start, end)| is_within(*start, *end))
            // A file of a class lacks what nobody wanted.
            || cleaned.map(|file| (file.base(), file.end())).any(|(start, end)| is_within(start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Outgoing, Setup, Wait};
    use crate::ids::WallMs;
    use crate::log::Segment;
    use crate::record::{Retention, TopicOptions};
    use crate::view::ViewHolder;
    use std::sync::Arc;
    use std::time::Duration;

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

    const TOPIC: TopicOptions = TopicOptions { retention: Retention::Forever, ..TopicOptions::LEFT_OUT };

    /// A process on the disk that remembers this many epochs.
    fn engine(disk: &SimDisk, epochs: usize) -> Engine {
        let setup = Setup::quiet(64 << 10);
        let clock = Arc::new(SimClock::new(WallMs(1)));
        let engine = Engine::open_on(Arc::new(disk.attach().unwrap()), setup, clock).unwrap();
        engine.with_view(|view| view.catalog.keep_epochs(epochs));
        engine
    }

    fn publish(engine: &Engine, topic: TopicInfo, index: u32, text: &str) {
        let mut outgoing = Outgoing::default();
        let none: [(&str, &[u8]); 0] = [];
        outgoing.add(topic.first.nth(index), None, none.into_iter(), text.as_bytes(), 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
        engine.sync().unwrap();
    }

    /// What a reader gives from a start on: messages with their positions, and gaps.
    fn read(engine: &Engine, topic: TopicInfo, start: LogStart) -> Vec<(String, Option<Position>)> {
        let mut cursor = engine.open_log(topic, start).unwrap();
        let mut all = Vec::new();
        loop {
            match engine.read_log(&mut cursor, Wait::new(engine, Duration::ZERO)) {
                Ok(Some((stored, position))) => {
                    let text = String::from_utf8_lossy(&stored.view(0).payload()[..2]).into_owned();
                    all.push((text, Some(position)));
                }
                Ok(None) => break,
                Err(Error::Gap { partition, offset, count, .. }) => {
                    all.push((format!("{partition}: {offset}+{count}"), None))
                }
                Err(error) => panic!("{error}"),
            }
        }
        engine.leave_log(&cursor);
        all
    }

    fn texts(all: &[(String, Option<Position>)]) -> Vec<&str> {
        all.iter().map(|(text, _)| text.as_str()).collect()
    }

    /// Six processes, of which each publishes a message to each of two partitions.
    fn processes(disk: &SimDisk, len: usize) -> TopicInfo {
        let mut found = None;
        for process in 0..6 {
            let engine = engine(disk, usize::MAX);
            let topic = engine.open_topic("log", 2, TOPIC).unwrap();
            (0..2).for_each(|index| {
                publish(&engine, topic, index, &format!("{:<len$}", format!("{}{process}", ["a", "b"][index as usize])))
            });
            found = Some(topic);
            engine.close().unwrap();
        }
        found.unwrap()
    }

    /// A position of an epoch that is no longer known, whose message is there, goes on at exactly the next one.
    #[test]
    fn an_old_position_goes_on_at_the_next_message_if_its_own_is_there() {
        let disk = SimDisk::new(1);
        let topic = processes(&disk, 2);
        let whole = engine(&disk, usize::MAX);
        let all = read(&whole, topic, LogStart::First);
        assert_eq!(texts(&all), ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4", "a5", "b5"]);
        whole.close().unwrap();
        for epochs in [1, 2, 5] {
            let engine = engine(&disk, epochs);
            for (nth, (_, position)) in all.iter().enumerate() {
                let rest = read(&engine, topic, LogStart::After(position.unwrap()));
                assert_eq!(rest, all[nth + 1..], "{epochs} epochs, after {nth}");
            }
            engine.close().unwrap();
        }
    }

    /// One that a power failure took is refused while another message has its offset, and so is one that no file can have lost.
    #[test]
    fn an_old_position_of_a_lost_message_is_refused() {
        let disk = SimDisk::new(1);
        let topic = processes(&disk, 2);
        let engine = engine(&disk, 2);
        let all = read(&engine, topic, LogStart::First);
        let (first, before) = (all[0].1.unwrap(), all[2].1.unwrap());
        for lost in [Position { lsn: first.lsn.saturating_add(8), ..first }, Position { epoch: first.epoch, ..before }]
        {
            let refused = engine.open_log(topic, LogStart::After(lost)).map(drop);
            assert!(
                matches!(refused, Err(Error::InvalidPosition { position, fault: PositionFault::Lost }) if position == lost),
                "{refused:?}"
            );
            assert!(engine.check_position(topic, lost).is_err());
        }
    }

    /// Where its message was removed, what is missing in any partition is told, and what is there comes.
    #[test]
    fn what_is_missing_behind_an_old_position_is_told() {
        let disk = SimDisk::new(1);
        // Each message has a segment of its own.
        let topic = processes(&disk, 60_000);
        let engine = engine(&disk, 2);
        let all = read(&engine, topic, LogStart::First);
        let at = |nth: usize| all[nth].1.unwrap();
        // The messages a0 to a2 and b0 and b1 go.
        engine.with_view(|view| {
            let kept = |segment: &&Arc<Segment>| segment.end() > at(5).lsn;
            let (to, classes) =
                view.catalog.segments().iter().find(kept).map(|first| (first.base(), first.serves())).unwrap();
            let gone = view.catalog.retire(Lsn(0), to, classes);
            gone.iter().for_each(|segment| view.positions.forget(segment.number()));
        });
        for (nth, expected) in [
            (0, vec!["0: 0+3", "1: 0+2", "b2", "a3", "b3", "a4", "b4", "a5", "b5"]),
            (4, vec!["0: 0+3", "1: 0+2", "b2", "a3", "b3", "a4", "b4", "a5", "b5"]),
            (5, vec!["a3", "b3", "a4", "b4", "a5", "b5"]),
        ] {
            let rest = read(&engine, topic, LogStart::After(at(nth)));
            let (mut gaps, there): (Vec<&str>, Vec<&str>) =
                texts(&rest).into_iter().partition(|text| text.contains('+'));
            gaps.sort_unstable();
            let rest = [gaps, there].concat();
            assert_eq!(rest, expected, "after {nth}");
        }
    }
}
