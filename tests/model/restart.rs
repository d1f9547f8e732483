//! How processes end and begin: closes, abandoned handles, crashes, power cuts; and the end of a run.
//!
//! Never here: operations within a process (see `actions`).

use crate::actions::said;
use crate::ops::{Op, Opening};
use crate::reference::World;
use crate::runner::{
    Gone, Logged, MESSAGE_BYTES_MAX, Outcome, Process, Runner, ensure, group_name, push_new, topic_name,
};
use millpond::simulation::Clock;
use millpond::simulation::PowerOutcome;
use millpond::{Durability, Error, Group, Message, OpenReport, Store, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Nothing in a run takes longer: no lease, no wait, no jump of the clock that goes unnoticed.
const LONGEST: u64 = 400_000;

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Close,
    Abandon,
    Crash,
    PowerCut(usize),
}

impl Runner {
    pub(crate) fn restart(&mut self, end: End, then: Opening) -> Outcome {
        if matches!(end, End::Abandon) {
            while !self.process()?.held.is_empty() {
                self.step(&Op::Drop { delivery: 0 })?;
            }
            while !self.process()?.batches.is_empty() {
                self.step(&Op::DropBatch { batch: 0 })?;
            }
        }
        let process = self.process.take().ok_or("no process")?;
        match end {
            End::Close => {
                said("close", process.store.close())?;
                check_closed(process)?;
            }
            End::Abandon => drop(process),
            End::Crash => {
                self.disk.crash_process();
                drop(process);
            }
            End::PowerCut(number) => {
                let outcome = match number % (PowerOutcome::EACH.len() + 2) {
                    kind if kind < PowerOutcome::EACH.len() => PowerOutcome::EACH[kind],
                    _ => PowerOutcome::Prefix(self.disk.pending() * number / 64),
                };
                self.trace.push(format!("  {outcome:?} of {} effects", self.disk.pending()));
                self.disk.crash_power(outcome);
                drop(process);
            }
        }
        self.open(then, Some(end))
    }

    /// A process begins. What it finds must be what the last one left, as far as that was durable.
    pub(crate) fn open(&mut self, opening: Opening, after: Option<End>) -> Outcome {
        let disk = self.disk.attach().map_err(|error| format!("attach: {error}"))?;
        let options = Store::options()
            .durability(if opening.disk { Durability::Disk } else { Durability::Os })
            .sync_interval(Duration::from_millis(50))
            .segment_bytes_max(opening.segment_kib << 10)
            .isolation_limit(Duration::from_secs(if opening.isolates { 5 } else { 0 }))
            .message_bytes_max(MESSAGE_BYTES_MAX)
            .parked_max(3, 1);
        let store = said("open", options.open_on(Arc::new(disk), Arc::clone(&self.clock) as Arc<dyn Clock>))?;
        let report = store.report().clone();
        self.trace.push(format!("  {report:?}"));
        let found = self.found(&report, after)?;
        let (mut topics, groups) = reopen(&store, &found[0])?;
        let notices = topics.remove(&0);
        let (held, batches, receipts) = (Vec::new(), Vec::new(), Vec::new());
        self.process = Some(Process { store, notices, topics, groups, gone: Gone::default(), held, batches, receipts });
        self.opening = opening;
        self.was_clean = report.was_clean;
        self.epoch = report.epoch;
        self.clocks = (self.clock.monotonic().0, self.clock.wall().0);
        (self.opened_is_logged, self.begun) = (false, false);
        (self.end, self.durable, self.sync_due) = (report.end.0, report.end.0, report.end.0);
        self.worlds = found.clone();
        self.log =
            vec![Logged { end: report.end.0, worlds: found, between: Vec::new(), hash: Some(report.state_hash) }];
        let wall = self.clock.wall().0;
        self.change(|world| world.open(report.was_clean, wall))?;
        self.before.clone_from(&self.worlds);
        Ok(())
    }

    /// What the store may be where the log was found to end.
    fn found(&self, report: &OpenReport, after: Option<End>) -> Outcome<Vec<World>> {
        let end = report.end.0;
        match after {
            Some(End::PowerCut(_)) => {
                ensure!(end >= self.durable && end <= self.end, "{end}, not from {} to {}", self.durable, self.end);
            }
            // A mark at the end says nothing that is not proven then.
            _ => ensure!(end >= self.sync_due && end <= self.end, "{end}, not from {} to {}", self.sync_due, self.end),
        }
        // A process that appended nothing leaves what it found.
        let may_be_clean = after.is_none() || (!self.begun && self.was_clean) || matches!(after, Some(End::Close));
        let must_be_clean = self.begun && matches!(after, Some(End::Close));
        ensure!(!report.was_clean || may_be_clean, "clean after {after:?}");
        ensure!(report.was_clean || !must_be_clean, "not clean after {after:?}");
        // A process that appended nothing left no epoch: the next one has the same count, and random bits of its own.
        let (count, before) = (report.epoch.count(), self.epoch.count());
        ensure!(count > before || (count == before && !self.begun), "epoch {count} after {before}");
        ensure!(report.epoch != self.epoch, "the epoch {} again", report.epoch);
        let mut found = Vec::new();
        let same = self.log.iter().find(|logged| logged.end == end).and_then(|logged| logged.hash);
        ensure!(same.is_none_or(|hash| hash == report.state_hash), "the state is not what it was where the log ends");
        for (index, logged) in self.log.iter().enumerate() {
            let next = self.log.get(index + 1);
            if logged.end == end || (logged.end < end && next.is_some_and(|next| end < next.end)) {
                logged.worlds.iter().for_each(|world| push_new(&mut found, world.clone()));
            }
            if logged.end < end && next.is_some_and(|next| end < next.end) {
                next.iter().flat_map(|next| &next.between).for_each(|world| push_new(&mut found, world.clone()));
            }
        }
        let is_there = |world: &World| self.durable_ids.iter().find(|id| !world.has(**id));
        let missing: Vec<_> = found.iter().filter_map(is_there).copied().collect();
        found.retain(|world| is_there(world).is_none());
        ensure!(!found.is_empty(), "the log ends at {end}, without {missing:?}, which was durable");
        Ok(found)
    }

    /// At the end everything that is not settled must come out, and the dead letters must all be there.
    pub(crate) fn drain(&mut self) -> Outcome {
        let groups = self.process()?.groups.len();
        (0..groups).try_for_each(|group| self.step(&Op::Pause { group, pause: false }))?;
        let mut idle = 0;
        while self.worlds.iter().any(|world| !world.unsettled().is_empty()) {
            self.step(&Op::Tick {})?;
            let before = self.tickets;
            for group in 0..groups {
                let tickets = self.tickets;
                self.step(&Op::ReceiveBatch { group, max: 16, whole: true })?;
                if self.tickets > tickets {
                    let batch = self.process()?.batches.len() - 1;
                    self.step(&Op::AckBatch { batch, durable: false })?;
                }
            }
            if self.tickets == before {
                idle += 1;
                ensure!(idle < 10, "not delivered: {:?}", self.world().unsettled());
                self.step(&Op::Advance { by: LONGEST })?;
            } else {
                idle = 0;
            }
        }
        self.step(&Op::Tick {})?;
        (0..groups).try_for_each(|group| self.step(&Op::Letters { group }))?;
        self.step(&Op::Notices {})?;
        self.step(&Op::Close { then: self.opening })?;
        (0..groups).try_for_each(|group| self.step(&Op::Letters { group }))?;
        self.step(&Op::Notices {})
    }
}

/// Topics and groups are durable once created, and gone once removed, so every process finds those that are there.
fn reopen(store: &Store, world: &World) -> Outcome<(BTreeMap<usize, Topic>, BTreeMap<usize, Group>)> {
    let (mut topics, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for number in world.living_topics() {
        let builder = store.topic(topic_name(world.topic_names[number])).create(false);
        topics.insert(number, said("open a topic", builder.open())?);
    }
    for number in world.living_groups() {
        let group = &world.groups[number];
        let builder = topics[&group.topic].group(group_name(group.name)).create(false);
        groups.insert(number, said("open a group", builder.open())?);
    }
    Ok((topics, groups))
}

/// Nothing works on a closed store, and nothing goes wrong.
fn check_closed(process: Process) -> Outcome {
    let Process { store, notices: _, topics, groups, gone, held, batches, receipts } = process;
    said("close again", store.close())?;
    let is_closed = |what, error: Option<Error>| match error {
        Some(Error::Closed) => Ok(()),
        other => Err(format!("{what} on a closed store: {other:?}")),
    };
    is_closed("stats", store.stats().err())?;
    is_closed("sync", store.sync().err())?;
    is_closed("open", store.topic("another").open().err())?;
    topics
        .values()
        .chain(&gone.topics)
        .try_for_each(|topic| is_closed("publish", topic.publish(Message::new("late")).err()))?;
    for group in groups.values().chain(&gone.groups) {
        is_closed("receive", group.receive(Duration::ZERO).err())?;
        is_closed("list", group.dead_letters().err())?;
    }
    for held in held {
        is_closed("extend", held.delivery.extend(Duration::ZERO).err())?;
        is_closed("ack", held.delivery.ack().err())?;
    }
    drop((batches, receipts));
    Ok(())
}
