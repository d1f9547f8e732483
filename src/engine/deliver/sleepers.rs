//! Consumers that sleep, for a simulator that has one thread for all of them.
//!
//! Never here: what a store does for its users.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::engine::deliver::receive::Wait;
use crate::error::Result;
use crate::ids::{GroupId, MonoMs, TopicId};
use crate::state::{Command, Decision};
use crate::view::Now;
use crate::wait::Ticket;
use std::sync::Arc;
use std::task::Waker;

impl Engine {
    /// What a receive that waits does in a thread of its own: takes in a sleeper, unless
    /// there is something to do for the group.
    pub(crate) fn fall_asleep(&self, group: GroupId, topic: TopicId, wait: Wait<'_>) -> Result<Option<Arc<Ticket>>> {
        self.enter()?;
        let now = self.now();
        let mut core = self.lock_core();
        let idle = !core.has_work(group, now, self.moves_rest_until());
        Ok(idle.then(|| self.enter_sleep(&mut core, (topic, group), wait.until, now, Waker::noop())))
    }

    /// Whether a sleeper has to look.
    pub(crate) fn is_awake(&self, ticket: &Ticket) -> bool {
        let _core = self.lock_core();
        ticket.is_woken() || ticket.until <= self.now().mono
    }

    /// Describes each group whose sleepers have not been woken although a message is deliverable, or whose timers all end after the
    /// next deadline. Empty, unless this code is wrong.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let now = self.now();
        let core = self.lock_core();
        if self.health.check().is_err() {
            return Vec::new();
        }
        let mut stuck = Vec::new();
        for (group, until) in core.waiters.at_rest() {
            if until > now.mono && core.has_work(group, now, self.moves_rest_until()) {
                stuck.push(format!("group {group}: something is ready, and all its consumers sleep"));
            }
            let next = core.sleep_until(group, now).map(|ms| now.mono.saturating_add(ms.max(1)));
            if next.is_some_and(|next| next < until && until > now.mono) {
                stuck.push(format!("group {group}: no sleeper wakes at {next:?}, the first at {until}"));
            }
        }
        stuck
    }
}

impl Core {
    /// Whether a consumer of the group that looks now would change anything.
    fn has_work(&self, group: GroupId, now: Now, moves_rest_until: MonoMs) -> bool {
        if self.rate_of(group).is_some_and(|rate| self.rates.wait(group, rate, now.mono).is_some()) {
            return false;
        }
        let command = Command::Lease {
            group,
            max: 1,
            pass_exhausted: now.mono < moves_rest_until,
            new_last: None,
            keys: None,
            looked_at: 0,
        };
        let decided = self.view.state.decide(&command, &self.inputs(now), &mut Vec::new());
        decided.is_ok_and(|decision| decision != Decision::Nothing)
    }
}
