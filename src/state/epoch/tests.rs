//! A process begins, clocks jump.

use crate::state::tests::*;

#[test]
fn nothing_comes_before_the_first_process() {
    let mut world = World::new();
    world.state = State::new();
    assert!(matches!(world.run(Command::NoteClockJump), Err(Rejection::Invalid(_))));
    world.refuses(Record::ClockJumped { wall: WallMs(1), by_ms: 0 });
    assert!(matches!(world.run(Command::Open { epoch: Epoch(0), clean: true }), Err(Rejection::Invalid(_))));
    world.run(Command::Open { epoch: Epoch(3), clean: true }).unwrap();
    assert!(matches!(world.run(Command::Open { epoch: Epoch(3), clean: true }), Err(Rejection::Invalid(_))));
    world.refuses(Record::Opened { epoch: Epoch(3), clean: true, wall: WallMs(1) });
}

#[test]
fn g16_no_jump_of_the_clock_holds_a_message_back_beyond_its_own_delay() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[0].held, Some(5_000), "").unwrap();
    world.nack(KITCHEN, lent[1].held, Some(1_000), "").unwrap();
    world.wall -= WALL / 2;
    let due = |world: &World| world.state.next_deadline(KITCHEN, &world.inputs()).wall;
    assert_eq!(due(&world), Some(WallMs(WALL + 1_000)));
    world.run(Command::NoteClockJump).unwrap();
    assert_eq!(due(&world), Some(WallMs(world.wall + 1_000)));
    world.advance(1_000);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 1)]);
    world.wall -= 1_000_000;
    world.open(true);
    world.advance(4_999);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 1)], "its lease was ended by the close");
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0)]);
}

#[test]
fn g16_a_jump_forward_makes_a_message_early_but_never_expires_a_lease() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[0].held, Some(5_000), "").unwrap();
    world.wall += 10 * WALL;
    world.run(Command::NoteClockJump).unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0)]);
    assert_eq!(world.ack(KITCHEN, &[lent[1].held]), []);
}

#[test]
fn a_monotonic_clock_at_its_end_is_refused() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    world.mono = u64::MAX - 5;
    assert!(matches!(
        world.run(Command::Lease {
            group: KITCHEN,
            max: 1,
            pass_exhausted: false,
            new_last: None,
            keys: None,
            looked_at: 0
        }),
        Err(Rejection::Invalid(_))
    ));
}
