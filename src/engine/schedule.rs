//! Messages for later: what is scheduled, changing it, and moving what is due.
//!
//! A tick of the flusher moves what is due, once it has compared the clocks, and sleeps no longer than until the next one. Never here: when a message
//! is due (the state decides).

use super::Engine;
use super::deliver::settle::end_of;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Lsn, MessageId, MonoMs, Offset, PartitionId, SCHEDULE_INDEX, TopicId, WallMs};
use crate::log::Parts;
use crate::state::{Command, Later, NextDue, Rejection};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::view::ViewHolder;
use std::time::Duration;

/// How many messages a tick moves at most, so that what waits for a sync does not wait for them all.
const MOVES_PER_TICK: usize = 256;
/// And of how many bytes, but for the last one.
const MOVED_BYTES_PER_TICK: usize = 1 << 20;
/// How many of those that cannot be moved just then a tick passes by.
const LACKS_PER_TICK: usize = 16;
/// How many one call lists.
const LIST_AT_ONCE: usize = 4_096;
/// A time of day may come sooner than the monotonic clock says, for the wall clock may be set forward: it is looked at as often as this.
const WALL_LOOK_MS: u64 = 1_000;
/// How long nothing is moved once there was no room for a message, or no way to read it just then.
const REST_MS: u64 = 1_000;
/// A message that cannot be read is tried again after this.
const UNREADABLE_MS: u64 = 300_000;

/// When the flusher has to look at the scheduled messages.
#[derive(Debug, Default)]
pub(super) struct DueTimes {
    /// By the monotonic clock, as it was known last; the greatest number for never. At once, to begin with.
    next: AtomicU64,
    /// Nothing is moved before.
    rest_until: AtomicU64,
}

/// A message that is not due yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledAt {
    pub(crate) id: MessageId,
    pub(crate) due: WallMs,
    pub(crate) partition: u32,
}

impl Engine {
    /// The hidden partition of a topic's messages for later, which the first of them makes.
    ///
    /// # Errors
    /// `LimitReached`; `Removed`; the store's.
    pub(crate) fn open_schedule(&self, topic: TopicId) -> Result<PartitionId> {
        self.enter()?;
        loop {
            if let Some(partition) = self.lock_core().view.state.schedule_of(topic) {
                return Ok(partition);
            }
            match self.submit(&Command::CreateSchedule { topic }, Parts::default(), |_, _| ())? {
                Ok(()) | Err(Rejection::Exists) => {}
                Err(rejection) => return Err(self.rejected(rejection)),
            }
        }
    }

    /// At most `max` scheduled messages of a topic behind `after`, in the order in which they were published.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn scheduled(&self, topic: TopicId, after: Option<MessageId>, max: usize) -> Result<Vec<ScheduledAt>> {
        self.enter()?;
        let from = after.map_or(Offset(0), |id| id.offset.saturating_add(1));
        if after.is_some_and(|id| (id.topic, id.partition) != (topic, SCHEDULE_INDEX)) {
            let value = after.map(|id| id.to_string()).unwrap_or_default();
            let expected = "the id of a scheduled message of the topic";
            return Err(Error::InvalidOption { option: "after", value, expected });
        }
        let (found, end) = {
            let core = self.lock_core();
            let state = &core.view.state;
            let first = state.topic(topic).ok_or(Error::Removed { what: "topic" })?.first;
            let found = state.scheduled_from(topic, from, max.min(LIST_AT_ONCE)).into_iter();
            let found = found.map(|(offset, scheduled)| ScheduledAt {
                id: MessageId { topic, partition: SCHEDULE_INDEX, offset, epoch: scheduled.epoch },
                due: state.wall_of(scheduled.due),
                partition: scheduled.to.0.saturating_sub(first.0) as u32,
            });
            (found.collect::<Vec<_>>(), core.appender.end())
        };
        self.tell(end)?;
        Ok(found)
    }

    /// Schedules a message for another time, or with `None` not at all. Durable at `Disk` once the log is up to where this says.
    ///
    /// # Errors
    /// `NotScheduled`; `InvalidOption`; the store's.
    pub(crate) fn reschedule(&self, topic: TopicId, id: MessageId, later: Option<Later>) -> Result<Lsn> {
        self.enter()?;
        let not_scheduled = || Error::NotScheduled { id };
        if id.topic != topic || id.partition != SCHEDULE_INDEX {
            return Err(not_scheduled());
        }
        let partition = {
            let core = self.lock_core();
            core.view.state.topic(topic).ok_or(Error::Removed { what: "topic" })?;
            core.view.state.schedule_of(topic).ok_or_else(not_scheduled)?
        };
        let command = Command::Reschedule { at: (partition, id.offset), epoch: Some(id.epoch), later };
        let done = match self.submit(&command, Parts::default(), end_of)? {
            Ok(end) => Ok(end),
            Err(Rejection::NotScheduled) => Err(not_scheduled()),
            Err(rejection) => Err(self.rejected(rejection)),
        };
        self.due_times_changed();
        done
    }

    /// Something was scheduled: the flusher is woken if it would sleep for too long.
    pub(super) fn due_times_changed(&self) {
        // seam: a sleeper for due times is not woken
        if self.note_next_due() {
            self.jobs.wake_flusher();
        }
    }

    /// Takes note of when the next message is due. Returns whether that is earlier than it was.
    fn note_next_due(&self) -> bool {
        let now = self.now();
        // Under the lock, so that the last to take note knows the most.
        let core = self.lock_core();
        let state = &core.view.state;
        let NextDue { store, wall } = state.next_due();
        let by_store = store.map(|due| due.0.saturating_sub(state.store_time(now.steady).0));
        let by_wall = wall.map(|due| due.0.saturating_sub(now.wall.0).min(WALL_LOOK_MS));
        let wait = by_store.into_iter().chain(by_wall).min();
        let next = wait.map_or(u64::MAX, |ms| now.mono.0.saturating_add(ms).min(u64::MAX - 1));
        next < self.due_times.next.swap(next, Ordering::AcqRel)
    }

    /// How long the flusher may sleep, at most `interval`.
    pub(super) fn sleep_at_most(&self, interval: Duration) -> Duration {
        let due = Some(self.due_times.next.load(Ordering::Acquire)).filter(|next| *next != u64::MAX);
        let due = due.map(|next| next.max(self.due_times.rest_until.load(Ordering::Acquire)));
        let next = due.into_iter().chain(self.kept.next().map(|at| at.0)).min();
        let now = self.clock.monotonic().0;
        next.map_or(interval, |at| interval.min(Duration::from_millis(at.saturating_sub(now))))
    }

    /// Moves messages that are due to where they are read.
    ///
    /// # Errors
    /// The store's. A lack of room, memory or descriptors is no error here: they are moved once it is over.
    pub(super) fn deliver_due(&self) -> Result<()> {
        let now = self.now();
        if now.mono < MonoMs(self.due_times.rest_until.load(Ordering::Acquire)) {
            return Ok(());
        }
        let due = {
            let core = self.lock_core();
            let state = &core.view.state;
            // seam: what is due is not looked for
            state.due(state.store_time(now.steady), now.wall, MOVES_PER_TICK)
        };
        let (mut bytes, mut lacks) = (0, 0);
        for (partition, offset) in due {
            match self.move_due(partition, offset) {
                Ok(len) => bytes += len,
                // Others may be smaller, or readable.
                Err(error) if error.is_passing() || error.kind() == ErrorKind::Retry => lacks += 1,
                // Where that stopped the store, the flusher finds out by itself.
                Err(Error::Io { .. }) if self.health.check().is_ok() => lacks += LACKS_PER_TICK,
                Err(error) => return Err(error),
            }
            if lacks >= LACKS_PER_TICK || bytes >= MOVED_BYTES_PER_TICK {
                break;
            }
        }
        if lacks > 0 {
            self.due_times.rest_until.store(now.mono.0.saturating_add(REST_MS), Ordering::Release);
        }
        self.note_next_due();
        Ok(())
    }

    /// Moves a message, and says how long it is.
    fn move_due(&self, partition: PartitionId, offset: Offset) -> Result<usize> {
        let mut len = 0;
        let moved = match self.fetch(partition, offset) {
            Ok(stored) => {
                len = stored.len();
                let published = stored.publication();
                self.submit_copy(&Command::MoveDue { at: (partition, offset), published }, stored.part(0))?.map(drop)
            }
            // Its topic was.
            Err(Error::Removed { .. }) => return Ok(0),
            Err(Error::Unreadable { .. }) => {
                // Nothing else knows of it: it stays, in case it can be read again.
                let later = Some(Later::In(UNREADABLE_MS));
                let command = Command::Reschedule { at: (partition, offset), epoch: None, later };
                self.submit(&command, Parts::default(), |_, _| ())?
            }
            Err(error) => return Err(error),
        };
        match moved {
            // It was cancelled or rescheduled, or its topic was removed.
            Ok(()) | Err(Rejection::Stale | Rejection::NotScheduled) => Ok(len),
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }
}
