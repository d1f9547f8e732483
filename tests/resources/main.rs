//! What a process may run out of besides room: descriptors, memory, threads, a file of its own, the right to write, and a disk that answers.

#![cfg(target_os = "linux")]

#[path = "../common/child.rs"]
mod child;
mod descriptors;
mod links;
mod memory;
mod read_only;
mod stall;
#[path = "../common/watched.rs"]
mod watched;

/// Not a test: the body of the children.
#[test]
fn child_process() {
    match child::task() {
        Some((task, dir)) if task == "descriptors" => descriptors::work(&dir),
        Some((task, dir)) if task == "maps" => memory::map_work(&dir),
        Some((task, dir)) if task == "threads" => memory::thread_work(&dir),
        Some((_, dir)) => read_only::work(&dir),
        None => {}
    }
}

/// Past the harness, which keeps what a passing test prints to itself.
fn say(what: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "{what}"));
}
