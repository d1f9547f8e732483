//! Removing topics and groups, creating them anew under their names, and altering groups.
//!
//! Which life of a group is there is told by its backoff, of which each life has another. A removal that returned stays; one in
//! which the process died leaves all of it or nothing. Never here: what a store must give while it is there.

use crate::history::{Life, Plan, open_topic};
use crate::holding::Holding;
use crate::notices::TOLD;
use crate::oracle::Oracle;
use millpond::simulation::Rng;
use millpond::{Backoff, Durability, Error, ErrorKind, Group, Message, Ordering, Start, Store, Topic};
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether a group is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Not created, or nobody knows whether it was.
    #[default]
    Absent,
    There,
    /// A removal of its topic, or of itself alone, did not return.
    Removing {
        with_topic: bool,
    },
}

/// What is known of a group beyond its messages.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub known: Known,
    /// How often it was removed.
    pub life: u64,
    /// The log's end when this life had begun: what was published before need not be there for it.
    pub born: u64,
    /// The most attempts that it was ever allowed, where its options were changed.
    pub allowed: Option<u32>,
    /// The cap that an alteration which returned gave it, unless another one did not return.
    cap: Option<u32>,
}

fn pause(life: u64) -> Backoff {
    Backoff::exponential(Duration::from_millis(PAUSE_FIRST_MS)).max(Duration::from_millis(PAUSE_MAX_MS + life))
}

/// The order of each group of a plan, which it keeps through all its lives.
pub fn order_of(group: usize) -> Ordering {
    match group {
        1 => Ordering::Key,
        2 => Ordering::Partition,
        _ => Ordering::None,
    }
}

/// The filter of a group, by its first limit of attempts: in whatever order, it does not want messages with such a number in a header.
pub fn filter_of(attempts: u32) -> Option<&'static str> {
    (attempts == 3)
        .then_some("not n in ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f')")
}

/// Whether a message is one that such a group does not want, if it has the header.
pub fn is_unwanted(number: u64) -> bool {
    matches!(number as u8, b'0'..=b'9' | b'a'..=b'f')
}

/// The first and the longest delay of a group's first life.
pub const PAUSE_FIRST_MS: u64 = 100;
pub const PAUSE_MAX_MS: u64 = 2_000;

impl Oracle {
    pub fn standing(&mut self, group: usize) -> &mut Standing {
        self.groups.entry(group).or_default()
    }

    /// The group is gone, and so is all that was known of what it had done.
    fn forget_group(&mut self, group: usize) {
        let life = self.standing(group).life + 1;
        self.groups.insert(group, Standing { life, ..Standing::default() });
        self.acked.retain(|(of, _), _| *of != group);
        self.maybe_acked.retain(|(of, _)| *of != group);
        self.discarded.retain(|(of, _), _| *of != group);
        self.maybe_discarded.retain(|(of, _)| *of != group);
        self.sought.remove(&group);
        self.any_died.remove(&group);
        self.died.retain(|(of, _)| *of != group);
        self.attempts.retain(|(of, _), _| *of != group);
    }

    fn forget_topic(&mut self, topic: usize) {
        self.sent.retain(|_, sent| sent.topic != topic);
        self.accepted.retain(|(of, _), _| *of != topic);
        self.uniques.forget_topic(topic);
    }
}

fn groups_of(plan: &Plan, topic: usize) -> impl Iterator<Item = usize> {
    plan.groups.iter().enumerate().filter(move |(_, (of, _))| *of == topic).map(|(group, _)| group)
}

/// Opens the groups of the plan: each as it was left, or anew where it is gone.
pub fn open_groups(
    store: &Store,
    (topics, notices): (&[Topic], Option<&Topic>),
    plan: &Plan,
    oracle: &mut Oracle,
) -> Result<Vec<Group>, Error> {
    let mut whole = BTreeMap::new();
    for (group, (topic, _)) in plan.groups.iter().enumerate() {
        let there = find(&topics[*topic], group, oracle)?;
        let Known::Removing { with_topic } = oracle.standing(group).known else { continue };
        if with_topic {
            let first = *whole.entry(*topic).or_insert(there);
            assert_eq!(first, there, "the removal of topic {topic} was cut in two");
        }
        if there {
            oracle.standing(group).known = Known::There;
        } else {
            oracle.forget_group(group);
        }
    }
    whole.into_iter().filter(|(_, whole)| !whole).for_each(|(topic, _)| oracle.forget_topic(topic));
    let numbers = plan.groups.iter().enumerate();
    let open = |(group, (topic, attempts)): (usize, &(usize, u32))| {
        open_group(store, (&topics[*topic], notices), (group, *attempts), oracle)
    };
    numbers.map(open).collect()
}

/// Whether the group is there, which must be as it is known.
fn find(topic: &Topic, group: usize, oracle: &mut Oracle) -> Result<bool, Error> {
    let standing = oracle.standing(group);
    let builder = topic.group(format!("group-{group}")).create(false).backoff(pause(standing.life));
    let builder = standing.cap.into_iter().fold(builder, millpond::GroupBuilder::max_outstanding);
    match builder.open() {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => {
            assert!(standing.known != Known::There, "group {group} is gone, and nobody removed it (G1)");
            Ok(false)
        }
        Err(Error::OptionMismatch { option, stored, asked, .. }) => {
            panic!("group {group} is not what it was left as: its {option} is {stored}, and not {asked}: {standing:?}")
        }
        Err(error) => Err(error),
    }
}

fn open_group(
    store: &Store,
    (topic, notices): (&Topic, Option<&Topic>),
    (group, attempts): (usize, u32),
    oracle: &mut Oracle,
) -> Result<Group, Error> {
    let standing = oracle.standing(group);
    let builder = topic.group(format!("group-{group}")).backoff(pause(standing.life));
    let builder = builder.start(Start::Earliest).visibility_timeout(Duration::from_secs(5));
    let builder = builder.dead_letter_notices(notices.filter(|_| group == TOLD)).filter(filter_of(attempts));
    if standing.known == Known::There {
        let opened = builder.open()?;
        opened.resume()?;
        return Ok(opened);
    }
    // One whose creation did not return is there already, as it would be now.
    let builder = builder.max_attempts(attempts).ordering(order_of(group));
    let opened = builder.open()?;
    opened.resume()?;
    standing.known = Known::There;
    if standing.life > 0 {
        standing.born = store.stats()?.log.end.0;
        // It gets what all others have settled, also what was replaced then, and what has lost its key and so is never replaced.
        oracle.unsure.extend(oracle.uniques.forget_replaced());
        oracle.forget_keys_of(None);
    }
    Ok(opened)
}

impl Life<'_> {
    /// Changes options of a group.
    pub fn alter(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        if rng.chance(1, 3) {
            return self.pause(group);
        }
        let (attempts, cap) = ([0, 1, 2, 3][rng.index(4)], [1, 2, 64, 1_000][rng.index(4)]);
        let standing = oracle.standing(group);
        let before = standing.allowed.unwrap_or(self.plan.groups[group].1);
        standing.allowed = Some(if before == 0 || attempts == 0 { 0 } else { before.max(attempts) });
        let end = self.log();
        match self.groups[group].alter().max_attempts(attempts).max_outstanding(cap).apply() {
            Ok(()) => {
                standing.cap = Some(cap);
                // Where the options were these already, nothing is appended, and there may be a mark at the end.
                if self.log().map(|log| log.0) == end.map(|log| log.0) {
                    Ok(())
                } else {
                    self.check_durable("an alteration")
                }
            }
            Err(error) => {
                if error.kind() != ErrorKind::Retry {
                    standing.cap = None;
                }
                self.excuse("an alteration", &error)
            }
        }
    }

    /// Pauses a group, which gets nothing then, and resumes it. After a crash in between the next life resumes it.
    fn pause(&mut self, group: usize) -> Result<(), String> {
        let handle = self.groups[group].clone();
        if let Err(error) = handle.pause() {
            return self.excuse("a pause", &error);
        }
        match handle.receive(Duration::ZERO) {
            Ok(Some(delivery)) => return Err(format!("{} was delivered to a paused group", delivery.id())),
            Ok(None) => {}
            Err(error) => return self.excuse("a receive of a paused group", &error),
        }
        match handle.resume() {
            Ok(()) => Ok(()),
            Err(error) => self.excuse("a resumption", &error),
        }
    }

    /// Removes a group, and creates it anew.
    pub fn remove_group(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        let topic = self.plan.groups[group].0;
        if let Err(error) = self.topics[topic].remove_group(&format!("group-{group}")) {
            return self.not_removed(oracle, &[group], false, &error);
        }
        self.check_durable("a removal")?;
        self.gone(oracle, &[group])?;
        self.create_anew(oracle, &[group])
    }

    /// Removes a topic, and creates it and its groups anew.
    pub fn remove_topic(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let topic = rng.index(self.topics.len());
        let groups: Vec<usize> = groups_of(self.plan, topic).collect();
        if let Err(error) = self.store.remove_topic(&format!("topic-{topic}")) {
            // Nobody could say which messages are there: those of a topic without groups are never read.
            return self.not_removed(oracle, &groups, true, &error);
        }
        self.check_durable("a removal")?;
        let published = self.topics[topic].with_durability(Durability::Os).publish(Message::new("late"));
        self.refused("a publish", published.map(drop))?;
        self.gone(oracle, &groups)?;
        oracle.forget_topic(topic);
        match open_topic(&self.store, topic, self.plan.topics[topic]) {
            Ok(opened) => self.topics[topic] = opened,
            Err(error) => return self.end("creating a topic", &error),
        }
        self.create_anew(oracle, &groups)
    }

    pub fn check_durable(&self, what: &str) -> Result<(), String> {
        match self.log() {
            Some((end, durable)) if durable < end => Err(format!("{what} returned at {durable}, below {end} (G1)")),
            _ => Ok(()),
        }
    }

    /// A removal that did not return. One that is to be tried again changed nothing.
    fn not_removed(
        &mut self,
        oracle: &mut Oracle,
        groups: &[usize],
        with_topic: bool,
        error: &Error,
    ) -> Result<(), String> {
        if error.kind() == ErrorKind::Retry {
            return self.excuse("a removal", error);
        }
        groups.iter().for_each(|group| oracle.standing(*group).known = Known::Removing { with_topic });
        self.end("a removal", error)
    }

    /// A handle is missing, or nobody knows what is there: this process does no more.
    fn end(&mut self, what: &str, error: &Error) -> Result<(), String> {
        self.is_over = true;
        self.excuse(what, error)
    }

    /// Nobody sleeps for what is gone, nobody holds a message of it, and every call of its handles says so.
    fn gone(&mut self, oracle: &mut Oracle, groups: &[usize]) -> Result<(), String> {
        for &group in groups {
            self.tally.count("groups removed");
            oracle.forget_group(group);
            let (asleep, others) = std::mem::take(&mut self.sleepers).into_iter().partition(|(of, _)| *of == group);
            self.sleepers = others;
            let asleep: Vec<_> = asleep;
            if asleep.iter().any(|(_, sleeper)| !sleeper.is_awake()) {
                return Err(format!("somebody sleeps on for group {group}, which is removed (G23)"));
            }
            drop(asleep);
            let received = self.groups[group].receive_batch(1, Duration::ZERO);
            self.refused("a receive", received.map(drop))?;
            self.refused("a list of dead letters", self.groups[group].dead_letters().map(drop))?;
            for list in [&mut self.held, &mut self.zombies] {
                let (theirs, others): (Vec<Holding>, _) =
                    std::mem::take(list).into_iter().partition(|h| h.group == group);
                *list = others;
                self.orphans.extend(theirs);
            }
            self.holds.retain(|(of, _), _| *of != group);
        }
        // Some of what they held is settled in vain now, the rest whenever the process ends.
        while self.orphans.len() > 3 {
            let settled = self.orphans.swap_remove(0).delivery.ack();
            self.refused("an ack", settled)?;
        }
        Ok(())
    }

    fn refused(&self, what: &str, result: Result<(), Error>) -> Result<(), String> {
        match result {
            Err(Error::Removed { .. }) => Ok(()),
            Err(error) => self.excuse(what, &error),
            Ok(()) => Err(format!("{what} of what was removed returned Ok")),
        }
    }

    fn create_anew(&mut self, oracle: &mut Oracle, groups: &[usize]) -> Result<(), String> {
        for &group in groups {
            let (topic, attempts) = self.plan.groups[group];
            match open_group(&self.store, (&self.topics[topic], self.notices.as_ref()), (group, attempts), oracle) {
                Ok(opened) => self.groups[group] = opened,
                Err(error) => return self.end("creating a group", &error),
            }
        }
        Ok(())
    }
}
