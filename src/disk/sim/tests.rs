//! What is left after crashes and faults: never less than the contract promises, and over many seeds all that it allows.

use super::*;
use crate::disk::{Access, Disk, File, LOCK_NAME, Tail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

fn contents(disk: &SimDisk, name: &str) -> String {
    String::from_utf8_lossy(&disk.read_file(name).unwrap()).into_owned()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().map(|entry| entry.name).collect()
}

/// A file that is durable with its name, and a process that has it open.
fn with_file(seed: u64, bytes: &[u8]) -> (SimDisk, SimHandle, std::sync::Arc<dyn File>) {
    let disk = SimDisk::new(seed);
    disk.write_file("a", bytes);
    let process = disk.attach().unwrap();
    process.sync_dir().unwrap();
    let file = process.open("a").unwrap();
    (disk, process, file)
}

/// What is left of file "a" by seeds, after `work` and then a power failure.
fn outcomes(bytes: &[u8], outcome: PowerOutcome, work: impl Fn(&SimDisk, &dyn File)) -> BTreeSet<Vec<u8>> {
    let outcome_of = |seed| {
        let (disk, _process, file) = with_file(seed, bytes);
        work(&disk, &*file);
        disk.crash_power(outcome);
        disk.read_file("a").unwrap()
    };
    (0..200).map(outcome_of).collect()
}

fn set(items: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    items.iter().map(|item| item.to_vec()).collect()
}

#[test]
fn unsynced_bytes_are_lost_or_kept() {
    let work = |_: &SimDisk, file: &dyn File| file.write_at(1, b"new").unwrap();
    let (old, new): (&[u8], &[u8]) = (b"old..", b"onew.");
    for (outcome, expected) in [
        (PowerOutcome::LoseAll, set(&[old])),
        (PowerOutcome::KeepAll, set(&[new])),
        (PowerOutcome::Prefix(0), set(&[old])),
        (PowerOutcome::Prefix(1), set(&[new])),
        (PowerOutcome::RandomSectors, set(&[old, new])),
        (PowerOutcome::AllButOne, set(&[old])),
        (PowerOutcome::OnlyOne, set(&[new])),
        (PowerOutcome::Torn, set(&[old, new])),
        (PowerOutcome::SizeWithoutData, set(&[old])),
        (PowerOutcome::NamesFirst, set(&[old])),
        (PowerOutcome::ContentsFirst, set(&[new])),
    ] {
        assert_eq!(outcomes(old, outcome, work), expected, "{outcome:?}");
        let synced = |disk: &SimDisk, file: &dyn File| {
            work(disk, file);
            file.sync().unwrap();
        };
        assert_eq!(outcomes(old, outcome, synced), set(&[new]), "{outcome:?} after a sync");
    }
}

#[test]
fn sectors_survive_each_by_itself() {
    let work = |_: &SimDisk, file: &dyn File| file.write_at(500, &[b'n'; 536]).unwrap(); // in three sectors
    let left = |bytes: &[u8]| {
        assert!(bytes[..500].iter().chain(&bytes[1036..]).all(|byte| *byte == b'o'), "bytes outside the write");
        [&bytes[500..512], &bytes[512..1024], &bytes[1024..1036]].map(|piece| {
            assert!(piece.iter().all(|byte| *byte == piece[0]), "a sector is old or new");
            piece[0] == b'n'
        })
    };
    let seen =
        |outcome| outcomes(&[b'o'; 1100], outcome, work).iter().map(|bytes| left(bytes)).collect::<BTreeSet<_>>();
    assert_eq!(seen(PowerOutcome::RandomSectors).len(), 8, "all subsets");
    let (no, yes) = (false, true);
    let torn = [[no, no, no], [yes, no, no], [yes, yes, no], [yes, yes, yes], [no, no, yes], [no, yes, yes]]
        .into_iter()
        .collect();
    assert_eq!(seen(PowerOutcome::Torn), torn);
}

#[test]
fn lengths_survive_without_bytes_and_the_reverse() {
    let grow = |_: &SimDisk, file: &dyn File| file.write_at(3, b"more").unwrap();
    assert_eq!(outcomes(b"old", PowerOutcome::SizeWithoutData, grow), set(&[b"old\0\0\0\0"]));
    let cut = |_: &SimDisk, file: &dyn File| file.set_len(1).unwrap();
    assert_eq!(outcomes(b"old", PowerOutcome::RandomSectors, cut), set(&[b"o", b"old"]));
    let cut_and_write = |_: &SimDisk, file: &dyn File| {
        file.set_len(1).unwrap();
        file.write_at(2, b"X").unwrap();
    };
    let all = set(&[b"old", b"o", b"o\0X", b"olX"]);
    assert_eq!(outcomes(b"old", PowerOutcome::RandomSectors, cut_and_write), all);
    assert_eq!(outcomes(b"old", PowerOutcome::Prefix(1), cut_and_write), set(&[b"o"]));
}

#[test]
fn writes_to_one_sector_survive_in_order_or_not() {
    let work = |_: &SimDisk, file: &dyn File| {
        file.write_at(0, b"1").unwrap();
        file.write_at(1, b"2").unwrap();
    };
    assert_eq!(outcomes(b"..", PowerOutcome::RandomSectors, work), set(&[b"..", b"1.", b"12", b".2"]));
    assert_eq!(outcomes(b"..", PowerOutcome::AllButOne, work), set(&[b"1.", b".2"]));
    assert_eq!(outcomes(b"..", PowerOutcome::OnlyOne, work), set(&[b"1.", b".2"]));
    assert_eq!(outcomes(b"..", PowerOutcome::Prefix(1), work), set(&[b"1."]));
}

#[test]
fn of_two_writes_to_one_sector_the_second_seldom_survives_alone() {
    let (mut first, mut second) = (0, 0);
    for seed in 0..1000 {
        let (disk, _process, file) = with_file(seed, b"..");
        file.write_at(0, b"1").unwrap();
        file.write_at(1, b"2").unwrap();
        disk.crash_power(PowerOutcome::RandomSectors);
        first += usize::from(contents(&disk, "a") == "1.");
        second += usize::from(contents(&disk, "a") == ".2");
    }
    assert!(0 < second && second * 2 < first, "{first} and {second}");
}

#[test]
fn a_prefix_is_in_the_order_of_the_requests() {
    let left = |count| {
        let disk = SimDisk::new(1);
        ["a", "b"].iter().for_each(|name| disk.write_file(name, b"."));
        let process = disk.attach().unwrap();
        process.sync_dir().unwrap();
        let (a, b) = (process.open("a").unwrap(), process.open("b").unwrap());
        b.write_at(0, b"1").unwrap();
        process.create("c", 0).unwrap();
        a.write_at(0, b"3").unwrap();
        process.remove("b").unwrap();
        assert_eq!(disk.pending(), 5, "a creation is a name and a length");
        disk.crash_power(PowerOutcome::Prefix(count));
        let told = |name: &String| format!("{name}{}", contents(&disk, name));
        names(&disk).iter().filter(|name| *name != LOCK_NAME).map(told).collect::<Vec<_>>().join(" ")
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(left), ["a. b.", "a. b1", "a. b1 c", "a. b1 c", "a3 b1 c", "a3 c"]);
}

#[test]
fn garbage_begins_where_a_sector_changed_and_ends_with_it() {
    let mut old = vec![b'o'; 2000];
    old[700..710].copy_from_slice(b"unchanged!");
    let work = |_: &SimDisk, file: &dyn File| {
        file.write_at(700, b"unchanged!").unwrap();
        file.write_at(720, b"new").unwrap();
    };
    let left = outcomes(&old, PowerOutcome::Garbage, work);
    assert!(left.len() > 20, "all sorts of bytes");
    for bytes in &left {
        assert_eq!((&bytes[..720], &bytes[1024..]), (&old[..720], &old[1024..]));
    }
    let places = |start: &[u8]| left.iter().filter(|bytes| bytes[720..].starts_with(start)).count();
    assert!(
        places(b"ooo") >= 1 && places(b"newo") >= 1 && places(b"noo") + places(b"neo") >= 1 && places(&[0; 304]) >= 1
    );
}

#[test]
fn garbage_brings_back_bytes_of_other_files() {
    let found = (0..1000).filter(|seed| {
        let (disk, _process, file) = with_file(*seed, &[b'o'; 512]);
        disk.write_file("b", &[b'b'; 512]);
        file.write_at(0, &[b'n'; 512]).unwrap();
        disk.crash_power(PowerOutcome::Garbage);
        disk.read_file("a").unwrap() == [b'b'; 512]
    });
    assert!(found.count() > 3);
}

#[test]
fn a_name_is_lost_or_kept_until_the_directory_is_synced() {
    let left = |outcome, synced: bool| {
        let left = (0..50).map(|seed| {
            let disk = SimDisk::new(seed);
            disk.write_file("old", b"x");
            let process = disk.attach().unwrap();
            process.sync_dir().unwrap();
            process.create("new", 0).unwrap().sync().unwrap();
            process.remove("old").unwrap();
            if synced {
                process.sync_dir().unwrap();
            }
            disk.crash_power(outcome);
            names(&disk).into_iter().filter(|name| name != LOCK_NAME).collect::<Vec<_>>().join("+")
        });
        left.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    for (outcome, expected) in [
        (PowerOutcome::LoseAll, "old"),
        (PowerOutcome::KeepAll, "new"),
        (PowerOutcome::Prefix(1), "new+old"),
        (PowerOutcome::AllButOne, " new+old"),
        (PowerOutcome::RandomSectors, " new new+old old"),
        (PowerOutcome::Garbage, " new new+old old"),
        (PowerOutcome::NamesFirst, "new"),
        (PowerOutcome::ContentsFirst, "old"),
    ] {
        assert_eq!(left(outcome, false), expected, "{outcome:?}");
        assert_eq!(left(outcome, true), "new", "{outcome:?} after a sync");
    }
}

#[test]
fn a_name_may_survive_its_contents_and_the_reverse() {
    let left = |outcome| {
        let disk = SimDisk::new(3);
        let process = disk.attach().unwrap();
        process.create("a", 4).unwrap().write_at(0, b"abcd").unwrap();
        disk.crash_power(outcome);
        disk.read_file("a")
    };
    assert_eq!(left(PowerOutcome::NamesFirst), Some(vec![]));
    assert_eq!(left(PowerOutcome::ContentsFirst), None);
    assert_eq!(left(PowerOutcome::SizeWithoutData), Some(vec![0; 4]));
    assert_eq!(left(PowerOutcome::KeepAll), Some(b"abcd".to_vec()));
}

#[test]
fn a_file_never_synced_may_have_any_length_and_content() {
    let (mut lens, mut noise) = (BTreeSet::new(), 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let process = disk.attach().unwrap();
        let _file = process.create("a", 5000).unwrap();
        process.sync_dir().unwrap();
        disk.crash_power(PowerOutcome::Garbage);
        let left = disk.read_file("a").unwrap();
        lens.insert(left.len());
        noise += usize::from(left.iter().any(|byte| *byte != 0));
    }
    assert!(lens.len() > 50 && lens.contains(&0) && lens.contains(&5000) && lens.iter().any(|len| *len > 5000));
    assert!(noise > 20);
}

#[test]
fn a_removal_that_is_lost_brings_the_contents_back() {
    let disk = SimDisk::new(1);
    disk.write_file("old", b"old");
    let process = disk.attach().unwrap();
    process.create("new", 0).unwrap().write_at(0, b"new").unwrap();
    process.open("new").unwrap().sync().unwrap();
    process.remove("old").unwrap();
    process.remove("new").unwrap();
    process.create("other", 0).unwrap();
    let copy = disk.snapshot();
    copy.crash_power(PowerOutcome::LoseAll);
    assert_eq!((names(&copy), contents(&copy, "old")), (vec!["old".into()], "old".into()));
    let copy = disk.snapshot();
    copy.crash_power(PowerOutcome::Prefix(2));
    assert_eq!((contents(&copy, "old"), contents(&copy, "new")), ("old".into(), "new".into()));
}

/// What one file must hold after a power failure, as the contract says it.
#[derive(Clone, Default)]
struct Promise {
    bytes: Vec<u8>,
    /// Sectors written since the last sync.
    risked: BTreeSet<usize>,
    /// The shortest and the longest that it was since then.
    lens: (usize, usize),
    synced: bool,
}

impl Promise {
    fn resize(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.lens = (self.lens.0.min(len), self.lens.1.max(len));
    }

    fn check(&self, left: &[u8], told: &str) {
        if !self.synced {
            return;
        }
        let (shortest, longest) = self.lens;
        assert!((shortest..=longest).contains(&left.len()), "{told}: length {} of {:?}", left.len(), self.lens);
        for index in (0..shortest).filter(|index| !self.risked.contains(&(index / 512))) {
            assert_eq!(left[index], self.bytes[index], "{told}: byte {index}");
        }
    }
}

/// A process that works at random, and what it may rely on.
struct Worker {
    process: SimHandle,
    tails: BTreeMap<String, (Box<dyn Tail>, u64)>,
    files: BTreeMap<String, Promise>,
    /// Names that a power failure may take, and names that it may bring back.
    unsure: BTreeSet<String>,
    made: usize,
}

impl Worker {
    fn new(disk: &SimDisk) -> Self {
        let process = disk.attach().unwrap();
        process.sync_dir().unwrap();
        Self { process, tails: BTreeMap::new(), files: BTreeMap::new(), unsure: BTreeSet::new(), made: 0 }
    }

    fn step(&mut self, rng: &mut Rng) {
        let mut bytes = vec![0; [1, 30, 700, 5000][rng.index(4)]];
        rng.fill(&mut bytes);
        let name = self.files.keys().nth(rng.index(self.files.len())).cloned().unwrap_or_default();
        match rng.below(12) {
            0 | 1 => self.create(rng),
            2 if self.files.contains_key(&name) => {
                self.process.remove(&name).unwrap();
                self.files.remove(&name);
                self.tails.remove(&name);
                self.unsure.insert(name);
            }
            3 => {
                self.process.sync_dir().unwrap();
                self.unsure.clear();
            }
            4 | 5 if self.files.contains_key(&name) => {
                self.process.open(&name).unwrap().sync().unwrap();
                let promise = self.files.get_mut(&name).unwrap();
                (promise.synced, promise.risked) = (true, BTreeSet::new());
                promise.lens = (promise.bytes.len(), promise.bytes.len());
            }
            6 if self.files.contains_key(&name) && !self.tails.contains_key(&name) => {
                let len = rng.index(9000);
                self.process.open(&name).unwrap().set_len(len as u64).unwrap();
                self.files.get_mut(&name).unwrap().resize(len);
            }
            _ if self.files.contains_key(&name) => self.write(&name, &bytes, rng),
            _ => {}
        }
    }

    fn create(&mut self, rng: &mut Rng) {
        let (name, len) = (format!("{:04}", self.made), rng.index(20_000));
        self.made += 1;
        if rng.coin() {
            let tail = self.process.create_tail(&name, len as u64, Access::SyncOften).unwrap();
            self.tails.insert(name.clone(), (tail, 0));
        } else {
            self.process.create(&name, len as u64).unwrap();
        }
        self.files.insert(name.clone(), Promise { bytes: vec![0; len], lens: (len, len), ..Promise::default() });
        self.unsure.insert(name);
    }

    fn write(&mut self, name: &str, bytes: &[u8], rng: &mut Rng) {
        let promise = self.files.get_mut(name).unwrap();
        let at = match self.tails.get_mut(name) {
            Some((tail, end)) => {
                let at = *end + rng.below(2) * 13;
                if tail.append(at, &[bytes]).is_err() {
                    return;
                }
                *end = at + bytes.len() as u64;
                at as usize
            }
            None => {
                let at = rng.index(promise.bytes.len() + 10);
                self.process.open(name).unwrap().write_at(at as u64, bytes).unwrap();
                at
            }
        };
        let end = at + bytes.len();
        if end > promise.bytes.len() {
            promise.resize(end);
        }
        promise.bytes[at..end].copy_from_slice(bytes);
        promise.risked.extend(at / 512..=(end - 1) / 512);
    }

    fn check(&self, disk: &SimDisk, told: &str) {
        let left = names(disk);
        for (name, promise) in &self.files {
            match disk.read_file(name) {
                Some(bytes) => promise.check(&bytes, told),
                None => assert!(self.unsure.contains(name), "{told}: {name} is lost"),
            }
        }
        for name in left.iter().filter(|name| *name != LOCK_NAME && !self.files.contains_key(*name)) {
            assert!(self.unsure.contains(name), "{told}: {name} came back");
        }
    }
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..120 {
        let (disk, mut rng) = (SimDisk::new(seed), Rng::new(seed));
        let mut worker = Worker::new(&disk);
        for step in 0..60 {
            worker.step(&mut rng);
            if step % 7 != 0 {
                continue;
            }
            let prefixes = (0..3).map(|_| PowerOutcome::Prefix(rng.index(disk.pending() + 1)));
            for outcome in PowerOutcome::EACH.into_iter().chain(prefixes) {
                let copy = disk.snapshot();
                copy.reseed(seed * 1000 + step);
                copy.crash_power(outcome);
                worker.check(&copy, &format!("seed {seed}, step {step}, {outcome:?}"));
                assert_eq!(copy.pending(), 0);
            }
            let copy = disk.snapshot();
            copy.crash_process();
            for name in names(&copy) {
                assert_eq!(copy.read_file(&name), disk.read_file(&name), "the page cache survives the process");
            }
        }
    }
}

#[test]
fn crashes_of_one_state_differ_by_seed_alone() {
    let run = |crash_seed| {
        let (disk, mut rng) = (SimDisk::new(5), Rng::new(5));
        let mut worker = Worker::new(&disk);
        (0..40).for_each(|_| worker.step(&mut rng));
        let copy = disk.snapshot();
        copy.reseed(crash_seed);
        copy.crash_power(PowerOutcome::Garbage);
        let left: Vec<_> = names(&copy).into_iter().map(|name| copy.read_file(&name)).collect();
        (left, disk.trace_hash(), disk.requests())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
    assert_eq!(run(1).1, run(2).1);
}

#[test]
fn traces_tell_histories_apart() {
    let hash = |bytes: &[u8], at: u64, fault: Option<Fault>| {
        let (disk, _process, file) = with_file(1, b"x");
        if let Some(fault) = fault {
            disk.fail_at(disk.requests(), fault);
        }
        let _ = file.write_at(at, bytes);
        disk.trace_hash()
    };
    let hashes = [
        hash(b"a", 0, None),
        hash(b"b", 0, None),
        hash(b"a", 1, None),
        hash(b"a\0", 0, None),
        hash(b"a", 0, Some(Fault::Io)),
    ];
    assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), hashes.len());
    assert_eq!(hash(b"a", 0, None), hashes[0]);
    let (disk, process, _file) = with_file(1, b"x");
    disk.keep_trace();
    disk.fail_op_at(Op::List, 0, Fault::TooManyFiles);
    assert_eq!(process.list().unwrap_err().raw_os_error(), Some(24));
    process.open("a").unwrap().write_at(7, b"abc").unwrap();
    assert_eq!(disk.trace(), ["2 List  0+0 !TooManyFiles", "3 Open a 0+0", "4 Write a 7+3"]);
    assert_eq!((disk.requests(), disk.requests_of(Op::Open), disk.faults()), (5, 2, 1));
}

#[test]
fn one_process_at_a_time() {
    let disk = SimDisk::new(1);
    let process = disk.attach().unwrap();
    assert_eq!(disk.attach().unwrap_err().kind(), ErrorKind::WouldBlock);
    let file = process.create("a", 1).unwrap();
    drop(process);
    assert_eq!(disk.attach().unwrap_err().kind(), ErrorKind::WouldBlock, "a file keeps the lock");
    drop(file);
    std::mem::forget(disk.attach().unwrap());
    assert_eq!(disk.attach().unwrap_err().kind(), ErrorKind::WouldBlock);
    disk.crash_process();
    disk.attach().unwrap();
}

#[test]
fn a_dead_process_does_nothing() {
    for crash in 0..3 {
        let (disk, process, file) = with_file(1, b"old");
        let mut tail = process.create_tail("t", 100, Access::SyncOften).unwrap();
        match crash {
            0 => disk.crash_process(),
            1 => disk.crash_power(PowerOutcome::KeepAll),
            _ => {
                disk.fail_at(disk.requests(), Fault::CrashBefore);
                assert_eq!(process.list().unwrap_err().kind(), ErrorKind::NotConnected);
            }
        }
        let (before, requests) = (disk.files(), disk.requests());
        let through = tail.file().clone();
        let answers = [
            process.list().map(|_| ()),
            process.open("a").map(|_| ()),
            process.create("b", 1).map(|_| ()),
            process.create_tail("b", 1, Access::SyncOften).map(|_| ()),
            process.remove("a"),
            process.sync_dir(),
            file.len().map(|_| ()),
            file.read_at(0, &mut [0; 1]).map(|_| ()),
            file.write_at(0, b"x"),
            file.sync(),
            file.set_len(0),
            tail.append(0, &[b"x"]),
            through.sync(),
        ];
        for (index, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotConnected, "request {index}");
        }
        assert_eq!((disk.files(), disk.requests()), (before, requests));
        if crash == 2 {
            assert_eq!(disk.attach().unwrap_err().kind(), ErrorKind::WouldBlock, "the corpse holds the lock");
            drop((process, file, tail, through));
        }
        let next = disk.attach().unwrap();
        assert_eq!(next.open("a").unwrap().read_at(0, &mut [0; 3]).unwrap(), 3);
    }
}

#[test]
fn an_old_handle_does_not_end_the_next_process() {
    let (disk, process, file) = with_file(1, b"old");
    disk.crash_process();
    let next = disk.attach().unwrap();
    let other = next.open("a").unwrap();
    drop((process, file));
    assert_eq!(disk.attach().unwrap_err().kind(), ErrorKind::WouldBlock);
    other.write_at(0, b"x").unwrap();
}

#[test]
fn an_append_in_flight_leaves_some_of_its_words() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let process = disk.attach().unwrap();
        let mut tail = process.create_tail("a", 64, Access::SyncOften).unwrap();
        disk.fail_op_at(Op::Append, 0, Fault::CrashMiddle);
        assert_eq!(tail.append(4, &[&[1; 10], &[1; 14]]).unwrap_err().kind(), ErrorKind::NotConnected);
        disk.crash_process();
        let left = disk.read_file("a").unwrap();
        assert!(left[..4].iter().chain(&left[28..]).all(|byte| *byte == 0), "nothing outside");
        let words = [4..8, 8..16, 16..24, 24..28].map(|word| {
            assert!(left[word.clone()].iter().all(|byte| *byte == left[word.start]), "a word is whole");
            left[word.start] == 1
        });
        seen.insert(words);
    }
    assert_eq!(seen.len(), 16, "every subset");
}

#[test]
fn an_append_to_a_full_disk_leaves_its_first_word_alone() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let process = disk.attach().unwrap();
        let mut tail = process.create_tail("a", 64, Access::SyncOften).unwrap();
        disk.fail_op_at(Op::Append, 0, Fault::NoSpace);
        assert_eq!(tail.append(4, &[&[1; 10], &[1; 14]]).unwrap_err().kind(), ErrorKind::StorageFull);
        let left = disk.read_file("a").unwrap();
        assert!(left[..8].iter().chain(&left[28..]).all(|byte| *byte == 0), "nothing outside, no first word");
        seen.insert([8, 16, 24].map(|word| left[word] == 1));
    }
    assert_eq!(seen.len(), 8, "every subset of the rest");
}

/// The answer of one kind of request on a fresh disk that meets `fault`, the disk after it, and whether it had effect.
fn hit(seed: u64, op: Op, fault: Fault) -> (std::io::Result<()>, SimDisk, bool) {
    let (disk, process, file) = with_file(seed, b"0123456789");
    let mut tail = process.create_tail("t", 64, Access::SyncOften).unwrap();
    if op == Op::Sync {
        file.write_at(0, b"x").unwrap();
    }
    let before = disk.snapshot();
    disk.fail_op_at(op, disk.requests_of(op), fault);
    let answer = match op {
        Op::Read => file.read_at(0, &mut [0; 10]).map(|count| assert!(count < 10 || fault != Fault::ShortRead)),
        Op::Write => file.write_at(2, b"abcdef"),
        Op::Append => tail.append(0, &[b"abcdef"]),
        Op::Sync => file.sync(),
        Op::SyncDir => process.sync_dir(),
        Op::Create => process.create("new", 5).map(|_| ()),
        Op::Remove => process.remove("a"),
        Op::SetLen => file.set_len(20),
        Op::List => process.list().map(|_| ()),
        Op::Open => process.open("a").map(|_| ()),
    };
    let picture = |disk: &SimDisk| {
        let cached: Vec<_> = names(disk).into_iter().map(|name| (disk.read_file(&name), name)).collect();
        let copy = disk.snapshot();
        copy.crash_power(PowerOutcome::LoseAll);
        let durable: Vec<_> = names(&copy).into_iter().map(|name| (copy.read_file(&name), name)).collect();
        (cached, durable)
    };
    let changed = picture(&before) != picture(&disk);
    if fault == Fault::Io && op == Op::Append {
        assert_eq!(tail.file().read_at(0, &mut [0; 6]).unwrap(), 0, "nothing new is visible");
        tail.append(0, &[b"again"]).unwrap();
    }
    drop((process, file, tail));
    (answer, disk, changed)
}

#[test]
fn every_fault_at_every_request() {
    for op in Op::ALL {
        let changes = !matches!(op, Op::Read | Op::List | Op::Open);
        for fault in Fault::ALL {
            let (mut with, mut without) = (0, 0);
            for seed in 0..60 {
                let (answer, disk, changed) = hit(seed, op, fault);
                *if changed { &mut with } else { &mut without } += 1;
                let told = format!("{fault:?} at {op:?}: {answer:?}");
                let meets = disk.faults() == 1;
                match (fault, answer) {
                    (Fault::CrashBefore | Fault::CrashMiddle | Fault::CrashAfter, answer) => {
                        assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotConnected, "{told}");
                    }
                    (Fault::Io, answer) => assert_eq!(answer.unwrap_err().raw_os_error(), Some(5), "{told}"),
                    (Fault::NoSpace, Err(error)) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{told}"),
                    (Fault::TooManyFiles, Err(error)) => assert_eq!(error.raw_os_error(), Some(24), "{told}"),
                    (Fault::NoMemory, Err(error)) => assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{told}"),
                    (Fault::ShortRead, Err(_)) => panic!("{told}"),
                    (Fault::ShortRead, Ok(())) if op == Op::Read => {}
                    (_, Ok(())) => assert!(!meets, "{told}"),
                }
            }
            let told = format!("{fault:?} at {op:?}: {with} with an effect, {without} without");
            match fault {
                Fault::CrashBefore => assert_eq!(with, 0, "{told}"),
                _ if !changes => assert_eq!(with, 0, "{told}"),
                Fault::CrashAfter => assert_eq!(without, 0, "{told}"),
                Fault::CrashMiddle | Fault::Io => assert!(with > 0 && without > 0, "{told}"),
                Fault::TooManyFiles | Fault::NoSpace | Fault::NoMemory if op == Op::Create => {
                    assert_eq!(with, 0, "{told}")
                }
                Fault::NoSpace if op == Op::SetLen => assert_eq!(with, 0, "{told}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_failed_sync_leaves_its_bytes_unknown_for_ever() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, _process, file) = with_file(seed, b"old");
        file.write_at(0, b"newer").unwrap();
        disk.fail_at(disk.requests(), Fault::Io);
        file.sync().unwrap_err();
        let read = contents(&disk, "a");
        file.sync().unwrap();
        disk.crash_power(PowerOutcome::LoseAll);
        seen.insert(format!("reads {read}, then {}", contents(&disk, "a")));
    }
    let all = ["reads newer, then newer", "reads newer, then old", "reads old\0\0, then old"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn stranded_bytes_may_vanish_with_the_process_but_new_ones_do_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, process, file) = with_file(seed, b"old..");
        file.write_at(0, b"new").unwrap();
        disk.fail_at(disk.requests(), Fault::Io);
        file.sync().unwrap_err();
        file.write_at(4, b"!").unwrap();
        drop((process, file));
        disk.crash_process();
        seen.insert(contents(&disk, "a"));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["new.!", "old.!"]);
}

#[test]
fn after_a_failed_sync_of_the_directory_no_name_is_certain() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let process = disk.attach().unwrap();
        process.sync_dir().unwrap();
        process.create("a", 0).unwrap();
        disk.fail_at(disk.requests(), Fault::Io);
        process.sync_dir().unwrap_err();
        process.sync_dir().unwrap();
        assert!(process.open("a").is_ok());
        disk.crash_power(PowerOutcome::LoseAll);
        seen.insert(disk.read_file("a").is_some());
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_process_that_died_in_a_sync_of_the_directory_leaves_it_to_the_next() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let process = disk.attach().unwrap();
        process.create("a", 0).unwrap().write_at(0, b"first").unwrap();
        process.remove("a").unwrap();
        let second = process.create("a", 0).unwrap();
        second.write_at(0, b"second").unwrap();
        second.sync().unwrap();
        disk.fail_at(disk.requests(), Fault::CrashMiddle);
        process.sync_dir().unwrap_err();
        disk.crash_process();
        disk.attach().unwrap().sync_dir().unwrap();
        disk.crash_power(PowerOutcome::LoseAll);
        assert_eq!(contents(&disk, "a"), "second");
    }
}

#[test]
fn space_is_limited_and_comes_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(100));
    let process = disk.attach().unwrap();
    let file = process.create("a", 60).unwrap();
    assert_eq!(process.create("b", 41).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(99, b"xy").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.set_len(101).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(names(&disk), [LOCK_NAME, "a"]);
    process.create("b", 40).unwrap();
    file.write_at(0, &[1; 60]).unwrap();
    process.remove("b").unwrap();
    file.set_len(100).unwrap();
    disk.set_capacity(None);
    process.create("c", 1 << 30).unwrap();
}

#[test]
fn damage_at_rest_is_durable_and_seen_at_once() {
    let (disk, _process, file) = with_file(1, b"good");
    file.write_at(0, b"G").unwrap();
    disk.write_file("a", b"bad\0");
    let mut found = [9; 5];
    assert_eq!((file.read_at(0, &mut found).unwrap(), &found), (4, b"bad\0\x09"));
    disk.write_file("b", b"added");
    disk.crash_power(PowerOutcome::KeepAll);
    assert_eq!((contents(&disk, "a"), contents(&disk, "b")), ("bad\0".into(), "added".into()));
    assert!(disk.remove_file("b") && !disk.remove_file("b"));
    disk.crash_power(PowerOutcome::KeepAll);
    assert_eq!(names(&disk), [LOCK_NAME, "a"]);
}

#[test]
fn a_snapshot_is_another_machine() {
    let (disk, _process, file) = with_file(1, b"one");
    file.write_at(0, b"two").unwrap();
    disk.fail_at(disk.requests(), Fault::Io);
    let copy = disk.snapshot();
    let other = copy.attach().unwrap();
    other.open("a").unwrap().write_at(0, b"six").unwrap();
    drop(other);
    copy.crash_power(PowerOutcome::LoseAll);
    assert_eq!((contents(&copy, "a"), contents(&disk, "a")), ("one".into(), "two".into()));
    file.sync().unwrap_err();
}
