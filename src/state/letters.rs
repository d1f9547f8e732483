//! The dead letters of a group: which offsets of its dead partition are settled.
//!
//! Letters are settled in any order and under no cap, so the truth is a set: whole chunks as runs, mixed chunks as
//! bitmaps of a bit a letter. Never here: the letters themselves, or where the partition ends.

use crate::ids::Offset;
use std::collections::BTreeMap;

const CHUNK: u64 = 512;
const WORDS: usize = (CHUNK / 64) as usize;

/// A chunk that has both settled letters and others.
pub(super) type Bits = [u64; WORDS];

/// The settled letters.
#[derive(Clone, Debug, Default)]
pub(super) struct Letters {
    /// Every chunk below is settled whole; this one is not.
    floor: u64,
    /// Runs of chunks above `floor` that are settled whole: first and end, apart from each other.
    full: BTreeMap<u64, u64>,
    mixed: BTreeMap<u64, Box<Bits>>,
    /// How many letters are settled.
    settled: u64,
}

impl Letters {
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The first letter that is not settled; the end of the partition if there is none.
    pub(super) fn first(&self) -> Offset {
        let low = self.mixed.get(&self.floor).map_or(0, |bits| low_ones(bits));
        Offset(self.floor * CHUNK + low)
    }

    pub(super) fn is_settled(&self, letter: Offset) -> bool {
        let chunk = letter.0 / CHUNK;
        chunk < self.floor
            || self.full.range(..=chunk).next_back().is_some_and(|(_, &end)| chunk < end)
            || self.mixed.get(&chunk).is_some_and(|bits| bits[word(letter)] & bit(letter) != 0)
    }

    /// Settles a letter that is not settled.
    pub(super) fn settle(&mut self, letter: Offset) {
        let chunk = letter.0 / CHUNK;
        let bits = self.mixed.entry(chunk).or_default();
        bits[word(letter)] |= bit(letter);
        self.settled += 1;
        if bits.iter().all(|&word| word == u64::MAX) {
            self.mixed.remove(&chunk);
            self.fill(chunk);
        }
    }

    fn fill(&mut self, chunk: u64) {
        let end = self.full.remove(&(chunk + 1)).unwrap_or(chunk + 1);
        if chunk == self.floor {
            self.floor = end;
            return;
        }
        match self.full.range_mut(..chunk).next_back() {
            Some((_, before)) if *before == chunk => *before = end,
            _ => drop(self.full.insert(chunk, end)),
        }
    }

    /// The letters from `from` up to `end` that are not settled.
    pub(super) fn unsettled(&self, from: Offset, end: Offset) -> impl Iterator<Item = Offset> {
        let mut chunk = from.0 / CHUNK;
        std::iter::from_fn(move || {
            chunk = self.skip_full(chunk);
            let start = chunk.checked_mul(CHUNK).filter(|&start| start < end.0)?;
            let bits = self.mixed.get(&chunk);
            chunk += 1;
            Some(
                (start..end.0.min(start.saturating_add(CHUNK))).map(Offset).filter(move |&letter| {
                    letter >= from && bits.is_none_or(|bits| bits[word(letter)] & bit(letter) == 0)
                }),
            )
        })
        .flatten()
    }

    /// The first chunk from `chunk` on that is not settled whole.
    fn skip_full(&self, chunk: u64) -> u64 {
        let chunk = chunk.max(self.floor);
        match self.full.range(..=chunk).next_back() {
            Some((_, &end)) if chunk < end => end,
            _ => chunk,
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn full(&self) -> &BTreeMap<u64, u64> {
        &self.full
    }

    pub(super) fn mixed(&self) -> &BTreeMap<u64, Box<Bits>> {
        &self.mixed
    }

    /// The set of a snapshot; `None` if it is not in its one form or has letters beyond `end`.
    pub(super) fn restore(
        floor: u64,
        full: BTreeMap<u64, u64>,
        mixed: BTreeMap<u64, Box<Bits>>,
        end: Offset,
    ) -> Option<Self> {
        let mut settled = floor.checked_mul(CHUNK)?;
        for (first, end) in &full {
            settled = settled.checked_add(end.checked_sub(*first)?.checked_mul(CHUNK)?)?;
        }
        for bits in mixed.values() {
            settled = settled.checked_add(bits.iter().map(|word| u64::from(word.count_ones())).sum())?;
        }
        let letters = Self { floor, full, mixed, settled };
        letters.fault(end).is_none().then_some(letters)
    }

    /// What is wrong, if anything, for a partition that ends at `end`.
    pub(super) fn fault(&self, end: Offset) -> Option<&'static str> {
        let mut below = self.floor;
        for (&first, &after) in &self.full {
            if first <= below || after <= first {
                return Some("the runs of settled letters are not apart");
            }
            below = after;
        }
        if below.checked_mul(CHUNK).is_none_or(|settled| settled > end.0) {
            return Some("a settled letter is beyond the end");
        }
        for (&chunk, bits) in &self.mixed {
            let ones: u32 = bits.iter().map(|word| word.count_ones()).sum();
            if ones == 0 || u64::from(ones) == CHUNK || self.skip_full(chunk) != chunk {
                return Some("a bitmap of letters should not be there");
            }
            let used = bits.iter().rposition(|&word| word != 0).unwrap_or(0);
            let last = used as u64 * 64 + 63 - u64::from(bits[used].leading_zeros());
            if chunk.checked_mul(CHUNK).and_then(|start| start.checked_add(last)).is_none_or(|last| last >= end.0) {
                return Some("a settled letter is beyond the end");
            }
        }
        let full: u64 = self.full.iter().map(|(first, end)| end - first).sum();
        let bits: u64 = self.mixed.values().flat_map(|bits| bits.iter()).map(|word| u64::from(word.count_ones())).sum();
        ((self.floor + full) * CHUNK + bits != self.settled).then_some("the settled letters are miscounted")
    }
}

fn word(letter: Offset) -> usize {
    (letter.0 % CHUNK / 64) as usize
}

fn bit(letter: Offset) -> u64 {
    1 << (letter.0 % 64)
}

/// How many ones come before the first zero.
fn low_ones(bits: &Bits) -> u64 {
    let whole = bits.iter().take_while(|&&word| word == u64::MAX).count();
    whole as u64 * 64 + bits.get(whole).map_or(0, |word| u64::from(word.trailing_ones()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn letters_settled_in_order_take_no_room() {
        let mut letters = Letters::default();
        for letter in 0..100_000 {
            letters.settle(Offset(letter));
            assert!(letters.mixed.len() <= 1 && letters.full.is_empty());
            assert_eq!(letters.first(), Offset(letter + 1));
        }
    }

    #[test]
    fn one_kept_letter_costs_one_bitmap() {
        let mut letters = Letters::default();
        for letter in (0..100_000).rev().filter(|&letter| letter != 700) {
            letters.settle(Offset(letter));
        }
        assert_eq!((letters.full.len(), letters.mixed.len()), (1, 2));
        assert_eq!(letters.first(), Offset(700));
        letters.settle(Offset(700));
        assert_eq!((letters.full.len(), letters.first()), (0, Offset(100_000)));
    }

    #[test]
    fn what_cannot_be_is_not_restored() {
        let end = Offset(2048);
        let whole = |floor, full: &[(u64, u64)], mixed: &[(u64, Bits)]| {
            let mixed = mixed.iter().map(|(chunk, bits)| (*chunk, Box::new(*bits))).collect();
            Letters::restore(floor, full.iter().copied().collect(), mixed, end).is_some()
        };
        assert!(whole(1, &[(2, 3)], &[(3, [1; WORDS])]));
        assert!(!whole(1, &[(1, 2)], &[]), "belongs to the floor");
        assert!(!whole(0, &[(1, 2), (2, 3)], &[]), "two runs that are one");
        assert!(!whole(0, &[(2, 1)], &[]));
        assert!(!whole(0, &[(1, u64::MAX)], &[]));
        assert!(!whole(u64::MAX, &[], &[]));
        assert!(!whole(1, &[], &[(0, [1; WORDS])]), "below the floor");
        assert!(!whole(0, &[], &[(0, [0; WORDS])]) && !whole(0, &[], &[(0, [u64::MAX; WORDS])]));
        assert!(!whole(0, &[], &[(4, [1; WORDS])]) && !whole(0, &[], &[(u64::MAX, [1; WORDS])]), "beyond the end");
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set(
            end in 1u64..3000, picks in proptest::collection::vec((0u64..3000, 0u64..700), 0..60), from in 0u64..3100,
        ) {
            let (mut letters, mut kept) = (Letters::default(), (0..end).collect::<BTreeSet<_>>());
            for (first, count) in picks {
                for letter in first..end.min(first + count) {
                    prop_assert_eq!(letters.is_settled(Offset(letter)), !kept.contains(&letter));
                    if kept.remove(&letter) {
                        letters.settle(Offset(letter));
                    }
                }
            }
            prop_assert_eq!(letters.fault(Offset(end)), None);
            prop_assert_eq!(letters.first().0, kept.first().copied().unwrap_or(end));
            prop_assert_eq!(letters.settled(), end - kept.len() as u64);
            let unsettled: Vec<_> = letters.unsettled(Offset(from), Offset(end)).map(|letter| letter.0).collect();
            prop_assert_eq!(unsettled, kept.range(from..).copied().collect::<Vec<_>>());
            let again = Letters::restore(letters.floor, letters.full.clone(), letters.mixed.clone(), Offset(end));
            prop_assert_eq!(again.map(|again| again.settled), Some(letters.settled));
        }
    }
}
