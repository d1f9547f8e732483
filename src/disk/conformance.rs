//! One suite for every disk: what the contract promises while nothing fails.
//!
//! Runs on the real disk with mapped tails, on the same without maps, and on the simulated one. What survives a crash is
//! tested in `sim`, what lies about in a real directory in `hostile`. Never here: a look behind the traits.

use super::sim::{Rng, SimDisk};
use super::{Access, Disk, Entry, File, LOCK_NAME, OpenOptions, RealDisk, Tail};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs a check on a fresh directory of every disk.
fn on_every_disk(check: impl Fn(&dyn Disk)) {
    for (_name, disk, _directory) in disks() {
        check(&*disk);
    }
}

type NamedDisk = (&'static str, Box<dyn Disk>, Option<tempfile::TempDir>);

fn disks() -> Vec<NamedDisk> {
    let mut disks: Vec<NamedDisk> = Vec::new();
    // The second one is a file system in memory, where there is one.
    for place in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
        let Ok(directory) = tempfile::tempdir_in(place) else { continue };
        let disk = RealDisk::attach(directory.path(), &OpenOptions::default()).unwrap();
        disks.push(("a real disk", Box::new(disk), Some(directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::attach(directory.path(), &OpenOptions::default()).unwrap();
    disks.push(("a real disk without maps", Box::new(disk.unmapped()), Some(directory)));
    disks.push(("the simulated disk", Box::new(SimDisk::new(1).attach().unwrap()), None));
    disks
}

#[track_caller]
fn refused<T>(result: io::Result<T>, kind: io::ErrorKind) {
    assert_eq!(result.err().map(|error| error.kind()), Some(kind));
}

/// Everything from `at` on.
#[track_caller]
fn rest(file: &dyn File, at: u64) -> Vec<u8> {
    let mut buf = vec![0xEE; 70_000];
    let count = file.read_at(at, &mut buf).unwrap();
    assert!(buf[count..].iter().all(|byte| *byte == 0xEE), "nothing is written past the count");
    buf.truncate(count);
    buf
}

fn listed(disk: &dyn Disk) -> Vec<(String, u64)> {
    let mut entries: Vec<_> = disk.list().unwrap().into_iter().map(|Entry { name, len }| (name, len)).collect();
    entries.sort();
    entries
}

#[test]
fn a_fresh_directory_holds_the_lock_file_alone() {
    on_every_disk(|disk| {
        assert_eq!(listed(disk), [(LOCK_NAME.to_owned(), 0)]);
        refused(disk.create(LOCK_NAME, 0), io::ErrorKind::AlreadyExists);
        refused(disk.remove(LOCK_NAME), io::ErrorKind::InvalidInput);
        let store = disk.open(LOCK_NAME).unwrap();
        store.write_at(4096, b"slot").unwrap();
        store.sync().unwrap();
        assert_eq!(listed(disk), [(LOCK_NAME.to_owned(), 4100)]);
    });
}

#[test]
fn names_stay_inside_the_directory() {
    on_every_disk(|disk| {
        for name in ["", ".", "..", "/", "a/b", "../a", "/tmp/a", "a\0b", "a/"] {
            refused(disk.open(name), io::ErrorKind::InvalidInput);
            refused(disk.create(name, 1), io::ErrorKind::InvalidInput);
            refused(disk.create_tail(name, 1, Access::SyncOften), io::ErrorKind::InvalidInput);
            refused(disk.remove(name), io::ErrorKind::InvalidInput);
        }
        assert_eq!(listed(disk).len(), 1);
    });
}

#[test]
fn a_file_is_created_once_and_full_of_zeros() {
    on_every_disk(|disk| {
        refused(disk.open("a"), io::ErrorKind::NotFound);
        let file = disk.create("a", 10_000).unwrap();
        assert_eq!((file.len().unwrap(), rest(&*file, 0)), (10_000, vec![0; 10_000]));
        refused(disk.create("a", 5), io::ErrorKind::AlreadyExists);
        refused(disk.create_tail("a", 5, Access::SyncSeldom), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("a").unwrap().len().unwrap(), 10_000);
        assert_eq!(disk.create("empty", 0).unwrap().len().unwrap(), 0);
        let named = |name: &str, len| (name.to_owned(), len);
        assert_eq!(listed(disk), [named(LOCK_NAME, 0), named("a", 10_000), named("empty", 0)]);
    });
}

#[test]
fn writes_are_read_through_every_handle() {
    on_every_disk(|disk| {
        let file = disk.create("a", 8).unwrap();
        let other = disk.open("a").unwrap();
        file.write_at(6, b"wxyz").unwrap();
        assert_eq!(rest(&*other, 0), b"\0\0\0\0\0\0wxyz");
        other.write_at(13, b"!").unwrap();
        assert_eq!((rest(&*file, 5), file.len().unwrap()), (b"\0wxyz\0\0\0!".to_vec(), 14));
        other.write_at(100, b"").unwrap();
        assert_eq!(file.len().unwrap(), 14, "nothing written, nothing extended");
        assert_eq!(file.read_at(13, &mut [0; 4]).unwrap(), 1);
        assert_eq!(file.read_at(14, &mut [0; 4]).unwrap(), 0);
        assert_eq!(file.read_at(9999, &mut [0; 4]).unwrap(), 0);
        assert_eq!(file.read_at(3, &mut []).unwrap(), 0);
    });
}

/// Whatever was just stored, through a map or not, synced or not, is never skipped.
#[test]
fn only_zeros_are_passed_over() {
    on_every_disk(|disk| {
        let len = 300_000;
        let file = disk.create("a", len).unwrap();
        let mut tail = disk.create_tail("b", len, Access::SyncSeldom).unwrap();
        assert_eq!(file.data_from(len).unwrap(), None);
        for (round, at) in [70_001, 70_100, 150_000, 299_999].into_iter().enumerate() {
            file.write_at(at, b"x").unwrap();
            tail.append(at, &[b"x"]).unwrap();
            for file in [&file, &disk.open("b").unwrap()] {
                let bytes = whole(&**file, len as usize);
                for from in (0..len).step_by(997) {
                    let data = file.data_from(from).unwrap().unwrap_or(len..len);
                    assert!(from <= data.start && data.start <= data.end && data.end <= len, "{data:?}");
                    assert!(bytes[from as usize..data.start as usize].iter().all(|byte| *byte == 0), "{from} {data:?}");
                    assert!(bytes.get(data.end as usize).is_none_or(|byte| *byte == 0), "{data:?}");
                }
                if round % 2 == 1 {
                    file.sync().unwrap();
                }
            }
        }
    });
}

fn whole(file: &dyn File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), len);
    bytes
}

#[test]
fn a_cut_file_grows_again_with_zeros() {
    on_every_disk(|disk| {
        let file = disk.create("a", 0).unwrap();
        file.write_at(0, &[7; 9000]).unwrap();
        file.set_len(4099).unwrap();
        assert_eq!(rest(&*file, 4096), [7; 3]);
        file.set_len(9000).unwrap();
        assert_eq!(rest(&*file, 4096), [&[7; 3][..], &[0; 4901]].concat());
        file.set_len(0).unwrap();
        assert_eq!((file.len().unwrap(), rest(&*file, 0)), (0, vec![]));
    });
}

#[test]
fn an_append_is_read_once_it_returned_and_not_past_its_end() {
    on_every_disk(|disk| {
        for (name, access) in [("a", Access::SyncOften), ("b", Access::SyncSeldom)] {
            let mut tail = disk.create_tail(name, 9000, access).unwrap();
            let file = tail.file().clone();
            assert_eq!((file.len().unwrap(), rest(&*file, 0)), (9000, vec![]));
            tail.append(0, &[b"ab", b"", b"cd"]).unwrap();
            assert_eq!(rest(&*file, 0), b"abcd");
            tail.append(8, &[b"ij"]).unwrap();
            assert_eq!(rest(&*file, 1), b"bcd\0\0\0\0ij");
            assert_eq!(file.read_at(10, &mut [0; 4]).unwrap(), 0);
            tail.append(4090, &[&[1; 4000], &[2; 910]]).unwrap();
            assert_eq!(rest(&*file, 8089), [&[1][..], &[2; 910]].concat());
            tail.append(9000, &[]).unwrap();
            file.sync().unwrap();
            assert_eq!(rest(&*disk.open(name).unwrap(), 0), rest(&*file, 0));
        }
    });
}

#[test]
fn an_append_of_many_pieces_is_one() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 5000, Access::SyncOften).unwrap();
        let bytes: Vec<u8> = (0..5000).map(|index| (index % 251) as u8).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(2).flat_map(|piece| [piece, &[]]).collect();
        tail.append(0, &pieces).unwrap();
        assert_eq!(rest(&**tail.file(), 0), bytes);
    });
}

/// Small appends and large ones follow each other, in pieces of any length, and are read through the tail, by name, and after it is gone.
#[test]
fn appends_of_any_size_follow_each_other() {
    on_every_disk(|disk| {
        for (name, access) in [("a", Access::SyncOften), ("b", Access::SyncSeldom)] {
            let mut tail = disk.create_tail(name, 1 << 20, access).unwrap();
            let (mut at, mut expected) = (0u64, Vec::new());
            for (nth, len) in [3, 13, 16_384, 8, 70_000, 1, 16_383, 200_001, 24, 16_390].into_iter().enumerate() {
                let bytes: Vec<u8> = (0..len).map(|index| (index * 7 + nth) as u8).collect();
                let (first, second) = (len / 3, len / 2);
                let pieces = [&bytes[..first], &[], &bytes[first..second], &bytes[second..]];
                tail.append(at, &pieces).unwrap();
                at += len as u64;
                expected.extend_from_slice(&bytes);
                assert!(whole(&**tail.file(), expected.len()) == expected, "{len} bytes");
                if nth % 3 == 0 {
                    tail.file().sync().unwrap();
                }
            }
            refused(tail.append(at - 1, &[&[1; 20_000]]), io::ErrorKind::InvalidInput);
            refused(tail.append(at, &[&vec![1; 1 << 20]]), io::ErrorKind::InvalidInput);
            let file = Arc::clone(tail.file());
            drop(tail);
            assert!(whole(&*file, expected.len()) == expected, "through the handle of the tail");
            assert!(whole(&*disk.open(name).unwrap(), expected.len()) == expected, "by name");
        }
    });
}

#[test]
fn an_append_that_does_not_fit_changes_nothing() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 100, Access::SyncOften).unwrap();
        tail.append(10, &[b"0123456789"]).unwrap();
        for at in [0, 10, 19, 98, 100, 101, u64::MAX - 1, u64::MAX] {
            refused(tail.append(at, &[b"x", b"yz"]), io::ErrorKind::InvalidInput);
        }
        refused(tail.append(19, &[]), io::ErrorKind::InvalidInput);
        refused(tail.append(101, &[]), io::ErrorKind::InvalidInput);
        assert_eq!(rest(&**tail.file(), 10), b"0123456789");
        tail.append(20, &[&[5; 80]]).unwrap();
        refused(tail.append(100, &[b"x"]), io::ErrorKind::InvalidInput);
        assert_eq!(rest(&**tail.file(), 99), [5]);
    });
}

#[test]
fn an_empty_tail_takes_nothing() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 0, Access::SyncOften).unwrap();
        tail.append(0, &[b""]).unwrap();
        refused(tail.append(0, &[b"x"]), io::ErrorKind::InvalidInput);
        assert_eq!(rest(&**tail.file(), 0), b"");
    });
}

#[test]
fn a_file_with_a_live_tail_is_not_cut_or_written_over() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 9000, Access::SyncOften).unwrap();
        tail.append(0, &[&[3; 5000]]).unwrap();
        let (file, other) = (tail.file().clone(), disk.open("a").unwrap());
        for handle in [&file, &other] {
            refused(handle.set_len(6000), io::ErrorKind::InvalidInput);
            refused(handle.write_at(6000, b"x"), io::ErrorKind::InvalidInput);
        }
        drop(tail);
        refused(other.set_len(4999), io::ErrorKind::InvalidInput);
        refused(file.set_len(0), io::ErrorKind::InvalidInput);
        other.set_len(5000).unwrap();
        assert_eq!((rest(&*file, 0), rest(&*other, 0)), (vec![3; 5000], vec![3; 5000]));
        refused(file.write_at(5000, b"x"), io::ErrorKind::InvalidInput);
        other.write_at(5000, b"x").unwrap();
        assert_eq!((rest(&*file, 4999), rest(&*other, 4999)), (vec![3], vec![3, b'x']));
        drop(file);
        other.set_len(10).unwrap();
        assert_eq!(rest(&*other, 0), [3; 10]);
    });
}

#[test]
fn a_removed_file_stays_readable_and_frees_its_name() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 100, Access::SyncOften).unwrap();
        tail.append(0, &[b"old"]).unwrap();
        let (file, other) = (tail.file().clone(), disk.open("a").unwrap());
        disk.remove("a").unwrap();
        refused(disk.remove("a"), io::ErrorKind::NotFound);
        refused(disk.open("a"), io::ErrorKind::NotFound);
        tail.append(3, &[b"er"]).unwrap();
        disk.create("a", 0).unwrap().write_at(0, b"new").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!((rest(&*file, 0), other.read_at(0, &mut [0; 5]).unwrap()), (b"older".to_vec(), 5));
        file.sync().unwrap();
        assert_eq!(rest(&*disk.open("a").unwrap(), 0), b"new");
    });
}

#[test]
fn syncs_can_be_repeated() {
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", 100, Access::SyncSeldom).unwrap();
        for round in 0..3 {
            tail.append(round * 10, &[b"x"]).unwrap();
            tail.file().sync().unwrap();
            tail.file().sync().unwrap();
            disk.sync_dir().unwrap();
        }
    });
}

#[test]
fn absurd_positions_and_lengths_are_errors() {
    on_every_disk(|disk| {
        let file = disk.create("a", 10).unwrap();
        for at in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            refused(file.read_at(at, &mut [0; 2]), io::ErrorKind::InvalidInput);
            refused(file.write_at(at, b"xy"), io::ErrorKind::InvalidInput);
        }
        assert!(file.set_len(u64::MAX).is_err() && file.set_len(i64::MAX as u64 + 1).is_err());
        for len in [i64::MAX as u64 + 1, u64::MAX] {
            refused(disk.create("b", len), io::ErrorKind::InvalidInput);
            refused(disk.create_tail("b", len, Access::SyncOften), io::ErrorKind::InvalidInput);
        }
        assert_eq!((file.len().unwrap(), listed(disk).len()), (10, 2), "nothing came of it");
        let tail = disk.create_tail("b", 10, Access::SyncOften).unwrap();
        assert_eq!(tail.file().read_at(u64::MAX, &mut [0; 2]).unwrap(), 0);
    });
}

#[test]
fn random_numbers_differ_and_nothing_is_forked() {
    on_every_disk(|disk| {
        let mut numbers: Vec<_> = (0..100).map(|_| disk.random()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
        assert!(!disk.is_forked());
    });
}

/// Record `index` fills 16 bytes: its number twice, the second time inverted.
fn record(index: u64) -> [[u8; 8]; 2] {
    [index.to_le_bytes(), (!index).to_le_bytes()]
}

#[test]
fn readers_in_other_threads_see_whole_appends_in_order() {
    const RECORDS: u64 = 20_000;
    on_every_disk(|disk| {
        let mut tail = disk.create_tail("a", RECORDS * 16, Access::SyncSeldom).unwrap();
        let (file, done) = (tail.file().clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < RECORDS {
                    let stop = done.load(Ordering::Acquire);
                    let mut buf = [0; 16 * 64];
                    let count = file.read_at(seen * 16, &mut buf).unwrap();
                    assert_eq!(count % 16, 0, "an append is visible whole or not at all");
                    for found in buf[..count].chunks(16) {
                        assert_eq!(found, record(seen).concat());
                        seen += 1;
                    }
                    assert!(count > 0 || !stop, "what was appended before is visible");
                }
            });
            for index in 0..RECORDS {
                let [number, inverse] = record(index);
                tail.append(index * 16, &[&number, &inverse]).unwrap();
            }
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
    });
}

/// The handles of a random history, the same on each disk.
#[derive(Default)]
struct Player {
    files: Vec<Arc<dyn File>>,
    tails: Vec<Box<dyn Tail>>,
}

impl Player {
    /// Draws one request, makes it, and says what came of it.
    fn step(&mut self, disk: &dyn Disk, rng: &mut Rng) -> String {
        let name = ["a", "b", "c"][rng.index(3)];
        let (at, len) = (rng.below(12_000), rng.index(6000));
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        let (file, tail) = (rng.index(self.files.len()), rng.index(self.tails.len()));
        let told = |result: io::Result<()>| result.map_err(|error| error.kind());
        match rng.below(14) {
            0 => format!("create {:?}", told(disk.create(name, at).map(|file| self.files.push(file)))),
            1 => {
                let made = disk.create_tail(name, at, Access::SyncOften);
                format!("create tail {:?}", told(made.map(|tail| self.tails.push(tail))))
            }
            2 => format!("open {:?}", told(disk.open(name).map(|file| self.files.push(file)))),
            3 => format!("remove {:?}", told(disk.remove(name))),
            4 => format!("list {:?}", listed(disk)),
            5 if !self.files.is_empty() => {
                self.files.swap_remove(file);
                "close".to_owned()
            }
            6 if !self.tails.is_empty() => {
                let tail = self.tails.swap_remove(tail);
                if len % 2 == 0 {
                    self.files.push(tail.file().clone());
                }
                "end tail".to_owned()
            }
            7 if !self.files.is_empty() => format!("cut {:?}", told(self.files[file].set_len(at))),
            8 if !self.files.is_empty() => format!("write {:?}", told(self.files[file].write_at(at, &bytes))),
            9 if !self.files.is_empty() => format!("sync {:?}", told(self.files[file].sync())),
            10 if !self.files.is_empty() => {
                let handle = &self.files[file];
                format!("read {:?} {:?}", handle.len().map_err(|error| error.kind()), rest(&**handle, at / 2))
            }
            11 | 12 if !self.tails.is_empty() => {
                let (first, second) = bytes.split_at(len / 3);
                let at = rest(&**self.tails[tail].file(), 0).len() as u64 + [0, 0, 0, 17, at][len % 5];
                let done = told(self.tails[tail].append(at.saturating_sub(u64::from(len % 7 == 0)), &[first, second]));
                format!("append {done:?} {:?}", rest(&**self.tails[tail].file(), 0))
            }
            _ => format!("sync names {:?}", told(disk.sync_dir())),
        }
    }
}

#[test]
fn random_histories_are_the_same_on_every_disk() {
    for seed in 0..30 {
        let disks = disks();
        let mut players: Vec<_> = disks.iter().map(|_| (Player::default(), Rng::new(seed))).collect();
        for step in 0..80 {
            let told = disks.iter().zip(&mut players).map(|((.., disk, _), (player, rng))| player.step(&**disk, rng));
            let told: Vec<_> = told.collect();
            for (other, (name, ..)) in told.iter().zip(&disks) {
                assert_eq!(&told[0], other, "seed {seed}, step {step}, on {name}");
            }
        }
    }
}
