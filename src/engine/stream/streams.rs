//! Appending to streams and reading them.
//!
//! A decision goes by how far the stream has come. Where that is not known beside the index, the index is asked outside the lock, and the
//! decision comes again with the answer. Never here: the index itself (`stream_index`).

use crate::engine::core::Core;
use crate::engine::deliver::settle::end_of;
use crate::engine::stream::stream_index::Indexed;
use crate::engine::{Engine, Outgoing, Published};
use crate::error::{Error, RefusedEvent, Result};
use crate::ids::{Expected, Lsn, Offset, PartitionId, TopicId};
use crate::index::Direction;
use crate::record::{Record, StreamId};
use crate::state::{Command, Rejection, Repeat, StreamFact, StreamHead, StreamRun, Touch};
use crate::view::{Reader, Stored, ViewHolder};
use std::collections::BTreeMap;

/// A stream, by its id and its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamAt<'a> {
    pub(crate) id: StreamId,
    pub(crate) key: &'a [u8],
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum StreamAppended {
    /// Its first event has this version, and as a message this offset.
    Now { published: Published, version: u64, base: Offset },
    /// All of its events were appended before.
    Before(Vec<Repeat>),
}

/// A stretch of a stream.
struct KnownRuns {
    head: StreamHead,
    /// By their first versions.
    runs: BTreeMap<u64, StreamRun>,
    /// The end of what may be seen of the partition.
    visible: Offset,
    /// Whether that was truncated lately.
    truncated: bool,
}

/// How much of a key an error shows, in bytes.
const KEY_SHOWN_LEN: usize = 64;

/// The key of a stream as an error shows it.
pub(crate) fn shown(key: &[u8]) -> String {
    let shown = key.get(..KEY_SHOWN_LEN).unwrap_or(key);
    let more = if key.len() > shown.len() { "…" } else { "" };
    match std::str::from_utf8(shown) {
        Ok(text) => format!("{text}{more}"),
        // What was cut in the middle of a character is text all the same.
        Err(error) if error.error_len().is_none() => format!("{}{more}", String::from_utf8_lossy(shown)),
        Err(_) => shown.iter().map(|byte| format!("{byte:02x}")).chain([more.to_owned()]).collect(),
    }
}

impl StreamAt<'_> {
    /// An event that it does not get, by its number among those of its append.
    pub(crate) fn refused(self, number: u32) -> RefusedEvent {
        RefusedEvent { stream: shown(self.key), number }
    }
}

/// The stream has another version than was expected.
pub(in crate::engine) fn wrong_version(key: &[u8], expected: Expected, actual: Option<u64>) -> Error {
    Error::WrongVersion { stream: shown(key), expected, actual }
}

/// Whether the topic of a stream is still there.
pub(in crate::engine) fn check_there(core: &Core, stream: StreamId) -> Result<()> {
    let role = core.view.state.partition_role(stream.partition);
    role.map(drop).ok_or(Error::Removed { what: "topic" })
}

impl Engine {
    /// Appends the events, which are all of this stream, as one frame.
    ///
    /// # Errors
    /// `WrongVersion`, `DedupConflict`, `IndexRebuilding`, `LimitReached`; the store's. Nothing was appended then.
    pub(crate) fn append(
        &self,
        stream: StreamAt<'_>,
        expected: Expected,
        outgoing: &Outgoing,
    ) -> Result<StreamAppended> {
        self.enter()?;
        self.check_index_room()?;
        let count = outgoing.len() as u32;
        let submitted = self.submit_with_facts(&[stream.id], |facts| {
            let fact = facts.of(stream.id);
            let command = Command::Append { stream: stream.id, count, expected, ids: outgoing.ids(), fact };
            self.try_submit(&command, outgoing.parts(), |core, committed| {
                let published = Published::of(core, committed, 0);
                let (version, base) = core.records.iter().find_map(Record::appends).unwrap_or_default();
                (StreamAppended::Now { published, version, base }, core.view.streams.len())
            })
        })?;
        match submitted {
            Ok(appended) => Ok(appended),
            Err(Rejection::Repeated(repeats)) => Ok(StreamAppended::Before(repeats)),
            Err(Rejection::WrongVersion { actual, .. }) => Err(wrong_version(stream.key, expected, actual)),
            Err(Rejection::DedupConflict { part, first }) => {
                Err(self.dedup_conflict(*first, Some(stream.refused(part))))
            }
            Err(Rejection::Invalid(reason)) => {
                Err(Error::InvalidTransaction { reason: format!("{reason}: {}", shown(stream.key)) })
            }
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }

    /// How far a stream has come, as far as may be seen.
    ///
    /// # Errors
    /// `IndexRebuilding`; the store's.
    pub(crate) fn stream_head(&self, stream: StreamId) -> Result<StreamHead> {
        self.enter()?;
        let known = {
            let core = self.lock_core();
            check_there(&core, stream)?;
            core.view.streams.head(stream)
        };
        let head = match known {
            Some(head) => head,
            None => loop {
                let StreamFact { head, as_of } = self.stream_fact(stream)?;
                let streams = &self.lock_core().view.streams;
                if let Some(head) = streams.head(stream) {
                    break head;
                }
                if as_of >= streams.floor() {
                    break head;
                }
            },
        };
        // It may name what another call appended.
        self.tell(self.end())?;
        Ok(head)
    }

    /// Takes the events below `first` from a stream, and notes that in `note`. Returns where the log must be durable for that to be.
    ///
    /// # Errors
    /// `IndexRebuilding`; the store's.
    pub(crate) fn truncate_stream(&self, stream: StreamId, first: u64, note: &Outgoing) -> Result<Lsn> {
        self.enter()?;
        let submitted = self.submit_with_facts(&[stream], |facts| {
            let command = Command::TruncateStream { stream, first, fact: facts.of(stream) };
            self.try_submit(&command, note.parts(), |core, committed| {
                (end_of(core, committed), core.view.streams.len())
            })
        })?;
        submitted.map_err(|rejection| self.rejected(rejection))
    }

    /// The events of a stream, with their versions, from version `from` on, or back from it: at most `max`, and of those below the end that may be seen.
    ///
    /// # Errors
    /// `IndexRebuilding`; `Unreadable` where an event is damaged; the store's.
    pub(crate) fn read_stream(
        &self,
        stream: StreamAt<'_>,
        from: u64,
        direction: Direction,
        max: usize,
    ) -> Result<Vec<(u64, Stored)>> {
        self.enter()?;
        if max == 0 {
            return Ok(Vec::new());
        }
        let KnownRuns { head, runs, visible, truncated } = self.known_runs(stream.id, from, direction, max)?;
        if truncated {
            // A power failure could bring back what is not shown.
            self.tell(self.end())?;
        }
        let mut reader = Reader::default();
        let versions: Box<dyn Iterator<Item = u64>> = match direction {
            Direction::Ascending => Box::new(from.max(head.first)..head.next),
            Direction::Descending => Box::new((head.first..head.next.min(from.saturating_add(1))).rev()),
        };
        let mut events = Vec::new();
        for version in versions {
            if events.len() == max {
                break;
            }
            let run = runs.range(..=version).next_back().map(|(_, run)| run).filter(|run| version < run.end());
            // Every version from the first to the last stands somewhere.
            let Some(run) = run else { return Err(self.doubt_index()) };
            let offset = run.offset.saturating_add(version - run.version);
            if offset >= visible {
                match direction {
                    Direction::Ascending => break,
                    Direction::Descending => continue,
                }
            }
            let stored = self.fetch_by(&mut reader, stream.id.partition, offset)?;
            if stored.view(0).key() != Some(stream.key) {
                return Err(self.doubt_index());
            }
            events.push((version, stored));
        }
        Ok(events)
    }

    /// The version of the event at this offset, which was appended lately; `None` if it is no event of the stream.
    ///
    /// # Errors
    /// As [`Engine::read_stream`].
    pub(crate) fn version_at(&self, stream: StreamId, offset: Offset) -> Result<Option<u64>> {
        let (mut from, runs_max) = (u64::MAX, 1_000);
        loop {
            let runs = self.known_runs(stream, from, Direction::Descending, runs_max)?.runs;
            let holds =
                |run: &&StreamRun| (run.offset..run.offset.saturating_add(u64::from(run.count))).contains(&offset);
            if let Some(run) = runs.values().find(holds) {
                return Ok(Some(run.version.saturating_add(offset.0 - run.offset.0)));
            }
            match runs.keys().next() {
                Some(&first) if first > 0 && first < from => from = first - 1,
                Some(_) | None => return Ok(None),
            }
        }
    }

    /// Where the events of a stretch of a stream stand, how far the stream has come, and the end of what may be seen.
    fn known_runs(&self, stream: StreamId, from: u64, direction: Direction, max: usize) -> Result<KnownRuns> {
        let mut from = from;
        loop {
            let Indexed { head, runs, as_of } = self.indexed_runs(stream, from, direction, max)?;
            let core = self.lock_core();
            self.health.check()?;
            check_there(&core, stream)?;
            // seam: what the index took in is not looked for again
            if as_of < core.view.streams.floor() {
                continue;
            }
            let before = head;
            let mut runs: BTreeMap<u64, StreamRun> = runs.into_iter().map(|run| (run.version, run)).collect();
            let mut truncated = false;
            for touch in core.view.streams.touches(stream) {
                match touch {
                    Touch::Appended(run) => drop(runs.insert(run.version, run)),
                    Touch::TruncatedTo(..) => truncated = true,
                    Touch::Saved { .. } => {}
                }
            }
            let head = core.view.streams.head(stream).unwrap_or(head);
            if direction == Direction::Ascending && head.first > before.first.max(from) {
                // More was truncated than the index knows: it gave what is gone.
                from = head.first;
                continue;
            }
            let visible = crate::engine::follow::log_reader::visible_end(&core, stream.partition);
            return Ok(KnownRuns { head, runs, visible, truncated });
        }
    }

    /// The stream of a key in the topic's partition of that key.
    pub(crate) fn stream_id(&self, topic: TopicId, partition: PartitionId, key: &[u8]) -> StreamId {
        StreamId { partition, key: self.dedup.id(topic, key) }
    }
}
