//! The store's own numbers, held against the reference.
//!
//! Never here: a change.

use crate::facts::{Counts, Message, Now};
use crate::item::{Item, Standing};
use crate::reference::{Group, World};
use crate::runner::{Outcome, ensure, group_name, topic_name};
use millpond::Stats;
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
            let Counts { ready, leased, waiting, dead, lag } = group.counts(now);
            let is_right = found.name == group_name(number)
                && (ready.0..=ready.1).contains(&found.ready)
                && (waiting.0..=waiting.1).contains(&found.waiting)
                && (found.leased, found.dead, found.lag) == (leased, dead, lag);
            ensure!(is_right, "group {number}: found {found:?}, expected {:?}", group.counts(now));
            let age = group.oldest_ready_age(now);
            ensure!(age.contains(&found.oldest_ready_age), "group {number}: found {found:?}, its age one of {age:?}");
        }
    }
    Ok(())
}

impl Group {
    /// What may be said of how long the oldest ready message has been there. Which one that is, is left open: the engine
    /// takes the first one of some partition.
    pub(crate) fn oldest_ready_age(&self, now: &Now) -> Vec<Option<Duration>> {
        let is_ready = |standing| matches!(standing, Standing::New | Standing::Due);
        let standings = self.items.values().map(|item| (item, item.standing(self.options.max_attempts, now)));
        let ready: Vec<(&Item, bool)> =
            standings.filter(|(_, (standing, _))| is_ready(*standing)).map(|(item, (_, is_sure))| (item, is_sure)).collect();
        let none = (!ready.iter().any(|(_, is_sure)| *is_sure)).then_some(None);
        let ages = ready.iter().map(|(item, _)| now.wall.saturating_sub(item.message.stored));
        ages.map(|age| Some(Duration::from_millis(age))).chain(none).collect()
    }

    pub(crate) fn counts(&self, now: &Now) -> Counts {
        let mut counts = Counts { dead: self.letters.len() as u64, lag: self.items.len() as u64, ..Counts::default() };
        for item in self.items.values() {
            match item.standing(self.options.max_attempts, now) {
                (Standing::Hidden, _) => {}
                (Standing::Leased, _) => counts.leased += 1,
                (Standing::Waiting | Standing::Exhausted, _) => counts.waiting = (counts.waiting.0 + 1, counts.waiting.1 + 1),
                (_, true) => counts.ready = (counts.ready.0 + 1, counts.ready.1 + 1),
                (Standing::New, false) => counts.ready.1 += 1,
                (_, false) => (counts.ready.1, counts.waiting.1) = (counts.ready.1 + 1, counts.waiting.1 + 1),
            }
        }
        counts
    }
}
