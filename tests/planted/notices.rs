//! Mistakes in notices of dead letters.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "notices of notices",
        plants: "a group whose notices go to its own topic dead-letters one after another without end",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("notices", "a_notice_that_dies_makes_no_other"),
    },
    Bug {
        name: "a notice is lost",
        plants: "a message becomes a dead letter and its group's topic for notices is not told",
        mistake: Mistake::Before("if planted!() { return Ok(MoveNotice::none(Notice::Never)); }"),
        level: Level::Model,
    },
    Bug {
        name: "a notice without its move",
        plants: "a notice is published before its move: after a crash in between there is one of a message that lives",
        mistake: Mistake::Before(
            "if planted!() && let Notice::Into(partition) = made.notice {
                let alone = Outgoing::default().with_others(&[], &parts[1..])?;
                let publish = Command::Publish { runs: &[(partition, 1)], ids: &[], delays: &[], uniques: &[], sequence: None };
                let _published = self.submit(&publish, alone.parts(), crate::engine::deliver::settle::end_of)?;
                return self.submit_copy(&command(Notice::Never), moved.part());
            }",
        ),
        level: Level::Test("notices", "g10_a_move_and_its_notice_survive_together"),
    },
    Bug {
        name: "a notice takes room of its own",
        plants: "on a full disk nothing becomes a dead letter where a notice is asked for",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("notices", "a_full_store_tells_of_its_moves"),
    },
];
