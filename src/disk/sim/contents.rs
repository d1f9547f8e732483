//! The requests to one simulated file.
//!
//! Never here: names, and what outlives a crash.

use super::image::IMAGE_LEN_MAX;
use super::inode::{Inode, WORD};
use super::plan::{Fault, Op, gone};
use super::world::World;
use crate::disk::FILE_LEN_MAX;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

impl World {
    /// A file that a live handle or a name leads to is there.
    pub(super) fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(gone)
    }

    /// Remembers the change of a file that others have links to.
    fn note_change(&mut self, op: Op, number: u64) {
        if let Some(inode) = self.inodes.get(&number).filter(|inode| inode.links > 0) {
            self.linked_changes.push((op, inode.name.clone()));
        }
    }

    pub(super) fn change_len(&mut self, number: u64, len: u64) -> io::Result<()> {
        let seq = self.seq();
        self.inode(number)?.set_len(seq, len);
        Ok(())
    }

    /// Whether a file may grow from `old` to `new` bytes.
    pub(super) fn check_space(&self, old: u64, new: u64) -> io::Result<()> {
        if new > IMAGE_LEN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if new > old && new - old > self.available() { Err(Fault::NoSpace.error()) } else { Ok(()) }
    }

    /// How much all files together may still grow.
    pub(super) fn available(&self) -> u64 {
        let used = || self.entries().iter().map(|entry| entry.len).sum::<u64>();
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used()))
    }

    pub(super) fn read(&mut self, session: u64, number: u64, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let fault = self.begin_file(session, Op::Read, number, at, buf.len() as u64)?;
        let mut count = self.inode(number)?.cache.read(at, buf);
        if fault == Some(Fault::ShortRead) {
            count = self.rng.index(count);
        }
        self.finish(fault, count)
    }

    pub(super) fn data_from(&mut self, session: u64, number: u64, at: u64) -> io::Result<Option<Range<u64>>> {
        let fault = self.begin_file(session, Op::Read, number, at, 0)?;
        let found = self.inode(number)?.cache.data_from(at);
        self.finish(fault, found)
    }

    pub(super) fn write(&mut self, session: u64, number: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.begin_file(session, Op::Write, number, at, bytes.len() as u64)?;
        self.note_change(Op::Write, number);
        let inode = self.inode(number)?;
        let len = inode.cache.len();
        if inode.has_tail {
            return self.refuse(fault, io::ErrorKind::InvalidInput);
        }
        if let Err(error) = self.check_space(len, at.saturating_add(bytes.len() as u64)) {
            return self.refuse(fault, error);
        }
        let grain = [1, WORD, 512][self.rng.index(3)];
        self.store(fault, number, at, bytes, grain)
    }

    /// The caller has checked the range against the end of the last append and the length at creation.
    pub(super) fn append(&mut self, session: u64, number: u64, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let bytes = pieces.concat();
        let fault = self.begin_file(session, Op::Append, number, at, bytes.len() as u64)?;
        self.note_change(Op::Append, number);
        // A full disk leaves the first word as it was.
        let full = fault == Some(Fault::NoSpace);
        let kept = if full { u64::min(WORD - at % WORD, bytes.len() as u64) } else { 0 };
        self.store(fault, number, at + kept, &bytes[kept as usize..], WORD)
    }

    /// Stores all of `bytes`, or what a fault in the middle leaves of them, never tearing a `grain`.
    fn store(&mut self, fault: Option<Fault>, number: u64, at: u64, bytes: &[u8], grain: u64) -> io::Result<()> {
        self.plan.mix_bytes(bytes);
        let seq = self.seq();
        let inode = self.inodes.get_mut(&number).ok_or_else(gone)?;
        match fault {
            _ if bytes.is_empty() => {}
            Some(Fault::Io | Fault::NoSpace | Fault::CrashMiddle) => {
                inode.write_part(seq, at, bytes, grain, &mut self.rng);
            }
            _ => inode.write(seq, at, bytes),
        }
        self.finish(fault, ())
    }

    pub(super) fn sync(&mut self, session: u64, number: u64) -> io::Result<()> {
        let fault = self.begin_file(session, Op::Sync, number, 0, 0)?;
        let inode = self.inodes.get_mut(&number).ok_or_else(gone)?;
        match fault {
            Some(Fault::Io | Fault::NoSpace) => inode.fail_sync(&mut self.rng),
            Some(Fault::CrashMiddle) => inode.sync_part(&mut self.rng),
            _ => inode.sync(),
        }
        self.finish(fault, ())
    }

    pub(super) fn set_len(&mut self, session: u64, number: u64, len: u64) -> io::Result<()> {
        let fault = self.begin_file(session, Op::SetLen, number, 0, len)?;
        self.note_change(Op::SetLen, number);
        let inode = self.inode(number)?;
        let (old, readable) = (inode.cache.len(), inode.appended.upgrade());
        let readable = readable.map_or(0, |end| end.load(Ordering::Acquire));
        if inode.has_tail || len < readable || len > FILE_LEN_MAX {
            return self.refuse(fault, io::ErrorKind::InvalidInput);
        }
        if let Err(error) = self.check_space(old, len) {
            return self.refuse(fault, error);
        }
        // A cut needs no space.
        let fault = fault.filter(|fault| *fault != Fault::NoSpace || len > old);
        let partly = matches!(fault, Some(Fault::Io | Fault::CrashMiddle));
        if fault != Some(Fault::NoSpace) && (!partly || self.rng.coin()) {
            self.change_len(number, len)?;
        }
        self.finish(fault, ())
    }
}
