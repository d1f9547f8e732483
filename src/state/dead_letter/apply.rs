//! Applying what makes, moves and discards dead letters.
//!
//! Never here: a choice.

use crate::ids::{GroupId, Offset, PartitionId};
use crate::limits::{HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{Copied, FailureCounts};
use crate::state::message::{Applied, LeaseTarget, require};
use crate::state::{Rejection, Role, State};
use std::sync::Arc;

impl State {
    pub(in crate::state) fn check_copy(&self, copy: &Copied) -> Applied {
        let Copied { partition, offset, provenance, .. } = copy;
        let at_end = *offset == self.catalog.end(*partition) && offset.checked_add(1).is_some();
        require(at_end, "a copy that is not at the end of a partition")?;
        require(provenance.history.len() <= HISTORY_LEN, "a history is too long")?;
        let is_full = provenance.history.len() == HISTORY_LEN;
        require(is_full || provenance.earlier == FailureCounts::default(), "failures before a history that has room")?;
        require(provenance.origin.redrives <= REDRIVES_TO_TOPICS_MAX, "a message was sent to topics too often")
    }

    pub(in crate::state) fn apply_dead_lettered(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        copy: &Copied,
    ) -> Applied {
        let LeaseTarget { message, group, cursor, entry } = self.target(at)?;
        let may = entry.lease().is_some() || entry.is_exhausted();
        require(may, "a message is given up that could have another attempt")?;
        require(copy.partition == group.dead(), "a dead letter among others than its group's")?;
        self.check_copy(copy)?;
        self.catalog.add_copy(copy.partition);
        let group = self.groups.get_mut(&message.group).ok_or(Rejection::UnknownGroup)?;
        // seam: a dead letter stays in its partition
        group.settle(cursor, message.offset, 1);
        group.tidy();
        self.exclusive.touched(message, 1);
        self.let_go_settled(message.partition, message.offset, 1);
        Ok(())
    }

    pub(in crate::state) fn apply_redriven(&mut self, group: GroupId, dead_letter: Offset, copy: &Copied) -> Applied {
        let to_topic = matches!(self.catalog.role(copy.partition), Some(Role::Topic { .. }));
        let to_group = copy.partition == self.group_of_dead_letter(group, dead_letter)?.retry;
        require(to_topic || to_group, "a dead letter is redriven to a message that is none")?;
        self.check_copy(copy)?;
        self.catalog.add_copy(copy.partition);
        self.apply_dead_letter_settled(group, dead_letter)
    }

    pub(in crate::state) fn apply_dead_letter_settled(&mut self, group: GroupId, dead_letter: Offset) -> Applied {
        self.group_of_dead_letter(group, dead_letter)?;
        let group = self.groups.get_mut(&group).ok_or(Rejection::UnknownGroup)?;
        // seam: a redriven dead letter stays
        Arc::make_mut(&mut group.data.dead_letters).insert(dead_letter);
        Ok(())
    }
}
