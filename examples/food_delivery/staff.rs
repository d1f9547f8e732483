//! Everybody who works: the order service, the three groups on `orders`, the chefs on `prep`.
//!
//! Every consumer does its job, publishes the outcome to `done`, and acks last. A crash in between delivers the message
//! again, so an outcome may be there twice and never be missing: at least once. The ids in it tell.

use crate::Result;
use crate::audit::{Outcome, Stage};
use crate::orders::{Order, Task};
use crate::shop::{Crew, Shop};
use millpond::{Delivery, Error, Message};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

const CHEFS: usize = 4;
/// How long to wait for a message before looking whether the work is over.
const PATIENCE: Duration = Duration::from_millis(20);
/// A line of progress for every so many messages.
const PROGRESS_STEP: u64 = 1_000;

/// The people at work, until nothing is left to do.
pub(crate) struct Shift<'a> {
    shop: &'a Shop,
    crash_after: Option<u64>,
    handled: AtomicU64,
    /// All orders have been published.
    orders_are_in: AtomicBool,
    /// Someone failed: everybody goes home.
    is_broken: AtomicBool,
    /// What no chef could cook before can now be cooked.
    pub(crate) menu_fixed: bool,
}

/// Why a dish did not work out.
enum Mishap {
    /// It may work the next time.
    Passing(String),
    /// It never will.
    Hopeless(String),
}

impl<'a> Shift<'a> {
    pub(crate) fn new(shop: &'a Shop, crash_after: Option<u64>) -> Self {
        Self {
            shop,
            crash_after,
            handled: AtomicU64::new(0),
            orders_are_in: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            menu_fixed: false,
        }
    }

    /// Publishes the orders that are not published yet, and works until every group has settled everything.
    pub(crate) fn work(&self, orders: &[Order], published: &HashSet<String>) -> Result<()> {
        self.orders_are_in.store(false, SeqCst);
        thread::scope(|scope| {
            let mut people: Vec<ScopedJoinHandle<'_, Result<()>>> = vec![
                scope.spawn(|| self.guarded(|| self.take_orders(orders, published))),
                scope.spawn(|| self.guarded(|| self.run_kitchen())),
                scope.spawn(|| self.guarded(|| self.notify_customers())),
                scope.spawn(|| self.guarded(|| self.drive())),
            ];
            people.extend((0..CHEFS).map(|_| scope.spawn(|| self.guarded(|| self.cook()))));
            people.into_iter().try_for_each(|person| person.join().map_err(|_| "a thread panicked")?)
        })
    }

    fn take_orders(&self, orders: &[Order], published: &HashSet<String>) -> Result<()> {
        for order in orders.iter().filter(|order| !published.contains(&order.order_id)) {
            let message =
                Message::new(serde_json::to_vec(order)?).key(order.customer.id.as_str()).header("type", "OrderPlaced");
            // When this returns, the order survives a power failure.
            self.shop.orders.publish(message)?;
            if self.is_broken.load(SeqCst) {
                return Ok(());
            }
        }
        self.orders_are_in.store(true, SeqCst);
        Ok(())
    }

    fn run_kitchen(&self) -> Result<()> {
        self.consume(&self.shop.kitchen, |delivery| {
            let order: Order = serde_json::from_slice(delivery.payload())?;
            let mut tasks = Vec::new();
            for task in order.tasks() {
                tasks.push(Message::new(serde_json::to_vec(&task)?));
            }
            // One batch is there whole or not at all: no order is half cooked.
            self.shop.prep.publish_batch(tasks)?;
            self.finish(delivery, Stage::Kitchen, &order.order_id, order.total_cents)
        })
    }

    fn notify_customers(&self) -> Result<()> {
        self.consume(&self.shop.notification, |delivery| {
            let order: Order = serde_json::from_slice(delivery.payload())?;
            // Here a text message would be sent.
            self.finish(delivery, Stage::Notification, &order.order_id, order.total_cents)
        })
    }

    fn drive(&self) -> Result<()> {
        self.consume(&self.shop.delivery, |delivery| {
            let order: Order = serde_json::from_slice(delivery.payload())?;
            // Here somebody would get on a bicycle.
            self.finish(delivery, Stage::Delivery, &order.order_id, order.total_cents)
        })
    }

    fn cook(&self) -> Result<()> {
        self.consume(&self.shop.chefs, |delivery| {
            let task: Task = serde_json::from_slice(delivery.payload())?;
            match self.try_to_cook(&task, delivery.attempt()) {
                Ok(()) => self.finish(delivery, Stage::Cooked, &task.id, task.item.cents()),
                Err(Mishap::Passing(reason)) => unless_lease_lost(delivery.nack(reason)),
                Err(Mishap::Hopeless(reason)) => unless_lease_lost(delivery.reject(reason)),
            }
        })
    }

    fn try_to_cook(&self, task: &Task, attempt: u32) -> std::result::Result<(), Mishap> {
        let item = &task.item;
        if !self.menu_fixed && !item.station_is_known() {
            return Err(Mishap::Hopeless(format!("no station is called {:?}", item.station)));
        }
        if !self.menu_fixed && !item.quantity_is_possible() {
            return Err(Mishap::Passing(format!("cannot make {} of {}", item.quantity, item.name)));
        }
        if attempt <= item.collapses() {
            return Err(Mishap::Passing(format!("{} collapsed", item.name)));
        }
        Ok(())
    }

    /// Publishes the outcome, then acks.
    fn finish(&self, delivery: Delivery, stage: Stage, id: &str, cents: i64) -> Result<()> {
        let redriven = delivery.origin() != delivery.id();
        let outcome = Outcome { stage, id: id.to_owned(), cents, attempt: delivery.attempt(), redriven };
        self.shop.done.publish(outcome.to_message()?)?;
        self.count_one();
        unless_lease_lost(delivery.ack())
    }

    /// Counts a handled message. The crash that was asked for comes here, at the worst moment: the outcome is out, the
    /// ack is not.
    fn count_one(&self) {
        let handled = self.handled.fetch_add(1, SeqCst) + 1;
        if self.crash_after == Some(handled) {
            eprintln!("crashing after {handled} messages, as asked");
            std::process::abort();
        }
        if handled.is_multiple_of(PROGRESS_STEP) {
            println!("{handled} messages handled");
        }
    }

    /// Hands the messages of a crew to `handle`, one by one, until there are none and none can come.
    fn consume(&self, crew: &Crew, mut handle: impl FnMut(Delivery) -> Result<()>) -> Result<()> {
        while !self.is_broken.load(SeqCst) {
            match crew.group.receive(PATIENCE)? {
                Some(delivery) => handle(delivery)?,
                None if self.is_over(crew)? => break,
                None => {}
            }
        }
        Ok(())
    }

    /// The source must have run dry before the crew is looked at: in the other order, a message could slip between.
    fn is_over(&self, crew: &Crew) -> Result<bool> {
        let kitchen_first = crew.topic == "prep";
        Ok(self.orders_are_in.load(SeqCst)
            && (!kitchen_first || self.shop.is_drained(&self.shop.kitchen)?)
            && self.shop.is_drained(crew)?)
    }

    /// Tells the others when `work` fails or panics, so that nobody waits for it.
    fn guarded(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let alarm = Alarm(&self.is_broken);
        work()?;
        std::mem::forget(alarm);
        Ok(())
    }
}

/// Goes off when it is dropped.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A worker that took too long has lost the message to another one, which settles it: no reason to stop.
fn unless_lease_lost(settled: millpond::Result<()>) -> Result<()> {
    match settled {
        Err(Error::LeaseLost { .. }) => Ok(()),
        other => Ok(other?),
    }
}
