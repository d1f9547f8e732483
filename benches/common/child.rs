//! Work in another process: filling a store and being killed with SIGKILL, and opening or holding one with fresh memory.
//!
//! A benchmark starts itself again; [`serve`] is what the child runs. Never here: what is concluded.

use super::pond::{LEN, Pond, fill, group_of, take};
use super::{machine, now, pick, rest, say};
use millpond::{Durability, Message, Store};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROLE: &str = "MILLPOND_BENCH_CHILD";
const STORE: &str = "MILLPOND_BENCH_CHILD_STORE";
const COUNT: &str = "MILLPOND_BENCH_CHILD_COUNT";
const SEGMENT_BYTES: &str = "MILLPOND_BENCH_CHILD_SEGMENT_BYTES";

/// How a store comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Closed.
    Clean,
    /// Killed after a while without work.
    KilledInQuiet,
    /// Killed while publishing as fast as it goes.
    KilledAtFullRate,
}

/// What a fresh process found when it opened a store.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) open: Duration,
    /// From the start of the open to the first message in hand.
    pub(crate) first_delivery: Duration,
    /// Private memory that the open store added.
    pub(crate) private_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) waiting: u64,
}

/// Runs the child's part and returns true if this process is such a child.
pub(crate) fn serve() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let path = std::env::var_os(STORE).expect("the store's path");
    let count = std::env::var(COUNT).expect("a count").parse().expect("a number");
    match role.as_str() {
        "open" => open_and_tell(Path::new(&path)),
        "hold" => hold_and_tell(Path::new(&path), count),
        "Clean" => fill_and_end(Path::new(&path), count, End::Clean),
        "KilledInQuiet" => fill_and_end(Path::new(&path), count, End::KilledInQuiet),
        "KilledAtFullRate" => fill_and_end(Path::new(&path), count, End::KilledAtFullRate),
        other => panic!("unknown role {other}"),
    }
    true
}

fn command(role: &str, path: &Path, count: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.env(ROLE, role).env(STORE, path).env(COUNT, count.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Has another process fill a new store at `path` with `count` waiting messages and end as `end` says.
pub(crate) fn fill_in_child(path: &Path, count: u64, end: End) {
    fill_segments_in_child(path, count, end, 64 << 20);
}

/// As [`fill_in_child`], in segments of at most so many bytes.
pub(crate) fn fill_segments_in_child(path: &Path, count: u64, end: End, segment_bytes: u64) {
    let mut command = command(&format!("{end:?}"), path, count);
    let mut child = command.env(SEGMENT_BYTES, segment_bytes.to_string()).spawn().expect("start a child");
    let output = child.stdout.take().expect("its output");
    let told = BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "ready");
    if end != End::Clean {
        child.kill().expect("kill it");
    }
    let status = child.wait().expect("its end");
    assert!(told && status.success() == (end == End::Clean), "the child ended with {status}");
}

fn fill_and_end(path: &Path, count: u64, end: End) {
    let segment_bytes = std::env::var(SEGMENT_BYTES).ok().and_then(|bytes| bytes.parse().ok());
    let pond = Pond::open(path, Durability::Os, segment_bytes.expect("the length of a segment"));
    let group = pond.group();
    fill(&pond.topic, 0..count, LEN);
    match end {
        End::Clean => pond.store.close().expect("close"),
        End::KilledInQuiet => {
            pond.store.sync().expect("sync");
            // The background jobs finish what is due, and mark the end.
            rest(pick(Duration::from_secs(1), Duration::from_millis(200)));
        }
        End::KilledAtFullRate => {}
    }
    say("ready");
    if end == End::KilledAtFullRate {
        // Bounded, in case nobody kills it.
        (0..pick(40_000_000, 100_000)).for_each(|_| drop(pond.topic.publish(Message::new([7; LEN])).expect("publish")));
    }
    if end != End::Clean {
        // Until the parent kills this process, or is gone itself.
        let _ = std::io::stdin().read(&mut [0]);
    }
    drop(group);
}

/// Has another process open the store at `path`, take one message, settle it and close.
pub(crate) fn open_in_child(path: &Path) -> Opened {
    let [open, first_delivery, private_bytes, segments, waiting] = ask(command("open", path, 0), "opened ");
    let (open, first_delivery) = (Duration::from_nanos(open), Duration::from_nanos(first_delivery));
    Opened { open, first_delivery, private_bytes, segments, waiting }
}

/// The numbers that a child prints behind `mark`.
fn ask<const N: usize>(mut child: Command, mark: &str) -> [u64; N] {
    let output = child.output().expect("run a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "the child failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers = text.lines().find_map(|line| line.strip_prefix(mark)).expect("the child's answer");
    let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("as many numbers as were asked for")
}

/// Private memory that a store added to a fresh process.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// With messages that wait.
    pub(crate) waiting: u64,
    /// With as many of them handed out as may be, and their deliveries in the caller's hands.
    pub(crate) outstanding: u64,
    /// How many were handed out.
    pub(crate) deliveries: u64,
}

/// Has another process fill a new store at `path` with `count` messages and take as many of them as a group may have out.
pub(crate) fn hold_in_child(path: &Path, count: u64) -> Held {
    let [waiting, outstanding, deliveries] = ask(command("hold", path, count), "held ");
    Held { waiting, outstanding, deliveries }
}

fn hold_and_tell(path: &Path, count: u64) {
    let before = machine::private_bytes();
    let added = || machine::private_bytes().saturating_sub(before);
    let pond = Pond::open(path, Durability::Os, 64 << 20);
    let group = pond.group();
    pond.fill(0..count);
    pond.store.sync().expect("sync");
    let waiting = added();
    let mut held = Vec::new();
    while let Some(delivery) = group.receive(Duration::ZERO).expect("receive") {
        held.push(delivery);
    }
    let outstanding = added();
    assert_eq!(pond.lag(), count, "none is settled");
    say(&format!("held {waiting} {outstanding} {}", held.len()));
    pond.store.close().expect("close");
    // Given back too late: the store is closed.
    drop(held);
}

fn open_and_tell(path: &Path) {
    let before = machine::private_bytes();
    let start = now();
    let store = Store::options().durability(Durability::Os).open(path).expect("open");
    let open = start.elapsed();
    let private_bytes = machine::private_bytes().saturating_sub(before);
    let topic = store.topic(super::pond::TOPIC).open().expect("open the topic");
    let delivery = take(&group_of(&topic));
    let first_delivery = start.elapsed();
    let stats = store.stats().expect("stats");
    // The one in hand is not settled yet.
    let waiting = stats.topics.first().and_then(|topic| topic.groups.first()).map_or(0, |group| group.lag);
    let segments = stats.log.segments;
    delivery.ack().expect("ack");
    say(&format!("opened {} {} {private_bytes} {segments} {waiting}", open.as_nanos(), first_delivery.as_nanos()));
    store.close().expect("close");
}
