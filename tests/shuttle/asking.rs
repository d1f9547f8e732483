//! Futures: one that waits is woken, one that goes away leaves its message to others, and the end of the store ends all.

use crate::rig::{LONG, Machine, explore, group, topic};
use millpond::{Delivery, Durability, Error};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
struct Woken {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Woken {
    fn take(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = self.changed.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }
}

fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let woken = Arc::new(Woken::default());
    loop {
        match poll(&mut future, &woken) {
            Poll::Ready(value) => return value,
            Poll::Pending => woken.take(),
        }
    }
}

/// One future goes away, at once or when it was woken; another and a blocked consumer share what there is. Nobody sleeps on, and
/// no attempt is counted that nobody saw (G22).
#[test]
fn a_future_that_goes_away_keeps_nothing() {
    explore("a_future_that_goes_away_keeps_nothing", ["dropped at once", "dropped when woken", "had it"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let group = group(&topic, "g");
        let fickle = {
            let group = group.clone();
            let waits = thread_rng().gen_bool(0.5);
            thread::spawn(move || {
                let (mut future, woken) = (group.receive_async(), Arc::new(Woken::default()));
                let mut polled = poll(&mut future, &woken);
                if polled.is_pending() && waits {
                    woken.take();
                    // Half of them go away with what they were given.
                    if thread_rng().gen_bool(0.5) {
                        polled = poll(&mut future, &woken);
                    }
                }
                match polled {
                    Poll::Ready(delivery) => {
                        delivery.unwrap().release().unwrap();
                        2
                    }
                    Poll::Pending => usize::from(waits),
                }
            })
        };
        let settle = |delivery: Delivery| {
            assert_eq!(delivery.attempt(), 1, "an attempt that nobody saw was counted (G22)");
            delivery.ack().unwrap();
        };
        let blocked = {
            let group = group.clone();
            thread::spawn(move || settle(group.receive(LONG).unwrap().expect("nobody lets time pass")))
        };
        let asking = {
            let group = group.clone();
            thread::spawn(move || settle(block_on(group.receive_async()).unwrap()))
        };
        // One more than those who take one, for the one that waits and gives it back.
        topic.publish_batch(["1", "2", "3"]).unwrap();
        seen.note(fickle.join().unwrap());
        blocked.join().unwrap();
        asking.join().unwrap();
        settle(block_on(group.receive_async()).unwrap());
        assert!(store.violations().is_empty());
    });
}

/// The wake-up for the only message may come when the future that it was for is gone. A blocked consumer has it then.
#[test]
fn a_wake_up_for_a_future_that_is_gone_goes_to_others() {
    explore("a_wake_up_for_a_future_that_is_gone", ["all the same"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let group = group(&topic, "g");
        let (mut future, woken) = (group.receive_async(), Arc::new(Woken::default()));
        assert!(poll(&mut future, &woken).is_pending());
        let blocked =
            thread::spawn(move || group.receive(LONG).unwrap().expect("nobody lets time pass").ack().unwrap());
        let dropping = thread::spawn(move || drop(future));
        topic.publish("1").unwrap();
        dropping.join().unwrap();
        blocked.join().unwrap();
        seen.note(0);
    });
}

/// A close answers every future, those that ask while it goes on too.
#[test]
fn a_close_ends_futures() {
    explore("a_close_ends_futures", ["closed", "a message"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let group = group(&topic, "g");
        let asking: Vec<_> = (0..2)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || block_on(group.receive_async()))
            })
            .collect();
        topic.publish("1").unwrap();
        let closing = thread::spawn(move || store.close());
        for asked in asking {
            match asked.join().unwrap() {
                Ok(delivery) => {
                    seen.note(1);
                    drop(delivery);
                }
                Err(Error::Closed) => seen.note(0),
                Err(error) => panic!("{error}"),
            }
        }
        closing.join().unwrap().unwrap();
    });
}

/// A future that waits for a sync is woken by whoever syncs, however the two meet.
#[test]
fn a_sync_wakes_the_futures_that_wait_for_it() {
    explore("a_sync_wakes_the_futures", ["waited", "was durable"], |seen| {
        let machine = Machine::new();
        let store = machine.open(Durability::Os);
        let topic = topic(&store);
        let receipt = topic.publish("1").unwrap();
        let waiting = {
            let receipt = receipt.clone();
            thread::spawn(move || {
                let (mut durable, woken) = (receipt.durable(), Arc::new(Woken::default()));
                let is_pending = poll(&mut durable, &woken).is_pending();
                if is_pending {
                    woken.take();
                    block_on(durable).unwrap();
                }
                usize::from(!is_pending)
            })
        };
        store.sync().unwrap();
        seen.note(waiting.join().unwrap());
        assert!(store.stats().unwrap().log.durable > receipt.lsn());
    });
}
