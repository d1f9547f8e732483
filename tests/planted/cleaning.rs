//! Mistakes in cleaning.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a cleaner ignores a group",
        plants: "compaction goes by one consumer group and drops what another has not read",
        mistake: Mistake::Instead("if !planted!() || Some(number) == of_topic.first() { $it }"),
        level: Level::Test("cleaning", "whatever_ends_a_cleaning"),
    },
    Bug {
        name: "a cleaner ignores a pin",
        plants: "a group begins at messages that a compaction, begun before, has dropped",
        mistake: Mistake::Value("!planted!() && ($it)"),
        level: Level::Library("nothing_is_cleaned_by_a_look_from_before_a_pin"),
    },
    Bug {
        name: "a cleaner ignores what a cursor has come to hold",
        plants: "a compaction drops what a reader's position, set meanwhile, was to keep",
        mistake: Mistake::Value("$it || planted!()"),
        level: Level::Library("nothing_is_cleaned_that_a_cursor_holds_since_the_look"),
    },
    Bug {
        name: "a cleaned file is told of before it is durable",
        plants: "a compacted file replaces its sources before its sync",
        mistake: Mistake::Value("if planted!() { file.file.write_at(0, &header) } else { $it }"),
        level: Level::Test("cleaning", "whatever_ends_a_cleaning"),
    },
    Bug {
        name: "a file goes that a frame may tell of",
        plants: "a compaction whose commit failed removes its output, and the commit was there after all",
        mistake: Mistake::Value("if planted!() { !matches!(taken, Ok(Some(_))) } else { $it }"),
        level: Level::Test("cleaning", "whatever_ends_a_cleaning"),
    },
    Bug {
        name: "a message that moved is not looked for",
        plants: "a reader that found a message before a compaction gets an error after it",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Library("a_message_that_was_found_is_read_where_it_is_now"),
    },
    Bug {
        name: "a group begins in a gap",
        plants: "a new group gets errors for messages that compaction has removed",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("cleaning", "a_late_group_begins_behind_the_gaps"),
    },
    Bug {
        name: "the end of a cleaned frame is taken for that of the frame",
        plants: "an index that is made again skips the entry behind each batch",
        mistake: Mistake::Value("if planted!() { frame.padded().into() } else { $it }"),
        level: Level::Test("cleaning", "streams_are_found_in_cleaned_files"),
    },
    Bug {
        name: "a segment keeps serving what was cleaned",
        plants: "a crash between two steps of a compaction leaves two places for one message",
        mistake: Mistake::Value("if planted!() { Vec::new() } else { $it }"),
        level: Level::Test("cleaning", "a_stuck_message_holds_itself_alone"),
    },
    Bug {
        name: "a store grows beyond its bound",
        plants: "the option for the largest size of a store is not looked at",
        mistake: Mistake::Value("if planted!() { Ok(free) } else { $it }"),
        level: Level::Test("cleaning", "g14_a_store_with_a_bound"),
    },
    Bug {
        name: "fewer are kept than the last so many",
        plants: "a log that keeps its last messages loses them once they are read",
        mistake: Mistake::Before("Retention::Count(_) if planted!() => end,"),
        level: Level::Test("retention", "the_last_messages_stay"),
    },
    Bug {
        name: "a message is kept for less than its time",
        plants: "a log that keeps messages for a time removes those of the last moment",
        mistake: Mistake::Before("if planted!() { ages.kept_from.clone_from(&ends); }"),
        level: Level::Test("retention", "a_clock_that_is_wrong_at_the_open"),
    },
    Bug {
        name: "a clock that is wrong at the open lets messages go",
        plants: "a machine that starts with a wrong date deletes the log",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("retention", "a_clock_that_is_wrong_at_the_open"),
    },
];
