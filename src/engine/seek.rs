//! Seeking: a group goes on from another place.
//!
//! The place is found outside the lock, while a pin keeps every file. What the group had in progress is counted and freed outside the lock as
//! well. Never here: where a place is (`topics`).

use super::Engine;
use super::deliver::settle::end_of;
use super::topics::{Begin, Starts};
use crate::error::{Error, Result};
use crate::ids::{GroupId, Offset};
use crate::log::Parts;
use crate::record::Record;
use crate::state::{Command, GroupData, GroupProgress};
use crate::view::TopicInfo;

/// What a seek did, or would do, in numbers of messages. Those that were redriven are in none of them: a seek leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sought {
    /// How many the group had not settled before, whether its filter lets them pass or not.
    pub lag_before: u64,
    /// And how many it has to settle from its new place on.
    pub lag: u64,
    /// How many deliveries lost their leases. Leases that are over count as long as nobody else got the message.
    pub leases_lost: u64,
    /// How many are behind the position that was asked for and do not come: they are gone, or the group had settled them and one behind them
    /// is gone. The other places go by what is kept, so this is 0 for them.
    pub missing: u64,
}

impl Sought {
    /// `published`: how many messages the topic had then.
    /// Where a group that stood as `before` is asked to go on, and where it goes on.
    fn of(before: &GroupData, asked: &Starts, starts: &[Offset], published: u128) -> Self {
        let GroupProgress { passed, unsettled, leased, kept } = before.progress(&asked.from, starts);
        let behind = |passed: u128| u64::try_from(published.saturating_sub(passed)).unwrap_or(u64::MAX);
        let starts_at = starts.iter().map(|start| u128::from(start.0)).sum();
        let nearer: u64 = asked.offsets.iter().zip(starts).map(|(asked, start)| asked.0.saturating_sub(start.0)).sum();
        Self {
            lag_before: behind(passed).saturating_add(unsettled),
            lag: behind(starts_at).saturating_add(kept),
            leases_lost: leased,
            missing: asked.missing.saturating_sub(nearer).saturating_sub(kept),
        }
    }
}

impl Engine {
    /// Lets the group go on from there. Durable on return.
    ///
    /// # Errors
    /// `Removed`; `InvalidPosition`; `Unreadable`; the store's.
    pub(crate) fn seek(&self, topic: TopicInfo, group: GroupId, begin: Begin) -> Result<Sought> {
        self.check_group(group)?;
        // What it goes back to must not go meanwhile.
        let pin = (!matches!(begin, Begin::Latest)).then(|| self.maintenance.pin());
        let starts = self.starts(topic, begin)?;
        let command = Command::Seek { group, from: &starts.from, starts: &starts.offsets };
        let sought = self.submit(&command, Parts::default(), |core, committed| {
            let state = &mut core.view.state;
            let (removed, published) = (state.take_removed(), state.published_in(topic.id));
            let sought_starts = core.records.iter().find_map(|record| {
                let Record::GroupSought { starts, .. } = record else { return None };
                Some(starts.clone())
            });
            (end_of(core, committed), removed, published, sought_starts)
        })?;
        drop(pin);
        let (end, removed, published, sought_starts) = sought.map_err(|rejection| self.rejected(rejection))?;
        let before = removed.iter().find_map(|removed| removed.group());
        let sought = before.zip(sought_starts);
        let sought = sought.map(|(before, offsets)| Sought::of(before, &starts, &offsets, published));
        let sought = sought.ok_or_else(|| self.fail("a group went on from elsewhere, and left nothing behind"))?;
        drop(removed);
        // seam: a seek does not wait
        self.wait_durable(end)?;
        Ok(sought)
    }

    /// What a seek there would do now.
    ///
    /// # Errors
    /// As [`Engine::seek`].
    pub(crate) fn preview_seek(&self, topic: TopicInfo, group: GroupId, begin: Begin) -> Result<Sought> {
        self.check_group(group)?;
        let pin = self.maintenance.pin();
        let starts = self.starts(topic, begin)?;
        drop(pin);
        let (before, published, offsets) = {
            let core = self.lock_core();
            let found = core.view.state.group(group).ok_or(Error::Removed { what: "group" })?;
            let offsets = core.view.state.seek_starts(group, &starts.from, &starts.offsets);
            (GroupData::clone(found), core.view.state.published_in(topic.id), offsets)
        };
        let offsets = offsets.map_err(|rejection| self.rejected(rejection))?;
        Ok(Sought::of(&before, &starts, &offsets, published))
    }

    fn check_group(&self, group: GroupId) -> Result<()> {
        self.enter()?;
        let is_there = self.lock_core().view.state.group(group).is_some();
        if is_there { Ok(()) } else { Err(Error::Removed { what: "group" }) }
    }
}
