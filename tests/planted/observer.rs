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
        mistake: Mistake::Value("if planted!() { ends.last() } else { $it }"),
        level: Level::Test("observer", "an_observer_lives_through_all_that_a_writer_does"),
    },
];
