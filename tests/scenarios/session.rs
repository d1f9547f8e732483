//! A machine in memory, the process that has a store open on it, and the commands of a scenario.

use crate::script::{self, Words};
use crate::show::{self, Names};
use crossbeam_channel::Select;
use millpond::simulation::WallMs;
use millpond::simulation::{Clock, PowerOutcome, SimClock, SimDisk};
use millpond::{
    Backoff, Batch, DeadLetter, Delivery, Durability, Error, Group, LogReader, Message, Ordering, Position, RateLimit,
    Retention, Start, Store, Subscription, Topic, WhenFull, WhilePending,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// When every scenario begins, by the wall clock.
pub(crate) const START: WallMs = WallMs(1_800_000_000_000);

/// How long another thread may take until it offers a delivery. Only a failing test waits as long.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Session {
    disk: SimDisk,
    clock: Arc<SimClock>,
    pub(crate) names: Names,
    /// Positions that readers gave. They outlive every process.
    pub(crate) positions: Vec<Position>,
    pub(crate) process: Process,
}

/// What the process holds. Numbers are never given again within a process.
#[derive(Default)]
pub(crate) struct Process {
    store: Option<Store>,
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, Group>,
    pub(crate) deliveries: Held<Delivery>,
    batches: Held<Batch>,
    letters: Held<DeadLetter>,
    subscriptions: Held<Subscription>,
    pub(crate) readers: Held<LogReader>,
}

/// Things by number, from 1, until they are taken.
pub(crate) struct Held<T>(Vec<Option<T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Held<T> {
    pub(crate) fn add(&mut self, thing: T) -> usize {
        self.0.push(Some(thing));
        self.0.len()
    }

    fn slot(&mut self, name: &str) -> Result<&mut Option<T>, String> {
        let index = name.get(1..).and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        index.and_then(|index| self.0.get_mut(index)).ok_or_else(|| format!("there is no {name}"))
    }

    pub(crate) fn get(&mut self, name: &str) -> Result<&mut T, String> {
        self.slot(name)?.as_mut().ok_or_else(|| format!("{name} is gone"))
    }

    pub(crate) fn put_back(&mut self, name: &str, thing: T) -> Result<(), String> {
        *self.slot(name)? = Some(thing);
        Ok(())
    }

    pub(crate) fn take(&mut self, name: &str) -> Result<T, String> {
        self.slot(name)?.take().ok_or_else(|| format!("{name} is gone"))
    }
}

/// Why a command has no ordinary reply.
pub(crate) enum Refused {
    /// The store refused it, which is a reply.
    ByStore(Error),
    /// The scenario is wrong.
    ByScript(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::ByStore(error)
    }
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self::ByScript(text)
    }
}

pub(crate) type Reply = Result<Vec<String>, Refused>;

fn while_pending(policy: &str) -> Result<WhilePending, String> {
    match policy {
        "reject" => Ok(WhilePending::Reject),
        "replace" => Ok(WhilePending::Replace),
        "return_existing" => Ok(WhilePending::ReturnExisting),
        other => Err(format!("no policy {other}")),
    }
}

pub(crate) const SILENT: Reply = Ok(Vec::new());

impl Session {
    pub fn new() -> Self {
        let clock = Arc::new(SimClock::new(START));
        Self {
            disk: SimDisk::new(1),
            clock,
            names: Names::default(),
            positions: Vec::new(),
            process: Process::default(),
        }
    }

    /// The lines that answer a command, or what is wrong with the command itself.
    pub fn execute(&mut self, command: &str) -> Result<Vec<String>, String> {
        let mut words = Words::of(command)?;
        let name = words.next("a command")?;
        let reply = self.run(&name, &mut words);
        words.end()?;
        match reply {
            Ok(lines) => Ok(lines),
            Err(Refused::ByStore(error)) => Ok(vec![self.names.error(&error)]),
            Err(Refused::ByScript(text)) => Err(text),
        }
    }

    fn run(&mut self, name: &str, words: &mut Words) -> Reply {
        match name {
            "open" => self.open(words),
            "close" => silent(self.store()?.close()),
            "sync" => silent(self.store()?.sync()),
            "crash" | "power_cut" | "disk_full" | "disk_room" | "advance" | "clock_jump" => self.world(name, words),
            "topic" | "group" | "alter" | "remove_topic" | "remove_group" => self.define(name, words),
            "pause" => silent(self.group(words)?.pause()),
            "resume" => silent(self.group(words)?.resume()),
            "seek" | "preview_seek" => self.seek(name, words),
            "publish" | "publish_batch" => self.publish(name, words),
            "scheduled" | "cancel" | "reschedule_in" | "reschedule_at" => self.with_schedule(name, words),
            "receive" | "receive_batch" | "subscribe" => self.receive(name, words),
            "produce" | "next_sequence" => self.produce(name, words),
            "cursor" | "cursors" | "set" | "unset" | "publish_and_set" => self.cursor(name, words),
            "transaction" => self.transaction(words),
            "append" | "read" | "read_back" | "last_version" | "truncate_before" | "delete" | "save_snapshot"
            | "snapshot" => self.with_stream(name, words),
            "reader" => self.open_reader(words),
            "checkpoint" => self.checkpoint(),
            "circulate" => self.circulate(words),
            "stats" => self.stats(words),
            "dead_letters" | "redrive_all" => self.dead_letters(name, words),
            "redrive" | "redrive_to" | "discard" => self.settle_dead_letter(name, words),
            _ => match words.next("what it is about")? {
                delivery if delivery.starts_with('#') => self.settle(name, &delivery, words),
                reader if reader.starts_with('R') && name == "next" => self.read_next(&reader),
                batch if batch.starts_with('B') => self.with_batch(name, &batch, words),
                subscription if subscription.starts_with('S') => self.with_subscription(name, &subscription),
                _ => unknown(name),
            },
        }
    }

    pub(crate) fn store(&self) -> Result<&Store, String> {
        self.process.store.as_ref().ok_or_else(|| "no store is open".to_owned())
    }

    pub(crate) fn topic(&self, words: &mut Words) -> Result<Topic, String> {
        self.topic_named(&words.next("a topic")?)
    }

    pub(crate) fn topic_named(&self, name: &str) -> Result<Topic, String> {
        self.process.topics.get(name).cloned().ok_or_else(|| format!("topic {name:?} is not open"))
    }

    pub(crate) fn group(&self, words: &mut Words) -> Result<Group, String> {
        let name = words.next("a group")?;
        self.process.groups.get(&name).cloned().ok_or_else(|| format!("group {name:?} is not open"))
    }

    fn open(&mut self, words: &mut Words) -> Reply {
        let handle = self.disk.attach().map_err(|_| "the store is open; close it, or crash".to_owned())?;
        self.process = Process::default();
        let mut options = Store::options();
        if let Some(level) = words.option("durability", level)? {
            options = options.durability(level);
        }
        if let Some(limit) = words.option("isolation_limit", script::duration)? {
            options = options.isolation_limit(limit);
        }
        if let Some(bytes) = words.option("segment_bytes_max", script::number)? {
            options = options.segment_bytes_max(bytes);
        }
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let store = self.process.store.insert(options.open_on(Arc::new(handle), clock)?);
        let report = store.report();
        let found = match (report.created, report.was_clean) {
            (true, _) => "created",
            (false, true) => "clean",
            (false, false) => "recovered",
        };
        Ok(vec![found.to_owned()])
    }

    /// What happens to the process and its machine. Background work is done when time passes.
    fn world(&mut self, name: &str, words: &mut Words) -> Reply {
        match name {
            "crash" => self.disk.crash_process(),
            "power_cut" => self.disk.crash_power(PowerOutcome::LoseAll),
            "disk_full" => self.disk.set_capacity(Some(self.disk.files().iter().map(|file| file.len).sum())),
            "disk_room" => self.disk.set_capacity(None),
            "clock_jump" => {
                let jump = words.next("how far")?;
                let (forward, by) = jump.split_at(1);
                let (wall, by) = (self.clock.wall().0, script::duration(by)?.as_millis() as u64);
                self.clock.set_wall(WallMs(if forward == "+" { wall + by } else { wall - by }));
            }
            _ => {
                self.clock.advance(words.duration()?.as_millis() as u64);
                if let Some(store) = &self.process.store {
                    store.tick()?;
                }
            }
        }
        if matches!(name, "crash" | "power_cut") {
            self.process = Process::default();
        }
        SILENT
    }

    fn define(&mut self, command: &str, words: &mut Words) -> Reply {
        match command {
            "topic" => {
                let name = words.next("a topic")?;
                let mut builder = self.store()?.topic(&name);
                if let Some(partitions) = words.option("partitions", script::number)? {
                    builder = builder.partitions(partitions);
                }
                if let Some(window) = words.option("dedup_window", script::duration)? {
                    builder = builder.dedup_window(window);
                }
                if let Some(retention) = words.option("retention", retention)? {
                    builder = builder.retention(retention);
                }
                if let Some(count) = words.option("max_messages", script::number)? {
                    builder = builder.max_messages(count);
                }
                if let Some(time) = words.option("block", script::duration)? {
                    builder = builder.when_full(WhenFull::Block(time));
                }
                if words.option("drop_oldest", script::flag)?.unwrap_or(false) {
                    builder = builder.when_full(WhenFull::DropOldest);
                }
                if words.option("streams", script::flag)?.unwrap_or(false) {
                    builder = builder.streams();
                }
                if let Some(count) = words.option("snapshots_kept", script::number)? {
                    builder = builder.snapshots_kept(count);
                }
                builder = builder.create(words.option("create", script::flag)?.unwrap_or(true));
                let topic = builder.open()?;
                self.names.topic(&topic);
                self.process.topics.insert(name, topic);
                SILENT
            }
            "group" => self.open_group(words),
            "alter" => {
                let mut change = self.group(words)?.alter();
                if let Some(timeout) = words.option("visibility_timeout", script::duration)? {
                    change = change.visibility_timeout(timeout);
                }
                if let Some(attempts) = words.option("max_attempts", script::number)? {
                    change = change.max_attempts(attempts);
                }
                if let Some(nacks) = words.option("max_nacks", script::number)? {
                    change = change.max_nacks(nacks);
                }
                if let Some(expiries) = words.option("max_expiries", script::number)? {
                    change = change.max_expiries(expiries);
                }
                if let Some(crashes) = words.option("max_crashes", script::number)? {
                    change = change.max_crashes(crashes);
                }
                if let Some(backoff) = words.option("backoff", backoff)? {
                    change = change.backoff(backoff);
                }
                if let Some(messages) = words.option("max_outstanding", script::number)? {
                    change = change.max_outstanding(messages);
                }
                if let Some(messages) = words.option("max_in_flight", script::number)? {
                    change = change.max_in_flight(messages);
                }
                if let Some(rate) = words.option("rate_limit", rate)? {
                    change = change.rate_limit(rate);
                }
                if let Some(name) = words.option("dead_letter_notices", script::text)? {
                    change = change.dead_letter_notices(self.topic_for_notices(&name)?.as_ref());
                }
                if words.option("filter", script::text)?.is_some_and(|filter| filter == "none") {
                    change = change.filter_from_here(None);
                }
                if let Some(filter) = words.texts().pop() {
                    change = change.filter_from_here(&*filter);
                }
                silent(change.apply())
            }
            "remove_topic" => silent(self.store()?.remove_topic(&words.next("a topic")?)),
            _ => silent(self.topic(words)?.remove_group(&words.next("a group")?)),
        }
    }

    fn open_group(&mut self, words: &mut Words) -> Reply {
        let topic = self.topic(words)?;
        let name = words.next("a group")?;
        let mut builder = topic.group(&name);
        if let Some(timeout) = words.option("visibility_timeout", script::duration)? {
            builder = builder.visibility_timeout(timeout);
        }
        if let Some(attempts) = words.option("max_attempts", script::number)? {
            builder = builder.max_attempts(attempts);
        }
        if let Some(nacks) = words.option("max_nacks", script::number)? {
            builder = builder.max_nacks(nacks);
        }
        if let Some(expiries) = words.option("max_expiries", script::number)? {
            builder = builder.max_expiries(expiries);
        }
        if let Some(crashes) = words.option("max_crashes", script::number)? {
            builder = builder.max_crashes(crashes);
        }
        if let Some(backoff) = words.option("backoff", backoff)? {
            builder = builder.backoff(backoff);
        }
        if let Some(messages) = words.option("max_outstanding", script::number)? {
            builder = builder.max_outstanding(messages);
        }
        if let Some(messages) = words.option("max_in_flight", script::number)? {
            builder = builder.max_in_flight(messages);
        }
        if let Some(rate) = words.option("rate_limit", rate)? {
            builder = builder.rate_limit(rate);
        }
        if let Some(name) = words.option("dead_letter_notices", script::text)? {
            builder = builder.dead_letter_notices(self.topic_for_notices(&name)?.as_ref());
        }
        if let Some(ordering) = words.option("ordering", ordering)? {
            builder = builder.ordering(ordering);
        }
        if let Some(messages) = words.option("max_in_flight_per_key", script::number)? {
            builder = builder.max_in_flight_per_key(messages);
        }
        if let Some(start) = words.option("start", start)? {
            builder = builder.start(start);
        }
        if words.option("filter", script::text)?.is_some_and(|filter| filter == "none") {
            builder = builder.filter(None);
        }
        // A text in quotes is its filter.
        if let Some(filter) = words.texts().pop() {
            builder = builder.filter(&*filter);
        }
        builder = builder.create(words.option("create", script::flag)?.unwrap_or(true));
        let group = builder.open()?;
        self.process.groups.insert(name, group);
        SILENT
    }

    /// An open topic, or none at all.
    fn topic_for_notices(&self, name: &str) -> Result<Option<Topic>, String> {
        if name == "none" {
            return Ok(None);
        }
        let topic = self.process.topics.get(name).ok_or_else(|| format!("topic {name:?} is not open"))?;
        Ok(Some(topic.clone()))
    }

    fn publish(&mut self, command: &str, words: &mut Words) -> Reply {
        let mut topic = self.topic(words)?;
        if let Some(level) = words.option("durability", level)? {
            topic = topic.with_durability(level);
        }
        let ids = if command == "publish_batch" {
            topic.publish_batch(words.texts())?.ids().to_vec()
        } else {
            let mut payload = words.text()?;
            if let Some(len) = words.option("len", script::number)? {
                payload = format!("{payload:<len$}");
            }
            let mut message = Message::new(payload);
            if let Some(key) = words.option("key", script::text)? {
                message = message.key(key);
            }
            if let Some(partition) = words.option("partition", script::number)? {
                message = message.partition(partition);
            }
            while let Some((name, value)) = words.option("header", script::header)? {
                message = message.header(name, value);
            }
            if let Some(id) = words.option("dedup_id", script::text)? {
                message = message.dedup_id(id);
            }
            if let Some(key) = words.option("unique_key", script::text)? {
                let policy = words.option("while_pending", script::text)?.unwrap_or_else(|| "reject".to_owned());
                message = message.unique_key(key, while_pending(&policy)?);
            }
            if let Some(delay) = words.option("delay", script::duration)? {
                message = message.delay(delay);
            }
            if let Some(after) = words.option("deliver_at", script::duration)? {
                message = message.deliver_at(UNIX_EPOCH + Duration::from_millis(START.0) + after);
            }
            let receipt = topic.publish(message)?;
            return Ok(vec![self.published(&receipt, topic.name())]);
        };
        Ok(ids.into_iter().map(|id| self.names.published(id, topic.name())).collect())
    }

    fn receive(&mut self, command: &str, words: &mut Words) -> Reply {
        let group = self.group(words)?;
        match command {
            "receive" => {
                let delivery = group.receive(Duration::ZERO)?;
                Ok(vec![self.delivered(delivery)])
            }
            "receive_batch" => {
                let batch = group.receive_batch(words.number("how many")?, Duration::ZERO)?;
                let len = batch.len();
                Ok(vec![format!("B{} of {len}", self.process.batches.add(batch))])
            }
            _ => Ok(vec![format!("S{}", self.process.subscriptions.add(group.subscribe()?))]),
        }
    }

    fn delivered(&mut self, delivery: Option<Delivery>) -> String {
        let Some(delivery) = delivery else { return "nothing".to_owned() };
        let line = self.names.delivery((&delivery).into());
        format!("#{} {line}", self.process.deliveries.add(delivery))
    }

    fn settle(&mut self, command: &str, name: &str, words: &mut Words) -> Reply {
        if command == "headers" {
            return Ok(self.names.headers(self.process.deliveries.get(name)?, START));
        }
        if command == "extend" {
            return silent(self.process.deliveries.get(name)?.extend(words.duration()?));
        }
        let delivery = self.process.deliveries.take(name)?;
        match command {
            "ack" => silent(delivery.ack()),
            "ack_durable" => silent(delivery.ack_durable()),
            "nack" => silent(delivery.nack(words.text()?)),
            "nack_after" => silent(delivery.nack_after(words.duration()?, words.text()?)),
            "reject" => silent(delivery.reject(words.text()?)),
            "release" => silent(delivery.release()),
            "drop" => SILENT,
            _ => unknown(command),
        }
    }

    fn with_batch(&mut self, command: &str, name: &str, words: &mut Words) -> Reply {
        if command == "iter" {
            let (count, names) = (words.number("how many")?, &mut self.names);
            let seen = self.process.batches.get(name)?.iter().take(count);
            return Ok(seen.map(|delivery| names.delivery(delivery)).collect());
        }
        let batch = self.process.batches.take(name)?;
        let lost = match command {
            "ack" => batch.ack()?,
            "ack_durable" => batch.ack_durable()?,
            "into_iter" => return Ok(batch.into_iter().map(|delivery| self.delivered(Some(delivery))).collect()),
            "drop" => return SILENT,
            _ => return unknown(command),
        };
        Ok(lost.ids.into_iter().map(|id| format!("lost {}", self.names.of(id))).collect())
    }

    fn with_subscription(&mut self, command: &str, name: &str) -> Reply {
        let held = &mut self.process.subscriptions;
        let delivery = match command {
            "try_recv" => held.get(name)?.try_recv()?,
            "request" => {
                held.get(name)?.request();
                return SILENT;
            }
            // The thread of the subscription answers the request, and is waited for.
            "offered" => {
                let mut select = Select::new();
                select.recv(held.get(name)?.request());
                select.ready_timeout(PATIENCE).map_err(|_| format!("{name} offers nothing"))?;
                return SILENT;
            }
            "select" => {
                let answer = held.get(name)?.request().recv_timeout(PATIENCE);
                Some(answer.map_err(|error| error.to_string())??)
            }
            "drop" => {
                held.take(name)?;
                return SILENT;
            }
            _ => return unknown(command),
        };
        Ok(vec![self.delivered(delivery)])
    }

    fn stats(&mut self, words: &mut Words) -> Reply {
        let name = words.next("a group")?;
        let stats = self.store()?.stats()?;
        let group = stats.topics.iter().flat_map(|topic| &topic.groups).find(|group| group.name == name);
        Ok(vec![group.map_or_else(|| "no such group".to_owned(), show::stats)])
    }

    fn dead_letters(&mut self, command: &str, words: &mut Words) -> Reply {
        let group = self.group(words)?;
        if command == "redrive_all" {
            return Ok(vec![group.redrive_all()?.to_string()]);
        }
        let mut lines = Vec::new();
        for letter in group.dead_letters()? {
            let letter = letter?;
            let line = self.names.dead_letter(&letter, START);
            lines.push(format!("L{} {line}", self.process.letters.add(letter)));
        }
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        Ok(lines)
    }

    fn settle_dead_letter(&mut self, command: &str, words: &mut Words) -> Reply {
        let letter = self.process.letters.take(&words.next("a dead letter")?)?;
        match command {
            "redrive" => silent(letter.redrive()),
            "redrive_to" => silent(letter.redrive_to(&self.topic(words)?)),
            _ => silent(letter.discard()),
        }
    }

    /// The group rejects its next message, which is then redriven to the topic, so many times.
    fn circulate(&mut self, words: &mut Words) -> Reply {
        let (group, topic) = (self.group(words)?, self.topic(words)?);
        for _ in 0..words.number("how often")? {
            let delivery = group.receive(Duration::ZERO)?.ok_or_else(|| "nothing to reject".to_owned())?;
            delivery.reject("wrong again")?;
            self.store()?.sync()?;
            let letter = group.dead_letters()?.next().ok_or_else(|| "nothing to redrive".to_owned())?;
            letter?.redrive_to(&topic)?;
        }
        SILENT
    }
}

pub(crate) fn silent(result: millpond::Result<()>) -> Reply {
    result?;
    SILENT
}

pub(crate) fn unknown(command: &str) -> Reply {
    Err(format!("{command:?} is no command for this").into())
}

fn level(value: &str) -> Result<Durability, String> {
    match value {
        "Disk" => Ok(Durability::Disk),
        "Os" => Ok(Durability::Os),
        _ => Err(format!("{value:?} is no durability")),
    }
}

fn ordering(value: &str) -> Result<Ordering, String> {
    match value {
        "none" => Ok(Ordering::None),
        "key" => Ok(Ordering::Key),
        "partition" => Ok(Ordering::Partition),
        _ => Err(format!("{value:?} is no ordering")),
    }
}

fn retention(value: &str) -> Result<Retention, String> {
    match value {
        "until_settled" => Ok(Retention::UntilSettled),
        "forever" => Ok(Retention::Forever),
        _ => Err(format!("{value:?} is no retention")),
    }
}

/// Reads `none`, `2s`, `1s..60s`, the last also with `,jitter` behind it, `1s+..60s` which is linear, and the list `1s/5s/2s`. All of
/// them also with `,full` behind them, for full jitter.
fn backoff(value: &str) -> Result<Backoff, String> {
    if let Some(delays) = value.strip_suffix(",full") {
        return Ok(backoff(delays)?.full_jitter());
    }
    let (delays, jitter) = value.strip_suffix(",jitter").map_or((value, false), |delays| (delays, true));
    if delays.contains('/') {
        let delays = delays.split('/').map(script::duration).collect::<Result<Vec<_>, _>>()?;
        return Ok(Backoff::list(&delays));
    }
    if let Some((step, max)) = delays.split_once("+..") {
        return Ok(Backoff::linear(script::duration(step)?).max(script::duration(max)?));
    }
    match delays.split_once("..") {
        Some((first, max)) => {
            let backoff = Backoff::exponential(script::duration(first)?);
            Ok(backoff.max(script::duration(max)?).jitter(jitter))
        }
        None if delays == "none" => Ok(Backoff::none()),
        None => Ok(Backoff::fixed(script::duration(delays)?)),
    }
}

/// Reads `none`, and `10/1s`, also with `,burst=3` behind it.
fn rate(value: &str) -> Result<Option<RateLimit>, String> {
    if value == "none" {
        return Ok(None);
    }
    let (rate, burst) = value.split_once(",burst=").map_or((value, None), |(rate, burst)| (rate, Some(burst)));
    let (messages, per) = rate.split_once('/').ok_or_else(|| format!("{value:?} is no rate"))?;
    let rate = RateLimit::new(script::number(messages)?, script::duration(per)?);
    Ok(Some(match burst {
        Some(burst) => rate.burst(script::number(burst)?),
        None => rate,
    }))
}

/// Reads `earliest`, `latest`, an offset, or the time since the scenario began.
fn start(value: &str) -> Result<Start, String> {
    match value {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => match script::number(value) {
            Ok(offset) => Ok(Start::Offset(offset)),
            Err(_) => Ok(Start::Time(UNIX_EPOCH + Duration::from_millis(START.0) + script::duration(value)?)),
        },
    }
}
