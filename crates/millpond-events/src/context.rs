//! The event in the hands of this thread's handler: what is published meanwhile was caused by it.

use crate::attributes::Attributes;
use std::cell::RefCell;
use std::sync::Arc;

/// What an event passes on to those that it causes.
#[derive(Clone, Debug)]
pub(crate) struct Cause(Arc<Attributes>);

impl From<&Arc<Attributes>> for Cause {
    fn from(attributes: &Arc<Attributes>) -> Self {
        Self(Arc::clone(attributes))
    }
}

impl Cause {
    /// Makes the event one that this one caused, where it says nothing else.
    pub(crate) fn pass_on(&self, caused: &mut Attributes) {
        caused.causation_id.get_or_insert_with(|| self.0.id().to_owned());
        // Also one that was received and is published again: a relay in a circle comes to an end.
        caused.depth = caused.depth.max(self.0.depth().saturating_add(1));
        caused.correlation_id.get_or_insert_with(|| self.0.correlation_id().to_owned());
        if caused.traceparent.is_none() {
            caused.traceparent = self.0.traceparent().map(str::to_owned);
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Cause>> = const { RefCell::new(None) };
}

/// Ends what [`enter`] began.
pub(crate) struct Inside(Option<Cause>);

/// From now on this thread's publishes were caused by the event.
pub(crate) fn enter(cause: Cause) -> Inside {
    Inside(CURRENT.try_with(|current| current.replace(Some(cause))).unwrap_or_default())
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Where the thread ends there is nothing to put back.
        let _ = CURRENT.try_with(|current| current.replace(self.0.take()));
    }
}

/// The event in hand.
pub(crate) fn current() -> Option<Cause> {
    CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_default()
}
