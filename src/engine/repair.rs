//! Repair of a store that does not open: what is left is replayed, and a checkpoint covers the damage.
//!
//! Below a checkpoint damage costs the messages that it hit, and not the store. So no file of the log is rewritten: the damaged ones are
//! copied aside, a list and a state of what is left are made durable, and the store opens from those. Until then it refuses to open, and the
//! repair may be begun again. Never here: what is kept (`log::recover::repair`, `view::fold`).

use super::Engine;
use super::open::{INDEX_DIR, Setup, attach_error, no_store};
use crate::clock::Clock;
use crate::disk::{AttachError, Disk, OpenOptions, ReadOnlyDisk, RealDisk};
use crate::error::{Corruption, Error, Result};
use crate::index::{IndexDirectory, IndexHome};
use crate::log::{self, Contents, OpenError, Reserve};
use crate::view::{Fold, RepairReport, open_error};
use std::path::Path;
use std::sync::Arc;

/// Whether a repair is carried out, or only planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepairMode {
    Plan,
    Repair,
}

impl Engine {
    /// Repairs the store in the directory `path`, or says what a repair would do.
    ///
    /// # Errors
    /// What a repair can do nothing about: those of attaching, `NewerFormat`, `ForeignFile`, `Io`, what the system lacks; `Corrupt` where no
    /// file says which store it is of, or what is left contradicts itself.
    pub(crate) fn repair(path: &Path, setup: Setup, mode: RepairMode, clock: Arc<dyn Clock>) -> Result<RepairReport> {
        let attach = |adopt| {
            let options = OpenOptions { allow_network_fs: setup.allow_network_fs, create: adopt, adopt };
            RealDisk::attach(path, &options).map(|disk| Arc::new(disk) as Arc<dyn Disk>)
        };
        let disk = match attach(false) {
            // A store whose `STORE` is gone has other files that are its own.
            Err(error @ (AttachError::NotFound | AttachError::NotAStore { .. })) => {
                match ReadOnlyDisk::open(path, setup.allow_network_fs).ok().filter(has_segments) {
                    None => Err(error),
                    Some(disk) if mode == RepairMode::Plan => Ok(Arc::new(disk) as Arc<dyn Disk>),
                    Some(_) => attach(true),
                }
            }
            other => other,
        };
        let disk = disk.map_err(|error| attach_error(path, error))?;
        let home = Box::new(IndexDirectory::new(setup.index, path.join(INDEX_DIR)));
        let repaired = Self::repair_at((Arc::clone(&disk), home), path, setup, mode, clock);
        disk.detach();
        repaired.map_err(|error| error.at(path))
    }

    /// The same on `disk`, which errors call `dir`. The disk stays attached only where it fails.
    ///
    /// # Errors
    /// As [`Engine::repair`].
    pub(crate) fn repair_at(
        (disk, home): (Arc<dyn Disk>, Box<dyn IndexHome>),
        dir: &Path,
        setup: Setup,
        mode: RepairMode,
        clock: Arc<dyn Clock>,
    ) -> Result<RepairReport> {
        let Some(damage) = damage_of(&disk, dir, setup.durable_only)? else { return Ok(RepairReport::default()) };
        let salvage = log::assess(&disk).map_err(open_error)?;
        let (lost, are_names_lost) = (salvage.lost().to_vec(), salvage.is_secret_lost());
        let contents = salvage.read().map_err(open_error)?;
        let (fold, missing) = Fold::of_left(&contents, setup.durable_only)?;
        let report = RepairReport::of(damage, (&lost, contents.end), &missing, &fold.view.state);
        let report = RepairReport { are_names_lost, ..report };
        if mode == RepairMode::Plan {
            return Ok(report);
        }
        // Nothing was changed so far, and now nothing refuses any more but the disk.
        let salvage = log::assess(&disk).map_err(open_error)?;
        let (recovered, copies) = salvage.open(Arc::clone(&disk), setup.log_settings()).map_err(open_error)?;
        let (fold, _) = Fold::of_left(&recovered.contents, setup.durable_only)?;
        let engine = Self::begin((disk, home), dir, setup, clock, (recovered, fold))?;
        engine.record_opening()?;
        engine.checkpoint_twice()?;
        engine.close()?;
        Ok(RepairReport { copies, ..report })
    }

    /// Appends this process's `opened` record, which otherwise comes with the first that it appends.
    ///
    /// # Errors
    /// The store's.
    fn record_opening(&self) -> Result<()> {
        loop {
            let appended = self.lock_core().append_opened(self.now(), Reserve::Use);
            let Err(refusal) = appended else { return Ok(()) };
            self.unblock(refusal)?.map_err(|rejection| self.rejected(rejection))?;
        }
    }
}

/// Why a store does not open; `None` where it does. Changes nothing.
fn damage_of(disk: &Arc<dyn Disk>, dir: &Path, durable_only: bool) -> Result<Option<Corruption>> {
    let replayed = |contents: Contents| Fold::of(&contents, durable_only).map(drop);
    let opened = match log::read_existing(disk) {
        Ok(contents) => replayed(contents.ok_or_else(|| no_store(dir))?),
        Err(OpenError::Corrupt(corruption)) => Err(Error::Corrupt(corruption)),
        Err(other) => return Err(open_error(other)),
    };
    match opened {
        Ok(()) => Ok(None),
        Err(Error::Corrupt(corruption)) => Ok(Some(corruption)),
        Err(other) => Err(other),
    }
}

/// Whether a directory holds segments, though nothing says whose.
fn has_segments(disk: &ReadOnlyDisk) -> bool {
    disk.list().is_ok_and(|files| files.iter().any(|file| file.name.ends_with(".seg")))
}
