//! No memory for a map or for the stack of a thread: told as what it is, and nothing stays behind.
//!
//! The limit binds a whole process, so a child lives under it.

use crate::child::{self, must, say};
use millpond::simulation::{SystemClock, real_disk};
use millpond::{Durability, Error, ErrorKind, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;
use std::sync::Arc;

/// The stack of each thread that a child starts: the limit leaves room for one.
const STACK: u64 = 1 << 30;

fn run(task: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut said = Vec::new();
    let mut command = child::command("child_process", task, &dir.path().join("store"));
    if task == "threads" {
        command.env("RUST_MIN_STACK", STACK.to_string());
    }
    let status = child::run(command, |line| said.push(line.to_owned()));
    assert!(status.success() && said.iter().any(|line| line == "fine"), "{status}: {said:#?}");
}

#[test]
fn without_memory_for_a_map_publishes_are_refused_and_go_on_when_there_is_some() {
    run("maps");
}

#[test]
fn where_a_thread_cannot_be_started_none_runs_and_the_directory_is_free() {
    run("threads");
}

/// The body of the child that finds no memory for a map.
pub(crate) fn map_work(dir: &Path) {
    let disk = must(real_disk(dir));
    let store = must(Store::options().durability(Durability::Os).open_on(disk, Arc::new(SystemClock)));
    let topic = must(store.topic("numbers").open());
    let payload = vec![7; 1 << 20];
    for _ in 0..16 {
        must(topic.publish(&payload[..1 << 19]));
    }
    limit(Some(8 << 20));
    let refused = (0..64).find_map(|_| topic.publish(&payload[..1 << 19]).err());
    let again = topic.publish("small").err();
    must(store.tick());
    limit(None);
    match refused {
        Some(Error::OutOfMemory) => assert_eq!(Error::OutOfMemory.kind(), ErrorKind::Retry),
        other => panic!("a segment of 32 MiB needs a map: {other:?}"),
    }
    assert!(again.is_none_or(|error| matches!(error, Error::OutOfMemory)));
    must(topic.publish(&payload[..1 << 19]));
    must(store.close());
    say("fine");
}

/// The body of the child that can start one thread more and not two.
pub(crate) fn thread_work(dir: &Path) {
    let threads = || must(std::fs::read_dir("/proc/self/task")).count();
    let before = threads();
    limit(Some(STACK + (256 << 20)));
    let refused = Store::open(dir).map(drop);
    assert_eq!(threads(), before, "the thread that was started has ended");
    limit(None);
    assert!(refused.is_err(), "there was room for the stacks of two threads");
    let store = must(Store::open(dir));
    must(store.close());
    say("fine");
}

/// Lets the process map so many bytes more than it has.
fn limit(more: Option<u64>) {
    let maximum = getrlimit(Resource::As).maximum;
    let pages = must(std::fs::read_to_string("/proc/self/statm"));
    let pages: u64 = pages.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    let current = more.map(|more| pages * 4096 + more).or(maximum);
    must(setrlimit(Resource::As, Rlimit { current, maximum }));
}
