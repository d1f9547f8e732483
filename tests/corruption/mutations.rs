//! Every damage that is tried on a store: which there are, in a fixed order, and what each does to the files.
//!
//! Never here: what becomes of a damaged store.

use millpond::simulation::SimDisk;
use millpond::simulation::fuzzing::Rich;
use std::fmt;

/// What happens to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockDamage {
    Zeroed,
    /// Exchanged with the block at this place of this file.
    Swapped(usize, usize),
    /// Overwritten by that one.
    Doubled(usize, usize),
    /// As it was in this older state of the store.
    Older(usize),
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDamage {
    Missing,
    Empty,
    Zeroed,
    /// The file of this name of another store.
    Foreign,
    /// As it was in this older state of the store.
    Older(usize),
    /// Its content and that of another file exchanged.
    Exchanged(usize),
    /// So many zeros behind it, or that much noise.
    Longer(usize),
    Noise(usize),
}

/// One damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A byte: a flipped bit (0 to 7), zero (8), or ones (9).
    Byte {
        file: usize,
        at: usize,
        how: u8,
    },
    Block {
        file: usize,
        at: usize,
        len: usize,
        damage: BlockDamage,
    },
    Cut {
        file: usize,
        len: usize,
    },
    File {
        file: usize,
        damage: FileDamage,
    },
}

/// The kinds of damage, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Byte,
    Block,
    Cut,
    File,
}

impl Mutation {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Byte { .. } => Kind::Byte,
            Self::Block { .. } => Kind::Block,
            Self::Cut { .. } => Kind::Cut,
            Self::File { .. } => Kind::File,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Byte => "changed bytes",
            Self::Block => "damaged blocks",
            Self::Cut => "truncations",
            Self::File => "missing or foreign files",
        })
    }
}

/// The files of a store that is to be damaged, those of another store, and older ones of the same.
pub struct Sources {
    disk: SimDisk,
    pub names: Vec<String>,
    files: Vec<Vec<u8>>,
    foreign: Vec<Option<Vec<u8>>>,
    older: Vec<Vec<Option<Vec<u8>>>>,
}

impl Sources {
    pub fn new(disk: &SimDisk, rich: &Rich, other: &SimDisk) -> Self {
        let names: Vec<String> = disk.files().into_iter().map(|file| file.name).collect();
        let of = |disk: &SimDisk| names.iter().map(|name| disk.read_file(name)).collect::<Vec<_>>();
        let older = rich.older.iter().map(of).collect();
        let files = of(disk).into_iter().map(Option::unwrap).collect();
        Self { disk: disk.snapshot(), foreign: of(other), older, files, names }
    }

    /// A machine with the undamaged store.
    pub fn whole(&self) -> SimDisk {
        self.disk.snapshot()
    }

    /// Whether this changes files beside the one that it is named after and that are not derived.
    pub fn touches_others(&self, mutation: Mutation) -> bool {
        let other = match mutation {
            Mutation::Block { damage: BlockDamage::Swapped(other, _), .. } => other,
            Mutation::File { damage: FileDamage::Exchanged(other), .. } => other,
            _ => return false,
        };
        !self.names[other].ends_with(".idx")
    }

    /// A machine on which this has happened, and the name of the damaged file.
    pub fn damaged(&self, mutation: Mutation) -> (SimDisk, &str) {
        let disk = self.disk.snapshot();
        let file = match mutation {
            Mutation::Byte { file, at, how } => {
                let mut bytes = self.files[file].clone();
                match how {
                    0..8 => bytes[at] ^= 1 << how,
                    8 => bytes[at] = 0,
                    _ => bytes[at] = 0xff,
                }
                disk.write_file(&self.names[file], &bytes);
                file
            }
            Mutation::Cut { file, len } => {
                disk.write_file(&self.names[file], &self.files[file][..len]);
                file
            }
            Mutation::Block { file, at, len, damage } => {
                self.damage_block(&disk, file, at, len, damage);
                file
            }
            Mutation::File { file, damage } => {
                self.damage_file(&disk, file, damage);
                file
            }
        };
        (disk, &self.names[file])
    }

    fn damage_block(&self, disk: &SimDisk, file: usize, at: usize, len: usize, damage: BlockDamage) {
        let mut bytes = self.files[file].clone();
        let end = bytes.len().min(at + len);
        match damage {
            BlockDamage::Zeroed => bytes[at..end].fill(0),
            BlockDamage::Swapped(other, from) | BlockDamage::Doubled(other, from) => {
                let source = &self.files[other];
                let len = (end - at).min(source.len() - from);
                let here = bytes[at..at + len].to_vec();
                bytes[at..at + len].copy_from_slice(&source[from..from + len]);
                if matches!(damage, BlockDamage::Swapped(..)) && other == file {
                    bytes[from..from + len].copy_from_slice(&here);
                } else if matches!(damage, BlockDamage::Swapped(..)) {
                    let mut there = source.clone();
                    there[from..from + len].copy_from_slice(&here);
                    disk.write_file(&self.names[other], &there);
                }
            }
            BlockDamage::Older(age) => {
                let old = self.older[age][file].as_ref().unwrap();
                let end = end.min(old.len());
                bytes[at..end].copy_from_slice(&old[at..end]);
            }
        }
        disk.write_file(&self.names[file], &bytes);
    }

    fn damage_file(&self, disk: &SimDisk, file: usize, damage: FileDamage) {
        let (name, whole) = (&self.names[file], &self.files[file]);
        let bytes = match damage {
            FileDamage::Missing => {
                disk.remove_file(name);
                return;
            }
            FileDamage::Empty => Vec::new(),
            FileDamage::Zeroed => vec![0; whole.len()],
            FileDamage::Foreign => self.foreign[file].clone().unwrap(),
            FileDamage::Older(age) => self.older[age][file].clone().unwrap(),
            FileDamage::Exchanged(other) => {
                disk.write_file(&self.names[other], whole);
                self.files[other].clone()
            }
            FileDamage::Longer(by) => [&whole[..], &vec![0; by]].concat(),
            FileDamage::Noise(by) => {
                let noise = (0..by).map(|n| (n as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()[3] | 1);
                whole.iter().copied().chain(noise).collect()
            }
        };
        disk.write_file(name, &bytes);
    }

    /// All of it, in a fixed order, each kind apart. `idle`: of the bytes in the middle of zeros, one in so many.
    pub fn all(&self, idle: usize) -> Vec<Vec<Mutation>> {
        let mut kinds = vec![Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for (file, bytes) in self.files.iter().enumerate() {
            for at in 0..bytes.len() {
                let around = &bytes[at.saturating_sub(16)..bytes.len().min(at + 16)];
                if around.iter().any(|byte| *byte != 0) || at % idle == 0 {
                    let changes = |how: &u8| match how {
                        8 => bytes[at] != 0,
                        9 => bytes[at] != 0xff,
                        _ => true,
                    };
                    kinds[0].extend((0..10).filter(changes).map(|how| Mutation::Byte { file, at, how }));
                    kinds[2].push(Mutation::Cut { file, len: at });
                }
            }
            for len in [512, 4096] {
                for at in (0..bytes.len()).step_by(len) {
                    let block = |damage| Mutation::Block { file, at, len, damage };
                    kinds[1].extend(self.block_damages(file, at, len).into_iter().map(block));
                }
            }
            kinds[3].extend(self.file_damages(file).into_iter().map(|damage| Mutation::File { file, damage }));
        }
        kinds
    }

    fn block_damages(&self, file: usize, at: usize, len: usize) -> Vec<BlockDamage> {
        let mut damages = vec![BlockDamage::Zeroed];
        // The block behind it, and one at the same place or at the beginning of every other file.
        let others = (0..self.files.len()).map(|other| match () {
            () if other == file => (other, at + len),
            () if at < self.files[other].len() => (other, at),
            () => (other, 0),
        });
        for (other, from) in others.filter(|(other, from)| *from < self.files[*other].len()) {
            damages.extend([BlockDamage::Swapped(other, from), BlockDamage::Doubled(other, from)]);
        }
        for (age, files) in self.older.iter().enumerate() {
            let old = files[file].as_ref().and_then(|old| old.get(at..));
            if old.is_some_and(|old| {
                !old.is_empty()
                    && old[..len.min(old.len())]
                        != self.files[file][at..][..len.min(old.len()).min(self.files[file].len() - at)]
            }) {
                damages.push(BlockDamage::Older(age));
            }
        }
        damages
    }

    fn file_damages(&self, file: usize) -> Vec<FileDamage> {
        let mut damages = vec![FileDamage::Missing, FileDamage::Empty, FileDamage::Zeroed];
        if self.foreign[file].is_some() {
            damages.push(FileDamage::Foreign);
        }
        let older = self.older.iter().enumerate().filter(|(_, files)| files[file].is_some());
        damages.extend(older.map(|(age, _)| FileDamage::Older(age)));
        damages.extend((0..self.files.len()).filter(|other| *other != file).map(FileDamage::Exchanged));
        for by in [1, 8, 100, 512, 4096, 70_000] {
            damages.extend([FileDamage::Longer(by), FileDamage::Noise(by)]);
        }
        damages
    }
}

/// A sample of each kind: all damage of whole files, of the rest as much as there is room for, bytes most.
pub fn sample(mut kinds: Vec<Vec<Mutation>>, wanted: Option<usize>) -> Vec<Mutation> {
    let Some(wanted) = wanted else { return kinds.concat() };
    let mut tried = Vec::new();
    for (kind, share) in [(3, 6), (2, 5), (1, 3), (0, 1)] {
        let room = (wanted - tried.len()).div_ceil(share);
        let all = std::mem::take(&mut kinds[kind]);
        let step = coprime(all.len());
        tried.extend((0..all.len().min(room)).map(|number| all[number * step % all.len()]));
    }
    tried
}

/// A step that visits all of `len` places before it comes to one again, and goes far.
fn coprime(len: usize) -> usize {
    let divides = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (len * 5 / 13 + 1..).find(|step| divides(*step, len) == 1).unwrap_or(1)
}
