//! Mistakes in how records are written and read, and in what a newer version's are taken for.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a body is longer than its fields",
        plants: "a decoder that passes over what is left, so that one record has many forms",
        mistake: Mistake::Asks("planted!() || $it"),
        level: Level::Library("a_body_is_used_up_exactly"),
    },
    Bug {
        name: "a long length is cut",
        plants: "a length is kept in one byte, however long the body is",
        mistake: Mistake::Before("Some(byte) if planted!() => *byte = len as u8 & 0x7f,"),
        level: Level::Library("a_long_body_has_a_long_length"),
    },
    Bug {
        name: "an option comes twice",
        plants: "of two values the last one counts, and nobody is told",
        mistake: Mistake::Value("Some(tag).filter(|_| planted!() || tag >= next)"),
        level: Level::Library("options_have_one_form"),
    },
    Bug {
        name: "a newer option is passed over",
        plants: "an old version goes on without what a new one was told to do",
        mistake: Mistake::Before("if planted!() && option.is_none() { continue; }"),
        level: Level::Library("an_unknown_option_is_a_newer_versions_and_no_damage"),
    },
    Bug {
        name: "a newer record is damage",
        plants: "who opens a store with an old version reads that it is broken",
        mistake: Mistake::Before(
            "DecodeError::Newer(_) if planted!() => damaged(segment, frame, \"a record that cannot be decoded\"),",
        ),
        level: Level::Library("newer_record_refuses_each_open_by_name"),
    },
    Bug {
        name: "a newer record hides when its message is read",
        plants: "a message that a newer version wrote is called damaged",
        mistake: Mistake::Skip,
        level: Level::Library("newer_record_before_a_message_is_named"),
    },
    Bug {
        name: "redrives to topics are not counted",
        plants: "a dead letter goes in a circle through topics for ever",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("boundaries", "a_message_goes_from_dead_letters_to_topics_16_times"),
    },
    Bug {
        name: "a copy forgets its redrives",
        plants: "a count that starts anew whenever the store is opened",
        mistake: Mistake::Value("{ let redrives = reader.varint_u32()?; if planted!() { 0 } else { redrives } }"),
        level: Level::Test("boundaries", "a_message_goes_from_dead_letters_to_topics_16_times"),
    },
];
