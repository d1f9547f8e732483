//! What each operation does to the store, and what it must have done.
//!
//! Never here: what ends a process (see `restart`), what is right (see `reference`).

use crate::dedup::{IDS, WINDOW};
use crate::delivering::{Settle, text_of};
use crate::facts::{Growth, Jitter, Message as Stored, Options};
use crate::ops::{Asked, Begin, InOrder, Op, Pause, Spec};
use crate::restart::End;
use crate::runner::{Outcome, Runner, ensure, group_name, topic_name};
use millpond::simulation::Clock;
use millpond::simulation::WallMs;
use millpond::{Backoff, Error, GroupBuilder, Ordering, Retention, Start, Topic};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TOPICS_MAX: usize = 3;
const GROUPS_MAX: usize = 4;

pub(crate) fn pick<T>(list: &[T], index: usize) -> Option<usize> {
    (!list.is_empty()).then(|| index % list.len())
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn said<T>(what: &str, result: Result<T, Error>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error} ({error:?})"))
}

impl Runner {
    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::CreateTopic { partitions, is_kept } => self.create_topic(*partitions, *is_kept),
            Op::OpenTopic { topic, partitions, is_kept } => self.open_topic(*topic, *partitions, *is_kept),
            Op::CreateGroup { topic, spec, begin } => self.create_group(*topic, *spec, *begin),
            Op::OpenGroup { group, asked } => self.open_group(*group, *asked),
            Op::AlterGroup { group, spec } => self.alter_group(*group, *spec),
            Op::Seek { group, to } => self.seek(*group, *to),
            Op::Pause { group, pause } => self.pause(*group, *pause),
            Op::RemoveGroup { group } => self.remove_group(*group),
            Op::RemoveTopic { topic } => self.remove_topic(*topic),
            Op::UseGone {} => self.use_gone(),
            Op::PublishUnderId { topic, id, is_other, in_batch } => {
                self.publish_under_id(*topic, *id, *is_other, *in_batch)
            }
            Op::PublishUnique { topic, key, existing } => self.publish_unique(*topic, *key, *existing),
            Op::PublishNumbered { topic, producer, by } => self.publish_numbered(*topic, *producer, *by),
            Op::SetCursor { cursor, is_right, in_transaction } => self.set_cursor(*cursor, *is_right, *in_transaction),
            Op::RemoveCursor { cursor } => self.remove_cursor(*cursor),
            Op::Publish { topic, draft, disk } => self.publish(*topic, *draft, *disk),
            Op::PublishBatch { topic, drafts, disk } => self.publish_batch(*topic, drafts, *disk),
            Op::WaitDurable { receipt } => self.wait_durable(*receipt),
            Op::Receive { group } => self.receive(*group, 1, false, false),
            Op::ReceiveBatch { group, max, whole } => self.receive(*group, *max, true, *whole),
            Op::Ack { delivery } => self.on_delivery(*delivery, Settle::Ack),
            Op::AckDurable { delivery } => self.on_delivery(*delivery, Settle::AckDurable),
            Op::AckBatch { batch, durable } => self.ack_batch(*batch, *durable),
            Op::SplitBatch { batch } => self.split_batch(*batch),
            Op::DropBatch { batch } => self.drop_batch(*batch),
            Op::Overtake { delivery } => self.overtake(*delivery),
            Op::Nack { delivery, text } => self.on_delivery(*delivery, Settle::Nack(text_of(*text))),
            Op::NackAfter { delivery, delay } => self.on_delivery(*delivery, Settle::NackAfter(*delay)),
            Op::Extend { delivery, duration } => self.extend(*delivery, *duration),
            Op::Reject { delivery } => self.on_delivery(*delivery, Settle::Reject),
            Op::Release { delivery } => self.on_delivery(*delivery, Settle::Release),
            Op::Drop { delivery } => self.on_delivery(*delivery, Settle::Drop),
            Op::Transact { deliveries, batch, drafts, disk } => self.transact(deliveries, *batch, drafts, *disk),
            Op::ReadLog { topic, from } => self.read_log(*topic, *from),
            Op::Notices {} => self.read_notices(),
            Op::Letters { group } => self.with_group(*group, |runner, group| runner.list(group).map(drop)),
            Op::Redrive { group, letter, twice } => self.redrive(*group, *letter, *twice),
            Op::RedriveTo { group, letter, topic } => self.redrive_to(*group, *letter, *topic),
            Op::RedriveAll { group } => self.redrive_where(*group, None),
            Op::RedriveWhere { group, wanted } => self.redrive_where(*group, Some(*wanted)),
            Op::Discard { group, letter, twice } => self.discard(*group, *letter, *twice),
            Op::Advance { by } => {
                self.clock.advance(*by);
                Ok(())
            }
            Op::JumpWall { by, tick } => self.jump_wall(*by, *tick),
            Op::Tick {} => self.tick(),
            Op::Checkpoint {} => self.checkpoint(),
            Op::Sync {} => self.sync(),
            Op::Close { then } => self.restart(End::Close, *then),
            Op::Abandon { then } => self.restart(End::Abandon, *then),
            Op::Crash { then } => self.restart(End::Crash, *then),
            Op::PowerCut { outcome, then } => self.restart(End::PowerCut(*outcome), *then),
        }
    }

    fn with_group(&mut self, group: usize, act: impl FnOnce(&mut Self, usize) -> Outcome) -> Outcome {
        match self.pick_group(group)? {
            Some(group) => act(self, group),
            None => Ok(()),
        }
    }

    fn create_topic(&mut self, partitions: u32, is_kept: bool) -> Outcome {
        if self.process()?.topics.len() == TOPICS_MAX {
            return Ok(());
        }
        let (index, name) = (self.world().topics.len(), self.free_topic_name());
        let builder = self.process()?.store.topic(topic_name(name)).partitions(partitions);
        let builder = builder.dedup_ids(IDS).dedup_window(WINDOW);
        // What is left out is the default.
        let builder = if is_kept { builder.retention(Retention::Forever) } else { builder };
        let topic = said("create a topic", builder.open())?;
        ensure!(topic.name() == topic_name(name) && topic.partitions() == partitions, "created {topic:?}");
        self.ensure_durable()?;
        self.process_mut()?.topics.insert(index, topic);
        self.change(|world| world.create_topic(name, partitions, is_kept))
    }

    fn open_topic(&mut self, topic: usize, partitions: Option<u32>, is_kept: Option<bool>) -> Outcome {
        let Some(index) = self.pick_topic(topic)? else { return Ok(()) };
        let builder = self.process()?.store.topic(self.topic_name(index));
        let builder = partitions.into_iter().fold(builder, |builder, partitions| builder.partitions(partitions));
        let retention = |is_kept| if is_kept { Retention::Forever } else { Retention::UntilSettled };
        let builder = is_kept.into_iter().fold(builder, |builder, is_kept| builder.retention(retention(is_kept)));
        let (stored, stays) = (self.world().topics[index].len() as u32, self.world().kept_topics.contains(&index));
        let is_same = (partitions.is_none_or(|asked| asked == stored), is_kept.is_none_or(|asked| asked == stays));
        match builder.open() {
            Ok(topic) if is_same == (true, true) && topic.partitions() == stored => {
                self.process_mut()?.topics.insert(index, topic);
                Ok(())
            }
            Err(Error::OptionMismatch { option: "partitions", .. }) if !is_same.0 => Ok(()),
            Err(Error::OptionMismatch { option: "retention", .. }) if is_same == (true, false) => Ok(()),
            other => Err(format!("opened a topic of {stored} partitions: {other:?}")),
        }
    }

    fn create_group(&mut self, topic: usize, spec: Spec, begin: Begin) -> Outcome {
        let is_room = self.process()?.groups.len() < GROUPS_MAX;
        let Some(index) = self.pick_topic(topic)?.filter(|_| is_room) else { return Ok(()) };
        let wants_typed = spec.wants_typed.filter(|_| !self.world().keyed.contains(&index));
        let spec = Spec { wants_typed, ..spec };
        let (number, name) = (self.world().groups.len(), self.free_group_name());
        let wall = self.clock.wall().0;
        let start = match begin {
            Begin::Default => None,
            Begin::Earliest => Some(Start::Earliest),
            Begin::Latest => Some(Start::Latest),
            Begin::Offset(offset) => Some(Start::Offset(offset)),
            Begin::Ago(ms) => Some(Start::Time(UNIX_EPOCH + Duration::from_millis(wall - ms))),
        };
        let process = self.process()?;
        let builder = with_spec(process.topics[&index].group(group_name(name)), spec, self.notices()?);
        let builder = start.into_iter().fold(builder, GroupBuilder::start);
        let group = said("create a group", builder.open())?;
        ensure!(group.name() == group_name(name), "created {group:?}");
        self.ensure_durable()?;
        self.process_mut()?.groups.insert(number, group);
        let (stats, lag) = (self.look()?, self.stats_of(&group_name(name))?.lag);
        let is_whole = stats.log.bytes == stats.log.end.0;
        self.advance(|world| {
            let starts = world.topics[index].iter().zip(0..).map(|(messages, partition)| {
                let kept_from = if is_whole { 0 } else { world.settled_before(index, partition) };
                starts(messages, begin, wall, kept_from)
            });
            let grown = starts.fold(vec![Vec::new()], |lists, here| {
                let with = |list: &Vec<u64>, start: u64| list.iter().copied().chain([start]).collect();
                lists.iter().flat_map(|list| here.iter().map(|start| with(list, *start))).collect::<Vec<Vec<u64>>>()
            });
            let total: u64 = world.topics[index].iter().map(|messages| messages.len() as u64).sum();
            let fitting: Vec<_> = grown.iter().filter(|starts| total - starts.iter().sum::<u64>() == lag).collect();
            ensure!(!fitting.is_empty(), "a new group has {lag} of {total} messages, expected starts {grown:?}");
            let created = fitting.into_iter().map(|starts| {
                let mut world = world.clone();
                world.create_group(index, name, options(spec), starts);
                world
            });
            Ok(created.collect())
        })
    }

    fn open_group(&mut self, group: usize, asked: Asked) -> Outcome {
        let Some(number) = self.pick_group(group)? else { return Ok(()) };
        let (index, stored) = (self.world().groups[number].topic, self.world().groups[number].options.clone());
        let builder = self.process()?.topics[&index].group(self.group_name(number));
        let add = |same: bool| u64::from(!same);
        let (builder, expected) = match asked {
            Asked::Nothing => (builder, None),
            Asked::Timeout { same } => {
                let timeout = Duration::from_millis(stored.visibility_timeout + add(same));
                (builder.visibility_timeout(timeout), Some(("visibility_timeout", same)))
            }
            Asked::Attempts { same } => {
                (builder.max_attempts(stored.max_attempts + add(same) as u32), Some(("max_attempts", same)))
            }
            Asked::Pause { same } => (builder.backoff(stored.backoff(add(same))), Some(("backoff", same))),
            Asked::Outstanding { same } => {
                let builder = builder.max_outstanding(stored.max_outstanding + add(same) as u32);
                (builder, Some(("max_outstanding", same)))
            }
            Asked::Closes { same } => {
                (builder.max_closes(stored.max_closes + add(same) as u32), Some(("max_closes", same)))
            }
            Asked::Notices { same } => {
                let notices = (stored.notices == same).then(|| self.notices()).transpose()?;
                (builder.dead_letter_notices(notices), Some(("dead_letter_notices", same)))
            }
            Asked::Order { same } => {
                let stored = stored.order.map(|(order, _)| order);
                let other = if stored.is_none() { Some(InOrder::ByKey) } else { None };
                let asked = ordering(if same { stored } else { other });
                (builder.ordering(asked), Some(("ordering", same)))
            }
            Asked::Filter { same } => {
                let other = if stored.wants_typed.is_some() { None } else { Some(true) };
                let asked = filter(if same { stored.wants_typed } else { other });
                (builder.filter(asked), Some(("filter", same)))
            }
            Asked::InFlight { same } => {
                let in_flight = stored.order.map_or(1, |(_, in_flight)| in_flight) + add(same) as u32;
                (builder.max_in_flight_per_key(in_flight), Some(("max_in_flight_per_key", same)))
            }
        };
        let is_contradiction = matches!(asked, Asked::InFlight { .. }) && stored.order.is_none();
        match (builder.open(), expected) {
            (Err(Error::InvalidOption { option: "max_in_flight_per_key", .. }), _) if is_contradiction => Ok(()),
            _ if is_contradiction => Err("a number per key was taken for a group without order".to_owned()),
            (Ok(group), None | Some((_, true))) => {
                self.process_mut()?.groups.insert(number, group);
                Ok(())
            }
            (Err(Error::OptionMismatch { option, .. }), Some((asked, false))) if option == asked => Ok(()),
            (other, _) => Err(format!("opened a group with {asked:?} of {stored:?}: {other:?}")),
        }
    }

    fn jump_wall(&mut self, by: i64, tick: bool) -> Outcome {
        self.clock.set_wall(WallMs(self.clock.wall().0.saturating_add_signed(by)));
        if tick { self.tick() } else { Ok(()) }
    }

    /// A checkpoint changes nothing but how much the next open reads.
    pub(crate) fn checkpoint(&mut self) -> Outcome {
        said("checkpoint", self.process()?.store.checkpoint())
    }

    pub(crate) fn tick(&mut self) -> Outcome {
        let (mono, wall) = (self.clock.monotonic().0, self.clock.wall().0);
        let expected = self.clocks.1 + (mono - self.clocks.0);
        self.clocks = (mono, wall);
        if expected.abs_diff(wall) >= 1_000 && self.worlds.iter().any(|world| world.has_waits(false)) {
            self.change(|world| world.clamp(wall))?;
            self.between = self.worlds.clone();
        }
        said("tick", self.process()?.store.tick())?;
        let rests = self.process()?.store.rests();
        let waits = self.worlds.iter().all(|world| world.has_waits(true));
        ensure!(!(rests && waits), "the jobs rest, where a jump of the clock would matter");
        let durable = self.look()?.log.durable.0;
        ensure!(durable >= self.sync_due, "a tick left {durable} of {} durable", self.sync_due);
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        said("sync", self.process()?.store.sync())?;
        let durable = self.look()?.log.durable.0;
        ensure!(durable >= self.sync_due, "a sync left {durable} of {} durable", self.sync_due);
        Ok(())
    }
}

fn options(spec: Spec) -> Options {
    let (backoff_first, backoff_max, jitter, growth) =
        spec.pause.numbers().unwrap_or((1_000, 300_000, Jitter::UpperHalf, Growth::Doubled));
    Options {
        visibility_timeout: spec.timeout.unwrap_or(30_000),
        max_attempts: spec.attempts.unwrap_or(5),
        limits: spec.limits.unwrap_or_default(),
        backoff_first,
        backoff_max,
        jitter,
        growth,
        max_outstanding: spec.outstanding.unwrap_or(65_536),
        max_closes: spec.closes.unwrap_or(20),
        notices: spec.notices.unwrap_or(false),
        order: spec.order,
        paused: false,
        max_in_flight: spec.in_flight.unwrap_or(0),
        wants_typed: spec.wants_typed,
    }
}

fn with_spec(builder: GroupBuilder, spec: Spec, notices: &Topic) -> GroupBuilder {
    let ms = Duration::from_millis;
    let builder = spec.timeout.into_iter().fold(builder, |builder, timeout| builder.visibility_timeout(ms(timeout)));
    let builder = spec.attempts.into_iter().fold(builder, GroupBuilder::max_attempts);
    let builder = spec.outstanding.into_iter().fold(builder, GroupBuilder::max_outstanding);
    let builder = spec.closes.into_iter().fold(builder, GroupBuilder::max_closes);
    let topic = |is_told: bool| is_told.then_some(notices);
    let builder =
        spec.notices.into_iter().fold(builder, |builder, is_told| builder.dead_letter_notices(topic(is_told)));
    let builder = spec.order.into_iter().fold(builder, |builder, (order, in_flight)| {
        builder.ordering(ordering(Some(order))).max_in_flight_per_key(in_flight)
    });
    let builder = spec.limits.into_iter().fold(builder, |builder, [nacks, expiries, crashes]| {
        builder.max_nacks(nacks).max_expiries(expiries).max_crashes(crashes)
    });
    let builder = spec.in_flight.into_iter().fold(builder, GroupBuilder::max_in_flight);
    let builder = spec.wants_typed.into_iter().fold(builder, |builder, typed| builder.filter(filter(Some(typed))));
    spec.pause.backoff().into_iter().fold(builder, GroupBuilder::backoff)
}

impl Pause {
    /// The first delay, the longest, what part of it is drawn, and how it grows.
    pub(crate) fn numbers(self) -> Option<(u64, u64, Jitter, Growth)> {
        Some(match self {
            Self::Default => return None,
            Self::None => (0, 0, Jitter::None, Growth::Doubled),
            Self::Fixed(delay) => (delay, delay, Jitter::None, Growth::Doubled),
            Self::Exponential { first, max, jitter } => {
                (first.min(max), max, if jitter { Jitter::UpperHalf } else { Jitter::None }, Growth::Doubled)
            }
            Self::Linear { step, max } => (step.min(max), max, Jitter::None, Growth::Linear),
            Self::List { first, then } => (first, first.max(then), Jitter::None, Growth::List(then)),
            Self::FullJitter(delay) => (delay, 3_600_000, Jitter::Full, Growth::Doubled),
        })
    }

    pub(crate) fn backoff(self) -> Option<Backoff> {
        let ms = Duration::from_millis;
        Some(match self {
            Self::Default => return None,
            Self::None => Backoff::none(),
            Self::Fixed(delay) => Backoff::fixed(ms(delay)),
            Self::Exponential { first, max, jitter } => Backoff::exponential(ms(first)).max(ms(max)).jitter(jitter),
            Self::Linear { step, max } => Backoff::linear(ms(step)).max(ms(max)),
            Self::List { first, then } => Backoff::list(&[ms(first), ms(then)]),
            Self::FullJitter(delay) => Backoff::exponential(ms(delay)).full_jitter(),
        })
    }
}

impl Options {
    /// The group's backoff, or one that is longer by `more`.
    fn backoff(&self, more: u64) -> Backoff {
        let ms = Duration::from_millis;
        let (first, max) = (ms(self.backoff_first), ms(self.backoff_max + more));
        let backoff = match self.growth {
            Growth::Doubled => Backoff::exponential(first).max(max),
            Growth::Linear => Backoff::linear(first).max(max),
            Growth::List(then) => Backoff::list(&[first, ms(then + more)]),
        };
        match self.jitter {
            Jitter::None => backoff.jitter(false),
            Jitter::UpperHalf => backoff.jitter(true),
            Jitter::Full => backoff.full_jitter(),
        }
    }
}

/// The filter of a group that wants messages with a type, or those without.
fn filter(wants_typed: Option<bool>) -> Option<&'static str> {
    wants_typed.map(|typed| if typed { "type exists" } else { "not type exists" })
}

fn ordering(order: Option<InOrder>) -> Ordering {
    match order {
        None => Ordering::None,
        Some(InOrder::ByKey) => Ordering::Key,
        Some(InOrder::ByPartition) => Ordering::Partition,
    }
}

/// Where a group may begin in a partition, from which messages below `kept_from` may be gone. By time, any message that
/// is late enough after one that is not will do.
pub(crate) fn starts(messages: &[Stored], begin: Begin, wall: u64, kept_from: u64) -> Vec<u64> {
    let end = messages.len() as u64;
    let from = |offset: u64| (offset..=offset.max(kept_from)).collect();
    match begin {
        Begin::Default | Begin::Earliest => from(0),
        Begin::Latest => vec![end],
        Begin::Offset(offset) => from(offset.min(end)),
        Begin::Ago(ms) => {
            let is_late = |offset: u64| messages.get(offset as usize).is_none_or(|m| m.stored >= wall - ms);
            let may_be_early = |offset: u64| offset < kept_from || !is_late(offset);
            (0..=end).filter(|offset| is_late(*offset) && (*offset == 0 || may_be_early(offset - 1))).collect()
        }
    }
}

pub(crate) fn owned<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    headers.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}
