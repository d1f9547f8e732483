//! The live view, on a terminal and off it.

use super::Shell;
use super::pty::Pty;
use millpond::Store;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn with_groups() -> Shell {
    let shell = Shell::new();
    shell.ok(&["topics", "create", "orders"]);
    shell.ok(&["topics", "create", "audit"]);
    shell.ok(&["groups", "create", "orders", "kitchen", "--max-attempts", "1"]);
    shell.ok(&["groups", "create", "orders", "bar"]);
    shell.fed(&["publish", "orders"], "soup\nbread\ntea\n");
    shell.ok(&["consume", "orders", "kitchen", "-n", "1", "--settle", "reject"]);
    shell
}

#[test]
fn top_off_a_terminal_prints_one_table() {
    let shell = with_groups();
    for args in [&["top", "--interval", "100ms"][..], &["top", "--once", "--interval", "100ms"]] {
        let table = shell.ok(args);
        let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            cells[0],
            ["TOPIC", "GROUP", "IN/S", "OUT/S", "LAG", "READY", "LEASED", "WAITING", "DEAD", "OLDEST"]
        );
        assert_eq!(cells[1][..9], ["orders", "bar", "0", "0", "3", "3", "0", "0", "0"]);
        assert_eq!(cells[2][..9], ["orders", "kitchen", "0", "0", "2", "2", "0", "0", "1"]);
        assert_eq!(cells[3][..], ["audit", "-", "0", "-", "0", "0", "0", "0", "0", "-"]);
        assert_eq!(cells.len(), 4);
    }
    let one = ["top", "--once", "--interval", "100ms", "--sort", "dead", "--filter", "ORD"];
    let groups: Vec<String> =
        shell.json(&one).iter().map(|row| row["group"].as_str().unwrap_or("-").to_owned()).collect();
    assert_eq!(groups, ["kitchen", "bar"]);
    let ran = shell.run(&["top", "--interval", "99ms"]);
    assert!(ran.code == 2 && ran.err.contains("100ms or more"), "{}", ran.err);
}

/// Each line is a group of a store in use; what is published there has a rate.
#[test]
fn top_follows_a_store_in_use_as_json() {
    let shell = with_groups();
    let store = Store::open(shell.store()).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let mut top = shell.command(&["--output", "json", "top", "--interval", "100ms", "--filter", "bar"]);
    let mut top = top.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first["topic"], &first["group"], &first["lag"]), (&"orders".into(), &"bar".into(), &3.into()));
    topic.publish_batch(["cake", "pie"]).unwrap();
    store.sync().unwrap();
    // The watermark is in the log with what comes after it.
    topic.publish("rice").unwrap();
    let seen = std::iter::repeat_with(&mut next).find(|row| row["lag"].as_u64() >= Some(5)).unwrap();
    assert!(seen["published_per_s"].as_f64() > Some(0.0), "{seen}");
    assert_eq!(seen["settled_per_s"].as_f64(), Some(0.0));
    let leased = topic.group("bar").open().unwrap().receive_batch(5, std::time::Duration::ZERO).unwrap();
    assert!(leased.ack().unwrap().is_empty());
    store.close().unwrap();
    let settled = std::iter::repeat_with(&mut next).find(|row| row["lag"].as_u64() == Some(1)).unwrap();
    assert!(settled["settled_per_s"].as_f64() > Some(0.0), "{settled}");
    let stop = format!("kill -s INT {}", top.id());
    assert!(Command::new("/bin/sh").args(["-c", &stop]).status().unwrap().success());
    assert_eq!(top.wait().unwrap().code(), Some(0));
}

#[test]
fn top_on_a_terminal_obeys_keys_and_leaves_it_as_it_was() {
    let shell = with_groups();
    for (size, is_wide) in [((80, 24), false), ((200, 50), true)] {
        let mut terminal = Pty::run(shell.command(&["top", "--interval", "100ms"]), size);
        terminal.wait_for("/ filter");
        let shown = terminal.lines().join("\n");
        assert!(terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
        assert!(shown.contains("2 groups, lag 5, dead 1") && shown.contains("rows 1 to 3 of 3"), "{shown}");
        assert_eq!(shown.contains("WAITING"), is_wide, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(size.0)));
        assert!(!terminal.has_first_modes(), "keys are given at once");

        terminal.press("/Kit");
        terminal.wait_for("rows 1 to 1 of 1, sorted by LAG, highest first, filter: kit_");
        assert!(!terminal.screen().contents().contains("bar"));
        terminal.press("\r\x1b[C");
        terminal.wait_for("sorted by OLDEST, highest first, filter: kit");
        terminal.press("q");
        terminal.read_to_end();
        assert_eq!(terminal.exit_code(), Some(0));
        assert!(terminal.has_first_modes());
        assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
        assert_eq!(terminal.screen().contents(), "", "what was there before is there again");
    }
}

#[test]
fn interrupts_of_top_leave_the_terminal_as_it_was() {
    let shell = with_groups();
    for signal in [None, Some("INT"), Some("TERM")] {
        let mut terminal = Pty::run(shell.command(&["top"]), (80, 24));
        terminal.wait_for("/ filter");
        match signal {
            // Ctrl-C is a key there.
            None => terminal.press("\x03"),
            Some(signal) => {
                let stop = format!("kill -s {signal} {}", terminal.id());
                assert!(Command::new("/bin/sh").args(["-c", &stop]).status().unwrap().success());
            }
        }
        terminal.read_to_end();
        assert!(terminal.exit_code() == Some(0) && terminal.has_first_modes());
        assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
    }
}

#[test]
fn top_ends_when_its_terminal_is_gone() {
    let shell = with_groups();
    let mut terminal = Pty::run(shell.command(&["top", "--interval", "100ms"]), (80, 24));
    terminal.wait_for("/ filter");
    assert_eq!(terminal.hang_up().wait().unwrap().code(), Some(1));
}
