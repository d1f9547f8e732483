//! What is known of the next messages of groups with a filter: read ahead, and beside the state.
//!
//! A message never changes, so neither does what a filter says of it. What is forgotten here is read again. Never here: reading.

use crate::ids::{GroupId, Offset, PartitionId};
use crate::limits::{VERDICTS_MAX, VERDICTS_PER_RUN_MAX};
use crate::record::{Filter, KeyHash};
use crate::state::group::GroupData;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a filter says of a message, or of several next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterVerdict {
    /// So many messages do not pass.
    Filtered(u32),
    /// A message passes; in a group in order of keys with the hash of its key.
    Passes(KeyHash),
}

/// What is known of messages next to each other.
#[derive(Clone, Debug)]
pub(crate) struct VerdictRun {
    filter: Arc<Filter>,
    first: Offset,
    end: Offset,
    known: VecDeque<FilterVerdict>,
    filtered: u64,
}

/// What is known of the messages of all groups and partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownVerdicts {
    runs: BTreeMap<(GroupId, PartitionId), Arc<VerdictRun>>,
    /// How many candidates are in all runs.
    len: usize,
}

impl VerdictRun {
    fn new(filter: &Arc<Filter>, first: Offset) -> Self {
        Self { filter: Arc::clone(filter), first, end: first, known: VecDeque::new(), filtered: 0 }
    }

    /// The message behind the last that is known.
    pub(in crate::state) fn end(&self) -> Offset {
        self.end
    }

    /// Whether no more should be read for now.
    pub(in crate::state) fn is_full(&self) -> bool {
        self.known.len() >= VERDICTS_PER_RUN_MAX
    }

    /// How many messages do not pass.
    pub(in crate::state) fn filtered(&self) -> u64 {
        self.filtered
    }

    /// How many pass.
    pub(in crate::state) fn passing(&self) -> u64 {
        self.end.0.saturating_sub(self.first.0).saturating_sub(self.filtered)
    }

    /// How many of the first do not pass, up to one that does.
    pub(in crate::state) fn filtered_first(&self) -> u32 {
        match self.known.front() {
            Some(FilterVerdict::Filtered(count)) => *count,
            Some(FilterVerdict::Passes(_)) | None => 0,
        }
    }

    pub(in crate::state) fn candidates(&self) -> impl Iterator<Item = FilterVerdict> + '_ {
        self.known.iter().copied()
    }

    fn push(&mut self, candidate: FilterVerdict) {
        match (candidate, self.known.back_mut()) {
            (FilterVerdict::Filtered(0), _) => {}
            (FilterVerdict::Filtered(more), Some(FilterVerdict::Filtered(count)))
                if count.checked_add(more).is_some() =>
            {
                *count += more;
            }
            (FilterVerdict::Filtered(_) | FilterVerdict::Passes(_), _) => self.known.push_back(candidate),
        }
        let count = candidate.count();
        self.end = self.end.saturating_add(count);
        if let FilterVerdict::Filtered(_) = candidate {
            self.filtered += count;
        }
    }

    /// Forgets what is before `next`.
    fn settle(&mut self, next: Offset) {
        while self.first < next
            && let Some(front) = self.known.front_mut()
        {
            let count = front.count().min(next.0 - self.first.0);
            self.first = self.first.saturating_add(count);
            match front {
                FilterVerdict::Filtered(left) => {
                    self.filtered -= count;
                    *left -= count as u32;
                    if *left == 0 {
                        self.known.pop_front();
                    }
                }
                FilterVerdict::Passes(_) => _ = self.known.pop_front(),
            }
        }
    }
}

impl FilterVerdict {
    fn count(self) -> u64 {
        match self {
            Self::Filtered(count) => count.into(),
            Self::Passes(_) => 1,
        }
    }
}

impl KnownVerdicts {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What is known of the next messages of a cursor, by the group's filter as it is.
    pub(in crate::state) fn run(&self, id: GroupId, group: &GroupData, cursor: u32) -> Option<&VerdictRun> {
        let filter = group.options.filter.as_ref()?;
        let run = self.runs.get(&(id, group.partition_of(cursor)))?;
        // seam: verdicts of the filter before are kept
        let is_current = run.first == group.next(cursor) && run.filter == *filter;
        is_current.then_some(run)
    }

    /// Takes in what `filter` says of the messages from `first` on. What leaves a gap behind what is known is no use, and is dropped, and so
    /// is what another filter says than that of the group. Where too much is known of all groups, what is known of others is forgotten.
    pub(crate) fn add(
        &mut self,
        (id, group, partition): (GroupId, &GroupData, PartitionId),
        (filter, first): (&Arc<Filter>, Offset),
        read: impl IntoIterator<Item = FilterVerdict>,
    ) {
        let at = (id, partition);
        let is_current = group.options.filter.as_ref() == Some(filter);
        let Some(next) = group.cursor_of(partition).filter(|_| is_current).map(|cursor| group.next(cursor)) else {
            return;
        };
        self.settle(at, next);
        let new = || Arc::new(VerdictRun::new(filter, next));
        let run = self.runs.entry(at).or_insert_with(new);
        let run = Arc::make_mut(run);
        self.len -= run.known.len();
        if run.first != next || run.filter != *filter {
            *run = VerdictRun::new(filter, next);
        }
        let mut offset = first;
        for candidate in read {
            let count = candidate.count();
            let end = offset.saturating_add(count);
            if offset > run.end {
                break;
            }
            let known = run.end.0.saturating_sub(offset.0);
            match candidate {
                // It may be known already, or the first of them.
                FilterVerdict::Filtered(count) => run.push(FilterVerdict::Filtered(count.saturating_sub(known as u32))),
                FilterVerdict::Passes(_) if known == 0 => run.push(candidate),
                FilterVerdict::Passes(_) => {}
            }
            offset = end;
        }
        self.len += run.known.len();
        while self.len > VERDICTS_MAX
            && let Some(other) = self.runs.keys().copied().find(|other| *other != at)
        {
            self.forget_run(other);
        }
    }

    /// The next message of a group there is this one now.
    pub(crate) fn settle(&mut self, at: (GroupId, PartitionId), next: Offset) {
        let Some(run) = self.runs.get_mut(&at) else { return };
        self.len -= run.known.len();
        let run = Arc::make_mut(run);
        run.settle(next);
        self.len += run.known.len();
        if run.known.is_empty() {
            self.runs.remove(&at);
        }
    }

    /// Forgets what is known of groups that are no more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(GroupId) -> bool) {
        let gone: Vec<_> = self.runs.keys().copied().filter(|(group, _)| !is_there(*group)).collect();
        gone.into_iter().for_each(|at| self.forget_run(at));
    }

    fn forget_run(&mut self, at: (GroupId, PartitionId)) {
        if let Some(run) = self.runs.remove(&at) {
            self.len -= run.known.len();
        }
    }
}
