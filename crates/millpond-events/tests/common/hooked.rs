//! A transport over another, in which a test decides what a receive brings and how a settle ends.

#![allow(dead_code, reason = "each test takes what it needs")]

use millpond::Delivery;
use millpond_events::Embedded;
use millpond_events::transport::{
    Capabilities, Claim, Follower, GroupOptions, Inbox, Lease, Settled, Source, Transport, TransportError, WireMessage,
    WireRef,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub type Leases = Vec<Box<dyn Lease>>;
type Hook<I, O> = Mutex<Option<Box<dyn FnMut(I) -> O + Send>>>;

#[derive(Default)]
pub struct Hooks {
    /// Called with what a receive brings, before the bus gets it.
    pub received: Hook<Result<Leases, TransportError>, Result<Leases, TransportError>>,
    /// Called with the name of each settle. What it returns is the answer, and the lease is left where it is.
    pub settle: Hook<&'static str, Option<Result<Settled, TransportError>>>,
    /// Called with each claim of an inbox.
    pub claim: Hook<(), Option<Result<Claim, TransportError>>>,
}

impl Hooks {
    pub fn on_settle(
        &self,
        hook: impl FnMut(&'static str) -> Option<Result<Settled, TransportError>> + Send + 'static,
    ) {
        *self.settle.lock().unwrap() = Some(Box::new(hook));
    }

    pub fn on_received(
        &self,
        hook: impl FnMut(Result<Leases, TransportError>) -> Result<Leases, TransportError> + Send + 'static,
    ) {
        *self.received.lock().unwrap() = Some(Box::new(hook));
    }

    fn settling(&self, verb: &'static str) -> Option<Result<Settled, TransportError>> {
        call(&self.settle, verb).flatten()
    }
}

/// Calls the hook, which may panic, without its lock.
fn call<I, O>(hook: &Hook<I, O>, input: I) -> Option<O> {
    let mut taken = hook.lock().unwrap().take()?;
    let output = taken(input);
    hook.lock().unwrap().get_or_insert(taken);
    Some(output)
}

pub struct Hooked {
    pub below: Arc<dyn Transport>,
    pub hooks: Arc<Hooks>,
}

impl Transport for Hooked {
    fn capabilities(&self) -> Capabilities {
        self.below.capabilities()
    }

    fn publish(&self, messages: &[WireMessage]) -> Result<(), TransportError> {
        self.below.publish(messages)
    }

    fn group(&self, name: &str, options: &GroupOptions) -> Result<Arc<dyn Source>, TransportError> {
        let below = self.below.group(name, options)?;
        Ok(Arc::new(HookedSource { below, hooks: Arc::clone(&self.hooks) }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, TransportError> {
        self.below.follow()
    }

    fn inbox(&self, group: &str, ids: u32, window: Duration) -> Result<Box<dyn Inbox>, TransportError> {
        let below = self.below.inbox(group, ids, window)?;
        Ok(Box::new(HookedInbox { below, hooks: Arc::clone(&self.hooks) }))
    }

    fn embedded(&self) -> Option<&Embedded> {
        self.below.embedded()
    }
}

struct HookedSource {
    below: Arc<dyn Source>,
    hooks: Arc<Hooks>,
}

impl Source for HookedSource {
    fn receive(&self, max: usize, wait: Duration) -> Result<Leases, TransportError> {
        let received = self.below.receive(max, wait).map(|leases| {
            let lease = |below| Box::new(HookedLease { below, hooks: Arc::clone(&self.hooks) }) as Box<dyn Lease>;
            leases.into_iter().map(lease).collect()
        });
        if self.hooks.received.lock().unwrap().is_none() {
            return received;
        }
        call(&self.hooks.received, received).expect("one thread receives at a time")
    }

    fn wake(&self) {
        self.below.wake();
    }

    fn visibility_timeout(&self) -> Duration {
        self.below.visibility_timeout()
    }
}

struct HookedLease {
    below: Box<dyn Lease>,
    hooks: Arc<Hooks>,
}

impl WireRef for HookedLease {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.below.each_header(each);
    }

    fn payload(&self) -> &[u8] {
        self.below.payload()
    }

    fn key(&self) -> Option<&[u8]> {
        self.below.key()
    }
}

impl Lease for HookedLease {
    fn attempt(&self) -> u32 {
        self.below.attempt()
    }

    fn message_id(&self) -> String {
        self.below.message_id()
    }

    fn delivery(&self) -> Option<&Delivery> {
        self.below.delivery()
    }

    fn age(&self) -> Option<Duration> {
        self.below.age()
    }

    fn extend(&self, duration: Duration) -> Result<Settled, TransportError> {
        self.hooks.settling("extend").unwrap_or_else(|| self.below.extend(duration))
    }

    fn ack(self: Box<Self>, messages: &[WireMessage]) -> Result<Settled, TransportError> {
        self.hooks.settling("ack").unwrap_or_else(|| self.below.ack(messages))
    }

    fn retry(self: Box<Self>, delay: Option<Duration>, reason: &str) -> Result<Settled, TransportError> {
        self.hooks.settling("retry").unwrap_or_else(|| self.below.retry(delay, reason))
    }

    fn reject(self: Box<Self>, reason: &str) -> Result<Settled, TransportError> {
        self.hooks.settling("reject").unwrap_or_else(|| self.below.reject(reason))
    }

    fn release(self: Box<Self>) -> Result<Settled, TransportError> {
        self.hooks.settling("release").unwrap_or_else(|| self.below.release())
    }
}

struct HookedInbox {
    below: Box<dyn Inbox>,
    hooks: Arc<Hooks>,
}

impl Inbox for HookedInbox {
    fn claim(&self, event: &str, message: &str) -> Result<Claim, TransportError> {
        call(&self.hooks.claim, ()).flatten().unwrap_or_else(|| self.below.claim(event, message))
    }
}
