//! The copy of the source with all bugs in it, asleep.

use crate::{Bug, root, seam, target};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those of `tests` that find bugs.
pub const TESTS: &[&str] = &[
    "simulation",
    "model",
    "boundaries",
    "kinds",
    "failures",
    "full_disk",
    "costs",
    "corruption",
    "lifecycle",
    "transactions",
    "log_reader",
    "observer",
    "verify",
    "backup",
    "dedup",
    "schedule",
    "cleaning",
    "regressions",
    "retention",
    "cursors",
    "scenarios",
    "streams",
    "notices",
    "projections",
    "futures",
    "order",
    "filters",
    "seek",
    "repair",
    "topic_bound",
    "unique",
];

/// The test binaries of the copy.
#[derive(Debug)]
pub struct Built {
    pub library: PathBuf,
    pub tests: BTreeMap<&'static str, PathBuf>,
    /// Of a build with another scheduler, if a bug needs it.
    pub shuttle: Option<PathBuf>,
}

/// Goes behind the modules of the copy. The variable is read once: a process has one bug or none.
const SWITCH: &str = r#"
pub(crate) fn planted(name: &str) -> bool {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("MILLPOND_PLANTED_BUG").unwrap_or_default()) == name
}
"#;

/// What the copy has no use for, and what takes long to build.
const UNUSED: &[&str] = &["criterion", "hdrhistogram", "proc-macro2", "quote", "serde", "serde_json", "syn"];

pub fn build(bugs: &[Bug], needs_shuttle: bool) -> Built {
    let to = target().join("source");
    let _ = fs::remove_dir_all(&to);
    copy_tree(&root().join("src"), &to.join("src"));
    copy_tree(&root().join("tests"), &to.join("tests"));
    for file in ["Cargo.lock", "README.md"] {
        fs::copy(root().join(file), to.join(file)).unwrap();
    }
    fs::write(to.join("Cargo.toml"), manifest()).unwrap();
    plant(bugs, &to);
    let path = to.join("src/lib.rs");
    let library = fs::read_to_string(&path).unwrap();
    fs::write(&path, library + SWITCH).unwrap();
    let plain = compile(&to, TESTS, &["--lib"], "target", "-Awarnings");
    let shuttle = || compile(&to, &["shuttle"], &[], "target/shuttle", "-Awarnings --cfg millpond_shuttle");
    Built {
        library: executable(&plain, "millpond"),
        tests: TESTS.iter().map(|test| (*test, executable(&plain, test))).collect(),
        shuttle: needs_shuttle.then(|| executable(&shuttle(), "shuttle")),
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The package alone, without its benchmarks, its examples and what the copied tests do not need.
fn manifest() -> String {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut kept = String::new();
    let mut skipping = false;
    for line in text.lines() {
        if line.starts_with('[') {
            skipping = ["[[bench]]", "[[example]]", "[workspace]"].contains(&line);
        }
        let unused = UNUSED.iter().any(|name| line.starts_with(&format!("{name} =")));
        if !skipping && !unused {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept + "\n[workspace]\n"
}

/// The files under `src` and their texts.
pub fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files.sort();
    files
}

/// The paths of the tests in a file of the source: its modules, and the name after each `#[test]`.
pub fn tests(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut module: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    if text.contains("\nmod tests {") {
        module.push("tests");
    }
    let names = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| format!("{}::{name}", module.join("::"))).collect()
}

/// The file, from `src` on, in which the seam of this name is.
pub fn file_of(name: &str) -> String {
    let (path, _) = sources().into_iter().find(|(_, text)| seam::names(text).any(|seam| seam == name)).unwrap();
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Puts every bug in its place, all at once.
fn plant(bugs: &[Bug], to: &Path) {
    for (path, text) in sources() {
        let mut planted = text.clone();
        // From the last to the first: of two seams at one place the upper one comes first in the copy too.
        for name in seam::names(&text).collect::<Vec<_>>().into_iter().rev() {
            let bug = bugs.iter().find(|bug| bug.name == name).unwrap();
            planted = seam::plant(&planted, name, bug.mistake).unwrap();
        }
        fs::write(to.join(path.strip_prefix(root()).unwrap()), planted).unwrap();
    }
}

/// Builds tests of the copy. Returns what cargo says of them.
fn compile(source: &Path, tests: &[&str], more: &[&str], folder: &str, flags: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--release", "--no-run"])
        .args(more)
        .args(tests.iter().flat_map(|test| ["--test", test]))
        .args(["--offline", "--message-format", "json-render-diagnostics"])
        .current_dir(source)
        .env("CARGO_TARGET_DIR", target().join(folder))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("RUSTFLAGS", flags)
        .output()
        .unwrap();
    assert!(output.status.success(), "the copy does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn executable(messages: &str, name: &str) -> PathBuf {
    let of = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let built = message["target"]["name"] == name && message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| built).map(PathBuf::from)
    };
    messages.lines().find_map(of).unwrap_or_else(|| panic!("no test binary {name}"))
}
