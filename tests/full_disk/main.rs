//! A disk that is really full: a tmpfs and an ext4 of a few MiB where this machine can mount them, and a limit on the
//! sizes of files everywhere (G14).

#![cfg(target_os = "linux")]

#[path = "../common/child.rs"]
mod child;
mod limit;
mod places;
mod queue;

use places::on_each;
use queue::Queue;

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

#[test]
fn at_a_limit_on_file_sizes_everything_can_be_settled() {
    limit::run("settle");
}
