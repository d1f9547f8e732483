//! Publishers that wait until there is room in their topic.
//!
//! Never here: what room there is (`state/topic/bound.rs`).

use crate::engine::core::Core;
use crate::engine::{Engine, Outgoing, Published};
use crate::error::{Error, Result};
use crate::ids::{MonoMs, TopicId};
use crate::state::{Rejection, Sequence, TopicRoom};
use crate::wait::Parker;
use std::time::Duration;

impl Engine {
    /// As [`Engine::append_messages`], which is tried again as long as the topic lets a publisher wait for room.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn append_when_room(
        &self,
        outgoing: &Outgoing,
        sequence: Option<Sequence<'_>>,
    ) -> Result<Result<Published, Rejection>> {
        let mut waits_until = None;
        let outcome = loop {
            let outcome = self.append_messages(outgoing, sequence);
            let Ok(Err(Rejection::TopicFull { topic, count })) = outcome else { break outcome };
            match self.wait_for_topic_room(topic, count, &mut waits_until) {
                Ok(true) => {}
                Ok(false) => break Ok(Err(Rejection::TopicFull { topic, count })),
                Err(error) => break Err(error),
            }
        };
        if waits_until.is_some() && !matches!(outcome, Ok(Ok(_))) {
            // It may have been woken for room that it did not take.
            self.lock_core().wake_publishers();
        }
        outcome
    }

    /// Waits until there may be room for `count` messages, up to `waits_until`, which is noted at the first wait. `false` if the topic
    /// refuses them now.
    fn wait_for_topic_room(&self, topic: TopicId, count: u64, waits_until: &mut Option<MonoMs>) -> Result<bool> {
        let parker = Parker::new();
        let (ticket, ms) = {
            let mut core = self.lock_core();
            self.health.check()?;
            let now = self.now();
            let Some(TopicRoom { max, left, when_full }) = core.view.state.topic_room(topic) else { return Ok(true) };
            if count <= left {
                return Ok(true);
            }
            let block_ms = when_full.block_ms();
            if block_ms == 0 || count > max {
                return Ok(false);
            }
            // By a clock that may be behind: a wait never ends early.
            let until = now.mono.saturating_add(now.slack_ms).saturating_add(block_ms);
            let until = *waits_until.get_or_insert(until);
            if now.mono >= until {
                return Ok(false);
            }
            (core.waiters.publishers.enter(topic, count, &parker.waker()), until.0 - now.mono.0)
        };
        parker.park_for(Duration::from_millis(ms));
        self.lock_core().waiters.publishers.leave(topic, ticket);
        Ok(true)
    }

    /// What a publisher is told that found no room for `count` messages.
    pub(in crate::engine) fn topic_full(&self, topic: TopicId, count: u64) -> Error {
        let max = self.lock_core().view.state.topic(topic).map(|topic| topic.options.max_messages);
        let Some(max) = max else { return Error::Removed { what: "topic" } };
        if count > max {
            return Error::TooLarge { what: "batch for its topic", len: count, max, unit: "messages" };
        }
        Error::TopicFull { topic: self.topic_name(topic), max }
    }
}

impl Core {
    /// Wakes the publishers for whose messages there is room now.
    pub(in crate::engine) fn wake_publishers(&mut self) {
        let Self { waiters, view, .. } = self;
        // seam: room in a topic wakes nobody
        waiters.wake_publishers(|topic| view.state.topic_room(topic).map_or(u64::MAX, |room| room.left));
    }
}
