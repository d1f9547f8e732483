//! Kill -9: processes die at random moments in one directory, and what the store promised to each of them holds.
//!
//! This binary runs itself as the child (see `child`); the parent listens (see `oracle`), kills, and checks. Damage
//! piles up in one directory. `MILLPOND_KILLS` sets the number of kills, `MILLPOND_SEED` the moments. Then the same at named
//! points, `MILLPOND_KILL_POINTS` of each kind of request to the disk (see `points`).

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "how long a level took is noted; nothing is decided by it")]

mod child;
#[path = "../common/counts.rs"]
mod counts;
#[path = "../common/memory.rs"]
mod memory;
mod oracle;
mod payload;
mod points;
#[path = "../common/watched.rs"]
mod watched;

use oracle::Oracle;
use payload::{Number, Random, number_of};
use points::Point;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const KILLS: u32 = 50;
/// After how many kills everything is checked, at least: a check reads the whole log, which grows.
const CHECK_STEP: u32 = 10;
const CHECKS_MAX: u32 = 20;
/// How often the derived files are removed as well.
const STRIP_STEP: u32 = 50;
const KILL_AFTER_MS_MAX: u64 = 60;
const SIGKILL: i32 = 9;

/// What the child does: `work ROUND`, `fill COUNT`, or `point ROUND` with a point.
const TASK: &str = "MILLPOND_KILL_TASK";
const DIR: &str = "MILLPOND_KILL_DIR";

/// Not a test: the body of the child.
#[test]
fn child_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let dir = std::env::var_os(DIR).expect("the parent names a directory");
    let mut words = task.splitn(3, ' ');
    let verb = words.next().expect("a verb");
    let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
    match verb {
        "work" => child::work(dir.as_ref(), number),
        "fill" => child::fill(dir.as_ref(), number),
        "point" => points::work(dir.as_ref(), number, words.next().and_then(Point::parse)),
        _ => panic!("{task}: unknown"),
    }
}

/// Starts a child and returns it with its lines; the channel ends when the child is dead.
fn spawn(dir: &Path, task: &str) -> (Child, Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
        .args(["child_process", "--exact", "--nocapture", "--quiet"])
        .env(TASK, task)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let (lines, heard) = channel();
    thread::spawn(move || {
        let mut line = String::new();
        // What does not end with a newline was cut off by the kill.
        while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if lines.send(line.trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    (child, heard)
}

/// Kills the child `delay` after it said `cue`, hears it to the end, and makes sure that it died of the kill.
fn kill_after(mut child: Child, lines: &Receiver<String>, cue: &str, delay: Duration, mut hear: impl FnMut(&str)) {
    for line in lines {
        hear(&line);
        if line == cue {
            break;
        }
    }
    let (is_over, over) = channel::<()>();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            // Nobody sends: this waits for the delay, or less where the child ends by itself.
            let _ = over.recv_timeout(delay);
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for")
        });
        lines.iter().for_each(|line| hear(&line));
        drop(is_over);
        let status = killer.join().expect("the killer lives");
        assert_eq!(status.signal(), Some(SIGKILL), "the child ended by itself: {status}");
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn remove_indexes(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("the store is there") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            std::fs::remove_file(path).expect("it can be removed");
        }
    }
}

/// G1 to G8, G11, G17.
#[test]
fn what_was_promised_survives_kill_9() {
    let began = Instant::now();
    let kills = u32::try_from(setting("MILLPOND_KILLS", KILLS.into())).expect("not so many");
    let mut random = Random(setting("MILLPOND_SEED", 1));
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let mut oracle = Oracle::default();
    for round in 0..kills {
        oracle.begin_round();
        let (child, lines) = spawn(&store, &format!("work {round}"));
        let delay = Duration::from_micros(random.below(KILL_AFTER_MS_MAX * 1_000));
        // Every fourth time the recovery is in danger, otherwise the work after it.
        let cue = if round % 4 == 3 { "start" } else { "open" };
        kill_after(child, &lines, cue, delay, |line| oracle.hear(line));
        check_at_times(&mut oracle, round, CHECK_STEP.max(kills / CHECKS_MAX), &store);
    }
    oracle.check(&store);
    oracle.assert_busy();
    let counted = [[("kills", kills.into())].as_slice(), &oracle.counts()].concat();
    counts::note("kill-9", began.elapsed(), &counted);
}

fn check_at_times(oracle: &mut Oracle, round: u32, step: u32, store: &Path) {
    if round % STRIP_STEP == STRIP_STEP - 1 {
        remove_indexes(store);
    }
    if round % step == step - 1 {
        oracle.check(store);
    }
}

/// The oracle itself: it must complain about each broken promise that it is told of, or it is worth nothing.
#[test]
fn the_oracle_complains() {
    let broken = [
        ("G4", "got 0/0/0@1 5"),
        ("G4", "try 5 1|got 0/0/0@1 6"),
        ("G6", "try 5 1|ok Os 5 0/0/0@1|got 0/0/0@1 5|ack 0/0/0@1|next|got 0/0/0@1 5"),
        ("G8", "try 5 1|ok Os 5 0/0/0@1|got 0/0/0@1 5|got 0/0/0@1 5"),
        ("G11", "try 5 2|ok Os 5 0/0/0@1 0/0/0@1"),
        ("G11", "try 5 1|ok Os 5 0/0/0@1|next|try 7 1|ok Os 7 0/0/0@1"),
        ("G11", "try 5 2|got 0/0/0@1 5|ok Disk 5 0/0/1@1 0/0/0@1"),
    ];
    for (guarantee, lines) in broken {
        let mut oracle = Oracle::default();
        let hear = |line: &str| if line == "next" { oracle.begin_round() } else { oracle.hear(line) };
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lines.split('|').for_each(hear)));
        let complaint = heard.expect_err("it has to complain");
        let text = complaint.downcast_ref::<String>().expect("a panic with a text");
        assert!(text.contains(guarantee), "{lines}: {text}");
    }
}

/// The oracle, shown a store of one message, and told of something else.
#[test]
fn the_oracle_misses_what_is_not_there() {
    let number = Number { round: 0, thread: 0, index: 0 };
    let (word, next) = (number.to_word(), number.plus(1).to_word());
    let broken = [
        ("G1", format!("try {word} 2|ok Os {word} ID 0/0/9@1")),
        ("G1", format!("try {word} 2|got ID {word}|got 0/0/9@1 {next}|ack 0/0/9@1|ok Os {word} ID 0/0/9@1")),
        ("G3", format!("try {word} 2")),
        ("G4", String::new()),
        ("G6", format!("try {word} 1|got ID {word}|ack ID")),
        ("G11", format!("try {word} 2|got ID {next}")),
    ];
    for (guarantee, lines) in broken {
        let dir = tempfile::tempdir().expect("a directory");
        let topic = child::open_topic(&child::open_store(dir.path(), millpond::Durability::Os));
        let id = topic.publish(payload::payload(number)).expect("it publishes").id().to_string();
        drop(topic);
        let mut oracle = Oracle::default();
        lines.split('|').for_each(|line| oracle.hear(&line.replace("ID", &id)));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| oracle.check(dir.path())));
        let complaint = checked.expect_err("it has to complain");
        let text = complaint.downcast_ref::<String>().expect("a panic with a text");
        assert!(text.contains(guarantee), "{lines}: {text}");
    }
}

/// G1: the very first moments of a store, killed again and again.
#[test]
fn a_store_survives_a_kill_while_it_is_created() {
    let mut random = Random(setting("MILLPOND_SEED", 2));
    for _ in 0..20 {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("store");
        let mut oracle = Oracle::default();
        for round in 0..2 {
            oracle.begin_round();
            let (child, lines) = spawn(&store, &format!("work {round}"));
            let delay = Duration::from_micros(random.below(4_000));
            kill_after(child, &lines, "start", delay, |line| oracle.hear(line));
        }
        oracle.check(&store);
    }
}

/// G1 at `Os`: the death of the process takes nothing.
#[test]
fn a_hundred_thousand_messages_at_os_survive_kill_9() {
    const COUNT: u32 = 100_000;
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let (child, lines) = spawn(&store, &format!("fill {COUNT}"));
    kill_after(child, &lines, "filled", Duration::ZERO, |_| ());

    let store = child::open_store(&store, millpond::Durability::Os);
    let reader = child::open_workers(&child::open_topic(&store));
    let mut there = vec![false; COUNT as usize];
    loop {
        let batch = reader.receive_batch(1_000, Duration::ZERO).expect("it receives");
        if batch.is_empty() {
            break;
        }
        for delivery in batch.iter() {
            let Some(Number { round: 0, thread: 0, index }) = number_of(delivery.payload()) else {
                panic!("G4: {} was never published", delivery.id())
            };
            assert!(!std::mem::replace(&mut there[index as usize], true), "{index} was delivered twice");
        }
        assert!(batch.ack().expect("it acks").is_empty());
    }
    assert_eq!(there.iter().filter(|there| !**there).count(), 0, "G1: so many are missing");
}
