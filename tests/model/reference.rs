//! A naive queue: what a store promises, in plain maps.
//!
//! A [`World`] is one way in which the store may stand now. It says of each thing that was seen whether it may be so,
//! and does not foretell what is left open: the order across partitions, and when a message that used up its attempts
//! is moved. Where something may have gone two ways unseen, the runner keeps a world for each until one is refuted.
//! Never here: the store, its handles, its log.

use crate::dedup::Accepted;
use crate::facts::{Growth, Jitter, Letter, Message, Now, Options, Seen};
use crate::item::{Item, Standing, State};
use crate::notices::Told;
use crate::ops::InOrder;
use millpond::{Cause, MessageId};
use millpond::{Offset, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

type Check = Result<(), String>;

/// What messages wait in.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    Key(Vec<u8>),
    Partition(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) topic: usize,
    /// Which of the names it has: those of groups that are gone are given again.
    pub(crate) name: usize,
    /// Removed, and nothing is left of it but its number.
    pub(crate) is_gone: bool,
    pub(crate) options: Options,
    pub(crate) items: BTreeMap<MessageId, Item>,
    pub(crate) letters: Vec<Letter>,
    /// Of messages that died just now, if that is to be told.
    pub(crate) told: Vec<Told>,
    /// Ever redriven, and ever dead: the ends of the hidden partitions.
    redriven: u64,
    died: u64,
    /// By partition: how many messages it does not want, which it may not have looked at.
    unwanted: BTreeMap<u64, u64>,
    /// The partition of the dead letters.
    dead: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct World {
    /// By topic and partition, all messages ever.
    pub(crate) topics: Vec<Vec<Vec<Message>>>,
    /// Which of the names each topic has.
    pub(crate) topic_names: Vec<usize>,
    pub(crate) gone_topics: BTreeSet<usize>,
    /// Those whose messages stay for ever.
    pub(crate) kept_topics: BTreeSet<usize>,
    /// The ids that each topic remembers, oldest first; what each producer of a topic comes to next; where cursors stand.
    pub(crate) accepted: BTreeMap<usize, VecDeque<Accepted>>,
    pub(crate) produced: BTreeMap<(usize, u8), u64>,
    /// Of each topic's unique keys, the message that has it, if that was pending when it was looked at last.
    pub(crate) owners: BTreeMap<(usize, u8), MessageId>,
    /// The topics in which somebody published under one.
    pub(crate) keyed: BTreeSet<usize>,
    pub(crate) cursors: BTreeMap<String, Vec<u8>>,
    /// Numbers are never given again: one that was removed stays in its place.
    pub(crate) groups: Vec<Group>,
    /// Of a topic's partition, what may have been gone when a group was removed.
    floors: BTreeMap<(usize, u32), u64>,
}

impl Group {
    fn delay(&self, attempt: u32) -> (u64, u64) {
        let (first, max) = (self.options.backoff_first, self.options.backoff_max);
        let full = match self.options.growth {
            Growth::Doubled => first.saturating_mul(1 << (attempt - 1).min(40)),
            Growth::Linear => first * u64::from(attempt),
            Growth::List(_) if attempt == 1 => first,
            Growth::List(second) => second,
        };
        let full = full.min(max);
        let least = match self.options.jitter {
            Jitter::None => full,
            Jitter::UpperHalf => full.div_ceil(2),
            Jitter::Full => 0,
        };
        (least, full)
    }

    /// Of an attempt that ended by its timeout, a crash or a close.
    fn unattended(&self, attempt: u32) -> (u64, u64) {
        if attempt < 2 { (0, 0) } else { self.delay(attempt) }
    }

    /// A message of its topic is for it if it wants it.
    fn publish(&mut self, message: &Message) {
        let is_typed = message.body.headers.iter().any(|(name, _)| name == "type");
        if self.options.wants_typed.is_none_or(|typed| typed == is_typed) {
            self.items.insert(message.id, Item::new(message.clone()));
        } else {
            *self.unwanted.entry(message.id.partition).or_default() += 1;
        }
    }

    /// How many messages at most may not have been looked at that it does not want.
    pub(crate) fn unwanted_max(&self, is_counted: impl Fn(u64) -> bool) -> u64 {
        self.unwanted.iter().filter(|(partition, _)| is_counted(**partition)).map(|(_, count)| count).sum()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.items.values().filter(|item| item.state != State::New).count()
    }

    /// Makes dead letters of messages, in whatever order.
    fn bury(&mut self, items: Vec<Item>, now: &Now) {
        let offsets = (self.died, self.died + items.len() as u64 - 1);
        self.died += items.len() as u64;
        for item in items {
            if self.options.notices {
                let (item, time) = (item.clone(), now.wall);
                self.told.push(Told { item, time, epoch: now.epoch, frame: now.frame });
            }
            let Item { message, attempts, failures, counts, .. } = item;
            let offset = Offset(offsets.0);
            let id = MessageId { epoch: now.epoch, partition: self.dead.into(), offset, ..message.id };
            let message = Message { id, stored: now.wall, frame: now.frame, ..message };
            self.letters.push(Letter { message, offsets, attempts, failures, counts });
        }
    }

    /// Messages that used up their attempts and were not moved yet.
    pub(crate) fn exhausted(&self, now: &Now) -> Vec<MessageId> {
        let exhausted = |item: &Item| item.standing(now).0 == Standing::Exhausted;
        self.items.iter().filter(|(_, item)| exhausted(item)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn give_up(&mut self, ids: &[MessageId], now: &Now) {
        let mut items: Vec<Item> = ids.iter().filter_map(|id| self.items.remove(id)).collect();
        for item in &mut items {
            if matches!(item.state, State::Leased { .. }) {
                item.fail(Cause::Expired, now.wall, "");
            }
        }
        if !items.is_empty() {
            self.bury(items, now);
        }
    }

    /// What a message is ordered by. Not those of other keys, or of other partitions.
    fn line_of(&self, id: &MessageId, item: &Item) -> Option<Line> {
        match self.options.order? {
            (InOrder::ByKey, _) => item.message.body.key.clone().map(Line::Key),
            (InOrder::ByPartition, _) => Some(Line::Partition(id.partition)),
        }
    }

    /// Whether as many of the message's key or partition are out as may be, not counting itself.
    fn is_blocked(&self, of: &MessageId) -> bool {
        let (Some((_, max)), Some(item)) = (self.options.order, self.items.get(of)) else { return false };
        let Some(line) = self.line_of(of, item) else { return false };
        let is_out = |(id, item): &(&MessageId, &Item)| {
            *id != of && item.state != State::New && self.line_of(id, item).as_ref() == Some(&line)
        };
        self.items.iter().filter(is_out).count() >= max as usize
    }

    /// How many new messages may at most wait for others, for all that can be known.
    pub(crate) fn parked_max(&self, is_counted: impl Fn(&MessageId) -> bool) -> u64 {
        let is_parked = |(id, item): &(&MessageId, &Item)| {
            item.state == State::New && self.line_of(id, item).is_some() && is_counted(id)
        };
        self.items.iter().filter(is_parked).count() as u64
    }

    /// A new message that must be delivered before this one, which is new.
    fn overtaken(&self, seen: &MessageId, now: &Now) -> Option<MessageId> {
        let item = self.items.get(seen)?;
        let line = self.line_of(seen, item);
        let first_redriven = u64::from(self.dead) - 1;
        let is_before = |(id, other): &(&MessageId, &Item)| {
            let earlier = id.partition == seen.partition && id.offset < seen.offset;
            // Redriven messages come before the others of their keys.
            let redriven = id.partition == first_redriven
                && seen.partition != first_redriven
                && other.message.is_visible(now) == Some(true);
            match self.options.order {
                Some((InOrder::ByKey, _)) => (earlier || redriven) && line.is_some() && self.line_of(id, other) == line,
                Some((InOrder::ByPartition, _)) | None => earlier,
            }
        };
        let new = self.items.iter().filter(|(_, item)| item.state == State::New);
        new.into_iter().find(is_before).map(|(id, _)| *id)
    }

    /// Something that a consumer must get, unless an exclusive lease stands in the way.
    pub(crate) fn must_deliver(&self, now: &Now) -> Option<MessageId> {
        if self.options.paused {
            return None;
        }
        let below_cap = self.outstanding() < self.options.max_outstanding as usize && self.in_flight_room() > 0;
        let deliverable = |id: &MessageId, item: &Item| match item.standing(now) {
            // One whose lease has ended has its place.
            (Standing::Due, certain) => {
                certain && (self.in_flight_room() > 0 || matches!(item.state, State::Leased { .. }))
            }
            // Where its key is free, this one or one before it comes.
            (Standing::New, certain) => certain && below_cap && !self.is_blocked(id),
            _ => false,
        };
        self.items.iter().find(|(id, item)| deliverable(id, item)).map(|(id, _)| *id)
    }

    /// How many more may be leased at once: a lease that has ended keeps its place.
    fn in_flight_room(&self) -> usize {
        let leased = self.items.values().filter(|item| matches!(item.state, State::Leased { .. })).count();
        match self.options.max_in_flight {
            0 => usize::MAX,
            max => (max as usize).saturating_sub(leased),
        }
    }

    pub(crate) fn holds(&self, id: MessageId, ticket: u64) -> bool {
        let lease = self.items.get(&id).map(|item| &item.state);
        matches!(lease, Some(State::Leased { ticket: holder, .. }) if *holder == ticket)
    }

    /// For how long a lease lasts, if it is held.
    pub(crate) fn lease_left(&self, lease: (MessageId, u64), now: &Now) -> Option<Duration> {
        match self.items.get(&lease.0)?.state {
            State::Leased { until, ticket, .. } if ticket == lease.1 => {
                Some(Duration::from_millis(until.saturating_sub(now.mono)))
            }
            _ => None,
        }
    }

    pub(crate) fn ack(&mut self, id: MessageId) {
        self.items.remove(&id);
    }

    pub(crate) fn nack(&mut self, id: MessageId, delay: Option<u64>, text: &str, now: &Now) {
        let Some(mut item) = self.items.remove(&id) else { return };
        item.fail(Cause::Nacked, now.wall, text);
        item.is_over = false;
        let max_nacks = self.options.limits[0];
        if item.limit > 0 && item.attempts >= item.limit || max_nacks > 0 && item.counts[0] >= max_nacks {
            return self.bury(vec![item], now);
        }
        let delay = delay.map_or_else(|| self.delay(item.attempts), |delay| (delay, delay));
        let due = due(now.wall, delay);
        item.state = if delay.1 == 0 { State::Ready } else { State::Waiting { due, delay } };
        self.items.insert(id, item);
    }

    /// As if it had not been delivered: but for a message that waited to go alone, which still does.
    pub(crate) fn release(&mut self, id: MessageId) {
        if let Some(item) = self.items.get_mut(&id) {
            item.attempts -= 1;
            item.closes = 0;
            item.is_over = false;
            item.state = State::Ready;
        }
    }

    pub(crate) fn reject(&mut self, id: MessageId, text: &str, now: &Now) {
        let Some(mut item) = self.items.remove(&id) else { return };
        item.fail(Cause::Rejected, now.wall, text);
        self.bury(vec![item], now);
    }

    /// Letters of which no one knows in what order they died.
    pub(crate) fn has_unordered_letters(&self) -> bool {
        self.letters.iter().any(|letter| letter.offsets.0 < letter.offsets.1)
    }

    pub(crate) fn letter(&self, id: MessageId) -> Option<&Letter> {
        self.letters.iter().find(|letter| letter.message.id == id)
    }

    pub(crate) fn discard(&mut self, id: MessageId) -> Option<Letter> {
        let at = self.letters.iter().position(|letter| letter.message.id == id)?;
        Some(self.letters.remove(at))
    }

    /// Holds what was listed against the dead letters that are there, and learns their ids.
    pub(crate) fn match_letters(&mut self, listed: &[Letter], now: &Now) -> Check {
        let mut unseen = std::mem::take(&mut self.letters);
        for found in listed {
            let at = unseen
                .iter()
                .position(|letter| letter.is_seen_as(found) && letter.message.is_visible(now) != Some(false));
            let mut letter = unseen.remove(at.ok_or_else(|| format!("listed {found:?}, expected one of {unseen:?}"))?);
            letter.message.id = found.message.id;
            letter.offsets = found.offsets;
            self.letters.push(letter);
        }
        let missing = unseen.iter().find(|letter| letter.message.is_visible(now) == Some(true));
        self.letters.append(&mut unseen.clone());
        missing.map_or(Ok(()), |letter| Err(format!("not listed: {letter:?}")))
    }
}

/// When a message is due that waits from `wall` on. One that may wait no time at all may be ready whatever the clock says.
fn due(wall: u64, delay: (u64, u64)) -> (u64, u64) {
    (if delay.0 == 0 { 0 } else { wall + delay.0 }, wall + delay.1)
}

impl World {
    pub(crate) fn create_topic(&mut self, name: usize, partitions: u32, is_kept: bool) {
        if is_kept {
            self.kept_topics.insert(self.topics.len());
        }
        self.topics.push(vec![Vec::new(); partitions as usize]);
        self.topic_names.push(name);
    }

    pub(crate) fn create_group(&mut self, topic: usize, name: usize, options: Options, starts: &[u64]) {
        self.let_go_keys();
        let from = |(messages, start): (&Vec<Message>, &u64)| messages[*start as usize..].to_vec();
        let all: Vec<Message> = self.topics[topic].iter().zip(starts).flat_map(from).collect();
        let dead = self.topics[topic].len() as u32 + 2 * self.groups.len() as u32 + 1;
        let (letters, told, is_gone, number) = (Vec::new(), Vec::new(), false, self.groups.len());
        let (items, unwanted) = (BTreeMap::new(), BTreeMap::new());
        let (redriven, died) = (0, 0);
        self.groups.push(Group { topic, name, is_gone, options, items, letters, told, redriven, died, unwanted, dead });
        all.iter().for_each(|message| self.groups[number].publish(message));
        self.let_go_keys();
    }

    /// A message is pending while its topic has no group, or one that has not settled it. Afterwards it never is again.
    pub(crate) fn let_go_keys(&mut self) {
        let mut owners = std::mem::take(&mut self.owners);
        owners.retain(|(topic, _), id| {
            let mut groups = self.groups.iter().filter(|group| group.topic == *topic && !group.is_gone).peekable();
            groups.peek().is_none() || groups.any(|group| group.items.contains_key(id))
        });
        self.owners = owners;
    }

    /// Options are for leases and failures from now on: each message keeps the limit under which it was leased last.
    pub(crate) fn alter_group(&mut self, group: usize, options: &Options) {
        self.groups[group].options = options.clone();
    }

    /// How many messages of its topic a group has not settled, and how many of these are leased, by leases that are over or not.
    pub(crate) fn before_seek(&self, group: usize) -> (u64, u64) {
        let (group, partitions) = (&self.groups[group], self.topics[self.groups[group].topic].len() as u64);
        let items = || group.items.iter().filter(|(id, _)| id.partition < partitions).map(|(_, item)| item);
        let leased = items().filter(|item| matches!(item.state, State::Leased { .. })).count();
        (items().count() as u64, leased as u64)
    }

    /// A group goes on at `starts`, and keeps what is not settled from `from` on up to there, as if it had been released. Returns how much
    /// that is.
    pub(crate) fn seek(&mut self, group: usize, from: &[u64], starts: &[u64]) -> u64 {
        self.let_go_keys();
        let topic = self.groups[group].topic;
        let group = &mut self.groups[group];
        let is_here = |id: &MessageId| (id.partition as usize) < starts.len();
        let is_kept = |id: &MessageId| {
            let (from, start) = (from[id.partition as usize], starts[id.partition as usize]);
            (from..start).contains(&id.offset.0)
        };
        group.items.retain(|id, _| !is_here(id) || is_kept(id));
        let mut kept = 0;
        for (_, item) in group.items.iter_mut().filter(|(id, _)| is_here(id)) {
            kept += 1;
            let state = if item.state == State::New { State::New } else { State::Ready };
            *item = Item { state, ..Item::new(item.message.clone()) };
        }
        group.unwanted.clear();
        for (messages, start) in self.topics[topic].iter().zip(starts) {
            messages[*start as usize..].iter().for_each(|message| group.publish(message));
        }
        kept
    }

    /// Nothing that it held is outstanding, leased or dead any more.
    pub(crate) fn remove_group(&mut self, group: usize) {
        self.let_go_keys();
        let topic = self.groups[group].topic;
        for partition in 0..self.topics[topic].len() as u32 {
            let floor = self.settled_before(topic, partition);
            self.floors.insert((topic, partition), floor);
        }
        let group = &mut self.groups[group];
        group.is_gone = true;
        group.items.clear();
        group.letters.clear();
        self.let_go_keys();
    }

    /// The messages stay here, for their ids name them for ever.
    pub(crate) fn remove_topic(&mut self, topic: usize) {
        for group in self.living_groups() {
            if self.groups[group].topic == topic {
                self.remove_group(group);
            }
        }
        self.gone_topics.insert(topic);
        self.accepted.remove(&topic);
        self.owners.retain(|(of, _), _| *of != topic);
        self.produced.retain(|(of, _), _| *of != topic);
    }

    pub(crate) fn living_topics(&self) -> Vec<usize> {
        (0..self.topics.len()).filter(|topic| !self.gone_topics.contains(topic)).collect()
    }

    pub(crate) fn living_groups(&self) -> Vec<usize> {
        (0..self.groups.len()).filter(|group| !self.groups[*group].is_gone).collect()
    }

    /// Puts a message at the end of a partition, for every group of the topic.
    pub(crate) fn publish(&mut self, topic: usize, message: &Message) {
        self.topics[topic][message.id.partition as usize].push(message.clone());
        for group in self.groups.iter_mut().filter(|group| group.topic == topic && !group.is_gone) {
            group.publish(message);
        }
    }

    /// Every group has settled what stands before this in a partition of a topic, or had when one was removed, so it may be gone.
    pub(crate) fn settled_before(&self, topic: usize, partition: u32) -> u64 {
        if self.kept_topics.contains(&topic) {
            return 0;
        }
        let end = self.topics[topic][partition as usize].len() as u64;
        let first = |group: &Group| {
            let kept = group.items.keys().find(|id| id.partition == u64::from(partition));
            kept.map_or(end, |id| id.offset.0)
        };
        let least = self.groups.iter().filter(|group| group.topic == topic && !group.is_gone).map(first).min();
        least.unwrap_or(0).max(self.floors.get(&(topic, partition)).copied().unwrap_or(0))
    }

    fn leases(&self, now: &Now) -> impl Iterator<Item = bool> {
        let items = self.groups.iter().flat_map(|group| group.items.values());
        items.filter_map(move |item| match item.state {
            State::Leased { until, exclusive, .. } if until > now.mono => Some(exclusive),
            _ => None,
        })
    }

    /// Whether some message may hold all others back because it has to go alone. When, is left open.
    pub(crate) fn may_hold_back(&self, now: &Now) -> bool {
        if !now.isolates {
            return false;
        }
        let alone = |group: &Group| {
            group.items.values().any(|item| item.goes_alone() && item.standing(now).0 != Standing::Exhausted)
        };
        self.leases(now).any(|exclusive| exclusive) || self.groups.iter().any(alone)
    }

    /// A lease is to last longer (never shorter), or was found to be `lost` for that. One that expired is not prolonged beside an exclusive one,
    /// nor is an exclusive one that expired.
    pub(crate) fn extend(&mut self, group: usize, lease: (MessageId, u64), by: u64, now: &Now, lost: bool) -> Check {
        let held_back = self.may_hold_back(now);
        let item = self.groups[group].items.get_mut(&lease.0).map(|item| &mut item.state);
        match item {
            Some(State::Leased { until, ticket, exclusive, .. }) if *ticket == lease.1 => {
                let (is_over, is_longer) = (*until <= now.mono, now.mono + by > *until);
                let may_be_lost = is_over && (held_back || *exclusive);
                match lost {
                    true if may_be_lost => {}
                    true => return Err("the lease was lost, and it was held".to_owned()),
                    false if is_longer => *until = now.mono + by,
                    false => {}
                }
                Ok(())
            }
            _ if lost => Ok(()),
            _ => Err("a lost lease was extended".to_owned()),
        }
    }

    /// Somebody gets a lease beside others: none of them is alone from here on.
    fn end_exclusive(&mut self, now: &Now) {
        for item in self.groups.iter_mut().flat_map(|group| group.items.values_mut()) {
            if let State::Leased { until, exclusive, .. } = &mut item.state {
                *exclusive &= *until <= now.mono;
            }
        }
    }

    /// Takes one delivery into account, or says why it should not have been.
    pub(crate) fn deliver(&mut self, group: usize, seen: &Seen, now: &Now) -> Check {
        let any_lease = self.leases(now).next().is_some();
        self.end_exclusive(now);
        let mut is_over = false;
        let pause = {
            let group = &self.groups[group];
            group.items.get(&seen.id).map_or((0, 0), |item| {
                let (attempt, max) = (item.attempts + 1, group.options.max_attempts);
                let expired = u32::from(matches!(item.state, State::Leased { .. }));
                let max_expiries = group.options.limits[1];
                is_over = max_expiries > 0 && item.counts[1] + expired + 1 >= max_expiries;
                // Nothing waits for an attempt that there will not be.
                if is_over || max > 0 && attempt >= max { (0, 0) } else { group.unattended(attempt) }
            })
        };
        let group = &mut self.groups[group];
        let (max, cap, outstanding) = (group.options.max_attempts, group.options.max_outstanding, group.outstanding());
        let until = now.mono + group.options.visibility_timeout;
        let (paused, in_flight_room) = (group.options.paused, group.in_flight_room());
        let (overtaken, is_blocked) = (group.overtaken(&seen.id, now), group.is_blocked(&seen.id));
        let Some(item) = group.items.get_mut(&seen.id) else {
            return Err(format!("{} was delivered and is not outstanding", seen.id));
        };
        let id = seen.id;
        if paused {
            return Err(format!("{id} was delivered to a paused group"));
        }
        if in_flight_room == 0 && !matches!(item.state, State::Leased { .. }) && !item.goes_alone() {
            return Err(format!("{id} was delivered beside too many others: {item:?}"));
        }
        match item.standing(now).0 {
            Standing::New if overtaken.is_some() => return Err(format!("{id} was delivered before {overtaken:?}")),
            Standing::New if is_blocked => return Err(format!("{id} was delivered beside others of its key")),
            Standing::New if outstanding >= cap as usize => return Err(format!("{id} was delivered above the cap")),
            Standing::New | Standing::Due => {}
            other => return Err(format!("{id} was delivered and is {other:?}: {item:?}")),
        }
        if matches!(item.state, State::Leased { .. }) {
            item.fail(Cause::Expired, now.wall, "");
        }
        if seen.counts != item.counts {
            return Err(format!("{id} says that it failed {:?} times: {item:?}", seen.counts));
        }
        let exclusive = item.goes_alone() && !any_lease;
        item.attempts += 1;
        item.limit = max;
        item.is_over = is_over;
        item.state = State::Leased { until, ticket: seen.ticket, exclusive, pause };
        let message = &item.message;
        if (seen.attempt, seen.origin, seen.published) != (item.attempts, message.origin, message.published) {
            return Err(format!("{id} has attempt, origin or time wrong: {seen:?}, expected {item:?}"));
        }
        if seen.body != *message.body { Err(format!("{id} has other bytes: {seen:?}")) } else { Ok(()) }
    }

    /// Sends a dead letter back to its group.
    pub(crate) fn redrive(&mut self, group: usize, letter: MessageId, now: &Now) {
        let partitions = self.topics[self.groups[group].topic].len() as u32;
        let target = &mut self.groups[group];
        let Some(Letter { message, .. }) = target.discard(letter) else { return };
        let (topic, partition) = (TopicId(target.topic as u64), u64::from(partitions) + 2 * group as u64);
        let id = MessageId { topic, partition, epoch: now.epoch, offset: Offset(target.redriven) };
        target.redriven += 1;
        target.items.insert(id, Item::new(Message { id, stored: now.wall, frame: now.frame, ..message }));
    }

    /// Publishes a dead letter to a partition of a topic.
    pub(crate) fn redrive_to(&mut self, group: usize, letter: MessageId, (topic, partition): (usize, u32), now: &Now) {
        let Some(Letter { message, .. }) = self.groups[group].discard(letter) else { return };
        let offset = Offset(self.topics[topic][partition as usize].len() as u64);
        let id = MessageId { topic: TopicId(topic as u64), partition: partition.into(), epoch: now.epoch, offset };
        let redrives = message.redrives + 1;
        self.publish(topic, &Message { id, stored: now.wall, frame: now.frame, redrives, ..message });
    }

    pub(crate) fn has(&self, id: MessageId) -> bool {
        let partition = self.topics.get(id.topic.0 as usize).and_then(|topic| topic.get(id.partition as usize));
        partition.and_then(|messages| messages.get(id.offset.0 as usize)).is_some_and(|message| message.id == id)
    }

    /// A process begins: all leases end, and no wait is longer than it was meant to be.
    pub(crate) fn open(&mut self, clean: bool, wall: u64) {
        for group in &mut self.groups {
            let delays: Vec<_> = group.items.values().map(|item| group.unattended(item.attempts)).collect();
            let (max_closes, max_crashes) = (group.options.max_closes, group.options.limits[2]);
            for (item, delay) in group.items.values_mut().zip(delays) {
                let State::Leased { exclusive, .. } = item.state else { continue };
                item.state = State::Ready;
                item.is_over = false;
                if clean && item.closes < max_closes {
                    (item.attempts, item.closes) = (item.attempts - 1, item.closes + 1);
                    continue;
                }
                item.fail(if clean { Cause::Closed } else { Cause::Crashed }, wall, "");
                item.once_more = !clean && !exclusive;
                if !clean && max_crashes > 0 {
                    let is_spent = item.limit > 0 && item.attempts >= item.limit;
                    item.is_over = item.crashes >= max_crashes;
                    item.is_alone = item.crashes + 1 == max_crashes && !(exclusive && is_spent);
                }
                if delay.1 > 0 && !item.is_exhausted() {
                    item.state = State::Waiting { due: due(wall, delay), delay };
                }
            }
        }
        self.clamp(wall);
    }

    /// The wall clock was found to have jumped.
    pub(crate) fn clamp(&mut self, wall: u64) {
        for item in self.groups.iter_mut().flat_map(|group| group.items.values_mut()) {
            if let State::Waiting { due, delay } = &mut item.state {
                *due = (due.0.min(wall + delay.0), due.1.min(wall + delay.1));
            }
        }
    }

    /// Whether messages wait; `surely`: and cannot be ready instead.
    pub(crate) fn has_waits(&self, surely: bool) -> bool {
        let mut items = self.groups.iter().flat_map(|group| group.items.values());
        items.any(|item| matches!(item.state, State::Waiting { delay, .. } if delay.0 > 0 || !surely))
    }

    pub(crate) fn unsettled(&self) -> Vec<MessageId> {
        self.groups.iter().flat_map(|group| group.items.keys().copied()).collect()
    }
}
