//! The store's own numbers, held against the reference.
//!
//! Never here: a change.

use crate::facts::{Message, Now};
use crate::item::Standing;
use crate::reference::{Group, World};
use crate::runner::{Outcome, ensure, group_name, topic_name};
use millpond::{MessageId, Stats};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn check_world(world: &World, stats: &Stats, now: &Now) -> Outcome {
    ensure!(stats.topics.len() == world.topics.len(), "{} topics", stats.topics.len());
    for (index, (topic, messages)) in stats.topics.iter().zip(&world.topics).enumerate() {
        ensure!(topic.name == topic_name(index), "topic {index} is called {}", topic.name);
        ensure!(topic.published == messages.iter().map(|m| m.len() as u64).sum::<u64>(), "published: {topic:?}");
        ensure!(topic.partitions.len() == messages.len(), "partitions: {topic:?}");
        for (partition, messages) in topic.partitions.iter().zip(messages) {
            let visible = |message: &Message, unsure| message.is_visible(now).unwrap_or(unsure);
            let least = messages.iter().filter(|message| visible(message, false)).count() as u64;
            let most = messages.iter().filter(|message| visible(message, true)).count() as u64;
            ensure!(partition.end == messages.len() as u64, "ends at {}: {partition:?}", messages.len());
            ensure!((least..=most).contains(&partition.visible_end), "{least} to {most} visible: {partition:?}");
        }
        let groups = world.groups.iter().enumerate().filter(|(_, group)| group.topic == index);
        ensure!(groups.clone().count() == topic.groups.len(), "groups: {topic:?}");
        for ((number, group), found) in groups.zip(&topic.groups) {
            let (all, numbers) = (group.counts(now, |_| true), (found.ready, found.leased, found.waiting, found.lag));
            let is_right =
                found.name == group_name(number) && all.allow(numbers) && found.dead == group.letters.len() as u64;
            ensure!(is_right, "group {number}: found {found:?}, expected {all:?}");
            ensure!(found.partitions.len() == messages.len(), "group {number}: found {found:?}");
            for (partition, found) in found.partitions.iter().enumerate() {
                let here = group.counts(now, |id| id.partition as usize == partition);
                let is_right = here.allow((found.ready, found.leased, found.waiting, found.lag));
                ensure!(is_right, "group {number}, partition {partition}: found {found:?}, expected {here:?}");
            }
            let ages = group.oldest_ready_ages(now);
            ensure!(ages.contains(&found.oldest_ready_age), "group {number}: found {found:?}, its age one of {ages:?}");
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
    lag: u64,
}

impl Counts {
    fn allow(&self, (ready, leased, waiting, lag): (u64, u64, u64, u64)) -> bool {
        let is_within = |(least, most): (u64, u64), found| (least..=most).contains(&found);
        is_within(self.ready, ready) && is_within(self.waiting, waiting) && (self.leased, self.lag) == (leased, lag)
    }
}

impl Group {
    /// What may be said of how long the oldest ready message has been there. The engine compares the first ones of each
    /// partition, which are the oldest unless the clock jumped.
    fn oldest_ready_ages(&self, now: &Now) -> Vec<Option<Duration>> {
        let mut firsts = BTreeMap::new();
        let (mut all, mut is_certain) = (vec![None], true);
        for (id, item) in &self.items {
            let (standing, is_sure) = item.standing(self.options.max_attempts, now);
            is_certain &= is_sure;
            if matches!(standing, Standing::New | Standing::Due) {
                let age = Duration::from_millis(now.wall.saturating_sub(item.message.stored));
                firsts.entry(id.partition).or_insert(age);
                all.push(Some(age));
            }
        }
        if is_certain { vec![firsts.into_values().max()] } else { all }
    }

    fn counts(&self, now: &Now, is_counted: impl Fn(&MessageId) -> bool) -> Counts {
        let mut counts = Counts::default();
        for (_, item) in self.items.iter().filter(|(id, _)| is_counted(id)) {
            counts.lag += 1;
            let Counts { ready, leased, waiting, .. } = &mut counts;
            match item.standing(self.options.max_attempts, now) {
                (Standing::Hidden, _) => {}
                (Standing::Leased, _) => *leased += 1,
                (Standing::Waiting | Standing::Exhausted, _) => *waiting = (waiting.0 + 1, waiting.1 + 1),
                (_, true) => *ready = (ready.0 + 1, ready.1 + 1),
                (Standing::New, false) => ready.1 += 1,
                (_, false) => (ready.1, waiting.1) = (ready.1 + 1, waiting.1 + 1),
            }
        }
        counts
    }
}
