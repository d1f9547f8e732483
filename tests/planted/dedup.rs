//! Mistakes in what is remembered of messages, and in cursors.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "an id dies with its message",
        plants: "what was published and settled is published again under the same id",
        mistake: Mistake::Before(
            "Record::Acked { group, partition, first, count } if planted!() => {
                self.dedup = Default::default();
                self.apply_acked(*group, *partition, *first, *count)
            }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "an id dies with its process",
        plants: "ids are kept in memory alone: after a crash a message is published again",
        mistake: Mistake::Skip,
        level: Level::Test("dedup", "g20_a_repeat_publishes_nothing_and_gives_the_first_receipt"),
    },
    Bug {
        name: "an id is forgotten too early",
        plants: "a window that ends one step too soon",
        mistake: Mistake::Before("if planted!() { return now.saturating_sub(acceptance.time.0).0 >= age_max_ms; }"),
        level: Level::Test("dedup", "g20_an_id_leaves_by_count_or_by_age_and_no_earlier"),
    },
    Bug {
        name: "ages go by the wall clock",
        plants: "a clock that jumps a year forward makes the store forget every id",
        mistake: Mistake::Before("if planted!() { return StoreMs(steady.0); }"),
        level: Level::Test("dedup", "g20_an_id_leaves_by_count_or_by_age_and_no_earlier"),
    },
    Bug {
        name: "the bytes behind an id are not compared",
        plants: "another message under a used id is taken for the first one, and lost",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Model,
    },
    Bug {
        name: "an id is accepted twice",
        plants: "a log that accepts an id twice is taken for a sound one",
        mistake: Mistake::Skip,
        level: Level::Library("a_log_that_accepts_an_id_twice_is_refused"),
    },
    Bug {
        name: "ids have no bound",
        plants: "ten topics with the largest window take all memory",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Library("state::dedup"),
    },
    Bug {
        name: "a sequence is not recorded",
        plants: "a producer that tries again publishes again",
        mistake: Mistake::Skip,
        level: Level::Model,
    },
    Bug {
        name: "a repeated sequence is published again",
        plants: "a producer's number that was published is rejected as a gap, or accepted anew",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Model,
    },
    Bug {
        name: "a gap in a sequence is passed over",
        plants: "a producer that lost a message is not told",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Model,
    },
    Bug {
        name: "what is not durable is told",
        plants: "a repeat names a message that a power failure then takes back: it is in neither log",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a cursor is set by anybody",
        plants: "of two that move a cursor at once both think that they were first",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Model,
    },
    Bug {
        name: "a cursor is set twice in a frame",
        plants: "the second step of a transaction goes by what the first one has changed",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Test("cursors", "a_cursor_moves_with_its_output_or_not_at_all"),
    },
    Bug {
        name: "cursors of one frame have no bound",
        plants: "a transaction is written that no process can read again",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Test("cursors", "cursors_out_of_bounds_are_refused"),
    },
    Bug {
        name: "a cursor that adds takes the room for settling",
        plants: "new cursors fill a disk to the last byte, and nothing can be settled any more",
        mistake: Mistake::Before("if planted!() { return record.room(); }"),
        level: Level::Test("cursors", "a_full_store_takes_no_new_cursor_and_can_be_drained"),
    },
    Bug {
        name: "a transaction that settles nothing uses the reserve",
        plants: "transactions that settle nothing fill a disk to the last byte",
        mistake: Mistake::Value("planted!() && matches!(command, Command::Transaction { .. }) || $it"),
        level: Level::Test("cursors", "a_full_store_takes_no_new_cursor_and_can_be_drained"),
    },
    Bug {
        name: "a cursor holds nothing",
        plants: "what a projection has not read yet is unlinked",
        mistake: Mistake::Before("_ if crate::planted(\"a cursor holds nothing\") => None,"),
        level: Level::Test("cursors", "a_cursor_over_a_topic_holds_what_it_has_not_passed"),
    },
];
