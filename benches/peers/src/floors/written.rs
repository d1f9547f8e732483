//! Batches of records, each with its length and checksum, written by one call into files whose blocks are allocated; synced or not.

use crate::machine::Flushes;
use crate::payload::{PAYLOAD_LEN, Tally};
use crate::queue::Result;
use crate::workloads::{BATCH, Outcome, Scale, repeat, with_range};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const RECORD_LEN: usize = 8 + PAYLOAD_LEN;
const BATCH_LEN: u64 = BATCH * RECORD_LEN as u64;
/// About 64 MiB.
const FILE_BATCHES: u64 = (64 << 20) / BATCH_LEN;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Never,
    EachBatch,
}

pub(super) fn batches(dir: &Path, scale: Scale, sync: Sync) -> Result<Outcome> {
    let mut files = vec![allocated(dir, 0)?];
    let mut buffer = Vec::new();
    let flushes = Flushes::begin(dir);
    let (batches, elapsed) = repeat(scale.messages / BATCH, 1, scale, |batch| {
        if batch > 0 && batch % FILE_BATCHES == 0 {
            files.push(allocated(dir, files.len())?);
        }
        let file = files.last().ok_or("no file")?;
        with_range(batch * BATCH, BATCH, |payloads| {
            buffer.clear();
            for payload in payloads {
                buffer.extend_from_slice(&(PAYLOAD_LEN as u32).to_le_bytes());
                buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
                buffer.extend_from_slice(payload);
            }
            Ok(file.write_all_at(&buffer, batch % FILE_BATCHES * BATCH_LEN)?)
        })?;
        if sync == Sync::EachBatch {
            file.sync_data()?;
        }
        Ok(())
    })?;
    let note = if sync == Sync::EachBatch { flushes.note(batches, "batch") } else { None };
    let count = batches * BATCH;
    let fault = read_back(&files, batches)?.fault_against(Tally::of_first(count));
    Ok(Outcome { fault, note, ..Outcome::rate(count, elapsed) })
}

fn allocated(dir: &Path, index: usize) -> Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join(format!("{index}.seg")))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BATCHES * BATCH_LEN)?;
    file.sync_all()?;
    Ok(file)
}

fn read_back(files: &[File], batches: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; usize::try_from(BATCH_LEN)?];
    for batch in 0..batches {
        let file = files.get(usize::try_from(batch / FILE_BATCHES)?).ok_or("no file")?;
        file.read_exact_at(&mut buffer, batch % FILE_BATCHES * BATCH_LEN)?;
        for record in buffer.chunks_exact(RECORD_LEN) {
            let (head, payload) = record.split_at(8);
            if head[4..] != crc32fast::hash(payload).to_le_bytes() {
                return Err("a checksum does not match".into());
            }
            tally.add(payload);
        }
    }
    Ok(tally)
}
