//! The command's whole life, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "life/bench.rs"]
mod bench;
#[path = "life/pty.rs"]
mod pty;
#[path = "life/sqlite.rs"]
mod sqlite;
#[path = "life/top.rs"]
mod top;

use millpond::Store;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Shell {
    folder: tempfile::TempDir,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Shell {
    fn new() -> Self {
        let shell = Self { folder: tempfile::tempdir().unwrap() };
        shell.ok(&["init"]);
        shell
    }

    fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg("--store").arg(self.store()).args(args).env_remove("MILLPOND_STORE");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    fn fed(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
        let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let ran = child.wait_with_output().unwrap().into();
        drop(feeder.join());
        ran
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// What it printed with `--output json`.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.ok(&[&["--output", "json"], args].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn fails(&self, code: i32, with: &str, args: &[&str]) {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(with) && ran.err.starts_with("millpond: "), "{args:?}: {}", ran.err);
    }

    /// Lag and dead letters of the one group.
    fn left(&self) -> (u64, u64) {
        let groups = self.json(&["groups"]);
        (groups[0]["lag"].as_u64().unwrap(), groups[0]["dead"].as_u64().unwrap())
    }
}

#[test]
fn messages_live_and_die_by_the_command() {
    let shell = Shell::new();
    shell.fails(2, "is a store already", &["init"]);
    shell.ok(&["topics", "create", "orders", "--partitions", "2"]);
    shell.ok(&["groups", "create", "orders", "kitchen", "--max-attempts", "1"]);
    let many: String = (0..100_000).map(|nth| format!("order {nth}\n")).collect();
    assert_eq!(shell.fed(&["publish", "orders"], &many).out, "published 100000 messages\n");
    assert_eq!(shell.left(), (100_000, 0));

    // One at a time: acked by 0, failed by anything else, which is its last attempt here.
    let script = r#"read order; test "$MILLPOND_ATTEMPT" = 1 && case "$order" in *3) echo "no oven for $order" >&2; exit 9;; esac"#;
    let done = shell.json(&["consume", "orders", "kitchen", "-n", "40", "--exec", script]);
    let failed = done.iter().filter(|line| line["outcome"] == "failed").count();
    assert_eq!((done.len(), failed), (40, 4));
    assert_eq!(shell.left(), (99_960, 4));
    let seen = shell.ok(&["consume", "orders", "kitchen", "-n", "2"]);
    assert_eq!((seen.lines().count(), shell.left()), (2, (99_958, 4)));
    shell.ok(&["consume", "orders", "kitchen", "-n", "2", "--settle", "leave"]);
    assert_eq!(shell.left(), (99_958, 4), "it is as it was");

    let letters = shell.json(&["dead-letters", "list", "orders", "kitchen"]);
    let text = letters[0]["history"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("exit 9: no oven for order ") && text.ends_with('3'), "{text}");
    let id = letters[0]["id"].as_str().unwrap();
    assert!(shell.ok(&["dead-letters", "show", "orders", "kitchen", id]).contains("no oven for order"));
    let dry = shell.json(&["dead-letters", "redrive", "orders", "kitchen", "--text", "oven", "--dry-run"]);
    assert_eq!((&dry.last().unwrap()["count"], shell.left().1), (&4.into(), 4), "nothing was changed");
    shell.fails(2, "nothing was changed; give --yes", &["dead-letters", "discard", "orders", "kitchen"]);
    shell.ok(&["dead-letters", "redrive", "orders", "kitchen", "--id", id, "--yes"]);
    assert_eq!(shell.left(), (99_959, 3));
    let none = shell.json(&["dead-letters", "discard", "orders", "kitchen", "--cause", "crashed", "--yes"]);
    assert_eq!((&none[0]["discarded"], &none[0]["left"]), (&0.into(), &3.into()));
    shell.ok(&["dead-letters", "discard", "orders", "kitchen", "--yes"]);
    assert_eq!(shell.left(), (99_959, 0));

    shell.fails(2, "100000 messages published", &["topics", "remove", "orders"]);
    shell.ok(&["topics", "remove", "orders", "--yes"]);
    assert!(shell.json(&["topics"]).is_empty());
    // And the library finds nothing wrong with it.
    let store = Store::options().create(false).open(shell.store()).unwrap();
    assert!(store.report().was_clean && store.stats().unwrap().topics.is_empty());
}

/// What is exported is imported as it was: keys, headers, bytes that are no text.
#[test]
fn an_export_comes_back() {
    let (shell, other) = (Shell::new(), Shell::new());
    shell.ok(&["topics", "create", "orders", "--forever"]);
    shell.ok(&["publish", "orders", "two pizzas", "-k", "table-7", "-H", "color=red", "--dedup-id", "1"]);
    assert!(
        shell
            .ok(&["publish", "orders", "two pizzas", "-k", "table-7", "-H", "color=red", "--dedup-id", "1"])
            .contains("before")
    );
    let file = shell.folder.path().join("bytes");
    std::fs::write(&file, [0xff, 0x00, b'\n']).unwrap();
    shell.ok(&["publish", "orders", "--file", file.to_str().unwrap()]);
    let export = shell.ok(&["export", "orders"]);
    assert_eq!(other.fed(&["import", "copy"], &export).out, "published 2 messages\n");
    let bare = |shell: &Shell, topic: &str| -> Vec<Value> {
        let mut lines = shell.json(&["tail", topic]);
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            ["id", "position", "timestamp_ms"].iter().for_each(|name| drop(line.remove(*name).unwrap()));
        }
        lines
    };
    assert_eq!(bare(&other, "copy"), bare(&shell, "orders"));
    assert_eq!(bare(&other, "copy")[0]["headers"][0]["value"], "red");
    let wrong = other.fed(&["import", "copy"], "{\"payload\": \"a\"}\nno JSON\n");
    assert!(wrong.code == 2 && wrong.err.contains("line 2"), "{}", wrong.err);
    let position = shell.json(&["tail", "orders", "-n", "1"])[0]["position"].as_str().unwrap().to_owned();
    assert_eq!(shell.json(&["tail", "orders", "--after", &position]).len(), 1);
}

/// Lines are gathered by their bytes as well: what was exported can be imported, whatever its size. A line that is refused is told with
/// what was published before.
#[test]
fn large_lines_go_through_and_refused_ones_are_told() {
    let (shell, other) = (Shell::new(), Shell::new());
    shell.ok(&["topics", "create", "big"]);
    let line = "x".repeat(900_000);
    let many: String = (0..40).map(|_| format!("{line}\n")).collect();
    assert_eq!(shell.fed(&["publish", "big"], &many).out, "published 40 messages\n");
    let export = shell.ok(&["export", "big"]);
    assert_eq!(other.fed(&["import", "copy"], &format!("\n{export}\n")).out, "published 40 messages\n");
    let refused = other.fed(&["publish", "copy"], &format!("small\n{}\n", "x".repeat(5 << 20)));
    assert!(
        refused.code == 1 && refused.err.contains("from line 2 on none was published, 1 were before"),
        "{}",
        refused.err
    );
}

/// An exit code decides: 0 acks, 75 asks for the message later, any other fails the attempt with what was said on the errors.
#[test]
fn exit_codes_decide_about_messages() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["groups", "create", "orders", "kitchen"]);
    shell.ok(&["publish", "orders", "soup", "-k", "table-7", "-H", "color=red"]);
    let payload = "test \"$(cat)\" = soup && test $MILLPOND_KEY = table-7 && test $MILLPOND_HEADER_COLOR = red";
    let once = |script: &str| {
        let done = shell.json(&["consume", "orders", "kitchen", "-n", "1", "--exec", script]);
        done[0]["outcome"].as_str().unwrap().to_owned()
    };
    let waiting = || {
        let waiting = shell.json(&["peek", "orders", "kitchen", "--state", "waiting"]);
        let last = |message: &Value| message["history"].as_array().unwrap().last().unwrap()["text"].clone();
        waiting.iter().map(|message| (message["attempts"].clone(), last(message))).collect::<Vec<_>>()
    };
    assert_eq!(once(&format!("{payload} && {{ echo the oven is cold >&2; exit 75; }}")), "later");
    assert_eq!(waiting(), [(1.into(), "the oven is cold".into())]);
    assert_eq!(shell.ok(&["consume", "orders", "kitchen"]), "", "it is for later");
    shell.ok(&["publish", "orders", "bread"]);
    assert_eq!(once("echo first >&2; echo no flour >&2; exit 3"), "failed");
    assert_eq!(waiting().last(), Some(&(1.into(), "exit 3: no flour".into())));
    shell.ok(&["publish", "orders", "cake"]);
    assert_eq!(once("kill -s KILL $$"), "failed");
    assert!(waiting().last().unwrap().1.as_str().unwrap().starts_with("signal: 9"), "{:?}", waiting());
    shell.ok(&["publish", "orders", "tea"]);
    assert_eq!((once("true"), shell.left(), waiting().len()), ("acked".to_owned(), (3, 0), 3));
}

/// Each condition narrows the choice, and all must hold.
#[test]
fn dead_letters_are_chosen_by_key_cause_text_and_time() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["groups", "create", "orders", "kitchen", "--max-attempts", "1"]);
    for (payload, key) in [("soup", "table-1"), ("bread", "table-2"), ("soup", "table-2")] {
        shell.ok(&["publish", "orders", payload, "-k", key]);
    }
    shell.ok(&["consume", "orders", "kitchen", "-n", "1", "--settle", "reject"]);
    shell.ok(&["consume", "orders", "kitchen", "--exec", "echo no salt >&2; exit 1"]);
    let chosen = |conditions: &[&str]| {
        let dry = shell.json(&[&["dead-letters", "redrive", "orders", "kitchen", "--dry-run"], conditions].concat());
        let (summary, letters) = dry.split_last().unwrap();
        assert_eq!((&summary["of"], shell.left()), (&3.into(), (0, 3)), "nothing was changed");
        let name = |letter: &Value| format!("{}/{}", letter["payload"], letter["key"]).replace('"', "");
        letters.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[]).len(), 3);
    assert_eq!(chosen(&["--key", "table-2"]), ["bread/table-2", "soup/table-2"]);
    assert_eq!(chosen(&["--key", "table-2", "--text", "soup"]), ["soup/table-2"]);
    assert_eq!(chosen(&["--text", "no salt"]), ["bread/table-2", "soup/table-2"]);
    assert_eq!(chosen(&["--cause", "rejected"]), ["soup/table-1"]);
    assert_eq!(chosen(&["--cause", "nacked", "--newer", "1h", "--text", "soup"]), ["soup/table-2"]);
    assert!(chosen(&["--older", "1h"]).is_empty() && chosen(&["--key", "table-3"]).is_empty());
    shell.ok(&["dead-letters", "discard", "orders", "kitchen", "--key", "table-1", "--yes"]);
    assert_eq!(shell.left(), (0, 2));
}

/// What does not fail by itself costs no attempt: a command that is not there, an interrupt, a reader that goes away.
#[test]
fn no_attempt_is_charged_for_what_no_handler_did() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["groups", "create", "orders", "kitchen", "--max-attempts", "1"]);
    let many: String = (0..3_000).map(|nth| format!("{nth} {}\n", "x".repeat(50))).collect();
    shell.fed(&["publish", "orders"], &many);
    let ran = shell.run(&["consume", "orders", "kitchen", "--exec", "no-such-command-at-all"]);
    assert!(ran.code == 2 && ran.err.contains("could not run") && ran.out.is_empty(), "{}", ran.err);
    assert_eq!(shell.left(), (3_000, 0));

    // Once the command says that it runs, both are interrupted, as by Ctrl-C.
    let mut running = shell.command(&["consume", "orders", "kitchen", "--exec", "echo runs; exec sleep 600"]);
    let mut running = running.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "runs");
    let both = format!("kill -s INT -- -{}", running.id());
    assert!(Command::new("/bin/sh").args(["-c", &both]).status().unwrap().success());
    assert!(lines.next().unwrap().unwrap().ends_with("released"));
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(shell.left(), (3_000, 0));

    let mut child = shell.command(&["consume", "orders", "kitchen", "--settle", "leave"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let first = shell.json(&["consume", "orders", "kitchen", "-n", "1"]);
    assert_eq!((&first[0]["attempt"], shell.left()), (&1.into(), (2_999, 0)));
}

#[test]
fn a_paused_group_gets_nothing_until_it_is_resumed() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["groups", "create", "orders", "kitchen"]);
    shell.ok(&["publish", "orders", "one soup"]);
    shell.fails(4, "does not exist", &["pause", "orders", "bar"]);
    for _ in 0..2 {
        assert_eq!(shell.ok(&["pause", "orders", "kitchen"]), "paused group kitchen of topic orders\n");
        assert_eq!(shell.ok(&["consume", "orders", "kitchen"]), "");
        assert_eq!(shell.json(&["groups"])[0]["paused"], true);
    }
    for _ in 0..2 {
        assert_eq!(shell.ok(&["resume", "orders", "kitchen"]), "resumed group kitchen of topic orders\n");
        assert_eq!(shell.json(&["groups"])[0]["paused"], false);
    }
    assert!(shell.ok(&["consume", "orders", "kitchen"]).ends_with("one soup\n"));
}

#[test]
fn a_group_goes_back_and_ahead_and_asks_before() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders", "--forever"]);
    shell.ok(&["groups", "create", "orders", "kitchen"]);
    for payload in ["one", "two", "three"] {
        shell.ok(&["publish", "orders", payload]);
    }
    shell.ok(&["consume", "orders", "kitchen", "-n", "2"]);
    let to = |place| ["seek", "orders", "kitchen", "--to", place];
    shell.fails(2, "3 messages to settle instead of 1", &to("earliest"));
    let would = &shell.json(&[&to("earliest")[..], &["--dry-run"]].concat())[0];
    assert_eq!((&would["lag_before"], &would["lag"], &would["would_seek"]), (&1.into(), &3.into(), &"kitchen".into()));
    assert_eq!(shell.json(&["groups"])[0]["lag"], 1, "nothing was changed");
    let sought = &shell.json(&[&to("earliest")[..], &["--yes"]].concat())[0];
    assert_eq!((&sought["lag_before"], &sought["lag"], &sought["sought"]), (&1.into(), &3.into(), &"kitchen".into()));
    assert_eq!(shell.json(&["groups"])[0]["lag"], 3);
    let position = shell.json(&["tail", "orders"])[1]["position"].as_str().unwrap().to_owned();
    for (place, lag) in [("latest", 0), (&*position, 1), ("1h", 3), ("@99999999999999", 0)] {
        shell.ok(&[&to(place)[..], &["--yes"]].concat());
        assert_eq!(shell.json(&["groups"])[0]["lag"], lag, "{place}");
    }
    let ran = shell.run(&to("first"));
    assert!(ran.code == 2 && ran.err.contains("write earliest"), "{}", ran.err);
}

#[test]
fn streams_have_versions() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders", "--streams"]);
    assert_eq!(shell.ok(&["stream", "append", "orders", "7", "placed", "--expected", "none"]), "version 0\n");
    assert_eq!(shell.ok(&["stream", "append", "orders", "7", "paid", "--expected", "0"]), "version 1\n");
    shell.fails(
        1,
        "is at version 1, expected version 0",
        &["stream", "append", "orders", "7", "no", "--expected", "0"],
    );
    let events = shell.json(&["stream", "read", "orders", "7"]);
    let told: Vec<_> = events.iter().map(|event| (event["version"].as_u64(), event["payload"].as_str())).collect();
    assert_eq!(told, [(Some(0), Some("placed")), (Some(1), Some("paid"))]);
}

#[test]
fn who_has_the_store_and_what_is_missing_is_told_by_the_code() {
    let shell = Shell::new();
    shell.fails(4, "does not exist", &["publish", "orders", "m"]);
    shell.ok(&["topics", "create", "t"]);
    shell.ok(&["groups", "create", "t", "g"]);
    shell.fails(4, "no dead letter", &["dead-letters", "redrive", "t", "g", "--id", "0-0-0-4294967296", "--yes"]);
    shell.fails(4, "does not exist", &["topics", "remove", "orders", "--yes"]);
    assert_eq!(shell.run(&["fly"]).code, 2);
    let store = Store::open(shell.store()).unwrap();
    shell.fails(3, &std::process::id().to_string(), &["publish", "t", "m"]);
    store.close().unwrap();
    let nowhere =
        Command::new(env!("CARGO_BIN_EXE_millpond")).args(["-s", "/nowhere/at/all", "stats"]).output().unwrap();
    assert_eq!(Ran::from(nowhere).code, 4);
}

/// While an application has the store, all that only looks works, and sees what is durable.
#[test]
fn a_store_in_use_can_be_looked_into() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "t", "--forever"]);
    shell.ok(&["groups", "create", "t", "g", "--max-attempts", "1"]);
    let store = Store::open(shell.store()).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    topic.publish_batch(["one", "two", "three", "four"]).unwrap();
    let mut held = group.receive_batch(2, std::time::Duration::ZERO).unwrap().into_iter();
    held.next().unwrap().reject("no oven").unwrap();
    store.sync().unwrap();
    // The watermark is in the log with what comes after it.
    topic.publish("five").unwrap();
    topic.publish("six").unwrap();

    let mut tail = shell.command(&["tail", "-f", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for text in ["one", "two", "three", "four", "five"] {
        assert!(lines.next().unwrap().unwrap().ends_with(text));
    }
    let group = &shell.json(&["groups"])[0];
    assert_eq!((&group["leased"], &group["dead"]), (&1.into(), &1.into()));
    let ids = |state: &str| shell.json(&["peek", "t", "g", "--state", state]).len();
    assert_eq!((ids("leased"), ids("dead"), ids("waiting")), (1, 1, 0));
    assert!(ids("ready") >= 3);
    let letters = shell.json(&["dead-letters", "list", "t", "g", "--newer", "1h"]);
    assert_eq!((&letters[0]["payload"], &letters[0]["history"][0]["text"]), (&"one".into(), &"no oven".into()));
    assert!(shell.json(&["dead-letters", "list", "t", "g", "--older", "1h"]).is_empty());
    assert!(shell.ok(&["export", "t"]).lines().count() >= 5 && shell.ok(&["topics"]).contains("forever"));
    shell.fails(3, "is open in process", &["dead-letters", "redrive", "t", "g", "--yes"]);

    topic.publish("seven").unwrap();
    store.close().unwrap();
    assert!(lines.next().unwrap().unwrap().ends_with("six") && lines.next().unwrap().unwrap().ends_with("seven"));
    let stop = format!("kill -s INT {}", tail.id());
    assert!(Command::new("/bin/sh").args(["-c", &stop]).status().unwrap().success());
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}

/// A backup of a store in use verifies and is restored; a byte that is changed is named, with exit code 5.
#[test]
fn a_backup_is_verified_and_damage_is_named() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "t", "--forever"]);
    shell.ok(&["groups", "create", "t", "g"]);
    let store = Store::open(shell.store()).unwrap();
    let topic = store.topic("t").open().unwrap();
    topic.publish_batch((0..500).map(|nth: u32| format!("order {nth} {}", "x".repeat(900)))).unwrap();
    store.sync().unwrap();
    topic.publish("the last").unwrap();
    let to = shell.folder.path().join("backup");
    let to = to.to_str().unwrap();
    let first = &shell.json(&["backup", to])[0];
    assert!(first["bytes_copied"].as_u64().unwrap() > 450_000 && first["bytes_kept"] == 0);
    topic.publish("one more").unwrap();
    store.close().unwrap();
    drop((store, topic));
    let second = &shell.json(&["backup", to])[0];
    assert!(second["bytes_copied"].as_u64().unwrap() < 100_000 && second["bytes_kept"].as_u64().unwrap() > 450_000);
    assert!(shell.ok(&["verify"]).ends_with("nothing is wrong\n"));
    shell.fails(2, "is not empty", &["restore", to]);

    // It is restored into another place, which goes on as a store of its own.
    let restored = Shell::new();
    std::fs::remove_dir_all(restored.store()).unwrap();
    restored.ok(&["restore", to]);
    assert_eq!(restored.left(), (502, 0));
    assert_eq!(restored.json(&["verify"]).last().unwrap()["findings"], 0);
    let frames = restored.json(&["dump"]);
    assert!(frames.iter().any(|frame| frame["records"][0]["text"].as_str().unwrap().starts_with("Published")));
    restored.ok(&["publish", "t", "later", "--delay", "1h"]);
    let scheduled = restored.json(&["schedule", "list", "t"]);
    restored.ok(&["schedule", "cancel", "t", scheduled[0]["id"].as_str().unwrap()]);
    restored.fails(4, "not scheduled", &["schedule", "cancel", "t", scheduled[0]["id"].as_str().unwrap()]);
    assert_eq!((scheduled.len(), restored.json(&["schedule", "list", "t"]).len()), (1, 0));

    // The file that holds the first messages: a segment, or what a cleaning made of it.
    let files = std::fs::read_dir(restored.store()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "seg" || end == "msg")).collect();
    files.sort();
    let place = |path: &Path| std::fs::read(path).unwrap().windows(100).position(|some| some == [b'x'; 100]);
    let (segment, at) = files.into_iter().find_map(|path| Some((path.clone(), place(&path)?))).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let ran = restored.run(&["verify"]);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(ran.code == 5 && (ran.out.contains(name) || ran.err.contains(name)), "{} {}", ran.out, ran.err);
    assert!(
        restored.ok(&["repair"]).contains("nothing to be repaired"),
        "one message cannot be read, and the store opens"
    );

    // Its newest segment goes missing.
    let files = || std::fs::read_dir(restored.store()).unwrap().map(|entry| entry.unwrap().path());
    let newest = files().filter(|path| path.extension().is_some_and(|suffix| suffix == "seg")).max().unwrap();
    std::fs::remove_file(&newest).unwrap();
    restored.fails(5, "a segment is absent", &["publish", "t", "never"]);
    let plan = &restored.json(&["repair", "--dry-run"])[0];
    assert!(plan["is_end_lost"] == true && plan["lost"].as_array().unwrap().len() == 1, "{plan}");
    restored.fails(2, "nothing was changed", &["repair"]);
    restored.fails(5, "a segment is absent", &["publish", "t", "never"]);
    assert!(restored.ok(&["repair", "--yes"]).contains("the end of the log is lost"));
    restored.ok(&["publish", "t", "after the repair"]);
    let exported = restored.run(&["export", "t"]);
    assert!(exported.code == 5 && exported.err.contains("1 messages cannot be read"), "{}", exported.err);
    assert!(exported.out.contains("after the repair") && exported.out.lines().count() > 400);
}

/// Events stand below their causes, with what became of them.
#[test]
fn a_correlation_is_shown_as_a_tree() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["topics", "create", "mails"]);
    shell.ok(&["groups", "create", "mails", "sender", "--max-attempts", "1"]);
    let event = |topic: &str, id: &str, cause: Option<&str>, kind: &str| {
        let headers = [format!("ce_id={id}"), format!("ce_type={kind}"), "ce_correlationid=request-9".to_owned()];
        let cause = cause.map(|cause| format!("ce_causationid={cause}"));
        let mut args = vec!["publish", topic, "{}"];
        headers.iter().chain(&cause).for_each(|header| args.extend(["-H", header]));
        shell.ok(&args);
    };
    event("orders", "1", None, "order.placed");
    event("mails", "2", Some("1"), "mail.wanted");
    event("orders", "4", Some("1"), "order.paid");
    event("mails", "3", Some("2"), "mail.sent");
    shell.ok(&["publish", "orders", "{}", "-H", "ce_id=5", "-H", "ce_correlationid=other"]);
    shell.ok(&["consume", "mails", "sender", "-n", "1", "--settle", "reject"]);
    let is_told = || {
        let tree = shell.json(&["trace", "request-9"]);
        let told: Vec<_> =
            tree.iter().map(|node| (node["depth"].as_u64().unwrap(), node["type"].as_str().unwrap())).collect();
        assert_eq!(told, [(0, "order.placed"), (1, "mail.wanted"), (2, "mail.sent"), (1, "order.paid")]);
        assert!(tree[1]["groups"][0].as_str().unwrap().starts_with("dead in sender after 1 attempts, rejected: "));
        assert!(shell.ok(&["trace", "request-9"]).contains("    mail.sent"));
    };
    is_told();
    // What became a dead letter is told when the log has it no longer. Each open gives room back.
    let topics = (0..100).map(|nth| format!("other-{nth}"));
    let gone = topics.map(|name| shell.ok(&["topics", "create", &name]));
    assert!(gone.take_while(|_| shell.json(&["tail", "mails"]).len() > 1).count() < 100);
    is_told();
    shell.fails(4, "no event of correlation", &["trace", "nothing"]);
}

/// A reader that has seen enough closes the pipe: no complaint, and the store is closed as always.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "t", "--forever"]);
    let many: String = (0..20_000).map(|nth| format!("{nth} {}\n", "x".repeat(100))).collect();
    shell.fed(&["publish", "t"], &many);
    let mut child = shell.command(&["tail", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("xxx…"));
    drop(lines);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let store = Store::options().create(false).open(shell.store()).unwrap();
    assert!(store.report().was_clean);
}

#[test]
fn man_page_and_completions_come_from_the_same_definitions() {
    let shell = Shell::new();
    let man = shell.ok(&["man"]);
    for command in ["dead-letters", "consume", "probe", "export", "top", "bench"] {
        assert!(man.contains(&command.replace('-', "\\-")), "{command}");
        for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
            assert!(shell.ok(&["completions", name]).contains(command), "{command} in {name}");
        }
    }
    assert!(man.contains("Exit codes: 0 done"));
    assert!(shell.ok(&["man", "consume"]).contains("\\-\\-exec"));
    let page = shell.ok(&["man", "dead-letters", "redrive"]);
    assert!(page.contains("millpond\\-dead\\-letters\\-redrive") && page.contains("\\-\\-dry\\-run"), "{page}");
    shell.fails(4, "there is no command", &["man", "dead-letters", "fly"]);
}

#[test]
fn a_probe_measures_and_leaves_nothing() {
    let shell = Shell::new();
    let found = shell.json(&["probe", "--syncs", "5"]);
    assert!(found[0]["median_us"].as_u64() <= found[0]["max_us"].as_u64());
    let left = |path: &Path| {
        std::fs::read_dir(path).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains("probe"))
    };
    assert!(!left(&shell.store()));
}
