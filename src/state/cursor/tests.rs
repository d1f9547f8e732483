//! Cursors: compare and set, bounds, what they hold.

use crate::limits::{CURSOR_LEN_MAX, CURSORS_MAX};
use crate::record::Hold;
use crate::state::tests::*;

fn set(world: &mut World, name: &str, expected: Option<&[u8]>, value: &[u8], hold: Option<Hold>) -> Option<Rejection> {
    world.run(Command::SetCursor { name, expected, value, hold }).err()
}

#[test]
fn a_cursor_moves_only_for_those_who_know_where_it_stands() {
    let mut world = World::new();
    assert_eq!(set(&mut world, "c", Some(b""), b"1", None), Some(Rejection::CursorMoved));
    assert_eq!(set(&mut world, "c", None, b"1", None), None);
    assert_eq!(set(&mut world, "c", None, b"2", None), Some(Rejection::CursorMoved));
    assert_eq!(set(&mut world, "c", Some(b"0"), b"2", None), Some(Rejection::CursorMoved));
    assert_eq!(set(&mut world, "c", Some(b"1"), b"2", None), None);
    assert_eq!(world.state.cursor("c").map(|cursor| cursor.value.to_vec()), Some(b"2".to_vec()));
    assert_eq!(world.run(Command::RemoveCursor { name: "d" }).err(), Some(Rejection::NoSuchCursor));
    assert_eq!(world.run(Command::RemoveCursor { name: "c" }).err(), None);
    assert_eq!(world.state.cursor("c"), None);
    world.refuses(Record::CursorRemoved { name: "c".to_owned() });
}

#[test]
fn a_cursor_has_bounds() {
    let mut world = World::new();
    assert!(matches!(set(&mut world, "", None, b"", None), Some(Rejection::Invalid(_))));
    assert!(matches!(set(&mut world, &"x".repeat(256), None, b"", None), Some(Rejection::Invalid(_))));
    assert!(matches!(set(&mut world, "c", None, &[0; CURSOR_LEN_MAX + 1], None), Some(Rejection::Invalid(_))));
    let unknown = Hold { topic: TopicId(0), from: Lsn(0) };
    assert_eq!(set(&mut world, "c", None, b"", Some(unknown)), Some(Rejection::UnknownTopic));
    assert_eq!(set(&mut world, "c", None, &[0; CURSOR_LEN_MAX], None), None);
    for n in 1..CURSORS_MAX {
        let record = Record::CursorSet { name: n.to_string(), value: Box::default(), hold: None };
        world.state.apply(&record, Lsn(8)).unwrap();
    }
    assert_eq!(set(&mut world, "one more", None, b"", None), Some(Rejection::LimitReached("cursors")));
    assert_eq!(set(&mut world, "c", Some(&[0; CURSOR_LEN_MAX]), b"", None), None, "one that is there moves");
}

#[test]
fn the_cursor_that_is_furthest_back_holds_a_topic() {
    let mut world = World::with(1, options());
    let hold = |from| Some(Hold { topic: TopicId(0), from: Lsn(from) });
    let held = |world: &World| world.state.held_from(PartitionId(0)).map(|from| from.0);
    assert_eq!(held(&world), None);
    assert_eq!(set(&mut world, "a", None, b"", hold(16)), None);
    assert_eq!(set(&mut world, "b", None, b"", hold(16)), None);
    assert_eq!(set(&mut world, "c", None, b"", None), None);
    assert_eq!(held(&world), Some(16));
    assert_eq!(set(&mut world, "a", Some(b""), b"", hold(40)), None);
    assert_eq!(held(&world), Some(16), "the other one stands there");
    assert_eq!(set(&mut world, "b", Some(b""), b"", None), None);
    assert_eq!(held(&world), Some(40));
    world.run(Command::RemoveCursor { name: "a" }).unwrap();
    assert_eq!(held(&world), None);
}
