//! Dead letters: listing, redriving and discarding them.
//!
//! Never here: what is right (see `reference`).

use crate::actions::{millis, owned, pick, said};
use crate::delivering::counts_of;
use crate::facts::{Body, Failure, Letter, Message as Stored};
use crate::runner::{Outcome, Runner, ensure};
use millpond::{DeadLetter, Error, MessageId};
use std::sync::Arc;

impl Runner {
    /// The group's dead letters as they are read, each known to the reference.
    pub(crate) fn list(&mut self, group: usize) -> Outcome<Vec<DeadLetter>> {
        let listed = said("list dead letters", self.process()?.groups[&group].dead_letters())?;
        let listed = said("read a dead letter", listed.collect::<Result<Vec<_>, _>>())?;
        let order: Vec<_> = listed.iter().map(DeadLetter::id).collect();
        ensure!(order.is_sorted_by_key(|id| id.offset), "dead letters out of order: {order:?}");
        let now = self.now()?;
        let letters: Vec<Letter> = listed.iter().map(read_letter).collect();
        for letter in &letters {
            self.note_id(letter.message.id, &letter.message.body)?;
            self.note_id(letter.message.origin, &letter.message.body)?;
        }
        self.advance(|world| {
            let mut world = world.clone();
            let partition = world.topics[world.groups[group].topic].len() as u32 + 2 * group as u32 + 1;
            ensure!(
                letters.iter().all(|letter| letter.message.id.partition == u64::from(partition)),
                "not dead letters of {group}"
            );
            world.groups[group].match_letters(&letters, &now)?;
            Ok(vec![world])
        })?;
        Ok(listed)
    }

    /// A dead letter of the list, and where every world has it.
    pub(crate) fn letter(&mut self, group: usize, letter: usize) -> Outcome<Option<(usize, DeadLetter)>> {
        let Some(group) = self.pick_group(group)? else { return Ok(None) };
        Ok(self.letter_of(group, letter)?.map(|letter| (group, letter)))
    }

    /// A dead letter of the list of the group of this number.
    fn letter_of(&mut self, group: usize, letter: usize) -> Outcome<Option<DeadLetter>> {
        let mut letters = self.list(group)?;
        Ok(pick(&letters, letter).map(|index| letters.swap_remove(index)))
    }

    pub(crate) fn redrive(&mut self, group: usize, letter: usize, twice: bool) -> Outcome {
        let Some((group, found)) = self.letter(group, letter)? else { return Ok(()) };
        let again = if twice { self.letter_of(group, letter)? } else { None };
        let id = found.id();
        said("redrive", found.redrive())?;
        if self.opening.disk {
            self.ensure_durable()?;
        }
        if let Some(again) = again {
            let result = again.redrive();
            ensure!(
                matches!(&result, Err(Error::NoSuchDeadLetter { id: gone }) if *gone == id),
                "redrove twice: {result:?}"
            );
        }
        let now = self.now()?;
        self.change(|world| world.redrive(group, id, &now))
    }

    pub(crate) fn redrive_to(&mut self, group: usize, letter: usize, topic: usize) -> Outcome {
        let Some((group, found)) = self.letter(group, letter)? else { return Ok(()) };
        let Some(topic) = self.pick_topic(topic)? else { return Ok(()) };
        let handle = self.process()?.topics[&topic].clone();
        let id = found.id();
        let redrives = self.world().groups[group].letter(id).map(|letter| letter.message.redrives);
        let result = found.redrive_to(&handle);
        if redrives == Some(16) {
            let refused = matches!(&result, Err(Error::TooManyRedrives { id: stays, max: 16 }) if *stays == id);
            ensure!(refused, "redriven to a topic once too often: {result:?}");
            return Ok(());
        }
        said("redrive to a topic", result)?;
        if self.opening.disk {
            self.ensure_durable()?;
        }
        // Where it went to is told by nothing but the ends of the partitions.
        let place = self.process()?.topics.keys().position(|number| *number == topic).ok_or("no such topic")?;
        // Behind the topic of notices.
        let ends: Vec<u64> = self.look()?.topics[1 + place].partitions.iter().map(|partition| partition.end).collect();
        let before = &self.world().topics[topic];
        let grown = ends.iter().zip(before).position(|(end, messages)| *end > messages.len() as u64);
        let partition = grown.ok_or("redriven to a topic, and no partition is longer")? as u32;
        let body = self.world().groups[group].letter(id).map(|letter| Arc::clone(&letter.message.body));
        self.check_home(topic, &*body.ok_or("no such dead letter")?, partition.into())?;
        let now = self.now()?;
        self.change(|world| world.redrive_to(group, id, (topic, partition), &now))
    }

    /// Redrives all dead letters, or those whose offset's bit is set. Where each is durable before the next is looked at, those
    /// come too that were not to be seen before.
    pub(crate) fn redrive_where(&mut self, group: usize, wanted: Option<u8>) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let mut listed = self.list(group)?;
        if self.worlds.iter().any(|world| world.groups[group].has_unordered_letters()) {
            said("sync", self.process()?.store.sync())?;
            listed = self.list(group)?;
        }
        let is_wanted = |id: MessageId| wanted.is_none_or(|bits| bits >> (id.offset.0 % 8) & 1 == 1);
        let mut due: Vec<_> = listed.iter().map(DeadLetter::id).collect();
        if due.iter().any(|id| is_wanted(*id)) {
            let hidden = self.world().groups[group].letters.iter().map(|letter| letter.message.id);
            let hidden: Vec<_> = hidden.filter(|id| !due.contains(id)).collect();
            due.extend(hidden);
            due.sort_by_key(|id| id.offset);
        }
        let mut asked = Vec::new();
        let handle = self.process()?.groups[&group].clone();
        let redriven = match wanted {
            None => handle.redrive_all(),
            Some(_) => handle.redrive_where(|letter| {
                asked.push(letter.id());
                is_wanted(letter.id())
            }),
        };
        let redriven = said("redrive several", redriven)?;
        ensure!(wanted.is_none() || asked == due, "asked for {asked:?}, expected {due:?}");
        due.retain(|id| is_wanted(*id));
        ensure!(redriven == due.len() as u64, "redrove {redriven} of {due:?}");
        if self.opening.disk && redriven > 0 {
            self.ensure_durable()?;
        }
        let now = self.now()?;
        for id in due {
            self.between.extend(self.worlds.iter().cloned());
            self.change(|world| world.redrive(group, id, &now))?;
        }
        Ok(())
    }

    pub(crate) fn discard(&mut self, group: usize, letter: usize, twice: bool) -> Outcome {
        let Some((group, found)) = self.letter(group, letter)? else { return Ok(()) };
        let again = if twice { self.letter_of(group, letter)? } else { None };
        let id = found.id();
        said("discard", found.discard())?;
        if let Some(again) = again {
            let result = again.discard();
            ensure!(
                matches!(&result, Err(Error::NoSuchDeadLetter { id: gone }) if *gone == id),
                "discarded twice: {result:?}"
            );
        }
        self.change(|world| drop(world.groups[group].discard(id)))
    }
}

fn read_letter(letter: &DeadLetter) -> Letter {
    let body = Body {
        key: letter.key().map(<[u8]>::to_vec),
        headers: owned(letter.headers()),
        payload: letter.payload().to_vec(),
    };
    let published = millis(letter.timestamp());
    let failures = letter.history().iter().map(|failure| Failure {
        cause: failure.cause,
        time: millis(failure.time),
        text: failure.text.clone(),
    });
    let (id, origin) = (letter.id(), letter.origin());
    Letter {
        message: Stored { id, origin, body: Arc::new(body), published, stored: 0, frame: (0, 0), redrives: 0 },
        offsets: (id.offset.0, id.offset.0),
        attempts: letter.attempts(),
        failures: failures.collect(),
        counts: counts_of(letter.failures()),
    }
}
