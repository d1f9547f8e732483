//! A snapshot and the state agree on what must stay.
//!
//! Never here: files.

use super::*;
use crate::state::State;

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
