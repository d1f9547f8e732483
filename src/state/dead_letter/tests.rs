//! How dead letters come about, and what becomes of them.

use crate::state::tests::*;

#[test]
fn a_move_puts_its_copy_where_it_belongs_or_is_refused() {
    let mut world = situations();
    let (group, partition, retry, dead) = (KITCHEN, PartitionId(0), 1, 2);
    let dead_lettered = |offset, copy| Record::DeadLettered { group, partition, offset: Offset(offset), copy };
    let redriven = |dead_letter, copy| Record::Redriven { group, dead_letter: Offset(dead_letter), copy };
    let mut long = copy(dead, 0);
    let failure = AttemptFailure { cause: FailureCause::Crashed, time: WallMs(1), text: Box::default() };
    long.provenance.history = vec![failure; 9];
    let mut sent = copy(dead, 0);
    sent.provenance.origin.redrives = 17;
    // Not at the end; among what belongs to others; with too much.
    for copy in [copy(dead, 1), copy(retry, 0), copy(0, 5), copy(9, 0), long, sent] {
        world.refuses(dead_lettered(0, copy));
    }
    // Could have another attempt, or does not exist.
    world.refuses(dead_lettered(3, copy(dead, 0)));
    world.refuses(dead_lettered(9, copy(dead, 0)));
    world.refuses(redriven(0, copy(retry, 0)));
    world.state.apply(&dead_lettered(0, copy(dead, 0)), Lsn(world.lsn)).unwrap();
    assert_eq!(world.state.partition_end(PartitionId(dead)), Offset(1));
    world.refuses(dead_lettered(0, copy(dead, 1)));
    for copy in [copy(retry, 1), copy(dead, 1), copy(0, 4), copy(9, 0)] {
        world.refuses(redriven(0, copy));
    }
    world.refuses(redriven(1, copy(retry, 0)));
    world.state.apply(&redriven(0, copy(retry, 0)), Lsn(world.lsn)).unwrap();
    assert_eq!(world.state.partition_end(PartitionId(retry)), Offset(1));
    world.refuses(redriven(0, copy(retry, 1)));
    world.refuses(Record::Discarded { group, dead_letter: Offset(0) });
    assert_eq!(world.state.check(), []);
}

#[test]
fn g9_attempts_are_charged_at_hand_out_and_end_in_the_letters() {
    let mut world = World::with(1, GroupOptions { max_attempts: 3, ..options() });
    world.publish(0, 1);
    for attempt in 1..=3 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.at(), lent.attempt), ((0, 0), attempt));
        world.advance(TIMEOUT_MS + if attempt < 3 { options().backoff.max_ms } else { 0 });
    }
    world.publish(0, 1);
    let (decision, lent) = world.try_lease(KITCHEN, 5);
    assert_eq!(decision, Decision::Exhausted { partition: PartitionId(0), offset: Offset(0) });
    assert_eq!(lent, []);
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(provenance(&records).attempts, 3);
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Expired; 3]);
    assert_eq!(provenance(&records).history[2].time, WallMs(world.wall));
    assert_eq!(world.give_up(KITCHEN, (0, 0)), Err(Rejection::Stale));
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 1));
    assert_eq!(world.state.dead_letters(KITCHEN, Offset(0), 9), [Offset(0)]);
    assert_eq!(world.counts(KITCHEN).dead, 1);
}

#[test]
fn what_is_not_exhausted_is_not_given_up() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    world.publish(0, 2);
    assert_eq!(world.give_up(KITCHEN, (0, 0)), Err(Rejection::Stale), "never leased");
    let lent = world.lease_one(KITCHEN);
    assert_eq!(world.give_up(KITCHEN, (0, 0)), Err(Rejection::Stale), "leased");
    world.ack(KITCHEN, &[lent.held]);
    assert_eq!(world.give_up(KITCHEN, (0, 0)), Err(Rejection::Stale), "settled");
    assert_eq!(world.give_up(KITCHEN, (9, 0)), Err(Rejection::UnknownPartition));
}

#[test]
fn a_nack_of_the_last_attempt_is_a_move_to_the_letters() {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
    world.publish(0, 1);
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "first").unwrap();
    let lent = world.lease_one(KITCHEN);
    let records = world.nack(KITCHEN, lent.held, Some(0), "second").unwrap();
    assert!(matches!(records[..], [Record::DeadLettered { .. }]));
    let texts: Vec<_> = provenance(&records).history.iter().map(|failure| &*failure.text).collect();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(1));
    assert_eq!(world.counts(KITCHEN), Totals { dead: 1, ..Totals::default() });
}

#[test]
fn a_rejected_message_goes_to_the_letters_at_once() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let held = world.lease_one(KITCHEN).held;
    let reject = Command::Reject { group: KITCHEN, held, text: "inedible", moving: HERE };
    let (_, records) = world.run(reject).unwrap();
    let [failure] = &provenance(&records).history[..] else { panic!() };
    assert_eq!((failure.cause, &*failure.text), (FailureCause::Rejected, "inedible"));
    assert_eq!(world.counts(KITCHEN).dead, 1);
}

#[test]
fn g14_an_exhausted_message_that_cannot_be_moved_stays_and_others_flow_past() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    world.publish(0, 2);
    world.lease_one(KITCHEN);
    let postponed = Command::Postpone { at: (KITCHEN, PartitionId(0), Offset(0)) };
    assert_eq!(world.run(postponed), Err(Rejection::Stale), "leased");
    world.advance(TIMEOUT_MS);
    world.run(postponed).unwrap();
    assert_eq!(world.run(postponed), Err(Rejection::Stale), "postponed already");
    let other = world.lease_one(KITCHEN);
    assert_eq!(other.at(), (0, 1));
    world.ack(KITCHEN, &[other.held]);
    assert_eq!(world.counts(KITCHEN), Totals { exhausted: 1, lag: 1, ..Totals::default() });
    world.advance(options().backoff.max_ms);
    assert!(matches!(world.try_lease(KITCHEN, 1).0, Decision::Exhausted { .. }));
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Expired]);
}

#[test]
fn g10_a_redriven_letter_is_in_one_place_and_reaches_only_its_group() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    let other = world.group("other", &options());
    world.publish(0, 1);
    let held = world.lease_one(KITCHEN).held;
    let records = world.nack(KITCHEN, held, None, "burnt").unwrap();
    let provenance = provenance(&records).clone();
    let redrive = Command::Redrive { group: KITCHEN, dead_letter: Offset(0), to: None, provenance: &provenance };
    let (_, records) = world.run(redrive).unwrap();
    assert!(matches!(&records[0], Record::Redriven { copy, .. } if copy.provenance == provenance));
    assert_eq!(world.run(redrive), Err(Rejection::NoSuchDeadLetter));
    assert_eq!(world.state.dead_letters(KITCHEN, Offset(0), 9), []);
    let retry = world.state.group(KITCHEN).unwrap().retry;
    assert_eq!(world.state.partition_role(retry), Some(Role::Retry { group: KITCHEN }));
    let lent = world.lease_one(KITCHEN);
    assert_eq!((lent.at(), lent.attempt), ((retry.0, 0), 1));
    assert_eq!(world.state.settled_before(retry), Offset(0));
    world.ack(KITCHEN, &[lent.held]);
    assert_eq!(world.state.settled_before(retry), Offset(1));
    assert_eq!(places(&world.lease(other, 9)), [(0, 0)]);
}

#[test]
fn a_letter_can_be_redriven_to_any_topic_but_to_no_hidden_partition() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    let other = world.group("other", &options());
    world.run(Command::CreateTopic { name: "second", partitions: 2, options: TopicOptions::LEFT_OUT }).unwrap();
    world.publish(0, 1);
    let held = world.lease_one(KITCHEN).held;
    let records = world.nack(KITCHEN, held, None, "").unwrap();
    let provenance = provenance(&records).clone();
    let redrive =
        |to| Command::Redrive { group: KITCHEN, dead_letter: Offset(0), to: Some(to), provenance: &provenance };
    let foreign = world.state.group(other).unwrap().retry;
    let dead = world.state.group(KITCHEN).unwrap().dead();
    for to in [foreign, dead, PartitionId(99)] {
        assert_eq!(world.run(redrive(to)), Err(Rejection::UnknownPartition));
    }
    let to = world.state.topic(TopicId(1)).unwrap().first;
    world.run(redrive(to)).unwrap();
    assert_eq!(world.state.partition_end(to), Offset(1));
    assert_eq!(world.state.settled_before(dead), Offset(1));
}

#[test]
fn dead_letters_are_settled_in_any_order() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..options() });
    world.publish(0, 6);
    for lent in world.lease(KITCHEN, 6) {
        world.nack(KITCHEN, lent.held, None, "").unwrap();
    }
    let discard = |dead_letter| Command::Discard { group: KITCHEN, dead_letter: Offset(dead_letter) };
    for dead_letter in [4, 0, 2] {
        world.run(discard(dead_letter)).unwrap();
    }
    assert_eq!(world.run(discard(2)), Err(Rejection::NoSuchDeadLetter));
    assert_eq!(world.run(discard(6)), Err(Rejection::NoSuchDeadLetter));
    assert_eq!(world.state.dead_letters(KITCHEN, Offset(0), 9), [Offset(1), Offset(3), Offset(5)]);
    assert_eq!(world.state.dead_letters(KITCHEN, Offset(2), 1), [Offset(3)]);
    let dead = world.state.group(KITCHEN).unwrap().dead();
    assert_eq!(world.state.settled_before(dead), Offset(1));
    assert_eq!(world.counts(KITCHEN).dead, 3);
}
