//! Reading a topic as a log, and waiting for what comes next.
//!
//! A note says in which partition something has appeared ([`Followers`](crate::wait::Followers)). For the reading see `view::log_scan`.
//! Never here: where a reader begins (`log_start`), leases.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::engine::deliver::receive::Wait;
use crate::error::{Error, Result};
use crate::ids::{FileNumber, Lsn, Offset, PartitionId, Position};
use crate::view::{LogHolder, LogLook, LogScan, LogStep, Stored, TopicInfo};
use crate::wait::{Follower, Parker};
use std::task::Waker;
use std::time::Duration;

/// How far somebody has read a topic.
#[derive(Debug)]
pub(crate) struct LogCursor {
    scan: LogScan,
    follower: Follower,
}

impl LogHolder for Engine {
    fn log_end(&self) -> Lsn {
        self.lock_core().appender.end()
    }

    fn is_there(&self, file: FileNumber) -> bool {
        self.lock_core().view.catalog.segment(file).is_some()
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
        Ok(LogCursor { scan: LogScan::new(topic, nexts), follower })
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
            let look = self.look_at_log(cursor, &mut waker)?;
            match cursor.scan.step(self, look)? {
                LogStep::Again => {}
                LogStep::Nothing => return Ok(None),
                LogStep::Message(stored, position) => return Ok(Some((stored, position))),
            }
        }
    }

    /// Looks at what has appeared. Where all is known and there is nothing, the waker is left.
    fn look_at_log(&self, cursor: &mut LogCursor, waker: &mut Option<impl FnOnce() -> Waker>) -> Result<LogLook> {
        let mut guard = self.lock_core();
        self.health.check()?;
        let core = &mut *guard;
        let LogCursor { scan, follower } = cursor;
        let is_noted = core.waiters.followers.take_notes(follower, |partition| scan.note(partition));
        // seam: a reader that was away for too long looks nowhere
        if !is_noted {
            scan.note_all();
        }
        let look = scan.look(&core.view)?;
        if look.is_nothing
            && let Some(waker) = waker.take()
        {
            core.waiters.followers.leave_waker(follower, waker());
        }
        Ok(look)
    }
}

/// Up to where a partition may be seen.
pub(in crate::engine) fn visible_end(core: &Core, partition: PartitionId) -> Offset {
    core.view.visible_end(partition)
}
