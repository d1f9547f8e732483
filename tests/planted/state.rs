//! Mistakes in what may happen when.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a stale token is accepted",
        plants: "a holder that lost its lease settles the message of the next",
        mistake: Mistake::Value("planted!() || ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "the attempt is not charged",
        plants: "a second attempt leaves no trace",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "the attempts have no cap",
        plants: "an exhausted message is delivered again, for only a nack asks for the cap",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "an extension is forgotten",
        plants: "the message goes to another while its holder has it",
        mistake: Mistake::Before("let until = if planted!() { lease.until } else { until };"),
        level: Level::Simulation,
    },
    Bug {
        name: "an ack of a run is lost",
        plants: "of a batch of acks only the first counts",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a dead letter stays in its partition",
        plants: "it is copied to the dead letters and not settled: two places",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a redriven dead letter stays",
        plants: "a redrive is no move, and a discard does nothing",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "retirement ignores a group",
        plants: "a segment goes that one group has not read",
        mistake: Mistake::Value(
            "if planted!() { self.groups_of(topic).map(of).max().unwrap_or_default() } else { $it }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "what is leased counts as settled",
        plants: "a segment goes while its messages are held",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "what is settled around a message takes it along",
        plants: "a segment goes with a message that waits for its retry, when all others in it are settled",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "a due time is not clamped",
        plants: "a retry waits for a time that the clock does not reach",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a checkpoint forgets the dead letters",
        plants: "what was redriven or discarded comes back",
        mistake: Mistake::Instead("if planted!() { dead_letter::encode(&Default::default(), out); } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a crash is not charged",
        plants: "a message that kills its process never gets its last attempt alone",
        mistake: Mistake::Skip,
        level: Level::Model,
    },
    Bug {
        name: "leases beside an exclusive one",
        plants: "another message is given out while one is tried alone",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Library("state::lease::tests::exclusive"),
    },
    Bug {
        name: "more outstanding than allowed",
        plants: "the cap on outstanding messages is not asked",
        mistake: Mistake::Value("if planted!() { max } else { $it }"),
        level: Level::Model,
    },
    Bug {
        name: "a wait for an exclusive lease has no end",
        plants: "one message that must go alone and one that is kept stop every group",
        mistake: Mistake::Asks("planted!() || ($it)"),
        level: Level::Test("kinds", "fairness"),
    },
    Bug {
        name: "retries come before what is new for ever",
        plants: "a message that fails at once starves all others",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: Level::Test("kinds", "fairness"),
    },
    Bug {
        name: "a crash stays on the account",
        plants: "a message that was nacked since must still go alone",
        mistake: Mistake::Skip,
        level: Level::Library("state::lease::tests::exclusive"),
    },
    Bug {
        name: "one more attempt for ever",
        plants: "a message that is never alone when its process dies never ends",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Library("state::lease::tests::exclusive"),
    },
    Bug {
        name: "a close is charged",
        plants: "a message that is held at each of a few restarts becomes a dead letter",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Model,
    },
    Bug {
        name: "closes are never forgotten",
        plants: "closes that were not in a row count as if they were",
        mistake: Mistake::Skip,
        level: Level::Library("state::retry::tests"),
    },
    Bug {
        name: "attempts count as crashes",
        plants: "a message that failed otherwise has fewer crashes before it is a dead letter",
        mistake: Mistake::Instead("if planted!() { self.attempts >= limit } else { $it }"),
        level: Level::Library("state::retry::tests"),
    },
    Bug {
        name: "no backoff after a crash",
        plants: "a message that kills its process kills the next one at once",
        mistake: Mistake::Skip,
        level: Level::Model,
    },
    Bug {
        name: "no backoff after a timeout",
        plants: "a message whose consumers hang goes to the next one at once",
        mistake: Mistake::Instead("if planted!() { lease.until } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "an exclusive lease stays exclusive beside others",
        plants: "a crash beside others counts as one alone",
        mistake: Mistake::Instead("if planted!() { return; } else { $it }"),
        level: Level::Library("state::lease::tests::exclusive"),
    },
    Bug {
        name: "due times by a clock that is behind",
        plants: "a retry comes a few milliseconds early",
        mistake: Mistake::Value("if planted!() { self.wall } else { $it }"),
        level: Level::Library("deadlines_are_counted_from_the_latest_time_it_may_be"),
    },
    Bug {
        name: "leases end by a clock that is behind",
        plants: "a lease ends a few milliseconds early",
        mistake: Mistake::Value(
            "if planted!() { inputs.mono.saturating_add(group.options.visibility_timeout_ms) } else { $it }",
        ),
        level: Level::Library("deadlines_are_counted_from_the_latest_time_it_may_be"),
    },
    Bug {
        name: "settled memory is kept",
        plants: "a group keeps what it once had outstanding",
        mistake: Mistake::Skip,
        level: Level::Library("a_burst_gives_its_memory_back"),
    },
    Bug {
        name: "a kept lease is not extended",
        plants: "a handler that keeps its message alive loses it after the visibility timeout",
        mistake: Mistake::Value("if planted!() { false } else { $it }"),
        level: Level::Test("kinds", "lease_is_kept_until_its_time_is_over"),
    },
    Bug {
        name: "a postponed message is leased again",
        plants: "a message that could not be moved after its last expiry is delivered again",
        mistake: Mistake::Skip,
        level: Level::Library("the_last_expiry_is_a_dead_letter_whatever_attempts_are_left"),
    },
    Bug {
        name: "a checkpoint lets a message have another attempt",
        plants: "a message that failed too often is tried again after a restart",
        mistake: Mistake::Value("if planted!() { Prospect::None } else { $it }"),
        level: Level::Library("the_last_expiry_is_a_dead_letter_whatever_attempts_are_left"),
    },
    Bug {
        name: "the failures of long ago are not written",
        plants: "a dead letter says that it failed eight times at most",
        mistake: Mistake::Before(
            "let (nacks, expiries, crashes) = if planted!() { (0, 0, 0) } else { (nacks, expiries, crashes) };",
        ),
        level: Level::Library("a_history_keeps_the_last_attempts_and_the_beginnings_of_their_texts"),
    },
];
