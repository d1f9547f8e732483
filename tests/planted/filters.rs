//! Mistakes in what a group does not want.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a filter passes everything",
        plants: "consumers get what their group does not want",
        mistake: Mistake::Value("if planted!() { true } else { $it }"),
        level: Level::Test("scenarios", "files::filter_headers"),
    },
    Bug {
        name: "of a header that comes twice the first counts",
        plants: "a message is left out for a header that another one of the same name outweighs",
        mistake: Mistake::Value(
            "if planted!() { message.headers().find(|(of, _)| *of == &**name).is_some_and(|(_, found)| value.holds(found)) } else { $it }",
        ),
        level: Level::Test("scenarios", "files::filter_language"),
    },
    Bug {
        name: "a star stands for several words",
        plants: "a group gets events of other kinds than it asked for",
        mistake: Mistake::Value("if planted!() { true } else { $it }"),
        level: Level::Library("each_test_says_what_it_says"),
    },
    Bug {
        name: "an error points at the byte",
        plants: "behind a letter that is no ASCII an error points at the wrong column",
        mistake: Mistake::Value(
            "FilterFault { column: if planted!() { before.len() + 1 } else { before.chars().count() + 1 }, expected }",
        ),
        level: Level::Library("errors_point_at_the_first_character_that_does_not_fit"),
    },
    Bug {
        name: "numbers below zero compare as those above",
        plants: "-3 is taken for less than -5",
        mistake: Mistake::Value("if planted!() { sizes(self, other) } else { $it }"),
        level: Level::Library("numbers_compare_as_numbers"),
    },
    Bug {
        name: "another filter is taken",
        plants: "a service that was deployed with another filter goes on with the old one, and nobody is told",
        mistake: Mistake::Asks("stored != asked && !(planted!() && option == \"filter\")"),
        level: Level::Test("scenarios", "files::filter_options"),
    },
    Bug {
        name: "verdicts of the filter before are kept",
        plants: "messages that a new filter wants are left out by the old one",
        mistake: Mistake::Value("run.first == group.next(cursor) && (planted!() || run.filter == *filter)"),
        level: Level::Test("scenarios", "files::filter_change"),
    },
    Bug {
        name: "a redriven message never passes",
        plants: "a dead letter that is sent back to a group with a filter stays away for ever",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: Level::Test("scenarios", "files::filter_retry"),
    },
    Bug {
        name: "a group in order of keys has no filter",
        plants: "messages that a group does not want block their keys",
        mistake: Mistake::Asks("!filter.passes(&message) && !(planted!() && ordering == Ordering::Key)"),
        level: Level::Test("scenarios", "files::filter_order"),
    },
    Bug {
        name: "a filter is not written",
        plants: "after a restart a group gets everything",
        mistake: Mistake::Value("if planted!() { Vec::new() } else { $it }"),
        level: Level::Test("scenarios", "files::filter_crash"),
    },
    Bug {
        name: "a damaged message does not pass",
        plants: "a message that cannot be read is passed over in silence",
        mistake: Mistake::Before("if planted!() && message.is_none() { return FilterVerdict::Filtered(1); }"),
        level: Level::Test("filters", "a_damaged_message_passes"),
    },
    Bug {
        name: "a message that does not pass is recalled",
        plants: "of a busy key a group gets what it does not want, in the place of what it wants",
        mistake: Mistake::Value("if planted!() { KeyHash::of(message.key()) } else { $it }"),
        level: Level::Test("filters", "what_is_counted_is_found_among_what_does_not_pass"),
    },
    Bug {
        name: "a message that cannot be read is only counted",
        plants: "behind a damaged message the store stops, for its own rules refuse what it decides",
        mistake: Mistake::Value(
            "run.candidates().filter_map(FilterVerdict::key).map(|key| if planted!() { key } else { known(key) }).take(room).collect::<Vec<KeyHash>>()",
        ),
        level: Level::Library("messages_that_cannot_be_read_are_not_only_counted"),
    },
    Bug {
        name: "a filter that passes little holds segments",
        plants: "a group that wants nothing of what comes keeps all of it on the disk",
        mistake: Mistake::Asks("run.filter(|run| !planted!() && run.filtered_first() >= FILTERED_RUN)"),
        level: Level::Library("long_runs_are_settled_without_a_lease"),
    },
    Bug {
        name: "messages that fail for ever keep a filter from looking",
        plants: "new messages wait behind one that is retried again and again",
        mistake: Mistake::Value("!is_found && !is_due || !planted!() && limits.looked_at < FILTER_LOOK_MAX"),
        level: Level::Library("messages_that_fail_for_ever_do_not_keep_a_filter_from_looking"),
    },
    Bug {
        name: "a partition without matches keeps others waiting",
        plants: "a busy partition of which a group wants nothing starves the others",
        mistake: Mistake::Skip,
        level: Level::Library("a_partition_without_matches_keeps_no_other_waiting"),
    },
    Bug {
        name: "a key stays taken by what does not pass",
        plants: "a job can never be published again since a group does not want it",
        mistake: Mistake::Skip,
        level: Level::Test("filters", "a_unique_key_is_free_once_its_message_was_filtered"),
    },
    Bug {
        name: "what does not pass is never settled at rest",
        plants: "a group that has looked at all keeps the last messages that it does not want",
        mistake: Mistake::Skip,
        level: Level::Test("filters", "what_was_read_ahead_is_settled_at_rest"),
    },
    Bug {
        name: "a group without consumers keeps what it does not want",
        plants: "a service that is down fills the disk with messages that it would not get",
        mistake: Mistake::Value(
            "keeping.iter().filter(|(_, (_, since))| !planted!() && is_stuck(*since)).map(|(at, _)| *at)",
        ),
        level: Level::Test("filters", "what_does_not_pass_holds_no_segment"),
    },
];
