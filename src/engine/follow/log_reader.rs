//! Reading a topic as a log: the messages of all its partitions, in the order of the log, without a group.
//!
//! Of each partition the place of the next message is known, or a note says that there is one ([`Followers`](crate::wait::Followers)). All
//! that is not known yet is looked for in the hold of the lock in which a message is chosen: so none that may be seen comes before it, and
//! the first place in the heap is that of the next message. Never here: where a reader begins (`log_start`), leases.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::engine::deliver::receive::Wait;
use crate::engine::topics::{LOOKED_AT_MAX, TopicInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FileNumber, Offset, PartitionId, Position};
use crate::log::Catalog;
use crate::view::{FoundRun, NextRun, Reader, Stored, ViewHolder, resolve, unreadable};
use crate::wait::{Follower, Parker};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;
use std::time::Duration;

/// How far somebody has read a topic.
#[derive(Debug)]
pub(crate) struct LogCursor {
    topic: TopicInfo,
    follower: Follower,
    /// Of each partition the first message that was neither read nor missed.
    nexts: Vec<Offset>,
    /// Partitions whose next message has to be looked for.
    todo: Vec<PartitionId>,
    /// Whether a partition was read to its end: it is looked at again once something has appeared there.
    at_end: Vec<bool>,
    /// Of each other partition the next messages.
    heads: BinaryHeap<Reverse<NextRun>>,
    gaps: Vec<Gap>,
    reader: Reader,
}

/// Messages that were removed before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Gap {
    pub(in crate::engine) partition: PartitionId,
    pub(in crate::engine) first: Offset,
    pub(in crate::engine) end: Offset,
}

/// What one look under the lock found.
struct Looked {
    found: Vec<FoundRun>,
    /// Whether every partition has been looked at: of none a message may be seen that is not known.
    is_complete: bool,
    catalog: Catalog,
}

impl LogCursor {
    fn next_of(&mut self, partition: PartitionId) -> Option<&mut Offset> {
        self.nexts.get_mut(index_of(self.topic, partition)?)
    }

    /// The first message of the heap was read, or cannot be.
    fn pass(&mut self, run: NextRun) {
        self.heads.pop();
        if let Some(next) = self.next_of(run.partition) {
            *next = run.first.saturating_add(1);
        }
        match run.rest() {
            // seam: the rest of a frame is skipped
            Some(rest) => self.heads.push(Reverse(rest)),
            None => self.todo.push(run.partition),
        }
    }

    /// What is missing before the first message of the heap.
    fn take_gap(&mut self) -> Option<Gap> {
        if let Some(gap) = self.gaps.pop() {
            return Some(gap);
        }
        let Reverse(NextRun { partition, first: end, .. }) = *self.heads.peek()?;
        let next = self.next_of(partition)?;
        let first = std::mem::replace(next, end);
        // seam: a gap is not told
        (first < end).then_some(Gap { partition, first, end })
    }
}

impl Engine {
    /// Begins to read at these offsets, one for each partition of the topic.
    ///
    /// # Errors
    /// `Removed`; the store's.
    pub(in crate::engine) fn log_cursor(&self, topic: TopicInfo, nexts: Vec<Offset>) -> Result<LogCursor> {
        let mut core = self.lock_core();
        self.health.check()?;
        if core.view.state.topic(topic.id).is_none() {
            return Err(Error::Removed { what: "topic" });
        }
        let follower = core.waiters.followers.enter(topic.id);
        let todo = (0..topic.partitions).map(|index| topic.first.nth(index)).collect();
        Ok(LogCursor {
            topic,
            follower,
            at_end: vec![false; nexts.len()],
            nexts,
            todo,
            heads: BinaryHeap::new(),
            gaps: Vec::new(),
            reader: Reader::default(),
        })
    }

    /// Nobody reads here any more.
    pub(crate) fn leave_log(&self, cursor: &LogCursor) {
        // A thread that does not exist in a forked child may have held the lock at the fork.
        if !self.is_forked() {
            self.lock_core().waiters.followers.leave(&cursor.follower);
        }
    }

    /// The next message with its place in the log, waiting for it as long as `wait` allows.
    ///
    /// # Errors
    /// `Gap` and `Unreadable`, each once, and reading goes on behind; `Removed`; what the system lacks for a while; the store's.
    pub(crate) fn read_log(&self, cursor: &mut LogCursor, wait: Wait<'_>) -> Result<Option<(Stored, Position)>> {
        self.enter()?;
        loop {
            let now = self.now();
            let mut parker = None;
            let waker = || parker.insert(Parker::new()).waker();
            let is_over = wait.is_over(now.mono);
            let next = self.try_read_log(cursor, if is_over { None } else { Some(waker) })?;
            if next.is_some() || is_over {
                return Ok(next);
            }
            if let Some(parker) = parker {
                // An hour at a time, as every wait.
                let ms = wait.until.0.saturating_sub(now.mono.0).min(3_600_000);
                parker.park_for(Duration::from_millis(ms));
            }
        }
    }

    /// The next message; where there is none, `waker` is left.
    fn try_read_log(
        &self,
        cursor: &mut LogCursor,
        waker: Option<impl FnOnce() -> Waker>,
    ) -> Result<Option<(Stored, Position)>> {
        let mut waker = waker;
        loop {
            let Looked { found, is_complete, catalog } = self.look_at_log(cursor, &mut waker)?;
            self.place_all(cursor, found)?;
            if !is_complete || !cursor.todo.is_empty() {
                continue;
            }
            if let Some(gap) = cursor.take_gap() {
                return Err(self.gap(cursor, gap));
            }
            let Some(&Reverse(run)) = cursor.heads.peek() else { return Ok(None) };
            let Some(segment) = catalog.segment(run.segment) else {
                // It was retired since the run was found.
                cursor.heads.pop();
                cursor.todo.push(run.partition);
                continue;
            };
            let read = self.read(&mut cursor.reader, segment, &run.place(), 0, (run.partition, run.first));
            cursor.reader.rest();
            match read {
                Ok(stored) => {
                    cursor.pass(run);
                    let position = Position {
                        epoch: stored.about.epoch,
                        lsn: run.lsn,
                        partition: run.partition,
                        offset: run.first,
                    };
                    return Ok(Some((stored, position)));
                }
                Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
                // The file was unlinked while it was read.
                Err(_) if !self.is_there(run.segment) => {}
                Err(error) => {
                    cursor.pass(run);
                    return Err(error);
                }
            }
        }
    }

    /// Looks for the next messages of the partitions of which they are not known, as far as one hold of the lock may last. Where all is
    /// known and there is nothing, the waker is left.
    fn look_at_log(&self, cursor: &mut LogCursor, waker: &mut Option<impl FnOnce() -> Waker>) -> Result<Looked> {
        let mut guard = self.lock_core();
        self.health.check()?;
        let core = &mut *guard;
        if core.view.state.topic(cursor.topic.id).is_none() {
            return Err(Error::Removed { what: "topic" });
        }
        let LogCursor { follower, todo, at_end, topic, .. } = cursor;
        let is_noted = core.waiters.followers.take_notes(follower, |partition| {
            let at_end = index_of(*topic, partition).and_then(|index| at_end.get_mut(index));
            if at_end.is_some_and(std::mem::take) {
                todo.push(partition);
            }
        });
        // seam: a reader that was away for too long looks nowhere
        if !is_noted {
            let all = (0..topic.partitions).zip(&mut *at_end);
            todo.extend(all.filter_map(|(index, at_end)| std::mem::take(at_end).then(|| topic.first.nth(index))));
        }
        let mut found = Vec::new();
        for _ in 0..LOOKED_AT_MAX {
            let Some(partition) = cursor.todo.pop() else { break };
            let end = visible_end(core, partition);
            let Some(next) = cursor.next_of(partition) else { continue };
            if *next < end {
                match core.view.find_next(partition, *next).filter(|found| found.first() < end) {
                    Some(one) => {
                        found.push(one);
                        continue;
                    }
                    None => {
                        let first = std::mem::replace(next, end);
                        cursor.gaps.push(Gap { partition, first, end });
                    }
                }
            }
            if let Some(at_end) = index_of(cursor.topic, partition).and_then(|index| cursor.at_end.get_mut(index)) {
                *at_end = true;
            }
        }
        let is_complete = cursor.todo.is_empty();
        let is_nothing = is_complete && found.is_empty() && cursor.heads.is_empty() && cursor.gaps.is_empty();
        if is_nothing && let Some(waker) = waker.take() {
            core.waiters.followers.leave_waker(&cursor.follower, waker());
        }
        Ok(Looked { found, is_complete, catalog: core.view.catalog.clone() })
    }

    /// Takes note of where in the log the messages stand that were found.
    fn place_all(&self, cursor: &mut LogCursor, found: Vec<FoundRun>) -> Result<()> {
        let mut outcome = Ok(());
        for found in found {
            let (partition, first, segment) = (found.partition(), found.first(), found.segment());
            if outcome.is_err() {
                cursor.todo.push(partition);
                continue;
            }
            match resolve(self, &mut cursor.reader, found) {
                Ok(Some(run)) => cursor.heads.push(Reverse(run)),
                Ok(None) => cursor.todo.push(partition),
                Err(error) => {
                    cursor.todo.push(partition);
                    if error.kind() != ErrorKind::Retry && self.is_there(segment) {
                        // Its place is not known, so it cannot be told in its turn.
                        if let Some(next) = cursor.next_of(partition) {
                            *next = first.saturating_add(1);
                        }
                        outcome = Err(unreadable(self, (partition, first), error));
                    } else if error.kind() == ErrorKind::Retry {
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    /// Whether a segment still belongs to the log.
    fn is_there(&self, segment: FileNumber) -> bool {
        self.lock_core().view.catalog.segment(segment).is_some()
    }

    fn gap(&self, cursor: &LogCursor, Gap { partition, first, end }: Gap) -> Error {
        let topic = self.topic_name(cursor.topic.id);
        // Fits: a topic has no more partitions.
        let index = partition.0.saturating_sub(cursor.topic.first.0) as u32;
        Error::Gap { topic, partition: index, offset: first.0, count: end.0.saturating_sub(first.0) }
    }
}

fn index_of(topic: TopicInfo, partition: PartitionId) -> Option<usize> {
    usize::try_from(partition.0.checked_sub(topic.first.0)?).ok()
}

/// Up to where a partition may be seen.
pub(in crate::engine) fn visible_end(core: &Core, partition: PartitionId) -> Offset {
    // seam: a reader of the log sees what is not durable
    core.view.visible.end(partition, core.view.state.partition_end(partition))
}
