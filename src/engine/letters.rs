//! Dead letters: reading, redriving and discarding them.
//!
//! A dead letter is a message of its group's hidden partition. Redriving moves it, in one frame, to the group's retry
//! partition or to a topic's; discarding settles it. Never here: deciding what becomes a letter.

use super::core::Core;
use super::read::absent;
use super::stored::Stored;
use super::{Engine, Refusal};
use crate::error::{Error, Result};
use crate::ids::{GroupId, MessageId, Offset, PartitionId};
use crate::limits::REDRIVES_TO_TOPICS_MAX;
use crate::log::Parts;
use crate::record::Provenance;
use crate::state::{Command, Rejection};

/// How many letters are listed under one hold of the lock.
const LIST_AT_ONCE: usize = 256;

/// A dead letter as read.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) offset: Offset,
    pub(crate) stored: Stored,
    pub(crate) provenance: Provenance,
}

impl Engine {
    /// The offsets of the group's letters from `from` on, a page of them.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn letters(&self, group: GroupId, from: Offset) -> Result<Vec<Offset>> {
        self.enter()?;
        let core = self.lock_core();
        let dead = dead_of(&core, group)?;
        let visible = core.visible.end(dead, core.state.partition_end(dead));
        let mut letters = core.state.letters(group, from, LIST_AT_ONCE);
        letters.retain(|offset| *offset < visible);
        Ok(letters)
    }

    /// One past the last letter that there is.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn letters_end(&self, group: GroupId) -> Result<Offset> {
        self.enter()?;
        let core = self.lock_core();
        Ok(core.state.partition_end(dead_of(&core, group)?))
    }

    /// Reads a letter, or `None` where it has left meanwhile, or may not be seen yet.
    ///
    /// # Errors
    /// `Corrupt`, `Io`; the store's.
    pub(crate) fn letter(&self, group: GroupId, offset: Offset) -> Result<Option<Letter>> {
        self.enter()?;
        let dead = {
            let core = self.lock_core();
            let dead = dead_of(&core, group)?;
            let is_visible = offset < core.visible.end(dead, core.state.partition_end(dead));
            if !is_visible || core.state.letters(group, offset, 1).first() != Some(&offset) {
                return Ok(None);
            }
            dead
        };
        let stored = self.fetch(dead, offset)?;
        // Only moves put messages there: something else was read.
        let provenance = stored.provenance.as_deref().cloned().ok_or_else(|| absent(dead, offset))?;
        Ok(Some(Letter { offset, stored, provenance }))
    }

    /// Moves a letter to `to`, or to the group's retry partition.
    ///
    /// # Errors
    /// `NoSuchLetter` where it has left meanwhile; `TooManyRedrives`.
    pub(crate) fn redrive(
        &self,
        group: GroupId,
        id: MessageId,
        letter: &Letter,
        to: Option<PartitionId>,
    ) -> Result<crate::ids::Lsn> {
        self.enter()?;
        let command = Command::Redrive { group, letter: letter.offset, to, provenance: &letter.provenance };
        self.submit_copy(&command, letter.stored.part(0)).map_err(|refusal| self.letter_error(id, refusal))
    }

    /// Throws a letter away.
    ///
    /// # Errors
    /// `NoSuchLetter` where it has left meanwhile.
    pub(crate) fn discard(&self, group: GroupId, id: MessageId, letter: Offset) -> Result<()> {
        self.enter()?;
        self.submit(&Command::Discard { group, letter }, Parts::default(), |_, _| ())
            .map_err(|refusal| self.letter_error(id, refusal))
    }

    fn letter_error(&self, id: MessageId, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Rejected(Rejection::NoSuchLetter) => Error::NoSuchLetter { id },
            Refusal::Rejected(Rejection::TooManyRedrives) => Error::TooManyRedrives { id, max: REDRIVES_TO_TOPICS_MAX },
            refusal => self.refused(refusal),
        }
    }
}

/// The partition of the group's dead letters.
fn dead_of(core: &Core, group: GroupId) -> Result<PartitionId> {
    core.state.group(group).map(|group| group.dead()).ok_or(Error::Removed { what: "group" })
}
