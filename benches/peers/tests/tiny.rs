//! Every workload on every queue, with next to nothing to do: figures without faults, and a page. The servers where they are installed.

use std::path::Path;
use std::process::Command;

const WORKLOADS: [&str; 11] = [
    "publish-one",
    "publish-by-100",
    "durable-one",
    "durable-by-100",
    "durable-64-threads",
    "receive-one",
    "receive-by-100",
    "live",
    "open-clean",
    "open-killed",
    "disk-bytes",
];
const DURABLE: [&str; 3] = ["durable-one", "durable-by-100", "durable-64-threads"];
const PUBLISHING: [&str; 5] = ["publish-one", "publish-by-100", "durable-one", "durable-by-100", "durable-64-threads"];

fn all_workloads(queue: &str, cannot: &[&str]) {
    // Not the temporary directory of the system, which may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let page = dir.path().join("page.md");
    let output = Command::new(env!("CARGO_BIN_EXE_millpond-peers"))
        .args(["--tiny", "--only", queue, "--dir"])
        .arg(dir.path().join("data"))
        .arg("--out")
        .arg(&page)
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    if text.contains("is not installed here") {
        return;
    }

    for workload in WORKLOADS {
        let line = text.lines().find(|line| line.split_whitespace().take(2).eq([workload, queue]));
        if cannot.contains(&workload) {
            assert_eq!(line, None);
            continue;
        }
        let line = line.unwrap_or_else(|| panic!("{queue} did not run {workload}:\n{text}"));
        let verdict = line.split_whitespace().nth(2).expect("a verdict");
        // A slow machine may not reach the rate of the paced workload.
        assert!(verdict != "failed:" && (verdict != "-" || workload == "live"), "{line}");
        for fault in ["lost", "too many", "changed", "empty"] {
            assert!(!line.contains(fault), "{line}");
        }
    }
    check_page(&page, queue);
    assert_eq!(
        std::fs::read_dir(dir.path().join("data")).expect("the directory of the data").count(),
        0,
        "runs clean up"
    );
}

fn check_page(page: &Path, queue: &str) {
    let text = std::fs::read_to_string(page).expect("the page");
    assert!(text.contains(&format!("| {queue} |")));
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "no paths of this machine on the page");
    for workload in WORKLOADS {
        assert!(text.contains(&format!("(plots/{workload}.svg)")));
        let plot =
            std::fs::read_to_string(page.with_file_name("plots").join(format!("{workload}.svg"))).expect("a plot");
        assert!(plot.ends_with("</svg>\n"));
    }
}

#[test]
fn millpond() {
    all_workloads("millpond", &[]);
}

#[test]
fn yaque() {
    all_workloads("yaque", &DURABLE);
}

#[test]
fn walrus_mapped() {
    all_workloads("walrus-mapped", &[]);
}

#[test]
fn walrus_fd() {
    all_workloads("walrus-fd", &[]);
}

#[test]
fn queue_file() {
    all_workloads("queue-file", &[]);
}

#[test]
fn okaywal() {
    let cannot: Vec<&str> = WORKLOADS.into_iter().filter(|workload| !PUBLISHING.contains(workload)).collect();
    all_workloads("okaywal", &cannot);
}

#[test]
fn raft_engine() {
    all_workloads("raft-engine", &[]);
}

#[test]
fn sled() {
    all_workloads("sled", &DURABLE);
}

#[test]
fn redb() {
    all_workloads("redb", &[]);
}

#[test]
fn fjall() {
    all_workloads("fjall", &[]);
}

#[test]
fn sqlite() {
    all_workloads("sqlite", &[]);
}

#[test]
fn redis() {
    all_workloads("redis", &[]);
}

#[test]
fn nats() {
    all_workloads("nats", &DURABLE);
}

#[test]
fn beanstalkd() {
    all_workloads("beanstalkd", &[]);
}
