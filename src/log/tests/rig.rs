//! A log with a model beside it: what was appended where, and how much of it must survive.

use crate::disk::sim::SimDisk;
use crate::disk::{Access, Disk};
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::Checkpoint;
use crate::log::format::checksum::crc;
use crate::log::format::header::FileKind;
use crate::log::{
    AppendError, Catalog, ControlFrame, Frame, OpenError, Parts, ReadError, Recovered, Reserve, Settings,
    for_each_frame, open,
};
use std::io;
use std::sync::Arc;

pub(super) const SETTINGS: Settings =
    Settings { segment_len_first: 4096, segment_len_max: 8192, access: Access::SyncOften };

/// A frame as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) lsn: Lsn,
    pub(super) epoch: Epoch,
    pub(super) head: Vec<u8>,
    pub(super) parts: Vec<Vec<u8>>,
}

/// What a crash must leave: the first `durable` frames of `written`, and a prefix of the rest. The attempt that failed may
/// be there or not, but only after all others.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) written: Vec<Written>,
    pub(super) durable: usize,
    pub(super) attempt: Option<(Vec<u8>, Vec<Vec<u8>>)>,
}

/// One process on a log.
pub(super) struct Rig {
    pub(super) log: Recovered,
    pub(super) catalog: Catalog,
    /// Everything appended and still valid, in order.
    pub(super) written: Vec<Written>,
    /// How many of `written` are durable.
    pub(super) durable: usize,
    /// The frame whose append has not returned `Ok`.
    pub(super) attempt: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    /// Where each frame went in this process.
    pub(super) places: Vec<(FileNumber, u32)>,
}

pub(super) fn attach(disk: &SimDisk) -> Result<Recovered, OpenError> {
    let handle = disk.attach().expect("no other process");
    open(Arc::new(handle) as Arc<dyn Disk>, SETTINGS)
}

/// All frames of the layers above from the checkpoint on.
pub(super) fn contents(log: &Recovered) -> Result<Vec<Written>, ReadError> {
    contents_from(
        &log.contents.catalog,
        log.contents.checkpoint.as_ref().map_or(Lsn(0), |checkpoint| checkpoint.covers),
    )
}

pub(super) fn contents_from(catalog: &Catalog, from: Lsn) -> Result<Vec<Written>, ReadError> {
    let mut found = Vec::new();
    let mut fronts = Vec::new();
    let mut next = None;
    catalog.replay(from, &mut |frame, segment| -> Result<(), ReadError> {
        assert!(next.is_none_or(|next| frame.lsn >= next), "LSNs rise");
        next = Some(Lsn(frame.lsn.0 + 8));
        if (0..frame.parts()).any(|index| !frame.proves(index)) {
            return Err(ReadError::Damaged { file: segment.name(), at: frame.at.into(), reason: "a part" });
        }
        fronts.push(front(frame));
        if !frame.is_log() {
            let parts = (0..frame.parts()).map(|index| frame.part(index).unwrap().to_vec()).collect();
            let epoch = segment.epoch_at(frame.lsn);
            found.push(Written { lsn: frame.lsn, epoch, head: frame.head().to_vec(), parts });
        }
        Ok(())
    })?;
    let mut passed_over = Vec::new();
    let appended = catalog.segments().iter().filter(|segment| segment.kind() == FileKind::Appended);
    for segment in appended.filter(|segment| segment.end() > from) {
        for_each_frame::<ReadError>(segment, from, &mut |frame| {
            assert!(frame.part(0).is_none_or(<[u8]>::is_empty), "passed over");
            passed_over.push(front(frame));
            Ok(())
        })?;
    }
    assert_eq!(passed_over, fronts, "frames without their parts");
    Ok(found)
}

/// What a frame says but for its parts.
fn front(frame: &Frame<'_>) -> String {
    let crcs: Vec<_> = (0..frame.parts()).map(|index| frame.part_crc(index)).collect();
    format!("{:?}", (frame.lsn, frame.at, frame.is_log(), frame.watermark, frame.head(), crcs))
}

impl Rig {
    /// Opens, and expects the log to be a prefix of `before` that holds its first `durable` frames (G2).
    pub(super) fn open(disk: &SimDisk, before: &[Written], durable: usize) -> Self {
        let log = attach(disk).unwrap_or_else(|error| panic!("{error} in {error:?}"));
        Self::resume(log, before, durable)
    }

    /// Opens after a crash that must leave what `history` says.
    pub(super) fn recover(disk: &SimDisk, history: &History) -> Self {
        Self::resume_after(attach(disk).unwrap_or_else(|error| panic!("{error} in {error:?}")), history)
    }

    pub(super) fn resume_after(log: Recovered, history: &History) -> Self {
        let mut before = history.written.clone();
        if let (Some((head, parts)), Some(last)) = (&history.attempt, contents(&log).unwrap().pop()) {
            let is_later = before.last().is_none_or(|written| written.lsn < last.lsn);
            if is_later && last.head == *head && last.parts == *parts {
                before.push(last);
            }
        }
        Self::resume(log, &before, history.durable)
    }

    /// Goes on without looking at the log.
    pub(super) fn trusting(log: Recovered, history: History) -> Self {
        let catalog = log.contents.catalog.clone();
        let History { written, durable, attempt } = history;
        Self { log, catalog, written, durable, attempt, places: Vec::new() }
    }

    pub(super) fn history(&self) -> History {
        History { written: self.written.clone(), durable: self.durable, attempt: self.attempt.clone() }
    }

    pub(super) fn resume(log: Recovered, before: &[Written], durable: usize) -> Self {
        let from = log.contents.checkpoint.as_ref().map_or(Lsn(0), |checkpoint| checkpoint.covers);
        let found = contents(&log).unwrap();
        let skipped = before.iter().take_while(|written| written.lsn < from).count();
        let len = skipped + found.len();
        assert!(len <= before.len(), "{len} frames of {}", before.len());
        assert_eq!(found, before[skipped..len], "a prefix");
        assert!(len >= durable, "{len} frames, {durable} durable");
        assert_eq!(log.appender.end(), log.report.end);
        if let Some(Checkpoint { covers, state, .. }) = &log.contents.checkpoint {
            assert_eq!(state, &state_at(*covers));
        }
        let catalog = log.contents.catalog.clone();
        Self { log, catalog, written: before[..len].to_vec(), durable: len, attempt: None, places: Vec::new() }
    }

    /// Appends, with all that a refusal asks for.
    pub(super) fn append(&mut self, head: &[u8], parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.concat();
        let crcs: Vec<u32> = parts.iter().map(|part| crc(0, part)).collect();
        let mut end = 0;
        let mut ends = Vec::new();
        for part in parts {
            end += part.len() as u32;
            ends.push(end);
        }
        let parts_arg = Parts { bytes: &bytes, ends: &ends, crcs: &crcs };
        let epoch = self.log.appender.epoch();
        self.attempt = Some((head.to_vec(), parts.iter().map(|part| part.to_vec()).collect()));
        loop {
            let watermark = self.log.appender.durable();
            match self.log.appender.append(head, parts_arg, watermark, Reserve::Keep) {
                Ok(appended) => {
                    if appended.rolled {
                        self.catalog.add(Arc::clone(appended.segment));
                    }
                    self.places.push((appended.segment.number(), appended.at));
                    if let Some((head, parts)) = self.attempt.take() {
                        self.written.push(Written { lsn: appended.lsn, epoch, head, parts });
                    }
                    return Ok(());
                }
                Err(refusal) => self.serve(refusal)?,
            }
        }
    }

    pub(super) fn control(&mut self, control: ControlFrame) -> io::Result<Lsn> {
        loop {
            let watermark = self.log.appender.durable();
            match self.log.appender.append_control(control, watermark) {
                Ok(appended) => {
                    if appended.rolled {
                        self.catalog.add(Arc::clone(appended.segment));
                    }
                    return Ok(appended.lsn);
                }
                Err(refusal) => self.serve(refusal)?,
            }
        }
    }

    fn serve(&mut self, refusal: AppendError) -> io::Result<()> {
        match refusal {
            AppendError::NeedStandby { len, .. } => {
                let standby =
                    self.log.file_manager.create_standby(len, self.log.appender.durable(), Reserve::Keep, 0)?;
                assert!(self.log.appender.add_standby(standby).is_none());
                Ok(())
            }
            AppendError::NeedSync { .. } => self.sync(),
            AppendError::TooLarge { .. } => Err(io::ErrorKind::InvalidInput.into()),
            AppendError::Io(error) => Err(error),
        }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        let frames = self.written.len();
        while let Some(job) = self.log.appender.sync_job() {
            let upto = job.run()?;
            self.log.appender.synced(upto);
        }
        self.durable = frames;
        Ok(())
    }

    /// A checkpoint of all that is durable, whose state a later open can check.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        self.sync()?;
        let covers = self.log.appender.end();
        self.log.file_manager.write_checkpoint(covers, &self.catalog, &state_at(covers), covers)?;
        self.log.file_manager.prune_checkpoints()
    }

    /// Cuts every segment that is complete, and removes leftovers.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        let active = self.log.appender.active().map(|segment| segment.number());
        let segments: Vec<_> = self.catalog.segments().to_vec();
        for segment in segments {
            if Some(segment.number()) != active && !segment.is_closed() && segment.end() <= self.log.appender.durable()
            {
                let cut = self.log.file_manager.cut(&segment)?;
                self.catalog.replace(cut);
            }
        }
        self.log.file_manager.remove_leftovers(self.log.appender.durable())?;
        Ok(())
    }

    pub(super) fn close(mut self) -> io::Result<Vec<Written>> {
        self.sync()?;
        self.log.file_manager.close(self.log.appender.end())?;
        Ok(self.written)
    }
}

pub(super) fn state_at(covers: Lsn) -> Vec<u8> {
    format!("state at {covers}").into_bytes()
}

/// Part `index` of frame number `frame`: lengths from empty to several sectors.
pub(super) fn part(frame: usize, index: usize) -> Vec<u8> {
    let len = [0, 1, 7, 100, 600, 1500][(frame * 7 + index * 3) % 6];
    (0..len).map(|at| (frame * 31 + index * 17 + at) as u8).collect()
}

/// Appends frame number `frame`: some without parts, some with one, some with several.
pub(super) fn append_numbered(rig: &mut Rig, frame: usize) -> io::Result<()> {
    let parts: Vec<Vec<u8>> = (0..frame % 4).map(|index| part(frame, index)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    rig.append(format!("head {frame}").as_bytes(), &parts)
}
