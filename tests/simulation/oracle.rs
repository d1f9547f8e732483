//! What was promised, and whether it is so.
//!
//! Every operation that returned is noted with the end of the log at that time. Recovery says where the log ends now;
//! since what survives is a prefix (G2), that decides exactly which operations there were. Only the operation in which the
//! process died may be there or not.

use crate::later::Later;
use crate::removal::Standing;
use crate::streams::Events;
use crate::unique::Uniques;
use millpond::{MessageId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// A published message.
#[derive(Clone, Debug)]
pub struct Sent {
    pub number: u64,
    pub topic: usize,
    /// The log's end when the publish had returned.
    pub end: u64,
}

/// What a cursor was set to, and the log's end then, or later where that is not sure.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    pub number: u64,
    pub end: u64,
    pub is_sure: bool,
}

/// One group's view of one message, by the message's origin.
pub type Key = (usize, MessageId);

#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub sent: BTreeMap<MessageId, Sent>,
    /// Numbers that a publish used which did not return `Ok`, with their topic.
    pub unsure: BTreeMap<u64, usize>,
    /// When each message was acked, by the log's end after it.
    pub acked: BTreeMap<Key, u64>,
    /// Acks that did not return `Ok`.
    pub maybe_acked: BTreeSet<Key>,
    /// Letters that were thrown away, and attempts at that.
    /// The numbers of messages that groups with a filter do not want.
    pub unwanted: BTreeSet<u64>,
    pub discarded: BTreeMap<Key, u64>,
    pub maybe_discarded: BTreeSet<Key>,
    /// Letters redriven to a topic: from then on any group of that topic may see the message.
    pub moved: BTreeSet<Key>,
    /// Groups that went on from elsewhere, and messages that died in a group or were redriven to it.
    pub sought: BTreeSet<usize>,
    pub died: BTreeSet<Key>,
    /// Groups in which any message may have died.
    pub any_died: BTreeSet<usize>,
    /// Which number an id stood for when it was first seen: for ever (G11).
    pub names: BTreeMap<MessageId, u64>,
    /// Where readers of logs saw each message.
    pub positions: BTreeMap<MessageId, Position>,
    /// The highest watermark seen, and the highest end.
    pub durable: u64,
    pub end: u64,
    /// The fingerprint of the state at each end seen.
    pub hashes: BTreeMap<u64, u64>,
    /// The last attempt at each message of a group that a consumer saw, and the log's end then.
    pub attempts: BTreeMap<(usize, MessageId), (u32, u64)>,
    /// Those of them that this process delivered and that were not settled for sure.
    pub out: BTreeSet<(usize, MessageId)>,
    /// What is known of each group, but for its messages.
    pub groups: BTreeMap<usize, Standing>,
    /// Messages that were published under ids, or tried so: topic and number.
    pub identified: Vec<(usize, u64)>,
    /// The first message of each that was accepted for sure, and the log's end then.
    pub accepted: BTreeMap<(usize, u64), (MessageId, u64)>,
    /// The wall clock was set at some time.
    pub clock_is_set: bool,
    /// The wall clock was set and no job has seen it.
    pub clock_was_set: bool,
    /// The log's end when a job had seen it.
    pub clock_noted: u64,
    /// What the cursor was set to.
    pub stands: Vec<Stand>,
    /// Setting it did not return.
    pub stands_elsewhere: bool,
    /// Those of the stream.
    pub events: Events,
    /// Messages for later.
    pub later: Later,
    pub uniques: Uniques,
    published: u64,
}

/// What the message of this number holds. Odd numbers are large: three fill a segment of the smallest size.
pub fn payload(number: u64) -> Vec<u8> {
    let len = match (number % 2, (number / 2) % 17) {
        (1, n) => 20_000 + (n as usize) * 500,
        (_, 0) => 8,
        (_, 1) => 3_000,
        (_, 2) => 513,
        (_, n) => 8 + (n as usize) * 11,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    // Long runs of zeros look like unwritten disk, and must not matter.
    bytes.resize(len, if number.is_multiple_of(3) { 0 } else { number as u8 });
    bytes
}

pub fn number_of(bytes: &[u8]) -> Result<u64, String> {
    let number = bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or("a payload too short")?;
    if payload(number) == bytes { Ok(number) } else { Err(format!("payload {number} has other bytes (G4)")) }
}

impl Oracle {
    /// A number that no message had.
    pub fn number(&mut self, large: bool) -> u64 {
        self.published += 1;
        (self.published - 1) * 2 + u64::from(large)
    }

    /// A consumer saw this attempt, when the log ended at `end`: each is charged before it is seen, so none comes twice (G9).
    pub fn attempt(&mut self, key: (usize, MessageId), attempt: u32, end: u64) -> Result<(), String> {
        self.out.insert(key);
        match self.attempts.insert(key, (attempt, end)) {
            Some((before, _)) if before >= attempt => {
                Err(format!("attempt {attempt} at {} comes after attempt {before} (G9)", key.1))
            }
            _ => Ok(()),
        }
    }

    /// The process before has ended: by an orderly close, which charges nothing, or not.
    pub fn process_ended(&mut self, orderly: bool) {
        // Time that passes while a store is closed is the wall clock's.
        if std::mem::take(&mut self.clock_was_set) {
            self.accepted.clear();
        }
        for place in std::mem::take(&mut self.out).into_iter().filter(|_| orderly) {
            self.attempts.entry(place).and_modify(|(attempt, _)| *attempt = attempt.saturating_sub(1));
        }
    }

    /// Takes in where the log stands.
    pub fn saw(&mut self, end: u64, durable: u64) -> Result<(), String> {
        if durable < self.durable || end < self.end {
            return Err(format!("the log went back: end {} -> {end}, durable {} -> {durable}", self.end, self.durable));
        }
        (self.end, self.durable) = (end, durable);
        Ok(())
    }

    /// An id was seen with a payload: it must always be the same one.
    pub fn name(&mut self, id: MessageId, bytes: &[u8]) -> Result<u64, String> {
        let number = number_of(bytes)?;
        if number / 2 >= self.published {
            return Err(format!("payload {number} was never published (G4)"));
        }
        match self.names.insert(id, number) {
            Some(other) if other != number => Err(format!("{id} named {other} and names {number} (G11)")),
            _ => Ok(number),
        }
    }

    /// The store was opened after a crash and its log ends at `end`: forgets what was not there any more.
    pub fn recovered(&mut self, end: u64, power: bool) -> Result<(), String> {
        // Marks at the end say nothing that must survive: what counts is the last operation.
        let last = |below: u64| {
            let ends = self.sent.values().map(|sent| sent.end).chain(self.acked.values().copied());
            let ends = ends.chain(self.events.known.iter().filter(|event| event.is_sure).map(|event| event.end));
            let ends = ends.chain(self.stands.iter().filter(|stand| stand.is_sure).map(|stand| stand.end));
            ends.chain(self.discarded.values().copied()).filter(|at| *at <= below).max().unwrap_or(0)
        };
        if end < last(self.durable) {
            return Err(format!("the log ends at {end}, below the watermark {} (G1, G2)", self.durable));
        }
        if !power && end < last(u64::MAX) {
            return Err(format!("a process crash took the log back from {} to {end} (G1)", self.end));
        }
        // That the clock was set is forgotten with its record.
        if self.clock_noted > end {
            self.accepted.clear();
        }
        if self.clock_was_set || self.clock_noted > end {
            self.later.lost_the_clock(&mut self.sent, &mut self.unsure);
        }
        self.accepted.retain(|_, (_, at)| *at <= end);
        self.stands_elsewhere |= self.stands.iter().any(|stand| stand.end > end && !stand.is_sure);
        self.stands.retain(|stand| stand.end <= end);
        self.events.recovered(end);
        self.later.recovered(end, &mut self.sent);
        self.uniques.recovered(end, &mut self.sent);
        self.sent.retain(|_, sent| sent.end <= end);
        self.acked.retain(|_, at| *at <= end);
        self.discarded.retain(|_, at| *at <= end);
        self.attempts.retain(|_, (_, at)| *at <= end);
        self.hashes.retain(|at, _| *at <= end);
        self.end = end;
        // An open makes durable what it serves.
        self.durable = end;
        Ok(())
    }

    /// Checks what draining every group gave: what it delivered, and its dead letters, by origin.
    pub fn check_drained(
        &self,
        group: usize,
        (topic, has_filter): (usize, bool),
        got: &BTreeMap<MessageId, u64>,
        dead: &BTreeSet<MessageId>,
    ) -> Result<(), String> {
        let born = self.groups.get(&group).map_or(0, |standing| standing.born);
        for (id, sent) in self.sent.iter().filter(|(_, sent)| sent.topic == topic) {
            let key = (group, *id);
            let settled = self.acked.contains_key(&key) || self.discarded.contains_key(&key);
            let maybe =
                self.maybe_acked.contains(&key) || self.maybe_discarded.contains(&key) || self.moved.contains(&key);
            let there = got.contains_key(id) || dead.contains(id);
            let is_moved = self.moved.contains(&key) || self.is_doubled(&key);
            if settled && there && !is_moved {
                return Err(format!("group {group} was given {id} (number {}) again after its ack (G6)", sent.number));
            }
            let is_filtered = has_filter && self.unwanted.contains(&sent.number);
            if is_filtered && there {
                return Err(format!("group {group} was given {id} (number {}), which it does not want", sent.number));
            }
            if !settled && !maybe && !there && !is_filtered && sent.end > born {
                return Err(format!("group {group} lost {id} (number {}) (G1, G5)", sent.number));
            }
            if got.contains_key(id) && dead.contains(id) && !is_moved {
                return Err(format!("{id} is in group {group} and in its dead letters (G10)"));
            }
        }
        for (id, number) in got {
            let known = self.sent.get(id).is_some_and(|sent| sent.number == *number);
            let moved = self.moved.iter().any(|(_, origin)| origin == id);
            if !known && !self.unsure.contains_key(number) && !moved {
                return Err(format!("group {group} was given {id} (number {number}), which was not published (G4)"));
            }
        }
        Ok(())
    }
}
