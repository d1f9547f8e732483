//! Acks, releases, and messages that cannot be read.

use crate::state::tests::*;

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
    let reject = Command::Reject { group: KITCHEN, held: first.held, text: "", moving: HERE };
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
