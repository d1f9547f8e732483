//! The outstanding messages of one group in one partition: handed out at least once and not settled.
//!
//! Most of them lie close together below the group's `next`, so they stand in a ring indexed by offset; one that stays
//! behind while the others are settled moves to a map, so that the ring is never much longer than what it holds. Never
//! here: when a message may be leased again.

use super::history::History;
use crate::ids::{Lsn, MonoMs, Offset, WallMs};
use std::collections::{BTreeMap, VecDeque};

/// One outstanding message.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// Attempts charged so far, the one under way included.
    pub(super) attempts: u32,
    /// The last attempt that ended did so by a crash.
    pub(super) crashed: bool,
    /// The last attempt that ended did so by a crash under a lease that was not lone: one more is due, lone. Stays
    /// through a lease that is given back unused.
    pub(super) grace: bool,
    pub(super) history: Option<Box<History>>,
}

/// What an outstanding message is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its consumer, or the end of the lease.
    Leased(Lease),
    /// The wall clock; `delay_ms` is the whole delay, by which `due` is clamped when the clock jumps.
    Waiting { due: WallMs, delay_ms: u64 },
    /// A consumer. `turn` says since when, by the group's own count.
    Ready { turn: u64 },
}

/// A lease. Its token is the epoch of the state (every epoch begins without leases) and `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) until: MonoMs,
    pub(super) lsn: Lsn,
    /// Which lease record of its group in the frame at `lsn` granted it.
    pub(super) rank: u32,
    pub(super) lone: bool,
    pub(super) extended: bool,
}

const _: () =
    assert!(size_of::<usize>() < 8 || size_of::<Option<Slot>>() == 40, "65,536 of them are copied under a lock");

impl Slot {
    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    /// An attempt ended by something else than a crash, if it `ended`: then no crash is on the account any more.
    pub(super) fn ended_otherwise(&mut self, ended: bool) {
        // seam: a crash stays on the account
        if ended {
            (self.crashed, self.grace) = (false, false);
        }
    }

    /// Whether a lease holds it at `mono`.
    pub(super) fn is_live(&self, mono: MonoMs) -> bool {
        self.lease().is_some_and(|lease| lease.until > mono)
    }
}

/// A ring shorter than this is never thinned out.
const RING_LEN_MIN: usize = 64;
/// A ring with more capacity than this gives it back when it is mostly unused: what is kept of an idle group is that of some
/// hundred messages.
const RING_CAPACITY_KEPT: usize = 128;

/// Gives back the memory of a queue that has come to be mostly unused, but for `kept` places. At once, however much it is: nothing
/// may be added or removed for a long time. What was given back is not needed again before as much has changed.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>, kept: usize) {
    let capacity = queue.capacity();
    if capacity > kept && queue.len() < capacity / 4 {
        // seam: settled memory is kept
        queue.shrink_to((2 * queue.len()).max(kept));
    }
}

/// The outstanding messages of one partition, by offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The offset of the ring's front.
    base: u64,
    /// `None`: settled. The front is never `None`.
    ring: VecDeque<Option<Slot>>,
    /// How many of the ring are not settled.
    live: usize,
    /// Those that were left behind, all below `base`.
    strays: BTreeMap<u64, Slot>,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0 && self.strays.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.live + self.strays.len()
    }

    fn index(&self, offset: Offset) -> Option<usize> {
        usize::try_from(offset.0.checked_sub(self.base)?).ok().filter(|&index| index < self.ring.len())
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Slot> {
        match self.index(offset) {
            Some(index) => self.ring.get(index)?.as_ref(),
            None => self.strays.get(&offset.0),
        }
    }

    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        match self.index(offset) {
            Some(index) => self.ring.get_mut(index)?.as_mut(),
            None => self.strays.get_mut(&offset.0),
        }
    }

    /// The lowest offset.
    pub(super) fn first(&self) -> Option<Offset> {
        let ring = (self.live > 0).then_some(self.base);
        self.strays.keys().next().copied().or(ring).map(Offset)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, &Slot)> {
        let ring =
            self.ring.iter().zip(self.base..).filter_map(|(slot, offset)| Some((Offset(offset), slot.as_ref()?)));
        self.strays.iter().map(|(&offset, slot)| (Offset(offset), slot)).chain(ring)
    }

    /// Adds `count` messages from `first` on, above all others, each as `slot`.
    #[inline]
    pub(super) fn push(&mut self, first: Offset, count: u32, slot: Slot) {
        let gap = first.0.saturating_sub(self.base.saturating_add(self.ring.len() as u64));
        if self.ring.is_empty() {
            self.base = first.0;
        } else if gap > 0 {
            self.bridge(gap);
            self.base = first.0 - self.ring.len() as u64;
        }
        for _ in 1..count {
            self.ring.push_back(Some(slot.clone()));
        }
        self.ring.push_back(Some(slot));
        self.live += count as usize;
        self.thin();
    }

    /// Fills a gap with settled messages, or leaves everything behind if that would make the ring mostly empty.
    fn bridge(&mut self, gap: u64) {
        let len = gap.saturating_add(self.ring.len() as u64 + 1);
        if len / 4 > self.live as u64 {
            while self.strand_front() {}
        } else {
            self.ring.extend((0..gap).map(|_| None));
        }
    }

    /// Takes out those of `count` messages from `first` on that there are, and shows each to `taken`.
    #[inline]
    pub(super) fn remove(&mut self, first: Offset, count: u32, mut taken: impl FnMut(Offset, &Slot)) {
        let end = first.0.saturating_add(u64::from(count));
        if !self.strays.is_empty() {
            for offset in first.0..end.min(self.base) {
                if let Some(slot) = self.strays.remove(&offset) {
                    taken(Offset(offset), &slot);
                }
            }
        }
        let len = self.ring.len();
        let place = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(len).min(len);
        let (from, to) = (place(first.0), place(end));
        for (place, offset) in self.ring.range_mut(from..to).zip(self.base + from as u64..) {
            if let Some(slot) = place {
                self.live -= 1;
                taken(Offset(offset), slot);
                *place = None;
            }
        }
        self.drop_settled_front();
        self.thin();
        give_back(&mut self.ring, RING_CAPACITY_KEPT);
    }

    fn is_thin(&self) -> bool {
        self.ring.len() > RING_LEN_MIN && self.ring.len() / 4 > self.live
    }

    /// Makes the ring shorter where most of it is settled: at its end for nothing, at its front by leaving some behind.
    #[inline]
    fn thin(&mut self) {
        if self.is_thin() {
            while let Some(None) = self.ring.back() {
                self.ring.pop_back();
            }
            while self.is_thin() && self.strand_front() {}
        }
    }

    /// Moves the ring's first message to the map; false if there is none.
    fn strand_front(&mut self) -> bool {
        let Some(Some(slot)) = self.ring.pop_front() else { return false };
        self.strays.insert(self.base, slot);
        self.base += 1;
        self.live -= 1;
        self.drop_settled_front();
        true
    }

    fn drop_settled_front(&mut self) {
        if self.live == 0 {
            self.base += self.ring.len() as u64;
            self.ring.clear();
        }
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
    }

    #[cfg(any(test, feature = "simulation"))]
    /// What is wrong with the window itself, if anything.
    pub(super) fn fault(&self, next: Offset) -> Option<&'static str> {
        if self.ring.iter().flatten().count() != self.live {
            return Some("the ring's count is wrong");
        }
        if let Some(None) = self.ring.front() {
            return Some("the ring begins with a settled message");
        }
        if self.is_thin() {
            return Some("the ring is mostly empty");
        }
        if !self.ring.is_empty() && self.base.checked_add(self.ring.len() as u64).is_none_or(|end| end > next.0) {
            return Some("the ring ends beyond `next`");
        }
        let below = if self.ring.is_empty() { next.0 } else { self.base };
        self.strays.keys().next_back().is_some_and(|&last| last >= below).then_some("a stray is not behind the ring")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(attempts: u32) -> Slot {
        Slot { phase: Phase::Ready { turn: 0 }, attempts, crashed: false, grace: false, history: None }
    }

    fn take(window: &mut Window, offset: u64) -> Option<Slot> {
        let mut taken = None;
        window.remove(Offset(offset), 1, |_, slot| taken = Some(slot.clone()));
        taken
    }

    fn offsets(window: &Window) -> Vec<u64> {
        window.iter().map(|(offset, _)| offset.0).collect()
    }

    #[test]
    fn one_stuck_message_does_not_make_the_ring_grow() {
        let mut window = Window::default();
        window.push(Offset(0), 1, slot(1));
        let mut longest = 0;
        for offset in 1..100_000 {
            window.push(Offset(offset), 1, slot(1));
            take(&mut window, offset).unwrap();
            longest = longest.max(window.ring.len());
            assert_eq!(window.fault(Offset(offset + 1)), None);
        }
        assert!(longest <= RING_LEN_MIN + 4, "{longest}");
        assert_eq!(offsets(&window), [0]);
        assert!(take(&mut window, 0).is_some() && window.is_empty());
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        for step in [1u32, 7, 1000, 50_000] {
            let mut window = Window::default();
            window.push(Offset(0), 50_000, slot(1));
            for first in (0..50_000 / step).rev() {
                let mut taken = 0;
                window.remove(Offset(u64::from(first * step)), step, |_, _| taken += 1);
                assert_eq!(taken, step);
            }
            window.remove(Offset(0), 50_000, |_, _| ());
            assert!(window.is_empty() && window.ring.capacity() <= RING_CAPACITY_KEPT, "{}", window.ring.capacity());
        }
    }

    #[test]
    fn a_great_gap_is_not_filled() {
        let mut window = Window::default();
        for offset in [5, 6, 1 << 60, (1 << 60) + 2, u64::MAX - 1] {
            window.push(Offset(offset), 1, slot(1));
        }
        assert!(window.ring.capacity() < 64);
        assert_eq!(offsets(&window), [5, 6, 1 << 60, (1 << 60) + 2, u64::MAX - 1]);
        assert_eq!(window.fault(Offset(u64::MAX)), None);
        assert!(window.get(Offset(6)).is_some() && window.get(Offset(7)).is_none());
        assert!(window.get(Offset((1 << 60) + 1)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn it_behaves_like_a_map(steps in proptest::collection::vec((0u8..10, 0u64..6, 0usize..1000), 1..800)) {
            let (mut window, mut model) = (Window::default(), BTreeMap::new());
            let mut next = 0u64;
            for (kind, gap, pick) in steps {
                if kind < 5 || model.is_empty() {
                    next += if kind == 0 { gap * 40 } else { 0 };
                    let count = (pick % 5) as u32 + 1;
                    window.push(Offset(next), count, slot(kind.into()));
                    model.extend((next..).take(count as usize).map(|offset| (offset, u32::from(kind))));
                    next += u64::from(count);
                } else {
                    let first = *model.keys().nth(pick % model.len()).unwrap();
                    let count = gap as u32 * 3 + 1;
                    let mut taken = Vec::new();
                    window.remove(Offset(first), count, |offset, slot| taken.push((offset.0, slot.attempts)));
                    let expected: Vec<_> = model.extract_if(first..first + u64::from(count), |_, _| true).collect();
                    assert_eq!(taken, expected);
                    assert!(take(&mut window, first).is_none() && window.get_mut(Offset(first)).is_none());
                }
                assert_eq!(window.fault(Offset(next)), None);
                assert_eq!(window.len(), model.len());
                assert_eq!(window.first(), model.keys().next().copied().map(Offset));
            }
            assert_eq!(offsets(&window), model.keys().copied().collect::<Vec<_>>());
            for (&offset, &attempts) in &model {
                assert_eq!(window.get(Offset(offset)).unwrap().attempts, attempts);
            }
        }
    }
}
