//! What a damaged log does not tell any more, in the words of its users. Never here: finding it out.

use super::fold::Missing;
use crate::error::Corruption;
use crate::ids::{Lsn, PartitionId};
use crate::log::LostRange;
use crate::state::{Role, State};

/// What is wrong with a store that does not open, and what of it cannot be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// Why the store does not open. `None`: it does, and there is nothing to be repaired.
    pub damage: Option<Corruption>,
    /// Stretches of the log that cannot be read, in its order.
    pub lost: Vec<LostLog>,
    /// Messages and dead letters that are known to be lost: others of their partition follow them. Each stays unsettled and is
    /// [`Error::Unreadable`](crate::Error::Unreadable) to each consumer that comes to it.
    pub lost_messages: Vec<LostMessages>,
    /// Records that say something of what is lost, such as the ack of a lost message, and so say nothing any more.
    pub lost_records: u64,
    /// The log ends with a stretch that is lost, as where its newest segment is missing: what it held, nothing tells.
    pub is_end_lost: bool,
    /// Both slots of `STORE` were lost, and with them the key of the store's hashes. Streams are not found under their names any more, and
    /// ids of messages that were published before are not known.
    pub are_names_lost: bool,
    /// Copies of the damaged files, and of those that are no part of the log any more, as they were, in the store's directory. Nobody reads
    /// them.
    pub copies: Vec<String>,
}

/// A stretch of the log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostLog {
    /// Its first LSN.
    pub from: Lsn,
    /// One past its last; equal to the first where nothing tells how much is lost behind it.
    pub to: Lsn,
    /// The file that is damaged there; `None` where no file is known to hold it.
    pub file: Option<String>,
}

/// Messages of one partition that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostMessages {
    /// Their topic.
    pub topic: String,
    /// The group whose dead letters or redriven messages they are.
    pub group: Option<String>,
    /// The index of their partition, 0 for those of a group. One past the last for messages for later, and notes of streams.
    pub partition: u32,
    /// The offset of the first.
    pub offset: u64,
    /// How many.
    pub count: u64,
}

impl RepairReport {
    /// What is missing of the log that ends at `end`, given why it does not open.
    pub(crate) fn of(damage: Corruption, (ranges, end): (&[LostRange], Lsn), missing: &Missing, state: &State) -> Self {
        let lost = ranges.iter().map(|range| LostLog {
            from: range.from,
            to: range.to,
            file: range.file.map(|file| file.to_string()),
        });
        let messages = missing.messages.iter().filter_map(|&(partition, first, count)| {
            let (topic, group, index) = place_of(state, partition)?;
            Some(LostMessages { topic, group, partition: index, offset: first.0, count })
        });
        Self {
            damage: Some(damage),
            lost: lost.collect(),
            lost_messages: messages.collect(),
            lost_records: missing.records,
            is_end_lost: ranges.iter().any(|range| range.to == end),
            ..Self::default()
        }
    }
}

/// The topic, the group and the index of a partition, unless it was removed since.
fn place_of(state: &State, partition: PartitionId) -> Option<(String, Option<String>, u32)> {
    let name_of = |topic| state.topic(topic).map(|topic| topic.name.to_string());
    match state.partition_role(partition)? {
        Role::Topic { topic, index } => Some((name_of(topic)?, None, index)),
        Role::Notes { topic } | Role::Schedule { topic } => Some((name_of(topic)?, None, state.topic(topic)?.count)),
        Role::Retry { group } | Role::Dead { group } => {
            let group = state.group(group)?;
            Some((name_of(group.topic)?, Some(group.name.to_string()), 0))
        }
    }
}
