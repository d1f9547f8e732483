//! Where a reader of the log begins, for those who read an open store. For how it is found see `view::log_start`.

use crate::engine::Engine;
use crate::engine::follow::log_reader::LogCursor;
use crate::error::Result;
use crate::ids::Position;
use crate::view::{LogStart, TopicInfo, ViewHolder, log_start};

impl Engine {
    /// Begins to read a topic as a log.
    ///
    /// # Errors
    /// `InvalidPosition`; `Removed`; what reading an index says; the store's.
    pub(crate) fn open_log(&self, topic: TopicInfo, start: LogStart) -> Result<LogCursor> {
        self.enter()?;
        let nexts = log_start::nexts(self, topic, start)?;
        self.log_cursor(topic, nexts)
    }

    /// How many messages of a topic that may be seen stand behind a position, or are there at all.
    ///
    /// # Errors
    /// As [`Engine::open_log`].
    pub(crate) fn log_lag(&self, topic: TopicInfo, position: Option<Position>) -> Result<u64> {
        self.enter()?;
        let nexts = log_start::nexts(self, topic, position.map_or(LogStart::First, LogStart::After))?;
        Ok(self.with_view(|view| {
            topic.all().zip(&nexts).map(|(partition, next)| view.visible_end(partition).0.saturating_sub(next.0)).sum()
        }))
    }

    /// Whether a reader of the topic could begin behind this position.
    ///
    /// # Errors
    /// `InvalidPosition`; what reading an index says; the store's.
    pub(crate) fn check_position(&self, topic: TopicInfo, position: Position) -> Result<()> {
        self.enter()?;
        log_start::check_position(self, topic, position)
    }

    /// Whether a position is of this topic, as far as its partition says.
    ///
    /// # Errors
    /// `InvalidPosition`; the store's.
    pub(crate) fn check_partition(&self, topic: TopicInfo, position: Position) -> Result<()> {
        self.enter()?;
        self.with_view(|view| log_start::check_partition(view, topic, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Outgoing, Setup, Wait};
    use crate::error::{Error, PositionFault};
    use crate::ids::Lsn;
    use crate::ids::WallMs;
    use crate::log::Segment;
    use crate::record::{Retention, TopicOptions};
    use crate::view::ViewHolder;
    use std::sync::Arc;
    use std::time::Duration;

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
