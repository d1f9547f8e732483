//! Records stored one after another into mapped files whose blocks are allocated, each with its length and checksum. The only unsafe
//! code of this crate is the mapping.
#![allow(unsafe_code)]

use crate::payload::{PAYLOAD_LEN, Payload, Tally};
use crate::queue::Result;
use crate::workloads::{Outcome, Scale, repeat};
use memmap2::MmapMut;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::path::Path;

const SEGMENT_LEN: usize = 64 << 20;
const RECORD_LEN: usize = 8 + PAYLOAD_LEN;
const SEGMENT_RECORDS: u64 = (SEGMENT_LEN / RECORD_LEN) as u64;

pub(super) fn stores(dir: &Path, scale: Scale) -> Result<Outcome> {
    let mut segments = Vec::new();
    let mut payload = Payload::new(0);
    let (count, elapsed) = repeat(scale.messages, 64, scale, |number| {
        if number % SEGMENT_RECORDS == 0 {
            segments.push(segment(dir, segments.len())?);
        }
        let at = usize::try_from(number % SEGMENT_RECORDS)? * RECORD_LEN;
        let record =
            segments.last_mut().and_then(|segment| segment.get_mut(at..at + RECORD_LEN)).ok_or("no segment")?;
        payload.set(number, 0);
        let (head, body) = record.split_at_mut(8);
        head[..4].copy_from_slice(&(PAYLOAD_LEN as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(payload.bytes()).to_le_bytes());
        body.copy_from_slice(payload.bytes());
        Ok(())
    })?;
    let fault = read_back(&segments, count)?.fault_against(Tally::of_first(count));
    Ok(Outcome { fault, ..Outcome::rate(count, elapsed) })
}

fn segment(dir: &Path, index: usize) -> Result<MmapMut> {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join(format!("{index}.seg")))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_LEN as u64)?;
    // SAFETY: the file is new, in a directory of this process alone, and nobody cuts it while it is mapped.
    Ok(unsafe { MmapMut::map_mut(&file)? })
}

fn read_back(segments: &[MmapMut], count: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let records = segments.iter().flat_map(|segment| segment.chunks_exact(RECORD_LEN));
    for record in records.take(usize::try_from(count)?) {
        let (head, body) = record.split_at(8);
        if head[4..] != crc32fast::hash(body).to_le_bytes() {
            return Err("a checksum does not match".into());
        }
        tally.add(body);
    }
    Ok(tally)
}
