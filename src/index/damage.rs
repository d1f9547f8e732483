//! What crashes and damage leave of the indexes in files: right entries at some stamp, or a fault.
//!
//! Damaged files are opened in a child of little memory, so a panic that is not caught, an abort, a hang and a huge allocation
//! end the child and are counted by the parent. Never here: what an engine answers while nothing fails.

use super::{
    DerivedIndex, Direction, IndexChange, IndexDirectory, IndexEntry, IndexError, IndexHome, IndexKind, IndexStamp,
};
use crate::disk::sim::Rng;
use crate::ids::{Epoch, Lsn};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Bound::Unbounded;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const KINDS: &[(&str, IndexKind)] = &[
    #[cfg(feature = "sled")]
    ("sled", IndexKind::Sled),
    #[cfg(feature = "redb")]
    ("redb", IndexKind::Redb),
];

/// So many steps fill the index that is damaged.
const STEPS: u64 = 60;
/// What is written beyond them, to see that filling goes on.
const FURTHER_STEPS: u64 = 3;

fn stamp(step: u64) -> IndexStamp {
    IndexStamp { instance: [7; 16], epoch: Epoch::of(1, 1), lsn: Lsn(8 * step) }
}

/// The changes that one step makes: as many as fill several batches.
fn changes_at(step: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut rng = Rng::new(step);
    let change = |rng: &mut Rng| {
        let mut key = rng.below(20_000).to_le_bytes().to_vec();
        key.extend_from_slice(b"0123456789abcdef");
        let value = [step.to_le_bytes(), rng.next_u64().to_le_bytes(), [1; 8]].concat();
        (key, rng.chance(3, 4).then_some(value))
    };
    (0..250).map(|_| change(&mut rng)).collect()
}

fn apply_step(index: &mut DerivedIndex, step: u64) -> Result<(), IndexError> {
    let changes = changes_at(step);
    let borrowed: Vec<_> = changes.iter().map(|(key, value)| IndexChange { key, value: value.as_deref() }).collect();
    index.apply(&borrowed, stamp(step))
}

/// Everything that happened to each key, up to some step.
struct IndexHistory {
    changes: BTreeMap<Vec<u8>, Vec<HistoryChange>>,
}

/// The step, and the value or its removal.
type HistoryChange = (u64, Option<Vec<u8>>);

/// How an index compares with the history. The later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// All that its stamp covers is there.
    Whole,
    /// It has no stamp, so it is filled from the start.
    NoStamp,
    Fault,
    /// It shows a stamp, and an entry has an older value than that, or none. A reader finds out by the log.
    Stale,
    /// It shows what nobody wrote.
    Invented,
}

impl IndexHistory {
    fn up_to(last: u64) -> Self {
        let mut changes = BTreeMap::<_, Vec<_>>::new();
        for step in 1..=last {
            for (key, value) in changes_at(step) {
                changes.entry(key).or_default().push((step, value));
            }
        }
        Self { changes }
    }

    fn compare(&self, found: &[IndexEntry], at: u64) -> Finding {
        let found: BTreeMap<_, _> = found.iter().map(|(key, value)| (key, value)).collect();
        if found.keys().any(|key| !self.changes.contains_key(*key)) {
            return Finding::Invented;
        }
        let compared = self.changes.iter().map(|(key, changes)| {
            let found = found.get(key).copied();
            let before = changes.iter().rev().find(|(step, _)| *step <= at).and_then(|(_, value)| value.as_ref());
            let is_beyond = changes.iter().any(|(step, value)| *step > at && value.as_ref() == found);
            let was_written = found.is_none() || changes.iter().any(|(_, value)| value.as_ref() == found);
            match (found == before || is_beyond, was_written) {
                (true, _) => Finding::Whole,
                (false, true) => Finding::Stale,
                (false, false) => Finding::Invented,
            }
        });
        compared.max().unwrap_or(Finding::Whole)
    }

    /// Looks at an index, and then fills it to the end.
    fn judge(&self, index: &mut DerivedIndex) -> Result<Finding, IndexError> {
        let last = STEPS + FURTHER_STEPS;
        let Some(shown) = index.stamp()? else { return Ok(Finding::NoStamp) };
        let at = shown.lsn.get() / 8;
        if shown != stamp(at) || at > last {
            return Ok(Finding::Invented);
        }
        let finding = self.compare(&all(index)?, at);
        for step in at + 1..=last {
            apply_step(index, step)?;
        }
        index.flush()?;
        Ok(finding.max(self.compare(&all(index)?, last)))
    }
}

fn all(index: &mut DerivedIndex) -> Result<Vec<IndexEntry>, IndexError> {
    index.scan((Unbounded, Unbounded), Direction::Ascending, usize::MAX)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if entry.is_dir() {
            copy_folder(&entry, &to.join(name));
        } else {
            fs::copy(&entry, to.join(name)).unwrap();
        }
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() { files_below(&entry, found) } else { found.push(entry) }
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Changed {
        at: u64,
        by: u8,
    },
    /// A sector of other bytes: zeros, or random ones.
    Overwritten {
        at: u64,
        random: u64,
    },
    Cut(u64),
    Removed,
}

/// Every damage that is tried on the files of a folder, by their paths from there. Depends on the files alone.
fn damages(base: &Path, places: usize) -> Vec<(PathBuf, Damage)> {
    let (mut files, mut all, mut rng) = (Vec::new(), Vec::new(), Rng::new(5));
    files_below(base, &mut files);
    for file in files {
        let len = fs::metadata(&file).unwrap().len();
        let name = file.strip_prefix(base).unwrap().to_owned();
        let mut add = |damage| all.push((name.clone(), damage));
        add(Damage::Removed);
        [0, 1, len / 2, len.saturating_sub(1)].into_iter().for_each(|cut| add(Damage::Cut(cut)));
        for _ in 0..16.min(len) {
            add(Damage::Cut(rng.below(len)));
        }
        for place in 0..places.min(usize::try_from(len).unwrap()) {
            let at = if place % 4 == 0 { rng.below(len.min(64)) } else { rng.below(len) };
            // One bit as often as any other byte.
            let by = if rng.coin() { 1 << rng.below(8) } else { 1 + rng.below(255) as u8 };
            add(Damage::Changed { at, by });
            if place % 4 == 0 {
                let random = if rng.coin() { rng.next_u64() } else { 0 };
                add(Damage::Overwritten { at: rng.below(len) / SECTOR * SECTOR, random });
            }
        }
    }
    all
}

const SECTOR: u64 = 512;

impl Damage {
    fn make(self, path: &Path) {
        use std::os::unix::fs::FileExt;
        let open = || fs::File::options().read(true).write(true).open(path).unwrap();
        match self {
            Self::Changed { at, by } => {
                let (file, mut byte) = (open(), [0]);
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ by], at).unwrap();
            }
            Self::Overwritten { at, random } => {
                let mut sector = [0; SECTOR as usize];
                if random != 0 {
                    Rng::new(random).fill(&mut sector);
                }
                open().write_all_at(&sector, at).unwrap();
            }
            Self::Cut(len) => open().set_len(len).unwrap(),
            Self::Removed => fs::remove_file(path).unwrap(),
        }
    }
}

/// The variables that make [`child`] a process with a task.
const TASK: &str = "MILLPOND_TEST_INDEX_TASK";
const FOLDER: &str = "MILLPOND_TEST_INDEX_FOLDER";
/// How many places of each file are changed. Where it is set, what became of each is printed.
const PLACES: &str = "MILLPOND_TEST_INDEX_PLACES";
const PLACES_DEFAULT: usize = 12;

fn places() -> usize {
    std::env::var(PLACES).map_or(PLACES_DEFAULT, |places| places.parse().unwrap())
}

/// In a child: does what the parent wants of it.
#[test]
fn child() {
    let (Ok(task), Some(folder)) = (std::env::var(TASK), std::env::var_os(FOLDER)) else { return };
    let folder = PathBuf::from(folder);
    let words: Vec<&str> = task.split(' ').collect();
    let (_, kind) = *KINDS.iter().find(|(name, _)| *name == words[1]).unwrap();
    match words[0] {
        "fill" => fill(IndexDirectory::new(kind, folder)),
        "judge" => judge_all(kind, &folder, words[2].parse().unwrap()),
        other => panic!("no task {other}"),
    }
}

fn start_child(task: &str, folder: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["index::damage::child", "--exact", "--nocapture"]).env(TASK, task).env(FOLDER, folder);
    // Else the arenas of the allocator alone take most of the address space that the child may have.
    command.env("MALLOC_ARENA_MAX", "2").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok))
}

fn say(line: &str) {
    use std::io::Write;
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Goes on for ever, and says what is done.
fn fill(home: IndexDirectory) {
    let mut index = home.open().unwrap();
    for step in 1.. {
        apply_step(&mut index, step).unwrap();
        say(&format!("applied {step}"));
        if step % 16 == 0 {
            index.flush().unwrap();
            say(&format!("flushed {step}"));
        }
    }
}

fn judge_all(kind: IndexKind, folder: &Path, from: usize) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    std::panic::set_hook(Box::new(|_| {}));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    setrlimit(Resource::As, Rlimit { current: Some(2 << 30), maximum: Some(2 << 30) }).unwrap();
    let history = IndexHistory::up_to(STEPS + FURTHER_STEPS);
    let base = folder.join("base");
    for (number, (file, damage)) in damages(&base, places()).into_iter().enumerate().skip(from) {
        let tried = folder.join(format!("tried-{number}"));
        copy_folder(&base, &tried);
        damage.make(&tried.join(&file));
        say(&format!("begin {number} {} {damage:?}", file.display()));
        let home = IndexDirectory::new(kind, tried.clone());
        let judged = home.open().and_then(|mut index| {
            let finding = history.judge(&mut index)?;
            index.close()?;
            Ok(finding)
        });
        let (finding, text) = judged.map_or_else(|error| (Finding::Fault, error.to_string()), |it| (it, String::new()));
        say(&format!("end {finding:?} {}", text.replace('\n', " ")));
        home.discard().unwrap();
        let mut again = home.open().unwrap();
        assert_eq!(again.stamp().unwrap(), None, "a discarded index is gone");
        drop(again);
        home.discard().unwrap();
    }
}

/// Two folders of `STEPS` steps: one that was closed, and one as a process leaves it that is killed.
fn make_bases(kind: IndexKind, folder: &Path) -> [PathBuf; 2] {
    let home = IndexDirectory::new(kind, folder.join("index"));
    let mut index = home.open().unwrap();
    (1..STEPS / 2).for_each(|step| apply_step(&mut index, step).unwrap());
    index.close().unwrap();
    index = home.open().unwrap();
    (STEPS / 2..STEPS).for_each(|step| apply_step(&mut index, step).unwrap());
    index.flush().unwrap();
    apply_step(&mut index, STEPS).unwrap();
    copy_folder(&folder.join("index"), &folder.join("killed/base"));
    index.close().unwrap();
    fs::create_dir(folder.join("closed")).unwrap();
    fs::rename(folder.join("index"), folder.join("closed/base")).unwrap();
    ["closed", "killed"].map(|name| folder.join(name))
}

/// What became of each damage: what it was, the finding or how the child ended, and what the fault says.
fn judged_in_children(engine: &str, folder: &Path) -> Vec<(String, Result<Finding, String>, String)> {
    let count = damages(&folder.join("base"), places()).len();
    let mut judged = Vec::new();
    while judged.len() < count {
        let (mut child, lines) = start_child(&format!("judge {engine} {}", judged.len()), folder);
        let (tell, told) = mpsc::channel();
        let reading = std::thread::spawn(move || lines.for_each(|line| drop(tell.send(line))));
        let mut current = None;
        let end = loop {
            match told.recv_timeout(Duration::from_secs(120)) {
                Ok(line) => match line.split_once(' ') {
                    Some(("begin", damage)) => current = Some(damage.to_owned()),
                    Some(("end", end)) => {
                        let (finding, text) = end.split_once(' ').unwrap();
                        let all = [Finding::Whole, Finding::NoStamp, Finding::Fault, Finding::Stale, Finding::Invented];
                        let finding = all.into_iter().find(|it| format!("{it:?}") == finding).unwrap();
                        judged.push((current.take().unwrap(), Ok(finding), text.to_owned()));
                    }
                    _ => {}
                },
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    child.kill().unwrap();
                    break "hangs".to_owned();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break String::new(),
            }
        };
        let status = child.wait().unwrap();
        reading.join().unwrap();
        match current {
            Some(damage) => judged.push((damage, Err(format!("{end} {status}")), String::new())),
            None => assert!(judged.len() == count, "the child gives up between two damages: {status}"),
        }
    }
    judged
}

#[test]
fn damaged_files_give_right_entries_or_a_fault() {
    for (engine, kind) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        for base in make_bases(*kind, folder.path()) {
            let judged = judged_in_children(engine, &base);
            if std::env::var_os(PLACES).is_some() {
                judged.iter().for_each(|judged| say(&format!("{engine} {judged:?}")));
            }
            let is_bad =
                |finding: &Result<Finding, String>| !matches!(finding, Ok(finding) if *finding < Finding::Stale);
            let bad: Vec<_> = judged.iter().filter(|(_, finding, _)| is_bad(finding)).collect();
            assert!(bad.is_empty(), "{engine}, of {}: {bad:#?}", judged.len());
        }
    }
}

#[test]
fn killed_process_leaves_all_up_to_a_stamp() {
    for (engine, kind) in KINDS {
        for round in 0..6 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("index");
            let (mut child, lines) = start_child(&format!("fill {engine}"), &path);
            let (mut applied, mut flushed) = (0, 0);
            for line in lines {
                match line.split_once(' ') {
                    Some(("applied", step)) => applied = step.parse().unwrap(),
                    Some(("flushed", step)) => flushed = step.parse().unwrap(),
                    _ => {}
                }
                if applied == 20 + 17 * round {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            assert!(applied >= 20 + 17 * round, "{engine}: the child died at {applied}");
            let mut index = IndexDirectory::new(*kind, path).open().unwrap();
            let at = index.stamp().unwrap().map_or(0, |stamp| stamp.lsn.get() / 8);
            assert!((flushed..=applied + 1).contains(&at), "{engine}: {flushed} <= {at} <= {applied}");
            let history = IndexHistory::up_to(applied + 2);
            assert_eq!(history.compare(&all(&mut index).unwrap(), at), Finding::Whole, "{engine}, round {round}");
            (at + 1..=applied + 2).for_each(|step| apply_step(&mut index, step).unwrap());
            assert_eq!(history.compare(&all(&mut index).unwrap(), applied + 2), Finding::Whole, "{engine}, filled");
        }
    }
}
