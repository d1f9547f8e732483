//! What is told about positions and gaps of a log. Never here: who tells it.

#[cfg(doc)]
use crate::ids::Position;
use std::fmt;

/// What is wrong with a [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PositionFault {
    /// This log had no such message: the position is of another store, or of a copy that went on by itself.
    UnknownLog,
    /// What it names was lost, as unsynced data is in a power failure.
    Lost,
    /// It is of another topic of this store.
    OtherTopic,
    /// Its topic was removed, though there may be one of the same name.
    TopicRemoved,
}

impl fmt::Display for PositionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownLog => "is of another store",
            Self::Lost => "is of a message that was lost in a power failure",
            Self::OtherTopic => "is of another topic",
            Self::TopicRemoved => "is of a topic that was removed",
        })
    }
}

/// The text of a gap.
pub(super) fn gap(f: &mut fmt::Formatter<'_>, topic: &str, partition: u32, offset: u64, count: u64) -> fmt::Result {
    let from = format_args!("{partition}@{offset}");
    write!(f, "{count} messages of topic {topic:?} from {from} on were removed before they were read; read on")
}
