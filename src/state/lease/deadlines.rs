//! When leases end: the leases of one group in the order of their ends.
//!
//! Leases are granted with one timeout by a clock that only goes forward, so nearly all of them end in the order in which
//! they came: they stand in a queue of runs, and one that ended early stays there as a stale entry until it is at an end of
//! the queue or stale entries are the majority. What is out of order (an extended lease) stands in an ordered set, exactly.
//! Never here: what follows from an end.

use super::outstanding::Lease;
use crate::ids::{Lsn, MonoMs, Offset};
use crate::state::kit::memory::give_back;
use std::collections::{BTreeSet, VecDeque};

/// A lease in the order of ends: (until, LSN, rank, cursor, offset). No two are equal.
pub(in crate::state) type LeaseKey = (MonoMs, Lsn, u32, u32, Offset);

pub(in crate::state) fn key(lease: &Lease, cursor: u32, offset: Offset) -> LeaseKey {
    (lease.until, lease.lsn, lease.rank, cursor, offset)
}

/// Leases of consecutive messages with one end, granted by one record.
#[derive(Clone, Copy, Debug)]
struct DeadlineRun {
    first: LeaseKey,
    count: u32,
}

impl DeadlineRun {
    fn keys(self) -> impl DoubleEndedIterator<Item = LeaseKey> {
        let (until, lsn, rank, cursor, offset) = self.first;
        (0..self.count).map(move |n| (until, lsn, rank, cursor, offset.saturating_add(u64::from(n))))
    }

    fn last(&self) -> LeaseKey {
        let (until, lsn, rank, cursor, offset) = self.first;
        (until, lsn, rank, cursor, offset.saturating_add(u64::from(self.count - 1)))
    }

    /// Whether `key` and the `count - 1` messages behind it are those after the last, under the same lease.
    fn takes(&self, key: &LeaseKey, count: u32) -> bool {
        let (until, lsn, rank, cursor, offset) = self.last();
        *key == (until, lsn, rank, cursor, offset.saturating_add(1)) && self.count.checked_add(count).is_some()
    }
}

/// How many stale entries are never worth a compaction.
const STALE_KEPT: u64 = 64;

/// A queue with room for more runs gives it back when it is mostly unused.
const RUNS_KEPT: usize = 64;

/// The leases that have not been removed, in order.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Deadlines {
    /// Never begins or ends with a stale message.
    fifo: VecDeque<DeadlineRun>,
    /// How many messages stand in `fifo`, stale ones included.
    fifo_len: u64,
    /// Leases out of order. None of them stands in `fifo`.
    apart: BTreeSet<LeaseKey>,
    /// How many leases there are.
    len: u64,
}

impl Deadlines {
    #[inline]
    pub(in crate::state) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in crate::state) fn len(&self) -> u64 {
        self.len
    }

    /// How many leases end after `mono`; stale ones may be among them.
    pub(in crate::state) fn len_after(&self, mono: MonoMs) -> u64 {
        let from = self.fifo.partition_point(|run| run.first.0 <= mono);
        let fifo: u64 = self.fifo.range(from..).map(|run| u64::from(run.count)).sum();
        let after = (mono.saturating_add(1), Lsn(0), 0, 0, Offset(0));
        let apart = self.apart.range(after..).filter(|key| key.0 > mono).count() as u64;
        fifo.saturating_add(apart).min(self.len)
    }

    /// Adds the lease `first` and those of the `count - 1` messages behind it.
    #[inline]
    pub(in crate::state) fn push(&mut self, first: LeaseKey, count: u32) {
        self.len += u64::from(count);
        match self.fifo.back_mut() {
            Some(run) if run.takes(&first, count) => run.count += count,
            Some(run) if run.last() >= first => {
                self.apart.extend(DeadlineRun { first, count }.keys());
                return;
            }
            _ => self.fifo.push_back(DeadlineRun { first, count }),
        }
        self.fifo_len += u64::from(count);
    }

    /// Adds a lease that is known to end later than those to come.
    pub(in crate::state) fn push_apart(&mut self, key: LeaseKey) {
        self.len += 1;
        self.apart.insert(key);
    }

    /// Removes a lease. [`Deadlines::tidy`] follows once the message itself is changed.
    #[inline]
    pub(in crate::state) fn remove(&mut self, key: &LeaseKey) {
        self.len -= 1;
        if !self.apart.is_empty() {
            self.apart.remove(key);
        }
    }

    /// Restores what is promised of `fifo`. `holds` says whether a lease is still there; each message is asked about a
    /// constant number of times on average.
    pub(in crate::state) fn tidy(&mut self, holds: impl Fn(&LeaseKey) -> bool) {
        if self.fifo.is_empty() {
            return;
        }
        let len = self.len - self.apart.len() as u64;
        if len == 0 {
            self.fifo.clear();
            self.fifo_len = 0;
            give_back(&mut self.fifo, RUNS_KEPT);
            return;
        }
        while let Some(run) = self.fifo.front_mut() {
            if holds(&run.first) {
                break;
            }
            self.fifo_len -= 1;
            run.count -= 1;
            run.first.4 = run.first.4.saturating_add(1);
            if run.count == 0 {
                self.fifo.pop_front();
            }
        }
        while let Some(run) = self.fifo.back_mut() {
            if holds(&run.last()) {
                break;
            }
            self.fifo_len -= 1;
            run.count -= 1;
            if run.count == 0 {
                self.fifo.pop_back();
            }
        }
        if self.fifo_len > 2 * len + STALE_KEPT {
            self.compact(holds);
        }
        give_back(&mut self.fifo, RUNS_KEPT);
    }

    fn compact(&mut self, holds: impl Fn(&LeaseKey) -> bool) {
        let old = std::mem::take(&mut self.fifo);
        self.fifo_len = 0;
        for key in old.iter().flat_map(|run| run.keys()).filter(|key| holds(key)) {
            match self.fifo.back_mut() {
                Some(run) if run.takes(&key, 1) => run.count += 1,
                _ => self.fifo.push_back(DeadlineRun { first: key, count: 1 }),
            }
            self.fifo_len += 1;
        }
    }

    /// The earliest end.
    #[inline]
    pub(in crate::state) fn first(&self) -> Option<LeaseKey> {
        let fifo = self.fifo.front().map(|run| run.first);
        let apart = self.apart.first().copied();
        match (fifo, apart) {
            (Some(fifo), Some(apart)) => Some(fifo.min(apart)),
            (one, None) | (None, one) => one,
        }
    }

    /// The latest end.
    pub(in crate::state) fn latest(&self) -> Option<MonoMs> {
        let fifo = self.fifo.back().map(|run| run.first.0);
        fifo.max(self.apart.last().map(|key| key.0))
    }

    /// An end after `mono` before which no other lease ends (and maybe none at it, where a stale one did).
    pub(in crate::state) fn next_after(&self, mono: MonoMs) -> Option<MonoMs> {
        let index = self.fifo.partition_point(|run| run.first.0 <= mono);
        let fifo = self.fifo.get(index).map(|run| run.first.0);
        let after = (mono.saturating_add(1), Lsn(0), 0, 0, Offset(0));
        let apart = self.apart.range(after..).next().map(|key| key.0).filter(|&until| until > mono);
        match (fifo, apart) {
            (Some(fifo), Some(apart)) => Some(fifo.min(apart)),
            (one, None) | (None, one) => one,
        }
    }

    /// The leases that have ended at `mono`, in order.
    pub(in crate::state) fn expired(
        &self,
        mono: MonoMs,
        holds: impl Fn(&LeaseKey) -> bool,
    ) -> impl Iterator<Item = LeaseKey> {
        let ended = move |key: &LeaseKey| key.0 <= mono;
        let mut fifo = self.fifo.iter().flat_map(|run| run.keys()).take_while(ended).filter(holds).peekable();
        let mut apart = self.apart.iter().copied().take_while(ended).peekable();
        std::iter::from_fn(move || match (fifo.peek(), apart.peek()) {
            (Some(first), Some(second)) if second < first => apart.next(),
            (Some(_), _) => fifo.next(),
            (None, _) => apart.next(),
        })
    }

    /// What is wrong, if anything; `holds` as in [`Deadlines::tidy`].
    pub(in crate::state) fn fault(&self, holds: impl Fn(&LeaseKey) -> bool) -> Option<&'static str> {
        let keys: Vec<LeaseKey> = self.fifo.iter().flat_map(|run| run.keys()).collect();
        let held: Vec<&LeaseKey> = keys.iter().filter(|key| holds(key)).collect();
        if keys.len() as u64 != self.fifo_len || !keys.is_sorted() {
            return Some("the queue of leases is miscounted or out of order");
        }
        if self.fifo_len > 2 * held.len() as u64 + STALE_KEPT {
            return Some("the queue of leases is mostly stale");
        }
        if keys.first() != held.first().copied() || keys.last() != held.last().copied() {
            return Some("the queue of leases begins or ends with a stale one");
        }
        if !self.apart.iter().all(&holds) || held.iter().any(|key| self.apart.contains(*key)) {
            return Some("a lease stands apart and should not");
        }
        let counted = (held.len() + self.apart.len()) as u64;
        (counted != self.len).then_some("the leases are miscounted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(until: u64, lsn: u64, offset: u64) -> LeaseKey {
        (MonoMs(until), Lsn(lsn), 0, 0, Offset(offset))
    }

    #[test]
    fn a_stuck_lease_does_not_make_the_queue_grow() {
        let (mut deadlines, mut held) = (Deadlines::default(), BTreeSet::new());
        for lsn in 0..10_000 {
            let key = |lsn| at(lsn / 10, lsn, lsn * 2);
            deadlines.push(key(lsn), 1);
            held.insert(key(lsn));
            // The last one is held, so that what ended before it is at no end of the queue.
            if lsn % 1000 != 1 && lsn > 0 {
                held.remove(&key(lsn - 1));
                deadlines.remove(&key(lsn - 1));
            }
            deadlines.tidy(|key| held.contains(key));
            assert_eq!(deadlines.fault(|key| held.contains(key)), None);
            assert!(deadlines.fifo.len() as u64 <= 2 * held.len() as u64 + STALE_KEPT);
        }
        assert_eq!(deadlines.len(), 11);
        assert_eq!(deadlines.expired(MonoMs(200), |key| held.contains(key)).count(), 3);
        assert_eq!(deadlines.len_after(MonoMs(999)), 0);
        let last = held.iter().filter(|key| key.0 > MonoMs(998)).count() as u64;
        assert!((last..=11).contains(&deadlines.len_after(MonoMs(998))));
    }

    /// However many ended together, and whether others last.
    #[test]
    fn a_burst_gives_its_memory_back() {
        for left in [0, 1, 10] {
            let (mut deadlines, mut held) = (Deadlines::default(), BTreeSet::new());
            for lsn in 0..10_000 {
                deadlines.push(at(lsn, lsn, lsn * 2), 1);
                held.insert(at(lsn, lsn, lsn * 2));
            }
            while held.len() > left {
                let key = held.pop_first().unwrap();
                deadlines.remove(&key);
            }
            deadlines.tidy(|key| held.contains(key));
            assert_eq!(deadlines.fault(|key| held.contains(key)), None);
            assert!(deadlines.fifo.capacity() <= RUNS_KEPT, "{}", deadlines.fifo.capacity());
        }
    }

    #[test]
    fn a_batch_is_one_run() {
        let mut deadlines = Deadlines::default();
        for offset in 0..1000 {
            deadlines.push(at(5, 8, offset), 1);
        }
        deadlines.push(at(5, 8, 1000), 100);
        assert_eq!((deadlines.fifo.len(), deadlines.len()), (1, 1100));
        assert_eq!(deadlines.latest(), Some(MonoMs(5)));
    }

    properties! {
        #[test]
        fn it_behaves_like_an_ordered_set(
            steps in proptest::collection::vec((0u8..4, 0u64..12, 0u64..4, prop::sample::Index::arbitrary()), 1..400),
        ) {
            let (mut deadlines, mut model) = (Deadlines::default(), BTreeSet::new());
            let (mut clock, mut offset) = (10u64, 0u64);
            for (lsn, (kind, time, skip, pick)) in steps.into_iter().enumerate() {
                clock += time / 8;
                match kind {
                    0 | 1 => {
                        offset += skip / 3;
                        let until = if kind == 0 { clock } else { clock - time.min(clock) };
                        let first = at(until, lsn as u64, offset + 1);
                        if time % 2 == 0 {
                            deadlines.push(first, skip as u32 + 1);
                        }
                        for _ in 0..=skip {
                            offset += 1;
                            let key = at(until, lsn as u64, offset);
                            if time % 2 == 1 {
                                deadlines.push(key, 1);
                            }
                            model.insert(key);
                        }
                    }
                    _ if model.is_empty() => {}
                    2 => {
                        let key = *pick.get(&model.iter().copied().collect::<Vec<_>>());
                        model.remove(&key);
                        deadlines.remove(&key);
                    }
                    _ => {
                        let key = *pick.get(&model.iter().copied().collect::<Vec<_>>());
                        model.remove(&key);
                        deadlines.remove(&key);
                        let longer = (MonoMs(key.0.0 + 1 + time * 10), key.1, key.2, key.3, key.4);
                        model.insert(longer);
                        deadlines.push_apart(longer);
                    }
                }
                let holds = |key: &LeaseKey| model.contains(key);
                deadlines.tidy(holds);
                prop_assert_eq!(deadlines.fault(holds), None);
                prop_assert_eq!(deadlines.first(), model.first().copied());
                prop_assert_eq!(deadlines.latest(), model.last().map(|key| key.0));
                let now = MonoMs(clock + time);
                let expired: Vec<_> = deadlines.expired(now, holds).collect();
                prop_assert_eq!(expired, model.iter().copied().filter(|key| key.0 <= now).collect::<Vec<_>>());
                let next = model.iter().map(|key| key.0).find(|&until| until > now);
                let said = deadlines.next_after(now);
                prop_assert!(said <= next || next.is_none(), "{:?} {:?}", said, next);
                prop_assert!(next.is_none() || said.is_some_and(|said| said > now));
            }
        }
    }
}
