//! A byte that changed at rest: told as what it is, or of no effect (G12).

use crate::case::World;
use millpond::{Error, OpenReport};
use std::time::Duration;

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
            Err(Error::Corrupt(_) | Error::ForeignFile { .. } | Error::NewerFormat { .. }) => {
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
        for group in &life.groups {
            // A message that does not prove itself is told, and not delivered.
            let batch = match group.receive_batch(64, Duration::ZERO) {
                Ok(batch) => batch,
                Err(Error::Unreadable { .. }) => continue,
                Err(error) => return Err(format!("{place}: {error}")),
            };
            for delivery in &batch {
                copy.oracle.name(delivery.origin(), delivery.payload()).map_err(|what| format!("{place}: {what}"))?;
            }
        }
        Ok(())
    }
}
