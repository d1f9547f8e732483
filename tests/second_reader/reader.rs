//! Runs `reader.py`, in one process for many stores.
//!
//! Never here: what the library makes of a store.

use millpond::simulation::SimDisk;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// One partition as the reader finds it.
#[derive(Clone, Debug, Deserialize)]
pub struct Partition {
    pub end: u64,
    /// By offset: id and fingerprint.
    pub messages: BTreeMap<u64, (String, String)>,
    /// Messages with a key that belong into another partition.
    #[serde(rename = "keyed elsewhere")]
    pub keyed_elsewhere: Vec<u64>,
}

/// What a group has still to settle.
#[derive(Clone, Debug, Deserialize)]
pub struct Unsettled {
    /// How many there are, readable or not.
    pub count: u64,
    /// Origin and fingerprint of those that can be read.
    pub items: Vec<(String, String)>,
}

/// What the reader says of a store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Judged {
    pub name: String,
    /// `opens`, `laid out`, or the error's name.
    pub verdict: String,
    pub file: Option<String>,
    pub byte: Option<u64>,
    pub lsns: Option<(u64, u64)>,
    pub what: String,
    pub end: u64,
    pub watermark: u64,
    pub checkpoint: u64,
    pub clean: bool,
    pub dropped: Option<(String, u64, u64)>,
    pub ignored: usize,
    pub state: String,
    /// There are frames that no writer makes, and the page does not say which messages are read.
    #[serde(rename = "left open")]
    pub left_open: bool,
    pub topics: BTreeMap<String, Vec<Partition>>,
    pub groups: BTreeMap<String, Unsettled>,
    /// Index files that are of no use, with the reason.
    pub useless: BTreeMap<String, String>,
    /// The newest checkpoint, and in hex the state that the one before it and the log give.
    pub older: Option<(String, String)>,
}

/// A store for both readers.
pub struct Case {
    pub name: String,
    /// The case whose files most of its own are equal to: one of [`run`]'s `bases`.
    pub base: Option<usize>,
    pub make: Box<dyn Fn() -> SimDisk + Send + Sync>,
}

impl Case {
    pub fn whole(name: impl Into<String>, disk: SimDisk) -> Self {
        Self { name: name.into(), base: None, make: Box::new(move || disk.snapshot()) }
    }
}

/// Whether Python is there. Without it nothing is compared: that is said, and is a failure where `MILLPOND_REQUIRE_PYTHON` is set.
pub fn is_there() -> bool {
    let found = Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]).output();
    let why = match found {
        Ok(output) if output.status.success() => return true,
        Ok(_) => "python3 is older than 3.8".to_owned(),
        Err(error) => format!("python3 cannot be run: {error}"),
    };
    assert!(std::env::var_os("MILLPOND_REQUIRE_PYTHON").is_none(), "the second reader needs Python: {why}");
    // Not by `println!`, which shows nothing of tests that pass.
    writeln!(std::io::stderr(), "SKIPPED: the second reader: {why}").expect("stderr takes a line");
    false
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What makes one file of another: its length, and where the bytes begin and what they are that differ.
fn change(old: &[u8], new: &[u8]) -> Value {
    let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
    let first = (0..new.len()).find(|at| byte(old, *at) != new[*at]).unwrap_or(new.len());
    let last = (first..new.len()).rfind(|at| byte(old, *at) != new[*at]).map_or(first, |at| at + 1);
    json!([new.len(), first, hex(&new[first..last])])
}

/// The line of the manifest for a store.
fn line(name: &str, base: Option<(&str, &SimDisk)>, disk: &SimDisk, (keep, older): (bool, bool)) -> Value {
    let old = |file: &str| base.and_then(|(_, disk)| disk.read_file(file));
    let mut files = serde_json::Map::new();
    for file in disk.files() {
        let new = disk.read_file(&file.name).unwrap();
        let known = old(&file.name);
        if known.as_ref() != Some(&new) {
            files.insert(file.name, change(&known.unwrap_or_default(), &new));
        }
    }
    let gone = base.map(|(_, disk)| disk.files()).unwrap_or_default().into_iter();
    files.extend(gone.filter(|file| disk.read_file(&file.name).is_none()).map(|file| (file.name, Value::Null)));
    json!({ "name": name, "base": base.map(|(name, _)| name), "keep": keep, "older": older, "files": files })
}

/// Lets one process judge `bases`, of which others may differ little, and `cases`; shows `each` what it says of each case, with the
/// case, in order.
pub fn run(bases: &[SimDisk], cases: &[Case], older: bool, mut each: impl FnMut(&Case, Judged)) {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("stores");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&manifest).unwrap());
    let names: Vec<String> = (0..bases.len()).map(|number| format!("base {number}")).collect();
    for (name, disk) in names.iter().zip(bases) {
        writeln!(out, "{}", line(name, None, disk, (true, false))).unwrap();
    }
    for case in cases {
        let base = case.base.map(|number| (&names[number][..], &bases[number]));
        writeln!(out, "{}", line(&case.name, base, &(case.make)(), (false, older))).unwrap();
    }
    drop(out);
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_reader/reader.py");
    // Isolated: no other module than those of Python itself, and no compiled file is left behind.
    let mut command = Command::new("python3");
    command.args(["-I", "-B"]).arg(reader).arg("--batch").arg(&manifest);
    let mut python = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines().skip(bases.len());
    for case in cases {
        let line = lines.next().unwrap_or_else(|| panic!("the reader says nothing of {}", case.name)).unwrap();
        let judged: Judged = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(judged.name, case.name);
        each(case, judged);
    }
    assert!(lines.next().is_none() && python.wait().unwrap().success(), "the reader failed");
}
