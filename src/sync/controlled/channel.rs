//! A channel with room for one value, as much of crossbeam's as the subscriptions use.

use super::{Condvar, Mutex};
pub use crossbeam_channel::RecvError;
use crossbeam_channel::{TryRecvError, TrySendError};
use std::sync::Arc;

#[derive(Debug)]
struct HandoffSlot<T> {
    value: Option<T>,
    sender_gone: bool,
    receivers: usize,
}

#[derive(Debug)]
struct Channel<T> {
    place: Mutex<HandoffSlot<T>>,
    changed: Condvar,
}

/// The one sending end.
#[derive(Debug)]
pub struct Sender<T>(Arc<Channel<T>>);

/// A receiving end.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Channel<T>>);

/// A channel for one value.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(room, 1, "only a channel with room for one value is modelled");
    let place = HandoffSlot { value: None, sender_gone: false, receivers: 1 };
    let channel = Arc::new(Channel { place: Mutex::new(place), changed: Condvar::new() });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut place = self.0.place.lock();
        if place.receivers == 0 {
            return Err(TrySendError::Disconnected(value));
        }
        if place.value.is_some() {
            return Err(TrySendError::Full(value));
        }
        place.value = Some(value);
        drop(place);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Waits for a value.
    ///
    /// # Errors
    /// Where the sending end is gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        let mut place = self.0.place.lock();
        loop {
            if let Some(value) = place.value.take() {
                return Ok(value);
            }
            if place.sender_gone {
                return Err(RecvError);
            }
            self.0.changed.wait(&mut place);
        }
    }

    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut place = self.0.place.lock();
        place.value.take().ok_or(if place.sender_gone { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.place.lock().value.is_none()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.place.lock().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.place.lock().sender_gone = true;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.place.lock().receivers -= 1;
    }
}
