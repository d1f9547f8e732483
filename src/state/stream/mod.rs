//! Streams: the events of one key, numbered from 0 on.
//!
//! How far a stream has come is no part of the state: memory may not grow with the number of streams. A decision takes it from the
//! [`StreamTails`], which know of every stream that was touched lately, or else from a [`StreamFact`] that somebody has read in the
//! index and that nothing can have made stale. Never here: the index, and where events stand in the log.

mod tails;
#[cfg(test)]
mod tests;

pub(crate) use tails::{StreamRun, StreamTails, Touch};

/// Where more touches than this are known beside the index, appends wait for it; at twice as many they are refused.
pub(crate) const TOUCHES_MAX: usize = 1 << 17;
/// What there are too many of then.
pub(crate) const INDEX_BEHIND: &str = "events that the index of streams does not follow yet";

use super::message::{Applied, require};
use super::{Decision, DedupId, Inputs, Rejection, Repeat, Role, State};
use crate::ids::{Expected, Lsn, Offset, PartitionId, TopicId};
use crate::record::{Record, StreamId, StreamNote};

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamHead {
    /// The first version that is there; `next` where none is.
    pub(crate) first: u64,
    /// The version of the next event.
    pub(crate) next: u64,
}

impl StreamHead {
    /// The version of the last event, if there is one.
    pub(crate) fn last(self) -> Option<u64> {
        self.next.checked_sub(1).filter(|last| *last >= self.first)
    }
}

/// Whether a stream that has come so far is as somebody expects it.
fn is_expected(head: StreamHead, expected: Expected) -> bool {
    match expected {
        Expected::Any => true,
        Expected::NoStream => head.last().is_none(),
        Expected::Exists => head.last().is_some(),
        // seam: any version will do
        Expected::Version(version) => head.last() == Some(version),
    }
}

/// What somebody has read of a stream in the index, which followed the log up to `as_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamFact {
    pub(crate) head: StreamHead,
    pub(crate) as_of: Lsn,
}

/// The highest version that an event may have.
pub(crate) const VERSION_MAX: u64 = u64::MAX - 2;

impl State {
    /// The topic of the partition, if that has streams.
    fn check_stream(&self, partition: PartitionId) -> Result<TopicId, Rejection> {
        let Some(Role::Topic { topic, .. }) = self.catalog.role(partition) else {
            return Err(Rejection::UnknownPartition);
        };
        let has_streams = self.catalog.topic(topic).is_some_and(|topic| topic.options.streams);
        if has_streams { Ok(topic) } else { Err(Rejection::Invalid("the topic has no streams")) }
    }

    /// How far a stream has come, if that is known.
    fn stream_head(stream: StreamId, fact: Option<StreamFact>, inputs: &Inputs<'_>) -> Result<StreamHead, Rejection> {
        // seam: a stale fact is believed
        let fact = fact.filter(|fact| fact.as_of >= inputs.streams.floor());
        inputs.streams.head(stream).or(fact.map(|fact| fact.head)).ok_or(Rejection::StreamUnknown(stream))
    }

    /// Appends `count` events to a stream whose last event is as `expected`, behind the `ahead` that the frame appends before. Those of a
    /// repeated append are told and not added again.
    pub(in crate::state) fn decide_append(
        &self,
        (stream, count, ahead): (StreamId, u32, u64),
        expected: Expected,
        (ids, fact): (&[DedupId], Option<StreamFact>),
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        self.check_stream(stream.partition)?;
        let base = self.catalog.end(stream.partition);
        self.catalog.check_published(stream.partition, base, count)?;
        let StreamHead { first, next } = Self::stream_head(stream, fact, inputs)?;
        let head = StreamHead { first, next: next.saturating_add(ahead) };
        let at = records.len();
        let StreamHead { first, next: version } = head;
        records.push(Record::Appended { stream, base, count, time: inputs.wall, version, first });
        if !ids.is_empty()
            && let Err(rejection) = self.decide_accept(&[(stream.partition, count)], ids, inputs, records)
        {
            records.truncate(at);
            return Err(match rejection {
                // Other appends had some of these events, or a publish had.
                Rejection::Repeated(repeats) if !is_one_append(&repeats, count) => {
                    let first = repeats.first().map(|repeat| (repeat.part, repeat.id));
                    first.map_or(Rejection::Stale, |(part, id)| Rejection::DedupConflict { part, first: Box::new(id) })
                }
                other => other,
            });
        }
        if let Err(rejection) = check_followed(inputs) {
            records.truncate(at);
            return Err(rejection);
        }
        // seam: the version is not checked
        if !is_expected(head, expected) {
            records.truncate(at);
            return Err(Rejection::WrongVersion { stream, actual: head.last() });
        }
        check_versions(head.next, count)?;
        Ok(Decision::Done)
    }

    /// Takes the events below `first` from a stream; more than there are is all.
    pub(in crate::state) fn decide_truncate_stream(
        &self,
        stream: StreamId,
        first: u64,
        fact: Option<StreamFact>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let note = self.next_note(stream, inputs)?;
        let head = Self::stream_head(stream, fact, inputs)?;
        let first = first.min(head.next);
        if first <= head.first {
            return Ok(Decision::Nothing);
        }
        check_followed(inputs)?;
        records.push(Record::StreamTruncated { stream, note, first, next: head.next });
        Ok(Decision::Done)
    }

    /// Saves a snapshot of a stream as it is after event `version`, which is one of its own or of the `ahead` that the frame appends
    /// before.
    pub(in crate::state) fn decide_save_snapshot(
        &self,
        stream: StreamId,
        (version, ahead): (u64, u64),
        fact: Option<StreamFact>,
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let note = self.next_note(stream, inputs)?;
        let StreamHead { first, next } = Self::stream_head(stream, fact, inputs)?;
        let next = next.saturating_add(ahead);
        // seam: a snapshot is newer than its stream
        if !(first..next).contains(&version) {
            return Err(Rejection::NoSuchVersion { stream, actual: StreamHead { first, next }.last() });
        }
        check_followed(inputs)?;
        Ok(Record::SnapshotSaved { stream, note, version, first, next })
    }

    /// Where the next note of a stream of this topic goes.
    fn next_note(&self, stream: StreamId, inputs: &Inputs<'_>) -> Result<StreamNote, Rejection> {
        let topic = self.check_stream(stream.partition)?;
        let partition = self.catalog.topic(topic).and_then(|topic| topic.notes()).ok_or(Rejection::UnknownPartition)?;
        let offset = self.catalog.end(partition);
        self.catalog.check_note(topic, (partition, offset))?;
        Ok(StreamNote { partition, offset, time: inputs.wall })
    }

    pub(in crate::state) fn apply_appended(
        &mut self,
        stream: StreamId,
        (base, count): (Offset, u32),
        (version, first): (u64, u64),
    ) -> Applied {
        self.check_stream(stream.partition)?;
        check_versions(version, count)?;
        require(first <= version, "an event is appended below the first of its stream")?;
        Ok(self.catalog.publish(stream.partition, base, count)?)
    }

    pub(in crate::state) fn apply_stream_truncated(
        &mut self,
        stream: StreamId,
        note: StreamNote,
        head: StreamHead,
    ) -> Applied {
        let fits = head.first > 0 && head.first <= head.next && head.next <= VERSION_MAX + 1;
        require(fits, "a stream is truncated beyond its end")?;
        self.apply_note(stream, note)
    }

    pub(in crate::state) fn apply_snapshot_saved(
        &mut self,
        stream: StreamId,
        note: StreamNote,
        (version, head): (u64, StreamHead),
    ) -> Applied {
        let fits = (head.first..head.next).contains(&version) && head.next <= VERSION_MAX + 1;
        require(fits, "a snapshot of a version that its stream does not have")?;
        self.apply_note(stream, note)
    }

    fn apply_note(&mut self, stream: StreamId, note: StreamNote) -> Applied {
        let topic = self.check_stream(stream.partition)?;
        self.catalog.check_note(topic, (note.partition, note.offset))?;
        self.catalog.add_copy(note.partition);
        Ok(())
    }
}

/// Whether these are all events of one append, in order.
fn is_one_append(repeats: &[Repeat], count: u32) -> bool {
    let follows = |pair: &[Repeat]| {
        let (one, next) = (&pair[0], &pair[1]);
        one.lsn == next.lsn
            && one.id.partition == next.id.partition
            && one.id.offset.checked_add(1) == Some(next.id.offset)
    };
    repeats.len() == count as usize && repeats.windows(2).all(follows)
}

/// Memory has a bound also where the index cannot follow.
fn check_followed(inputs: &Inputs<'_>) -> Result<(), Rejection> {
    // seam: appends do not wait for the index
    if inputs.streams.len() >= 2 * TOUCHES_MAX {
        return Err(Rejection::LimitReached(INDEX_BEHIND));
    }
    Ok(())
}

fn check_versions(version: u64, count: u32) -> Result<(), Rejection> {
    let last = version.checked_add(u64::from(count)).filter(|next| *next <= VERSION_MAX + 1);
    last.map(drop).ok_or(Rejection::LimitReached("events in a stream"))
}
