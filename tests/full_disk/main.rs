//! A disk that is really full: a tmpfs and an ext4 of a few MiB where this machine can mount them, and a limit on the
//! sizes of files everywhere (G14).

#![cfg(target_os = "linux")]

#[path = "../common/child.rs"]
mod child;
mod cycle;
mod limit;
mod places;
mod queue;

use cycle::{Cycle, Ending};
use millpond::simulation::{Disk, SimDisk, real_disk};
use places::{Kind, on, on_each};
use queue::Queue;
use std::sync::Arc;

/// Not a test: the body of the child.
#[test]
fn child_process() {
    if let Some((task, dir)) = child::task() {
        limit::work(&task, &dir);
    }
}

/// Room on the small file systems, in MiB.
const ROOM: u64 = 4;
/// How many messages are leased while a disk fills.
const HELD: usize = 200;

#[test]
fn publishing_resumes_when_somebody_makes_room() {
    on_each(ROOM, |place| {
        let mut queue = Queue::new(&place.store());
        assert!(queue.fill() > 1_000, "there was room for more");
        place.make_room();
        queue.publish_some(500);
        queue.ack_all();
        queue.publish_some(100);
        queue.reopen_and_check();
    });
}

/// Where a block that is written again needs another one, a full disk may refuse whatever it likes; but it stops nothing, and all
/// goes on when there is room.
#[test]
fn where_blocks_are_copied_a_full_disk_stops_nothing() {
    on(&[Kind::Btrfs], ROOM, |place| {
        let mut queue = Queue::new(&place.store());
        queue.publish_some(HELD);
        place.fill_up();
        for _ in 0..20 {
            queue.publish();
            queue.try_one();
            queue.tick();
        }
        place.make_room();
        queue.publish_when_possible();
        queue.ack_all();
        queue.reopen_and_check();
    });
}

#[test]
fn at_a_limit_on_file_sizes_publishing_resumes_when_it_is_raised() {
    limit::run("resume");
}

/// G14: publishes are refused, settles are not, whatever the jobs do meanwhile.
#[test]
fn on_a_full_disk_what_is_leased_can_be_settled() {
    on_each(ROOM, |place| {
        let mut queue = Queue::new(&place.store());
        queue.publish_some(HELD);
        let held = queue.lease(HELD);
        queue.fill();
        queue.settle_in_all_ways(held);
        place.make_room();
        queue.publish_some(100);
        queue.ack_all();
        queue.reopen_and_check();
    });
}

/// G14: a full queue is emptied, and that alone makes room again, without a restart.
#[test]
fn what_is_settled_on_a_full_disk_makes_room_to_publish() {
    on_each(ROOM, |place| {
        let mut queue = Queue::new(&place.store());
        let first = queue.fill();
        queue.ack_all();
        queue.publish_when_possible();
        let again = queue.fill();
        assert!(again > first / 2, "of the room for {first} messages only that of {again} came back");
        queue.ack_all();
        queue.reopen_and_check();
    });
}

/// G14 as a cycle, in MiB and bytes of a message.
#[test]
fn a_simulated_disk_fills_and_empties_and_fills_again() {
    for (room, message_len) in
        [(4, 100), (4, 3_000), (6, 200_000), (12, 1_000), (64, 10_000), (64, 900_000), (200, 100_000), (400, 300_000)]
    {
        let disk = SimDisk::new(room);
        disk.set_capacity(Some(room << 20));
        let attach = || Arc::new(disk.attach().expect("nobody has it")) as Arc<dyn Disk>;
        Cycle::go_around(attach, message_len, &format!("{room} MiB, {message_len} bytes"));
    }
}

#[test]
fn a_real_disk_fills_and_empties_and_fills_again() {
    for (room, message_len) in [(4, 300), (16, 20_000), (64, 5_000), (200, 300_000)] {
        on_each(room, |place| {
            let store = place.store();
            Cycle::go_around(
                || real_disk(&store).expect("it attaches"),
                message_len,
                &format!("{:?}, {room} MiB", place.kind()),
            );
        });
    }
}

/// Copies of messages take nothing of what leases and settles need: with dead letters to move and others ready, these flow.
#[test]
fn moves_to_the_dead_letters_leave_room_for_leases() {
    let disk = SimDisk::new(7);
    disk.set_capacity(Some(100 << 20));
    let attach = || Arc::new(disk.attach().expect("nobody has it"));
    let mut cycle = Cycle::open(attach(), 100 << 10);
    cycle.exhaust_some_and_fill(400);
    cycle.receives_go_on(50, "at first");
    cycle.close();
    drop(cycle);
    let cycle = Cycle::open(attach(), 100 << 10);
    cycle.receives_go_on(50, "opened again");
    cycle.close();
}

/// G14: the room that is kept for settling is for leases that can be settled. Those that ended keep nothing.
#[test]
fn leases_that_end_without_an_ack_leave_room_to_lease_again() {
    let endings = [
        (Ending::Crash, &[3, 16][..]),
        (Ending::Close, &[3, 16]),
        (Ending::Expiry(60), &[3, 16]),
        // More than there are messages, so that all have failed and some again.
        (Ending::Nack(8_000), &[3]),
    ];
    for (ending, rooms) in endings {
        for &room in rooms {
            let disk = SimDisk::new(room);
            disk.set_capacity(Some(room << 20));
            Cycle::ends(&disk, 500, ending);
        }
    }
}

/// G14: exhausted messages that find no room among the dead letters keep nobody from the others.
#[test]
fn others_flow_past_exhausted_messages_on_a_full_disk() {
    // More messages than there is room to lease.
    let disk = SimDisk::new(7);
    disk.set_capacity(Some(16 << 20));
    Cycle::flows_past_exhausted_ones(Arc::new(disk.attach().expect("nobody has it")), 500, "16 MiB");
}

/// Opening again and again, as a service does that is started anew whenever it fails, takes no more room each time.
#[test]
fn opening_on_a_full_disk_works_and_takes_no_room() {
    for room in [4, 40] {
        let disk = SimDisk::new(room);
        disk.set_capacity(Some(room << 20));
        let used = || disk.files().iter().map(|file| file.len).sum::<u64>();
        let attach = || Arc::new(disk.attach().expect("nobody has it"));
        let mut cycle = Cycle::open(attach(), 2_000);
        cycle.fill();
        drop(cycle);
        // Somebody else took the rest.
        disk.set_capacity(Some(used()));
        for _ in 0..5 {
            let before = used();
            let cycle = Cycle::open(attach(), 2_000);
            assert!(used() <= before, "{room} MiB: from {before} to {} bytes", used());
            drop(cycle);
        }
        let mut cycle = Cycle::open(attach(), 2_000);
        disk.set_capacity(Some(room << 20));
        cycle.settle_all("opened again");
        cycle.publish_when_possible("opened again");
    }
}

#[test]
fn at_a_limit_on_file_sizes_everything_can_be_settled() {
    limit::run("settle");
}
