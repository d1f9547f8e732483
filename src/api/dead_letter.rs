//! Dead letters as the user sees them.

use super::Topic;
use super::group::GroupInner;
use crate::engine::{self, FailureCounts, Stored};
use crate::error::{Error, Result};
use crate::ids::{MessageId, Offset};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message set aside after its last attempt, with the history of its attempts. It stays until it is redriven or discarded.
///
/// ```
/// # use millpond::Store;
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// # let orders = store.topic("orders").open()?;
/// # let kitchen = orders.group("kitchen").open()?;
/// # orders.publish_batch(["soup", "stone soup"])?;
/// # for delivery in kitchen.receive_batch(2, Duration::ZERO)? { delivery.reject("no oven")?; }
/// # store.sync()?;
/// for dead in kitchen.dead_letters()? {
///     let dead = dead?;
///     let reason = dead.history().last().map(|failure| failure.text.clone());
///     println!("{} after {} attempts: {reason:?}", dead.origin(), dead.attempts());
///     if dead.payload().starts_with(b"stone") {
///         dead.discard()?;
///     } else {
///         dead.redrive()?; // tried again by this group, from the first attempt on
///     }
/// }
/// # store.sync()?;
/// # assert_eq!(kitchen.receive(Duration::ZERO)?.expect("it is back").payload(), b"soup");
/// # Ok(())
/// # }
/// ```
pub struct DeadLetter {
    group: Arc<GroupInner>,
    stored: Stored,
    history: Vec<Failure>,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// How the attempt ended.
    pub cause: Cause,
    /// When, by the wall clock, to the millisecond.
    pub time: SystemTime,
    /// What the consumer said, cut to 120 bytes; empty where it said nothing.
    pub text: String,
}

/// How an attempt ended without an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The consumer gave the message back.
    Nacked,
    /// The visibility timeout passed.
    Expired,
    /// The process died.
    Crashed,
    /// The store was closed, as it had been at [`max_closes`](super::GroupBuilder::max_closes) closes in a row before.
    Closed,
    /// The consumer rejected the message.
    Rejected,
}

impl DeadLetter {
    fn new(group: Arc<GroupInner>, stored: Stored) -> Self {
        let history = stored.copied_from().history.iter().map(Failure::from).collect();
        Self { group, stored, history }
    }

    /// The group's dead letter of this id.
    pub(super) fn find(group: &Arc<GroupInner>, id: MessageId) -> Result<Option<Self>> {
        let engine = &group.topic.shared.engine;
        engine.enter()?;
        if id != group.message_id(group.info.dead, id.epoch, id.offset) {
            return Ok(None);
        }
        let stored = engine.dead_letter(group.info.id, id.offset)?;
        // Another epoch: a crash dropped the message of this id, and its offset was given again.
        Ok(stored.map(|stored| Self::new(Arc::clone(group), stored)).filter(|letter| letter.id() == id))
    }

    /// The name of the topic whose message it is.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.group.topic.name
    }

    /// The name of the group whose dead letter it is.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The dead letter's own id, for [`Group::dead_letter`](super::Group::dead_letter).
    #[must_use]
    pub fn id(&self) -> MessageId {
        let about = &self.stored.about;
        self.group.message_id(about.partition, about.epoch, about.first)
    }

    /// The id that the message was first published under.
    #[must_use]
    pub fn origin(&self) -> MessageId {
        self.stored.copied_from().origin.id
    }

    /// The message's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.stored.view(0).payload()
    }

    /// The message's key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.stored.view(0).key()
    }

    /// The message's headers, in the order given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.stored.view(0).headers()
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// When the message was first published, by the wall clock, to the millisecond.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.stored.published().0)
    }

    /// How many attempts it had in its group since it was published or last redriven.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.stored.copied_from().attempts
    }

    /// How its attempts ended, all of them: the history has the last 8 alone. A rejection and attempts that the close of a store ended
    /// are in none of these counts.
    #[must_use]
    pub fn failures(&self) -> FailureCounts {
        let copied = self.stored.copied_from();
        copied.earlier.with(copied.history.iter())
    }

    /// The last attempts, oldest first: at most 8.
    #[must_use]
    pub fn history(&self) -> &[Failure] {
        &self.history
    }

    /// Sends the message back to its group, with its attempts counted from zero. The dead letter is gone and the message is there
    /// in one step, whatever crashes; on return that survives what the store's level says.
    ///
    /// # Errors
    /// `NoSuchDeadLetter` where it was redriven or discarded meanwhile; `DiskFull`, `Removed`: nothing was changed; the store's.
    pub fn redrive(self) -> Result<()> {
        self.move_to(None)
    }

    /// Publishes the message to `topic`, for all its groups, and removes the dead letter, in one step. It goes to the partition of its
    /// key.
    ///
    /// # Errors
    /// As [`DeadLetter::redrive`]; `InvalidOption` where the topic is of another store; `TooManyRedrives` where the message was sent
    /// to a topic from dead letters 16 times already, by any groups.
    pub fn redrive_to(self, topic: &Topic) -> Result<()> {
        let target = topic.inner();
        if !Arc::ptr_eq(&target.shared, &self.group.topic.shared) {
            return Err(Error::InvalidOption {
                option: "topic",
                value: format!("{:?} of another store", topic.name()),
                expected: "a topic of the dead letter's store",
            });
        }
        let index = match self.key() {
            Some(key) => target.partition_of_key(key),
            None => target.next_in_turn(),
        };
        self.move_to(Some(target.info.first.nth(index)))
    }

    fn move_to(&self, partition: Option<crate::ids::PartitionId>) -> Result<()> {
        let shared = &self.group.topic.shared;
        let end = shared.engine.redrive(self.group.info.id, self.id(), &self.stored, partition)?;
        if shared.level == super::Durability::Disk { shared.engine.wait_durable(end) } else { Ok(()) }
    }

    /// Throws the dead letter away. On return that survives a process crash; a power failure within the sync interval may bring
    /// the dead letter back.
    ///
    /// # Errors
    /// As [`DeadLetter::redrive`].
    pub fn discard(self) -> Result<()> {
        self.group.topic.shared.engine.discard(self.group.info.id, self.id(), self.stored.about.first)
    }
}

impl From<&engine::AttemptFailure> for Failure {
    fn from(failure: &engine::AttemptFailure) -> Self {
        let cause = match failure.cause {
            engine::FailureCause::Nacked => Cause::Nacked,
            engine::FailureCause::Expired => Cause::Expired,
            engine::FailureCause::Crashed => Cause::Crashed,
            engine::FailureCause::Closed => Cause::Closed,
            engine::FailureCause::Rejected => Cause::Rejected,
        };
        Self { cause, time: UNIX_EPOCH + Duration::from_millis(failure.time.0), text: failure.text.to_string() }
    }
}

/// A group's dead letters, oldest first. Read one at a time; listing changes nothing.
pub struct DeadLetters {
    pub(super) group: Arc<GroupInner>,
    page: VecDeque<Offset>,
    next: Offset,
    end: Option<Offset>,
}

impl DeadLetters {
    pub(super) fn new(group: Arc<GroupInner>) -> Result<Self> {
        // A group that was removed says so here already, and not at the first dead letter.
        group.topic.shared.engine.dead_letters_end(group.info.id)?;
        Ok(Self { group, page: VecDeque::new(), next: Offset(0), end: None })
    }

    /// Only those that are there now, so that dead letters that come back while one redrives them are not met again.
    pub(super) fn until_now(group: Arc<GroupInner>) -> Result<Self> {
        let end = group.topic.shared.engine.dead_letters_end(group.info.id)?;
        Ok(Self { end: Some(end), ..Self::new(group)? })
    }
}

impl Iterator for DeadLetters {
    type Item = Result<DeadLetter>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let engine = &self.group.topic.shared.engine;
            if self.next == Offset(u64::MAX) {
                return None;
            }
            if self.page.is_empty() {
                match engine.dead_letters(self.group.info.id, self.next) {
                    Ok(page) => self.page = page.into(),
                    Err(error) => {
                        // The store is gone: that is said once, and is the end.
                        self.next = Offset(u64::MAX);
                        return Some(Err(error));
                    }
                }
            }
            let offset = self.page.pop_front()?;
            self.next = offset.saturating_add(1);
            if self.end.is_some_and(|end| offset >= end) {
                return None;
            }
            match engine.dead_letter(self.group.info.id, offset) {
                Ok(Some(letter)) => return Some(Ok(DeadLetter::new(Arc::clone(&self.group), letter))),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
