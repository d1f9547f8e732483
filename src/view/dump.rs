//! The log frame by frame and record by record, for people: what this version does not know is shown as such.
//!
//! Never here: the bytes of messages.

use super::LogHolder;
use super::observer::ObservedView;
use super::read::ReplayError;
use crate::error::Result;
use crate::ids::{Epoch, Lsn};
use crate::log::{self, ControlFrame, Frame, Met, Segment};
use crate::record::codec;

/// A stretch of a file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpEntry {
    /// A valid frame.
    Frame(DumpedFrame),
    /// From this byte on nothing proves itself, up to the next entry.
    Damage {
        /// The file's name.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
    },
}

/// A valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedFrame {
    /// The file's name.
    pub file: String,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Its place in the log.
    pub lsn: Lsn,
    /// The epoch that begins with it, where one does.
    pub epoch: Option<Epoch>,
    /// The watermark that it carries, if it does.
    pub watermark: Option<Lsn>,
    /// How many messages it holds.
    pub messages: u32,
    /// What it says, in order.
    pub records: Vec<DumpedRecord>,
}

/// What one record of a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedRecord {
    /// The number of its kind; `None` for what the log says of itself.
    pub kind: Option<u64>,
    /// The length of its body in bytes.
    pub len: usize,
    /// Its name and fields; `None` where this version does not know the kind, or cannot decode the body.
    pub text: Option<String>,
}

impl ObservedView {
    /// Shows `each` what the log that is known says from `from` on, until that says `false`.
    ///
    /// # Errors
    /// What the system lacks for a while, or fails to read.
    pub(crate) fn dump(&self, from: Lsn, each: &mut dyn FnMut(DumpEntry) -> bool) -> Result<()> {
        let segments = self.with_state(|view, _| view.catalog.segments().to_vec());
        for segment in segments.iter().filter(|segment| segment.end() > from) {
            let mut goes_on = true;
            let walked = log::for_each_proven::<ReplayError>(segment, &mut |met| {
                if !goes_on {
                    return Ok(());
                }
                let entry = match met {
                    Met::Hole(at) => DumpEntry::Damage { file: segment.name().to_string(), offset: at.into() },
                    Met::Frame(frame) if frame.lsn < from => return Ok(()),
                    Met::Frame(frame) => DumpEntry::Frame(dumped(segment, frame)),
                };
                goes_on = each(entry);
                Ok(())
            });
            match walked {
                // It was unlinked meanwhile.
                Err(_) if !self.is_there(segment.number()) => {}
                other => other.map_err(|failure| failure.0)?,
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

fn dumped(segment: &Segment, frame: &Frame<'_>) -> DumpedFrame {
    let head = frame.head();
    let records = if frame.is_log() {
        let text = ControlFrame::decode(head).map(|control| format!("{control:?}"));
        vec![DumpedRecord { kind: None, len: head.len(), text }]
    } else {
        codec::outline(head)
            .map(|outlined| match outlined {
                Ok(outline) => DumpedRecord {
                    kind: Some(outline.kind),
                    len: outline.body.len(),
                    text: outline.record.ok().map(|record| format!("{record:?}")),
                },
                // The rest is no record.
                Err(_) => DumpedRecord { kind: None, len: 0, text: None },
            })
            .collect()
    };
    DumpedFrame {
        file: segment.name().to_string(),
        offset: frame.at.into(),
        len: frame.padded(),
        lsn: frame.lsn,
        epoch: frame.epoch(),
        watermark: frame.watermark,
        messages: frame.parts(),
        records,
    }
}
