//! Mistakes in unique keys.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a key is free while a group works on its message",
        plants: "a job is published a second time while it waits for its retry",
        mistake: Mistake::Value("if planted!() { offset >= group.next(index) } else { $it }"),
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
        name: "what was replaced is tried again",
        plants: "a job that failed once is not replaced: it holds up others, and becomes a dead letter",
        mistake: Mistake::Skip,
        level: Level::Library("g20_what_was_tried_and_is_replaced_is_settled_at_once"),
    },
    Bug {
        name: "what a replaced message held back sleeps on",
        plants: "a consumer sleeps on although the job that its next one waited for was replaced",
        mistake: Mistake::Before("Wakes::HeldBackOf(_) if planted!() => {}"),
        level: Level::Library("a_consumer_looks_again_when_what_held_it_back_is_replaced"),
    },
    Bug {
        name: "a message is settled and replaced in a frame",
        plants: "a transaction that a late worker commits beside a newer job stops the store",
        mistake: Mistake::Asks("if planted!() { None } else { $it }"),
        level: Level::Library("g20_what_a_transaction_settles_is_not_replaced_in_it"),
    },
    Bug {
        name: "a key is free while its message is only counted",
        plants: "a job is published a second time while it waits for many others of its customer",
        mistake: Mistake::Value("{ let is_counted = $it; move || !planted!() && is_counted() }"),
        level: Level::Library("g20_a_key_is_free_whatever_is_only_counted"),
    },
    Bug {
        name: "a key stays taken by what nobody keeps",
        plants: "no job of a key is published any more where the topic keeps messages for a while",
        mistake: Mistake::Value("planted!() || $it"),
        level: Level::Library("g20_a_key_goes_with_what_a_topic_keeps_no_longer"),
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
