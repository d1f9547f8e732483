//! What a store must be after a crash or a close: compared with what was promised, opened again, used, and opened again.

use crate::case::World;
use millpond::simulation::PowerOutcome;
use millpond::{OpenReport, Store};
use std::sync::Arc;

impl World {
    /// A close by a process that appended leaves a clean store; one that did not leaves it as it was.
    pub fn after_close(&mut self, appended: bool) -> Result<OpenReport, String> {
        self.disk.clear_faults();
        let store = self.open(true).map_err(|error| format!("after a clean close: {error}"))?;
        let report = store.report().clone();
        if appended && (!report.was_clean || report.dropped.is_some()) {
            return Err(format!("a clean close was not seen as one: {report:?}"));
        }
        drop(store);
        self.verify()?;
        self.tally.count_if(report.was_clean, "recovery: closed cleanly");
        self.compare(&report, false)?;
        Ok(report)
    }

    /// A store that was never damaged has no findings.
    fn verify(&mut self) -> Result<(), String> {
        let reader = Arc::new(self.disk.reader());
        let observer = Store::options().open_read_only_on(reader, self.clock.clone());
        let report = observer.and_then(|observer| observer.verify(|_| ()));
        let report = report.map_err(|error| format!("a store that was closed is not verified: {error}"))?;
        self.tally.count("stores verified");
        self.tally.count_if(report.checkpoint_replayed, "checkpoints that were replayed");
        self.tally.more("index files compared", report.indexes as u64);
        if report.findings.is_empty() {
            Ok(())
        } else {
            Err(format!("a store that was closed has {:?}", report.findings))
        }
    }

    /// Holds what an open found against what was promised and what the state was at that end of the log.
    fn compare(&mut self, report: &OpenReport, power: bool) -> Result<(), String> {
        self.oracle.recovered(report.end.0, power)?;
        let Some(expected) = self.oracle.hashes.get(&report.end.0) else { return Ok(()) };
        self.tally.count("states compared");
        if *expected == report.state_hash {
            return Ok(());
        }
        Err(format!("the state at {} is not what it was there", report.end))
    }

    /// Opens what a crash left and compares it with what was promised.
    pub fn check(&mut self, power: bool) -> Result<(), String> {
        let report = self.recover(power)?;
        // Opening again changes nothing.
        let again = self.open(false).map_err(|error| format!("opening again: {error}"))?;
        if (again.report().end, again.report().state_hash) != (report.end, report.state_hash) {
            return Err("opening twice gives two stores".to_owned());
        }
        drop(again);
        if self.rng.chance(1, 8) {
            self.damage(&report)?;
        }
        if self.rng.coin() {
            self.cut_once_served()?;
        }
        self.drain_copy(false)?;
        self.drain_copy(true)
    }

    /// Whatever an open served is durable, even if the power goes before anything is appended (F11).
    fn cut_once_served(&mut self) -> Result<(), String> {
        let mut copy = self.copy();
        let outcome = PowerOutcome::EACH[self.rng.index(PowerOutcome::EACH.len())];
        copy.disk.crash_power(outcome);
        self.tally.count("power cuts after a recovery");
        copy.recover(true).map(drop).map_err(|what| format!("{outcome:?} once the store was served: {what}"))
    }

    /// Opens what a crash left, and holds it against what was promised.
    pub fn recover(&mut self, power: bool) -> Result<OpenReport, String> {
        let store = self.open(true).map_err(|error| format!("after a crash: {error}"))?;
        let report = store.report().clone();
        drop(store);
        let (torn, copied) = (report.dropped.is_some(), report.copied_bytes > 0);
        self.tally.count_if(torn, "recovery: torn tail dropped");
        self.tally.count(match copied {
            true => "recovery: unproven and copied",
            false if report.end.0 == 0 => "recovery: laid out",
            false => "recovery: proven",
        });
        self.tally.count_if(report.checkpoint.0 > 0, "checkpoint used");
        self.compare(&report, power)?;
        Ok(report)
    }

    /// Drains a copy of the machine, perhaps without its derived files: everything must be there, once; and again after that.
    pub fn drain_copy(&self, without_derived: bool) -> Result<(), String> {
        let mut copy = self.copy();
        if without_derived {
            for file in copy.disk.files().into_iter().filter(|file| file.name.ends_with(".idx")) {
                copy.disk.remove_file(&file.name);
            }
        }
        let what = if without_derived { "without index files" } else { "in a copy" };
        copy.drain(without_derived).map_err(|error| format!("{what}: {error}"))
    }

    fn drain(&mut self, durable_only: bool) -> Result<(), String> {
        let plan = self.plan.clone();
        let opened = self.open(durable_only).and_then(|store| self.begin(store, &plan, durable_only));
        let mut life = opened.map_err(|error| error.to_string())?;
        life.drain(&mut self.oracle)?;
        self.note_hash(&life.store);
        let appended = matches!(life.store.state_hash(), Ok(Some(_)));
        let closed = life.store.close();
        drop(life);
        closed.map_err(|error| format!("closing: {error}"))?;
        self.after_close(appended).map(drop)
    }
}
