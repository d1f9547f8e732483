//! Planted bugs: streams and their index.

use crate::seam::Mistake;
use crate::{Bug, Level};

const NUMBERED: Level = Level::Test("streams", "events_are_numbered_and_expected");
const ANY_INDEX: Level = Level::Test("streams", "any_index_gives_the_same_answers");
const TRANSACTION: Level = Level::Test("streams", "a_transaction_appends_with_all_else");

/// The list.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "any version will do",
        plants: "two who decided by the same version both win",
        mistake: Mistake::Value("planted!() || ($it)"),
        level: NUMBERED,
    },
    Bug {
        name: "the version is not checked",
        plants: "an append that expects another version is done",
        mistake: Mistake::Asks("!planted!() && !is_expected(head, expected)"),
        level: NUMBERED,
    },
    Bug {
        name: "a stale fact is believed",
        plants: "a version comes twice, for the index was read before another append",
        mistake: Mistake::Value("if planted!() { fact } else { $it }"),
        level: Level::Library("a_decision_needs_a_fact_that_nothing_has_made_stale"),
    },
    Bug {
        name: "the index follows what is not durable",
        plants: "the index is ahead of a log that a power failure took back",
        mistake: Mistake::Asks(
            "!planted!() && end > upto || found.len() >= min && found.last().is_some_and(|last| last.0 < end)",
        ),
        level: Level::Library("a_decision_needs_a_fact_that_nothing_has_made_stale"),
    },
    Bug {
        name: "streams do not follow the log",
        plants: "the second append to a stream gets the version of the first",
        mistake: Mistake::Skip,
        level: NUMBERED,
    },
    Bug {
        name: "any stamp counts",
        plants: "an index of another store, or ahead of the log, is believed",
        mistake: Mistake::Asks("planted!() || self.counts(engine, stamp)"),
        level: ANY_INDEX,
    },
    Bug {
        name: "an index that lags is believed",
        plants: "after a crash a stream is shorter than it was, and a version comes twice",
        mistake: Mistake::Asks("planted!() || index.at >= floor"),
        level: ANY_INDEX,
    },
    Bug {
        name: "an append does not wait",
        plants: "an append at Disk returns before it is durable",
        mistake: Mistake::Asks("!planted!() && level == Durability::Disk"),
        level: Level::Test("streams", "what_is_told_is_durable"),
    },
    Bug {
        name: "a stream is changed twice in a frame",
        plants: "two appends of one transaction give one version twice",
        mistake: Mistake::Value("($it) || planted!()"),
        level: TRANSACTION,
    },
    Bug {
        name: "appends of one frame are accepted under one id",
        plants: "a frame is written that nobody can apply, and the store is lost",
        mistake: Mistake::Asks("!planted!() && has_doubles(all)"),
        level: TRANSACTION,
    },
    Bug {
        name: "an id names a message before its own",
        plants: "a repeated append is told with the receipt of another message",
        mistake: Mistake::Skip,
        level: TRANSACTION,
    },
];
