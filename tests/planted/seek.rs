//! Mistakes in how a group goes on from elsewhere.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a seek does not wait",
        plants: "after a power failure a group is where it was before the seek that returned",
        mistake: Mistake::Skip,
        level: Level::Test("scenarios", "files::seek_crash"),
    },
    Bug {
        name: "a seek forgets redriven messages",
        plants: "messages that were taken out of the dead letters are lost",
        mistake: Mistake::Skip,
        level: Level::Test("scenarios", "files::seek_letters"),
    },
    Bug {
        name: "a seek loses what is kept before a gap",
        plants: "a message that a group had never settled does not come when the group goes back to the start",
        mistake: Mistake::Value(
            "self.entries.from(from).map(|(at, entry)| (*at, entry)).take_while(move |(at, _)| !planted!() && *at < (from.0, start))",
        ),
        level: Level::Test("seek", "what_is_not_settled_comes_from_before_a_gap"),
    },
    Bug {
        name: "a group goes on in a gap",
        plants: "after a seek a group gets errors for messages that are gone",
        mistake: Mistake::Value("if planted!() { asked.min(*end) } else { $it }"),
        level: Level::Test("seek", "what_is_gone_is_counted_and_the_rest_comes"),
    },
    Bug {
        name: "a message that was let go is waited for",
        plants: "after a seek all groups wait for a lease that ended with it",
        mistake: Mistake::Skip,
        level: Level::Library("nobody_waits_for_a_message_that_was_let_go"),
    },
    Bug {
        name: "a seek wakes nobody",
        plants: "consumers that wait sleep on beside messages that come again",
        mistake: Mistake::Value("if planted!() { Wakes::Nobody } else { $it }"),
        level: Level::Test("seek", "a_consumer_that_waits_gets_what_comes_again"),
    },
    Bug {
        name: "a seek keeps keys taken",
        plants: "after a seek ahead a unique key belongs to a message that every group has settled",
        mistake: Mistake::Skip,
        level: Level::Test("seek", "a_seek_ahead_frees_a_key_and_one_back_takes_none"),
    },
    Bug {
        name: "what is too old comes again",
        plants: "a group that goes back gets messages, and drops them again, that its topic lets nobody have",
        mistake: Mistake::Value("if planted!() { Offset(0) } else { $it }"),
        level: Level::Test("seek", "what_is_too_old_does_not_come_again"),
    },
];
