//! One simulated file: what its readers see, what the device holds, and the effects between the two.
//!
//! Never here: names, and which calls are allowed.

use super::image::Image;
use super::rng::Rng;
use std::ops::Range;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;

/// What a power failure takes or leaves at once.
pub(super) const SECTOR: u64 = 512;
/// What a process crash takes or leaves at once of an append.
pub(super) const WORD: u64 = 8;

/// A change that the device does not have yet.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    /// Its place among all effects of the disk, those on names included.
    pub(super) seq: u64,
    pub(super) change: Change,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    /// These of the inode's unsynced bytes, at this position.
    Write { at: u64, bytes: Range<usize> },
    /// A cut, or an extension with zeros.
    SetLen(u64),
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    /// The name it was created under, for traces.
    pub(super) name: String,
    /// What reads see: the page cache.
    pub(super) cache: Image,
    /// What is left if no effect survives.
    pub(super) durable: Image,
    pub(super) effects: Vec<Effect>,
    /// The bytes of all `Write` effects.
    pub(super) unsynced: Vec<u8>,
    /// Whether a sync has ever succeeded. Before that, a power failure may leave any length and any content.
    pub(super) synced: bool,
    /// Whether the cache holds bytes that a failed sync left behind as clean: no sync will ever write them.
    pub(super) stranded: bool,
    pub(super) has_tail: bool,
    /// The end of the appended bytes, while a handle that reads up to it lives.
    pub(super) appended: Weak<AtomicU64>,
    /// How many names others gave it outside the directory.
    pub(super) links: u64,
    /// How many handles the process has.
    pub(super) handles: usize,
}

impl Inode {
    pub(super) fn write(&mut self, seq: u64, at: u64, bytes: &[u8]) {
        self.cache.write(at, bytes);
        let start = self.unsynced.len();
        self.unsynced.extend_from_slice(bytes);
        self.effects.push(Effect { seq, change: Change::Write { at, bytes: start..self.unsynced.len() } });
    }

    pub(super) fn set_len(&mut self, seq: u64, len: u64) {
        self.cache.set_len(len);
        self.effects.push(Effect { seq, change: Change::SetLen(len) });
    }

    /// Writes only some of `bytes`, as a call does that dies or fails on the way. `grain`: what is never torn.
    pub(super) fn write_part(&mut self, seq: u64, at: u64, bytes: &[u8], grain: u64, rng: &mut Rng) {
        let end = at + bytes.len() as u64;
        let grains = end.div_ceil(grain) - at / grain;
        let (style, cut) = (rng.below(3), rng.below(grains + 1));
        let mut start = at;
        for index in 0..grains {
            let next = ((start / grain + 1) * grain).min(end);
            let stays = match style {
                0 => index < cut,
                1 => index >= cut,
                _ => rng.coin(),
            };
            if stays {
                self.write(seq, start, &bytes[(start - at) as usize..(next - at) as usize]);
            }
            start = next;
        }
    }

    /// All effects reach the device.
    pub(super) fn sync(&mut self) {
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects {
            self.reach_device(&effect.change);
        }
        self.unsynced.clear();
        self.synced = true;
    }

    /// One effect, or what was chosen of it, reaches the device.
    pub(super) fn reach_device(&mut self, change: &Change) {
        match change {
            Change::Write { at, bytes } => self.durable.write(*at, &self.unsynced[bytes.clone()]),
            Change::SetLen(len) => self.durable.set_len(*len),
        }
    }

    /// Some sectors reach the device before a sync fails or the process dies in it. They still count as unsynced.
    pub(super) fn sync_part(&mut self, rng: &mut Rng) {
        let (probability, effects) = (rng.below(5), self.effects.clone());
        for effect in &effects {
            for piece in sectors_of(&effect.change) {
                if rng.chance(probability, 4) {
                    self.reach_device(&piece);
                }
            }
        }
    }

    /// A sync fails, in one of the ways of real file systems.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        self.sync_part(rng);
        match rng.below(3) {
            // The pages stay as they are and count as clean: the next sync has nothing to do.
            0 => {
                self.stranded = true;
                self.forget_effects();
            }
            // The pages are thrown away, and read again as the device has them.
            1 => {
                self.forget_effects();
                self.evict();
            }
            // The pages stay dirty.
            _ => {}
        }
    }

    /// Clean pages are dropped and read from the device again; dirty ones stay.
    pub(super) fn evict(&mut self) {
        let len = self.cache.len();
        self.cache = self.durable.clone();
        for effect in &self.effects {
            match &effect.change {
                Change::Write { at, bytes } => self.cache.write(*at, &self.unsynced[bytes.clone()]),
                Change::SetLen(len) => self.cache.set_len(*len),
            }
        }
        self.cache.set_len(len);
        self.stranded = false;
    }

    pub(super) fn forget_effects(&mut self) {
        self.effects.clear();
        self.unsynced.clear();
    }

    /// After a power failure: the device's content is all there is.
    pub(super) fn restart(&mut self) {
        self.forget_effects();
        self.cache = self.durable.clone();
        self.synced = true;
        self.stranded = false;
    }

    /// After the end of the process: nobody has the file open.
    pub(super) fn orphan(&mut self) {
        self.has_tail = false;
        self.appended = Weak::new();
        self.handles = 0;
    }

    /// The content of both sides is `bytes`, as if it had always been so.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.durable = Image::default();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.durable.write(0, &bytes[..used]);
        self.durable.set_len(bytes.len() as u64);
        self.restart();
    }
}

/// The parts of a change that survive or not each by itself.
pub(super) fn sectors_of(change: &Change) -> Vec<Change> {
    let Change::Write { at, bytes } = change else { return vec![change.clone()] };
    let mut pieces = Vec::new();
    let (mut place, mut start) = (*at, bytes.start);
    while start < bytes.end {
        let room = (SECTOR - place % SECTOR) as usize;
        let count = room.min(bytes.end - start);
        pieces.push(Change::Write { at: place, bytes: start..start + count });
        place += count as u64;
        start += count;
    }
    pieces
}
