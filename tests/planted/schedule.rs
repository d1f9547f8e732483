//! Mistakes in messages for later.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a scheduled message comes early",
        plants: "a comparison that is off by a millisecond",
        mistake: Mistake::Before("let store = if planted!() { store.saturating_add(1) } else { store };"),
        level: Level::Library("state::schedule"),
    },
    Bug {
        name: "a scheduled message comes again and again",
        plants: "the timer that fires is not taken off the list",
        mistake: Mistake::Skip,
        level: Level::Library("state::schedule"),
    },
    Bug {
        name: "a delay is not recorded",
        plants: "timers that are kept in memory alone: after a crash nothing comes",
        mistake: Mistake::Skip,
        level: Level::Test("schedule", "g21_what_is_scheduled_outlives_its_process"),
    },
    Bug {
        name: "a scheduled message holds no segment",
        plants: "the file of a message that waits for a year is unlinked",
        mistake: Mistake::Value("planted!() || $it"),
        level: Level::Test("schedule", "what_is_scheduled_keeps_its_own_segment"),
    },
    Bug {
        name: "what is due is not looked for",
        plants: "after a restart the timers are not started again",
        mistake: Mistake::Value("if planted!() { Vec::new() } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a delay begins by a clock that is behind",
        plants: "a coarse clock makes a delay shorter than it was asked for",
        mistake: Mistake::Value("if planted!() { self.store_time(inputs.steady) } else { $it }"),
        level: Level::Library("state::schedule"),
    },
    Bug {
        name: "a delay goes by the wall clock",
        plants: "a clock that is set back a day delays every reminder by a day",
        mistake: Mistake::Value("if planted!() { DueTime::Wall(inputs.wall.saturating_add(ms)) } else { $it }"),
        level: Level::Library("state::schedule"),
    },
    Bug {
        name: "a sleeper for due times is not woken",
        plants: "a message due in 10 ms comes when the timer thread wakes the next time, a second later",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("schedule", "g21_the_flusher_is_awake_when_a_message_is_due"),
    },
    Bug {
        name: "an id of another epoch will do",
        plants: "after a power failure an old id takes back a message that got the place of the lost one",
        mistake: Mistake::Value("if planted!() { found } else { $it }"),
        level: Level::Library("state::schedule"),
    },
    Bug {
        name: "what was taken back comes all the same",
        plants: "a reminder that was cancelled is sent all the same",
        mistake: Mistake::Before("if planted!() { return Err(Rejection::Stale); }"),
        level: Level::Test("schedule", "g21_whatever_happens_each_message_comes_once_and_never_early"),
    },
];
