//! Reading a topic as a log: the messages of all its partitions, in the order of the log, without a group.
//!
//! Of each partition the place of the next message is known, or it was read to its end, or it has to be looked at. All that has to be
//! looked at is, in the hold of the lock in which a message is chosen: so none that may be seen comes before it, and the first place in the
//! heap is that of the next message. Never here: where a scan begins (`log_start`), waiting for more.

use super::View;
use super::next::{FoundRun, NextRun, resolve};
use super::read::{Reader, ViewHolder, unreadable};
use super::stored::Stored;
use super::topics::TopicInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FileNumber, Lsn, Offset, PartitionId, Position};
use crate::log::Catalog;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How many partitions are looked at in one hold of the lock.
const LOOKS_AT_ONCE: usize = 1024;

/// Holds a view whose topics are read as logs.
pub(crate) trait LogHolder: ViewHolder {
    /// The end of the log that the view is of.
    fn log_end(&self) -> Lsn;

    /// Whether a file still belongs to the log. Asked where reading it failed.
    fn is_there(&self, file: FileNumber) -> bool;
}

/// How far a topic was read.
#[derive(Debug)]
pub(crate) struct LogScan {
    topic: TopicInfo,
    /// Of each partition the first message that was neither read nor missed.
    nexts: Vec<Offset>,
    /// Partitions whose next message has to be looked for.
    todo: Vec<PartitionId>,
    /// Whether a partition was read to its end: it is looked at again once something has appeared there.
    at_end: Vec<bool>,
    /// Of each other partition the next messages.
    heads: BinaryHeap<Reverse<NextRun>>,
    gaps: Vec<MissingRun>,
    reader: Reader,
}

/// Messages that were removed before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MissingRun {
    partition: PartitionId,
    first: Offset,
    end: Offset,
}

/// What one look under the lock found.
#[derive(Debug)]
pub(crate) struct LogLook {
    found: Vec<FoundRun>,
    /// Whether every partition has been looked at: of none a message may be seen that is not known.
    is_complete: bool,
    /// Whether there is nothing to be read.
    pub(crate) is_nothing: bool,
    catalog: Catalog,
}

/// What became of a look.
#[derive(Debug)]
pub(crate) enum LogStep {
    /// Look again.
    Again,
    /// There is no message.
    Nothing,
    Message(Stored, Position),
}

impl LogScan {
    /// Begins at these offsets, one for each partition of the topic.
    pub(crate) fn new(topic: TopicInfo, nexts: Vec<Offset>) -> Self {
        Self {
            topic,
            at_end: vec![false; nexts.len()],
            nexts,
            todo: topic.all().collect(),
            heads: BinaryHeap::new(),
            gaps: Vec::new(),
            reader: Reader::default(),
        }
    }

    /// Something has appeared in a partition.
    pub(crate) fn note(&mut self, partition: PartitionId) {
        let at_end = self.topic.index_of(partition).and_then(|index| self.at_end.get_mut(index));
        if at_end.is_some_and(std::mem::take) {
            self.todo.push(partition);
        }
    }

    /// Something may have appeared in any partition.
    pub(crate) fn note_all(&mut self) {
        let all = self.topic.all().zip(&mut self.at_end);
        self.todo.extend(all.filter_map(|(partition, at_end)| std::mem::take(at_end).then_some(partition)));
    }

    fn next_of(&mut self, partition: PartitionId) -> Option<&mut Offset> {
        self.nexts.get_mut(self.topic.index_of(partition)?)
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
    fn take_gap(&mut self) -> Option<MissingRun> {
        if let Some(gap) = self.gaps.pop() {
            return Some(gap);
        }
        let Reverse(NextRun { partition, first: end, .. }) = *self.heads.peek()?;
        let next = self.next_of(partition)?;
        let first = std::mem::replace(next, end);
        // seam: a gap is not told
        (first < end).then_some(MissingRun { partition, first, end })
    }

    /// Looks for the next messages of the partitions of which they are not known, as far as one hold of the lock may last.
    ///
    /// # Errors
    /// `Removed`.
    pub(crate) fn look(&mut self, view: &View) -> Result<LogLook> {
        if view.state.topic(self.topic.id).is_none() {
            return Err(Error::Removed { what: "topic" });
        }
        let mut found = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            let Some(partition) = self.todo.pop() else { break };
            let end = view.visible_end(partition);
            let Some(next) = self.next_of(partition) else { continue };
            if *next < end {
                match view.find_next(partition, *next).filter(|found| found.first() < end) {
                    Some(one) => {
                        found.push(one);
                        continue;
                    }
                    None => {
                        let first = std::mem::replace(next, end);
                        self.gaps.push(MissingRun { partition, first, end });
                    }
                }
            }
            if let Some(at_end) = self.topic.index_of(partition).and_then(|index| self.at_end.get_mut(index)) {
                *at_end = true;
            }
        }
        let is_complete = self.todo.is_empty();
        let is_nothing = is_complete && found.is_empty() && self.heads.is_empty() && self.gaps.is_empty();
        Ok(LogLook { found, is_complete, is_nothing, catalog: view.catalog.clone() })
    }

    /// Goes on with what a look found, outside the lock.
    ///
    /// # Errors
    /// `Gap` and `Unreadable`, each once, and reading goes on behind; what the system lacks for a while.
    pub(crate) fn step<H: LogHolder>(&mut self, holder: &H, look: LogLook) -> Result<LogStep> {
        let LogLook { found, is_complete, catalog, .. } = look;
        self.place_all(holder, found)?;
        if !is_complete || !self.todo.is_empty() {
            return Ok(LogStep::Again);
        }
        if let Some(gap) = self.take_gap() {
            return Err(self.gap(holder, gap));
        }
        let Some(&Reverse(run)) = self.heads.peek() else { return Ok(LogStep::Nothing) };
        let Some(segment) = catalog.segment(run.segment) else {
            // It was retired since the run was found.
            self.heads.pop();
            self.todo.push(run.partition);
            return Ok(LogStep::Again);
        };
        let read = holder.read(&mut self.reader, segment, &run.place(), 0, (run.partition, run.first));
        self.reader.rest();
        match read {
            Ok(stored) => {
                self.pass(run);
                let (partition, offset) = (run.partition, run.first);
                let position = Position { epoch: stored.about.epoch, lsn: run.lsn, partition, offset };
                Ok(LogStep::Message(stored, position))
            }
            Err(error) if error.kind() == ErrorKind::Retry => Err(error),
            // The file was unlinked while it was read.
            Err(_) if !holder.is_there(run.segment) => Ok(LogStep::Again),
            Err(error) => {
                self.pass(run);
                Err(error)
            }
        }
    }

    /// Takes note of where in the log the messages stand that were found.
    fn place_all<H: LogHolder>(&mut self, holder: &H, found: Vec<FoundRun>) -> Result<()> {
        let mut outcome = Ok(());
        for found in found {
            let (partition, first, segment) = (found.partition(), found.first(), found.segment());
            if outcome.is_err() {
                self.todo.push(partition);
                continue;
            }
            match resolve(holder, &mut self.reader, found) {
                Ok(Some(run)) => self.heads.push(Reverse(run)),
                Ok(None) => self.todo.push(partition),
                Err(error) => {
                    self.todo.push(partition);
                    if error.kind() == ErrorKind::Retry {
                        outcome = Err(error);
                    } else if holder.is_there(segment) {
                        // Its place is not known, so it cannot be told in its turn.
                        if let Some(next) = self.next_of(partition) {
                            *next = first.saturating_add(1);
                        }
                        outcome = Err(unreadable(holder, (partition, first), error));
                    }
                }
            }
        }
        outcome
    }

    fn gap<H: LogHolder>(&self, holder: &H, MissingRun { partition, first, end }: MissingRun) -> Error {
        let of = self.topic.id;
        let topic = holder.with_view(|view| view.state.topic(of).map(|topic| topic.name.to_string()));
        // Fits: a topic has no more partitions.
        let index = partition.0.saturating_sub(self.topic.first.0) as u32;
        let count = end.0.saturating_sub(first.0);
        Error::Gap { topic: topic.unwrap_or_default(), partition: index, offset: first.0, count }
    }
}

impl View {
    /// Up to where a partition may be seen.
    pub(crate) fn visible_end(&self, partition: PartitionId) -> Offset {
        // seam: a reader of the log sees what is not durable
        self.visible.end(partition, self.state.partition_end(partition))
    }
}
