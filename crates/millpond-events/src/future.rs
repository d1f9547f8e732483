//! Handlers that are futures: a worker polls one in its own thread until it is ready.

use crate::event::{Event, EventType};
use crate::handler::{Failure, Handler, Incoming, Unhandled, Work};
use crate::pattern::Pattern;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

impl Handler {
    pub(crate) fn future<T: EventType, F: Future<Output = Result<(), Failure>>>(
        pattern: Pattern,
        handle: impl Fn(Arc<Incoming<T>>) -> F + Send + Sync + 'static,
    ) -> Self {
        let handle = move |work: &Work<'_>| {
            let data = work.with_data(|data| work.attributes.decode::<T>(data)).map_err(Unhandled::Decode)?;
            let event = Event::received(work.attributes.clone(), data);
            let incoming = Arc::new(work.incoming(event));
            let is_wanted = || work.held.lease.lock().is_some();
            // What is not wanted any more was settled by another thread, and the result is not looked at.
            block_on(handle(Arc::clone(&incoming)), is_wanted).unwrap_or(Ok(())).map_err(Unhandled::Failed)?;
            Ok(incoming.take_produced())
        };
        Self::new(pattern, handle)
    }

    /// Each event is a request to a clone of the service.
    #[cfg(feature = "tower")]
    pub(crate) fn service<T: EventType, S>(pattern: Pattern, service: S) -> Self
    where
        S: tower_service::Service<Arc<Incoming<T>>, Response = ()> + Clone + Send + 'static,
        S::Error: Into<crate::handler::BoxError>,
    {
        let service = parking_lot::Mutex::new(service);
        Self::future(pattern, move |event: Arc<Incoming<T>>| {
            // The lock is not held while the clone works.
            let mut service = service.lock().clone();
            async move {
                let ready = std::future::poll_fn(|context| service.poll_ready(context)).await;
                let done = match ready {
                    Ok(()) => service.call(event).await,
                    Err(error) => Err(error),
                };
                done.map_err(|error| Failure::from_boxed(error.into()))
            }
        })
    }
}

/// Wakes the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future in this thread until it is ready. It is dropped, and `None` returned, if it is not wanted any more; who decides that unparks
/// this thread.
fn block_on<F: Future>(future: F, is_wanted: impl Fn() -> bool) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if !is_wanted() {
            return None;
        }
        thread::park();
    }
}
