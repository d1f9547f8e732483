//! Streams of events: whatever the index comes back as, versions have no hole and no repeat, and what was told is there (G19).

use crate::history::Life;
use crate::oracle::{Oracle, number_of, payload};
use millpond::simulation::Rng;
use millpond::{Durability, Error, ErrorKind, Expected, Stream};

/// An event that is known to be in the stream.
#[derive(Clone, Debug)]
pub struct Known {
    pub number: u64,
    /// The end of the log behind it, or at most that.
    pub end: u64,
    /// Whether it is known where it stands in the log.
    pub is_sure: bool,
}

/// What is known of the one stream.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub known: Vec<Known>,
    /// The versions of the snapshots that were saved, and the end of the log behind each.
    pub snapshots: Vec<(u64, u64)>,
    /// An append did not return, or what it told was lost: there may be other events behind these.
    pub may_be_more: bool,
}

impl Events {
    /// The log ends at `end`.
    pub fn recovered(&mut self, end: u64) {
        let kept = self.known.iter().take_while(|event| event.end <= end).count();
        self.may_be_more |= self.known[kept..].iter().any(|event| !event.is_sure);
        self.known.truncate(kept);
        self.snapshots.retain(|(_, saved)| *saved <= end);
    }
}

impl Life<'_> {
    /// Appends one or two events behind those that are known, and sometimes reads all.
    pub fn append_events(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let opened = self.store.topic("events").streams().open();
        let stream = match opened.map(|topic| topic.with_durability(level)).and_then(|topic| topic.stream("s")) {
            Ok(stream) => stream,
            Err(error) => return self.excuse("opening a topic of streams", &error),
        };
        if oracle.events.may_be_more {
            // How far it has come is durable once it is told.
            let Some(last) = self.told(&stream)? else { return Ok(()) };
            return self.adopt(oracle, &stream, last);
        }
        let known = oracle.events.known.len() as u64;
        let numbers: Vec<u64> = (0..1 + rng.below(2)).map(|_| oracle.number(false)).collect();
        let expected = known.checked_sub(1).map_or(Expected::NoStream, Expected::Version);
        let expected = if rng.coin() { expected } else { Expected::Any };
        match stream.append(expected, numbers.iter().map(|number| payload(*number))) {
            Ok(receipt) if receipt.first_version() != known => {
                return Err(format!("version {} was given behind {known} events (G19)", receipt.first_version()));
            }
            Ok(_) => {}
            Err(Error::WrongVersion { actual, .. }) => {
                return Err(format!("the stream is at {actual:?}, and has {known} events (G19)"));
            }
            Err(error) => {
                oracle.events.may_be_more |= error.kind() != ErrorKind::Retry;
                return self.excuse("an append", &error);
            }
        }
        self.tally.count("appends to a stream");
        let Some((end, durable)) = self.log() else {
            oracle.events.may_be_more = true;
            return Ok(());
        };
        if level == Durability::Disk && durable < end {
            return Err(format!("an append at Disk returned with the watermark at {durable} of {end} (G1)"));
        }
        oracle.events.known.extend(numbers.into_iter().map(|number| Known { number, end, is_sure: true }));
        if rng.chance(1, 8) {
            self.save_snapshot(oracle, &stream, level)?;
        }
        if rng.chance(1, 4) { self.read_events(oracle, &stream, durable) } else { Ok(()) }
    }

    /// Saves the number of the last event.
    fn save_snapshot(&mut self, oracle: &mut Oracle, stream: &Stream, level: Durability) -> Result<(), String> {
        let known = &oracle.events.known;
        let Some(last) = known.last() else { return Ok(()) };
        let version = known.len() as u64 - 1;
        if let Err(error) = stream.save_snapshot(version, payload(last.number)) {
            return self.excuse("a snapshot", &error);
        }
        self.tally.count("snapshots of a stream");
        let Some((end, durable)) = self.log() else { return Ok(()) };
        if level == Durability::Disk && durable < end {
            return Err(format!("a snapshot at Disk returned with the watermark at {durable} of {end} (G1)"));
        }
        oracle.events.snapshots.push((version, end));
        Ok(())
    }

    /// The snapshot is of the event that it says, and no older than the last one that must be there.
    fn read_snapshot(&mut self, oracle: &Oracle, stream: &Stream, durable: u64) -> Result<(), String> {
        let snapshot = match stream.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return self.excuse("reading a snapshot", &error),
        };
        let Events { known, snapshots, .. } = &oracle.events;
        let is_due = |saved: &&(u64, u64)| !self.durable_only || saved.1 <= durable;
        let due = snapshots.iter().filter(is_due).map(|(version, _)| *version).max();
        let version = snapshot.as_ref().map(|snapshot| snapshot.version());
        if version < due {
            return Err(format!("the snapshot is of {version:?}, and one was saved of {due:?} (G19)"));
        }
        if let Some(snapshot) = snapshot {
            let of = known.get(snapshot.version() as usize).map(|event| event.number);
            if of != Some(number_of(snapshot.payload())?) {
                return Err(format!("the snapshot of version {} is another one (G19)", snapshot.version()));
            }
        }
        self.tally.count("snapshots read");
        Ok(())
    }

    fn told(&mut self, stream: &Stream) -> Result<Option<Option<u64>>, String> {
        match stream.last_version() {
            Ok(last) => Ok(Some(last)),
            Err(error) => self.excuse("the version of a stream", &error).map(|()| None),
        }
    }

    /// Takes in what is behind the known events.
    fn adopt(&mut self, oracle: &mut Oracle, stream: &Stream, last: Option<u64>) -> Result<(), String> {
        let known = oracle.events.known.len();
        let there = last.map_or(0, |last| last as usize + 1);
        if there < known {
            return Err(format!("the stream has {there} events, and had {known} (G19)"));
        }
        let events = match stream.read(0, there + 1) {
            Ok(events) => events,
            Err(error) => return self.excuse("reading a stream", &error),
        };
        let end = self.log().map_or(oracle.end, |(end, _)| end);
        for event in &events[known.min(events.len())..] {
            let number = number_of(event.payload())?;
            oracle.events.known.push(Known { number, end, is_sure: false });
        }
        oracle.events.may_be_more = events.len() < there;
        Ok(())
    }

    fn read_events(&mut self, oracle: &Oracle, stream: &Stream, durable: u64) -> Result<(), String> {
        let events = match stream.read(0, usize::MAX) {
            Ok(events) => events,
            Err(error) => return self.excuse("reading a stream", &error),
        };
        let known = &oracle.events.known;
        let least = known.iter().filter(|event| !self.durable_only || event.end <= durable).count();
        if events.len() < least || events.len() > known.len() {
            return Err(format!("{} events are read of {least} to {} (G19)", events.len(), known.len()));
        }
        for (version, (event, known)) in (0..).zip(events.iter().zip(known)) {
            if event.version() != version || number_of(event.payload())? != known.number {
                return Err(format!("version {} is read as {version}, or another event (G19)", event.version()));
            }
        }
        self.tally.count("streams read");
        self.read_snapshot(oracle, stream, durable)
    }
}
