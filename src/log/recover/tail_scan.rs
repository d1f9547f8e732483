//! What stands behind the first place that does not validate.
//!
//! A frame found there says nothing about the log's content any more, but the watermark that it carries proves that more
//! had been durable than is left: damage, and not a torn tail. Linear: a candidate that would cover more than 4 KiB is
//! skipped. Reads only. Never here: the verdict.

use crate::disk::File;
use crate::ids::{FileNumber, Lsn};
use crate::log::error::OpenError;
use crate::log::format::bytes::u32_at;
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{ALIGN, Claim, Covered, FIXED_LEN, Probe, Spot};
use crate::log::format::header::HEADER_LEN;
use crate::log::format::name::FileName;
use crate::log::read::handles::Handles;
use crate::log::read::handles::read_into;
use crate::log::recover::chain::{Candidate, Walk};
use crate::log::recover::directory::DirectoryScan;
use std::io;
use std::ops::Range;

const CHUNK_LEN: usize = 1 << 20;
/// The most bytes that a checksum is tried on.
const COVERED_LEN_MAX: usize = 4 << 10;
/// Zeros are skipped in steps of this.
const STRIDE: usize = 512;
const ZEROS: [u8; STRIDE] = [0; STRIDE];

/// Where the log stops, and what lies behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct TailScan {
    /// The highest watermark that a frame behind the end carries.
    pub(in crate::log) watermark: Lsn,
    /// The file that holds the end of the log, and the place there.
    pub(in crate::log) stop: Option<(FileNumber, u64)>,
    /// Bytes behind the end that are not zero and not idle frames, from the first to the last, over all files.
    pub(in crate::log) dropped: u64,
}

/// Looks at the rest of the file that holds the end of the log, and at all files that were begun later.
pub(in crate::log) fn gather(
    directory: &DirectoryScan,
    candidates: &[Candidate],
    handles: &Handles,
    walk: &Walk,
) -> Result<TailScan, OpenError> {
    let mut tail_scan = TailScan::default();
    let last = last_begun(candidates, walk.end);
    // Where that is a copy, the recovery that made it judged all files of its time.
    if let Some(last) = last {
        let at = last.place(walk.end);
        look(handles, last.name(), &mut Search::new(last.info.salt, last.info.base, at, last.len), &mut tail_scan)?;
    }
    tail_scan.stop = stop(last, walk.end);
    let later = last.map_or(FileNumber(0), |last| last.info.number);
    // A copy that does not count says nothing that its source does not.
    let begun_later = directory.segments.iter().filter(|seen| seen.header.number > later && !seen.header.is_copy());
    for seen in begun_later {
        // Numbers rise with LSNs, so the file began behind the last fact: taking that for its base where its
        // first frame is gone makes the proof too weak at worst, never too strong.
        let base = seen.start.as_ref().map_or(walk.facts_end, |start| start.base);
        let at = HEADER_LEN as u64;
        look(handles, seen.name(), &mut Search::new(seen.header.salt, base, at, seen.len), &mut tail_scan)?;
    }
    Ok(tail_scan)
}

/// The place of `end`, where the segment `last` reaches that far.
fn stop(last: Option<&Candidate>, end: Lsn) -> Option<(FileNumber, u64)> {
    last.map(|last| (last.info.number, last.place(end), last.len))
        .filter(|(_, at, len)| at <= len)
        .map(|(n, at, _)| (n, at))
}

/// Where the log ends if nothing behind needs to be looked at.
pub(in crate::log) fn clean(candidates: &[Candidate], walk: &Walk) -> TailScan {
    TailScan { stop: stop(last_begun(candidates, walk.end), walk.end), ..TailScan::default() }
}

/// The segment that was the last to begin before `end` or at it, among those that `end` does not lie behind.
fn last_begun(candidates: &[Candidate], end: Lsn) -> Option<&Candidate> {
    let live =
        candidates.iter().filter(|candidate| candidate.info.base <= end && candidate.info.base < candidate.info.end);
    live.max_by_key(|candidate| (candidate.info.last_epoch(), candidate.info.base, candidate.info.number))
}

fn look(handles: &Handles, name: FileName, search: &mut Search, tail_scan: &mut TailScan) -> Result<(), OpenError> {
    let file = handles.get(name).map_err(OpenError::io("open", name))?;
    search.run(&*file).map_err(OpenError::io("read", name))?;
    // seam: no look behind the end
    tail_scan.watermark = tail_scan.watermark.max(search.watermark);
    if let Some((first, last)) = search.foreign {
        tail_scan.dropped = tail_scan.dropped.saturating_add(last - first);
    }
    Ok(())
}

/// The next bytes that may be other than zeros, with all that come behind them after no more zeros than a frame may be tried on, or
/// at least more of them than are looked at together.
fn stretch_from(file: &dyn File, at: u64) -> io::Result<Option<Range<u64>>> {
    let Some(mut data) = file.data_from(at)? else { return Ok(None) };
    while data.end - data.start <= (CHUNK_LEN + COVERED_LEN_MAX) as u64
        && let Some(next) = file.data_from(data.end)?
        && next.start - data.end < COVERED_LEN_MAX as u64
    {
        data.end = next.end;
    }
    Ok(Some(data))
}

/// A search for frames at every place where one could begin.
struct Search {
    salt: u64,
    base: Lsn,
    at: u64,
    limit: u64,
    watermark: Lsn,
    /// From the first to after the last byte that is neither zero nor of an idle frame.
    foreign: Option<(u64, u64)>,
}

impl Search {
    const fn new(salt: u64, base: Lsn, at: u64, limit: u64) -> Self {
        Self { salt, base, at, limit, watermark: Lsn(0), foreign: None }
    }

    fn run(&mut self, file: &dyn File) -> io::Result<()> {
        let mut chunk = Vec::new();
        while self.at < self.limit {
            // What was allocated ahead and never written need not be read to be known for zeros.
            let Some(data) = stretch_from(file, self.at)? else { break };
            self.at = self.at.max(data.start - data.start % ALIGN);
            let left = data.end.min(self.limit).saturating_sub(self.at);
            let len = left.min((CHUNK_LEN + COVERED_LEN_MAX) as u64) as usize;
            read_into(file, self.at, len, &mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            let whole = chunk.len() < len || len as u64 == left;
            let stop = if whole { chunk.len() } else { CHUNK_LEN };
            if whole {
                // A frame whose last bytes are zeros may reach into what was never written.
                let behind = self.limit.saturating_sub(self.at + chunk.len() as u64).min(COVERED_LEN_MAX as u64);
                chunk.resize(stop + behind as usize, 0);
            }
            self.at += self.look_at(&chunk, stop) as u64;
        }
        Ok(())
    }

    /// Looks at all places of `chunk` below `stop`, and returns where to go on: there, or behind a frame that reaches further.
    fn look_at(&mut self, chunk: &[u8], stop: usize) -> usize {
        let mut place = 0;
        while place < stop {
            if chunk.get(place..place + STRIDE) == Some(&ZEROS) {
                place += STRIDE;
                continue;
            }
            let rest = chunk.get(place..).unwrap_or(&[]);
            if let Some((len, idle)) = self.probe(rest, self.at + place as u64) {
                if !idle {
                    self.note_foreign(place, len);
                }
                place += len;
                continue;
            }
            let word = rest.get(..ALIGN as usize).unwrap_or(rest);
            if let Some(last) = word.iter().rposition(|byte| *byte != 0) {
                self.note_foreign(place, last + 1);
            }
            place += ALIGN as usize;
        }
        place
    }

    fn note_foreign(&mut self, place: usize, len: usize) {
        let start = self.at + place as u64;
        let first = self.foreign.map_or(start, |(first, _)| first);
        self.foreign = Some((first, start.saturating_add(len as u64)));
    }

    /// The padded length of the frame at `at` and whether it is idle, if its checksum agrees.
    fn probe(&mut self, bytes: &[u8], at: u64) -> Option<(usize, bool)> {
        if (u32_at(bytes, 4)? & crate::log::format::frame::LEN_MASK) < FIXED_LEN as u32 {
            return None;
        }
        let spot = Spot { salt: self.salt, at: u32::try_from(at).ok()? };
        let claim = Claim::parse(bytes)?;
        if claim.head_at as usize > COVERED_LEN_MAX {
            return None;
        }
        let bounded = bytes.get(..bytes.len().min(COVERED_LEN_MAX))?;
        let Probe::Covered(covered) = Covered::probe(bounded, self.limit.checked_sub(at)?, spot) else { return None };
        let by_place = self.base.checked_add(at.checked_sub(HEADER_LEN as u64)?)?;
        let told = covered.claim.lsn.is_none().then_some(by_place);
        let frame = covered.without_parts(bytes, spot, told)?;
        self.watermark = self.watermark.max(frame.watermark.unwrap_or(Lsn(0)));
        let idle = frame.is_log() && ControlFrame::decode(frame.head()).is_some_and(ControlFrame::is_idle);
        Some((covered.claim.padded() as usize, idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;
    use crate::log::format::frame::{Outline, Parts, encode_front, frame_len};

    const SALT: u64 = 0x5A17;
    const LIMIT: u64 = 3 << 20;

    /// A frame at `at` that carries the watermark 8.
    fn frame(at: u64, head: &[u8]) -> Vec<u8> {
        let lsn = Lsn(at - HEADER_LEN as u64);
        framed(at, head, &Outline { lsn, carries_lsn: false, epoch: None, watermark: Some(Lsn(8)), log: false })
    }

    fn framed(at: u64, head: &[u8], outline: &Outline) -> Vec<u8> {
        let (spot, parts) = (Spot { salt: SALT, at: at as u32 }, Parts::default());
        let mut bytes = Vec::new();
        let len = frame_len(outline, head.len(), &parts) as u32;
        encode_front(&mut bytes, spot, outline, len, head, &parts);
        bytes
    }

    /// The watermark and the foreign bytes that a search finds in a file which holds these pieces, and zeros elsewhere.
    fn search(pieces: &[(u64, &[u8])]) -> (Lsn, Option<(u64, u64)>) {
        let file = SimDisk::new(1).attach().unwrap().create("f", LIMIT).unwrap();
        pieces.iter().for_each(|(at, bytes)| file.write_at(*at, bytes).unwrap());
        let mut search = Search::new(SALT, Lsn(0), HEADER_LEN as u64, LIMIT);
        search.run(&*file).unwrap();
        (search.watermark, search.foreign)
    }

    /// Zeros within a frame may be a hole of the file, and the frame may stand in two of the pieces that are read.
    #[test]
    fn a_frame_is_found_wherever_it_stands_and_whatever_of_it_is_zeros() {
        let start = HEADER_LEN as u64;
        let boundary = start + CHUNK_LEN as u64;
        for zeros in [0, 40, 1000, 4000] {
            for head in [[vec![1], vec![0; zeros], vec![1]].concat(), [vec![1], vec![0; zeros]].concat()] {
                for at in [
                    start + 64,
                    boundary - 4096,
                    boundary - 2048,
                    boundary - 8,
                    boundary,
                    boundary + 4088,
                    LIMIT - 4096,
                ] {
                    let frame = frame(at, &head);
                    let end = at + frame.len().next_multiple_of(ALIGN as usize) as u64;
                    assert_eq!(search(&[(at, &frame)]), (Lsn(8), Some((at, end))), "{zeros} zeros at {at}");
                    let before = vec![0x11; (at - start) as usize];
                    let found = search(&[(start, &before), (at, &frame)]);
                    assert_eq!(found, (Lsn(8), Some((start, end))), "{zeros} zeros at {at}, behind others");
                }
            }
        }
    }

    /// Where the file system has small blocks, and there is a hole before each that is written.
    #[test]
    fn many_holes_are_walked_over_once() {
        let disk = SimDisk::new(1);
        let file = disk.attach().unwrap().create("f", LIMIT).unwrap();
        let step = 64;
        let bytes = [vec![1], vec![0; step - 1]].concat().repeat(LIMIT as usize / step);
        file.write_at(0, &bytes).unwrap();
        let before = disk.requests();
        Search::new(SALT, Lsn(0), 0, LIMIT).run(&*file).unwrap();
        let holes = LIMIT / step as u64;
        let requests = disk.requests() - before;
        assert!((holes..holes + holes / 20).contains(&requests), "{requests} requests for {holes}");
    }

    /// What says that it is longer than what checksums are tried on proves nothing, nor does half a frame.
    #[test]
    fn no_frame_is_found_where_none_is() {
        let (at, head) = (HEADER_LEN as u64 + 64, vec![1; 5000]);
        let long = frame(at, &head);
        assert_eq!(search(&[(at, &long)]).0, Lsn(0));
        let short = frame(at, &head[..100]);
        assert_eq!(search(&[(at, &short[..80])]).0, Lsn(0));
        assert_eq!(search(&[(at + 8, &short)]).0, Lsn(0), "not at its place");
        let outline = |lsn| Outline { lsn, carries_lsn: true, epoch: None, watermark: Some(Lsn(8)), log: false };
        assert_eq!(search(&[(at, &framed(at, &head[..100], &outline(Lsn(16))))]).0, Lsn(8));
        assert_eq!(search(&[(at, &framed(at, &head[..100], &outline(Lsn(20))))]).0, Lsn(0), "an LSN that none has");
        assert_eq!(search(&[]), (Lsn(0), None));
    }
}
