//! A snapshot and the state agree on what must stay.
//!
//! Never here: files.

use super::*;
use crate::ids::MonoMs;
use crate::record::{Retention, TopicOptions};
use crate::state::tests::World;
use crate::state::{Command, Rejection, State};

/// Whether an offset lies within one of some stretches, which are in order and apart.
fn holds(stretches: &[OffsetRange], offset: Offset) -> bool {
    let at = stretches.partition_point(|(_, end)| *end <= offset);
    stretches.get(at).is_some_and(|(first, _)| *first <= offset)
}

/// A snapshot says of each message what the state says.
pub(in crate::state) fn agrees(state: &State) {
    let wanted = LiveMessages::of(state.snapshot());
    for (partition, end) in state.partitions() {
        assert_eq!(wanted.held_from(partition), state.held_from(partition));
        let stretches = wanted.stretches(partition, Offset(0), end);
        assert!(stretches.is_sorted_by(|a, b| a.0 < a.1 && a.1 < b.0 && b.0 < b.1), "{stretches:?}");
        for offset in (0..end.0).map(Offset) {
            let is_settled = state.is_settled(partition, offset, offset.saturating_add(1));
            assert_eq!(holds(&stretches, offset), !is_settled, "{partition} {offset} of {stretches:?}");
            let of_one = wanted.stretches(partition, offset, offset.saturating_add(1));
            assert_eq!(of_one.is_empty(), is_settled, "{partition} {offset}");
        }
    }
    assert_eq!(wanted.stretches(state.partitions_end(), Offset(0), Offset(9)), []);
}

#[test]
fn stretches_are_joined_where_they_touch() {
    let of = |pairs: &[(u64, u64)]| pairs.iter().map(|(first, end)| (Offset(*first), Offset(*end))).collect::<Vec<_>>();
    assert_eq!(merged(of(&[(7, 9), (0, 2), (2, 4), (8, 8), (3, 5)])), of(&[(0, 5), (7, 9)]));
    let stretches = of(&[(2, 4), (6, 7)]);
    let held: Vec<u64> = (0..9).filter(|offset| holds(&stretches, Offset(*offset))).collect();
    assert_eq!(held, [2, 3, 6]);
}

/// However messages come, a topic never has more marks than it may, and keeps what is younger than its time.
#[test]
fn marks_of_a_topic_stay_few() {
    for (age, between) in [(1_600, 150), (1_600, 1), (1_000, 93), (1_007, 30), (3_200, 301)] {
        let mut world = World::new();
        let retention = Retention::Age(std::time::Duration::from_millis(age));
        let options = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
        world.run(Command::CreateTopic { name: "t", partitions: 1, options }).unwrap();
        let mut published = Vec::new();
        for step in 0..600u64 {
            world.publish(0, 1);
            published.push(world.mono);
            // Rarely at first, and then all the time.
            world.advance(if step < 12 { between } else { 1 + step % 7 });
            match world.run(Command::MarkRetention { topic: TopicId(0) }) {
                Ok(_) | Err(Rejection::Stale) => {}
                Err(other) => panic!("{other:?}"),
            }
            let kept = world.state.kept_from(TopicId(0), 0).0 as usize;
            let young = |at: &u64| MonoMs(*at).0 + age > world.mono;
            assert!(published.iter().position(young).is_none_or(|first| kept <= first), "step {step} of {age}");
        }
        assert!(world.state.kept_from(TopicId(0), 0) > Offset(0), "{age}");
    }
}
