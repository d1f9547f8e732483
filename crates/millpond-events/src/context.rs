//! The event in the hands of this thread's handler: what is published meanwhile was caused by it.

use crate::attributes::Attributes;
use std::cell::RefCell;

/// What an event passes on to those that it causes.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    id: String,
    correlation_id: String,
    depth: u32,
    traceparent: Option<String>,
}

impl From<&Attributes> for Cause {
    fn from(attributes: &Attributes) -> Self {
        Self {
            id: attributes.id().to_owned(),
            correlation_id: attributes.correlation_id().to_owned(),
            depth: attributes.depth(),
            traceparent: attributes.traceparent().map(str::to_owned),
        }
    }
}

impl Cause {
    /// Makes the event one that this one caused, where it says nothing else.
    pub(crate) fn pass_on(&self, caused: &mut Attributes) {
        if caused.causation_id.is_none() {
            caused.causation_id = Some(self.id.clone());
        }
        // Also one that was received and is published again: a relay in a circle comes to an end.
        caused.depth = caused.depth.max(self.depth.saturating_add(1));
        caused.correlation_id.get_or_insert_with(|| self.correlation_id.clone());
        if caused.traceparent.is_none() {
            caused.traceparent.clone_from(&self.traceparent);
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
