//! Opening and creating topics: their options.
//!
//! Never here: what is done with a topic.

use super::store::StoreShared;
use super::topic::{Topic, TopicInner};
use super::{check_name, millis};
use crate::engine::{Retention, TopicInfo, TopicOptions, WhenFull};
use crate::error::{Error, Result};
use crate::limits::{BLOCK_MS_MAX, DEDUP_IDS_MAX, SNAPSHOTS_KEPT_MAX, TOPIC_PARTITIONS_MAX};
use crate::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::Arc;
use std::time::Duration;

/// Opens a topic, or creates it.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct TopicBuilder {
    shared: Arc<StoreShared>,
    pub(super) name: String,
    partitions: Option<u32>,
    retention: Option<Retention>,
    dedup_ids: Option<u32>,
    dedup_window: Option<Duration>,
    streams: bool,
    snapshots_kept: Option<u32>,
    max_messages: Option<u64>,
    drops_unsettled: Option<bool>,
    when_full: Option<WhenFull>,
    create: bool,
}

impl TopicBuilder {
    pub(super) fn new(shared: Arc<StoreShared>, name: String) -> Self {
        Self {
            shared,
            name,
            partitions: None,
            retention: None,
            dedup_ids: None,
            dedup_window: None,
            streams: false,
            snapshots_kept: None,
            max_messages: None,
            drops_unsettled: None,
            when_full: None,
            create: true,
        }
    }

    /// The number of partitions: 1 to 65,536, fixed when the topic is created. Default: what is stored, or 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// For how long its messages stay, fixed when the topic is created. Default: what is stored, or [`Retention::UntilSettled`].
    /// Beyond it messages stay as long as a group of the topic has not settled them.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// How many ids of its messages ([`Message::dedup_id`](crate::Message::dedup_id)) the topic remembers: 1 to 1,048,576, fixed when the
    /// topic is created. Default: what is stored, or 16,384. Beyond that the oldest goes. All topics of a store that have seen an id may
    /// remember 1,048,576 together.
    pub fn dedup_ids(mut self, ids: u32) -> Self {
        self.dedup_ids = Some(ids);
        self
    }

    /// For how long the topic remembers an id, from its first publish on: a millisecond to ten years, fixed when the topic is created.
    /// Default: what is stored, or two minutes. Jumps of the clock do not count while the store is open; while it is closed time goes by
    /// the wall clock.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.dedup_window = Some(window);
        self
    }

    /// Whether events can be appended to [streams](crate::Stream) in it, fixed when the topic is created. Its messages stay for ever.
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// How many [snapshots](crate::Stream::save_snapshot) of a stream are found, those of the highest versions: 1 to 1,000, fixed when
    /// the topic is created. Given only together with [`TopicBuilder::streams`]. Default: what is stored, or 1.
    pub fn snapshots_kept(mut self, snapshots: u32) -> Self {
        self.snapshots_kept = Some(snapshots);
        self
    }

    /// How many messages a group of the topic may have that it has not settled, those included that it has not come to: at least 1,
    /// fixed when the topic is created. A publish that would give any group more does what [`TopicBuilder::when_full`] says. Default:
    /// what is stored, or no bound.
    ///
    /// Only who publishes is refused. Messages for later count once they are due, and then find room, as do notices and what is redriven
    /// from dead letters. Dead letters do not count. A topic without groups has no bound. Each publish looks at all groups of the topic.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// What a publish does where there is no room for its messages, fixed when the topic is created. Given only together with
    /// [`TopicBuilder::max_messages`]. Default: what is stored, or [`WhenFull::Reject`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = Some(when_full);
        self
    }

    /// Whether messages go by [`Retention::Age`] or [`Retention::Count`] though a group has not come to them, fixed when the topic is
    /// created. Given only together with one of these. Default: what is stored, or `false`.
    ///
    /// They go without a delivery to the group, and are counted ([`GroupStats::dropped`](crate::GroupStats::dropped)), also where
    /// nobody consumes. Messages that it has leased, or looked at for their key, stay until they are settled, and so do all behind
    /// messages of a key that it only counts (more than 1,024 of one that wait). By age, they go up to a sixteenth of it late, and
    /// none becomes old within ten minutes of an open.
    pub fn drop_unsettled(mut self, drop: bool) -> Self {
        self.drops_unsettled = Some(drop);
        self
    }

    /// Whether the topic is created where it does not exist. Default: `true`.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the topic, creating it where it does not exist. A created topic is durable on return.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOption`; `OptionMismatch` where it exists with another value of an option that is given here;
    /// `LimitReached`; `NotFound` where it does not exist and was not to be created; the store's.
    pub fn open(self) -> Result<Topic> {
        check_name("topic", &self.name)?;
        let options = self.options()?;
        let engine = &self.shared.engine;
        let info = if self.create {
            engine.open_topic(&self.name, self.partitions.unwrap_or(1), options)?
        } else {
            engine.find_topic(&self.name)?
        };
        self.check_stored(&info, &options)?;
        let level = self.shared.level;
        let inner = TopicInner {
            shared: self.shared,
            name: self.name,
            info,
            turn: AtomicU32::new(0),
            schedule: AtomicU64::new(u64::MAX),
        };
        Ok(Topic::new(Arc::new(inner), level))
    }

    /// What the topic would be created with.
    fn options(&self) -> Result<TopicOptions> {
        let refused = |option, value, expected| Err(Error::InvalidOption { option, value, expected });
        if let Some(partitions) = self.partitions.filter(|count| !(1..=TOPIC_PARTITIONS_MAX).contains(count)) {
            return refused("partitions", partitions.to_string(), "from 1 to 65,536");
        }
        if let Some(ids) = self.dedup_ids.filter(|ids| !(1..=DEDUP_IDS_MAX).contains(ids)) {
            return refused("dedup_ids", ids.to_string(), "from 1 to 1,048,576");
        }
        if let Some(kept) = self.snapshots_kept.filter(|kept| !(1..=SNAPSHOTS_KEPT_MAX).contains(kept)) {
            return refused("snapshots_kept", kept.to_string(), "from 1 to 1,000");
        }
        // seam: snapshots are kept of no stream
        if let Some(kept) = self.snapshots_kept.filter(|_| !self.streams) {
            return refused("snapshots_kept", kept.to_string(), "left out, or given together with streams");
        }
        let window = self.dedup_window.map(|window| millis("dedup_window", window)).transpose()?;
        if window == Some(0) {
            return refused("dedup_window", "0ns".to_owned(), "more than nothing, and at most ten years");
        }
        let retention = self.possible_retention()?;
        self.check_bound()?;
        let left_out = TopicOptions::LEFT_OUT;
        Ok(TopicOptions {
            retention,
            dedup_ids: self.dedup_ids.unwrap_or(left_out.dedup_ids),
            dedup_window_ms: window.unwrap_or(left_out.dedup_window_ms),
            streams: self.streams,
            snapshots_kept: self.snapshots_kept.unwrap_or(left_out.snapshots_kept),
            max_messages: self.max_messages.unwrap_or(left_out.max_messages),
            when_full: self.when_full.unwrap_or(left_out.when_full).whole_ms(),
            drops_unsettled: self.drops_unsettled.unwrap_or(left_out.drops_unsettled),
        })
    }

    fn possible_retention(&self) -> Result<Retention> {
        let refused = |retention: Retention, expected| {
            Err(Error::InvalidOption { option: "retention", value: retention.to_string(), expected })
        };
        let Some(retention) = self.retention else {
            return Ok(if self.streams { Retention::Forever } else { Retention::default() });
        };
        if self.streams && retention != Retention::Forever {
            return refused(retention, "forever, or left out, for a topic of streams");
        }
        let is_possible = match retention {
            Retention::UntilSettled | Retention::Forever => true,
            Retention::Age(age) => age >= Duration::from_secs(1) && millis("retention", age).is_ok(),
            Retention::Count(count) => count > 0,
        };
        if !is_possible {
            return refused(retention, "for an age from one second to ten years, or for at least one message");
        }
        Ok(retention.whole_ms())
    }

    fn check_bound(&self) -> Result<()> {
        let refused = |option, value, expected| Err(Error::InvalidOption { option, value, expected });
        if self.max_messages == Some(0) {
            return refused("max_messages", "0".to_owned(), "at least 1");
        }
        if let Some(max) = self.max_messages.filter(|_| self.streams) {
            return refused(
                "max_messages",
                max.to_string(),
                "left out for a topic of streams, where nothing is settled away",
            );
        }
        let goes = self.retention.unwrap_or_default().is_for_a_while();
        if self.drops_unsettled == Some(true) && !goes {
            let expected = "left out, or given together with a retention by age or count";
            return refused("drop_unsettled", "true".to_owned(), expected);
        }
        let Some(when_full) = self.when_full else { return Ok(()) };
        // seam: a topic without a bound may be full
        if self.max_messages.is_none() {
            return refused("when_full", when_full.to_string(), "left out, or given together with max_messages");
        }
        match when_full {
            WhenFull::Block(_) if !(1..=BLOCK_MS_MAX).contains(&when_full.block_ms()) => {
                refused("when_full", when_full.to_string(), "to block for a millisecond to a day")
            }
            WhenFull::Reject | WhenFull::Block(_) | WhenFull::DropOldest => Ok(()),
        }
    }

    /// Whether the topic is stored with what was asked for; what was left out is as it is.
    fn check_stored(&self, info: &TopicInfo, asked: &TopicOptions) -> Result<()> {
        let stored = &info.options;
        let is_asked = self.retention.is_some() || self.streams;
        self.check_same("partitions", self.partitions, info.partitions)?;
        self.check_same("streams", self.streams.then_some(true), stored.streams)?;
        self.check_same("retention", is_asked.then_some(asked.retention), stored.retention)?;
        self.check_same("snapshots_kept", self.snapshots_kept, stored.snapshots_kept)?;
        self.check_same("max_messages", self.max_messages, stored.max_messages)?;
        self.check_same("when_full", self.when_full.map(WhenFull::whole_ms), stored.when_full)?;
        self.check_same("drop_unsettled", self.drops_unsettled, stored.drops_unsettled)?;
        self.check_same("dedup_ids", self.dedup_ids, stored.dedup_ids)?;
        let window = self.dedup_window.map(|_| asked.dedup_window_ms);
        self.check_same("dedup_window in milliseconds", window, stored.dedup_window_ms)
    }

    fn check_same<T: PartialEq + ToString>(&self, option: &'static str, asked: Option<T>, stored: T) -> Result<()> {
        let Some(asked) = asked.filter(|asked| *asked != stored) else { return Ok(()) };
        Err(Error::OptionMismatch {
            what: "topic",
            name: self.name.clone(),
            option,
            stored: stored.to_string(),
            asked: asked.to_string(),
        })
    }
}
