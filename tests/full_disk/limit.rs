//! The limit that every machine has: a process that may write no larger files, and ignores the signal that says so.
//! The limit binds a whole process, so a child lives under it.

use crate::child;
use crate::queue::Queue;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// Below the length of a segment, above that of any other file.
const LIMIT: u64 = 60 << 10;

/// Runs a scenario in a child.
pub(crate) fn run(task: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut said = Vec::new();
    let command = child::command("child_process", task, &dir.path().join("store"));
    let status = child::run(command, |line| said.push(line.to_owned()));
    assert!(status.success() && said.iter().any(|line| line == "fine"), "{task}: {status}: {said:#?}");
}

/// The body of the child.
pub(crate) fn work(task: &str, dir: &Path) {
    ignore_the_signal();
    match task {
        "resume" => resume(dir),
        "settle" => settle(dir),
        other => panic!("{other}: unknown"),
    }
    child::say("fine");
}

fn resume(dir: &Path) {
    let mut queue = Queue::new(dir);
    queue.publish_some(100);
    set_limit(Some(LIMIT));
    assert!(queue.fill() < 200, "two segments were there, and no more could come");
    set_limit(None);
    queue.publish_some(500);
    queue.ack_all();
    queue.reopen_and_check();
}

/// G14: what is leased and what waits is settled under the limit.
fn settle(dir: &Path) {
    let mut queue = Queue::new(dir);
    queue.publish_some(100);
    let held = queue.lease(50);
    set_limit(Some(LIMIT));
    queue.fill();
    queue.settle_in_all_ways(held);
    queue.ack_all();
    set_limit(None);
    queue.publish_some(100);
    queue.reopen_and_check();
}

fn set_limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("it may be lowered and raised");
}

#[allow(unsafe_code, reason = "no safe call sets the disposition of a signal")]
fn ignore_the_signal() {
    // SAFETY: to ignore a signal installs no handler; nothing else in this process depends on SIGXFSZ.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
