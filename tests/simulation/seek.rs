//! Groups that go on from elsewhere: what they had not settled behind that place comes, all that a topic keeps comes again, and nothing of
//! what they held is theirs any more.

use crate::history::Life;
use crate::log::KEPT_PARTITIONS;
use crate::oracle::{Key, Oracle};
use millpond::simulation::{Clock as _, Rng};
use millpond::{Error, ErrorKind, MessageId, Seek, Sought};
use std::time::{Duration, UNIX_EPOCH};

impl Oracle {
    /// A message that died may be there as a dead letter or a redriven one, and as itself, once its group went on from elsewhere.
    pub fn is_doubled(&self, key: &Key) -> bool {
        self.sought.contains(&key.0) && (self.any_died.contains(&key.0) || self.died.contains(key))
    }

    /// Nobody can say which messages of a group are dead letters.
    pub fn all_may_have_died(&mut self, group: usize) {
        self.any_died.insert(group);
    }
}

impl Life<'_> {
    /// Lets a group go on from elsewhere.
    pub fn seek(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        let topic = self.plan.groups[group].0;
        // Of any topic: those of others are refused.
        let known: Vec<_> = oracle.positions.values().copied().collect();
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.wall().0);
        let to = match rng.below(5) {
            0 => Seek::Latest,
            1 => Seek::Time(now - Duration::from_millis(rng.below(10_000))),
            2 if !known.is_empty() => Seek::Position(known[rng.index(known.len())]),
            _ => Seek::Earliest,
        };
        let (before, sought) = (self.groups[group].preview_seek(to), self.groups[group].seek(to));
        match &sought {
            Ok(sought) => {
                self.tally.count("seeks");
                self.check_durable("a seek")?;
                check_numbers(to, before.ok(), *sought)?;
            }
            Err(Error::InvalidPosition { .. }) => {
                self.tally.count("seeks refused");
                return Ok(());
            }
            // Where its place cannot be found it changes nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Skip) => {
                return self.excuse("a seek", error);
            }
            Err(_) => {}
        }
        self.note_seek(oracle, (group, topic), to, sought.is_ok());
        match sought {
            Ok(_) => self.note_dead(oracle, group),
            Err(error) => {
                oracle.all_may_have_died(group);
                self.excuse("a seek", &error)
            }
        }
    }

    /// The dead letters that a group has stay beside messages that come again.
    fn note_dead(&mut self, oracle: &mut Oracle, group: usize) -> Result<(), String> {
        let letters = match self.groups[group].dead_letters() {
            Ok(letters) => letters,
            Err(error) => {
                oracle.all_may_have_died(group);
                return self.excuse("listing dead letters", &error);
            }
        };
        for letter in letters {
            match letter {
                Ok(letter) => _ = oracle.died.insert((group, letter.origin())),
                Err(error) => {
                    oracle.all_may_have_died(group);
                    return self.excuse("a dead letter", &error);
                }
            }
        }
        Ok(())
    }

    /// What was settled may come again, and surely does where all is kept. What was not settled comes as before, if it is behind the place.
    fn note_seek(&mut self, oracle: &mut Oracle, (group, topic): (usize, usize), to: Seek, is_sure: bool) {
        oracle.sought.insert(group);
        // A key that was let go of stays free though its message comes again, and so may one that was replaced.
        oracle.unsure.extend(oracle.uniques.forget_replaced());
        oracle.forget_keys_of(None);
        let partitions = u64::from(self.plan.topics[topic]);
        let is_here = |id: &MessageId| id.partition < partitions;
        let is_whole = is_sure && to == Seek::Earliest && self.plan.topics[topic] == KEPT_PARTITIONS;
        let of_group = |(of, _): &Key| *of == group;
        let acked = oracle.acked.extract_if(.., |key, _| of_group(key)).map(|(key, _)| key);
        let settled: Vec<Key> =
            acked.chain(oracle.discarded.extract_if(.., |key, _| of_group(key)).map(|(key, _)| key)).collect();
        oracle.maybe_acked.extend(settled);
        for (id, _) in oracle.sent.iter().filter(|(_, sent)| sent.topic == topic) {
            let key = (group, *id);
            let comes = match to {
                Seek::Earliest => true,
                Seek::Position(after) => oracle.positions.get(id).is_some_and(|at| *at > after),
                _ => false,
            };
            if is_whole && is_here(id) {
                oracle.maybe_acked.remove(&key);
                oracle.maybe_discarded.remove(&key);
            } else if !comes {
                oracle.maybe_acked.insert(key);
            }
        }
        let is_let_go = |(of, id): &(usize, MessageId)| *of == group && is_here(id);
        oracle.attempts.retain(|at, _| !is_let_go(at));
        oracle.out.retain(|at| !is_let_go(at));
        self.holds.retain(|at, _| !is_let_go(at));
    }
}

/// What a seek says of itself.
fn check_numbers(to: Seek, before: Option<Sought>, sought: Sought) -> Result<(), String> {
    if before.is_some_and(|before| before != sought) {
        return Err(format!("a seek did {sought:?}, and was to do {before:?}"));
    }
    let is_right = match to {
        Seek::Latest => (sought.lag, sought.missing) == (0, 0),
        Seek::Earliest => sought.lag >= sought.lag_before && sought.missing == 0,
        _ => true,
    };
    if is_right { Ok(()) } else { Err(format!("a seek to {to:?} did {sought:?}")) }
}
