//! The bytes of a simulated file, with the zeros left out.
//!
//! Pages are shared between copies until one of them writes, so a snapshot of a disk costs a count per page. Never here:
//! what is durable and what is not.

use std::ops::Range;
use std::sync::Arc;

const PAGE: usize = 4096;
/// What counts as data or as a hole: smaller than any file system's, so that frames have holes in them.
const BLOCK: usize = 16;
/// The longest file: what the table of pages may cost, as a file system has its own limit.
pub(super) const IMAGE_LEN_MAX: u64 = 1 << 36;

/// Invariant: bytes at and after `len` are zero in every page, and no page lies wholly there.
#[derive(Clone, Default)]
pub(super) struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: u64,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where the stored pages end: from here on there are only zeros.
    pub(super) fn stored_end(&self) -> u64 {
        self.len.min((self.pages.len() * PAGE) as u64)
    }

    /// Fills `buf` from `at` on, as far as there are bytes, and returns their number.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> usize {
        let count = usize::try_from(self.len.saturating_sub(at)).map_or(buf.len(), |left| left.min(buf.len()));
        for (page, inside, piece) in pages_of(at, count) {
            let target = &mut buf[piece.clone()];
            match self.pages.get(page) {
                Some(Some(bytes)) => target.copy_from_slice(&bytes[inside..inside + piece.len()]),
                _ => target.fill(0),
            }
        }
        count
    }

    /// The rest of the block at `at` that is not all zeros, or the first such one behind, with those that follow it.
    pub(super) fn data_from(&self, at: u64) -> Option<Range<u64>> {
        let data = self.blocks_from(at).find(|block| block.1)?.0;
        let hole = self.blocks_from(data).find(|block| !block.1).map_or(self.len, |block| block.0);
        Some(at.max(data)..self.len.min(hole)).filter(|range| range.start < range.end)
    }

    /// Where the blocks from the one at `at` on begin, as far as pages are stored, and whether they hold anything but zeros. Pages
    /// that are not stored are skipped as one block.
    fn blocks_from(&self, at: u64) -> impl Iterator<Item = (u64, bool)> + '_ {
        let mut at = at - at % BLOCK as u64;
        std::iter::from_fn(move || {
            let start = at;
            let (page, inside) = ((at / PAGE as u64) as usize, (at % PAGE as u64) as usize);
            let stored = self.pages.get(page)?.as_ref();
            at += stored.map_or(PAGE - inside, |_| BLOCK) as u64;
            Some((start, stored.is_some_and(|bytes| bytes[inside..inside + BLOCK] != [0; BLOCK])))
        })
    }

    /// The bytes of `len` positions from `at` on, zeros after the end.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes);
        bytes
    }

    /// Stores `bytes` at `at`. The caller has checked the end against [`IMAGE_LEN_MAX`].
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        for (page, inside, piece) in pages_of(at, bytes.len()) {
            if page >= self.pages.len() {
                self.pages.resize(page + 1, None);
            }
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + piece.len()].copy_from_slice(&bytes[piece]);
        }
        self.len = self.len.max(at + bytes.len() as u64);
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (whole, rest) = ((len / PAGE as u64) as usize, (len % PAGE as u64) as usize);
            self.pages.truncate(whole + usize::from(rest > 0));
            if let (true, Some(Some(last))) = (rest > 0, self.pages.get_mut(whole)) {
                Arc::make_mut(last)[rest..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Cuts `len` bytes at `at` into (page, position in the page, range of the bytes).
fn pages_of(at: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let place = at + done as u64;
        let (page, inside) = ((place / PAGE as u64) as usize, (place % PAGE as u64) as usize);
        let count = (PAGE - inside).min(len - done);
        done += count;
        Some((page, inside, done - count..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::Rng;

    #[test]
    fn behaves_as_a_vector() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let (mut image, mut model) = (Image::default(), Vec::<u8>::new());
            let mut kept = Vec::new();
            for _ in 0..60 {
                let (at, len) = (rng.index(3 * PAGE), rng.index(2 * PAGE));
                match rng.below(4) {
                    0 => {
                        model.resize(at, 0);
                        image.set_len(at as u64);
                    }
                    1 => kept.push((image.clone(), model.clone())),
                    _ => {
                        let mut bytes = vec![0; len];
                        rng.fill(&mut bytes);
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&bytes);
                        image.write(at as u64, &bytes);
                    }
                }
                assert_eq!((image.len(), image.bytes(0, model.len())), (model.len() as u64, model.clone()));
                assert!(image.stored_end() <= image.len());
            }
            for (image, model) in kept {
                assert_eq!(image.bytes(0, model.len()), model, "a copy keeps its content");
            }
        }
    }

    #[test]
    fn zeros_cost_nothing() {
        let mut image = Image::default();
        image.set_len(IMAGE_LEN_MAX);
        assert_eq!((image.pages.len(), image.stored_end()), (0, 0));
        assert_eq!(image.read(IMAGE_LEN_MAX - 3, &mut [1; 8]), 3);
        image.write(PAGE as u64 * 9, b"x");
        image.set_len(0);
        assert_eq!(image.pages.len(), 0);
    }
}
