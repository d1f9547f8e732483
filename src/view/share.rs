//! What a file is to a partition: whether its messages are looked for there.
//!
//! Never here: where in the file they stand.

use crate::ids::PartitionId;
use crate::log::{Class, Segment};
use crate::state::{Role, State};

/// What a partition's share of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Its messages are looked for there.
    Wanted,
    /// They are looked for in a file of their class, or by nobody: the partition is no longer there.
    Passed,
    /// There never was such a partition.
    Impossible,
}

/// The class of a partition's messages, if it is there.
pub(super) fn class_of(state: &State, partition: PartitionId) -> Option<Class> {
    Some(match state.partition_role(partition)? {
        Role::Topic { .. } | Role::Retry { .. } | Role::Notes { .. } | Role::Schedule { .. } => Class::Messages,
        Role::Dead { .. } => Class::DeadLetters,
    })
}

/// What a partition's share of a file is, as the state knows the partition.
pub(crate) fn share_of(state: &State, segment: &Segment) -> impl Fn(PartitionId) -> Share {
    let serves = segment.serves();
    move |partition| match class_of(state, partition) {
        Some(class) if serves.contains(class) => Share::Wanted,
        None if partition >= state.partitions_end() => Share::Impossible,
        Some(_) | None => Share::Passed,
    }
}
