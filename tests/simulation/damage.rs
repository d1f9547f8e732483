//! A byte that changed at rest: told as what it is, or of no effect (G12); and what a repair makes of the store (G28).

use crate::case::World;
use crate::oracle::Oracle;
use millpond::simulation::{Fault, PowerOutcome};
use millpond::{Error, Group, OpenReport, RepairReport, Store};
use std::sync::Arc;
use std::time::Duration;

/// What a repair says where it does not know which store it is of.
const NOBODY_SAYS: &str = "no file says which store it is of";

impl World {
    /// Changes one byte of a file of a copy of the machine, just after a recovery: all below its end is proven durable now, by
    /// more than one frame or slot, so that nothing of it may be missing without a word.
    pub fn damage(&mut self, sound: &OpenReport) -> Result<(), String> {
        let files: Vec<String> = self.disk.files().into_iter().map(|file| file.name).collect();
        let name = &files[self.rng.index(files.len())];
        let mut bytes = self.disk.read_file(name).unwrap_or_default();
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
        let (at, bit) = (self.rng.index(last + 1), self.rng.below(8));
        bytes[at] ^= 1 << bit;
        let mut copy = self.copy();
        copy.disk.write_file(name, &bytes);
        let place = format!("bit {bit} of byte {at} of {name} changed");
        let store = match copy.open(true) {
            Ok(store) => store,
            Err(Error::Corrupt(_)) => {
                self.tally.count("recovery: damage told");
                let cut_off = copy.repair().map_err(|what| format!("{place}, and repaired: {what}"))?;
                self.tally.count(if cut_off { "repairs begun again" } else { "repairs" });
                return Ok(());
            }
            Err(Error::ForeignFile { .. } | Error::NewerFormat { .. }) => {
                self.tally.count("recovery: damage told");
                return Ok(());
            }
            Err(error) => return Err(format!("{place}: {error}")),
        };
        self.tally.count("recovery: damage without effect");
        let found = store.report();
        // Marks at the end may go with the slot that proved them; they say nothing.
        if found.state_hash != sound.state_hash {
            return Err(format!("{place}: the log ends at {} and not at {}, with Ok (G12)", found.end, sound.end));
        }
        let plan = self.plan.clone();
        let life = copy.begin(store, &plan, true).map_err(|error| format!("{place}: {error}"))?;
        look_at_messages(&mut copy.oracle, &life.groups).map_err(|what| format!("{place}: {what}"))
    }

    /// Repairs the store, perhaps again after a crash in the middle: it opens, agrees with itself, and has no message that was never
    /// published. Whether it had to be begun again.
    fn repair(&mut self) -> Result<bool, String> {
        if self.rng.coin() {
            self.disk.fail_at(self.disk.requests() + self.rng.below(60), Fault::CrashMiddle);
        }
        let mut ended = self.try_repair();
        let cut_off = ended.is_err() && self.disk.faults() > self.faults_before;
        self.disk.clear_faults();
        if cut_off {
            self.disk.crash_power(PowerOutcome::EACH[self.rng.index(PowerOutcome::EACH.len())]);
            ended = self.try_repair();
        }
        let report = match ended {
            // No other file has a header yet, so there is nothing to be kept.
            Err(Error::Corrupt(told)) if told.reason == NOBODY_SAYS && self.oracle.sent.is_empty() => return Ok(false),
            ended => ended.map_err(|error| error.to_string())?,
        };
        if !cut_off && report.damage.is_none() {
            return Err("there is nothing to be repaired".to_owned());
        }
        let store = self.open(true).map_err(|error| format!("it does not open: {error}"))?;
        let violations = store.violations();
        if !violations.is_empty() {
            return Err(format!("{violations:?}"));
        }
        // A topic or a group whose creation was lost is not there.
        let mut groups = Vec::new();
        for of in store.stats().map_err(|error| error.to_string())?.topics {
            for group in of.groups.iter().filter(|group| group.name.starts_with("group-")) {
                let opened = store.topic(&of.name).open().and_then(|topic| topic.group(&group.name).open());
                groups.push(opened.map_err(|error| error.to_string())?);
            }
        }
        look_at_messages(&mut self.oracle, &groups)?;
        Ok(cut_off)
    }

    fn try_repair(&mut self) -> Result<RepairReport, Error> {
        let handle = self.disk.attach().map_err(|_| Error::Closed)?;
        Store::options().repair_on(Arc::new(handle), self.clock.clone())
    }
}

/// A message that does not prove itself is told, and not delivered.
fn look_at_messages(oracle: &mut Oracle, groups: &[Group]) -> Result<(), String> {
    for group in groups {
        let batch = match group.receive_batch(64, Duration::ZERO) {
            Ok(batch) => batch,
            Err(Error::Unreadable { .. }) => continue,
            Err(error) => return Err(error.to_string()),
        };
        for delivery in &batch {
            oracle.name(delivery.origin(), delivery.payload())?;
        }
    }
    Ok(())
}
