//! Failures, delays, histories.

use crate::limits::{DURATION_MS_MAX, ERROR_TEXT_LEN_MAX, HISTORY_LEN, HISTORY_TEXT_BYTES_MAX};
use crate::state::lease::OutstandingEntry;
use crate::state::tests::*;

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
fn without_a_delay_a_message_is_ready_at_once_whatever_the_clock_says() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    world.wall = 0;
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 0));
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
fn without_a_limit_there_is_no_last_attempt() {
    let mut world = World::with(1, GroupOptions { max_attempts: 0, ..options() });
    world.publish(0, 1);
    for attempt in 1..=50 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.exclusive), (attempt, false));
        match attempt % 3 {
            0 => world.open(false),
            1 => world.advance(TIMEOUT_MS),
            _ => drop(world.nack(KITCHEN, lent.held, Some(0), "").unwrap()),
        }
        world.advance(options().backoff.max_ms);
    }
}

#[test]
fn a_history_keeps_the_last_attempts_and_the_beginnings_of_their_texts() {
    let mut world = World::with(1, GroupOptions { max_attempts: 12, ..options() });
    world.publish(0, 1);
    let mut records = Vec::new();
    for attempt in 1..=12 {
        let held = world.lease_one(KITCHEN).held;
        let text = format!("{attempt:03}{}", "é".repeat(200));
        records = world.nack(KITCHEN, held, Some(0), &text).unwrap();
    }
    let Provenance { history, earlier, attempts, .. } = provenance(&records);
    assert_eq!((*attempts, history.len()), (12, HISTORY_LEN));
    assert_eq!(*earlier, FailureCounts { nacks: 4, ..FailureCounts::default() }, "those before are counted");
    let numbers: Vec<_> = history.iter().map(|failure| &failure.text[..3]).collect();
    assert_eq!(numbers, ["005", "006", "007", "008", "009", "010", "011", "012"]);
    assert!(history.iter().all(|failure| failure.text.len() == ERROR_TEXT_LEN_MAX - 1), "cut between characters");
}

#[test]
fn g15_over_its_cap_a_group_drops_its_oldest_texts_and_counts_them() {
    let fit = HISTORY_TEXT_BYTES_MAX / ERROR_TEXT_LEN_MAX;
    let mut world = World::with(1, GroupOptions { max_outstanding: 1 << 16, max_attempts: 2, ..options() });
    world.publish(0, fit as u32 + 3);
    let lent = world.lease(KITCHEN, fit as u32 + 3);
    let text = "x".repeat(ERROR_TEXT_LEN_MAX);
    let failure = AttemptFailure { cause: FailureCause::Nacked, time: WallMs(WALL), text: text.as_str().into() };
    // The newest first, so that age is not offset; straight into the state, for thousands of them.
    for lent in lent.iter().rev() {
        let Held { partition, offset, .. } = lent.held;
        let due = WallMs(WALL + 1);
        let nacked = Record::Nacked { group: KITCHEN, partition, offset, due, delay_ms: 1, failure: failure.clone() };
        world.state.apply(&nacked, Lsn(world.lsn)).unwrap();
    }
    assert_eq!(world.state.check(), []);
    assert_eq!(world.counts(KITCHEN).texts_dropped, 3);
    world.advance(1);
    let texts: Vec<bool> = world
        .lease(KITCHEN, u32::MAX)
        .iter()
        .map(|lent| lent.held)
        .enumerate()
        .filter(|(index, _)| *index < 2 || *index >= fit - 1)
        .map(|(_, held)| {
            let group = world.state.group(KITCHEN).unwrap();
            let (history, _) = GroupState::failures(group.entry(0, held.offset).unwrap(), None);
            assert_eq!(causes(&history), [FailureCause::Nacked], "the failure itself stays");
            !history[0].text.is_empty()
        })
        .collect();
    assert_eq!(texts, [true, true, true, false, false, false]);
}

/// The only message, as the group has it.
fn entry(world: &World) -> &OutstandingEntry {
    world.state.group(KITCHEN).unwrap().entry(0, Offset(0)).unwrap()
}

#[test]
fn an_orderly_close_charges_no_attempt() {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
    world.publish(0, 2);
    for _ in 0..20 {
        let lent = world.lease(KITCHEN, 2);
        assert_eq!((places(&lent), lent[0].attempt), (vec![(0, 0), (0, 1)], 1));
        world.open(true);
        assert_eq!(world.counts(KITCHEN), Totals { ready: 2, lag: 2, ..Totals::default() });
    }
    assert!(entry(&world).history.is_none(), "no attempt ended");
}

#[test]
fn beyond_max_closes_in_a_row_each_close_is_charged() {
    let mut world = World::with(1, GroupOptions { max_attempts: 3, max_closes: 2, ..options() });
    world.publish(0, 1);
    for attempt in [1, 1, 1, 2, 3] {
        assert_eq!(world.lease_one(KITCHEN).attempt, attempt);
        world.open(true);
        world.advance(options().backoff.max_ms);
    }
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(provenance(&records).attempts, 3);
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Closed; 3]);
}

#[test]
fn any_other_end_begins_the_count_of_closes_anew() {
    let ends: [fn(&mut World, Held); 5] = [
        |world, held| drop(world.nack(KITCHEN, held, Some(0), "").unwrap()),
        |world, held| world.release(KITCHEN, held).unwrap(),
        |world, held| drop(world.run(Command::Unreadable { group: KITCHEN, held }).unwrap()),
        |world, _| world.advance(TIMEOUT_MS),
        |world, _| world.open(false),
    ];
    for end in ends {
        let mut world = World::with(1, GroupOptions { max_attempts: 9, max_closes: 2, ..options() });
        world.publish(0, 1);
        for _ in 0..3 {
            for closes in [1, 2] {
                world.lease_one(KITCHEN);
                world.open(true);
                assert_eq!(entry(&world).closes, closes);
            }
            let held = world.lease_one(KITCHEN).held;
            end(&mut world, held);
            world.advance(options().backoff.max_ms);
        }
        let attempts = entry(&world).attempts;
        let held = world.lease_one(KITCHEN).held;
        world.release(KITCHEN, held).unwrap();
        assert_eq!((entry(&world).closes, entry(&world).attempts), (0, attempts));
        assert!(
            entry(&world)
                .history
                .iter()
                .all(|history| history.past.iter().all(|past| past.failure.cause != FailureCause::Closed))
        );
    }
}

/// G9: other failures do not count towards the limit on crashes.
#[test]
fn twice_as_many_crashes_as_attempts_end_in_the_letters() {
    let mut world = World::with(1, GroupOptions { max_attempts: 3, max_outstanding: 1, ..options() });
    let other = world.group("other", &GroupOptions { visibility_timeout_ms: 1_000_000, ..options() });
    world.hold_up = 0;
    world.publish(0, 30);
    for _ in 0..2 {
        let held = world.lease_one(KITCHEN).held;
        world.nack(KITCHEN, held, Some(0), "").unwrap();
    }
    for crashes in 0..6 {
        world.lease_one(other);
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.at(), lent.attempt, lent.exclusive), ((0, 0), 3 + crashes, false));
        world.open(false);
        world.advance(options().backoff.max_ms);
    }
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(provenance(&records).attempts, 8);
}

#[test]
fn after_a_crash_a_message_waits_from_its_second_attempt_on() {
    let mut world = World::with(1, GroupOptions { max_attempts: 3, ..options() });
    world.publish(0, 1);
    for delay in [0, 200] {
        world.lease_one(KITCHEN);
        world.open(false);
        assert_eq!(world.counts(KITCHEN).waiting, u64::from(delay > 0));
        let due = world.state.next_deadline(KITCHEN, &world.inputs()).wall;
        assert_eq!(due, (delay > 0).then(|| WallMs(world.wall + delay)));
        world.advance(delay);
        assert_eq!(world.counts(KITCHEN).ready, 1);
    }
    assert!(world.lease_one(KITCHEN).exclusive);
    world.open(false);
    assert_eq!(world.counts(KITCHEN).exhausted, 1, "nothing waits for an attempt that there will not be");
    world.give_up(KITCHEN, (0, 0)).unwrap();
}

#[test]
fn after_its_timeout_a_message_waits_from_its_second_attempt_on() {
    let mut world = World::with(1, GroupOptions { max_attempts: 4, ..options() });
    world.publish(0, 1);
    for (attempt, delay) in [(1, 0), (2, 200), (3, 400)] {
        let lent = world.lease_one(KITCHEN);
        assert_eq!(lent.attempt, attempt);
        let again = MonoMs(lent.until.0 + delay);
        assert_eq!(world.state.next_deadline(KITCHEN, &world.inputs()).mono, Some(again));
        world.advance(TIMEOUT_MS + delay - 1);
        assert_eq!(world.lease(KITCHEN, 1), []);
        assert_eq!(world.state.next_deadline(KITCHEN, &world.inputs()).mono, Some(again));
        let counts = world.counts(KITCHEN);
        assert_eq!((counts.leased, counts.waiting), if delay > 0 { (0, 1) } else { (1, 0) });
        let (group, partition, first) = (KITCHEN, PartitionId(0), Offset(0));
        let (until, time) = (MonoMs(world.mono + TIMEOUT_MS), WallMs(world.wall));
        let attempt = attempt + 1;
        world.refuses(Record::Leased { group, partition, first, count: 1, attempt, until, time, exclusive: false });
        world.advance(1);
        assert_eq!(world.counts(KITCHEN).ready, 1);
    }
    // The last one is followed by none.
    world.lease_one(KITCHEN);
    world.advance(TIMEOUT_MS);
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Expired; 4]);
}

/// Its holder may still settle or extend it meanwhile; nobody else is held up by it.
#[test]
fn a_message_in_backoff_still_has_its_holder() {
    let mut world = World::with(1, options());
    world.publish(0, 3);
    world.lease(KITCHEN, 3);
    world.advance(TIMEOUT_MS);
    let lent = world.lease(KITCHEN, 3);
    assert_eq!(lent[0].attempt, 2);
    world.advance(TIMEOUT_MS + 100);
    assert_eq!(world.ack(KITCHEN, &[lent[0].held]), Vec::<u32>::new());
    world.run(Command::Extend { group: KITCHEN, held: lent[1].held, for_ms: 500 }).unwrap();
    world.advance(100);
    assert_eq!(places(&world.lease(KITCHEN, 3)), [(0, 2)]);
    world.advance(599);
    assert_eq!(world.lease(KITCHEN, 3), []);
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 3)), [(0, 1)]);
}

#[test]
fn a_lease_keeps_the_backoff_under_which_it_was_granted() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    world.lease(KITCHEN, 2);
    world.advance(TIMEOUT_MS);
    let lent = world.lease(KITCHEN, 2);
    let backoff = BackoffOptions { first_ms: 1, max_ms: 1, jitter: Jitter::None, growth: Growth::Exponential };
    let changes = GroupChanges { backoff: Some(backoff), ..GroupChanges::default() };
    world.run(Command::AlterGroup { group: KITCHEN, changes: &changes }).unwrap();
    assert_eq!(world.ack(KITCHEN, &[lent[1].held]), Vec::<u32>::new());
    world.advance(TIMEOUT_MS + 199);
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(1);
    assert_eq!(world.lease_one(KITCHEN).attempt, 3);
    world.advance(TIMEOUT_MS + 1);
    assert_eq!(world.lease_one(KITCHEN).attempt, 4);
}

#[test]
fn what_ended_first_is_leased_first_with_a_backoff_or_without() {
    let mut world = World::with(1, options());
    world.publish(0, 3);
    world.lease_one(KITCHEN);
    world.advance(TIMEOUT_MS);
    world.lease_one(KITCHEN);
    world.lease_one(KITCHEN);
    world.advance(201);
    world.lease_one(KITCHEN);
    world.advance(TIMEOUT_MS);
    assert_eq!(places(&world.lease(KITCHEN, 3)), [(0, 1), (0, 0), (0, 2)]);
}

#[test]
fn the_last_nack_is_a_dead_letter_whatever_attempts_are_left() {
    let mut world = World::with(1, GroupOptions { max_nacks: 2, ..options() });
    world.publish(0, 1);
    // An expiry is no nack.
    world.lease_one(KITCHEN);
    world.advance(TIMEOUT_MS);
    let lent = world.lease_one(KITCHEN);
    assert!(matches!(world.nack(KITCHEN, lent.held, Some(0), "").unwrap()[..], [Record::Nacked { .. }]));
    let lent = world.lease_one(KITCHEN);
    assert_eq!(lent.attempt, 3);
    world.refuses(Record::Nacked {
        group: KITCHEN,
        partition: PartitionId(0),
        offset: Offset(0),
        due: WallMs(world.wall),
        delay_ms: 0,
        failure: AttemptFailure { cause: FailureCause::Nacked, time: WallMs(world.wall), text: Box::default() },
    });
    let records = world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    use FailureCause::{Expired, Nacked};
    assert_eq!(causes(&provenance(&records).history), [Expired, Nacked, Nacked]);
}

#[test]
fn the_last_expiry_is_a_dead_letter_whatever_attempts_are_left() {
    for (max_expiries, postponed) in [(1, false), (2, false), (2, true)] {
        let mut world = World::with(1, GroupOptions { max_expiries, ..options() });
        world.publish(0, 1);
        for _ in 1..max_expiries {
            world.lease_one(KITCHEN);
            world.advance(TIMEOUT_MS);
        }
        // A nack, a release and a crash are no expiries.
        let lent = world.lease_one(KITCHEN);
        world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
        let lent = world.lease_one(KITCHEN);
        world.release(KITCHEN, lent.held).unwrap();
        world.lease_one(KITCHEN);
        world.open(false);
        world.advance(options().backoff.max_ms);
        let lent = world.lease_one(KITCHEN);
        assert_eq!(lent.attempt, max_expiries + 2);
        assert_eq!(world.counts(KITCHEN).exhausted, 0, "its consumer may still ack it");
        world.advance(TIMEOUT_MS);
        assert_eq!(world.counts(KITCHEN).exhausted, 1);
        if postponed {
            world.run(Command::Postpone { at: (KITCHEN, PartitionId(0), Offset(0)) }).unwrap();
            world.advance(options().backoff.max_ms);
            world.open(false);
        }
        let exhausted = Decision::Exhausted { partition: PartitionId(0), offset: Offset(0) };
        assert_eq!(world.try_lease(KITCHEN, 1).0, exhausted);
        let records = world.give_up(KITCHEN, (0, 0)).unwrap();
        assert_eq!(provenance(&records).attempts, max_expiries + 2);
        assert_eq!(causes(&provenance(&records).history).last(), Some(&FailureCause::Expired));
    }
}

/// G9: the last attempt that may crash is alone, and other ends begin the count anew.
#[test]
fn as_many_crashes_in_a_row_as_are_allowed_end_in_the_dead_letters() {
    for max_attempts in [0, 9] {
        let mut world = World::with(1, GroupOptions { max_attempts, max_crashes: 2, max_outstanding: 1, ..options() });
        world.publish(0, 2);
        let crash = |world: &mut World, exclusive| {
            let lent = world.lease_one(KITCHEN);
            assert_eq!((lent.at(), lent.exclusive), ((0, 0), exclusive));
            world.open(false);
            world.advance(options().backoff.max_ms);
        };
        crash(&mut world, false);
        let lent = world.lease_one(KITCHEN);
        assert!(lent.exclusive);
        world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
        crash(&mut world, false);
        // A close counts for nothing, and the next one is still alone.
        let lent = world.lease_one(KITCHEN);
        assert!(lent.exclusive);
        world.open(true);
        crash(&mut world, true);
        assert_eq!(world.counts(KITCHEN).exhausted, 1);
        let records = world.give_up(KITCHEN, (0, 0)).unwrap();
        use FailureCause::{Crashed, Nacked};
        assert_eq!(causes(&provenance(&records).history), [Crashed, Nacked, Crashed, Crashed]);
        assert_eq!(world.lease_one(KITCHEN).at(), (0, 1), "the next one is not held up");
    }
}

#[test]
fn a_single_crash_is_the_last_where_one_is_allowed() {
    let mut world = World::with(1, GroupOptions { max_crashes: 1, ..options() });
    world.publish(0, 2);
    world.lease(KITCHEN, 2);
    world.open(false);
    assert_eq!(world.counts(KITCHEN).exhausted, 2);
}

/// An exclusive crash at the last attempt is the last: the limit of crashes gives no further one.
#[test]
fn a_limit_of_crashes_gives_no_attempt_beyond_the_limit_of_attempts() {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, max_crashes: 3, ..options() });
    world.publish(0, 1);
    for exclusive in [false, true] {
        assert_eq!(world.lease_one(KITCHEN).exclusive, exclusive);
        world.open(false);
        world.advance(options().backoff.max_ms);
    }
    assert_eq!(world.counts(KITCHEN).exhausted, 1);
}
