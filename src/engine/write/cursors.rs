//! Named cursors: reading, setting, listing and removing them.
//!
//! What another call did is told only once it is durable, where only what is durable is shown. Never here: what a value means.

use crate::engine::Engine;
use crate::engine::deliver::settle::end_of;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::Parts;
use crate::record::Hold;
use crate::state::{Command, Rejection};
use std::sync::Arc;

impl Engine {
    /// Where a cursor stands.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn cursor(&self, name: &str) -> Result<Option<Arc<[u8]>>> {
        self.enter()?;
        let (value, end) = {
            let core = self.lock_core();
            let found = core.view.state.cursor(name);
            // One that is not there may have been removed a moment ago.
            let end = found.map_or(core.appender.wanted(), |cursor| cursor.set_at.saturating_add(1));
            (found.map(|cursor| Arc::clone(&cursor.value)), end)
        };
        self.tell(end)?;
        Ok(value)
    }

    /// The names of all cursors, in order.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn cursors(&self) -> Result<Vec<Arc<str>>> {
        self.enter()?;
        let (cursors, end) = {
            let core = self.lock_core();
            (core.view.state.cursors(), core.appender.wanted())
        };
        self.tell(end)?;
        Ok(cursors.names())
    }

    /// Sets a cursor that stands at `expected`, or is not there. Returns the end of the log after it.
    ///
    /// # Errors
    /// `CursorMoved`; `LimitReached`; `Removed` if the topic that it is to hold never was; the store's.
    pub(crate) fn set_cursor(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        hold: Option<Hold>,
    ) -> Result<Lsn> {
        self.enter()?;
        let command = Command::SetCursor { name, expected, value, hold };
        self.submit(&command, Parts::default(), end_of)?.map_err(|rejection| match rejection {
            Rejection::CursorMoved => Error::CursorMoved { name: name.to_owned() },
            other => self.rejected(other),
        })
    }

    /// Removes a cursor. Returns the end of the log after it.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn remove_cursor(&self, name: &str) -> Result<Lsn> {
        self.enter()?;
        self.submit(&Command::RemoveCursor { name }, Parts::default(), end_of)?.map_err(|rejection| match rejection {
            Rejection::NoSuchCursor => Error::NotFound { what: "cursor", name: name.to_owned() },
            other => self.rejected(other),
        })
    }

    /// Returns once what lies below `end` may be told to others.
    ///
    /// # Errors
    /// `Poisoned` where that can never be known.
    pub(in crate::engine) fn tell(&self, end: Lsn) -> Result<()> {
        // seam: what is not durable is told
        if !self.setup.durable_only || end <= self.commit.watermark() {
            return Ok(());
        }
        self.wait_durable(end).map_err(|_| Error::Poisoned { cause: self.health.cause() })
    }
}
