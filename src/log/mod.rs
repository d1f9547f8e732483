//! The log: opaque bytes in, positions out.
//!
//! Segments of frames that tile one axis of LSNs, found and judged at open by a plan, appended to by the one [`Appender`] that
//! a finished recovery yields. Below the horizon files of messages and of dead letters take their place. Never here: records, state, clocks, threads.
//!
//! Reading order: `frame` (the bytes), `header` and `store_file` (what files say of themselves), `directory`, `chain`,
//! `tail_scan`, `manifest` and `scan` (finding the facts), `recovery` (the table), `execute`; then `appender` and `file_manager`
//! (writing), `part`, `window` and `cache` (reading one message).

mod appender;
mod bytes;
mod cache;
mod catalog;
mod chain;
mod checkpoint;
mod checksum;
mod class;
mod control;
mod directory;
mod error;
mod execute;
mod file_manager;
mod frame;
mod frames;
mod fronts;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod fuzzing;
mod handles;
mod header;
mod index;
mod manifest;
mod name;
mod part;
mod recovery;
mod reserve;
mod scan;
mod segment;
mod slots;
mod store_file;
mod sync;
mod tail_scan;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use appender::{AppendRefusal, Appended, Appender, Standby};
pub(crate) use cache::BlockCache;
pub(crate) use catalog::Catalog;
pub(crate) use class::Class;
pub(crate) use control::ControlFrame;
pub(crate) use error::{OpenError, ReadError};
pub(crate) use file_manager::FileManager;
pub(crate) use frame::{Frame, Parts};
pub(crate) use frames::{Met, for_each_left};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use frames::{for_each as for_each_frame, for_each_whole};
pub(crate) use fronts::FrontCache;
pub(crate) use index::{Index, IndexKey, KeyRows, Row};
pub(crate) use name::FileName;
pub(crate) use part::{Cuts, PartReader, RUN_LEN_MAX};
pub(crate) use reserve::Reserve;
pub(crate) use segment::Segment;

use crate::disk::{Access, Disk};
use crate::ids::{Epoch, FileNumber, Lsn};
use handles::Handles;
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
    /// The newest checkpoint: what it covers, and its state.
    pub(crate) checkpoint: Option<(Lsn, Vec<u8>)>,
    pub(crate) catalog: Catalog,
    pub(crate) appender: Appender,
    pub(crate) file_manager: FileManager,
    pub(crate) report: Report,
    pub(crate) previous: Previous,
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
    /// There was no log, and one was laid out.
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
    /// Checkpoints that were passed over for an older one.
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

/// Opens the log in a directory, or lays out a new one where there is none. An existing log is not changed, but for a valid
/// suffix that nothing proves to be durable: that is copied.
///
/// # Errors
/// See [`OpenError`]. Nothing has been changed, but for new files that the next attempt ignores.
pub(crate) fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Recovered, OpenError> {
    let (handles, plan, scanned) = look(&disk)?;
    execute::execute(disk, handles, &settings, plan, scanned)
}

/// As [`open`], but where there is no log changes nothing and returns `None`.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_existing(disk: Arc<dyn Disk>, settings: Settings) -> Result<Option<Recovered>, OpenError> {
    let (handles, plan, scanned) = look(&disk)?;
    match plan {
        recovery::Plan::LayOut => Ok(None),
        plan @ recovery::Plan::Continue { .. } => execute::execute(disk, handles, &settings, plan, scanned).map(Some),
    }
}

/// What is there, and what is to be done about it.
fn look(disk: &Arc<dyn Disk>) -> Result<(Arc<Handles>, recovery::Plan, scan::Scanned), OpenError> {
    let handles = Arc::new(Handles::new(Arc::clone(disk)));
    let scanned = scan::scan(&**disk, &handles)?;
    let plan = recovery::plan(&scanned.facts)?;
    Ok((handles, plan, scanned))
}
