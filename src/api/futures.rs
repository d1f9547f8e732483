//! Futures: receiving, publishing and waiting for a sync without a thread that blocks. They need no runtime.
//!
//! No poll does I/O: a thread of the store's receives, and the flusher syncs. Never here: wakers, asks (the engine keeps them).

use super::batch::Batch;
use super::delivery::Delivery;
use super::group::GroupInner;
use super::receipt::PublishedFrame;
use super::{Durability, Group, Message, Receipt, Topic};
use crate::engine::{Answer, Ask, DurableWait};
use crate::error::{Error, Result};
use crate::limits;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Future of [`Group::receive_async`]: resolves to the next delivery. Like a [`Group`] it keeps the store open.
#[must_use = "nothing is received before it is polled"]
pub struct Receive {
    asking: Asking,
}

/// Future of [`Group::receive_batch_async`]: resolves to the next deliveries. Like a [`Group`] it keeps the store open.
#[must_use = "nothing is received before it is polled"]
pub struct ReceiveBatch {
    asking: Asking,
}

/// Stream of [`Group::stream`]: yields one delivery after another. Like a [`Group`] it keeps the store open.
#[must_use = "nothing is received before it is polled"]
pub struct Deliveries {
    asking: Asking,
    ended: bool,
}

/// Future of [`Topic::publish_async`]: resolves to the receipt once the message is durable at the level of the topic's handle. It does
/// not keep the store open.
#[must_use = "whether the message is durable is known once this is awaited"]
pub struct Publish {
    published: Option<Result<Receipt>>,
    durable: Option<Durable>,
    level: Durability,
}

/// Future of [`Receipt::durable`]: resolves once what was published survives power loss. It does not keep the store open.
#[must_use = "it waits for nothing before it is polled"]
pub struct Durable {
    frame: PublishedFrame,
    wait: DurableWait,
}

/// An ask, and who asks.
struct Asking {
    group: Arc<GroupInner>,
    max: usize,
    ask: Option<Arc<Ask>>,
}

impl Group {
    /// Takes one message, waiting for it without blocking the thread. Needs the feature `async`, and no runtime.
    ///
    /// A thread of the store's, which the first such call starts, receives for the futures of all groups, in turn. A future that is dropped
    /// before it is ready leaves its message to others, the attempt not counted; only where that cannot be recorded, as on a full disk,
    /// the message comes back when its lease ends. Polled again once it was ready, it receives the next message.
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn block_on<T>(future: impl Future<Output = T>) -> T {
    /// #     struct Unpark(std::thread::Thread);
    /// #     impl std::task::Wake for Unpark {
    /// #         fn wake(self: std::sync::Arc<Self>) {
    /// #             self.0.unpark();
    /// #         }
    /// #     }
    /// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    /// #     let (mut future, mut context) = (std::pin::pin!(future), std::task::Context::from_waker(&waker));
    /// #     loop {
    /// #         match future.as_mut().poll(&mut context) {
    /// #             std::task::Poll::Ready(value) => return value,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let kitchen = orders.group("kitchen").open()?;
    /// # block_on(async {
    /// orders.publish_async("two pizzas").await?;
    /// let delivery = kitchen.receive_async().await?;
    /// assert_eq!(delivery.payload(), b"two pizzas");
    /// delivery.ack()?;
    /// # Ok::<(), millpond::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future gives those of [`Group::receive`], and `Io` where the system has no thread to give.
    pub fn receive_async(&self) -> Receive {
        Receive { asking: Asking::new(&self.inner, 1) }
    }

    /// As [`Group::receive_async`], up to `max` messages at once: those that are there as soon as there is one. A `max` of zero gives an
    /// empty batch; more than 65,536 count as that.
    ///
    /// # Errors
    /// The future gives those of [`Group::receive_batch`], and `Io` where the system has no thread to give.
    pub fn receive_batch_async(&self, max: usize) -> ReceiveBatch {
        ReceiveBatch { asking: Asking::new(&self.inner, max.min(limits::RECEIVE_BATCH_MAX)) }
    }

    /// The group's deliveries as a stream of the crate `futures-core`, each received when it is asked for.
    ///
    /// An error is an item like a delivery, and the stream goes on after it: wait before the next poll where its kind is
    /// [`Retry`](crate::ErrorKind::Retry). It ends after `Closed`, `Poisoned`, `Forked` and `Removed`.
    pub fn stream(&self) -> Deliveries {
        Deliveries { asking: Asking::new(&self.inner, 1), ended: false }
    }
}

impl Topic {
    /// Publishes one message as [`Topic::publish`] does, and gives a future that waits for the sync. Needs the feature `async`, and no
    /// runtime.
    ///
    /// The call itself appends the message, which survives a process crash when it returns, also if the future is dropped. Like a
    /// publish at [`Durability::Os`] it takes microseconds, unless it must begin a segment of the log; and in a store opened at
    /// [`Durability::Disk`] it waits for a sync where the topic has accepted the message before under its id
    /// ([`Message::dedup_id`]). It does not wait for room in a topic with a bound: a full one refuses it at once, also where it lets a
    /// publish [wait](crate::WhenFull::Block). The future is ready once the message survives what the handle's level says. It gives its error once;
    /// polled again after that it stays pending.
    ///
    /// # Errors
    /// The future gives those of [`Topic::publish`].
    pub fn publish_async<'a>(&self, message: impl Into<Message<'a>>) -> Publish {
        let level = self.level();
        match self.with_durability(Durability::Os).publish_at_once(&message.into()) {
            // seam: the future of a publish does not wait
            Ok(receipt) if level == Durability::Disk => {
                let durable = Some(receipt.durable());
                Publish { published: Some(Ok(receipt)), durable, level }
            }
            published => Publish { published: Some(published), durable: None, level },
        }
    }
}

impl Durable {
    pub(super) fn new(frame: &PublishedFrame) -> Self {
        Self { frame: frame.clone(), wait: DurableWait::default() }
    }
}

impl Asking {
    fn new(group: &Arc<GroupInner>, max: usize) -> Self {
        Self { group: Arc::clone(group), max, ask: None }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Answer> {
        let engine = &self.group.topic.shared.engine;
        if engine.is_forked() {
            return Poll::Ready(Err(Error::Forked));
        }
        let ask = match self.ask.take() {
            Some(ask) => ask,
            None => engine.ask(self.group.info.id, self.group.topic.info.id, self.max)?,
        };
        let answer = ask.poll(context.waker());
        if answer.is_pending() {
            self.ask = Some(ask);
        }
        answer
    }

    fn poll_one(&mut self, context: &Context<'_>) -> Poll<Result<Delivery>> {
        loop {
            let (received, unreadable) = ready!(self.poll(context))?;
            match (received.into_iter().next(), unreadable.into_iter().next()) {
                (Some(received), _) => return Poll::Ready(Ok(Delivery::alone(Arc::clone(&self.group), received))),
                (None, Some(error)) => return Poll::Ready(Err(error)),
                (None, None) => {}
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(ask) = self.ask.take() else { return };
        let engine = &self.group.topic.shared.engine;
        if engine.is_forked() {
            // Its locks are the parent's.
            std::mem::forget(ask);
        } else {
            engine.withdraw(&ask);
        }
    }
}

impl Future for Receive {
    type Output = Result<Delivery>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.asking.poll_one(context)
    }
}

impl Future for ReceiveBatch {
    type Output = Result<Batch>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let asking = &mut self.asking;
        if asking.max == 0 {
            asking.group.topic.shared.engine.enter()?;
            return Poll::Ready(Ok(Batch::new(&asking.group, Vec::new(), Vec::new())));
        }
        loop {
            let (received, mut unreadable) = ready!(asking.poll(context))?;
            if !received.is_empty() {
                return Poll::Ready(Ok(Batch::new(&asking.group, received, unreadable)));
            }
            if let Some(error) = unreadable.pop() {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl futures_core::Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.asking.poll_one(context));
        let last = |error: &Error| {
            matches!(error, Error::Closed | Error::Poisoned { .. } | Error::Forked | Error::Removed { .. })
        };
        self.ended = item.as_ref().is_err_and(last);
        Poll::Ready(Some(item))
    }
}

impl Future for Publish {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let level = self.level;
        if let Some(durable) = &mut self.durable {
            ready!(Pin::new(durable).poll(context))?;
            self.durable = None;
        }
        match &self.published {
            Some(Ok(receipt)) => Poll::Ready(Ok(receipt.at_level(level))),
            Some(Err(_)) => self.published.take().map_or(Poll::Pending, Poll::Ready),
            // It gave its error before.
            None => Poll::Pending,
        }
    }
}

impl Future for Durable {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { frame, wait } = &mut *self;
        frame.poll_durable(wait, context.waker())
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.frame.forget(&mut self.wait);
    }
}
