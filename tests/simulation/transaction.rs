//! Transactions: messages that are held are settled and others published, all of it or none.

use crate::history::{Life, key};
use crate::holding::Holding;
use crate::oracle::{Oracle, Sent, payload};
use millpond::simulation::Rng;
use millpond::{Durability, Error, ErrorKind, InTransaction, Message, Transaction};

/// How a message is settled: 0 and 1 ack, 2 nacks, 3 rejects.
type How = u64;

impl Life<'_> {
    /// Consumes what some consumer holds, now and then what was leased too long ago, and publishes a few messages with it.
    pub fn transact(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let mut taken: Vec<(Holding, How)> = Vec::new();
        for _ in 0..rng.below(4) {
            let from = if rng.chance(1, 8) { &mut self.zombies } else { &mut self.held };
            if !from.is_empty() {
                let index = rng.index(from.len());
                taken.push((from.swap_remove(index), rng.below(4)));
            }
        }
        let published: Vec<(u64, usize)> =
            (0..rng.below(4)).map(|_| (oracle.number(false), rng.index(self.topics.len()))).collect();
        let did_something = !taken.is_empty() || !published.is_empty();
        let gives_up = rng.chance(1, 8);
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let done = self.store.transaction(|tx| {
            tx.durability(level);
            let ids = self.fill(tx, &taken, &published)?;
            if gives_up { Err(Error::Closed) } else { Ok(ids) }
        });
        let log = self.log();
        match done {
            Ok(_) if gives_up => Err("a transaction was carried out whose body failed (G18)".to_owned()),
            Ok(committed) => {
                self.tally.count("transactions");
                for (id, (number, topic)) in committed.ids().iter().zip(&published) {
                    oracle.name(*id, &payload(*number))?;
                    match log {
                        Some((end, _)) => drop(oracle.sent.insert(*id, Sent { number: *number, topic: *topic, end })),
                        None => drop(oracle.unsure.insert(*number, *topic)),
                    }
                }
                match log {
                    Some((end, durable)) if did_something && level == Durability::Disk && durable < end => {
                        return Err(format!("a transaction at Disk returned at {durable}, below {end} (G18)"));
                    }
                    _ => {}
                }
                self.note_transaction(oracle, &taken, log.map(|(end, _)| end))
            }
            Err(_) if gives_up => {
                self.tally.count("transactions given up");
                self.held.extend(taken.into_iter().map(|(holding, _)| holding));
                Ok(())
            }
            Err(Error::LeaseLost { id }) => {
                self.tally.count("transactions refused for a lost lease");
                let is_held = |holding: &Holding| {
                    let hold = self.holds.get(&(holding.group, holding.delivery.id()));
                    hold.is_some_and(|hold| hold.ticket == holding.ticket && hold.until > self.now())
                };
                let loser = taken.iter().find(|(holding, _)| holding.delivery.id() == id && !is_held(holding));
                if loser.is_none() {
                    return Err(format!("the holder of {id} lost its lease in a transaction (G8, G18)"));
                }
                // Nothing of it may ever come to light: what it would have published is not even unsure.
                self.held.extend(taken.into_iter().map(|(holding, _)| holding));
                Ok(())
            }
            Err(error) => {
                if error.kind() != ErrorKind::Retry {
                    oracle.unsure.extend(published);
                    let acked = taken.iter().filter(|(_, how)| *how <= 1);
                    oracle.maybe_acked.extend(acked.map(|(of, _)| key(of.group, (&of.delivery).into())));
                }
                self.held.extend(taken.into_iter().map(|(holding, _)| holding));
                self.excuse("a transaction", &error)
            }
        }
    }

    fn fill<'t>(
        &self,
        tx: &mut Transaction<'t>,
        taken: &'t [(Holding, How)],
        published: &[(u64, usize)],
    ) -> Result<Vec<InTransaction>, Error> {
        for (holding, how) in taken {
            match how {
                0 | 1 => tx.ack(&holding.delivery)?,
                2 => tx.nack(&holding.delivery, "it failed")?,
                _ => tx.reject(&holding.delivery, "no good")?,
            }
        }
        published
            .iter()
            .map(|(number, topic)| tx.publish(&self.topics[*topic], Message::new(payload(*number))))
            .collect()
    }

    /// Everything that it settled was held by those who settled it.
    fn note_transaction(
        &mut self,
        oracle: &mut Oracle,
        taken: &[(Holding, How)],
        end: Option<u64>,
    ) -> Result<(), String> {
        for (Holding { group, delivery, ticket }, how) in taken {
            let place = (*group, delivery.id());
            if self.holds.remove(&place).is_none_or(|hold| hold.ticket != *ticket) {
                return Err(format!("{} was settled with a dead token in a transaction (G8, G18)", place.1));
            }
            let key = key(*group, delivery.into());
            match end {
                Some(end) if *how <= 1 => drop(oracle.acked.insert(key, end)),
                None if *how <= 1 => drop(oracle.maybe_acked.insert(key)),
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}
