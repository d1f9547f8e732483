//! Scenarios: each file beside this one is a story in the words of the public API, on a simulated disk and clock.
//!
//! A line that begins with `> ` is a command. The lines below it are its reply, up to the next command, comment or empty line; a command
//! that succeeds and has nothing to say has none. A comment begins with `# ` and states the rule that the scenario shows. Replies are
//! written by hand from the rule. `UPDATE=1` shows every reply that differs instead of the first, and is refused if `CI` is set; nothing
//! ever writes to a file. `tests/planted/scenarios.rs` names a mistake that each file must detect.
//!
//! `#1` is a delivery, `B1` a batch, `L1` a dead letter and `S1` a subscription, counted from 1 in each process. A message is named by
//! topic, partition and offset, `R1` a log reader, `P1` the position of a message that one has read: `orders/0@3`. Times are counted from the start of the scenario.
//!
//! `orders/7` behind a command about streams is the stream 7 of the topic orders.
//!
//! Most commands are named after methods of the API. The others are about the world around the store: `advance` (background work is done
//! then), `headers #1` (lists those of a delivery), `clock_jump`, `crash` (of the process), `power_cut`, `disk_full`, `disk_room`. Two spare a scenario many lines: `offered S1` waits
//! until a requested delivery is in the channel, and `circulate GROUP TOPIC 15` rejects a message and redrives it to the topic, 15 times.

#![allow(clippy::panic, reason = "a scenario that fails says where")]

mod events;
mod facts;
mod schedule;
mod script;
mod session;
mod show;

use session::Session;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One test for each file.
macro_rules! files {
    ($($name:ident)*) => {
        mod files {
            $(
                #[test]
                fn $name() {
                    super::play(stringify!($name));
                }
            )*
        }

        /// The names of all files, without the extension.
        const FILES: &[&str] = &[$(stringify!($name)),*];
    };
}

files! {
    ack
    alter
    backoff
    batch
    clock_jump
    close
    crash
    cursor
    dead_letter
    dedup
    delay
    drop
    due_times
    durability
    exclusive_lease
    expiry
    extend
    filter_change
    filter_crash
    filter_headers
    filter_language
    filter_options
    filter_order
    filter_retry
    full_disk
    in_flight
    keys
    lease
    log_reader
    loop_of_redrives
    nack
    notices
    order_ack
    order_batch
    order_by_partition
    order_close
    order_crash
    order_dead_letter
    order_expiry
    order_in_flight
    order_keyless
    order_nack
    order_options
    order_over_partitions
    order_redrive
    order_reject
    outstanding
    pause
    producer
    rate_limit
    redrive
    reject
    release
    removal
    retention
    retry_limits
    retry_policies
    ring
    scheduled_crash
    seek_back
    seek_crash
    seek_letters
    seek_order
    snapshots
    streams
    subscription
    taken_back
    topic_bound
    transaction
    two_groups
    unique
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn play(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let is_update = std::env::var_os("UPDATE").is_some();
    assert!(!is_update || std::env::var_os("CI").is_none(), "UPDATE is for a person to read the differences; unset it");
    if let Err(complaint) = check(&format!("tests/scenarios/{name}.txt"), &text, is_update) {
        panic!("{complaint}");
    }
}

/// Runs a scenario. Fails with the first reply that differs, or with `all` that do.
fn check(path: &str, text: &str, all: bool) -> Result<(), String> {
    let mut session = Session::new();
    let mut differences = String::new();
    for step in script::steps(text).map_err(|error| format!("{path}:{error}"))? {
        let place = format!("{path}:{}: > {}", step.line, step.command);
        let reply = session.execute(&step.command).map_err(|error| format!("{place}\n{error}"))?;
        if reply == step.reply {
            continue;
        }
        let shown = |lines: &[String]| if lines.is_empty() { "no reply".to_owned() } else { lines.join("\n  ") };
        let _ = write!(differences, "\n{place}\nexpected\n  {}\ngot\n  {}\n", shown(&step.reply), shown(&reply));
        if !all {
            break;
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

#[test]
fn every_file_is_listed() {
    let entries = std::fs::read_dir(folder()).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let texts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let mut names: Vec<String> =
        texts.map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, FILES, "the list in main.rs, in alphabetical order");
}

#[test]
fn difference_names_line_and_both_replies() {
    let text =
        "# A store begins empty.\n> open\ncreated\n\n> topic orders\nwrong\n> group orders kitchen\nalso wrong\n";
    let complaint = check("a.txt", text, false).expect_err("the reply is wrong");
    assert_eq!(complaint, "\na.txt:5: > topic orders\nexpected\n  wrong\ngot\n  no reply\n");
    let complaint = check("a.txt", text, true).expect_err("two replies are wrong");
    assert!(complaint.contains("a.txt:5:") && complaint.contains("a.txt:7:"), "{complaint}");
}

#[test]
fn mistakes_in_a_scenario_are_told() {
    let complaint = |text| check("a.txt", text, false).expect_err("there is a mistake");
    assert_eq!(complaint("> open\ncreated\n\ncreated\n"), "a.txt:4: a reply without a command");
    assert_eq!(complaint("> opne"), "a.txt:1: > opne\nwhat it is about is missing");
    assert_eq!(complaint("> opne store"), "a.txt:1: > opne store\n\"opne\" is no command for this");
    assert_eq!(complaint("> open now"), "a.txt:1: > open now\n\"now\" is one word too many");
    assert_eq!(complaint("> open speed=9"), "a.txt:1: > open speed=9\n\"speed\" is one word too many");
    assert_eq!(complaint("> ack #1"), "a.txt:1: > ack #1\nthere is no #1");
    assert_eq!(complaint("> open\ncreated\n> open"), "a.txt:3: > open\nthe store is open; close it, or crash");
}
