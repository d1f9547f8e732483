//! Reading topics as logs, from the start, the end, and positions that were seen before.
//!
//! Never here: what a store delivers to groups.

use crate::actions::{millis, pick};
use crate::facts::{Body, Message, Now};
use crate::ops::From;
use crate::reference::World;
use crate::runner::{Outcome, Runner, ensure};
use millpond::TopicId;
use millpond::{Error, LogMessage, LogReader, MessageId, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What one reader said, from its begin to the end of what may be seen.
#[derive(Default)]
struct Told {
    messages: Vec<LogMessage>,
    /// Partition, first offset, count.
    gaps: Vec<(u64, u64, u64)>,
}

impl Told {
    fn of(reader: &mut LogReader) -> Outcome<Self> {
        let mut told = Self::default();
        loop {
            let next = if told.messages.is_empty() { reader.next(Duration::ZERO) } else { reader.try_next() };
            match next {
                Ok(Some(message)) => told.messages.push(message),
                Ok(None) => return Ok(told),
                Err(Error::Gap { partition, offset, count, .. }) => told.gaps.push((partition.into(), offset, count)),
                Err(error) => return Err(format!("read a log: {error}")),
            }
        }
    }
}

fn body(message: &LogMessage) -> Body {
    let headers: Vec<(String, Vec<u8>)> =
        message.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    assert_eq!(message.header("type"), headers.first().map(|(_, value)| value.as_slice()));
    Body { key: message.key().map(<[u8]>::to_vec), headers, payload: message.payload().to_vec() }
}

/// The message of this id in a world, if it is there.
fn in_world(world: &World, id: MessageId) -> Option<&Message> {
    let messages = world.topics.get(id.topic.0 as usize)?.get(id.partition as usize)?;
    messages.get(id.offset.0 as usize).filter(|message| message.id == id)
}

impl Runner {
    pub(crate) fn read_log(&mut self, topic: usize, from: From) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let builder = self.process()?.topics[&topic].reader();
        let known: Vec<MessageId> = self.positions.keys().copied().collect();
        let (builder, after) = match from {
            From::Start => (builder.from_start(), None),
            From::End => (builder.from_end(), None),
            From::Position(index) => {
                let Some(index) = pick(&known, index) else { return Ok(()) };
                let id = known[index];
                (builder.from(self.positions[&id]), Some(id))
            }
        };
        let mut reader = match (builder.open(), after) {
            (Ok(reader), None) => reader,
            (Ok(reader), Some(id)) => {
                ensure!(id.topic == TopicId(topic as u64), "a position of {id} counts in topic {topic}");
                let is_there = |world: &World| in_world(world, id).is_some();
                self.advance(|world| if is_there(world) { Ok(vec![world.clone()]) } else { Err(format!("no {id}")) })?;
                reader
            }
            (Err(Error::InvalidPosition { position, fault }), Some(id)) => {
                ensure!(position == self.positions[&id], "another position is refused");
                let is_lost = |world: &World| id.topic != TopicId(topic as u64) || in_world(world, id).is_none();
                let refused = format!("the position of {id} {fault}");
                return self
                    .advance(|world| if is_lost(world) { Ok(vec![world.clone()]) } else { Err(refused.clone()) });
            }
            (Err(error), _) => return Err(format!("open a reader: {error}")),
        };
        let told = Told::of(&mut reader)?;
        ensure!(reader.try_next().is_ok_and(|next| next.is_none()), "there is more where nothing was");
        if matches!(from, From::End) {
            ensure!(told.messages.is_empty() && told.gaps.is_empty(), "the end is none");
            return Ok(());
        }
        for message in &told.messages {
            ensure!(message.topic() == self.topic_name(topic), "a message of {}", message.topic());
            self.note_id(message.id(), &Arc::new(body(message)))?;
            let position = *self.positions.entry(message.id()).or_insert(message.position());
            ensure!(position == message.position(), "{} stands at two places", message.id());
            ensure!(position.to_string().parse() == Ok(position), "{position} is no text of itself");
        }
        let after = after.map(|id| (id, self.positions[&id]));
        ensure!(told.messages.is_sorted_by(|a, b| a.position() < b.position()), "out of order");
        ensure!(
            told.messages.first().is_none_or(|first| after.is_none_or(|(_, at)| at < first.position())),
            "too early"
        );
        let (now, positions) = (self.now()?, self.positions.clone());
        self.advance(|world| {
            check_read(world, topic, &told, &now)?;
            check_missing(world, topic, &told, (after, &positions), &now)?;
            Ok(vec![world.clone()])
        })
    }
}

/// What was read is there, whole, may be seen, and comes in the order of its frames.
fn check_read(world: &World, topic: usize, told: &Told, now: &Now) -> Outcome {
    // The frames of those before end behind this.
    let mut began = 0;
    for read in &told.messages {
        let id = read.id();
        let message = in_world(world, id).ok_or_else(|| format!("read {id}, which is not there"))?;
        let same = (message.origin, message.published) == (read.origin(), millis(read.timestamp()));
        ensure!(same && *message.body == body(read), "{id} is not what was published: {message:?}");
        ensure!(message.is_visible(now) != Some(false), "read {id}, which is not durable");
        ensure!(id.topic == TopicId(topic as u64), "{id} is of another topic");
        ensure!(message.frame.1 > began, "{id} comes after a later frame");
        began = began.max(message.frame.0);
    }
    Ok(())
}

type After<'a> = (Option<(MessageId, Position)>, &'a BTreeMap<MessageId, Position>);

/// What was not read is not to be seen, stands before where the reader began, or was settled by all and is told of.
fn check_missing(world: &World, topic: usize, told: &Told, (after, known): After<'_>, now: &Now) -> Outcome {
    let read: BTreeSet<MessageId> = told.messages.iter().map(LogMessage::id).collect();
    let frame = after.and_then(|(id, _)| in_world(world, id)).map_or(0, |message| message.frame.1);
    for (partition, messages) in (0..).zip(&world.topics[topic]) {
        let floor = world.settled_before(topic, partition);
        let first = read.iter().filter(|id| id.partition == u64::from(partition)).map(|id| id.offset.0).min();
        for message in messages.iter().filter(|message| message.is_visible(now) == Some(true)) {
            let (id, offset) = (message.id, message.id.offset.0);
            let place = known.get(&id);
            let before = after.is_some_and(|(_, at)| place.map_or(message.frame.0 < frame, |place| *place <= at));
            if before || read.contains(&id) {
                continue;
            }
            ensure!(offset < floor, "{id} was not read, and somebody wants it");
            let is_told = told
                .gaps
                .iter()
                .any(|(of, from, count)| *of == u64::from(partition) && (*from..from + count).contains(&offset));
            let at_start = after.is_none() && first.is_none_or(|first| offset < first);
            ensure!(is_told || at_start || place.is_none(), "{id} was not read, and no gap is told");
        }
    }
    Ok(())
}
