//! Mistakes in transactions.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "messages of one frame overlap",
        plants: "two dead letters of one frame get the same offset: one hides the other",
        mistake: Mistake::Before("if planted!() { *added = 0; }"),
        level: Level::Test("transactions", "effects_of_a_transaction_are_in_one_frame"),
    },
    Bug {
        name: "a message is settled twice in a frame",
        plants: "the second settlement of a message contradicts the first, and the store stops",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("transactions", "mistakes_are_told_and_change_nothing"),
    },
    Bug {
        name: "a lost lease does not reject a transaction",
        plants: "the output of a worker that was replaced is published as well as that of the other",
        mistake: Mistake::Before(
            "if planted!() && matches!(decision, Ok(Decision::Settled { .. })) {
                records[start..].iter_mut().try_for_each(|record| overlay.take_in(record))?;
                continue;
            }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "a transaction that settles cannot use the reserve",
        plants: "a full store stays full for those that consume and produce",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("transactions", "full_store_can_be_drained_by_transactions"),
    },
    Bug {
        name: "a transaction does not wait",
        plants: "a transaction at Disk returns before it is durable",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Simulation,
    },
];
