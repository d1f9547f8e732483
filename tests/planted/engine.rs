//! Mistakes in what handles do, in group commit, in opening and in the jobs.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "ack before the sync",
        plants: "a promise is made before the sync that it needs",
        mistake: Mistake::Asks("if planted!() { Ok(job.upto) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "a failed sync counts as done",
        plants: "waiters of a sync that failed get Ok",
        mistake: Mistake::Before(
            "Err(_) if planted!() => {
                self.lock_core().appender.synced(job.upto);
                self.commit.watermark.store(job.upto.0, Ordering::Release);
            }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "a stopped store goes on",
        plants: "after a failed sync the next one is believed",
        mistake: Mistake::Before("_ if planted!() => Ok(()),"),
        level: Level::Simulation,
    },
    Bug {
        name: "publish does not wait",
        plants: "a publish at Disk returns before its sync",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "durable ack does not wait",
        plants: "a durable ack returns before its sync",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "shown before durable",
        plants: "messages above the watermark are delivered by a store opened at Disk: phantoms",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "the last copy stays hidden",
        plants: "a dead letter that was moved is not shown",
        mistake: Mistake::Value("if planted!() { (*partition, *offset) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "leases are not recorded",
        plants: "the lease record comes after the delivery, or not at all; the attempt is not persisted",
        mistake: Mistake::Instead(
            "if planted!() {
            let kept: Vec<_> = self.records.iter().filter(|r| !matches!(r, Record::Leased { .. })).cloned().collect();
            codec::encode(&kept, &mut self.head);
        } else { $it }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "the opening is not recorded",
        plants: "a process appends without saying that it began: leases of the dead one live on",
        mistake: Mistake::Asks("($it).as_ref().filter(|_| !planted!())"),
        level: Level::Simulation,
    },
    Bug {
        name: "leases by the wall clock",
        plants: "a jump of the wall clock ends leases",
        mistake: Mistake::Value("if planted!() { crate::ids::MonoMs(self.clock.wall().0) } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "unlinked before recorded",
        plants: "a segment goes before the record of its retirement is durable",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "replay from before the checkpoint",
        plants: "what the checkpoint holds is applied again",
        mistake: Mistake::Asks("planted!() || ($it)"),
        level: Level::Simulation,
    },
    Bug {
        name: "only the newest segment is replayed",
        plants: "replay starts too late",
        mistake: Mistake::Asks("$it.iter().skip(if planted!() { $it.len().saturating_sub(1) } else { 0 })"),
        level: Level::Simulation,
    },
    Bug {
        name: "a receipt names another message",
        plants: "the sixth message of a batch gets the id of the seventh",
        mistake: Mistake::Before(
            "let offset = if planted!() { offset.saturating_add(u64::from(nth == 5)) } else { offset };",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "a group begins at the end",
        plants: "a start at the earliest message reads the latest",
        mistake: Mistake::Value(
            "if planted!() { Ok(self.look_at_each(topic, |core, partition, _| core.state.partition_end(partition))) } else { $it }",
        ),
        level: Level::Model,
    },
    Bug {
        name: "a clock jump is not noticed",
        plants: "a retry waits for as long as the wall clock went back",
        mistake: Mistake::Asks("planted!() || $it"),
        level: Level::Model,
    },
];
