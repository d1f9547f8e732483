//! A channel without room: a send ends when somebody took the value. As much of crossbeam's as the subscriptions use.

use super::{Condvar, Mutex};
pub use crossbeam_channel::{RecvError, SendTimeoutError};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Place<T> {
    offered: Option<T>,
    senders_gone: bool,
    receivers_gone: bool,
}

#[derive(Debug)]
struct Channel<T> {
    place: Mutex<Place<T>>,
    changed: Condvar,
}

/// The one sending end.
#[derive(Debug)]
pub struct Sender<T>(Arc<Channel<T>>);

/// The one receiving end.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Channel<T>>);

/// A channel for no more than the value that is being handed over.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(room, 0, "only a channel without room is modelled");
    let place = Place { offered: None, senders_gone: false, receivers_gone: false };
    let channel = Arc::new(Channel { place: Mutex::new(place), changed: Condvar::new() });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Sender<T> {
    pub(crate) fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        let mut place = self.0.place.lock();
        if place.receivers_gone {
            return Err(SendTimeoutError::Disconnected(value));
        }
        place.offered = Some(value);
        self.0.changed.notify_all();
        // The wait ends by the time, or when the other end changed something, which it does once for each value.
        self.0.changed.wait_for(&mut place, timeout);
        match place.offered.take() {
            None => Ok(()),
            Some(value) if place.receivers_gone => Err(SendTimeoutError::Disconnected(value)),
            Some(value) => Err(SendTimeoutError::Timeout(value)),
        }
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
            if let Some(value) = place.offered.take() {
                self.0.changed.notify_all();
                return Ok(value);
            }
            if place.senders_gone {
                return Err(RecvError);
            }
            self.0.changed.wait(&mut place);
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.place.lock().senders_gone = true;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.place.lock().receivers_gone = true;
        self.0.changed.notify_all();
    }
}
