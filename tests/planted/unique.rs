//! Mistakes in unique keys.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a key is free while a group works on its message",
        plants: "a job is published a second time while it waits for its retry",
        mistake: Mistake::Value(
            "if planted!() { cursor.is_some_and(|cursor| offset >= group.next(cursor)) } else { $it }",
        ),
        level: Level::Library("state::unique"),
    },
    Bug {
        name: "a unique key is taken twice",
        plants: "a log that gives a key to two messages is taken for a sound one",
        mistake: Mistake::Skip,
        level: Level::Library("records_of_keys_follow_from_the_state_or_change_nothing"),
    },
    Bug {
        name: "what was replaced is forgotten",
        plants: "a consumer gets the job that was replaced, and then the newer one",
        mistake: Mistake::Skip,
        level: Level::Test("scenarios", "files::unique"),
    },
    Bug {
        name: "what was replaced is delivered",
        plants: "a consumer gets the job that was replaced, and then the newer one",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a key is free once its message is due",
        plants: "a reminder is published a second time as soon as it is due",
        mistake: Mistake::Skip,
        level: Level::Test("unique", "g20_keys_outlive_their_process_and_a_checkpoint"),
    },
    Bug {
        name: "a key stays taken for ever",
        plants: "no job of a key is published any more once one was done",
        mistake: Mistake::Skip,
        level: Level::Library("g20_one_message_of_a_key_is_pending"),
    },
    Bug {
        name: "a leased message is replaced",
        plants: "a newer job runs beside the older one of its key",
        mistake: Mistake::Before("WhilePending::Replace if planted!() => { replaced = self.replace(place, records); }"),
        level: Level::Library("g20_what_a_consumer_works_on_is_not_replaced"),
    },
    Bug {
        name: "a scheduled message is replaced and comes",
        plants: "a reminder that was put off comes at its first time, too",
        mistake: Mistake::Skip,
        level: Level::Library("g20_a_message_for_later_has_its_key_and_takes_it_along"),
    },
    Bug {
        name: "unique keys have no bound",
        plants: "keys of jobs that nobody does take all memory",
        mistake: Mistake::Before("if planted!() { return Ok(()); }"),
        level: Level::Library("g20_keys_have_a_bound_and_a_frame_has_each_once"),
    },
];
