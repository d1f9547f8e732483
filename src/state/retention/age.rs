//! Retention by age: how far each topic that has one has come, by marks in its past.
//!
//! A mark is a store time with the ends that the partitions had then. Once it is as old as the topic keeps its messages, all before those
//! ends are no longer kept. So no message has a time of its own here, and no jump of a clock makes one old. Never here: clocks.

use crate::ids::{Offset, StoreMs, TopicId};
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::record::{Record, Retention};
use crate::state::message::{Applied, require};
use crate::state::snapshot::{Gaps, put_gap};
use crate::state::topic::TopicCatalog;
use crate::state::{Inputs, Rejection, State};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A topic is marked so often within the time that it keeps its messages: they go at most that part of it late.
const MARKS: u64 = 16;
/// The most marks: those of that time, the last that is over, and the next.
const MARKS_MAX: usize = MARKS as usize + 2;

/// The topics that keep their messages for a time.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Ages {
    of: BTreeMap<TopicId, Arc<TopicAges>>,
}

/// How far a topic has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct TopicAges {
    /// Of each partition, from where on messages are kept.
    kept_from: Vec<Offset>,
    /// In order of their times.
    marks: VecDeque<AgeMark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct AgeMark {
    time: StoreMs,
    ends: Vec<Offset>,
}

/// What a snapshot has of them.
pub(in crate::state) type AgesSnapshot = Vec<(TopicId, Arc<TopicAges>)>;

/// For how long a topic keeps its messages, in milliseconds, if for a time.
fn age_of(catalog: &TopicCatalog, topic: TopicId) -> Option<u64> {
    match catalog.topic(topic)?.options.retention {
        Retention::Age(age) => u64::try_from(age.as_millis()).ok(),
        Retention::UntilSettled | Retention::Forever | Retention::Count(_) => None,
    }
}

impl TopicAges {
    pub(in crate::state) fn kept_from(&self, index: u32) -> Offset {
        self.kept_from.get(index as usize).copied().unwrap_or_default()
    }

    /// Whether the last mark is so long ago that another may follow: so there are never more than may be.
    fn is_apart(&self, age: u64, now: StoreMs) -> bool {
        self.marks.back().is_none_or(|mark| mark.time.0.saturating_add(age.div_ceil(MARKS)) <= now.0)
    }

    /// The ends at the last mark, or where it has none what is kept no longer.
    fn last_ends(&self) -> &[Offset] {
        self.marks.back().map_or(&self.kept_from, |mark| &mark.ends)
    }
}

impl Ages {
    /// The caller has checked that there is no such topic.
    pub(in crate::state) fn add(&mut self, topic: TopicId, partitions: u32) {
        let kept_from = vec![Offset(0); partitions as usize];
        self.of.insert(topic, Arc::new(TopicAges { kept_from, marks: VecDeque::new() }));
    }

    pub(in crate::state) fn forget(&mut self, topic: TopicId) {
        self.of.remove(&topic);
    }

    pub(in crate::state) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(in crate::state) fn of(&self, topic: TopicId) -> Option<&TopicAges> {
        self.of.get(&topic).map(Arc::as_ref)
    }

    pub(in crate::state) fn snapshot(&self) -> AgesSnapshot {
        self.of.iter().map(|(topic, ages)| (*topic, Arc::clone(ages))).collect()
    }
}

impl State {
    /// The first topic that a mark at this store time would change: its oldest is over, or messages came since its last, which is some
    /// time ago.
    pub(crate) fn next_to_mark(&self, now: StoreMs) -> Option<TopicId> {
        self.ages.of.keys().copied().find(|topic| self.is_to_mark(*topic, now))
    }

    fn is_to_mark(&self, topic: TopicId, now: StoreMs) -> bool {
        let (Some(ages), Some(age)) = (self.ages.of(topic), age_of(&self.catalog, topic)) else { return false };
        let is_over = ages.marks.front().is_some_and(|mark| mark.time.0.saturating_add(age) <= now.0);
        let is_due = ages.is_apart(age, now);
        let marked: u128 = ages.last_ends().iter().map(|end| u128::from(end.0)).sum();
        let has_more = self.catalog.audience(topic).is_some_and(|audience| audience.published > marked);
        is_over || is_due && has_more
    }

    pub(in crate::state) fn decide_mark_retention(
        &self,
        topic: TopicId,
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        let time = self.store_time(inputs.steady);
        let is_later = self.ages.of(topic).is_some_and(|ages| ages.marks.back().is_none_or(|mark| mark.time <= time));
        if !is_later || !self.is_to_mark(topic, time) {
            return Err(Rejection::Stale);
        }
        Ok(Record::RetentionMarked { topic, time })
    }

    pub(in crate::state) fn apply_retention_marked(&mut self, topic: TopicId, time: StoreMs) -> Applied {
        let age = age_of(&self.catalog, topic).ok_or(Rejection::UnknownTopic)?;
        let of = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        let ends: Vec<Offset> = of.partitions().map(|partition| self.catalog.end(partition)).collect();
        let ages = self.ages.of.get_mut(&topic).ok_or(Rejection::UnknownTopic)?;
        require(ages.marks.back().is_none_or(|mark| mark.time <= time), "marks of a topic follow each other in time")?;
        let over = ages.marks.iter().take_while(|mark| mark.time.0.saturating_add(age) <= time.0).count();
        // seam: marks come close together
        let is_new = ages.last_ends() != ends && ages.is_apart(age, time);
        require(ages.marks.len() - over + usize::from(is_new) <= MARKS_MAX, "a topic has more marks than it may")?;
        let ages = Arc::make_mut(ages);
        // seam: a message is kept for less than its time
        for mark in ages.marks.drain(..over) {
            ages.kept_from = mark.ends;
        }
        if is_new {
            ages.marks.push_back(AgeMark { time, ends });
        }
        self.let_go_passed_of(topic);
        Ok(())
    }

    /// From where on a topic keeps the messages of a partition, whichever groups settled them.
    pub(in crate::state) fn kept_from(&self, topic: TopicId, index: u32) -> Offset {
        let Some(of) = self.catalog.topic(topic) else { return Offset(u64::MAX) };
        kept_from(of.options.retention, self.catalog.end(of.first.nth(index)), || {
            self.ages.of(topic).map(|ages| ages.kept_from(index))
        })
    }

    /// Whether what is kept of the ages agrees with the topics.
    pub(in crate::state) fn check_ages(&self, fault: &mut impl FnMut(&'static str)) {
        for (id, topic) in self.catalog.topics() {
            let has_age = matches!(topic.options.retention, Retention::Age(_));
            if has_age != self.ages.of.contains_key(&id) {
                fault("a topic that keeps its messages for a time is not known as one");
            }
        }
        for (id, ages) in &self.ages.of {
            let of = self.catalog.topic(*id).map_or(0, |topic| topic.count as usize);
            let whole = ages.marks.iter().all(|mark| mark.ends.len() == of) && ages.kept_from.len() == of;
            if !whole || ages.marks.len() > MARKS_MAX {
                fault("the marks of a topic are not of its partitions");
            }
        }
    }
}

/// From where on messages of a partition that ends at `end` are kept by a retention; `by_age` says it for one by age.
pub(in crate::state) fn kept_from(
    retention: Retention,
    end: Offset,
    by_age: impl FnOnce() -> Option<Offset>,
) -> Offset {
    match retention {
        Retention::UntilSettled => Offset(u64::MAX),
        // seam: nothing is kept for ever
        Retention::Forever => Offset(0),
        // seam: fewer are kept than the last so many
        Retention::Count(count) => Offset(end.0.saturating_sub(count)),
        Retention::Age(_) => by_age().unwrap_or_default(),
    }
}

/// ```text
/// count of topics, then each: gap, from where on each partition's messages are kept, count of marks, then each: time, end of each partition
/// ```
pub(in crate::state) fn encode(ages: &AgesSnapshot, out: &mut Vec<u8>) {
    put_varint(out, ages.len() as u64);
    let mut next = 0;
    for (topic, ages) in ages {
        put_gap(out, topic.0, &mut next);
        ages.kept_from.iter().for_each(|offset| put_varint(out, offset.0));
        put_varint(out, ages.marks.len() as u64);
        for mark in &ages.marks {
            put_varint(out, mark.time.0);
            mark.ends.iter().for_each(|offset| put_varint(out, offset.0));
        }
    }
}

/// The shortest of each, so that a count is never believed beyond the bytes.
const AGES_LEN_MIN: usize = 3;
const MARK_LEN_MIN: usize = 2;

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>, catalog: &TopicCatalog) -> Result<Ages, DecodeError> {
    let (mut ages, mut gaps) = (Ages::default(), Gaps::default());
    let cannot_be = || DecodeError::Invalid("the age of a topic that keeps nothing for a time");
    for _ in 0..reader.count(AGES_LEN_MIN)? {
        let topic = TopicId(gaps.next(reader)?);
        age_of(catalog, topic).ok_or_else(cannot_be)?;
        let partitions: Vec<_> = catalog.topic(topic).ok_or_else(cannot_be)?.partitions().collect();
        let ends = |reader: &mut ByteReader<'_>, least: &[Offset]| {
            let of = |(index, partition): (usize, &crate::ids::PartitionId)| {
                let offset = Offset(reader.varint()?);
                let is_between =
                    least.get(index).is_none_or(|least| *least <= offset) && offset <= catalog.end(*partition);
                if is_between { Ok(offset) } else { Err(DecodeError::Invalid("a mark of messages that are not there")) }
            };
            partitions.iter().enumerate().map(of).collect::<Result<Vec<_>, DecodeError>>()
        };
        let mut of = TopicAges { kept_from: ends(reader, &[])?, marks: VecDeque::new() };
        for _ in 0..reader.count(MARK_LEN_MIN)? {
            let time = StoreMs(reader.varint()?);
            let mark = AgeMark { time, ends: ends(reader, of.last_ends())? };
            let is_later = of.marks.back().is_none_or(|before| before.time <= time) && mark.ends != of.last_ends();
            if !is_later || of.marks.len() >= MARKS_MAX {
                return Err(DecodeError::Invalid("marks of a topic that do not follow each other"));
            }
            of.marks.push_back(mark);
        }
        ages.of.insert(topic, Arc::new(of));
    }
    let lacks = |(id, _): (TopicId, _)| age_of(catalog, id).is_some() && !ages.of.contains_key(&id);
    if catalog.all_topics().any(lacks) {
        return Err(cannot_be());
    }
    Ok(ages)
}
