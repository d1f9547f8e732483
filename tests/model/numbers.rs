//! The store's own numbers, held against the reference.
//!
//! Never here: a change.

use crate::facts::{Message, Now};
use crate::item::{Standing, State};
use crate::reference::{Group, World};
use crate::runner::{Outcome, ensure, group_name, topic_name};
use millpond::{MessageId, Stats};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) fn check_world(world: &World, stats: &Stats, now: &Now) -> Outcome {
    let living = world.living_topics();
    ensure!(stats.topics.len() == living.len(), "{} topics, expected {living:?}", stats.topics.len());
    for (topic, &index) in stats.topics.iter().zip(&living) {
        let messages = &world.topics[index];
        ensure!(topic.name == topic_name(world.topic_names[index]), "topic {index} is called {}", topic.name);
        ensure!(topic.published == messages.iter().map(|m| m.len() as u64).sum::<u64>(), "published: {topic:?}");
        ensure!(topic.partitions.len() == messages.len(), "partitions: {topic:?}");
        for (partition, messages) in topic.partitions.iter().zip(messages) {
            let visible = |message: &Message, unsure| message.is_visible(now).unwrap_or(unsure);
            let least = messages.iter().filter(|message| visible(message, false)).count() as u64;
            let most = messages.iter().filter(|message| visible(message, true)).count() as u64;
            ensure!(partition.end == messages.len() as u64, "ends at {}: {partition:?}", messages.len());
            ensure!((least..=most).contains(&partition.visible_end), "{least} to {most} visible: {partition:?}");
        }
        let groups = world.groups.iter().enumerate().filter(|(_, group)| group.topic == index && !group.is_gone);
        ensure!(groups.clone().count() == topic.groups.len(), "groups: {topic:?}");
        for ((number, group), found) in groups.zip(&topic.groups) {
            let unwanted = group.unwanted_max(|_| true);
            let all = group.counts(now, |_| true).with(unwanted);
            let is_right = found.name == group_name(group.name)
                && all.allow((found.ready + found.parked, found.leased, found.waiting, found.lag))
                && found.parked <= group.parked_max(|_| true) + unwanted
                && found.exhausted == all.exhausted
                && found.at_cap == (group.outstanding() >= group.options.max_outstanding as usize)
                && found.paused == group.options.paused
                && found.dead == group.letters.len() as u64;
            ensure!(is_right, "group {number}: found {found:?}, expected {all:?}");
            ensure!(found.partitions.len() == messages.len(), "group {number}: found {found:?}");
            for (partition, found) in found.partitions.iter().enumerate() {
                let unwanted = group.unwanted_max(|of| of as usize == partition);
                let here = group.counts(now, |id| id.partition as usize == partition).with(unwanted);
                let is_right = here.allow((found.ready + found.parked, found.leased, found.waiting, found.lag))
                    && found.parked <= group.parked_max(|id| id.partition as usize == partition) + unwanted
                    && found.exhausted == here.exhausted;
                ensure!(is_right, "group {number}, partition {partition}: found {found:?}, expected {here:?}");
            }
            // What it does not want may be the oldest, until it is looked at.
            if unwanted > 0 {
                continue;
            }
            let ages = group.oldest_ready_age(now);
            let is_right = ages.is_none_or(|(least, most)| (least..=most).contains(&found.oldest_ready_age));
            ensure!(is_right, "group {number}: found {found:?}, its age one of {ages:?}");
            let age = group.oldest_unsettled_age(now);
            ensure!(found.oldest_unsettled_age == age, "group {number}: found {found:?}, its age {age:?}");
        }
    }
    Ok(())
}

/// A group in numbers; spans where jitter or a sync in the middle leaves it open.
#[derive(Debug, Default)]
struct Counts {
    ready: (u64, u64),
    leased: u64,
    waiting: (u64, u64),
    exhausted: u64,
    lag: (u64, u64),
}

impl Counts {
    fn allow(&self, (ready, leased, waiting, lag): (u64, u64, u64, u64)) -> bool {
        let is_within = |(least, most): (u64, u64), found| (least..=most).contains(&found);
        let spans = is_within(self.ready, ready) && is_within(self.waiting, waiting) && is_within(self.lag, lag);
        spans && self.leased == leased
    }

    /// The same where so many messages more may not have been looked at.
    fn with(mut self, unwanted: u64) -> Self {
        self.ready.1 += unwanted;
        self.lag.1 += unwanted;
        self
    }
}

impl Group {
    /// Between what ages that of the message is which has been ready for longest; `None` where it is left open what is ready.
    fn oldest_ready_age(&self, now: &Now) -> Option<(Option<Duration>, Option<Duration>)> {
        let age = |since: u64| Some(Duration::from_millis(now.wall.saturating_sub(since)));
        let group_order = self.options.order.is_some();
        let (mut least, mut most, mut firsts) = (None, None, BTreeSet::new());
        for (id, item) in &self.items {
            let (standing, is_sure) = item.standing(now);
            // What waits for others of its key is not ready, and the group may not know that yet.
            if !is_sure || standing == Standing::New && group_order {
                return None;
            }
            if !matches!(standing, Standing::New | Standing::Due) {
                continue;
            }
            let since = match (&item.state, item.failures.last()) {
                (State::Leased { until, pause, .. }, _) => {
                    (now.wall.saturating_sub(now.mono - until - pause.1), pause.1 - pause.0)
                }
                (State::Waiting { due, .. }, _) => (due.1, due.1 - due.0),
                (State::Ready, Some(failure)) => (failure.time, 0),
                // Of those that were never delivered the first of a partition counts, which is the oldest unless the clock jumped.
                (State::New, _) | (State::Ready, None) if !firsts.insert(id.partition) => continue,
                (State::New, _) | (State::Ready, None) => (item.message.stored, 0),
            };
            least = least.max(age(since.0));
            most = most.max(age(since.0 - since.1));
        }
        Some((least, most))
    }

    /// How old the first unsettled message of a partition is, at most.
    fn oldest_unsettled_age(&self, now: &Now) -> Option<Duration> {
        let mut firsts = BTreeMap::new();
        for (id, item) in &self.items {
            firsts.entry(id.partition).or_insert(Duration::from_millis(now.wall.saturating_sub(item.message.stored)));
        }
        firsts.into_values().max()
    }

    fn counts(&self, now: &Now, is_counted: impl Fn(&MessageId) -> bool) -> Counts {
        let mut counts = Counts::default();
        for (_, item) in self.items.iter().filter(|(id, _)| is_counted(id)) {
            counts.lag = (counts.lag.0 + 1, counts.lag.1 + 1);
            let Counts { ready, leased, waiting, exhausted, .. } = &mut counts;
            match item.standing(now) {
                (Standing::Hidden, _) => {}
                (Standing::Leased, _) => *leased += 1,
                (Standing::Exhausted, _) => *exhausted += 1,
                (Standing::Waiting, _) => *waiting = (waiting.0 + 1, waiting.1 + 1),
                (_, true) => *ready = (ready.0 + 1, ready.1 + 1),
                (Standing::New, false) => ready.1 += 1,
                (_, false) => (ready.1, waiting.1) = (ready.1 + 1, waiting.1 + 1),
            }
        }
        counts
    }
}
