//! Dead letters: reading, redriving and discarding them.
//!
//! A dead letter is a message of its group's hidden partition. Redriving moves it, in one frame, to the group's retry
//! partition or to a topic's; discarding settles it. Never here: deciding what becomes a dead letter.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::error::{Error, Result};
use crate::ids::{GroupId, MessageId, Offset, PartitionId};
use crate::limits::REDRIVES_TO_TOPICS_MAX;
use crate::log::Parts;
use crate::state::{Command, Rejection};
use crate::view::Stored;
use crate::view::ViewHolder;
use crate::view::{absent, unreadable};

/// How many dead letters are listed under one hold of the lock.
const LIST_AT_ONCE: usize = 256;

impl Engine {
    /// The offsets of the group's dead letters from `from` on, a page of them.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn dead_letters(&self, group: GroupId, from: Offset) -> Result<Vec<Offset>> {
        self.enter()?;
        let core = self.lock_core();
        let dead = dead_of(&core, group)?;
        let visible = core.view.visible.end(dead, core.view.state.partition_end(dead));
        let mut dead_letters = core.view.state.dead_letters(group, from, LIST_AT_ONCE);
        dead_letters.retain(|offset| *offset < visible);
        Ok(dead_letters)
    }

    /// One past the last dead letter that there is.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn dead_letters_end(&self, group: GroupId) -> Result<Offset> {
        self.enter()?;
        let core = self.lock_core();
        Ok(core.view.state.partition_end(dead_of(&core, group)?))
    }

    /// Reads a dead letter, which is a copy, or `None` where it has left meanwhile, or may not be seen yet.
    ///
    /// # Errors
    /// `Unreadable`; the store's.
    pub(crate) fn dead_letter(&self, group: GroupId, offset: Offset) -> Result<Option<Stored>> {
        self.enter()?;
        let dead = {
            let core = self.lock_core();
            let dead = dead_of(&core, group)?;
            let is_visible = offset < core.view.visible.end(dead, core.view.state.partition_end(dead));
            if !is_visible || core.view.state.dead_letters(group, offset, 1).first() != Some(&offset) {
                return Ok(None);
            }
            dead
        };
        let stored = self.fetch(dead, offset)?;
        // Only moves put messages there: something else was read.
        if stored.provenance.is_none() {
            return Err(unreadable(self, (dead, offset), absent(dead, offset)));
        }
        Ok(Some(stored))
    }

    /// Moves a dead letter to `to`, or to the group's retry partition.
    ///
    /// # Errors
    /// `NoSuchDeadLetter` where it has left meanwhile; `TooManyRedrives`.
    pub(crate) fn redrive(
        &self,
        group: GroupId,
        id: MessageId,
        dead_letter: &Stored,
        to: Option<PartitionId>,
    ) -> Result<crate::ids::Lsn> {
        self.enter()?;
        let command =
            Command::Redrive { group, dead_letter: dead_letter.about.first, to, provenance: dead_letter.copied_from() };
        self.submit_copy(&command, dead_letter.part(0))?.map_err(|rejection| self.dead_letter_error(id, rejection))
    }

    /// Throws a dead letter away.
    ///
    /// # Errors
    /// `NoSuchDeadLetter` where it has left meanwhile.
    pub(crate) fn discard(&self, group: GroupId, id: MessageId, dead_letter: Offset) -> Result<()> {
        self.enter()?;
        self.submit(&Command::Discard { group, dead_letter }, Parts::default(), |_, _| ())?
            .map_err(|rejection| self.dead_letter_error(id, rejection))
    }

    fn dead_letter_error(&self, id: MessageId, rejection: Rejection) -> Error {
        match rejection {
            Rejection::NoSuchDeadLetter => Error::NoSuchDeadLetter { id },
            Rejection::TooManyRedrives => Error::TooManyRedrives { id, max: REDRIVES_TO_TOPICS_MAX },
            other => self.rejected(other),
        }
    }
}

/// The partition of the group's dead letters.
fn dead_of(core: &Core, group: GroupId) -> Result<PartitionId> {
    core.view.state.group(group).map(|group| group.dead()).ok_or(Error::Removed { what: "group" })
}
