//! Publishing: messages in, their ids out.
//!
//! Messages are copied once, under the lock, into the log. Never here: choosing a partition (the handle does that).

use crate::engine::{Engine, Outgoing, Published};
use crate::error::{Error, RefusedEvent, Result};
use crate::ids::{MessageId, TopicId};
use crate::state::{Rejection, Repeat, Sequence};

impl Engine {
    /// Appends the messages as one frame. Returns where they are, or which of them were accepted before, if some were: then nothing was
    /// published, and the others can be without them.
    ///
    /// # Errors
    /// Nothing was published then, not even in part.
    pub(crate) fn publish(&self, outgoing: &Outgoing) -> Result<Result<Published, Vec<Repeat>>> {
        self.published(self.append_when_room(outgoing, None)?)
    }

    /// As [`Engine::publish`], but where there is no room in the topic it is refused at once.
    ///
    /// # Errors
    /// As [`Engine::publish`].
    #[cfg(feature = "async")]
    pub(crate) fn publish_at_once(&self, outgoing: &Outgoing) -> Result<Result<Published, Vec<Repeat>>> {
        self.published(self.append_messages(outgoing, None)?)
    }

    fn published(&self, outcome: Result<Published, Rejection>) -> Result<Result<Published, Vec<Repeat>>> {
        match outcome {
            Ok(published) => Ok(Ok(published)),
            Err(Rejection::Repeated(repeats)) => Ok(Err(repeats)),
            Err(Rejection::DedupConflict { first, .. }) => Err(self.dedup_conflict(*first, None)),
            Err(Rejection::KeyPending { pending }) => Err(self.key_pending(*pending)),
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }

    /// As [`Engine::publish`], for the one message that a producer gave this number. `None` if it was published before.
    ///
    /// # Errors
    /// Nothing was published then.
    pub(crate) fn publish_numbered(&self, outgoing: &Outgoing, sequence: Sequence<'_>) -> Result<Option<Published>> {
        match self.append_when_room(outgoing, Some(sequence))? {
            Ok(published) => Ok(Some(published)),
            Err(Rejection::SequenceRepeated) => Ok(None),
            Err(Rejection::SequenceGap { expected }) => {
                let (topic, producer) = (self.topic_name(sequence.topic), sequence.producer.to_owned());
                Err(Error::SequenceGap { topic, producer, expected, given: sequence.number })
            }
            Err(other) => Err(self.rejected(other)),
        }
    }

    /// Another message was published under an id.
    pub(crate) fn dedup_conflict(&self, first: MessageId, event: Option<RefusedEvent>) -> Error {
        Error::DedupConflict { topic: self.topic_name(first.topic), first, event }
    }

    /// A message with a unique key is pending.
    pub(crate) fn key_pending(&self, pending: MessageId) -> Error {
        Error::KeyPending { topic: self.topic_name(pending.topic), pending }
    }

    pub(super) fn append_messages(
        &self,
        outgoing: &Outgoing,
        sequence: Option<Sequence<'_>>,
    ) -> Result<Result<Published, Rejection>> {
        self.enter()?;
        let published = self.submit(&outgoing.command(sequence), outgoing.parts(), |core, committed| {
            Published::of(core, committed, outgoing.runs())
        })?;
        if outgoing.has_delays() {
            self.due_times_changed();
        }
        Ok(published)
    }

    /// The number that a producer of a topic comes to next.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn next_sequence(&self, topic: TopicId, producer: &str) -> Result<u64> {
        self.enter()?;
        let produced = {
            let core = self.lock_core();
            core.view.state.topic(topic).ok_or(Error::Removed { what: "topic" })?;
            core.view.state.produced(topic, producer)
        };
        let Some(produced) = produced else { return Ok(0) };
        self.tell(produced.at.saturating_add(1))?;
        Ok(produced.sequence.saturating_add(1))
    }
}
