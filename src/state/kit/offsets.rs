//! A set of offsets that fills up from below, in any order.
//!
//! Chunks that are in it whole stand as runs, mixed ones as bitmaps of a bit an offset. Never here: what it means to be in it.

use crate::ids::Offset;
use std::collections::BTreeMap;
use std::sync::Arc;

const CHUNK: u64 = 512;
const WORDS: usize = (CHUNK / 64) as usize;

/// A chunk of which some offsets are in the set and some are not.
pub(in crate::state) type Bits = [u64; WORDS];

/// The set. A clone shares the bitmaps.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct OffsetSet {
    /// Every chunk below is in it whole; this one is not.
    floor: u64,
    /// Runs of chunks above `floor` that are in it whole: first and end, apart from each other.
    full: BTreeMap<u64, u64>,
    mixed: BTreeMap<u64, Arc<Bits>>,
    /// How many offsets are in it.
    len: u64,
}

impl OffsetSet {
    pub(in crate::state) fn len(&self) -> u64 {
        self.len
    }

    /// The first offset that is not in it.
    pub(in crate::state) fn first_missing(&self) -> Offset {
        let low = self.mixed.get(&self.floor).map_or(0, |bits| low_ones(bits));
        Offset(self.floor * CHUNK + low)
    }

    pub(in crate::state) fn contains(&self, offset: Offset) -> bool {
        let chunk = offset.0 / CHUNK;
        chunk < self.floor
            || self.full.range(..=chunk).next_back().is_some_and(|(_, &end)| chunk < end)
            || self.mixed.get(&chunk).is_some_and(|bits| bits[word(offset)] & bit(offset) != 0)
    }

    /// Adds an offset that is not in it.
    pub(in crate::state) fn insert(&mut self, offset: Offset) {
        let chunk = offset.0 / CHUNK;
        let bits = Arc::make_mut(self.mixed.entry(chunk).or_default());
        bits[word(offset)] |= bit(offset);
        self.len += 1;
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

    /// The offsets from `from` up to `end` that are not in it.
    pub(in crate::state) fn missing(&self, from: Offset, end: Offset) -> impl Iterator<Item = Offset> {
        let mut chunk = from.0 / CHUNK;
        std::iter::from_fn(move || {
            chunk = self.skip_full(chunk);
            let start = chunk.checked_mul(CHUNK).filter(|&start| start < end.0)?;
            let bits = self.mixed.get(&chunk);
            chunk += 1;
            Some(
                (start..end.0.min(start.saturating_add(CHUNK))).map(Offset).filter(move |&offset| {
                    offset >= from && bits.is_none_or(|bits| bits[word(offset)] & bit(offset) == 0)
                }),
            )
        })
        .flatten()
    }

    /// The first chunk from `chunk` on that is not in it whole.
    fn skip_full(&self, chunk: u64) -> u64 {
        let chunk = chunk.max(self.floor);
        match self.full.range(..=chunk).next_back() {
            Some((_, &end)) if chunk < end => end,
            _ => chunk,
        }
    }

    pub(in crate::state) fn floor(&self) -> u64 {
        self.floor
    }

    pub(in crate::state) fn full(&self) -> &BTreeMap<u64, u64> {
        &self.full
    }

    pub(in crate::state) fn mixed(&self) -> &BTreeMap<u64, Arc<Bits>> {
        &self.mixed
    }

    /// The set of a snapshot; `None` if it is not in its one form or has offsets beyond `end`.
    pub(in crate::state) fn restore(
        floor: u64,
        full: BTreeMap<u64, u64>,
        mixed: BTreeMap<u64, Arc<Bits>>,
        end: Offset,
    ) -> Option<Self> {
        let mut len = floor.checked_mul(CHUNK)?;
        for (first, end) in &full {
            len = len.checked_add(end.checked_sub(*first)?.checked_mul(CHUNK)?)?;
        }
        for bits in mixed.values() {
            len = len.checked_add(bits.iter().map(|word| u64::from(word.count_ones())).sum())?;
        }
        let set = Self { floor, full, mixed, len };
        set.fault(end).is_none().then_some(set)
    }

    /// What is wrong, if anything, for a partition that ends at `end`.
    pub(in crate::state) fn fault(&self, end: Offset) -> Option<&'static str> {
        let mut below = self.floor;
        for (&first, &after) in &self.full {
            if first <= below || after <= first {
                return Some("the runs of settled dead letters are not apart");
            }
            below = after;
        }
        if below.checked_mul(CHUNK).is_none_or(|settled| settled > end.0) {
            return Some("a settled dead letter is beyond the end");
        }
        for (&chunk, bits) in &self.mixed {
            let ones: u32 = bits.iter().map(|word| word.count_ones()).sum();
            if ones == 0 || u64::from(ones) == CHUNK || self.skip_full(chunk) != chunk {
                return Some("a bitmap of dead letters should not be there");
            }
            let used = bits.iter().rposition(|&word| word != 0).unwrap_or(0);
            let last = used as u64 * 64 + 63 - u64::from(bits[used].leading_zeros());
            if chunk.checked_mul(CHUNK).and_then(|start| start.checked_add(last)).is_none_or(|last| last >= end.0) {
                return Some("a settled dead letter is beyond the end");
            }
        }
        let full: u64 = self.full.iter().map(|(first, end)| end - first).sum();
        let bits: u64 = self.mixed.values().flat_map(|bits| bits.iter()).map(|word| u64::from(word.count_ones())).sum();
        ((self.floor + full) * CHUNK + bits != self.len).then_some("the settled dead letters are miscounted")
    }
}

fn word(offset: Offset) -> usize {
    (offset.0 % CHUNK / 64) as usize
}

fn bit(offset: Offset) -> u64 {
    1 << (offset.0 % 64)
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
    fn offsets_in_order_take_no_room() {
        let mut set = OffsetSet::default();
        for offset in 0..100_000 {
            set.insert(Offset(offset));
            assert!(set.mixed.len() <= 1 && set.full.is_empty());
            assert_eq!(set.first_missing(), Offset(offset + 1));
        }
    }

    #[test]
    fn one_gap_costs_one_bitmap() {
        let mut set = OffsetSet::default();
        for offset in (0..100_000).rev().filter(|&offset| offset != 700) {
            set.insert(Offset(offset));
        }
        assert_eq!((set.full.len(), set.mixed.len()), (1, 2));
        assert_eq!(set.first_missing(), Offset(700));
        set.insert(Offset(700));
        assert_eq!((set.full.len(), set.first_missing()), (0, Offset(100_000)));
    }

    #[test]
    fn what_cannot_be_is_not_restored() {
        let end = Offset(2048);
        let whole = |floor, full: &[(u64, u64)], mixed: &[(u64, Bits)]| {
            let mixed = mixed.iter().map(|(chunk, bits)| (*chunk, Arc::new(*bits))).collect();
            OffsetSet::restore(floor, full.iter().copied().collect(), mixed, end).is_some()
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

    properties! {
        #[test]
        fn it_behaves_like_a_set(
            end in 1u64..3000, picks in proptest::collection::vec((0u64..3000, 0u64..700), 0..60), from in 0u64..3100,
        ) {
            let (mut set, mut kept) = (OffsetSet::default(), (0..end).collect::<BTreeSet<_>>());
            for (first, count) in picks {
                for offset in first..end.min(first + count) {
                    prop_assert_eq!(set.contains(Offset(offset)), !kept.contains(&offset));
                    if kept.remove(&offset) {
                        set.insert(Offset(offset));
                    }
                }
            }
            prop_assert_eq!(set.fault(Offset(end)), None);
            prop_assert_eq!(set.first_missing().0, kept.first().copied().unwrap_or(end));
            prop_assert_eq!(set.len(), end - kept.len() as u64);
            let missing: Vec<_> = set.missing(Offset(from), Offset(end)).map(|offset| offset.0).collect();
            prop_assert_eq!(missing, kept.range(from..).copied().collect::<Vec<_>>());
            let again = OffsetSet::restore(set.floor, set.full.clone(), set.mixed.clone(), Offset(end));
            prop_assert_eq!(again.map(|again| again.len), Some(set.len));
        }
    }
}
