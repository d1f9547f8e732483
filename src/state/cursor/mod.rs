//! Named cursors: small values that are changed only by those who know them.
//!
//! A cursor says how far somebody has come; the value means nothing here. One that holds a topic keeps its messages from a place in
//! the log on. Never here: what positions are made of.

mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use snapshot::{decode, encode};

use super::kit::named::{Named, NamedSnapshot};
use super::message::{Applied, require};
use super::topic::check_name;
use super::{Rejection, Role, State};
use crate::ids::{Lsn, PartitionId, TopicId};
use crate::limits::{CURSOR_LEN_MAX, CURSORS_MAX};
use crate::record::{Hold, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a cursor stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CursorState {
    pub(crate) value: Arc<[u8]>,
    pub(crate) hold: Option<Hold>,
    /// The frame that set it; 0 if that lies below the checkpoint that was read, and so is durable.
    pub(crate) set_at: Lsn,
}

/// All cursors of a store.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Cursors {
    named: Named<CursorState>,
    /// How many cursors hold a topic from an LSN on.
    holds: BTreeMap<(TopicId, Lsn), u32>,
}

impl Cursors {
    pub(in crate::state) fn snapshot(&self) -> NamedSnapshot<CursorState> {
        self.named.snapshot()
    }

    fn set(&mut self, name: &str, cursor: CursorState) {
        let hold = cursor.hold;
        let before = self.named.set(name, cursor);
        self.release(before);
        if let Some(Hold { topic, from }) = hold {
            *self.holds.entry((topic, from)).or_default() += 1;
        }
    }

    fn release(&mut self, before: Option<CursorState>) {
        let Some(Hold { topic, from }) = before.and_then(|cursor| cursor.hold) else { return };
        let Some(count) = self.holds.get_mut(&(topic, from)) else { return };
        *count -= 1;
        if *count == 0 {
            self.holds.remove(&(topic, from));
        }
    }

    /// From where on cursors hold the topic; `None` where none does.
    pub(in crate::state) fn held_from(&self, topic: TopicId) -> Option<Lsn> {
        self.holds.range((topic, Lsn(0))..=(topic, Lsn(u64::MAX))).next().map(|((_, from), _)| *from)
    }

    /// Whether the holds are those of the cursors.
    pub(in crate::state) fn check(&self, fault: &mut impl FnMut(&'static str)) {
        let mut again = Self::default();
        for (name, cursor) in self.snapshot().sorted() {
            again.set(name, cursor.clone());
        }
        if again.holds != self.holds {
            fault("what cursors hold is not what they say");
        }
        if self.named.len() > CURSORS_MAX {
            fault("too many cursors");
        }
    }
}

impl State {
    /// Where a cursor stands.
    pub(crate) fn cursor(&self, name: &str) -> Option<&CursorState> {
        self.cursors.named.get(name)
    }

    /// Whether a cursor that is there holds less with this.
    pub(crate) fn moves_on(&self, name: &str, to: Hold) -> bool {
        let hold = self.cursor(name).and_then(|cursor| cursor.hold);
        hold.is_some_and(|hold| hold.topic == to.topic && hold.from <= to.from)
    }

    /// All cursors as they are now. Copies pointers.
    pub(crate) fn cursors(&self) -> NamedSnapshot<CursorState> {
        self.cursors.snapshot()
    }

    /// From where in the log on cursors hold a partition.
    pub(crate) fn held_from(&self, partition: PartitionId) -> Option<Lsn> {
        match self.catalog.role(partition) {
            // seam: a cursor holds nothing
            Some(Role::Topic { topic, .. }) => self.cursors.held_from(topic),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. }) | None => None,
        }
    }

    /// Sets a cursor that stands at `expected`, or is not there.
    pub(in crate::state) fn decide_set_cursor(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        hold: Option<Hold>,
    ) -> Result<Record, Rejection> {
        self.check_cursor(name, value.len(), hold)?;
        // seam: a cursor is set by anybody
        if self.cursor(name).map(|cursor| &*cursor.value) != expected {
            return Err(Rejection::CursorMoved);
        }
        Ok(Record::CursorSet { name: name.to_owned(), value: value.into(), hold })
    }

    pub(in crate::state) fn decide_remove_cursor(&self, name: &str) -> Result<Record, Rejection> {
        self.cursor(name).ok_or(Rejection::NoSuchCursor)?;
        Ok(Record::CursorRemoved { name: name.to_owned() })
    }

    /// Whether a cursor may stand there; also asked of a record.
    fn check_cursor(&self, name: &str, len: usize, hold: Option<Hold>) -> Result<(), Rejection> {
        check_name(name)?;
        if len > CURSOR_LEN_MAX {
            return Err(Rejection::Invalid("the value of a cursor has at most 1,024 bytes"));
        }
        // A removed topic stays nobody's.
        if hold.is_some_and(|hold| hold.topic >= self.catalog.next().topic) {
            return Err(Rejection::UnknownTopic);
        }
        let new = usize::from(self.cursor(name).is_none());
        if self.has_room_for_cursors(new) { Ok(()) } else { Err(Rejection::LimitReached("cursors")) }
    }

    pub(in crate::state) fn has_room_for_cursors(&self, new: usize) -> bool {
        self.cursors.named.len() + new <= CURSORS_MAX
    }

    pub(in crate::state) fn apply_cursor_set(
        &mut self,
        name: &str,
        value: &[u8],
        hold: Option<Hold>,
        lsn: Lsn,
    ) -> Applied {
        self.check_cursor(name, value.len(), hold)?;
        let before = self.cursor(name).and_then(|cursor| cursor.hold);
        self.cursors.set(name, CursorState { value: value.into(), hold, set_at: lsn });
        before.into_iter().chain(hold).for_each(|hold| self.let_go_passed_of(hold.topic));
        Ok(())
    }

    pub(in crate::state) fn apply_cursor_removed(&mut self, name: &str) -> Applied {
        require(self.cursor(name).is_some(), "there is no such cursor")?;
        let before = self.cursors.named.remove(name);
        let hold = before.as_ref().and_then(|before| before.hold);
        self.cursors.release(before);
        hold.into_iter().for_each(|hold| self.let_go_passed_of(hold.topic));
        Ok(())
    }
}
