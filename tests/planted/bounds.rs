//! Mistakes in the bounds of topics.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a bound ignores a group",
        plants: "a slow group fills the disk where a quick one keeps up",
        mistake: Mistake::Value(
            "if planted!() { self.groups_of(topic).map(|(_, group)| self.unsettled_count(group)).min()? } else { $it }",
        ),
        level: Level::Test("topic_bound", "a_publish_is_refused_just_when_a_group_would_have_too_much"),
    },
    Bug {
        name: "a topic takes more than its bound",
        plants: "a batch goes beyond the bound",
        mistake: Mistake::Asks("if planted!() { left > 0 } else { count <= left }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a bound counts no message that was leased",
        plants: "consumers that hold their messages let a topic grow without end",
        mistake: Mistake::Value("if planted!() { new } else { $it }"),
        level: Level::Test("scenarios", "files::ring"),
    },
    Bug {
        name: "what is kept is dropped",
        plants: "messages go that a topic still keeps",
        mistake: Mistake::Value("if planted!() { self.catalog.end(partition) } else { $it }"),
        level: Level::Library("old_messages_are_dropped"),
    },
    Bug {
        name: "what was dropped is counted",
        plants: "a group gets messages that were dropped, and others of the key never",
        mistake: Mistake::Value("if planted!() { true } else { $it }"),
        level: Level::Library("nothing_is_dropped_behind_what_is_only_counted"),
    },
    Bug {
        name: "what is dropped is not counted",
        plants: "messages go and nobody learns of it",
        mistake: Mistake::Skip,
        level: Level::Test("topic_bound", "the_newest_stay"),
    },
    Bug {
        name: "a checkpoint forgets what was dropped",
        plants: "after a restart nothing seems to have been dropped",
        mistake: Mistake::Skip,
        level: Level::Library("the_oldest_are_dropped_of_each_group"),
    },
    Bug {
        name: "a topic without a bound may be full",
        plants: "an option that does nothing is taken",
        mistake: Mistake::Asks("self.max_messages.is_none() && !planted!()"),
        level: Level::Test("topic_bound", "bounds_that_cannot_be_are_refused"),
    },
    Bug {
        name: "room in a topic wakes nobody",
        plants: "a publisher waits on though there is room for its message",
        mistake: Mistake::Before("if planted!() { return; }"),
        level: Level::Shuttle("who_waits_for_room_gets_it"),
    },
];
