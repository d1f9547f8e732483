//! Mistakes in what waits for what.

use crate::seam::Mistake;
use crate::{Bug, Level};

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a head that fails frees its key",
        plants: "the next of a key is delivered while the one before it waits for its retry",
        mistake: Mistake::Before(
            "if planted!() && entry.lease().is_none() { let by = (self.data.options.ordering, self.data.options.max_in_flight_per_key); self.order.settled(by, &mut self.data.keys, (cursor, offset)); }",
        ),
        level: Level::Test("scenarios", "files::order_nack"),
    },
    Bug {
        name: "an expired head frees its key",
        plants: "the next of a key is delivered because the lease of the one before it has ended",
        mistake: Mistake::Before(
            "if planted!() && group.entries.iter().any(|(_, entry)| entry.lease().is_some_and(|lease| lease.until <= inputs.mono)) { let next = group.entries.iter().find(|(_, entry)| entry.parked().is_some()).map(|(at, _)| *at); return grant.push_all(next.into_iter(), records); }",
        ),
        level: Level::Test("scenarios", "files::order_expiry"),
    },
    Bug {
        name: "a restart forgets the keys in flight",
        plants: "after a restart the next of a key is delivered beside the one that was out",
        mistake: Mistake::Value("if planted!() {} else { $it }"),
        level: Level::Test("scenarios", "files::order_crash"),
    },
    Bug {
        name: "a checkpoint forgets what waits",
        plants: "after a restart all that waited is delivered at once",
        mistake: Mistake::Value(
            "if planted!() { Phase::Ready { turn: last.next_turn(reader, follows)? } } else { $it }",
        ),
        level: Level::Test("scenarios", "files::order_close"),
    },
    Bug {
        name: "a batch takes two of a key",
        plants: "a batch holds messages that wait for each other",
        mistake: Mistake::Value(
            "line.map_or(0, |line| line.room(data.options.max_in_flight_per_key) + u32::from(planted!()))",
        ),
        level: Level::Test("scenarios", "files::order_batch"),
    },
    Bug {
        name: "the next of a free key stays behind",
        plants: "a key is never delivered again once its first message is acked",
        mistake: Mistake::Skip,
        level: Level::Test("scenarios", "files::order_ack"),
    },
    Bug {
        name: "a settled message keeps its key",
        plants: "a key is blocked for ever by a message that is done",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Test("scenarios", "files::order_reject"),
    },
    Bug {
        name: "a redriven message goes last",
        plants: "a message that was repaired is delivered behind those that wait for it",
        mistake: Mistake::Value("if planted!() { true } else { $it }"),
        level: Level::Test("scenarios", "files::order_redrive"),
    },
    Bug {
        name: "a key is free in each partition",
        plants: "messages of a key in two partitions are delivered beside each other",
        mistake: Mistake::Value(
            "{ let key = $it; if planted!() { key.map(|key| KeyHash(key.0 ^ u64::from(cursor))) } else { key } }",
        ),
        level: Level::Test("scenarios", "files::order_over_partitions"),
    },
    Bug {
        name: "messages without a key wait for each other",
        plants: "one slow message without a key stops all others without one",
        mistake: Mistake::Value(
            "if planted!() { Self(message::key_hash(key.unwrap_or_default()).max(1)) } else { $it }",
        ),
        level: Level::Test("scenarios", "files::order_keyless"),
    },
    Bug {
        name: "only one of a key is ever in flight",
        plants: "a number per key changes nothing",
        mistake: Mistake::Value("if planted!() { 1u32.saturating_sub(self.in_flight) } else { $it }"),
        level: Level::Test("scenarios", "files::order_in_flight"),
    },
    Bug {
        name: "a partition has more in flight than it may",
        plants: "order by partition is order of first deliveries only",
        mistake: Mistake::Value("if planted!() { u32::MAX } else { $it }"),
        level: Level::Test("scenarios", "files::order_by_partition"),
    },
    Bug {
        name: "a number per key is taken without an order",
        plants: "somebody believes that a limit holds which does nothing",
        mistake: Mistake::Skip,
        level: Level::Test("scenarios", "files::order_options"),
    },
    Bug {
        name: "a successor is not woken",
        plants: "a consumer sleeps on although the message that it waits for became ready",
        mistake: Mistake::Value(
            "if planted!() { self.group(group).is_some_and(|group| group.is_at_cap()) } else { $it }",
        ),
        level: Level::Simulation,
    },
    Bug {
        name: "a hungry key is not seen",
        plants: "messages that were only counted are never delivered",
        mistake: Mistake::Skip,
        level: Level::Library("beyond_a_limit_messages_are_only_counted"),
    },
    Bug {
        name: "a key that is counted goes on in its line",
        plants: "a message overtakes those of its key that are only counted",
        mistake: Mistake::Instead(
            "if planted!() { *is_counted |= is_full && (is_blocked || of_key > 0); } else { $it }",
        ),
        level: Level::Library("nothing_overtakes_what_is_counted"),
    },
    Bug {
        name: "a recalled message is counted on",
        plants: "a group says that it has messages left which it has settled",
        mistake: Mistake::Value("if planted!() { run.count } else { $it }"),
        level: Level::Library("beyond_a_limit_messages_are_only_counted"),
    },
    Bug {
        name: "a checkpoint forgets what is counted",
        plants: "messages that wait are lost when the store is opened again",
        mistake: Mistake::Before("if planted!() { let _ = out.pop(); out.push(0); return; }"),
        level: Level::Simulation,
    },
    Bug {
        name: "what is counted counts as settled",
        plants: "a segment goes with messages that wait for others of their key",
        mistake: Mistake::Value("if planted!() { None } else { $it }"),
        level: Level::Library("beyond_a_limit_messages_are_only_counted"),
    },
    Bug {
        name: "a call that does not wait looks without end",
        plants: "a look for a message takes as long as it takes to read a backlog",
        mistake: Mistake::Value("!planted!() && ($it)"),
        level: Level::Test("order", "a_call_that_does_not_wait_looks_at_so_many"),
    },
    Bug {
        name: "passing trouble hides a key",
        plants: "for want of a descriptor a message is delivered beside the one before it",
        mistake: Mistake::Asks("!planted!() && ($it)"),
        level: Level::Test("kinds", "a_key_that_cannot_be_read_for_a_moment_is_read_again"),
    },
];
