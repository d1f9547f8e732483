//! Opening groups, and creating them.
//!
//! Never here: what options may be, receiving.

use super::group::{Group, GroupInner};
use super::group_options::Given;
use super::seek::wall_of;
use super::topic::TopicInner;
use super::{Backoff, RateLimit, Start, Topic, check_name};
use crate::engine::{Begin, Ordering};
use crate::error::Result;
use crate::ids::Offset;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Opens a group, or creates it.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct GroupBuilder {
    pub(super) topic: Arc<TopicInner>,
    pub(super) name: String,
    given: Given,
    start: Start,
    create: bool,
}

impl GroupBuilder {
    pub(super) fn new(topic: Arc<TopicInner>, name: String) -> Self {
        Self { topic, name, given: Given::default(), start: Start::default(), create: true }
    }

    /// How long a delivery may take before its message goes to another consumer. 1 ms to ten years; default 30 seconds.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.given.visibility_timeout = Some(timeout);
        self
    }

    /// How many attempts a message gets before it becomes a dead letter; 0 for no limit. Default 5.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.given.max_attempts = Some(attempts);
        self
    }

    /// How many nacks a message gets before it becomes a dead letter, whatever `max_attempts` says; 0 for no limit. Default: 0. At
    /// most `max_attempts`, where that is a limit.
    pub fn max_nacks(mut self, nacks: u32) -> Self {
        self.given.max_nacks = Some(nacks);
        self
    }

    /// How often a delivery of a message may expire before it becomes a dead letter, whatever `max_attempts` says; 0 for no limit.
    /// Default: 0. At most `max_attempts`, where that is a limit.
    pub fn max_expiries(mut self, expiries: u32) -> Self {
        self.given.max_expiries = Some(expiries);
        self
    }

    /// In how many crashes in a row a message may be leased before it becomes a dead letter, whatever `max_attempts` says; 0 for no
    /// limit. Default: 0. At most `max_attempts`, where that is a limit. An attempt that ends in another way begins the count anew.
    /// The last attempt that may crash is exclusive, as far as `isolation_limit` allows; with 1 the first crash is the last, and takes
    /// along whatever else was leased.
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.given.max_crashes = Some(crashes);
        self
    }

    /// How long a message waits after a failed attempt: after a nack without a delay of its own, and from the second attempt on
    /// after an expired lease or a crash too. Default [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.given.backoff = Some(backoff);
        self
    }

    /// How many messages may be leased, waiting or due for a retry at once; at that number the group gets no new ones. 1 to
    /// 1,048,576; default 65,536.
    pub fn max_outstanding(mut self, messages: u32) -> Self {
        self.given.max_outstanding = Some(messages);
        self
    }

    /// How many messages may be leased at once, by all consumers together, from 1 to 1,048,576; 0 for no limit. Default: 0. At most
    /// `max_outstanding`. A lease that ended without its consumer keeps its place until its message is delivered again, which is after
    /// the backoff, or becomes a dead letter.
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.given.max_in_flight = Some(messages);
        self
    }

    /// How many messages are delivered over time, to all consumers together, each attempt counted; `None` for no limit, which is the
    /// default. A receive that waits gets the next message as soon as the rate allows it. The rate goes by the clock of the process:
    /// each open of the store begins without tokens, so that a restart gives no burst.
    ///
    /// ```
    /// # use millpond::{RateLimit, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let mails = store.topic("mails").open()?;
    /// // 100 mails a minute, and no more than 10 at a time after a pause.
    /// let rate = RateLimit::new(100, Duration::from_secs(60)).burst(10);
    /// let sender = mails.group("sender").rate_limit(rate).open()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn rate_limit(mut self, rate: impl Into<Option<RateLimit>>) -> Self {
        self.given.rate_limit = Some(rate.into());
        self
    }

    /// At how many orderly closes in a row a message may be leased before each further one counts as an attempt: an orderly close
    /// by itself does not. Any other end of a delivery begins the count anew. 0 to 255; default 20.
    pub fn max_closes(mut self, closes: u32) -> Self {
        self.given.max_closes = Some(closes);
        self
    }

    /// To which topic of the store a notice goes for each message that becomes a dead letter; `None` for no notices, which is the
    /// default.
    ///
    /// The notice is published in one step with the move to the dead letters. Its payload is the error's text, its key that of the
    /// message. Its headers are `dead-letter-id` (the id under which the message was published first), `dead-letter-topic`,
    /// `dead-letter-group`, `dead-letter-cause` (`nacked`, `rejected`, `expired`, `crashed` or `closed`), `dead-letter-attempts` and
    /// `dead-letter-time-ms`. A message with the first of these headers is a notice itself, and causes no other one. If the topic is
    /// removed, messages become dead letters without a notice.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let alerts = store.topic("alerts").open()?;
    /// let orders = store.topic("orders").open()?;
    /// let kitchen = orders.group("kitchen").dead_letter_notices(&alerts).open()?;
    /// let on_call = alerts.group("on-call").open()?;
    ///
    /// orders.publish("a pizza with everything")?;
    /// kitchen.receive(Duration::ZERO)?.expect("one is there").reject("no such dish")?;
    /// # store.sync()?;
    /// let notice = on_call.receive(Duration::ZERO)?.expect("the notice of it");
    /// assert_eq!(notice.header("dead-letter-group"), Some(&b"kitchen"[..]));
    /// assert_eq!(notice.payload(), b"no such dish");
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letter_notices<'t>(mut self, topic: impl Into<Option<&'t Topic>>) -> Self {
        self.given.notices = Some(topic.into().cloned());
        self
    }

    /// Which messages of the group wait for each other: none, which is the default, those with the same key, or those of the same
    /// partition. The next one is delivered once the one before it is acked, rejected or a dead letter, whatever happens until then: a
    /// nack, an expired lease, a crash. Fixed when the group is created; by a number that is no cryptographic hash of the key, so that two
    /// keys may rarely wait for each other.
    ///
    /// ```
    /// # use millpond::{Message, Ordering, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").partitions(4).open()?;
    /// let ledger = orders.group("ledger").ordering(Ordering::Key).open()?;
    ///
    /// orders.publish(Message::new("paid").key("order-1"))?;
    /// orders.publish(Message::new("shipped").key("order-1"))?;
    /// # store.sync()?;
    /// let paid = ledger.receive(Duration::ZERO)?.expect("the first of its key");
    /// assert!(ledger.receive(Duration::ZERO)?.is_none(), "the next one waits for it");
    /// paid.ack()?;
    /// assert_eq!(ledger.receive(Duration::ZERO)?.expect("its turn").payload(), b"shipped");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.given.ordering = Some(ordering);
        self
    }

    /// How many messages of a key, or of a partition, may be out at once: leased, waiting, or due for a retry. Default: 1, which keeps
    /// them strictly in order. Range: 1 to 65,536. Fixed when the group is created, and only for one with an [`Ordering`].
    pub fn max_in_flight_per_key(mut self, messages: u32) -> Self {
        self.given.max_in_flight_per_key = Some(messages);
        self
    }

    /// Which messages the group wants, by their headers; `None` for all, which is the default. At most 1,024 bytes. A message that does not
    /// pass is settled for this group without a delivery. A group in order of keys keeps the filter that it was created with; for any other it
    /// can be changed by [`GroupChange::filter_from_here`](super::GroupChange::filter_from_here).
    ///
    /// A test names a header: `type = 'order.placed'`, `region in ('eu', 'us')`, `type starts with 'order.'`, `type matches 'order.*'`,
    /// `weight >= 12.5`, `tenant exists`. Tests are combined by `not`, `and`, `or` and parentheses. All of it is in the guide to filters.
    ///
    /// ```
    /// # use millpond::{Message, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let freight = orders.group("freight").filter("type matches 'order.*' and weight > 30").open()?;
    ///
    /// orders.publish(Message::new("a pizza").header("type", "order.placed").header("weight", "1"))?;
    /// orders.publish(Message::new("an oven").header("type", "order.placed").header("weight", "85.5"))?;
    /// # store.sync()?;
    /// assert_eq!(freight.receive(Duration::ZERO)?.expect("the heavy one").payload(), b"an oven");
    /// # Ok(())
    /// # }
    /// ```
    pub fn filter<'t>(mut self, filter: impl Into<Option<&'t str>>) -> Self {
        self.given.filter = Some(filter.into().map(str::to_owned));
        self
    }

    /// Where the group begins if it is created now. A group that exists stays where it is.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Whether the group is created where it does not exist. Default: `true`.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the group, creating it where it does not exist. A created group is durable on return, and every message
    /// published after that is for it.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOption`; `InvalidFilter` if the filter is none; `OptionMismatch` where it exists and an option given here differs from what is stored;
    /// `LimitReached`; `NotFound` where it does not exist and was not to be created; `Removed` if the topic was, or that for notices; with
    /// [`Start::Time`](crate::Start::Time) `Unreadable` if a message cannot be read for its time; the store's.
    pub fn open(self) -> Result<Group> {
        check_name("group", &self.name)?;
        let shared = &self.topic.shared;
        let engine = &shared.engine;
        let stored = engine.stored_options(self.topic.info.id, &self.name)?;
        let options = self.given.with_defaults(shared, stored.as_ref())?;
        let info = if self.create {
            engine.open_group(self.topic.info, &self.name, &options, self.begin())?
        } else {
            engine.find_group(self.topic.info.id, &self.name)?
        };
        self.given.check_stored(shared, &self.name, &info.options)?;
        Ok(Group { inner: Arc::new(GroupInner { topic: self.topic, name: self.name, info, reader: Mutex::default() }) })
    }

    fn begin(&self) -> Begin {
        match self.start {
            Start::Earliest => Begin::Earliest,
            Start::Latest => Begin::Latest,
            Start::Offset(offset) => Begin::Offset(Offset(offset)),
            Start::Time(time) => Begin::Time(wall_of(time)),
        }
    }
}
