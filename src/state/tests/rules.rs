//! Handing out and settling.

use super::*;
use crate::limits::DURATION_MS_MAX;
use crate::state::query::Deadline;
use std::collections::BTreeSet;

#[test]
fn first_deliveries_go_out_in_offset_order() {
    let mut world = World::with(1, options());
    world.publish(0, 3);
    let first = world.lease_one(KITCHEN);
    world.nack(KITCHEN, first.held, Some(5_000), "").unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 1)]);
    world.publish(0, 1);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 2), (0, 3)]);
    assert_eq!(world.lease(KITCHEN, 9), []);
}

#[test]
fn partitions_take_turns() {
    let mut world = World::with(3, options());
    (0..3).for_each(|partition| world.publish(partition, 10));
    let order: Vec<_> = (0..7).map(|_| world.lease_one(KITCHEN).at()).collect();
    assert_eq!(order, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]);
    // A batch goes through a partition before the next one, and the next batch begins after it.
    assert_eq!(
        world.lease(KITCHEN, 10).iter().map(|lent| lent.at().0).collect::<Vec<_>>(),
        [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    );
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 3));
}

#[test]
fn a_batch_is_one_record_for_each_run() {
    let mut world = World::with(2, options());
    (0..2).for_each(|partition| world.publish(partition, 100));
    let (_, records) = world.run(Command::Lease { group: KITCHEN, max: 150, pass_exhausted: false }).unwrap();
    assert_eq!(records.len(), 2);
    world.advance(TIMEOUT_MS);
    let (_, records) = world.run(Command::Lease { group: KITCHEN, max: 160, pass_exhausted: false }).unwrap();
    assert!(matches!(records[0], Record::Leased { count: 100, attempt: 2, time: WallMs(1_000_001_000), .. }));
    assert!(matches!(records[1], Record::Leased { count: 50, attempt: 2, .. }));
    assert!(matches!(records[2], Record::Leased { count: 10, attempt: 1, time: WallMs(0), .. }));
    assert_eq!(records.len(), 3);
}

#[test]
fn nothing_is_leased_to_nobody_and_nothing_from_nowhere() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    assert_eq!(world.try_lease(KITCHEN, 0), (Decision::Nothing, vec![]));
    assert_eq!(
        world.run(Command::Lease { group: GroupId(1), max: 1, pass_exhausted: false }),
        Err(Rejection::UnknownGroup)
    );
}

#[test]
fn g4_what_is_not_visible_is_not_leased() {
    let mut world = World::with(2, options());
    world.publish(0, 3);
    world.publish(1, 3);
    world.visible = Some(ends(&[2]));
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0), (0, 1)]);
    assert_eq!(world.counts(KITCHEN).ready, 0);
    assert_eq!(world.lease(KITCHEN, 9), []);
    world.visible = Some(ends(&[3, 9]));
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(1, 0), (1, 1), (1, 2), (0, 2)]);
}

#[test]
fn g8_a_message_has_one_holder() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let first = world.lease_one(KITCHEN);
    world.advance(TIMEOUT_MS - 1);
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(1);
    let second = world.lease_one(KITCHEN);
    assert_eq!((second.at(), second.attempt), ((0, 0), 2));
    assert_eq!(world.ack(KITCHEN, &[first.held]), [0]);
    assert_eq!(world.nack(KITCHEN, first.held, None, ""), Err(Rejection::LeaseLost));
    let reject = Command::Reject { group: KITCHEN, held: first.held, text: "", published: HERE };
    assert_eq!(world.run(reject), Err(Rejection::LeaseLost));
    let extend = Command::Extend { group: KITCHEN, held: first.held, for_ms: 9 };
    assert_eq!(world.run(extend), Err(Rejection::LeaseLost));
    assert_eq!(world.release(KITCHEN, first.held), Err(Rejection::LeaseLost));
    assert_eq!(world.run(Command::Unreadable { group: KITCHEN, held: first.held }), Err(Rejection::LeaseLost));
    assert_eq!(world.ack(KITCHEN, &[second.held]), []);
    assert_eq!(world.ack(KITCHEN, &[second.held]), [0]);
}

#[test]
fn past_its_end_a_lease_settles_until_the_message_is_taken() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.advance(10 * TIMEOUT_MS);
    assert_eq!(world.ack(KITCHEN, &[lent[0].held]), []);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 1)]);
    assert_eq!(world.ack(KITCHEN, &[lent[1].held]), [0]);
}

/// A clock may be read up to `slack_ms` late: what is to last a while lasts that much longer.
#[test]
fn deadlines_are_counted_from_the_latest_time_it_may_be() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    world.slack_ms = 3;
    let lent = world.lease_one(KITCHEN);
    assert_eq!(lent.until, MonoMs(world.mono + 3 + TIMEOUT_MS));
    let records = world.nack(KITCHEN, lent.held, Some(50), "").unwrap();
    let due = records.iter().find_map(|record| if let Record::Nacked { due, .. } = record { Some(*due) } else { None });
    assert_eq!(due, Some(WallMs(world.wall + 3 + 50)));
}

#[test]
fn no_token_outlives_its_process() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let before = world.lease_one(KITCHEN);
    world.lsn = before.held.token.lsn.0;
    world.open(false);
    // The log lost its tail, so the new lease stands at the LSN of the old one.
    world.lsn = before.held.token.lsn.0;
    let after = world.lease_one(KITCHEN);
    assert_eq!(before.held.token.lsn, after.held.token.lsn);
    assert_eq!(world.ack(KITCHEN, &[before.held]), [0]);
    assert_eq!(world.ack(KITCHEN, &[after.held]), []);
}

#[test]
fn an_ack_merges_neighbours_and_reports_dead_tokens() {
    let mut world = World::with(2, options());
    world.publish(0, 6);
    world.publish(1, 2);
    let lent: Vec<Held> = world.lease(KITCHEN, 8).iter().map(|lent| lent.held).collect();
    world.ack(KITCHEN, &[lent[2]]);
    let (decision, records) = world.run(Command::Ack { group: KITCHEN, held: &runs_of(&lent) }).unwrap();
    assert_eq!(decision, Decision::Settled { lost: vec![2] });
    let runs: Vec<_> = records
        .iter()
        .map(|record| match record {
            Record::Acked { partition, first, count, .. } => (partition.0, first.0, *count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(runs, [(0, 0, 2), (0, 3, 3), (1, 0, 2)]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(6));
}

#[test]
fn an_ack_in_any_order_and_of_a_message_twice_counts_once() {
    let mut world = World::with(1, options());
    world.publish(0, 4);
    let lent: Vec<Held> = world.lease(KITCHEN, 4).iter().map(|lent| lent.held).collect();
    let dead = Held { token: Token { epoch: Epoch(9), lsn: Lsn(9) }, ..lent[1] };
    let mixed = [lent[3], lent[3], lent[2], dead, lent[1], lent[1]];
    let (decision, records) = world.run(Command::Ack { group: KITCHEN, held: &runs_of(&mixed) }).unwrap();
    assert_eq!(decision, Decision::Settled { lost: vec![1, 3, 5] });
    assert_eq!(records.len(), 1);
    assert_eq!(world.counts(KITCHEN), Totals { leased: 1, lag: 1, ..Totals::default() });
}

#[test]
fn of_a_run_those_are_acked_that_are_held() {
    let mut world = World::with(1, options());
    world.publish(0, 10);
    let lent: Vec<Held> = world.lease(KITCHEN, 10).iter().map(|lent| lent.held).collect();
    assert_eq!(world.ack(KITCHEN, &[lent[0], lent[3], lent[4], lent[9]]), []);
    let run = |first: usize, count| HeldRun { first: lent[first], count };
    let all = [run(0, 10)];
    let (decision, records) = world.run(Command::Ack { group: KITCHEN, held: &all }).unwrap();
    assert_eq!(decision, Decision::Settled { lost: vec![0, 3, 4, 9] });
    assert_eq!(records.len(), 2);
    assert_eq!(world.counts(KITCHEN), Totals::default());

    world.publish(0, 5);
    let lent: Vec<Held> = world.lease(KITCHEN, 5).iter().map(|lent| lent.held).collect();
    let overlapping = [HeldRun { first: lent[2], count: 3 }, HeldRun { first: lent[1], count: 2 }];
    let (decision, _) = world.run(Command::Ack { group: KITCHEN, held: &overlapping }).unwrap();
    assert_eq!(decision, Decision::Settled { lost: vec![4] });
    assert_eq!(world.counts(KITCHEN).leased, 1);
}

#[test]
fn a_failed_message_waits_and_takes_turns_with_new_ones() {
    let mut world = World::with(1, options());
    world.publish(0, 5);
    let mut others = Vec::new();
    for (attempt, delay) in [(1, 100), (2, 200), (3, 400)] {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.at(), lent.attempt), ((0, 0), attempt));
        world.nack(KITCHEN, lent.held, None, "no salt").unwrap();
        let due = WallMs(world.wall + delay);
        assert_eq!(world.state.next_deadline(KITCHEN, &world.inputs()).wall, Some(due));
        world.advance(delay - 1);
        assert_eq!(world.counts(KITCHEN).waiting, 1);
        let other = world.lease_one(KITCHEN);
        assert_eq!(other.at().1, u64::from(attempt), "not yet due, so a new one goes first");
        others.push(other.held);
        world.advance(1);
    }
    world.ack(KITCHEN, &others);
}

#[test]
fn g23_what_fails_at_once_for_ever_keeps_nothing_from_being_delivered() {
    for max_attempts in [0, 1_000] {
        let mut world = World::with(2, GroupOptions { max_attempts, ..options() });
        world.publish(0, 10);
        world.publish(1, 10);
        let mut seen = BTreeSet::new();
        // The bad message comes back at most after each other one.
        for _ in 0..2 * 20 {
            let lent = world.lease_one(KITCHEN);
            if lent.at() == (0, 0) {
                world.nack(KITCHEN, lent.held, Some(0), "no").unwrap();
            } else {
                world.ack(KITCHEN, &[lent.held]);
            }
            seen.insert(lent.at());
        }
        assert_eq!(seen.len(), 20);
        // In batches too, where all the room could go to what failed before.
        world.publish(0, 10);
        for _ in 0..4 {
            let lent = world.lease(KITCHEN, 5);
            for lent in lent {
                seen.insert(lent.at());
                world.nack(KITCHEN, lent.held, Some(0), "no").unwrap();
            }
        }
        assert_eq!(seen.len(), 30);
    }
}

#[test]
fn without_a_delay_a_message_is_ready_at_once_whatever_the_clock_says() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    world.wall = 0;
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 0));
}

#[test]
fn what_is_ready_goes_by_age_not_by_offset() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    world.nack(KITCHEN, lent[0].held, Some(0), "").unwrap();
    let order: Vec<_> = (0..2).map(|_| world.lease_one(KITCHEN).at().1).collect();
    assert_eq!(order, [1, 0]);
}

#[test]
fn a_delay_is_bounded() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let held = world.lease_one(KITCHEN).held;
    assert!(matches!(world.nack(KITCHEN, held, Some(DURATION_MS_MAX + 1), ""), Err(Rejection::Invalid(_))));
    let extend = Command::Extend { group: KITCHEN, held, for_ms: DURATION_MS_MAX + 1 };
    assert!(matches!(world.run(extend), Err(Rejection::Invalid(_))));
    world.nack(KITCHEN, held, Some(DURATION_MS_MAX), "").unwrap();
}

#[test]
fn an_extended_lease_lasts_longer_and_never_shorter() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    let extend = |for_ms| Command::Extend { group: KITCHEN, held: lent[0].held, for_ms };
    assert_eq!(world.run(extend(TIMEOUT_MS)), Ok((Decision::Done, vec![])));
    assert_eq!(world.run(extend(0)), Ok((Decision::Done, vec![])));
    assert_eq!(world.run(extend(3 * TIMEOUT_MS)).unwrap().1.len(), 1);
    world.advance(TIMEOUT_MS);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 1)]);
    world.advance(2 * TIMEOUT_MS - 1);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 1)]);
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 0)]);
}

#[test]
fn a_lease_that_ended_may_go_on_if_nobody_took_the_message() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let lent = world.lease_one(KITCHEN);
    world.advance(5 * TIMEOUT_MS);
    world.run(Command::Extend { group: KITCHEN, held: lent.held, for_ms: 10 }).unwrap();
    assert_eq!(world.lease(KITCHEN, 1), []);
    assert_eq!(world.ack(KITCHEN, &[lent.held]), []);
}

#[test]
fn a_released_message_gets_its_attempt_back() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    world.publish(0, 1);
    for _ in 0..3 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.at(), lent.attempt), ((0, 0), 1));
        world.release(KITCHEN, lent.held).unwrap();
        assert_eq!(world.counts(KITCHEN).ready, 1);
    }
    // Many at once, one of them twice, and one that is lost.
    world.publish(0, 4);
    let held: Vec<Held> = world.lease(KITCHEN, 5).iter().map(|lent| lent.held).collect();
    world.ack(KITCHEN, &held[1..2]);
    let runs = runs_of(&[held[0], held[1], held[2], held[2], held[4]]);
    let (decision, records) = world.run(Command::Release { group: KITCHEN, held: &runs }).unwrap();
    assert_eq!((decision, records.len()), (Decision::Settled { lost: vec![1, 3] }, 3));
    assert_eq!((world.counts(KITCHEN).ready, world.counts(KITCHEN).leased), (3, 1));
}

#[test]
fn an_unreadable_message_waits_uncharged_and_others_flow_past() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    world.publish(0, 2);
    let lent = world.lease_one(KITCHEN);
    world.run(Command::Unreadable { group: KITCHEN, held: lent.held }).unwrap();
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 1));
    world.advance(options().backoff.max_ms - 1);
    let counts = world.counts(KITCHEN);
    assert_eq!((counts.waiting, counts.exhausted), (1, 1), "the other one is exhausted by now");
    world.advance(1);
    world.give_up(KITCHEN, (0, 1)).unwrap();
    let again = world.lease_one(KITCHEN);
    assert_eq!((again.at(), again.attempt), ((0, 0), 1));
}

#[test]
fn g15_at_its_cap_a_group_leases_no_new_message_but_retries() {
    let mut world = World::with(1, GroupOptions { max_outstanding: 3, ..options() });
    world.publish(0, 10);
    let lent = world.lease(KITCHEN, 10);
    assert_eq!(lent.len(), 3);
    assert!(world.counts(KITCHEN).at_cap);
    assert_eq!(world.lease(KITCHEN, 10), []);
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 10)), [(0, 1)]);
    world.ack(KITCHEN, &[lent[0].held]);
    assert_eq!(places(&world.lease(KITCHEN, 10)), [(0, 3)]);
}

#[test]
fn every_group_gets_every_message_from_its_start_on() {
    let mut world = World::with(2, options());
    world.publish(0, 3);
    world.publish(1, 1);
    let starts = [Offset(2), Offset(1)];
    let late = Command::CreateGroup { topic: TopicId(0), name: "late", options: &options(), starts: &starts };
    world.run(late).unwrap();
    world.publish(1, 1);
    assert_eq!(places(&world.lease(GroupId(1), 9)), [(0, 2), (1, 1)]);
    assert_eq!(world.lease(KITCHEN, 9).len(), 5);
    assert_eq!(world.counts(GroupId(1)).lag, 2);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
}

#[test]
fn a_partition_is_settled_up_to_the_slowest_group() {
    let mut world = World::with(1, options());
    let slow = world.group("slow", &options());
    world.publish(0, 5);
    let fast: Vec<_> = world.lease(KITCHEN, 5).iter().map(|lent| lent.held).collect();
    world.ack(KITCHEN, &fast);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
    let lent: Vec<_> = world.lease(slow, 5).iter().map(|lent| lent.held).collect();
    world.ack(slow, &[lent[0], lent[1], lent[3]]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(2));
    world.ack(slow, &[lent[2]]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(4));
    world.run(Command::CreateTopic { name: "nobody", partitions: 1 }).unwrap();
    let partition = world.state.topic(TopicId(1)).unwrap().first;
    world.publish(partition.0, 3);
    assert_eq!(world.state.settled_before(partition), Offset(0), "a topic without groups keeps everything");
}

#[test]
fn counts_say_how_a_group_stands() {
    let mut world = World::with(2, options());
    world.publish(0, 5);
    world.publish(1, 1);
    let lent = world.lease(KITCHEN, 4);
    world.nack(KITCHEN, lent[0].held, Some(50), "").unwrap();
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    let counts = world.counts(KITCHEN);
    assert_eq!((counts.ready, counts.leased, counts.waiting, counts.lag), (3, 2, 1, 6));
    let of = |world: &World| {
        let (state, inputs) = (world.state.snapshot(), world.inputs());
        state.counts(world.state.group(KITCHEN).unwrap(), &inputs).collect::<Vec<_>>()
    };
    let all = of(&world);
    let partitions: Vec<_> = all.iter().map(|(partition, _)| partition.0).collect();
    assert_eq!(partitions, [0, 1, 2], "the dead letters are no part of the subscription");
    let (zero, one) = (all[0].1, all[1].1);
    assert_eq!((zero.ready_since, one.ready_since), (Some(WallMs(world.wall)), None), "since the nack");
    assert_eq!((zero.first_ready, one.first_ready), (Some(Offset(4)), Some(Offset(0))));
    assert_eq!(zero.first_unsettled, Some(Offset(0)));
    assert_eq!((zero.lag, one.lag), (5, 1));
    world.advance(TIMEOUT_MS);
    let counts = world.counts(KITCHEN);
    assert_eq!((counts.ready, counts.leased, counts.waiting), (6, 0, 0));
}

#[test]
fn the_next_deadline_is_ahead_and_the_first() {
    let mut world = World::with(1, options());
    let deadline = |world: &World| world.state.next_deadline(KITCHEN, &world.inputs());
    assert_eq!(deadline(&world), Deadline::default());
    world.publish(0, 3);
    let lent = world.lease(KITCHEN, 2);
    world.advance(10);
    world.lease(KITCHEN, 1);
    assert_eq!(deadline(&world).mono, Some(lent[0].until));
    world.run(Command::Extend { group: KITCHEN, held: lent[0].held, for_ms: 5_000 }).unwrap();
    world.nack(KITCHEN, lent[1].held, Some(700), "").unwrap();
    assert_eq!(
        deadline(&world),
        Deadline { mono: Some(lent[0].until.saturating_add(10)), wall: Some(WallMs(world.wall + 700)) }
    );
    world.advance(1_000);
    assert_eq!(deadline(&world), Deadline { mono: Some(MonoMs(5_010 + 5_000)), wall: None });
    assert_eq!(world.state.next_deadline(GroupId(7), &world.inputs()), Deadline::default());
}
