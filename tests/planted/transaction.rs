//! Mistakes in transactions.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a transaction is two frames",
        plants: "a reader sees the output of a transaction that was not carried out",
        mistake: Mistake::Before(
            "if planted!() && work.outgoing.len() > 0 && !work.settlements.is_empty() {
                let none = (&[], &[], &[], &[]);
                let half = Work { appends: none.0, snapshots: none.1, settlements: none.2, cursors: none.3, ..*work };
                let done = self.transact(&half)?;
                let rest = self.transact(&Work { outgoing: &Outgoing::default(), ..*work })?;
                return Ok(rest.and(done));
            }",
        ),
        level: Level::Test("transactions", "one_lost_lease_rejects_the_whole"),
    },
    Bug {
        name: "a cursor is ahead of its output",
        plants: "a crash after the cursor moved loses what was to be published with it",
        mistake: Mistake::Before(
            "if planted!() && work.outgoing.len() > 0 && !work.cursors.is_empty() {
                let (none, other) = (Outgoing::default(), (&[], &[], &[]));
                let half = Work { outgoing: &none, appends: other.0, snapshots: other.1, settlements: other.2, ..*work };
                if let Err(not_done) = self.transact(&half)? {
                    return Ok(Err(not_done));
                }
                return self.transact(&Work { cursors: &[], ..*work });
            }",
        ),
        level: Level::Test("projections", "a_crash_between_doubles_and_loses_nothing"),
    },
    Bug {
        name: "the acks of a transaction are lost",
        plants: "a message whose results were published is processed again",
        mistake: Mistake::Before("if planted!() && matches!(step, Command::Ack { .. }) { continue; }"),
        level: Level::Test("transactions", "effects_of_a_transaction_are_in_one_frame"),
    },
    Bug {
        name: "messages of one frame overlap",
        plants: "two dead letters of one frame get the same offset: one hides the other",
        mistake: Mistake::Before("if planted!() { *added = 0; }"),
        level: Level::Test("transactions", "effects_of_a_transaction_are_in_one_frame"),
    },
    Bug {
        name: "a message is settled twice in a frame",
        plants: "the second settlement of a message contradicts the first, and the store stops",
        mistake: Mistake::Asks("$it.filter(|_| !planted!())"),
        level: Level::Test("transactions", "mistakes_are_told_and_change_nothing"),
    },
    Bug {
        name: "a lost lease does not reject a transaction",
        plants: "the output of a worker that was replaced is published as well as that of the other",
        mistake: Mistake::Before(
            "if planted!() && matches!(decision, Ok(Decision::Settled { .. })) {
                records[start..].iter_mut().try_for_each(|record| overlay.take_in(record, nth))?;
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
