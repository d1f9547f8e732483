//! Failures, delays, histories.

use crate::limits::{DURATION_MS_MAX, ERROR_TEXT_LEN_MAX, HISTORY_LEN, HISTORY_TEXT_BYTES_MAX};
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
    let history = &provenance(&records).history;
    assert_eq!((provenance(&records).attempts, history.len()), (12, HISTORY_LEN));
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
    let failure = Failure { cause: Cause::Nacked, time: WallMs(WALL), text: text.as_str().into() };
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
            let history = GroupState::failures(group.entry(0, held.offset).unwrap(), None);
            assert_eq!(causes(&history), [Cause::Nacked], "the failure itself stays");
            !history[0].text.is_empty()
        })
        .collect();
    assert_eq!(texts, [true, true, true, false, false, false]);
}
