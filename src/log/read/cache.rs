//! Blocks of files that no longer change, shared by all readers, within a bound.
//!
//! Keyed by the file's salt, which no other file has: a file that is made anew has a new one, so nothing is ever stale.
//! Files that are appended to are read directly. Never here: what the blocks mean.

use crate::disk::File;
use crate::log::format::checksum;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::Arc;

/// The bytes of a block: one read a block of sequential backlog.
pub(crate) const BLOCK_LEN: usize = 64 << 10;

/// The salt of a file and the number of a block in it.
type BlockKey = (u64, u64);
pub(in crate::log) type Block = Arc<Vec<u8>>;

/// Salts are random already: a round of mixing suffices.
#[derive(Clone, Copy, Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = checksum::step(self.0 ^ value);
    }
}

/// A place for a block. `used` is set by each hit and cleared as the hand of the clock passes.
#[derive(Debug)]
struct CacheEntry {
    key: BlockKey,
    block: Block,
    used: bool,
}

#[derive(Debug, Default)]
struct Blocks {
    by_key: HashMap<BlockKey, usize, BuildHasherDefault<Mixer>>,
    places: Vec<CacheEntry>,
    hand: usize,
    /// The memory of a block that gave way, for the next one.
    free: Option<Vec<u8>>,
}

impl Blocks {
    fn get(&mut self, key: BlockKey) -> Option<Block> {
        let place = self.places.get_mut(*self.by_key.get(&key)?)?;
        place.used = true;
        Some(Arc::clone(&place.block))
    }

    fn put(&mut self, key: BlockKey, block: Block, places_max: usize) {
        if self.by_key.contains_key(&key) {
            return;
        }
        let new = CacheEntry { key, block, used: false };
        if self.places.len() < places_max {
            self.by_key.insert(key, self.places.len());
            self.places.push(new);
            return;
        }
        // Every place is passed at most twice before one is free.
        for _ in 0..=2 * self.places.len() {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.places.len().max(1);
            let Some(place) = self.places.get_mut(index) else { return };
            if std::mem::take(&mut place.used) {
                continue;
            }
            self.by_key.remove(&place.key);
            self.by_key.insert(key, index);
            let old = std::mem::replace(place, new);
            self.free = Arc::try_unwrap(old.block).ok().or(self.free.take());
            return;
        }
    }
}

/// The cache. Its mutex is held for a look-up, never for a read.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Mutex<Blocks>,
    places_max: usize,
}

impl BlockCache {
    /// Of at most `bytes`, but at least one block.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { blocks: Mutex::new(Blocks::default()), places_max: (bytes / BLOCK_LEN).max(1) }
    }

    /// Reads a file that does not change any more, and whose salt this is.
    pub(crate) fn read_at(
        &self,
        salt: u64,
        open: &dyn Fn() -> io::Result<Arc<dyn File>>,
        at: u64,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let position = at.saturating_add(filled as u64);
            let number = position / BLOCK_LEN as u64;
            let within = (position % BLOCK_LEN as u64) as usize;
            let block = self.block((salt, number), open)?;
            let Some(found) = block.get(within..).filter(|found| !found.is_empty()) else { break };
            let len = found.len().min(rest.len());
            let (Some(to), Some(from)) = (rest.get_mut(..len), found.get(..len)) else { break };
            to.copy_from_slice(from);
            filled += len;
        }
        Ok(filled)
    }

    /// A block of a file that does not change any more.
    ///
    /// # Errors
    /// Whatever opening and reading say.
    pub(in crate::log) fn block(
        &self,
        key: BlockKey,
        open: &dyn Fn() -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Block> {
        let mut block = {
            let mut blocks = self.blocks.lock();
            if let Some(block) = blocks.get(key) {
                return Ok(block);
            }
            blocks.free.take().unwrap_or_default()
        };
        let (_, number) = key;
        crate::log::read::handles::read_into(
            &*open()?,
            number.saturating_mul(BLOCK_LEN as u64),
            BLOCK_LEN,
            &mut block,
        )?;
        let block = Arc::new(block);
        self.blocks.lock().put(key, Arc::clone(&block), self.places_max);
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::{Op, SimDisk};

    #[test]
    fn reads_are_those_of_the_file_and_each_block_is_read_once() {
        let disk = SimDisk::new(1);
        let handle = disk.attach().unwrap();
        let bytes: Vec<u8> = (0..3 * BLOCK_LEN + 1000).map(|at| (at / 7) as u8).collect();
        let file = handle.create("0000000000000001.seg", 0).unwrap();
        file.write_at(0, &bytes).unwrap();
        let cache = BlockCache::new(8 * BLOCK_LEN);
        let open = || Ok(Arc::clone(&file));
        let mut buf = vec![0; BLOCK_LEN + 10];
        for _ in 0..2 {
            for at in (0..bytes.len() + 10).step_by(997) {
                let read = cache.read_at(9, &open, at as u64, &mut buf).unwrap();
                assert_eq!(&buf[..read], &bytes[at.min(bytes.len())..(at + buf.len()).min(bytes.len())]);
            }
        }
        // The last block is short: a second read finds its end.
        assert!(disk.requests_of(Op::Read) <= 5);
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let disk = SimDisk::new(1);
        let handle = disk.attach().unwrap();
        let file = handle.create("0000000000000001.seg", 64 * BLOCK_LEN as u64).unwrap();
        let cache = BlockCache::new(4 * BLOCK_LEN);
        let open = || Ok(Arc::clone(&file));
        let mut buf = [0; 8];
        let mut hot_reads = 0;
        for number in 0..64u64 {
            cache.read_at(1, &open, number * BLOCK_LEN as u64, &mut buf).unwrap();
            let before = disk.requests_of(Op::Read);
            cache.read_at(1, &open, 0, &mut buf).unwrap();
            hot_reads += disk.requests_of(Op::Read) - before;
            let blocks = cache.blocks.lock();
            assert!(blocks.places.len() <= 4 && blocks.by_key.len() == blocks.places.len());
            for (index, place) in blocks.places.iter().enumerate() {
                assert_eq!(blocks.by_key.get(&place.key), Some(&index));
            }
        }
        assert_eq!(hot_reads, 0);
    }

    #[test]
    fn files_of_other_salts_are_others() {
        let disk = SimDisk::new(1);
        let handle = disk.attach().unwrap();
        let cache = BlockCache::new(BLOCK_LEN);
        for salt in [1u64, 2, 1] {
            let name = format!("{salt:016x}.seg");
            let file = match handle.open(&name) {
                Ok(file) => file,
                Err(_) => handle.create(&name, 0).unwrap(),
            };
            file.write_at(0, &salt.to_le_bytes()).unwrap();
            let mut buf = [0; 8];
            assert_eq!(cache.read_at(salt, &|| Ok(Arc::clone(&file)), 0, &mut buf).unwrap(), 8);
            assert_eq!(u64::from_le_bytes(buf), salt);
        }
    }
}
