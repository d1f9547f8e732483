//! Ids of messages, producers, named cursors.
//!
//! Ages of ids are not looked at here: the window is longer than any run. Never here: what is right of messages (see `reference`).

use crate::facts::Body;
use crate::ops::{Draft, Size};
use crate::reference::World;
use crate::runner::{Outcome, Runner, ensure};
use millpond::{Error, Message, MessageId, WhilePending};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How many ids a topic of a run remembers, and each for how long.
pub(crate) const IDS: u32 = 3;
pub(crate) const WINDOW: Duration = Duration::from_secs(9 * 366 * 24 * 3600);

/// A message that was accepted under an id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Accepted {
    id: u8,
    body: Arc<Body>,
    message: MessageId,
}

impl World {
    fn accepted(&self, topic: usize, id: u8) -> Option<&Accepted> {
        self.accepted.get(&topic)?.iter().find(|accepted| accepted.id == id)
    }

    fn accept(&mut self, topic: usize, accepted: Accepted) {
        let remembered: &mut VecDeque<_> = self.accepted.entry(topic).or_default();
        remembered.push_back(accepted);
        if remembered.len() > IDS as usize {
            remembered.pop_front();
        }
    }
}

const DRAFT: Draft = Draft { size: Size::Small, key: None, headers: 0, partition: None };

/// The bytes that go with an id, or others.
fn body_of(id: u8, is_other: bool) -> Arc<Body> {
    let payload = vec![id; 20 + usize::from(is_other)];
    Arc::new(Body { key: Some(vec![id % 2]), headers: Vec::new(), payload })
}

fn message(id: u8, body: &Body) -> Message<'_> {
    Message::new(&body.payload).key(vec![id % 2])
}

impl Runner {
    pub(crate) fn publish_under_id(&mut self, topic: usize, id: u8, is_other: bool, in_batch: bool) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let (handle, _) = self.handle(topic, Some(false))?;
        let body = body_of(id, is_other);
        let given = || message(id, &body).dedup_id([id]);
        let published = if in_batch {
            // The second one is the first one again.
            handle.publish_batch([given(), given()]).map(|receipt| {
                assert!(receipt.ids()[0] == receipt.ids()[1] && receipt.is_repeat(1) && !receipt.is_repeat(2));
                (receipt.ids()[0], receipt.is_repeat(0))
            })
        } else {
            handle.publish(given()).map(|receipt| (receipt.id(), receipt.is_repeat()))
        };
        match published {
            Ok((message, false)) => {
                self.advance(|world| match world.accepted(topic, id) {
                    None => Ok(vec![world.clone()]),
                    Some(accepted) => Err(format!("{message} was published under an id of {accepted:?}")),
                })?;
                self.published(topic, &[(DRAFT, message, Arc::clone(&body))])?;
                self.change(|world| world.accept(topic, Accepted { id, body: Arc::clone(&body), message }))
            }
            Ok((message, true)) => {
                self.told(topic, id, "is a repeat", |accepted| accepted.body == body && accepted.message == message)
            }
            Err(Error::DedupConflict { first, .. }) => {
                self.told(topic, id, "is in conflict", |accepted| accepted.body != body && accepted.message == first)
            }
            Err(error) => Err(format!("publish under an id: {error}")),
        }
    }

    /// What was said of an id is true, and durable where only that is shown.
    fn told(&mut self, topic: usize, id: u8, what: &str, is_so: impl Fn(&Accepted) -> bool) -> Outcome {
        if self.opening.disk {
            let first = self.world().accepted(topic, id).map(|accepted| accepted.message);
            self.durable_ids.extend(first);
        }
        self.advance(|world| match world.accepted(topic, id) {
            Some(accepted) if is_so(accepted) => Ok(vec![world.clone()]),
            found => Err(format!("id {id} {what}, and the topic remembers {found:?}")),
        })
    }

    pub(crate) fn publish_unique(&mut self, topic: usize, key: u8, existing: bool) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let (handle, _) = self.handle(topic, Some(false))?;
        // What a group with a filter does not want is pending until it has looked at it, which the reference does not know.
        if self.world().groups.iter().any(|group| group.topic == topic && group.options.wants_typed.is_some()) {
            return Ok(());
        }
        self.change(|world| _ = world.keyed.insert(topic))?;
        self.change(World::let_go_keys)?;
        let (body, at) = (self.body(DRAFT), (topic, key));
        let policy = if existing { WhilePending::ReturnExisting } else { WhilePending::Reject };
        let pending = match handle.publish(Message::new(&body.payload).unique_key([key], policy)) {
            Ok(receipt) if !receipt.is_repeat() => {
                self.advance(|world| match world.owners.get(&at) {
                    None => Ok(vec![world.clone()]),
                    Some(owner) => Err(format!("{} was published under the unique key of {owner}", receipt.id())),
                })?;
                self.published(topic, &[(DRAFT, receipt.id(), body)])?;
                return self.change(|world| _ = world.owners.insert(at, receipt.id()));
            }
            Ok(receipt) if existing => receipt.id(),
            Err(Error::KeyPending { pending, .. }) if !existing => pending,
            other => return Err(format!("publish under a unique key: {other:?}")),
        };
        if self.opening.disk {
            self.durable_ids.insert(pending);
        }
        self.advance(|world| match world.owners.get(&at) {
            Some(owner) if *owner == pending => Ok(vec![world.clone()]),
            found => Err(format!("{pending} is told to be pending, and {found:?} is")),
        })
    }

    pub(crate) fn publish_numbered(&mut self, topic: usize, name: u8, by: u64) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let (handle, disk) = self.handle(topic, None)?;
        let producer = handle.producer(["p", "q"][usize::from(name % 2)]).map_err(|error| error.to_string())?;
        ensure!(producer.name() == ["p", "q"][usize::from(name % 2)], "{producer:?}");
        let next = producer.next_sequence().map_err(|error| format!("next number: {error}"))?;
        let key = (topic, name % 2);
        self.advance(|world| {
            let known = world.produced.get(&key).copied().unwrap_or(0);
            if known == next { Ok(vec![world.clone()]) } else { Err(format!("{known} comes next, and not {next}")) }
        })?;
        let number = (next + by).saturating_sub(1);
        let body = self.body(DRAFT);
        match producer.publish(number, Message::new(&body.payload)) {
            Ok(Some(receipt)) if number == next => {
                if disk {
                    self.ensure_durable()?;
                    self.durable_ids.insert(receipt.id());
                }
                self.published(topic, &[(DRAFT, receipt.id(), body)])?;
                self.change(|world| {
                    world.produced.insert(key, next + 1);
                })
            }
            Ok(None) if number < next => Ok(()),
            Err(Error::SequenceGap { expected, .. }) if number > next && expected == next => Ok(()),
            other => Err(format!("published {number} where {next} comes next: {other:?}")),
        }
    }

    pub(crate) fn set_cursor(&mut self, name: u8, is_right: bool, in_transaction: bool) -> Outcome {
        let store = self.process()?.store.clone();
        let cursor = store.cursor(format!("cursor {}", name % 3)).map_err(|error| error.to_string())?;
        let name = cursor.name().to_owned();
        let stands = self.read_cursor(&name)?;
        self.bodies += 1;
        let value = self.bodies.to_le_bytes();
        let expected = if is_right { stands.as_deref() } else { Some(&b"elsewhere"[..]) };
        let done = if in_transaction {
            let done = store.transaction(|tx| tx.set_cursor(&cursor, expected, value));
            done.map(drop)
        } else {
            cursor.set(expected, value)
        };
        match done {
            Ok(()) if is_right => {
                if self.opening.disk {
                    self.ensure_durable()?;
                }
                self.change(|world| drop(world.cursors.insert(name.clone(), value.to_vec())))
            }
            Err(Error::CursorMoved { name: named }) if !is_right && named == name => Ok(()),
            other => Err(format!("set {name}, expected at {expected:?}: {other:?}")),
        }
    }

    /// Where a cursor stands, which every world agrees with.
    fn read_cursor(&mut self, name: &str) -> Outcome<Option<Vec<u8>>> {
        let store = &self.process()?.store;
        let names = store.cursors().map_err(|error| format!("cursors: {error}"))?;
        let stands =
            store.cursor(name).and_then(|cursor| cursor.get()).map_err(|error| format!("a cursor: {error}"))?;
        self.advance(|world| {
            ensure!(world.cursors.get(name) == stands.as_ref(), "{name} stands at {stands:?}");
            ensure!(world.cursors.keys().eq(&names), "the cursors are {names:?}");
            Ok(vec![world.clone()])
        })?;
        Ok(stands)
    }

    pub(crate) fn remove_cursor(&mut self, name: u8) -> Outcome {
        let name = format!("cursor {}", name % 3);
        let stands = self.read_cursor(&name)?;
        let removed = self.process()?.store.cursor(&name).and_then(|cursor| cursor.remove());
        match removed {
            Ok(()) if stands.is_some() => self.change(|world| drop(world.cursors.remove(&name))),
            Err(Error::NotFound { what: "cursor", .. }) if stands.is_none() => Ok(()),
            other => Err(format!("removed {name}: {other:?}")),
        }
    }
}
