//! What is left after the process died, and after the power went.
//!
//! Everything that the contract in `disk` leaves open is decided here, by the outcome asked for and by the seed. What it
//! promises is never at stake: only effects after the last successful sync are. Never here: requests.

use super::image::{IMAGE_LEN_MAX, Image};
use super::inode::{Change, Inode, SECTOR, sectors_of};
use super::rng::Rng;
use super::world::World;
use std::collections::BTreeSet;

/// Which unsynced effects survive a power failure. An effect is one write, one append, one change of a length, or the creation
/// or removal of one name; their order is that of the requests, over all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerOutcome {
    /// None.
    LoseAll,
    /// All.
    KeepAll,
    /// The first so many.
    Prefix(usize),
    /// Each sector of each write by chance, and so each length and each name.
    RandomSectors,
    /// All except one.
    AllButOne,
    /// One alone.
    OnlyOne,
    /// Those before some write, and the first or the last sectors of that.
    Torn,
    /// All names and lengths, but none of the bytes: zeros.
    SizeWithoutData,
    /// In each written sector the old bytes, the new ones, a torn mix, zeros, noise or what another file held there; each
    /// length and name by chance. A file that was never synced may have any length, and noise where nothing was written.
    Garbage,
    /// All names, no contents.
    NamesFirst,
    /// All contents, no names.
    ContentsFirst,
}

impl PowerOutcome {
    /// Every kind but `Prefix`, whose instances are the numbers up to [`SimDisk::pending`](super::SimDisk::pending).
    pub const EACH: [Self; 10] = [
        Self::LoseAll,
        Self::KeepAll,
        Self::RandomSectors,
        Self::AllButOne,
        Self::OnlyOne,
        Self::Torn,
        Self::SizeWithoutData,
        Self::Garbage,
        Self::NamesFirst,
        Self::ContentsFirst,
    ];
}

/// An effect: of a file, or on a name.
#[derive(Clone, Copy)]
enum Of {
    Content { inode: u64, index: usize },
    Name { index: usize },
}

/// What becomes of an effect.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Lost,
    Kept,
    /// Only what it does to the length.
    Size,
    Torn,
    Random,
}

/// How the sectors of writes with the fate `Random` are chosen.
struct Chance {
    /// Out of 4.
    probability: u64,
    /// Where a sector lost one write, it loses all later ones too: as in a page cache that was written out at some moment.
    /// Otherwise writes to one sector survive independently, which the contract allows.
    in_order: bool,
    lost: BTreeSet<(u64, u64)>,
}

impl World {
    /// What was written stays, but clean pages that the device does not have may be gone.
    pub(super) fn crash_process(&mut self) {
        let rng = &mut self.rng;
        for inode in self.inodes.values_mut().filter(|inode| inode.stranded) {
            if rng.coin() {
                inode.evict();
            }
        }
        self.end_process();
    }

    pub(super) fn crash_power(&mut self, outcome: PowerOutcome) {
        let effects = self.pending();
        let fates = self.fates(outcome, &effects);
        let mut chance = Chance {
            probability: [1, 2, 2, 3][self.rng.index(4)],
            in_order: self.rng.chance(3, 4),
            lost: BTreeSet::new(),
        };
        let changes = std::mem::take(&mut self.name_changes);
        let mut rng = self.rng.clone();
        for (of, fate) in effects.into_iter().zip(fates) {
            match of {
                Of::Name { index } if fate == Fate::Kept => self.name_reaches_device(&changes[index]),
                Of::Name { .. } => {}
                Of::Content { inode: number, index } => {
                    if let Some(inode) = self.inodes.get_mut(&number) {
                        let change = inode.effects[index].change.clone();
                        settle(inode, number, &change, fate, &mut chance, &mut rng);
                    }
                }
            }
        }
        if outcome == PowerOutcome::Garbage {
            let strays = strays(self.inodes.values(), &mut rng);
            self.inodes.values_mut().for_each(|inode| spoil(inode, &strays, &mut rng));
        }
        self.rng = rng;
        self.inodes.values_mut().for_each(Inode::restart);
        self.names = self.durable_names.clone();
        self.end_process();
    }

    /// How many effects a power failure may take.
    pub(super) fn pending_count(&self) -> usize {
        self.name_changes.len() + self.inodes.values().map(|inode| inode.effects.len()).sum::<usize>()
    }

    /// The effects that the device does not have, in the order of the requests.
    fn pending(&self) -> Vec<Of> {
        let names = self.name_changes.iter().enumerate().map(|(index, change)| (change.seq, Of::Name { index }));
        let contents = self.inodes.iter().flat_map(|(number, inode)| {
            let of = |index| Of::Content { inode: *number, index };
            inode.effects.iter().enumerate().map(move |(index, effect)| (effect.seq, of(index)))
        });
        let mut effects: Vec<_> = names.chain(contents).collect();
        effects.sort_by_key(|(seq, _)| *seq);
        effects.into_iter().map(|(_, of)| of).collect()
    }

    fn fates(&mut self, outcome: PowerOutcome, effects: &[Of]) -> Vec<Fate> {
        let victim = match outcome {
            PowerOutcome::Torn => {
                let is_content = |of: &Of| matches!(of, Of::Content { .. });
                let contents: Vec<_> = (0..effects.len()).filter(|index| is_content(&effects[*index])).collect();
                contents.get(self.rng.index(contents.len())).copied().unwrap_or(effects.len())
            }
            _ => self.rng.index(effects.len()),
        };
        let kept = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
        let rng = &mut self.rng;
        let fate = |(index, of): (usize, &Of)| {
            let is_name = matches!(of, Of::Name { .. });
            match outcome {
                PowerOutcome::LoseAll => Fate::Lost,
                PowerOutcome::KeepAll => Fate::Kept,
                PowerOutcome::Prefix(count) => kept(index < count),
                PowerOutcome::AllButOne => kept(index != victim),
                PowerOutcome::OnlyOne => kept(index == victim),
                PowerOutcome::Torn if index == victim => Fate::Torn,
                PowerOutcome::Torn => kept(index < victim),
                PowerOutcome::SizeWithoutData if is_name => Fate::Kept,
                PowerOutcome::SizeWithoutData => Fate::Size,
                PowerOutcome::NamesFirst => kept(is_name),
                PowerOutcome::ContentsFirst => kept(!is_name),
                PowerOutcome::RandomSectors | PowerOutcome::Garbage if is_name => kept(rng.coin()),
                PowerOutcome::RandomSectors => Fate::Random,
                // Contents are spoiled afterwards, as a whole.
                PowerOutcome::Garbage => Fate::Lost,
            }
        };
        effects.iter().enumerate().map(fate).collect()
    }
}

/// Brings to the device what is left of one effect on a file.
fn settle(inode: &mut Inode, number: u64, change: &Change, fate: Fate, chance: &mut Chance, rng: &mut Rng) {
    match fate {
        Fate::Lost => {}
        Fate::Kept => inode.reach_device(change),
        Fate::Size => {
            let len = match change {
                Change::Write { at, bytes } => inode.durable.len().max(at + bytes.len() as u64),
                Change::SetLen(len) => *len,
            };
            inode.durable.set_len(len);
        }
        Fate::Torn => {
            let pieces = sectors_of(change);
            let (count, first) = (rng.index(pieces.len() + 1), rng.coin());
            let range = if first { 0..count } else { pieces.len() - count..pieces.len() };
            pieces[range].iter().for_each(|piece| inode.reach_device(piece));
        }
        Fate::Random => {
            for piece in sectors_of(change) {
                let sector = match &piece {
                    Change::Write { at, .. } => Some((number, at / SECTOR)),
                    Change::SetLen(_) => None,
                };
                let too_late = chance.in_order && sector.is_some_and(|sector| chance.lost.contains(&sector));
                if !too_late && rng.chance(chance.probability, 4) {
                    inode.reach_device(&piece);
                } else {
                    chance.lost.extend(sector);
                }
            }
        }
    }
}

/// How many sectors of other files are kept for [`spoil`].
const STRAYS: usize = 8;
/// How many sectors of a file that was never synced hold noise, at most, and how far into the file.
const NOISE: u64 = 4;
const NOISE_END: u64 = 1 << 20;

/// Some sectors as the device has them, from any file.
fn strays<'a>(inodes: impl Iterator<Item = &'a Inode>, rng: &mut Rng) -> Vec<Vec<u8>> {
    let stored: Vec<_> = inodes.map(|inode| &inode.durable).filter(|image| image.stored_end() > 0).collect();
    let count = if stored.is_empty() { 0 } else { STRAYS };
    let stray = |_| {
        let image = stored[rng.index(stored.len())];
        image.bytes(rng.below(image.stored_end().div_ceil(SECTOR)) * SECTOR, SECTOR as usize)
    };
    (0..count).map(stray).collect()
}

/// Anything at all in the sectors that were being written, from the first byte on that changed.
fn spoil(inode: &mut Inode, strays: &[Vec<u8>], rng: &mut Rng) {
    let old = inode.durable.clone();
    let (mut lens, mut sectors) = (vec![old.len()], BTreeSet::new());
    for index in 0..inode.effects.len() {
        let change = inode.effects[index].change.clone();
        for piece in sectors_of(&change) {
            if let Change::Write { at, .. } = piece {
                sectors.insert(at / SECTOR);
            }
        }
        inode.reach_device(&change);
        lens.push(inode.durable.len());
    }
    let new = std::mem::replace(&mut inode.durable, old.clone());
    let mut len = lens[rng.index(lens.len())];
    if !inode.synced && rng.coin() {
        len = rng.below(new.len() + 2 * SECTOR).min(IMAGE_LEN_MAX);
    }
    for sector in sectors {
        let bytes = spoiled(&old, &new, sector * SECTOR, strays, rng);
        inode.durable.write(sector * SECTOR, &bytes);
    }
    inode.durable.set_len(len);
    if !inode.synced && rng.coin() {
        for _ in 0..rng.below(NOISE + 1) {
            let at = rng.below(len.min(NOISE_END).div_ceil(SECTOR)) * SECTOR;
            inode.durable.write(at, &noise(0, strays, rng)[..]);
        }
        inode.durable.set_len(len);
    }
}

/// A sector that was being written.
fn spoiled(old: &Image, new: &Image, at: u64, strays: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let (old, new) = (old.bytes(at, SECTOR as usize), new.bytes(at, SECTOR as usize));
    let differs = |index: &usize| old[*index] != new[*index];
    let Some(changed) = (0..old.len()).find(differs) else { return old };
    let unchanged = (0..old.len()).rfind(differs).map_or(changed, |last| last + 1);
    let cut = match rng.below(4) {
        0 => return old,
        1 => return new,
        2 => changed + rng.index(unchanged - changed + 1),
        _ => changed,
    };
    let rest = if rng.coin() { old[cut..].to_vec() } else { noise(cut, strays, rng) };
    [&new[..cut], &rest[..]].concat()
}

/// The end of a sector, from `start` on, that holds zeros, random bytes or those of a stray.
fn noise(start: usize, strays: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize - start];
    match rng.below(3) {
        0 => {}
        1 => rng.fill(&mut bytes),
        _ => {
            if let Some(stray) = strays.get(rng.index(strays.len())) {
                bytes.copy_from_slice(&stray[start..]);
            }
        }
    }
    bytes
}
