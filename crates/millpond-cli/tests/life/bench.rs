//! The benchmark of a disk.

use super::Shell;
use super::pty::Pty;
use std::process::Command;

#[test]
fn bench_measures_and_leaves_nothing() {
    let shell = Shell::new();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let is_empty = || std::fs::read_dir(folder.path()).unwrap().next().is_none();
    let options = ["bench", "--dir", dir, "-n", "103", "--size", "10", "--threads", "3", "--durability", "os"];
    for (batch, calls) in [("1", 103), ("10", 12)] {
        let phases = shell.json(&[&options[..], &["--batch", batch]].concat());
        assert_eq!(phases.len(), 2);
        for (phase, name) in phases.iter().zip(["publish", "receive and ack"]) {
            assert_eq!(
                (&phase["phase"], &phase["messages"], &phase["durability"]),
                (&name.into(), &103.into(), &"os".into())
            );
            assert_eq!((&phase["size"], &phase["threads"]), (&10.into(), &3.into()));
            assert!(
                phase["messages_per_s"].as_f64() > Some(0.0) && phase["p50_us"].as_u64() <= phase["max_us"].as_u64()
            );
        }
        assert_eq!(phases[0]["calls"], calls);
        assert!(is_empty());
    }
    let text = shell.ok(&["bench", "--dir", dir, "-n", "20"]);
    assert!(text.starts_with("durability disk, 100 bytes a message, batches of 1, 1 thread\n"), "{text}");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["MESSAGES", "MESSAGES/S", "MIB/S", "CALLS", "P50", "P99", "P99.9", "MAX"]);
    assert!(rows[2][..2] == ["publish", "20"] && rows[3][..4] == ["receive", "and", "ack", "20"], "{text}");
    shell.fails(1, "could not make a directory in /nowhere/at/all", &["bench", "--dir", "/nowhere/at/all"]);
    shell.fails(2, "bytes", &["bench", "--dir", dir, "--size", "16777216", "-n", "1"]);
    assert!(is_empty());
}

#[test]
fn interrupt_of_bench_leaves_nothing() {
    let (shell, folder) = (Shell::new(), tempfile::tempdir().unwrap());
    let options = ["bench", "--dir", folder.path().to_str().unwrap(), "-n", "1000000000"];
    let mut terminal = Pty::run(shell.command(&options), (200, 24));
    terminal.wait_for("left");
    let stop = format!("kill -s INT {}", terminal.id());
    assert!(Command::new("/bin/sh").args(["-c", &stop]).status().unwrap().success());
    terminal.read_to_end();
    assert_eq!(terminal.exit_code(), Some(0));
    assert!(terminal.screen().contents().contains("publish "), "what was measured by then is told");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
