//! Deliveries through a channel.

use super::delivery::Delivery;
use super::group::GroupInner;
use crate::engine::{Wait, spawn_subscription};
use crate::error::Result;
use crate::sync::Mutex;
use crate::sync::channel::{Receiver, SendTimeoutError, Sender, bounded};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long the thread waits for a message before it looks whether the store still has handles.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn start(group: &Arc<GroupInner>) -> Result<Receiver<Delivery>> {
    group.topic.shared.engine.enter()?;
    let (sender, receiver) = bounded(0);
    let weak = Arc::downgrade(group);
    spawn_subscription(move || deliver(&weak, &sender))?;
    Ok(receiver)
}

/// Hands out deliveries until the receiver, the store or its last handle is gone. An error ends the channel: the next call on
/// a handle tells it. A message that cannot be read is passed over; who receives by a call is told of it.
fn deliver(group: &Weak<GroupInner>, sender: &Sender<Delivery>) {
    let reader = Mutex::default();
    loop {
        let Some(group) = group.upgrade() else { return };
        let (id, topic) = (group.info.id, group.topic.info.id);
        let engine = Arc::clone(&group.topic.shared.engine);
        let half = Duration::from_millis(group.info.options.visibility_timeout_ms.div_ceil(2));
        let weak = Arc::downgrade(&group);
        // No handle is held while waiting: the last one a user drops ends the store, and this wait with it.
        drop(group);
        let (mut received, wait) = (None, Wait::new(&engine, LOOK_INTERVAL));
        let looked = engine.receive(id, topic, 1, wait, &reader, &mut |one| received = Some(one));
        if looked.is_err() {
            return;
        }
        let (Some(received), Some(group)) = (received, weak.upgrade()) else { continue };
        match sender.send_timeout(Delivery::alone(group, received), half) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(delivery)) => {
                if delivery.release().is_err() {
                    return;
                }
            }
            Err(SendTimeoutError::Disconnected(delivery)) => {
                // The message is ready for others; if that cannot be recorded, it is once the lease expires.
                let _ = delivery.release();
                return;
            }
        }
    }
}
