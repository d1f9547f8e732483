//! The account of an outstanding message: which ends of its leases count against it, and how.
//!
//! A lease is counted when it is granted, so that an attempt is on the account whatever becomes of the process. Its end may take that
//! back. Never here: when the next lease may begin.

use crate::state::lease::{Lease, OutstandingEntry, Prospect};

/// How a lease ended whose message stays outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum Ending {
    /// By a nack or by its timeout.
    Failed,
    /// Unused: the attempt is taken back.
    GivenBack,
    /// The process died: the whole lease counts.
    Crashed,
    /// The process closed the store, and the attempt is taken back.
    Closed,
    /// The process closed the store, as it did too often in a row while this message was leased: the attempt counts.
    ClosedAgain,
}

impl Ending {
    /// How the end of a process ends the lease of `entry`.
    pub(in crate::state) fn of_process(entry: &OutstandingEntry, clean: bool, max_closes: u8) -> Self {
        match clean {
            false => Self::Crashed,
            // seam: a close is charged
            true if entry.closes < max_closes => Self::Closed,
            true => Self::ClosedAgain,
        }
    }
}

impl OutstandingEntry {
    /// Enters the end of its lease. The caller gives it its next phase. `max_crashes`: in a row; 0 for no limit.
    pub(in crate::state) fn end_lease(&mut self, ending: Ending, max_crashes: u32) {
        let exclusive = self.lease().is_some_and(|lease: &Lease| lease.exclusive);
        self.backoff_ms = 0;
        match ending {
            Ending::Failed | Ending::ClosedAgain => {
                // seam: a crash stays on the account
                (self.crashes, self.prospect) = (0, Prospect::None);
            }
            Ending::GivenBack | Ending::Closed => self.attempts = self.attempts.saturating_sub(1),
            Ending::Crashed => {
                // seam: a crash is not charged
                self.crashes = self.crashes.saturating_add(1);
                self.prospect = self.prospect_after_crash(exclusive, max_crashes);
            }
        }
        match ending {
            Ending::Closed => self.closes = self.closes.saturating_add(1),
            Ending::ClosedAgain => {}
            Ending::Failed | Ending::GivenBack | Ending::Crashed => {
                // seam: closes are never forgotten
                self.closes = 0;
            }
        }
    }

    fn prospect_after_crash(&self, exclusive: bool, max_crashes: u32) -> Prospect {
        let left = max_crashes.saturating_sub(u32::from(self.crashes));
        match max_crashes {
            // seam: a limit of crashes is not kept
            1.. if left == 0 => Prospect::Over,
            // Its last attempt was alone: the limit of attempts holds.
            1.. if left == 1 && !(exclusive && self.is_spent()) => Prospect::Alone,
            _ if exclusive => Prospect::None,
            _ => Prospect::Grace,
        }
    }

    /// Whether it was out in twice as many crashes as it may have attempts, with no other end in between.
    pub(in crate::state) fn is_crash_limit_reached(&self) -> bool {
        let limit = self.max_attempts.saturating_mul(2).min(u32::from(u16::MAX));
        // seam: attempts count as crashes
        u32::from(self.crashes) >= limit
    }
}
