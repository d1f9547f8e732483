//! Mistakes in the repair of stores that do not open.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "nothing is copied aside",
        plants: "a repair that was a mistake cannot be taken back",
        mistake: Mistake::Asks("if planted!() { BTreeSet::new() } else { $it }"),
        level: Level::Test("repair", "one_damaged_frame_costs_its_message"),
    },
    Bug {
        name: "a repair ends at the first damage",
        plants: "one damaged frame costs all that was published behind it",
        mistake: Mistake::Before("if planted!() { break; }"),
        level: Level::Test("repair", "one_damaged_frame_costs_its_message"),
    },
    Bug {
        name: "what is lost is not retired",
        plants: "a repaired store refuses to open, for its list leaves a gap",
        mistake: Mistake::Skip,
        level: Level::Test("repair", "a_missing_middle_is_told_by_its_messages"),
    },
    Bug {
        name: "missing messages do not count",
        plants: "all messages of a partition behind a lost one are lost as well",
        mistake: Mistake::Instead("if planted!() { None } else { $it }"),
        level: Level::Test("repair", "a_missing_middle_is_told_by_its_messages"),
    },
    Bug {
        name: "one checkpoint covers the damage",
        plants: "with its newest checkpoint damaged a repaired store does not open any more",
        mistake: Mistake::Value("if planted!() { checkpoint::write_checkpoint(self) } else { $it }"),
        level: Level::Test("repair", "the_damage_is_covered_twice"),
    },
    Bug {
        name: "a parked message is settled in its line",
        plants: "a repair refuses a store whose group in order of keys lost the record of a lease",
        mistake: Mistake::Skip,
        level: Level::Test("repair", "a_lost_frame_takes_back_nothing_behind_it"),
    },
    Bug {
        name: "a seek loses what is before a gap",
        plants: "messages that nobody got are skipped by a seek back, and unlinked",
        mistake: Mistake::Instead("if planted!() { *start } else { (*start).min((*from).max(looked_for)) }"),
        level: Level::Test("repair", "a_seek_over_a_gap_loses_nothing_that_is_there"),
    },
];
