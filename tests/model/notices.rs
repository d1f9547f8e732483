//! Notices of dead letters, which all go to one topic: number 0, that no operation but these touches.
//!
//! In what order messages died is left open, so what is there is compared as a heap. Never here: what becomes a dead letter (see
//! `reference`).

use crate::actions::{owned, said};
use crate::facts::{Body, Message, Span};
use crate::item::Item;
use crate::reference::World;
use crate::runner::{Outcome, Runner, ensure, group_name, topic_name};
use millpond::{Cause, MessageId, Topic};
use millpond::{Epoch, Offset, TopicId};
use std::sync::Arc;

/// What is to be told of a message that died.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) item: Item,
    pub(crate) time: u64,
    pub(crate) epoch: Epoch,
    pub(crate) frame: Span,
}

fn body(told: &Told, topic: &str, group: &str) -> Body {
    let Item { message, attempts, failures, .. } = &told.item;
    let last = failures.last().expect("a message that died has failed");
    let cause = match last.cause {
        Cause::Nacked => "nacked",
        Cause::Expired => "expired",
        Cause::Crashed => "crashed",
        Cause::Closed => "closed",
        Cause::Rejected => "rejected",
        _ => "otherwise",
    };
    let headers = [
        ("id", message.origin.to_string()),
        ("topic", topic.to_owned()),
        ("group", group.to_owned()),
        ("cause", cause.to_owned()),
        ("attempts", attempts.to_string()),
        ("time-ms", told.time.to_string()),
    ];
    let headers = headers.map(|(name, value)| (format!("dead-letter-{name}"), value.into_bytes()));
    Body { key: message.body.key.clone(), headers: headers.to_vec(), payload: last.text.clone().into_bytes() }
}

fn sorted(mut bodies: Vec<Body>) -> Vec<Body> {
    bodies.sort_by(|one, other| (&one.headers, &one.payload).cmp(&(&other.headers, &other.payload)));
    bodies
}

impl World {
    /// Publishes what groups have to tell.
    pub(crate) fn tell(&mut self) {
        for group in 0..self.groups.len() {
            for told in std::mem::take(&mut self.groups[group].told) {
                let of = &self.groups[group];
                let body = body(&told, &topic_name(self.topic_names[of.topic]), &group_name(of.name));
                let offset = Offset(self.topics[0][0].len() as u64);
                let id = MessageId { topic: TopicId(0), partition: 0, epoch: told.epoch, offset };
                let (body, frame) = (Arc::new(body), told.frame);
                let message =
                    Message { id, origin: id, body, published: told.time, stored: told.time, frame, redrives: 0 };
                self.publish(0, &message);
            }
        }
    }
}

impl Runner {
    /// The topic of all notices, which is there from the start.
    pub(crate) fn create_notices(&mut self) -> Outcome {
        let topic = said("create a topic", self.process()?.store.topic(topic_name(0)).open())?;
        self.process_mut()?.notices = Some(topic);
        self.change(|world| world.create_topic(0, 1, false))?;
        self.settle(true)
    }

    pub(crate) fn notices(&self) -> Outcome<&Topic> {
        self.process()?.notices.as_ref().ok_or_else(|| "no topic for notices".to_owned())
    }

    pub(crate) fn read_notices(&mut self) -> Outcome {
        said("sync", self.process()?.store.sync())?;
        let mut reader = said("read notices", self.notices()?.reader().from_start().open())?;
        let mut found = Vec::new();
        while let Some(notice) = said("read a notice", reader.try_next())? {
            ensure!(notice.id() == notice.origin(), "a notice is a copy");
            found.push(Body {
                key: notice.key().map(<[u8]>::to_vec),
                headers: owned(notice.headers()),
                payload: notice.payload().to_vec(),
            });
        }
        let found = sorted(found);
        self.advance(|world| {
            let expected = sorted(world.topics[0][0].iter().map(|message| Body::clone(&message.body)).collect());
            ensure!(found == expected, "notices {found:?}, expected {expected:?}");
            Ok(vec![world.clone()])
        })
    }
}
