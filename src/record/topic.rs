//! What a topic goes by: the options of its creation.
//!
//! Never here: what follows from them.

use std::fmt;
use std::time::Duration;

/// What a topic was created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicOptions {
    pub(crate) retention: Retention,
    /// How many ids of its messages it remembers, and each for how long.
    pub(crate) dedup_ids: u32,
    pub(crate) dedup_window_ms: u64,
    /// Whether events can be appended to streams in it.
    pub(crate) streams: bool,
    /// How many snapshots of a stream are found: those of the highest versions.
    pub(crate) snapshots_kept: u32,
    /// How many messages a group may have that it has not settled before no more are published. Zero is no bound.
    pub(crate) max_messages: u64,
    /// What a publish does then.
    pub(crate) when_full: WhenFull,
    /// Whether messages go at the end of their time, or behind so many, that a group has not come to.
    pub(crate) drops_unsettled: bool,
}

impl TopicOptions {
    /// As [`GroupOptions::LEFT_OUT`].
    pub(crate) const LEFT_OUT: Self = Self {
        retention: Retention::UntilSettled,
        dedup_ids: 16_384,
        dedup_window_ms: 120_000,
        streams: false,
        snapshots_kept: 1,
        max_messages: 0,
        when_full: WhenFull::Reject,
        drops_unsettled: false,
    };
}

/// What a publish does where its topic has no room for more messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is refused at once, by [`Error::TopicFull`](crate::Error::TopicFull).
    #[default]
    Reject,
    /// It waits until there is room, and is refused if there is none after so long: from a millisecond to a day.
    Block(Duration),
    /// It makes room: the oldest messages that a group has not come to go without a delivery to it, and are counted
    /// ([`GroupStats::dropped`](crate::GroupStats::dropped)). Messages that were leased, redriven, or looked at for their key, stay, and
    /// so do all behind messages of a key that the group only counts. If they take all the room, the publish is refused. Each publish to a full
    /// topic looks at all of its partitions.
    DropOldest,
}

impl WhenFull {
    /// As it is stored: in whole milliseconds.
    pub(crate) fn whole_ms(self) -> Self {
        match self {
            Self::Block(_) => Self::Block(Duration::from_millis(self.block_ms())),
            Self::Reject | Self::DropOldest => self,
        }
    }

    /// For how many milliseconds a publish waits.
    pub(crate) fn block_ms(self) -> u64 {
        match self {
            Self::Reject | Self::DropOldest => 0,
            Self::Block(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject => f.write_str("reject"),
            Self::Block(time) => write!(f, "block for {time:?}"),
            Self::DropOldest => f.write_str("drop the oldest"),
        }
    }
}

/// For how long the messages of a topic stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// Until every group of the topic has settled them. While it has no group, all stay.
    #[default]
    UntilSettled,
    /// Until the topic is removed, whichever groups settled them.
    Forever,
    /// At least for so long from their publish on, and as long as a group has not settled them: from one second to ten years. They go up to
    /// a sixteenth of it later, as soon as their file can go. Jumps of the wall clock while the store is open do not count. After an open,
    /// and after each jump, none go for ten minutes.
    Age(Duration),
    /// At least the last so many of each partition, and those that a group has not settled: at least 1.
    Count(u64),
}

impl Retention {
    /// As it is stored: in whole milliseconds.
    pub(crate) fn whole_ms(self) -> Self {
        match self {
            Self::Age(age) => Self::Age(Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
            Self::UntilSettled | Self::Forever | Self::Count(_) => self,
        }
    }

    /// Whether messages go in time even if the topic has no group.
    pub(crate) const fn is_for_a_while(self) -> bool {
        match self {
            Self::Age(_) | Self::Count(_) => true,
            Self::UntilSettled | Self::Forever => false,
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UntilSettled => f.write_str("until settled"),
            Self::Forever => f.write_str("forever"),
            Self::Age(age) => write!(f, "{age:?}"),
            Self::Count(count) => write!(f, "the last {count}"),
        }
    }
}
