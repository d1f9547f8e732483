//! Mistakes in what is left of topics and groups that were removed, and in what an alteration is for.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "sleepers of a removed group sleep on",
        plants: "a consumer waits for messages of a group that is gone, until its time is over",
        mistake: Mistake::Value("if !planted!() { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a removed partition holds segments",
        plants: "nobody ever settles what was in a removed partition: its segments stay on the disk",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("state::group::tests::removal"),
    },
    Bug {
        name: "nothing is kept for ever",
        plants: "a log loses its events once every group has settled them",
        mistake: Mistake::Before("Retention::Forever if planted!() => Offset(u64::MAX),"),
        level: Level::Library("segments_stay_that_hold_a_message_that_stays_for_ever"),
    },
    Bug {
        name: "a removed number is given again",
        plants: "an old handle, token or id names something of the next group",
        mistake: Mistake::Before(
            "if planted!() && retry.nth(2) == self.tables.next.partition {
                self.tables.next.partition = retry;
                self.tables.next.group.0 -= 1;
            }",
        ),
        level: Level::Model,
    },
    Bug {
        name: "a removed group is waited for",
        plants: "the exclusive lease of a group that is gone holds up all others",
        mistake: Mistake::Skip,
        level: Level::Library("state::group::tests::removal"),
    },
    Bug {
        name: "an altered limit holds for what is out",
        plants: "a changed option sorts outstanding messages anew, and some die of it",
        mistake: Mistake::Before(
            "if planted!() {
                let all: Vec<_> = group.data.entries.iter().map(|(at, _)| *at).collect();
                for at in all {
                    if let Some(entry) = group.data.entries.get_mut(&at) {
                        entry.max_attempts = options.max_attempts;
                    }
                }
            }",
        ),
        level: Level::Model,
    },
    Bug {
        name: "a lease keeps the first limit",
        plants: "a raised limit of attempts never reaches the messages that it was raised for",
        mistake: Mistake::Skip,
        level: Level::Model,
    },
    Bug {
        name: "the snapshot forgets a limit",
        plants: "after a checkpoint a message has another number of attempts left than before it",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a removed partition is shown again",
        plants: "a sync that ends after the removal leaves an entry that nobody ever takes out",
        mistake: Mistake::Skip,
        level: Level::Library("a_removed_partition_is_not_shown_again"),
    },
];
