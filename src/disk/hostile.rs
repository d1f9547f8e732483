//! Real directories as they may be found: locked, shared, foreign, full, or laid with traps.
//!
//! Never here: what every disk does; see `conformance`.

use super::{Access, AttachError, Disk, LOCK_NAME, OWNER_AT, OpenOptions, RealDisk, map};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use tempfile::TempDir;

fn attach(path: &Path) -> Result<RealDisk, AttachError> {
    RealDisk::attach(path, &OpenOptions::default())
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn assert_locked(path: &Path, expected: Option<u32>) {
    match attach(path) {
        Err(AttachError::Locked { pid }) => assert_eq!(pid, expected),
        other => panic!("{other:?}"),
    }
}

/// Every entry with its permissions, time of change and content.
fn picture(path: &Path) -> BTreeMap<PathBuf, String> {
    let picture = |path: PathBuf| {
        let found = path.symlink_metadata().unwrap();
        let text = format!("{:?} {:?} {:?}", found.permissions(), found.modified().unwrap(), fs::read(&path));
        (path, text)
    };
    fs::read_dir(path).unwrap().map(|entry| picture(entry.unwrap().path())).collect()
}

/// Where `path` is, seen from the working directory.
fn relative(path: &Path) -> PathBuf {
    let up = std::env::current_dir().unwrap().components().count() - 1;
    let mut relative: PathBuf = std::iter::repeat_n("..", up).collect();
    relative.extend(path.canonicalize().unwrap().components().skip(1));
    relative
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_second_attachment_is_refused_by_any_path() {
    let home = directory();
    let (path, link) = (home.path().join("data"), home.path().join("link"));
    let disk = attach(&path).unwrap();
    symlink(&path, &link).unwrap();
    let paths = [path.clone(), link, relative(&path), path.join("../data/.")];
    paths.iter().for_each(|path| assert_locked(path, None));
    disk.open(LOCK_NAME).unwrap().write_at(OWNER_AT + 4095, &[0]).unwrap();
    disk.note_owner();
    paths.iter().for_each(|path| assert_locked(path, Some(std::process::id())));
    drop(disk);
    let disk = attach(&path).unwrap();
    assert_locked(&path, Some(std::process::id()));
    assert_eq!(disk.list().unwrap().len(), 1);
}

#[test]
fn the_note_of_the_owner_touches_its_own_bytes_alone() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    disk.open(LOCK_NAME).unwrap().write_at(0, &[0xAA; 16_384]).unwrap();
    disk.note_owner();
    drop(disk);
    let mut expected = vec![0xAA; 16_384];
    let note = &mut expected[OWNER_AT as usize..][..32];
    note.fill(0);
    let pid = std::process::id().to_string();
    note[..pid.len()].copy_from_slice(pid.as_bytes());
    assert_eq!(fs::read(home.path().join(LOCK_NAME)).unwrap(), expected);
}

#[test]
fn a_note_that_is_no_number_is_no_number() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let store = disk.open(LOCK_NAME).unwrap();
    let digits = [b'1'; 32];
    let notes: [(&[u8], Option<u32>); 8] = [
        (b"123\0garbage", Some(123)),
        (b"4294967295\0", Some(u32::MAX)),
        (b"4294967296\0", None),
        (b"+5\0", None),
        (b"12x\0", None),
        (b"\0", None),
        (&[0xFF; 32], None),
        (&digits, None),
    ];
    for (note, expected) in notes {
        store.write_at(OWNER_AT, &[0; 32]).unwrap();
        store.write_at(OWNER_AT, note).unwrap();
        assert_locked(home.path(), expected);
    }
}

#[test]
fn the_lock_lives_as_long_as_any_handle() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let file = disk.create("file", 10).unwrap();
    let tail = disk.create_tail("tail", 10, Access::SyncOften).unwrap();
    let through = tail.file().clone();
    drop(disk);
    assert_locked(home.path(), None);
    drop(file);
    assert_locked(home.path(), None);
    drop(tail);
    assert_locked(home.path(), None);
    drop(through);
    attach(home.path()).unwrap();
}

#[test]
fn of_many_who_lay_out_a_store_at_once_one_gets_it() {
    for _ in 0..40 {
        let home = directory();
        let (path, barrier) = (home.path().join("a/b"), Barrier::new(6));
        let race = || {
            barrier.wait();
            let disk = attach(&path);
            if let Ok(disk) = &disk {
                disk.create("0000000000000001.seg", 10).unwrap();
            }
            barrier.wait();
            match disk {
                Ok(_) => true,
                Err(AttachError::Locked { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        };
        let winners = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..6).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1);
    }
}

#[test]
fn missing_directories_are_made_private() {
    let home = directory();
    let path = home.path().join("a/b/../c");
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    assert!(matches!(RealDisk::attach(&path, &options), Err(AttachError::NotFound)));
    assert_eq!(picture(home.path()).len(), 0);
    let disk = attach(&path).unwrap();
    disk.create("f", 3).unwrap();
    for (name, mode) in [("a", 0o700), ("a/b", 0o700), ("a/c", 0o700), ("a/c/STORE", 0o600), ("a/c/f", 0o600)] {
        assert_eq!(fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
    }
    drop(disk);
    RealDisk::attach(&path, &options).unwrap();
}

#[test]
fn without_leave_to_create_an_empty_directory_stays_empty() {
    let home = directory();
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    assert!(matches!(RealDisk::attach(home.path(), &options), Err(AttachError::NotFound)));
    assert_eq!(picture(home.path()).len(), 0);
}

#[test]
fn what_is_no_directory_is_told() {
    let home = directory();
    fs::write(home.path().join("file"), b"text").unwrap();
    symlink("nowhere", home.path().join("dangling")).unwrap();
    for path in ["file", "file/inside", "file/inside/deep"] {
        assert!(matches!(attach(&home.path().join(path)), Err(AttachError::NotADirectory)), "{path}");
    }
    assert!(matches!(attach(&home.path().join("dangling")), Err(AttachError::Io { .. })));
    assert_eq!(picture(home.path()).len(), 2);
    assert!(attach(Path::new("/proc/millpond-cannot-be-made")).is_err());
}

#[test]
fn a_foreign_directory_is_left_alone() {
    for foreign in ["letter.txt", "STORE2", "store"] {
        let home = directory();
        fs::write(home.path().join(foreign), b"dear").unwrap();
        fs::create_dir(home.path().join("zzz")).unwrap();
        let before = picture(home.path());
        match attach(home.path()) {
            Err(AttachError::NotAStore { found }) => assert_eq!(found, foreign),
            other => panic!("{other:?}"),
        }
        assert_eq!(picture(home.path()), before);
    }
}

#[test]
fn what_systems_leave_in_empty_directories_does_no_harm() {
    let home = directory();
    fs::create_dir(home.path().join("lost+found")).unwrap();
    fs::write(home.path().join(".DS_Store"), b"x").unwrap();
    let disk = attach(home.path()).unwrap();
    let mut names: Vec<_> = disk.list().unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, [".DS_Store", LOCK_NAME]);
}

/// The process that left it empty may not have come to sync the directory, or a sync may have failed for good: only a new name can be
/// made durable then.
#[test]
fn an_empty_lock_file_is_replaced_by_a_new_one() {
    let number = |home: &Path| fs::metadata(home.join(LOCK_NAME)).unwrap().ino();
    let home = directory();
    fs::write(home.path().join(".STORE"), b"left by one that died here").unwrap();
    fs::write(home.path().join(LOCK_NAME), b"").unwrap();
    let before = number(home.path());
    let old = fs::File::open(home.path().join(LOCK_NAME)).unwrap();
    let disk = attach(home.path()).unwrap();
    assert_ne!(number(home.path()), before);
    assert_eq!(old.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    assert!(matches!(attach(home.path()), Err(AttachError::Locked { .. })), "the new one is locked");
    disk.open(LOCK_NAME).unwrap().write_at(0, b"x").unwrap();
    drop(disk);
    let kept = number(home.path());
    drop(attach(home.path()).unwrap());
    assert_eq!(number(home.path()), kept, "one with bytes in it stays");
}

#[test]
fn a_lock_file_that_is_no_file_of_ours_is_refused() {
    let traps: [fn(&Path); 4] = [
        |path| symlink("elsewhere", path).unwrap(),
        |path| {
            fs::write(path.with_file_name("elsewhere"), b"").unwrap();
            symlink("elsewhere", path).unwrap();
        },
        |path| fs::create_dir(path).unwrap(),
        make_fifo,
    ];
    for trap in traps {
        let home = directory();
        trap(&home.path().join(LOCK_NAME));
        let kinds = || fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = kinds();
        match attach(home.path()) {
            Err(AttachError::NotAStore { found }) => assert!(found.starts_with(LOCK_NAME)),
            other => panic!("{other:?}"),
        }
        assert_eq!(kinds(), before);
    }
}

#[test]
fn traps_are_not_opened() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let path = |name: &str| home.path().join(name);
    fs::write(path("victim"), b"secret").unwrap();
    fs::write(path("alone"), b"secret").unwrap();
    symlink("alone", path("link")).unwrap();
    symlink("/dev/zero", path("device")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    fs::hard_link(path("victim"), path("twin")).unwrap();
    make_fifo(&path("fifo"));
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    fs::write(home.path().join(OsStr::from_bytes(b"not\xFFtext")), b"").unwrap();
    for name in ["link", "device", "directory", "fifo", "socket"] {
        let error = disk.open(name).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
    }
    assert_eq!(disk.create("link", 10).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let mut names: Vec<_> = disk.list().unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, [LOCK_NAME, "alone", "twin", "victim"]);
    disk.remove("link").unwrap();
}

/// A backup by hard links: its files can be told by their links, and the lock file can be left to it.
#[test]
fn files_tell_of_links_and_of_lost_names() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let path = |name: &str| home.path().join(name);
    let (file, tail) = (disk.create("file", 7).unwrap(), disk.create_tail("tail", 4096, Access::SyncOften).unwrap());
    for (name, file) in [("file", &file), ("tail", tail.file()), (LOCK_NAME, &disk.open(LOCK_NAME).unwrap())] {
        assert_eq!(file.links().unwrap(), 1, "{name}");
        fs::hard_link(path(name), path("twin")).unwrap();
        assert_eq!(file.links().unwrap(), 2, "{name}");
        assert_eq!(disk.open(name).unwrap().links().unwrap(), 2, "{name}");
        fs::remove_file(path(name)).unwrap();
        assert_eq!(file.links().unwrap(), 0, "{name}: another name leads to it, and its own does not");
        fs::write(path(name), b"another").unwrap();
        assert_eq!(file.links().unwrap(), 0, "{name}: its name leads to another file");
        fs::rename(path("twin"), path(name)).unwrap();
        assert_eq!(file.links().unwrap(), 1, "{name}");
    }
}

/// The new lock file is whole and locked when it gets the name; the old one is free, and as it was.
#[test]
fn a_lock_file_can_be_left_to_who_has_links_to_it() {
    let (home, elsewhere) = (directory(), directory());
    let disk = attach(home.path()).unwrap();
    let mut bytes = vec![7; OWNER_AT as usize];
    bytes.resize(OWNER_AT as usize + 4096, 0);
    let old = disk.open(LOCK_NAME).unwrap();
    old.write_at(0, &vec![1; 16 << 10]).unwrap();
    fs::hard_link(home.path().join(LOCK_NAME), elsewhere.path().join(LOCK_NAME)).unwrap();
    assert_locked(elsewhere.path(), None);
    let new = disk.replace_lock_file(&bytes).unwrap();
    assert_eq!((new.links().unwrap(), old.links().unwrap()), (1, 0));
    assert_locked(home.path(), Some(std::process::id()));
    drop(attach(elsewhere.path()).unwrap());
    assert!(fs::read(elsewhere.path().join(LOCK_NAME)).unwrap()[..OWNER_AT as usize].iter().all(|byte| *byte == 1));
    assert!(fs::read(home.path().join(LOCK_NAME)).unwrap()[..OWNER_AT as usize].iter().all(|byte| *byte == 7));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left");
    drop((old, new));
    drop(disk);
    attach(home.path()).unwrap();
}

#[test]
fn the_directory_may_move_under_the_disk() {
    let home = directory();
    let disk = attach(&home.path().join("a")).unwrap();
    fs::rename(home.path().join("a"), home.path().join("b")).unwrap();
    disk.create("file", 7).unwrap();
    assert!(home.path().join("b/file").exists() && !home.path().join("a").exists());
    assert_locked(&home.path().join("b"), None);
}

#[test]
fn a_full_disk_leaves_no_file_behind() {
    // Only a file system in memory says at once that so much will never fit.
    let Ok(home) = tempfile::tempdir_in("/dev/shm") else { return };
    let stat = rustix::fs::statvfs(home.path()).unwrap();
    let too_much = stat.f_blocks * stat.f_frsize + (1 << 20);
    if stat.f_blocks == 0 {
        return;
    }
    let disk = attach(home.path()).unwrap();
    for result in
        [disk.create("a", too_much).map(|_| ()), disk.create_tail("a", too_much, Access::SyncOften).map(|_| ())]
    {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.list().unwrap().len(), 1);
    }
    disk.create("a", 10).unwrap();
}

#[test]
fn created_files_have_their_blocks_and_tails_their_maps() {
    let home = directory();
    let kind = rustix::fs::statfs(home.path()).unwrap().f_type as u64;
    let disk = attach(home.path()).unwrap();
    let tail = disk.create_tail("tail", 1 << 20, Access::SyncOften).unwrap();
    disk.create("file", 1 << 20).unwrap();
    if [0xEF53, 0x5846_5342, 0x0102_1994].contains(&kind) {
        use std::os::unix::fs::MetadataExt;
        assert!(format!("{tail:?}").starts_with("MappedTail"));
        for name in ["tail", "file"] {
            assert!(fs::metadata(home.path().join(name)).unwrap().blocks() * 512 >= 1 << 20, "{name}");
        }
    }
}

/// The variable that turns [`holder`] from an empty test into a process that holds the lock of the directory it names.
const HELD: &str = "MILLPOND_TEST_HELD_DIRECTORY";

/// Attaches, creates files, appends, says so, and waits to be killed.
#[test]
fn holder() {
    let Some(path) = std::env::var_os(HELD) else { return };
    let disk = attach(Path::new(&path)).unwrap();
    disk.open(LOCK_NAME).unwrap().write_at(0, &[0; 16_384]).unwrap();
    disk.note_owner();
    let mut tail = disk.create_tail("tail", 100_000, Access::SyncOften).unwrap();
    tail.append(0, &[b"not synced"]).unwrap();
    io::stdout().write_all(b"\nholding\n").unwrap();
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn start_holder(path: &Path, umask: &str) -> Child {
    let script = format!("umask {umask}; exec \"$0\" --exact disk::hostile::holder --nocapture");
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().unwrap())
        .env(HELD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "holding"), "the holder died");
    child
}

#[test]
fn a_killed_process_frees_the_lock_and_keeps_what_it_appended() {
    let home = directory();
    let path = home.path().join("a/data");
    for round in 0..5 {
        let mut child = start_holder(&path, "0777");
        assert_locked(&path, Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let disk = attach(&path).unwrap();
        let mut found = [0; 11];
        disk.open("tail").unwrap().read_at(0, &mut found).unwrap();
        assert_eq!(&found, b"not synced\0", "round {round}");
        for (name, mode) in [("", 0o700), ("..", 0o700), (LOCK_NAME, 0o600), ("tail", 0o600)] {
            let found = fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode, "{name:?}, whatever the umask");
        }
        disk.remove("tail").unwrap();
    }
}

#[test]
fn a_forked_child_knows_and_cannot_give_up_the_lock() {
    let home = directory();
    let disk = Arc::new(Mutex::new(Some(attach(home.path()).unwrap())));
    let childs = Arc::clone(&disk);
    assert!(map::in_child(move || {
        let disk = childs.lock().take();
        disk.is_some_and(|disk| {
            disk.detach();
            disk.is_forked()
        })
    }));
    assert!(disk.lock().as_ref().is_some_and(|disk| !disk.is_forked()));
    assert_locked(home.path(), None);
}

#[test]
fn a_process_being_spawned_does_not_keep_the_lock() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let ((mut started, starting), (waiting, mut go)) = (io::pipe().unwrap(), io::pipe().unwrap());
    std::thread::scope(|scope| {
        let spawner = scope.spawn(move || {
            map::in_child(move || (&starting).write_all(&[1]).is_ok() && (&waiting).read_exact(&mut [0]).is_ok())
        });
        started.read_exact(&mut [0]).unwrap();
        drop(disk);
        let again = attach(home.path());
        // The child goes on whatever came of it.
        go.write_all(&[1]).unwrap();
        assert!(spawner.join().unwrap());
        again.unwrap();
    });
}

#[test]
fn a_file_changed_from_outside_is_seen_by_readers() {
    let home = directory();
    let disk = attach(home.path()).unwrap();
    let mut tail = disk.create_tail("tail", 8192, Access::SyncOften).unwrap();
    tail.append(0, &[b"mapped"]).unwrap();
    let outside = fs::OpenOptions::new().write(true).open(home.path().join("tail")).unwrap();
    outside.write_all_at(b"M", 0).unwrap();
    let mut found = [0; 6];
    assert_eq!(tail.file().read_at(0, &mut found).unwrap(), 6);
    assert_eq!(&found, b"Mapped", "maps and system calls share the page cache");
}
