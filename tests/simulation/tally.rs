//! Counts of what happened: a run that passes because nothing happened has failed.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name. The names in [`MARKS`] are what a long run must have met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

/// What each run of 20,000 cases must meet at least once.
pub const MARKS: &[&str] = &[
    "crashes",
    "power cuts",
    "crashes in recovery, 1 deep",
    "crashes in recovery, 2 deep",
    "crashes in recovery, 3 deep",
    "states compared",
    "recovery: laid out",
    "recovery: closed cleanly",
    "recovery: proven",
    "recovery: unproven and copied",
    "recovery: torn tail dropped",
    "recovery: damage told",
    "recovery: damage without effect",
    "repairs",
    "repairs begun again",
    "processes that closed",
    "processes that dropped the store",
    "processes killed with all they held",
    "zombie settled in vain",
    "ack after the lease ended, accepted",
    "ack after the lease ended, refused",
    "message taken over after its lease ended",
    "segment begun by a batch",
    "watermark behind the end",
    "segments retired",
    "jobs after files were cleaned",
    "deliveries in order",
    "filtered messages settled",
    "groups removed",
    "seeks",
    "seeks refused",
    "logs read from a position",
    "publishes under ids",
    "publishes to a full topic",
    "messages dropped for want of room",
    "repeats of ids",
    "publishes under unique keys",
    "unique keys that were taken",
    "messages that were replaced",
    "cursors moved",
    "appends to a stream",
    "streams read",
    "snapshots of a stream",
    "snapshots read",
    "positions refused",
    "checkpoint used",
    "clock set forward",
    "clock set back",
    "dead letters",
    "redriven",
    "ENOSPC: STORE",
    "ENOSPC: seg",
    "ENOSPC: ckp",
    "ENOSPC: idx",
    "fault Io",
    "fault NoSpace",
    "fault TooManyFiles",
    "fault CrashBefore",
    "fault CrashMiddle",
    "fault CrashAfter",
];

/// What is wanted of each kind in a run of `cases`, as one in so many cases.
const SHARES: &[(&str, u64, u64)] = &[
    ("crashes", 1, 1),
    ("power cuts", 1, 3),
    ("crashes in recovery, 1 deep", 1, 20),
    ("faults without a crash", 1, 20),
    ("recovery: torn tail dropped", 1, 25),
    ("recovery: unproven and copied", 1, 20),
    ("messages", 5, 1),
    ("acks", 1, 1),
    ("states compared", 1, 4),
];

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        self.more(what, 1);
    }

    pub fn count_if(&mut self, holds: bool, what: &'static str) {
        if holds {
            self.more(what, 1);
        }
    }

    pub fn more(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.more(what, *count);
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn rows(&self) -> Vec<(&str, u64)> {
        self.0.iter().map(|(what, count)| (*what, *count)).collect()
    }

    /// Panics where too little happened in so many cases.
    pub fn require(&self, cases: u64) {
        for (what, numerator, denominator) in SHARES {
            let least = cases * numerator / denominator;
            assert!(self.of(what) >= least, "only {} {what}, and {least} are wanted", self.of(what));
        }
        if cases >= 20_000 {
            let missing: Vec<_> = MARKS.iter().filter(|mark| self.of(mark) == 0).collect();
            assert!(missing.is_empty(), "never met in {cases} cases: {missing:?}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}
