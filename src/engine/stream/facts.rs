//! What a decision needs to know of streams, and deciding with it.
//!
//! Never here: the index itself, and what is decided.

use crate::engine::Engine;
use crate::engine::refusal::Refused;
use crate::engine::stream::opened::Opened;
use crate::error::Result;
use crate::record::StreamId;
use crate::state::{INDEX_BEHIND, Rejection, StreamFact, TOUCHES_MAX};
use crate::sync::MutexGuard;
use std::collections::BTreeMap;

/// What the index says of streams. While it is held the index forgets nothing that it says, so no fact grows stale.
#[derive(Default)]
pub(in crate::engine) struct StreamFacts<'a> {
    facts: BTreeMap<StreamId, StreamFact>,
    _hold: Option<MutexGuard<'a, Option<Opened>>>,
}

impl StreamFacts<'_> {
    /// What is known of a stream.
    pub(in crate::engine) fn of(&self, stream: StreamId) -> Option<StreamFact> {
        self.facts.get(&stream).copied()
    }
}

impl Engine {
    /// What the index says of all these streams at one moment.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    fn stream_facts(&self, streams: &[StreamId]) -> Result<StreamFacts<'_>> {
        let mut opened = self.index.opened.lock();
        let facts = self.with_index(&mut opened, |opened| {
            streams.iter().map(|&stream| Ok((stream, opened.fact(stream)?))).collect::<Result<_, _>>()
        })?;
        Ok(StreamFacts { facts, _hold: Some(opened) })
    }

    /// Calls `submit` until it is done, with the facts about `streams` that it turns out to lack; where too much is known beside the
    /// index, that catches up once. `submit` also returns how many touches are known by then. It tries once ([`Engine::try_submit`]), so
    /// that the index is held for no more than a decision.
    ///
    /// # Errors
    /// Those of `submit`; as [`Engine::with_index`].
    pub(in crate::engine) fn submit_with_facts<T>(
        &self,
        streams: &[StreamId],
        mut submit: impl FnMut(&StreamFacts<'_>) -> Result<std::result::Result<(T, usize), Refused>>,
    ) -> Result<std::result::Result<T, Rejection>> {
        let (mut facts, mut has_waited) = (StreamFacts::default(), false);
        loop {
            let submitted = submit(&facts)?;
            // What follows may sync and call wakers, and asks the index itself.
            // seam: the index is held while others are woken
            facts = StreamFacts::default();
            let refused = match submitted {
                Ok((done, touches)) => {
                    self.bound_touches(touches);
                    return Ok(Ok(done));
                }
                Err(refused) => refused,
            };
            match self.resolve(refused)? {
                Ok(()) => {}
                Err(Rejection::StreamUnknown(_)) => {
                    // seam: facts are read one at a time
                    facts = self.stream_facts(streams)?;
                }
                Err(Rejection::LimitReached(INDEX_BEHIND)) if !has_waited => {
                    // seam: why the index stays behind is not told
                    self.catch_up()?;
                    has_waited = true;
                }
                Err(rejection) => return Ok(Err(rejection)),
            }
        }
    }

    /// Lets the index catch up where too much is known beside it.
    fn bound_touches(&self, touches: usize) {
        if touches >= TOUCHES_MAX {
            // The append itself is done, whatever comes of this: a failed sync is told to the next call, and what keeps the index from
            // following to those that need it.
            drop(self.catch_up());
        }
    }

    fn catch_up(&self) -> Result<()> {
        self.wait_durable(self.end())?;
        self.advance_index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::Outgoing;
    use crate::engine::Setup;
    use crate::engine::StreamAt;
    use crate::error::Error;
    use crate::ids::{Expected, Lsn, MonoMs, Offset, PartitionId, WallMs};
    use crate::index::{IndexDirectory, IndexHome, IndexKind};
    use crate::log::AppendError;
    use crate::record::{Record, TopicOptions};
    use std::path::Path;
    use std::sync::{Arc, OnceLock, Weak};

    /// A clock that looks whether the index is free, wherever it is asked: also at the end of each sync, before wakers are called.
    #[derive(Debug, Default)]
    struct Looks(OnceLock<Weak<Engine>>);

    impl Clock for Looks {
        fn monotonic(&self) -> MonoMs {
            let engine = self.0.get().and_then(Weak::upgrade);
            assert!(engine.is_none_or(|engine| engine.index.opened.try_lock().is_some()), "the index is held");
            MonoMs(1)
        }

        fn wall(&self) -> WallMs {
            WallMs(1)
        }

        fn slack_ms(&self) -> u64 {
            0
        }
    }

    /// Wakers of users are called when a sync ends, and may ask the index.
    #[test]
    fn the_index_is_free_while_a_refusal_is_resolved() {
        let (disk, clock) = (Arc::new(SimDisk::new(1).attach().unwrap()), Arc::new(Looks::default()));
        let engine = Arc::new(Engine::open_on(disk, Setup::quiet(1 << 20), Arc::clone(&clock) as _).unwrap());
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), b"m", 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
        let (end, stream) = (engine.end(), StreamId { partition: topic.first, key: 1 });
        assert!(engine.commit.watermark() < end, "there is something to sync");
        let mut tries = 0;
        let done = engine.submit_with_facts(&[stream], |facts| {
            tries += 1;
            let refusal = match tries {
                1 => Rejection::StreamUnknown(stream).into(),
                2 => {
                    assert!(facts.of(stream).is_some() && engine.index.opened.try_lock().is_none());
                    clock.0.set(Arc::downgrade(&engine)).unwrap();
                    AppendError::NeedSync { upto: end }.into()
                }
                _ => return Ok(Ok(((), 0))),
            };
            Ok(Err(Refused { refusal, end }))
        });
        assert_eq!((done.unwrap(), tries), (Ok(()), 3));
        assert!(engine.commit.watermark() >= end);
    }

    /// However many streams a decision lacks, it is asked twice; and what it knows by then cannot grow stale before it is made.
    #[test]
    fn all_facts_are_of_one_moment() {
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, Setup::quiet(1 << 20), Arc::new(SimClock::new(WallMs(1)))).unwrap();
        let streams: Vec<StreamId> = (0..100).map(|key| StreamId { partition: PartitionId(0), key }).collect();
        let mut tries = 0;
        let done = engine.submit_with_facts(&streams, |facts| {
            tries += 1;
            assert!(tries < 3, "it knows too little by then");
            let unknown = streams.iter().find(|stream| facts.of(**stream).is_none());
            let refused =
                |stream: &StreamId| Refused { refusal: Rejection::StreamUnknown(*stream).into(), end: Lsn(0) };
            assert_eq!(engine.index.opened.try_lock().is_none(), tries > 1, "the index is held while its facts are");
            Ok(unknown.map_or(Ok(((), 0)), |stream| Err(refused(stream))))
        });
        assert_eq!((done.unwrap(), tries), (Ok(()), 2));
        assert!(engine.index.opened.try_lock().is_some());
    }

    /// A call that is refused since the index stays behind is told why it does.
    #[test]
    fn an_index_in_memory_that_is_full_is_named() {
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let home = IndexDirectory::new(IndexKind::Memory { entries_max: 4 }, "nowhere".into());
        let home: Box<dyn IndexHome> = Box::new(home);
        let clock = Arc::new(SimClock::new(WallMs(1)));
        let engine = Engine::open_at((disk, home), Path::new(""), Setup::quiet(1 << 20), true, clock).unwrap();
        let options = TopicOptions { streams: true, ..TopicOptions::LEFT_OUT };
        let topic = engine.open_topic("t", 1, options).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, Some(b"s"), std::iter::empty(), b"m", 1 << 20).unwrap();
        let stream = StreamAt { id: engine.stream_id(topic.id, topic.first, b"s"), key: b"s" };
        engine.append(stream, Expected::NoStream, &outgoing).unwrap();
        engine.sync().unwrap();
        let end = engine.end();
        for key in 0..2 * TOUCHES_MAX as u128 {
            let stream = StreamId { partition: topic.first, key };
            let (base, count, time, version, first) = (Offset(0), 1, WallMs(1), 0, 0);
            let appended = Record::Appended { stream, base, count, time, version, first };
            engine.lock_core().view.streams.follow(&appended, end);
        }
        let refused = engine.append(stream, Expected::Any, &outgoing).map(drop).unwrap_err();
        assert!(matches!(refused, Error::LimitReached { what } if what.contains("memory")), "{refused}");
    }
}
