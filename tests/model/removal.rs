//! Removing topics and groups, altering groups, and handles of what is gone.
//!
//! Never here: what is right (see `reference`).

use crate::actions::said;
use crate::facts::Options;
use crate::ops::Spec;
use crate::runner::{Outcome, Runner, ensure, group_name, topic_name};
use millpond::{Error, Group, GroupChange, Message, Seek, Topic};
use std::fmt::Debug;
use std::time::Duration;

impl Runner {
    /// The number of a topic that is there.
    pub(crate) fn pick_topic(&self, index: usize) -> Outcome<Option<usize>> {
        let topics = &self.process()?.topics;
        Ok(topics.keys().copied().nth(index % topics.len().max(1)))
    }

    /// The number of a group that is there.
    pub(crate) fn pick_group(&self, index: usize) -> Outcome<Option<usize>> {
        let groups = &self.process()?.groups;
        Ok(groups.keys().copied().nth(index % groups.len().max(1)))
    }

    pub(crate) fn topic_name(&self, topic: usize) -> String {
        topic_name(self.world().topic_names[topic])
    }

    pub(crate) fn group_name(&self, group: usize) -> String {
        group_name(self.world().groups[group].name)
    }

    /// The first name that no topic has now: one that was removed had it before.
    pub(crate) fn free_topic_name(&self) -> usize {
        let names = self.world().living_topics().into_iter().map(|topic| self.world().topic_names[topic]);
        first_free(names.collect())
    }

    pub(crate) fn free_group_name(&self) -> usize {
        let names = self.world().living_groups().into_iter().map(|group| self.world().groups[group].name);
        first_free(names.collect())
    }

    pub(crate) fn alter_group(&mut self, group: usize, spec: Spec) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let before = self.world().groups[group].options.clone();
        let after = altered(&before, spec);
        said("alter a group", with_spec(self.process()?.groups[&group].alter(), spec, self.notices()?).apply())?;
        if before != after {
            self.ensure_durable()?;
        }
        self.change(|world| world.alter_group(group, &after))
    }

    pub(crate) fn pause(&mut self, group: usize, pause: bool) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let mut options = self.world().groups[group].options.clone();
        let handle = &self.process()?.groups[&group];
        said("pause or resume", if pause { handle.pause() } else { handle.resume() })?;
        if std::mem::replace(&mut options.paused, pause) != pause {
            self.ensure_durable()?;
        }
        self.change(|world| world.alter_group(group, &options))
    }

    pub(crate) fn remove_group(&mut self, group: usize) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let (topic, name) = (self.world().groups[group].topic, self.group_name(group));
        self.keep_letters(group)?;
        let handle = self.process()?.topics[&topic].clone();
        said("remove a group", handle.remove_group(&name))?;
        self.ensure_durable()?;
        self.forget_group(group)?;
        self.change(|world| world.remove_group(group))?;
        not_found("group", &name, &handle.remove_group(&name))?;
        not_found("group", &name, &handle.group(&name).create(false).open())?;
        self.use_gone()
    }

    pub(crate) fn remove_topic(&mut self, topic: usize) -> Outcome {
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let (name, groups) = (self.topic_name(topic), self.world().living_groups());
        let groups: Vec<_> = groups.into_iter().filter(|group| self.world().groups[*group].topic == topic).collect();
        groups.iter().try_for_each(|group| self.keep_letters(*group))?;
        said("remove a topic", self.process()?.store.remove_topic(&name))?;
        self.ensure_durable()?;
        groups.iter().try_for_each(|group| self.forget_group(*group))?;
        let process = self.process_mut()?;
        process.gone.topics.extend(process.topics.remove(&topic));
        self.change(|world| world.remove_topic(topic))?;
        let store = &self.process()?.store;
        not_found("topic", &name, &store.remove_topic(&name))?;
        not_found("topic", &name, &store.topic(&name).create(false).open())?;
        self.use_gone()
    }

    /// What the process holds of dead letters that are about to go.
    fn keep_letters(&mut self, group: usize) -> Outcome {
        let letters = self.list(group)?;
        self.process_mut()?.gone.letters.extend(letters);
        Ok(())
    }

    fn forget_group(&mut self, group: usize) -> Outcome {
        let process = self.process_mut()?;
        process.gone.groups.extend(process.groups.remove(&group));
        Ok(())
    }

    /// Every call of a handle of what is gone says so, and changes nothing.
    pub(crate) fn use_gone(&mut self) -> Outcome {
        let end = self.look()?.log.end;
        let process = self.process()?;
        process.gone.topics.iter().try_for_each(use_topic)?;
        process.gone.groups.iter().try_for_each(use_group)?;
        if let Some(topic) = process.topics.values().next().or(process.gone.topics.first()).cloned() {
            let letters = std::mem::take(&mut self.process_mut()?.gone.letters);
            for (number, letter) in letters.into_iter().enumerate() {
                match number % 3 {
                    0 => is_removed("redrive", &letter.redrive())?,
                    1 => is_removed("redrive to a topic", &letter.redrive_to(&topic))?,
                    _ => is_removed("discard", &letter.discard())?,
                }
            }
        }
        let now = self.look()?.log.end;
        ensure!(now == end, "calls of what is gone were logged: {end} to {now}");
        Ok(())
    }
}

fn first_free(taken: Vec<usize>) -> usize {
    (0..).find(|name| !taken.contains(name)).unwrap_or(0)
}

pub(crate) fn is_removed<T: Debug>(what: &str, result: &Result<T, Error>) -> Outcome {
    ensure!(matches!(result, Err(Error::Removed { .. })), "{what} of what is gone: {result:?}");
    Ok(())
}

fn not_found<T: Debug>(kind: &str, name: &str, result: &Result<T, Error>) -> Outcome {
    let is_right = matches!(result, Err(Error::NotFound { what, name: said }) if *what == kind && said == name);
    ensure!(is_right, "the {kind} {name} is gone, and: {result:?}");
    Ok(())
}

fn use_topic(topic: &Topic) -> Outcome {
    is_removed("publish", &topic.publish(Message::new("late")))?;
    is_removed("publish a batch", &topic.publish_batch(["late", "later"]))?;
    is_removed("open a group", &topic.group("another").open())?;
    is_removed("find a group", &topic.group("another").create(false).open())?;
    is_removed("remove a group", &topic.remove_group("another"))
}

fn use_group(group: &Group) -> Outcome {
    is_removed("receive", &group.receive(Duration::ZERO))?;
    is_removed("receive a batch", &group.receive_batch(3, Duration::ZERO))?;
    is_removed("wait", &group.receive(Duration::from_secs(60)))?;
    is_removed("list dead letters", &group.dead_letters().map(drop))?;
    is_removed("redrive all", &group.redrive_all())?;
    is_removed("redrive where", &group.redrive_where(|_| true))?;
    is_removed("alter", &group.alter().max_attempts(77).apply())?;
    is_removed("seek", &group.seek(Seek::Earliest))?;
    is_removed("preview a seek", &group.preview_seek(Seek::Latest))?;
    is_removed("pause", &group.pause())?;
    is_removed("resume", &group.resume())
}

fn altered(options: &Options, spec: Spec) -> Options {
    let Options { backoff_first, backoff_max, jitter, growth, .. } = *options;
    let (backoff_first, backoff_max, jitter, growth) =
        spec.pause.numbers().unwrap_or((backoff_first, backoff_max, jitter, growth));
    Options {
        visibility_timeout: spec.timeout.unwrap_or(options.visibility_timeout),
        max_attempts: spec.attempts.unwrap_or(options.max_attempts),
        backoff_first,
        backoff_max,
        jitter,
        growth,
        limits: spec.limits.unwrap_or(options.limits),
        max_outstanding: spec.outstanding.unwrap_or(options.max_outstanding),
        max_closes: spec.closes.unwrap_or(options.max_closes),
        notices: spec.notices.unwrap_or(options.notices),
        order: options.order,
        paused: options.paused,
        max_in_flight: spec.in_flight.unwrap_or(options.max_in_flight),
        wants_typed: options.wants_typed,
    }
}

fn with_spec(change: GroupChange, spec: Spec, notices: &Topic) -> GroupChange {
    let ms = Duration::from_millis;
    let change = spec.timeout.into_iter().fold(change, |change, timeout| change.visibility_timeout(ms(timeout)));
    let change = spec.attempts.into_iter().fold(change, GroupChange::max_attempts);
    let change = spec.outstanding.into_iter().fold(change, GroupChange::max_outstanding);
    let change = spec.closes.into_iter().fold(change, GroupChange::max_closes);
    let topic = |is_told: bool| is_told.then_some(notices);
    let change = spec.notices.into_iter().fold(change, |change, is_told| change.dead_letter_notices(topic(is_told)));
    let change = spec.limits.into_iter().fold(change, |change, [nacks, expiries, crashes]| {
        change.max_nacks(nacks).max_expiries(expiries).max_crashes(crashes)
    });
    let change = spec.in_flight.into_iter().fold(change, GroupChange::max_in_flight);
    spec.pause.backoff().into_iter().fold(change, GroupChange::backoff)
}
