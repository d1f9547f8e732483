//! Mistakes in looking at a store that another process writes.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "what is met once is damage",
        plants: "a frame that is being written while an observer reads is told as damage",
        mistake: Mistake::Before("Err(error @ Error::Corrupt(_)) if planted!() => return Err(error),"),
        level: Level::Test("observer", "a_writer_may_move_between_any_two_reads"),
    },
    Bug {
        name: "a file that went away is not looked for again",
        plants: "an observer fails whenever a segment is unlinked while it reads the directory",
        mistake: Mistake::Before("Err(error @ Error::Io { .. }) if planted!() => return Err(error),"),
        level: Level::Test("observer", "a_writer_may_move_between_any_two_reads"),
    },
    Bug {
        name: "an observer sees what is not durable",
        plants: "a power failure takes back what an observer has told",
        mistake: Mistake::Value("if planted!() { frames.len().checked_sub(1) } else { $it }"),
        level: Level::Test("observer", "an_observer_lives_through_all_that_a_writer_does"),
    },
    Bug {
        name: "a backup goes by the files alone",
        plants: "a backup lacks what was durable before it, for no frame says so yet",
        mistake: Mistake::Value("if planted!() { Lsn(0) } else { $it }"),
        level: Level::Test("backup", "a_backup_holds_all_that_was_durable_before_it"),
    },
    Bug {
        name: "a copy that was opened is written over",
        plants: "a nightly backup destroys the store that was restored from it",
        mistake: Mistake::Before("Some(_) if planted!() => Ok(slots),"),
        level: Level::Test("backup", "a_copy_that_was_opened_is_left_alone"),
    },
    Bug {
        name: "half a file counts",
        plants: "what a backup left that died is taken for a copy",
        mistake: Mistake::Value("if planted!() { !theirs.is_empty() } else { $it }"),
        level: Level::Test("backup", "a_backup_that_dies_is_made_whole_by_the_next"),
    },
    Bug {
        name: "a store whose identity is damaged is written over",
        plants: "a restore destroys the damaged store that somebody meant to look at",
        mistake: Mistake::Value("if planted!() { false } else { $it }"),
        level: Level::Test("backup", "a_damaged_store_is_no_target"),
    },
];
