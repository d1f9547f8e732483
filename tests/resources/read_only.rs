//! A directory that may not be written to: a typed error, and nothing in it is touched, not even a time.

use crate::child::{self, say};
use millpond::{Error, Store};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user that nothing belongs to, as a rule.
const NOBODY: u32 = 65_534;

/// All that may not change: bytes, times, permissions, the file behind each name.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, Vec<i64>)> {
    let mut found = BTreeMap::new();
    let mut paths = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).expect("it can be listed") {
        paths.push(entry.expect("it can be listed").path());
    }
    for path in paths {
        let facts = std::fs::metadata(&path).expect("it is there");
        let bytes = if facts.is_file() { std::fs::read(&path).expect("it is readable") } else { Vec::new() };
        let numbers = vec![facts.mtime(), facts.mtime_nsec(), i64::from(facts.mode()), facts.ino() as i64];
        found.insert(path, (bytes, numbers));
    }
    found
}

/// A directory with a store that was closed, or left, and one with nothing in it.
fn stores(dir: &Path) -> [PathBuf; 3] {
    let stores = ["closed", "left", "empty"].map(|name| dir.join(name));
    for (path, is_closed) in stores.iter().zip([true, false]) {
        let store = Store::open(path).expect("it opens");
        store.topic("t").open().expect("it opens").publish("m").expect("it publishes");
        if is_closed {
            store.close().expect("it closes");
        }
    }
    std::fs::create_dir(&stores[2]).expect("it can be made");
    stores
}

#[test]
fn a_directory_mounted_read_only_is_refused_and_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    for path in stores(dir.path()) {
        let before = snapshot(&path);
        let mounted = match Mounted::read_only(&path) {
            Ok(mounted) => mounted,
            Err(why) => return crate::say(&format!("SKIPPED: a read-only mount: {why}")),
        };
        assert_refused(&Store::open(&path), libc::EROFS);
        drop(mounted);
        assert!(snapshot(&path) == before, "{} was touched", path.display());
    }
}

/// Permissions do not bind root, so a child gives up being root.
#[test]
fn a_directory_that_only_others_may_write_to_is_refused_and_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    for path in stores(dir.path()) {
        for file in snapshot(&path).keys().filter(|_| is_root) {
            chown(file, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        // The files may be written to: whoever tries that first finds out too late.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o500)).expect("it is ours");
        let before = snapshot(&path);
        let mut said = Vec::new();
        let status = child::run(child::command("child_process", "open", &path), |line| said.push(line.to_owned()));
        assert!(status.success() && said.iter().any(|line| line == "fine"), "{status}: {said:#?}");
        assert!(snapshot(&path) == before, "{} was touched", path.display());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("it is ours");
    }
}

/// The body of the child.
pub(crate) fn work(dir: &Path) {
    if rustix::process::geteuid().is_root() {
        become_nobody();
    }
    assert_refused(&Store::open(dir), libc::EACCES);
    say("fine");
}

fn assert_refused(opened: &millpond::Result<Store>, errno: i32) {
    match opened {
        Err(Error::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(errno), "{source}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a directory that may not be written to was opened"),
    }
}

#[allow(unsafe_code, reason = "no safe call gives up being root in all threads")]
fn become_nobody() {
    // SAFETY: each takes a number; the C library sees to it that all threads of the process change.
    let gid = unsafe { libc::setgid(NOBODY) };
    // SAFETY: as above.
    let uid = unsafe { libc::setuid(NOBODY) };
    assert_eq!((gid, uid), (0, 0), "root may become anybody");
}

/// A directory mounted over itself.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn read_only(path: &'a Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount".to_owned());
        }
        run(Command::new("mount").arg("--bind").arg(path).arg(path))?;
        let mounted = Self(path);
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(path))?;
        Ok(mounted)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("umount").arg(self.0)) {
            crate::say(&why);
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
