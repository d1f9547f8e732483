//! A sync to be run outside the lock.
//!
//! Never here: retries. A sync that failed leaves unknown what is durable, for ever.

use crate::disk::File;
use crate::ids::Lsn;
use crate::log::read::segment::Segment;
use std::io;
use std::sync::Arc;

/// A segment's file to sync, and what is durable then.
#[derive(Debug)]
pub(crate) struct SyncJob {
    file: Arc<dyn File>,
    /// Everything below this is durable once the job has run.
    pub(crate) upto: Lsn,
}

impl SyncJob {
    /// All frames that `segment` holds now, if it is one that was appended to.
    pub(in crate::log) fn new(segment: &Segment) -> Option<Self> {
        // The end is read before the sync begins, so that the sync covers it.
        Some(Self { file: Arc::clone(segment.open_file()?), upto: segment.end() })
    }

    /// Syncs the file.
    ///
    /// # Errors
    /// The sync's; nothing may be appended after that.
    pub(crate) fn run(&self) -> io::Result<Lsn> {
        // seam: a sync that failed is tried again
        self.file.sync()?;
        Ok(self.upto)
    }
}
