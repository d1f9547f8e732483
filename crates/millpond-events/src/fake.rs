//! A transport in memory, for tests: with the limits of JetStream if wanted, and with faults that a conformance suite must find.

use crate::pattern::Pattern;
use crate::transport::{
    Capabilities, Claim, Follower, GroupOptions, Inbox, Lease, Settled, Source, Transport, TransportError,
    TransportErrorKind, WireMessage, WireRef,
};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What a [`FakeTransport`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It loses the third message.
    Drops,
    /// It has the third message twice.
    Doubles,
    /// It delivers the third message before the second.
    Reorders,
    /// A message that failed is ready at once.
    IgnoresBackoff,
}

/// A [`Transport`] in memory. Its clock moves by [`FakeTransport::advance`] only.
#[derive(Clone)]
pub struct FakeTransport {
    shared: Arc<Shared>,
}

struct Shared {
    capabilities: Capabilities,
    misdeed: Option<Misdeed>,
    state: Mutex<FakeState>,
    changed: Condvar,
}

#[derive(Default)]
struct FakeState {
    now: Duration,
    log: Vec<Arc<WireMessage>>,
    groups: HashMap<String, FakeGroup>,
    inboxes: HashMap<String, HashMap<String, String>>,
}

struct FakeGroup {
    options: GroupOptions,
    /// The next message of the log.
    next: usize,
    /// Messages that were delivered and are not settled, by number.
    open: BTreeMap<usize, Open>,
    dead: Vec<String>,
    is_woken: bool,
}

struct Open {
    attempts: u32,
    /// When it may be delivered: the end of its lease, or of its backoff.
    due: Duration,
    /// Which lease holds it, if one does.
    lease: Option<u64>,
    leases: u64,
}

impl FakeTransport {
    /// One that can do everything but tell of dead letters and keep streams.
    #[must_use]
    pub fn new() -> Self {
        let all = Capabilities {
            uncounted_release: true,
            atomic_ack: true,
            reports_lost_leases: true,
            inbox: true,
            tells_failed: false,
        };
        Self::with(all, None)
    }

    /// One with the limits of JetStream: a release counts, acks publish nothing, a lost lease is not reported, there is no inbox.
    #[must_use]
    pub fn like_jetstream() -> Self {
        let none = Capabilities {
            uncounted_release: false,
            atomic_ack: false,
            reports_lost_leases: false,
            inbox: false,
            tells_failed: false,
        };
        Self::with(none, None)
    }

    /// One that can do everything, and does something wrong.
    #[must_use]
    pub fn with_misdeed(misdeed: Misdeed) -> Self {
        Self::with(Self::new().shared.capabilities, Some(misdeed))
    }

    fn with(capabilities: Capabilities, misdeed: Option<Misdeed>) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { capabilities, misdeed, state, changed: Condvar::new() }) }
    }

    /// Lets its clock run on.
    pub fn advance(&self, by: Duration) {
        let mut state = self.shared.state.lock();
        state.now = state.now.saturating_add(by);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Why the dead letters of a group are dead, oldest first.
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> Vec<String> {
        self.shared.state.lock().groups.get(group).map(|group| group.dead.clone()).unwrap_or_default()
    }
}

impl Default for FakeTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn append(&self, state: &mut FakeState, messages: &[WireMessage]) {
        for message in messages {
            let number = state.log.len();
            let message = Arc::new(message.clone());
            match (self.misdeed, number) {
                (Some(Misdeed::Drops), 2) => {
                    // Its place is taken by a message that no group wants.
                    let nothing =
                        WireMessage { headers: vec![("ce_type".into(), Vec::new())], ..WireMessage::default() };
                    state.log.push(Arc::new(nothing));
                }
                (Some(Misdeed::Doubles), 2) => state.log.extend([Arc::clone(&message), message]),
                (Some(Misdeed::Reorders), 2) => state.log.insert(1, message),
                _ => state.log.push(message),
            }
        }
        self.changed.notify_all();
    }
}

fn unsupported(what: &'static str) -> TransportError {
    TransportError::new(TransportErrorKind::FixCall, format!("{what} is not supported"))
}

fn is_wanted(patterns: &[Pattern], message: &WireMessage) -> bool {
    let event_type = message.headers.iter().find(|(name, _)| name == "ce_type");
    let Some(event_type) = event_type.and_then(|(_, value)| std::str::from_utf8(value).ok()) else { return true };
    patterns.is_empty() && !event_type.is_empty() || patterns.iter().any(|pattern| pattern.matches(event_type))
}

impl Transport for FakeTransport {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn publish(&self, messages: &[WireMessage]) -> Result<(), TransportError> {
        self.shared.append(&mut self.shared.state.lock(), messages);
        Ok(())
    }

    fn group(&self, name: &str, options: &GroupOptions) -> Result<Arc<dyn Source>, TransportError> {
        let mut state = self.shared.state.lock();
        let end = if options.only_new { state.log.len() } else { 0 };
        state.groups.entry(name.to_owned()).or_insert_with(|| FakeGroup {
            options: options.clone(),
            next: end,
            open: BTreeMap::new(),
            dead: Vec::new(),
            is_woken: false,
        });
        Ok(Arc::new(FakeSource { shared: Arc::clone(&self.shared), group: name.to_owned(), options: options.clone() }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, TransportError> {
        let next = self.shared.state.lock().log.len();
        Ok(Box::new(FakeFollower { shared: Arc::clone(&self.shared), next }))
    }

    fn inbox(&self, group: &str, _ids: u32, _window: Duration) -> Result<Box<dyn Inbox>, TransportError> {
        match self.shared.capabilities.inbox {
            true => Ok(Box::new(FakeInbox { shared: Arc::clone(&self.shared), group: group.to_owned() })),
            false => Err(unsupported("an inbox")),
        }
    }
}

struct FakeSource {
    shared: Arc<Shared>,
    group: String,
    options: GroupOptions,
}

impl FakeSource {
    fn take(&self, state: &mut FakeState, max: usize) -> Vec<Box<dyn Lease>> {
        let FakeState { now, log, groups, .. } = state;
        let Some(group) = groups.get_mut(&self.group) else { return Vec::new() };
        let timeout = self.visibility_timeout();
        let mut due: Vec<usize> =
            group.open.iter().filter(|(_, open)| open.due <= *now).map(|(number, _)| *number).take(max).collect();
        while due.len() < max && group.next < log.len() {
            if is_wanted(&group.options.patterns, &log[group.next]) {
                group.open.insert(group.next, Open { attempts: 0, due: *now, lease: None, leases: 0 });
                due.push(group.next);
            }
            group.next += 1;
        }
        let mut leases: Vec<Box<dyn Lease>> = Vec::new();
        for number in due {
            let Some(open) = group.open.get_mut(&number) else { continue };
            open.attempts += 1;
            open.leases += 1;
            (open.due, open.lease) = (now.saturating_add(timeout), Some(open.leases));
            leases.push(Box::new(FakeLease {
                shared: Arc::clone(&self.shared),
                group: self.group.clone(),
                message: Arc::clone(&log[number]),
                number,
                attempt: open.attempts,
                lease: open.leases,
                timeout,
                is_settled: false,
            }));
        }
        leases
    }
}

impl Source for FakeSource {
    fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Box<dyn Lease>>, TransportError> {
        let mut state = self.shared.state.lock();
        loop {
            let leases = self.take(&mut state, max);
            let is_woken = state.groups.get_mut(&self.group).is_some_and(|group| std::mem::take(&mut group.is_woken));
            if !leases.is_empty() || wait.is_zero() || is_woken {
                return Ok(leases);
            }
            if self.shared.changed.wait_for(&mut state, wait).timed_out() {
                return Ok(leases);
            }
        }
    }

    fn wake(&self) {
        if let Some(group) = self.shared.state.lock().groups.get_mut(&self.group) {
            group.is_woken = true;
        }
        self.shared.changed.notify_all();
    }

    fn visibility_timeout(&self) -> Duration {
        self.options.visibility_timeout.unwrap_or(Duration::from_secs(30))
    }
}

struct FakeLease {
    shared: Arc<Shared>,
    group: String,
    message: Arc<WireMessage>,
    number: usize,
    attempt: u32,
    lease: u64,
    timeout: Duration,
    is_settled: bool,
}

impl WireRef for FakeLease {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.message.each_header(each);
    }

    fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    fn key(&self) -> Option<&[u8]> {
        self.message.key.as_deref()
    }
}

impl FakeLease {
    /// Calls `settle` if the lease holds.
    fn held(&self, settle: impl FnOnce(&mut FakeGroup, Duration)) -> Settled {
        self.held_and_append(&[], settle)
    }

    /// Calls `settle` if the lease holds, and publishes the messages in the same step.
    fn held_and_append(&self, messages: &[WireMessage], settle: impl FnOnce(&mut FakeGroup, Duration)) -> Settled {
        let mut state = self.shared.state.lock();
        let now = state.now;
        let group = state.groups.get_mut(&self.group);
        let is_held =
            |group: &&mut FakeGroup| group.open.get(&self.number).is_some_and(|open| open.lease == Some(self.lease));
        let done = group.filter(is_held).map(|group| settle(group, now)).is_some();
        if done {
            self.shared.append(&mut state, messages);
        }
        drop(state);
        self.shared.changed.notify_all();
        match (done, self.shared.capabilities.reports_lost_leases) {
            (_, false) => Settled::Unknown,
            (true, true) => Settled::Done,
            (false, true) => Settled::Lost,
        }
    }

    fn fail(&self, delay: Option<Duration>, reason: &str) -> Settled {
        let is_ignored = self.shared.misdeed == Some(Misdeed::IgnoresBackoff);
        self.held(|group, now| {
            let backoff = group.options.backoff.filter(|_| !is_ignored).unwrap_or(millpond::Backoff::none());
            let delay = delay.unwrap_or_else(|| backoff.delay_max(self.attempt));
            let max = group.options.max_attempts.unwrap_or(5);
            let Some(open) = group.open.get_mut(&self.number) else { return };
            if max != 0 && open.attempts >= max {
                group.open.remove(&self.number);
                return group.dead.push(reason.to_owned());
            }
            (open.lease, open.due) = (None, now.saturating_add(delay));
        })
    }
}

impl Drop for FakeLease {
    fn drop(&mut self) {
        if !self.is_settled {
            let _ = self.fail(None, "dropped");
        }
    }
}

impl Lease for FakeLease {
    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn message_id(&self) -> String {
        self.number.to_string()
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn extend(&self, _duration: Duration) -> Result<Settled, TransportError> {
        Ok(self.held(|group, now| {
            if let Some(open) = group.open.get_mut(&self.number) {
                open.due = now.saturating_add(self.timeout);
            }
        }))
    }

    fn ack(mut self: Box<Self>, messages: &[WireMessage]) -> Result<Settled, TransportError> {
        if !messages.is_empty() && !self.shared.capabilities.atomic_ack {
            return Err(unsupported("publishing together with an ack"));
        }
        self.is_settled = true;
        Ok(self.held_and_append(messages, |group, _| {
            group.open.remove(&self.number);
        }))
    }

    fn retry(mut self: Box<Self>, delay: Option<Duration>, reason: &str) -> Result<Settled, TransportError> {
        self.is_settled = true;
        Ok(self.fail(delay, reason))
    }

    fn reject(mut self: Box<Self>, reason: &str) -> Result<Settled, TransportError> {
        self.is_settled = true;
        Ok(self.held(|group, _| {
            group.open.remove(&self.number);
            group.dead.push(reason.to_owned());
        }))
    }

    fn release(mut self: Box<Self>) -> Result<Settled, TransportError> {
        self.is_settled = true;
        let uncounted = u32::from(self.shared.capabilities.uncounted_release);
        Ok(self.held(|group, now| {
            if let Some(open) = group.open.get_mut(&self.number) {
                (open.lease, open.due, open.attempts) = (None, now, open.attempts - uncounted);
            }
        }))
    }
}

struct FakeFollower {
    shared: Arc<Shared>,
    next: usize,
}

impl Follower for FakeFollower {
    fn next(&mut self, wait: Duration, each: &mut dyn FnMut(&dyn WireRef)) -> Result<bool, TransportError> {
        let mut state = self.shared.state.lock();
        if self.next >= state.log.len() && !wait.is_zero() {
            self.shared.changed.wait_for(&mut state, wait);
        }
        let Some(message) = state.log.get(self.next).map(Arc::clone) else { return Ok(false) };
        drop(state);
        self.next += 1;
        each(&*message);
        Ok(true)
    }
}

struct FakeInbox {
    shared: Arc<Shared>,
    group: String,
}

impl Inbox for FakeInbox {
    fn claim(&self, event: &str, message: &str) -> Result<Claim, TransportError> {
        let mut state = self.shared.state.lock();
        let inbox = state.inboxes.entry(self.group.clone()).or_default();
        let first = inbox.entry(event.to_owned()).or_insert_with(|| message.to_owned());
        Ok(if first == message { Claim::Held } else { Claim::Duplicate })
    }
}
