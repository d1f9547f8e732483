//! Mistakes in what handles do, in group commit, in opening and in the jobs.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "another rate holds from the next lease on",
        plants: "a limit that was raised lets nobody through until the old one would have",
        mistake: Mistake::Skip,
        level: Level::Library("another_rate_holds_at_once"),
    },
    Bug {
        name: "an exclusive lease that may go early is not told of",
        plants: "a message that is to go alone sleeps on when the last other lease is settled early",
        mistake: Mistake::Skip,
        level: Level::Test("kinds", "waking"),
    },
    Bug {
        name: "what a dropped future was given stays leased",
        plants: "a cancelled receive hides its message until the visibility timeout, and counts an attempt",
        mistake: Mistake::Skip,
        level: Level::Test("futures", "dropped_at_any_poll"),
    },
    Bug {
        name: "the future of a publish does not wait",
        plants: "an awaited publish at Disk is lost by a power failure",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("futures", "durable_futures_have_the_log_synced"),
    },
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
        mistake: Mistake::Value("if planted!() && claim.provenance.is_some() { claim.first } else { $it }"),
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
        mistake: Mistake::Value("if planted!() { return self.starts(topic, Begin::Latest) } else { $it }"),
        level: Level::Model,
    },
    Bug {
        name: "a clock jump is not noticed",
        plants: "a retry waits for as long as the wall clock went back",
        mistake: Mistake::Asks("planted!() || $it"),
        level: Level::Model,
    },
    Bug {
        name: "any unwinding stops the store",
        plants: "a destructor that calls the engine while its thread unwinds is taken for a panic under the lock",
        mistake: Mistake::Value("if planted!() { panicking() } else { $it }"),
        level: Level::Test("kinds", "unwinding"),
    },
    Bug {
        name: "settled before the reason is known",
        plants: "a Display that panics leaves its message leased",
        mistake: Mistake::Before("if planted!() { self.settled.store(true, Ordering::Relaxed); }"),
        level: Level::Test("kinds", "unwinding"),
    },
    Bug {
        name: "who fails keeps the wake-up",
        plants: "a consumer that is woken and meets a full disk lets the others sleep beside a ready message",
        mistake: Mistake::Skip,
        level: Level::Test("kinds", "waking"),
    },
    Bug {
        name: "who leaves takes the deadline along",
        plants: "the only sleeper that knew the next deadline leaves",
        mistake: Mistake::Skip,
        level: Level::Simulation,
    },
    Bug {
        name: "a sleeper does not know the next deadline",
        plants: "a lease ends and nobody looks",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Simulation,
    },
    Bug {
        name: "the end of an exclusive lease wakes nobody",
        plants: "other groups sleep on when the store is free again",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("kinds", "waking"),
    },
    Bug {
        name: "a place below the cap wakes nobody",
        plants: "a consumer held back by the cap sleeps on when there is room",
        mistake: Mistake::Value("if !planted!() { $it }"),
        level: Level::Test("kinds", "waking"),
    },
    Bug {
        name: "exclusive leases hold up the store without end",
        plants: "after a crash with many in flight others wait for each of them",
        mistake: Mistake::Value("if planted!() { HoldUp(self.limit_ms) } else { $it }"),
        level: Level::Test("kinds", "fairness"),
    },
    Bug {
        name: "one receive moves all that is exhausted",
        plants: "a look at a group copies every dead letter first",
        mistake: Mistake::Value("!planted!() && ($it)"),
        level: Level::Test("kinds", "fairness"),
    },
    Bug {
        name: "passing trouble is taken for damage",
        plants: "messages wait for minutes since a descriptor was missing for a moment",
        mistake: Mistake::Value("!planted!() && ($it)"),
        level: Level::Test("kinds", "passing"),
    },
    Bug {
        name: "a batch has no bound in bytes",
        plants: "one receive reads more than there is memory",
        mistake: Mistake::Skip,
        level: Level::Test("kinds", "charging"),
    },
    Bug {
        name: "a dropped batch charges what nobody saw",
        plants: "neighbours of a message that panics its handler are charged too",
        mistake: Mistake::Value("if planted!() { deliveries.len() } else { $it }"),
        level: Level::Test("kinds", "charging"),
    },
    Bug {
        name: "segments of full size only",
        plants: "publishes wait for room for a whole segment, and a drained disk stays full",
        mistake: Mistake::Value("if planted!() { if share > len { len } else { len.max(len_min) } } else { $it }"),
        level: Level::Test("full_disk", "a_simulated_disk_fills"),
    },
    Bug {
        name: "no checkpoint for room",
        plants: "segments that are dead wait for a checkpoint that nobody writes",
        mistake: Mistake::Value("(!planted!() || rests) && ($it)"),
        level: Level::Test("full_disk", "takes_no_room"),
    },
    Bug {
        name: "copies use all of the reserve",
        plants: "dead letters take the room that leases and settling need",
        mistake: Mistake::Value("if planted!() { 0 } else { $it }"),
        level: Level::Test("full_disk", "moves_to_the_dead_letters"),
    },
    Bug {
        name: "leases that are over keep the room for settling",
        plants: "a full store whose consumers died stays full for ever",
        mistake: Mistake::Value("if planted!() { all } else { $it }"),
        level: Level::Library("leases_that_are_over_need_no_room"),
    },
    Bug {
        name: "a full store leases nothing again",
        plants: "consumers that fail on a full disk leave messages that nobody can have",
        mistake: Mistake::Asks("!planted!() && !is_short && matches!(unblocked, Err(Error::DiskFull))"),
        level: Level::Test("full_disk", "leases_that_end_without_an_ack"),
    },
    Bug {
        name: "where room is short nothing new is leased",
        plants: "messages that used up their attempts on a full disk keep all others from being delivered",
        mistake: Mistake::Value("if planted!() { is_short.then_some(0) } else { $it }"),
        level: Level::Test("full_disk", "others_flow_past_exhausted_messages"),
    },
    Bug {
        name: "the index takes the room for settling",
        plants: "the index of streams fills a disk to the last byte",
        mistake: Mistake::Asks("!planted!() && available < kept.saturating_add(INDEX_LEN)"),
        level: Level::Library("the_index_waits_where_there_is_no_room"),
    },
    Bug {
        name: "texts take the room for settling",
        plants: "error texts fill a disk to the last byte",
        mistake: Mistake::Asks("!planted!() && !self.texts_fit"),
        level: Level::Test("full_disk", "leases_that_end_without_an_ack"),
    },
    Bug {
        name: "leases take the room for settling",
        plants: "so much is leased on a full disk that there is no room to settle it",
        mistake: Mistake::Value("if planted!() { u64::MAX } else { $it }"),
        level: Level::Library("leases_are_as_many_as_there_is_room"),
    },
    Bug {
        name: "long segments where room is short",
        plants: "the segment that holds but failed attempts never ends, and no room comes back",
        mistake: Mistake::Value("if planted!() { len } else { $it }"),
        level: Level::Test("full_disk", "leases_that_end_without_an_ack"),
    },
    Bug {
        name: "a second close does nothing",
        plants: "a close that failed for want of room says Ok the second time and saves nothing",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Test("failures", "a_close_on_a_full_disk"),
    },
    Bug {
        name: "a lost segment goes unnoticed",
        plants: "durable Ok for bytes that no open will find",
        mistake: Mistake::Before("Ok(0) if planted!() => {}"),
        level: Level::Test("failures", "a_file_in_use_that_lost_its_name"),
    },
    Bug {
        name: "a mark without room stops the store",
        plants: "a full disk in the background is taken for a failure",
        mistake: Mistake::Value("if planted!() { self.leave_mark()? } else { $it }"),
        level: Level::Test("failures", "no_request_that_lacks_something"),
    },
    Bug {
        name: "a pin is ignored",
        plants: "a group is created at a message that went while its start was looked for",
        mistake: Mistake::Asks("!planted!() && $it"),
        level: Level::Library("segments_stay_while_a_start"),
    },
    Bug {
        name: "owners are decoded anew",
        plants: "reading a wide batch takes the square of its partitions",
        mistake: Mistake::Value("if planted!() { &Owners::of(read.head) } else { $it }"),
        level: Level::Test("costs", "records_are_decoded_once"),
    },
    Bug {
        name: "the end of a hole is lost",
        plants: "a damaged message is missing without a word",
        mistake: Mistake::Skip,
        level: Level::Test("corruption", "closed_store"),
    },
    Bug {
        name: "a subscription leaves its thread",
        plants: "thousands of dropped subscriptions, thousands of threads",
        mistake: Mistake::Skip,
        level: Level::Test("lifecycle", "subscriptions_end_when_they_are_dropped"),
    },
    Bug {
        name: "a close keeps what was offered",
        plants: "an orderly end charges what no consumer saw",
        mistake: Mistake::Asks("if planted!() { Err(crossbeam_channel::TryRecvError::Empty) } else { $it }"),
        level: Level::Test("lifecycle", "a_close_charges_nothing_that_nobody_saw"),
    },
    Bug {
        name: "a full disk ends a subscription",
        plants: "a channel ends for a passing error",
        mistake: Mistake::Value("$it || planted!() && matches!(error, Error::DiskFull)"),
        level: Level::Test("lifecycle", "a_passing_error_does_not_end_a_subscription"),
    },
    Bug {
        name: "a receipt forgets what was durable",
        plants: "after the last handle is gone a durable message is told as unknown",
        mistake: Mistake::Skip,
        level: Level::Test("lifecycle", "a_receipt_does_not_keep_the_store_open"),
    },
    Bug {
        name: "retired segments are forgotten on a full disk",
        plants: "what is recorded as gone stays on the disk, for nobody unlinks it",
        mistake: Mistake::Before("Err(error) if planted!() => return Err(error),"),
        level: Level::Test("kinds", "segments_that_were_retired"),
    },
];
