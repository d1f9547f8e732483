//! A queue of bounded length: numbered entries, the newest in the place of the oldest.
//!
//! The places lie in pages, and the pages in groups, so that a snapshot of a million entries copies a few hundred pointers, and the next
//! entry one page of a few KiB. Never here: what an entry means.

use std::ops::Range;
use std::sync::Arc;

/// Entries in a page.
const PAGE: usize = 64;
/// Pages in a group.
const GROUP: usize = 64;

/// Entries with numbers that rise by one. A clone shares the pages.
#[derive(Clone, Debug)]
pub(in crate::state) struct Ring<T> {
    len_max: u64,
    first: u64,
    next: u64,
    /// The place of an entry is its number modulo the greatest length. Places are made when they are reached first, and stay.
    groups: Vec<Arc<Vec<Arc<Vec<T>>>>>,
}

impl<T: Copy> Ring<T> {
    pub(in crate::state) fn new(len_max: u32) -> Self {
        Self { len_max: u64::from(len_max.max(1)), first: 0, next: 0, groups: Vec::new() }
    }

    pub(in crate::state) fn len_max(&self) -> u64 {
        self.len_max
    }

    /// The numbers of the entries.
    #[inline]
    pub(in crate::state) fn numbers(&self) -> Range<u64> {
        self.first..self.next
    }

    pub(in crate::state) fn is_full(&self) -> bool {
        self.next - self.first >= self.len_max
    }

    #[inline]
    pub(in crate::state) fn get(&self, number: u64) -> Option<&T> {
        if !self.numbers().contains(&number) {
            return None;
        }
        let (group, page, item) = self.place(number);
        self.groups.get(group)?.get(page)?.get(item)
    }

    /// The entry whose number ends in these 32 bits. There are no two.
    #[inline]
    pub(in crate::state) fn get_low(&self, low: u32) -> Option<&T> {
        self.get(self.first.wrapping_add(u64::from(low.wrapping_sub(self.first as u32))))
    }

    /// Takes out the oldest, with its number.
    pub(in crate::state) fn pop(&mut self) -> Option<(u64, T)> {
        let (number, oldest) = (self.first, *self.get(self.first)?);
        self.first += 1;
        Some((number, oldest))
    }

    /// Adds one, in the place of the oldest where there are as many as there may be. Returns its number.
    #[inline]
    pub(in crate::state) fn push(&mut self, entry: T) -> u64 {
        if self.is_full() {
            self.first += 1;
        }
        let number = self.next;
        let (group, page, item) = self.place(number);
        if group == self.groups.len() {
            self.groups.push(Arc::new(Vec::with_capacity(GROUP)));
        }
        let pages = Arc::make_mut(&mut self.groups[group]);
        if page == pages.len() {
            pages.push(Arc::new(Vec::with_capacity(PAGE)));
        }
        let items = Arc::make_mut(&mut pages[page]);
        match items.get_mut(item) {
            Some(place) => *place = entry,
            None => items.push(entry),
        }
        self.next += 1;
        number
    }

    #[inline]
    fn place(&self, number: u64) -> (usize, usize, usize) {
        // Less than `len_max`, which was a u32.
        let place = (number % self.len_max) as usize;
        (place / (PAGE * GROUP), place / PAGE % GROUP, place % PAGE)
    }

    /// All of them, oldest first, with their numbers.
    pub(in crate::state) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.numbers().filter_map(|number| Some((number, self.get(number)?)))
    }

    /// How many pointers a clone copies.
    #[cfg(test)]
    pub(in crate::state) fn pointers(&self) -> usize {
        self.groups.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Against the plain queue, over several laps, with snapshots that must stay as they were.
    #[test]
    fn a_ring_is_a_bounded_queue_and_its_snapshots_stay() {
        for len_max in [0, 1, 2, 63, 64, 65, 4_096, 4_097, 9_000] {
            let (mut ring, mut plain) = (Ring::new(len_max), VecDeque::new());
            let mut snapshots = Vec::new();
            for step in 0..30_000u64 {
                if step % 7 == 3 {
                    assert_eq!(ring.pop(), plain.pop_front().map(|entry| (entry, entry)));
                }
                if plain.len() as u64 == ring.len_max() {
                    plain.pop_front();
                }
                plain.push_back(step);
                assert_eq!(ring.push(step), step);
                if step % 2_999 == 0 {
                    snapshots.push((ring.clone(), plain.clone()));
                }
            }
            snapshots.push((ring, plain));
            for (ring, plain) in &snapshots {
                assert!(ring.iter().map(|(_, entry)| entry).eq(plain), "{len_max}");
                assert!(
                    ring.iter().all(|(number, entry)| number == *entry && ring.get_low(number as u32) == Some(entry)),
                    "{len_max}"
                );
                let Range { start, end } = ring.numbers();
                let beyond = [start.wrapping_sub(1), end, u64::MAX].map(|number| ring.get(number));
                assert_eq!(beyond, [None; 3], "{len_max}");
            }
        }
    }
}
