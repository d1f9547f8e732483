//! A view of a store that somebody else may be writing to: what was durable when it was opened.
//!
//! Takes no lock of the directory and changes no byte there.

use super::{Fold, ReadCaches, View, ViewHolder, open_error};
use crate::disk::Disk;
use crate::error::Result;
use crate::ids::Lsn;
use crate::log;
use crate::sync::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Reads a store and never writes to it.
#[derive(Debug)]
pub(crate) struct Observer {
    view: Mutex<View>,
    caches: ReadCaches,
    /// The view is that of the log below this LSN.
    end: Lsn,
}

impl Observer {
    /// The store on `disk`, which errors call `dir`; `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt`, `NewerFormat`, `ForeignFile`, `Io`.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>> {
        let Some(contents) = log::observe(disk).map_err(open_error)? else { return Ok(None) };
        let view = Fold::of(&contents, true)?.view;
        Ok(Some(Self { view: Mutex::new(view), caches: ReadCaches::new(dir.to_path_buf()), end: contents.end }))
    }

    /// The end of what it knows.
    pub(crate) const fn end(&self) -> Lsn {
        self.end
    }
}

impl ViewHolder for Observer {
    fn with_view<R>(&self, look: impl FnOnce(&mut View) -> R) -> R {
        look(&mut self.view.lock())
    }

    fn caches(&self) -> &ReadCaches {
        &self.caches
    }
}
