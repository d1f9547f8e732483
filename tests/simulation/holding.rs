//! What consumers do with messages that they hold, in time or too late, and whose each message is.

use crate::history::{Life, key};
use crate::oracle::Oracle;
use crate::removal::{PAUSE_FIRST_MS, PAUSE_MAX_MS, filter_of, is_unwanted, order_of};
use millpond::simulation::MonoMs;
use millpond::simulation::Rng;
use millpond::{Delivery, DeliveryRef, Error, MessageId, Ordering};
use std::time::Duration;

/// How long a lease lasts in every group of the simulation.
const LEASE_MS: u64 = 5_000;

/// A delivery in somebody's hands, with the number of the hand-out.
pub struct Holding {
    pub group: usize,
    pub delivery: Delivery,
    pub ticket: u64,
}

/// The last holder of a message, and until when nobody else may have it.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub ticket: u64,
    pub until: MonoMs,
    pub attempt: u32,
}

impl Hold {
    /// From when on the message may be given out again, at the earliest: each group waits for as long as `removal` says, or half of that.
    fn again(&self) -> MonoMs {
        let full = PAUSE_FIRST_MS.saturating_mul(1 << (self.attempt - 1).min(20)).min(PAUSE_MAX_MS);
        self.until.saturating_add(if self.attempt < 2 { 0 } else { full / 2 })
    }
}

impl Life<'_> {
    pub fn receive(&mut self, oracle: &mut Oracle, group: usize, max: usize) -> Result<(), String> {
        let batch = match self.groups[group].receive_batch(max, Duration::ZERO) {
            Ok(batch) => batch,
            Err(error) => return self.excuse("a receive", &error),
        };
        if let Some(error) = batch.unreadable().first() {
            self.excuse("reading a message", error)?;
        }
        for delivery in batch {
            let ticket = self.take(oracle, group, (&delivery).into())?;
            self.held.push(Holding { group, delivery, ticket });
        }
        Ok(())
    }

    /// Checks a delivery that was just handed out, and notes whose it is.
    fn take(&mut self, oracle: &mut Oracle, group: usize, delivery: DeliveryRef<'_>) -> Result<u64, String> {
        let (id, origin, now) = (delivery.id(), delivery.origin(), self.now());
        oracle.name(origin, delivery.payload())?;
        oracle.name(id, delivery.payload())?;
        let allowed = oracle.standing(group).allowed.unwrap_or(self.plan.groups[group].1);
        // Each earlier process that crashed may have given a message one more attempt, and twice as many of those in a row at most.
        let crashes = self.store.report().epoch.count() - 1;
        if allowed != 0 && delivery.attempt() > allowed + crashes.min(2 * allowed - 1) {
            return Err(format!("attempt {} of {allowed} after {crashes} crashes (G9)", delivery.attempt()));
        }
        let key = key(group, delivery);
        if oracle.acked.contains_key(&key) && !oracle.moved.contains(&key) && !oracle.is_doubled(&key) {
            return Err(format!("{origin} was delivered to group {group} after its ack (G6)"));
        }
        self.check_order(group, delivery)?;
        let unwanted = delivery.header("n").is_some_and(|n| is_unwanted(n[0].into()));
        if unwanted && filter_of(self.plan.groups[group].1).is_some() {
            return Err(format!("{origin} was delivered to group {group}, whose filter it does not pass"));
        }
        let ticket = self.tally.of("deliveries");
        let hold = Hold { ticket, until: now.saturating_add(LEASE_MS), attempt: delivery.attempt() };
        if let Some(other) = self.holds.insert((group, id), hold) {
            if other.until > now {
                return Err(format!("{id} was given out again {} before its lease ends (G8)", other.until.0 - now.0));
            }
            if other.again() > now {
                return Err(format!("{id} was given out again {} before its backoff ends", other.again().0 - now.0));
            }
            self.tally.count("message taken over after its lease ended");
        }
        self.tally.count("deliveries");
        let Some((end, durable)) = self.log() else { return Ok(ticket) };
        oracle.attempt((group, id), delivery.attempt(), end)?;
        if let Some(sent) = oracle.sent.get(&id).filter(|sent| self.durable_only && sent.end > durable) {
            return Err(format!("{id} was delivered at {durable}, before it was durable at {} (G4)", sent.end));
        }
        Ok(ticket)
    }

    /// Nobody holds another message of the key, or of the partition, under a lease that has not ended, where the group keeps these in
    /// order; and none that came before it is still to be delivered for the first time.
    fn check_order(&mut self, group: usize, delivery: DeliveryRef<'_>) -> Result<(), String> {
        let id = delivery.id();
        let key = delivery.key().map(<[u8]>::to_vec);
        let others = self.held.iter().chain(&self.zombies).filter(|other| other.group == group);
        let mut others = others.map(|other| (other.delivery.id(), other.delivery.key(), other.ticket));
        let now = self.now();
        let is_live = |(id, _, ticket): &(MessageId, Option<&[u8]>, u64)| {
            self.holds.get(&(group, *id)).is_some_and(|hold| hold.ticket == *ticket && hold.until > now)
        };
        let beside = match order_of(group) {
            Ordering::Key => {
                let Some(key) = key.as_deref() else { return Ok(()) };
                others.find(|other| other.1 == Some(key) && other.0 != id && is_live(other))
            }
            Ordering::Partition => {
                others.find(|other| other.0.partition == id.partition && other.0 != id && is_live(other))
            }
            _ => return Ok(()),
        };
        if let Some((other, ..)) = beside {
            return Err(format!("{id} was delivered to group {group} beside {other} of its key (G7)"));
        }
        self.tally.count("deliveries in order");
        Ok(())
    }

    /// Settles a random message that is held: 0 acks, 1 acks durably, 2 to 5 nack and reject, 6 extends, 7 releases.
    pub fn settle_held(&mut self, oracle: &mut Oracle, rng: &mut Rng, how: u64) -> Result<(), String> {
        if self.held.is_empty() {
            return Ok(());
        }
        let holding = self.held.swap_remove(rng.index(self.held.len()));
        self.settle(oracle, rng, holding, how)
    }

    /// Someone who hung goes on as if nothing had happened.
    pub fn settle_zombie(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        if self.zombies.is_empty() {
            return Ok(());
        }
        let holding = self.zombies.swap_remove(rng.index(self.zombies.len()));
        let how = [0, 0, 1, 2, 4, 6][rng.index(6)];
        self.settle(oracle, rng, holding, how)
    }

    pub fn settle(&mut self, oracle: &mut Oracle, rng: &mut Rng, of: Holding, how: u64) -> Result<(), String> {
        let Holding { group, delivery, ticket } = of;
        let (place, key, id) = ((group, delivery.id()), key(group, (&delivery).into()), delivery.id());
        let hold = self.holds.get(&place).copied().filter(|hold| hold.ticket == ticket);
        let late = hold.is_some_and(|hold| hold.until <= self.now());
        if how == 6 {
            let for_ms = rng.below(20_000);
            let extended = delivery.extend(Duration::from_millis(for_ms));
            if extended.is_ok() {
                let until = self.now().saturating_add(for_ms);
                let Some(hold) = self.holds.get_mut(&place).filter(|hold| hold.ticket == ticket) else {
                    return Err(format!("the lease of {id} was extended with a dead token (G8)"));
                };
                hold.until = hold.until.max(until);
            }
            self.held.push(Holding { group, delivery, ticket });
            return Ok(());
        }
        let done = match how {
            0 => delivery.ack(),
            1 => delivery.ack_durable(),
            2 => delivery.nack("it failed"),
            3 => delivery.nack_after(Duration::from_millis(rng.below(4_000)), "later"),
            4 => delivery.reject("no good"),
            7 => {
                let attempt = delivery.attempt();
                let released = delivery.release();
                // One that failed may have been recorded.
                if !matches!(released, Err(Error::LeaseLost { .. })) {
                    oracle.attempts.entry(place).and_modify(|(before, _)| *before = attempt - 1);
                }
                released
            }
            _ => {
                drop(delivery);
                self.holds.retain(|at, hold| *at != place || hold.ticket != ticket);
                return Ok(());
            }
        };
        self.note_settled(oracle, (place, key), hold.is_some(), late, how, &done)?;
        if hold.is_some() {
            self.holds.remove(&place);
        }
        Ok(())
    }

    /// What a settle answered, held against who had the message.
    fn note_settled(
        &mut self,
        oracle: &mut Oracle,
        (place, key): ((usize, MessageId), (usize, MessageId)),
        holds: bool,
        late: bool,
        how: u64,
        done: &Result<(), Error>,
    ) -> Result<(), String> {
        let ack = how <= 1;
        match done {
            Ok(()) if !holds => return Err(format!("{} was settled with a dead token (G8)", place.1)),
            Ok(()) => {
                oracle.out.remove(&place);
                self.tally.count_if(ack && late, "ack after the lease ended, accepted");
                match self.log() {
                    Some((end, durable)) if how == 1 && durable < end => {
                        return Err(format!("a durable ack returned at {durable}, below {end} (G6)"));
                    }
                    Some((end, _)) if ack => drop(oracle.acked.insert(key, end)),
                    None if ack => drop(oracle.maybe_acked.insert(key)),
                    _ => {}
                }
            }
            Err(Error::LeaseLost { .. }) if holds && !late => {
                return Err(format!("the holder of {} lost its lease (G8)", place.1));
            }
            Err(Error::LeaseLost { .. }) => {
                self.tally.count("zombie settled in vain");
                self.tally.count_if(ack, "ack after the lease ended, refused");
            }
            Err(error) => {
                if ack {
                    oracle.maybe_acked.insert(key);
                }
                self.excuse("a settle", error)?;
            }
        }
        Ok(())
    }

    /// Takes a batch and acks it as one.
    pub fn take_all(&mut self, oracle: &mut Oracle, group: usize, durable: bool) -> Result<(), String> {
        let batch = match self.groups[group].receive_batch(64, Duration::ZERO) {
            Ok(batch) => batch,
            Err(error) => return self.excuse("a receive", &error),
        };
        let mut keys = Vec::new();
        for delivery in &batch {
            self.take(oracle, group, delivery)?;
            keys.push((key(group, delivery), (group, delivery.id())));
        }
        if keys.is_empty() {
            return Ok(());
        }
        let acked = if durable { batch.ack_durable() } else { batch.ack() };
        for (_, place) in &keys {
            self.holds.remove(place);
        }
        let keys = keys.into_iter().map(|(key, _)| key);
        match (acked, self.log()) {
            (Ok(lost), _) if !lost.is_empty() => Err(format!("{lost:?} were lost between lease and ack (G8)")),
            (Ok(_), Some((end, at))) if durable && at < end => {
                Err(format!("a durable ack returned at {at}, below {end} (G6)"))
            }
            (Ok(_), Some((end, _))) => {
                oracle.acked.extend(keys.map(|key| (key, end)));
                Ok(())
            }
            (Ok(_), None) => {
                oracle.maybe_acked.extend(keys);
                Ok(())
            }
            (Err(error), _) => {
                oracle.maybe_acked.extend(keys);
                self.excuse("an ack of a batch", &error)
            }
        }
    }
}
