//! Mistakes in reading a topic as a log.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a reader of the log sees what is not durable",
        plants: "a projection knows of events that a power failure then takes back",
        mistake: Mistake::Value("if planted!() { self.state.partition_end(partition) } else { $it }"),
        level: Level::Test("log_reader", "nothing_is_read_that_is_not_durable"),
    },
    Bug {
        name: "the rest of a frame is skipped",
        plants: "of a batch only the first message is read",
        mistake: Mistake::Value(
            "if planted!() { self.todo.push(run.partition); if let Some(next) = self.next_of(run.partition) { *next = run.end(); } } else { $it }",
        ),
        level: Level::Test("log_reader", "messages_come_in_the_order_of_the_log"),
    },
    Bug {
        name: "a gap is not told",
        plants: "a reader that was away for too long never learns that it missed something",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Test("log_reader", "a_gap_is_told_once"),
    },
    Bug {
        name: "a position beyond the end of its epoch counts",
        plants: "after a power failure a position names what came into the place of its message",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("log_reader", "a_position_that_was_lost_is_told"),
    },
    Bug {
        name: "what is missing behind an old position is not told",
        plants: "a reader that comes back after very long never learns that messages were removed meanwhile",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("what_is_missing_behind_an_old_position_is_told"),
    },
    Bug {
        name: "a reader of the log is not woken",
        plants: "a reader sleeps beside a message, until its time is over",
        mistake: Mistake::Skip,
        level: Level::Library("a_reader_is_told_where_to_look"),
    },
    Bug {
        name: "notes of a topic have no bound",
        plants: "a reader that is held and not read takes memory with every publish",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("a_reader_that_was_away_for_too_long"),
    },
    Bug {
        name: "a reader that was away for too long looks nowhere",
        plants: "a reader that comes back after many publishes never sees them",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("log_reader", "a_reader_that_comes_back_late_misses_nothing"),
    },
];
