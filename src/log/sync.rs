//! A sync to be run outside the lock.
//!
//! Never here: retries. A sync that failed leaves unknown what is durable, for ever.

use super::segment::Segment;
use crate::disk::File;
use crate::ids::Lsn;
use std::io;
use std::sync::Arc;

/// The files to sync, in the order of their LSNs, and what each makes durable.
#[derive(Debug)]
pub(crate) struct SyncJob {
    targets: [Option<(Arc<dyn File>, Lsn)>; 2],
}

impl SyncJob {
    /// All frames that `segments` hold now.
    pub(super) fn new(segments: [Option<&Arc<Segment>>; 2]) -> Self {
        // The end is read before the sync begins, so that the sync covers it.
        let target = |segment: &Arc<Segment>| Some((Arc::clone(segment.open_file()?), segment.end()));
        Self { targets: segments.map(|segment| segment.and_then(target)) }
    }

    /// The LSN below which everything is durable once the job has run.
    pub(crate) fn reaches(&self) -> Lsn {
        self.targets.iter().flatten().map(|(_, end)| *end).max().unwrap_or(Lsn(0))
    }

    /// Syncs one file after the other: the watermark enters a segment only when the one before is durable.
    ///
    /// # Errors
    /// The first sync that fails; nothing may be appended after that.
    pub(crate) fn run(&self) -> io::Result<Lsn> {
        for (file, _) in self.targets.iter().flatten() {
            file.sync()?;
        }
        Ok(self.reaches())
    }
}
