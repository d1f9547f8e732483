//! Listeners: events from now on, without a name and without a second attempt.

use crate::attributes::Attributes;
use crate::bus::Core;
use crate::cloudevents;
use crate::context;
use crate::error::{DecodeError, Error, Result};
use crate::event::{Event, EventType};
use crate::fault::Fault;
use crate::handler::{Failure, drop_caught, panic_text};
use crate::pattern::Pattern;
use crate::transport::{Follower, TransportErrorKind, WireRef};
use parking_lot::Mutex;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a listener's thread may outlive its handle. Its handler does not.
const WAIT: Duration = Duration::from_millis(200);

/// Keeps a listener. Dropped, it waits for the handler in progress, and no other call follows; dropped in that handler, it does not wait.
#[must_use = "a listener ends when this is dropped"]
pub struct Listener {
    handler: Arc<Mutex<Option<RawHandler>>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if !RUNS.with(|runs| std::ptr::eq(runs.get(), Arc::as_ptr(&self.handler))) {
            let handler = self.handler.lock().take();
            drop_caught(handler);
        }
    }
}

thread_local! {
    /// Which listener's handler this thread runs.
    static RUNS: Cell<*const Mutex<Option<RawHandler>>> = const { Cell::new(std::ptr::null()) };
}

/// The handler of a listener.
pub(crate) struct RawHandler(Box<Handle>);

type Handle = dyn Fn(Arc<Attributes>, &[u8]) -> Result<Result<(), Failure>, DecodeError> + Send;

impl RawHandler {
    pub(crate) fn typed<T: EventType>(handle: impl Fn(&Event<T>) -> Result<(), Failure> + Send + 'static) -> Self {
        Self(Box::new(move |attributes, data| {
            let data = attributes.decode::<T>(data)?;
            Ok(handle(&Event::received(attributes, data)))
        }))
    }
}

impl Listener {
    pub(crate) fn start(core: Arc<Core>, pattern: Pattern, handler: RawHandler) -> Result<Self> {
        let follower = core.transport.follow()?;
        let handler = Arc::new(Mutex::new(Some(handler)));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = Thread { core, pattern, handler: Arc::clone(&handler), ended: Arc::clone(&ended) };
        let builder = std::thread::Builder::new().name("events-listener".to_owned());
        builder.spawn(move || thread.run(follower)).map_err(Error::Thread)?;
        Ok(Self { handler, ended })
    }
}

struct Thread {
    core: Arc<Core>,
    pattern: Pattern,
    handler: Arc<Mutex<Option<RawHandler>>>,
    ended: Arc<AtomicBool>,
}

impl Thread {
    fn run(self, follower: Box<dyn Follower>) {
        self.follow(follower);
        let handler = self.handler.lock().take();
        drop_caught(handler);
    }

    fn follow(&self, mut follower: Box<dyn Follower>) {
        while !self.ended.load(Ordering::Acquire) && !self.core.is_stopped() {
            match follower.next(WAIT, &mut |message| self.handle(message)) {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    TransportErrorKind::Skip => self.core.fault(&Fault::Missed { error }),
                    TransportErrorKind::Retry | TransportErrorKind::Conflict | TransportErrorKind::Unknown => {
                        self.core.fault(&Fault::Missed { error });
                        std::thread::park_timeout(WAIT);
                    }
                    TransportErrorKind::FixCall | TransportErrorKind::Stop => {
                        return self.core.fault(&Fault::ListenerEnded { error });
                    }
                },
            }
        }
    }

    fn handle(&self, message: &dyn WireRef) {
        let (attributes, data) = match cloudevents::read(message) {
            Ok((attributes, data)) => (Arc::new(attributes), data),
            Err(error) => return self.core.fault(&Fault::Unread { error }),
        };
        if !self.pattern.matches(attributes.event_type()) {
            return;
        }
        let event = attributes.id().to_owned();
        let cause = context::Cause::from(&attributes);
        let handler = self.handler.lock();
        let Some(RawHandler(handle)) = &*handler else { return };
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let _inside = context::enter(cause);
        RUNS.with(|runs| runs.set(Arc::as_ptr(&self.handler)));
        let run = || handle(attributes, data.as_deref().unwrap_or_else(|| message.payload()));
        let outcome = catch_unwind(AssertUnwindSafe(run));
        RUNS.with(|runs| runs.set(std::ptr::null()));
        drop(handler);
        match outcome {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(failure))) => self.core.fault(&Fault::Listener { event, text: failure.text }),
            Ok(Err(error)) => self.core.fault(&Fault::Unread { error }),
            Err(panic) => self.core.fault(&Fault::Listener { event, text: panic_text(panic) }),
        }
    }
}
