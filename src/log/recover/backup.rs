//! A copy of a log as it is at one LSN, into another directory.
//!
//! Files that nothing changes any more are copied once: one of the same header and length is there already. The file that grows is copied
//! as far as the log is durable, and goes on where the last backup ended. The slot is written last: until it is durable, the directory
//! opens as the backup before this one, or as a later moment, or is refused, for a half of what the file grew by tells of more than is
//! there. It has the flag of a copy, so that the first open gives it an instance of its own. Never here: what a log holds; who has the
//! source.

use crate::disk::{Disk, File};
use crate::ids::{FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN, HeaderRead};
use crate::log::format::name::FileName;
use crate::log::format::store_file::{Identity, OWNED_LEN, STORE_LEN, Slot};
use crate::log::read::catalog::Catalog;
use crate::log::read::handles::read_up_to;
use crate::log::recover::directory::StoreRead;
use crate::log::recover::observe::ObservedEnd;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// How much is copied at a time.
const CHUNK_LEN: usize = 1 << 20;

/// What a backup copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackupCounts {
    /// Files that the backup consists of, but for `STORE`.
    pub(crate) files: usize,
    /// Bytes that were copied, and bytes that were there from the backup before.
    pub(crate) bytes: u64,
    pub(crate) kept: u64,
}

/// Why there is no backup.
#[derive(Debug)]
pub(crate) enum BackupError {
    /// A file of the source could not be read: it may have gone, and the log is to be observed anew.
    Source(OpenError),
    /// The directory could not be read or written.
    Target(OpenError),
    /// The directory holds something else than an earlier backup of this store: its file, and what is wrong.
    Foreign(String, &'static str),
}

/// A file of the source.
struct BackupFile {
    name: FileName,
    /// How much of it.
    len: u64,
    /// Of a segment, which may grow: its first LSN.
    base: Option<Lsn>,
}

/// What is copied.
pub(crate) struct BackupSource<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) end: &'a ObservedEnd,
    pub(crate) catalog: &'a Catalog,
    /// The checkpoint that the catalog rests on.
    pub(crate) checkpoint: Option<FileNumber>,
}

/// Copies the log to `to`, a directory that is empty or holds an earlier backup of this store. `progress` gets the bytes done and all.
///
/// # Errors
/// See [`BackupError`]. The directory then holds the earlier backup, or none.
pub(crate) fn backup(
    source: &BackupSource<'_>,
    to: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupCounts, BackupError> {
    let before = existing(source, &**to)?;
    // Whatever slot tells of files, they were durable before it was written.
    let proven = before.iter().flatten().map(|slot| slot.watermark).max().unwrap_or_default();
    let (wanted, newest_segment, newest_checkpoint) = wanted(source)?;
    let all = wanted.iter().map(|file| file.len).sum();
    let mut copied = BackupCounts { files: wanted.len(), ..BackupCounts::default() };
    for file in &wanted {
        progress(copied.bytes + copied.kept, all);
        let there = copy_file(source, &**to, file, proven)?;
        copied.kept += there;
        copied.bytes += file.len - there;
    }
    progress(all, all);
    to.sync_dir().map_err(target("sync the directory of", FileName::Store))?;
    let newest = before.iter().flatten().map(|slot| slot.sequence).max();
    let slot = Slot {
        sequence: newest.map_or(2, |newest| newest + 1),
        clean: false,
        watermark: source.end.end(),
        newest_segment,
        newest_checkpoint,
        flags: source.end.slot().flags | Slot::COPY,
        ..*source.end.slot()
    };
    write_store(source, &**to, slot, newest.is_none()).map_err(target("write", FileName::Store))?;
    remove_others(&**to, &wanted)?;
    Ok(copied)
}

fn target(context: &'static str, name: FileName) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::Target(OpenError::io(context, name)(error))
}

fn from_source(context: &'static str, name: FileName) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::Source(OpenError::io(context, name)(error))
}

/// The slots of an earlier backup of the same store, in a directory that may be written to.
fn existing(source: &BackupSource<'_>, to: &dyn Disk) -> Result<[Option<Slot>; 2], BackupError> {
    let foreign = |what| Err(BackupError::Foreign(FileName::Store.to_string(), what));
    let Some(StoreRead { uuid, slots }) = StoreRead::read(to).map_err(BackupError::Target)? else {
        // An earlier backup that died has written nothing there; what is damaged is somebody's store.
        // seam: a store whose identity is damaged is written over
        let is_damaged = !is_blank(to)?;
        return if is_damaged { foreign("it is damaged") } else { Ok([None, None]) };
    };
    if uuid != *source.end.uuid() {
        return foreign("it is of another store");
    }
    match slots.iter().flatten().max_by_key(|slot| slot.sequence) {
        // seam: a copy that was opened is written over
        Some(slot) if !slot.is_copy() => foreign("it was opened since it was made, and is a store of its own"),
        Some(slot) if slot.instance != source.end.slot().instance => foreign("it is of another copy of this store"),
        Some(slot) if slot.watermark > source.end.end() => foreign("it is newer than the store"),
        Some(_) | None => Ok(slots),
    }
}

/// Whether nothing was written to `STORE` of a directory but who holds it.
fn is_blank(to: &dyn Disk) -> Result<bool, BackupError> {
    let file = to.open(&FileName::Store.to_string()).map_err(target("open", FileName::Store))?;
    let mut bytes = vec![0; crate::disk::OWNER_AT as usize];
    let len = file.read_at(0, &mut bytes).map_err(target("read", FileName::Store))?;
    Ok(bytes.iter().take(len).all(|byte| *byte == 0))
}

/// The files of the backup in the order in which they are copied: what others rest on comes first.
fn wanted(source: &BackupSource<'_>) -> Result<(Vec<BackupFile>, FileNumber, FileNumber), BackupError> {
    let entries = source.disk.list().map_err(from_source("list", FileName::Store))?;
    let len_of = |name: FileName| {
        let text = name.to_string();
        entries.iter().find(|entry| entry.name == text).map(|entry| entry.len)
    };
    let (mut files, mut newest_segment) = (Vec::new(), FileNumber(0));
    for segment in source.catalog.segments() {
        let (name, limit) = (segment.name(), segment.limit());
        let is_appended = segment.kind() == FileKind::Appended;
        // A file of a class has a table behind its frames.
        let gone = || from_source("find", name)(io::ErrorKind::NotFound.into());
        let len = if is_appended { limit } else { len_of(name).ok_or_else(gone)? };
        files.push(BackupFile { name, len, base: is_appended.then(|| segment.base()) });
        if is_appended {
            newest_segment = newest_segment.max(segment.number());
        }
        let index = FileName::Index(segment.number());
        // It is of all that the file holds, and can be made again.
        if let Some(len) = len_of(index).filter(|_| segment.is_closed()) {
            files.push(BackupFile { name: index, len, base: None });
        }
    }
    let mut newest_checkpoint = FileNumber(0);
    for entry in &entries {
        let Some(name @ FileName::Checkpoint(number)) = FileName::parse(&entry.name) else { continue };
        if covers(source, name)?.is_some_and(|covers| covers <= source.end.end()) {
            files.push(BackupFile { name, len: entry.len, base: None });
            newest_checkpoint = newest_checkpoint.max(number);
        }
    }
    let is_there = |number: FileNumber| files.iter().any(|file| file.name == FileName::Checkpoint(number));
    if let Some(gone) = source.checkpoint.filter(|number| !is_there(*number)) {
        return Err(from_source("find", FileName::Checkpoint(gone))(io::ErrorKind::NotFound.into()));
    }
    // Segments last, in the order of the log: a backup that ends in the middle of it rests on what is there.
    files.sort_by_key(|file| file.base);
    Ok((files, newest_segment, newest_checkpoint))
}

/// What a checkpoint of the source covers that a slot names; `None` where it has no header, or no slot names it yet.
fn covers(source: &BackupSource<'_>, name: FileName) -> Result<Option<Lsn>, BackupError> {
    let file = source.disk.open(&name.to_string()).map_err(from_source("open", name))?;
    let first = read_up_to(&*file, 0, HEADER_LEN).map_err(from_source("read", name))?;
    let HeaderRead::Valid(header) = FileHeader::decode(&first) else { return Ok(None) };
    Ok((header.number <= source.end.slot().newest_checkpoint).then_some(header.to))
}

/// Copies a file, or what is missing of it. The header is written last, once the rest is durable: a file that has it is whole as far as it
/// was then. Returns how many bytes were there.
fn copy_file(source: &BackupSource<'_>, to: &dyn Disk, wanted: &BackupFile, proven: Lsn) -> Result<u64, BackupError> {
    let BackupFile { name, len, .. } = *wanted;
    let text = name.to_string();
    let from = source.disk.open(&text).map_err(from_source("open", name))?;
    let file = match to.open(&text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => to.create(&text, 0).map_err(target("create", name))?,
        other => other.map_err(target("open", name))?,
    };
    let there = there(&*from, &*file, wanted, proven)?;
    let known = file.len().map_err(target("look at", name))?;
    // What is whole stays as it is, and others may have links to it.
    if (there, known) == (len, len) {
        return Ok(len);
    }
    // A backup that did not come to its end had more.
    file.set_len(there).map_err(target("cut", name))?;
    let header_len = (HEADER_LEN as u64).min(len);
    let is_new = there == 0;
    let mut at = if is_new { header_len } else { there };
    while at < len {
        let wanted = (len - at).min(CHUNK_LEN as u64);
        copy_bytes(&*from, &*file, name, at..at + wanted)?;
        at += wanted;
    }
    file.sync().map_err(target("sync", name))?;
    if is_new {
        copy_bytes(&*from, &*file, name, 0..header_len)?;
        file.sync().map_err(target("sync", name))?;
    }
    Ok(there)
}

fn copy_bytes(from: &dyn File, file: &dyn File, name: FileName, range: Range<u64>) -> Result<(), BackupError> {
    // No more than a chunk.
    let len = (range.end - range.start) as usize;
    let bytes = read_up_to(from, range.start, len).map_err(from_source("read", name))?;
    if bytes.len() < len {
        let corruption = Corruption::of(name, Some(range.start), "a file that is shorter than the log says");
        return Err(BackupError::Source(corruption.into()));
    }
    file.write_at(range.start, &bytes).map_err(target("write", name))
}

/// How much of a file is in the target already, and durable there: a file with the same header is, if it is as long. A segment may have
/// grown since, and is what the earlier backup says.
fn there(from: &dyn File, file: &dyn File, wanted: &BackupFile, proven: Lsn) -> Result<u64, BackupError> {
    let BackupFile { name, len, base } = *wanted;
    let known = file.len().map_err(target("look at", name))?;
    let ours = read_up_to(from, 0, HEADER_LEN).map_err(from_source("read", name))?;
    let theirs = read_up_to(file, 0, HEADER_LEN).map_err(target("read", name))?;
    // seam: half a file counts
    let is_same = ours == theirs;
    Ok(match base {
        _ if !is_same => 0,
        Some(base) if proven > base => (HEADER_LEN as u64).saturating_add(proven.0 - base.0).min(known).min(len),
        Some(_) => 0,
        None if known == len => len,
        None => 0,
    })
}

/// Writes the slot over the older one, and once that is durable over the other, so that both tell the same; or the whole file where there
/// is no slot.
fn write_store(source: &BackupSource<'_>, to: &dyn Disk, slot: Slot, is_new: bool) -> io::Result<()> {
    let uuid = source.end.uuid();
    let file = to.open(&FileName::Store.to_string())?;
    if is_new {
        file.write_at(0, &[0; OWNED_LEN])?;
        let older = Slot { sequence: slot.sequence - 1, ..slot };
        file.write_at(Slot::position(older.sequence), &older.encode(uuid))?;
        file.write_at(Slot::position(slot.sequence), &slot.encode(uuid))?;
        if file.len()? < STORE_LEN {
            file.set_len(STORE_LEN)?;
        }
        file.sync()?;
        file.write_at(0, &Identity::encode(uuid))?;
    } else {
        file.write_at(Slot::position(slot.sequence), &slot.encode(uuid))?;
        file.sync()?;
        let again = Slot { sequence: slot.sequence + 1, ..slot };
        file.write_at(Slot::position(again.sequence), &again.encode(uuid))?;
    }
    file.sync()
}

/// Removes what an earlier backup had and this one does not.
fn remove_others(to: &dyn Disk, wanted: &[BackupFile]) -> Result<(), BackupError> {
    let kept: BTreeSet<FileName> = wanted.iter().map(|file| file.name).collect();
    for entry in to.list().map_err(target("list", FileName::Store))? {
        match FileName::parse(&entry.name) {
            Some(FileName::Store) | None => {}
            Some(name) if kept.contains(&name) => {}
            Some(name) => to.remove(&entry.name).map_err(target("remove", name))?,
        }
    }
    Ok(())
}
