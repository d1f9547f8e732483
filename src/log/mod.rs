//! The log: opaque bytes in, positions out.
//!
//! Segments of frames that tile one axis of LSNs, found and judged at open by a plan, appended to by the one [`Appender`] that
//! a finished recovery yields. Below the horizon files of messages and of dead letters take their place. Never here: records, state, clocks, threads.
//!
//! `format` is what files contain; `read` needs nothing of `write`; only `recover` yields what may write.

mod error;
mod format;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod fuzzing;
mod read;
mod recover;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use error::{OpenError, ReadError};
pub(crate) use format::class::{Class, Classes};
pub(crate) use format::control::ControlFrame;
pub(crate) use format::frame::{ALIGN as FRAME_ALIGN, Frame, Parts};
pub(crate) use format::name::FileName;
pub(crate) use read::cache::BlockCache;
pub(crate) use read::catalog::Catalog;
pub(crate) use read::frames::{Met, for_each as for_each_frame, for_each_left, for_each_proven, for_each_whole};
pub(crate) use read::fronts::FrontCache;
pub(crate) use read::index::{Index, IndexKey, Indexes, KeyRows, Row};
pub(crate) use read::part::{Cuts, PartReader, RUN_LEN_MAX};
pub(crate) use read::segment::Segment;
pub(crate) use recover::backup::{BackupError, BackupSource, backup};
pub(crate) use recover::observe::{LogProgress, ObservedEnd, checkpoints, observe};
pub(crate) use recover::repair::LostRange;
pub(crate) use write::appender::{AppendError, Appended, Appender};
pub(crate) use write::class_file::{ClassFile, CleanedRange, class_frame_len};
pub(crate) use write::file_manager::FileManager;
pub(crate) use write::reserve::Reserve;
pub(crate) use write::standby::Standby;

use crate::disk::{Access, Disk};
use crate::ids::{Epoch, FileNumber, Lsn};
use read::handles::Handles;
use std::sync::Arc;

/// What the owner of a log decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The length of the first segment of a process; each further one is twice as long, up to the maximum.
    pub(crate) segment_len_first: u64,
    pub(crate) segment_len_max: u64,
    pub(crate) access: Access,
}

/// A log that was found or made, with all that is needed to use it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) contents: Contents,
    pub(crate) appender: Appender,
    pub(crate) file_manager: FileManager,
    pub(crate) report: Report,
    pub(crate) previous: Previous,
}

/// What a log holds, for reading.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) catalog: Catalog,
    pub(crate) indexes: Indexes,
    /// The end of the log: all below is durable.
    pub(crate) end: Lsn,
}

/// A checkpoint as read.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) number: FileNumber,
    /// It is the state at this LSN.
    pub(crate) covers: Lsn,
    pub(crate) state: Vec<u8>,
}

/// The process before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) epoch: Epoch,
    /// Whether it closed the log.
    pub(crate) clean: bool,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// There was no log, and one was initialized.
    pub(crate) created: bool,
    pub(crate) was_clean: bool,
    /// The LSN below which durability was proven.
    pub(crate) watermark: Lsn,
    /// The end of the log: all below is durable now.
    pub(crate) end: Lsn,
    /// Bytes of the log that validated but were not proven, and were therefore copied.
    pub(crate) copied_bytes: u64,
    /// What was torn.
    pub(crate) dropped: Option<Dropped>,
    pub(crate) checkpoint_lsn: Option<Lsn>,
    /// Checkpoints that were skipped for an older one.
    pub(crate) checkpoints_damaged: usize,
    /// Files that are not ours.
    pub(crate) files_ignored: usize,
    /// Files of ours that are no part of the log any more.
    pub(crate) leftovers: usize,
}

/// Bytes behind the end of the log that nothing proves to have been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) segment: FileNumber,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Opens the log in a directory, or initializes a new one where there is none. An existing log is not changed, but for a valid
/// suffix that nothing proves to be durable: that is copied.
///
/// # Errors
/// See [`OpenError`]. Nothing has been changed, but for new files that the next attempt ignores.
pub(crate) fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Recovered, OpenError> {
    let (handles, plan, scanned) = look(&disk)?;
    recover::execute::execute(disk, handles, &settings, plan, scanned)
}

/// As [`open`], but where there is no log changes nothing and returns `None`.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_existing(disk: Arc<dyn Disk>, settings: Settings) -> Result<Option<Recovered>, OpenError> {
    let (handles, plan, scanned) = look(&disk)?;
    match plan {
        recover::plan::Plan::LayOut => Ok(None),
        plan @ recover::plan::Plan::Continue { .. } => {
            recover::execute::execute(disk, handles, &settings, plan, scanned).map(Some)
        }
    }
}

/// What an open would read, where it needs nothing but the files as they are; `None` where there is no log. Changes nothing.
///
/// # Errors
/// As [`open`].
pub(crate) fn read_existing(disk: &Arc<dyn Disk>) -> Result<Option<Contents>, OpenError> {
    let (handles, plan, scanned) = look(disk)?;
    if plan == recover::plan::Plan::LayOut {
        return Ok(None);
    }
    let (segments, retired, epochs, end) = plan.without_copies();
    recover::execute::contents(scanned, &handles, (segments, retired, epochs), end).map(Some)
}

/// What can be kept of a log that an open refuses.
#[derive(Debug)]
pub(crate) struct Salvage {
    handles: Arc<Handles>,
    assessment: recover::repair::Assessment,
}

/// Looks at a log that an open refuses. Changes nothing.
///
/// # Errors
/// What no repair can do anything about: reads that fail, a newer format, files of another store, or none that says whose they are.
pub(crate) fn assess(disk: &Arc<dyn Disk>) -> Result<Salvage, OpenError> {
    let handles = Arc::new(Handles::new(Arc::clone(disk)));
    let assessment = recover::repair::assess(&**disk, &handles)?;
    Ok(Salvage { handles, assessment })
}

impl Salvage {
    /// What of the log cannot be read, in its order.
    pub(crate) fn lost(&self) -> &[LostRange] {
        &self.assessment.lost
    }

    /// Whether the secret of the store's hashes is gone.
    pub(crate) const fn is_secret_lost(&self) -> bool {
        self.assessment.secret_lost
    }

    /// What is left, for reading. Changes nothing.
    ///
    /// # Errors
    /// As [`assess`].
    pub(crate) fn read(self) -> Result<Contents, OpenError> {
        let Self { handles, assessment } = self;
        let (segments, retired, epochs, end) = assessment.plan.without_copies();
        recover::execute::contents(assessment.scanned, &handles, (segments, retired, epochs), end)
    }

    /// Copies the damaged files, mends the directory, and opens what is left. It opens again only once a checkpoint covers the damage.
    /// Returns the names of the copies too.
    ///
    /// # Errors
    /// As [`open`].
    pub(crate) fn open(self, disk: Arc<dyn Disk>, settings: Settings) -> Result<(Recovered, Vec<String>), OpenError> {
        let Self { handles, assessment } = self;
        let copies = assessment.mend(&disk, &handles)?;
        let recover::repair::Assessment { scanned, plan, .. } = assessment;
        let recovered = recover::execute::execute(disk, handles, &settings, plan, scanned)?;
        Ok((recovered, copies))
    }
}

/// What is there, and what is to be done about it.
fn look(disk: &Arc<dyn Disk>) -> Result<(Arc<Handles>, recover::plan::Plan, recover::scan::Scanned), OpenError> {
    let handles = Arc::new(Handles::new(Arc::clone(disk)));
    let scanned = recover::scan::scan(&**disk, &handles, None)?;
    let plan = recover::plan::plan(&scanned.facts)?;
    Ok((handles, plan, scanned))
}
